"""A model that takes prompts, given none: it answers then as any other does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sonoloop.models.engines import Array, Engine, load_engine
from sonoloop.models.preprocess import namespace


class Unprompted(Engine):
    """An engine whose model takes prompts, made one of images alone; any other engine is passed on to.

    So such a model can be judged as an automatic one, and engines be compared on it.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(replace(engine.card, spec=engine.card.spec.without_prompts))
        self._engine, self._added = engine, engine.card.spec.channels - 1
        self.name = engine.name

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> Self:
        """Load a bundle into torch."""
        return cls(load_engine("torch", folder, device))

    @property
    def device(self) -> str:  # type: ignore[override]
        """Where the engine runs."""
        return self._engine.device

    @property
    def precision(self) -> str:  # type: ignore[override]
        """In what the engine computes."""
        return self._engine.precision

    def run(self, images: Array) -> tuple[Array, Array]:
        """Run with nothing in the channels of prompts."""
        xp = namespace(images)
        return self._engine.run(xp.concatenate([images, *[xp.zeros_like(images)] * self._added], 1))

    def put(self, values: NDArray[np.float32]) -> Array:
        """As the engine does."""
        return self._engine.put(values)

    def upload(self, values: Array) -> Array:
        """As the engine does."""
        return self._engine.upload(values)

    def fetch(self, values: Array) -> NDArray[np.float32]:
        """As the engine does."""
        return self._engine.fetch(values)

    def is_out_of_memory(self, error: Exception) -> bool:
        """As the engine says."""
        return self._engine.is_out_of_memory(error)

    def free(self) -> None:
        """As the engine does."""
        self._engine.free()

    def move_to_cpu(self) -> None:
        """As the engine does."""
        self._engine.move_to_cpu()
