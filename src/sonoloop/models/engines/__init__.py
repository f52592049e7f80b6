"""What runs a network: one file an engine, and one line in `ENGINES`."""

from __future__ import annotations

import logging
import os
import re
from abc import ABC, abstractmethod
from importlib import import_module, metadata
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any, Self, TypeAlias

import numpy as np
import psutil
from numpy.typing import NDArray

from sonoloop.errors import EngineError, ModelError, SonoloopError
from sonoloop.models.card import Card
from sonoloop.models.torch_import import before_torch
from sonoloop.plain_text import shown

_log = logging.getLogger(__name__)

# numpy's, or torch's where torch is the engine
Array: TypeAlias = Any

# each is imported when it is asked for
ENGINES = {
    "torch": "sonoloop.models.engines.torch:TorchEngine",
    "onnx": "sonoloop.models.engines.onnx:OnnxEngine",
    "openvino": "sonoloop.models.engines.openvino:OpenVinoEngine",
}
# where other packages tell theirs
ENTRY_POINTS = "sonoloop.engines"


class Engine(ABC):
    """A loaded model that runs batches; of images, views and lesions it knows nothing."""

    # by which it was asked for
    name = ""
    device = "cpu"
    precision = "float32"

    def __init__(self, card: Card) -> None:
        self.card = card

    @property
    def version(self) -> str:
        """As of a bundle."""
        return self.card.version

    @property
    def model(self) -> str:
        """As of a bundle."""
        return self.card.model

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
    there = find_engines()
    if name not in there:
        raise ModelError(f"there is no engine {name!r}; use one of {', '.join(there)}")
    if name == "torch":
        before_torch()
    kind = _find_class(name, there[name])
    try:
        loaded = kind.load(folder, device)
    except SonoloopError:
        raise
    except (Exception, SystemExit) as error:  # libraries raise what they like
        raise EngineError(
            f"the engine {name} cannot load the model in {folder.name} ({first_line(error)}); use another "
            "one with --engine, or another model"
        ) from error
    if not isinstance(loaded, Engine) or not isinstance(getattr(loaded, "card", None), Card):
        raise EngineError(f"the engine {name} loads no model; use another one with --engine")
    loaded.name = name
    return loaded


def _find_class(name: str, place: str) -> type[Engine]:
    """Import the class of an engine; it may be of a stranger's package."""
    try:
        kind = resolve_name(place)
    except (Exception, SystemExit) as error:  # a broken package raises what it likes
        raise EngineError(
            f"the engine {name} cannot be loaded ({first_line(error)}); install it again"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Engine)):
        raise EngineError(
            f"the engine {name} cannot be loaded ({shown(place)} is no engine); install it again, or another "
            "version of it"
        )
    return kind


def find_engines() -> dict[str, str]:
    """List where each engine is, by its name: those above, and those that other packages tell.

    One of another package cannot take the name of ours, and of two that take one name there is neither.
    """
    others: dict[str, str] = {}
    for name, place in _list_told():
        others[name] = place if others.get(name, place) == place else f"in two packages, {place}"
    return {**others, **ENGINES}


def _list_told() -> list[tuple[str, str]]:
    """List names and places of the engines that packages tell, whatever else is damaged."""
    try:
        return [(each.name, each.value) for each in metadata.entry_points(group=ENTRY_POINTS)]
    except Exception:  # one damaged file of any package is enough
        told = []
    for package in metadata.distributions():
        try:
            told += [(each.name, each.value) for each in package.entry_points.select(group=ENTRY_POINTS)]
        except Exception as error:  # as above
            _log.warning(
                "the list of entry points of a package cannot be read (%s); if it brings an engine, install "
                "it again: %s",
                first_line(error),
                getattr(package, "_path", "a package without a place"),
            )
    return told


def import_library(module: str, name: str, oldest: tuple[int, int]) -> ModuleType:
    """Import an engine's library; one that is missing, broken or too old is an `EngineError`."""
    try:
        library = import_module(module)
    except (Exception, SystemExit) as error:  # a broken library raises what it likes
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            raise EngineError(f"{name} is not installed: pip install {module}") from error
        raise EngineError(
            f"{name} cannot be loaded ({first_line(error)}); install it again, as in: "
            f"pip install --force-reinstall {module}"
        ) from error
    version = str(getattr(library, "__version__", "0"))
    numbers = tuple(int(part) for part in re.split(r"[.\-+]", version)[:2] if part.isdecimal())
    if numbers < oldest:
        raise EngineError(
            f"{name} {version} is too old, {'.'.join(map(str, oldest))} is needed; update it, as in: "
            f"pip install --upgrade {module}"
        )
    return library


def count_threads() -> int:
    """Say how many threads compute: as many as the process may use cores, or as OMP_NUM_THREADS says."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and 0 < int(told) <= _MOST_THREADS:
        return int(told)
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return max(1, min(cores, mine))


def first_line(error: BaseException) -> str:
    """Say in a line what an error of a library says in many."""
    told = "" if isinstance(error, SystemExit) else str(error).strip().partition("\n")[0][:_MOST_LETTERS]
    return shown(told) or type(error).__name__


_MOST_THREADS, _MOST_LETTERS = 1024, 300
