"""What runs a network: one file an engine, and one line in `ENGINES`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import ModelError
from sonoloop.models.card import Card
from sonoloop.models.torch_import import before_torch

# numpy's, or torch's where torch is the engine
Array: TypeAlias = Any

# each is imported when it is asked for
ENGINES = {
    "torch": "sonoloop.models.engines.torch:TorchEngine",
    "onnx": "sonoloop.models.engines.onnx:OnnxEngine",
}


class Engine(ABC):
    """A loaded model that runs batches; of images, views and lesions it knows nothing."""

    device = "cpu"
    precision = "float32"

    def __init__(self, card: Card) -> None:
        self.card = card

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, device: str = "auto") -> Self:
        """Load and verify the bundle in a folder."""

    @abstractmethod
    def run(self, images: Array) -> tuple[Array, Array]:
        """Give lesion probability (B, 1, S, S) and class logits (B, 3) of images (B, 1, S, S) in [-1, 1]."""

    def put(self, values: NDArray[np.float32]) -> Array:
        """Turn an array on the CPU to the kind that is prepared for `run`."""
        return values

    def upload(self, values: Array) -> Array:
        """Bring a prepared batch to where it runs, so that its views are made there."""
        return values

    def fetch(self, values: Array) -> NDArray[np.float32]:
        """Turn what `run` gave, or what was computed of it, to numpy's kind."""
        return np.asarray(values)

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether an error of `run` says that memory ran out."""
        return isinstance(error, MemoryError)

    def free(self) -> None:  # noqa: B027 - most keep none
        """Give back memory that is kept and not used."""

    def move_to_cpu(self) -> None:  # noqa: B027 - most are there already
        """Go on on the CPU; asked of an engine that is elsewhere."""


def load_engine(name: str, folder: Path, device: str = "auto") -> Engine:
    """Load a bundle into the engine of that name."""
    if name not in ENGINES:
        raise ModelError(f"there is no engine {name!r}; use one of {', '.join(ENGINES)}")
    if name == "torch":
        before_torch()
    engine: type[Engine] = resolve_name(ENGINES[name])
    return engine.load(folder, device)
