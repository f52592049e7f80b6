"""ONNX Runtime: a bundle's graph on the CPU; neither torch nor a bundle's weights are needed."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import psutil
from numpy.typing import NDArray

from sonoloop.errors import EngineError
from sonoloop.models.card import GRAPH, IMAGES, OUTPUTS, Card, read_card, read_graph
from sonoloop.models.engines import Engine


class OnnxEngine(Engine):
    """A bundle's graph in ONNX Runtime; `graph` is the content of the file."""

    def __init__(self, card: Card, graph: bytes) -> None:
        super().__init__(card)
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = count_threads()
        # threads that wait by spinning take the time of whatever else runs
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        try:
            self._session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no base of their own
            raise EngineError(
                f"ONNX Runtime {runtime.__version__} cannot load the graph of the model {card.model}: "
                f"{_first_line(error)}"
            ) from error

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> Self:
        """Load and verify the graph of the bundle in a folder."""
        card = read_card(folder)
        return cls(card, read_graph(folder, card, GRAPH))

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the graph."""
        lesion, classes = self._session.run([*OUTPUTS], {IMAGES: np.ascontiguousarray(images)})
        return lesion, classes

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether memory ran out; it says so in words only."""
        words = ("bad_alloc", "bad allocation", "Failed to allocate memory", "out of memory")
        return isinstance(error, MemoryError) or any(told in str(error) for told in words)


@functools.cache
def _runtime() -> ModuleType:
    try:
        import onnxruntime  # noqa: PLC0415 - a broken one is named
    except Exception as error:  # a broken library raises what it likes
        raise EngineError(
            f"ONNX Runtime cannot be loaded ({_first_line(error)}); "
            "install it again, as in: pip install --force-reinstall onnxruntime"
        ) from error
    if _numbers(onnxruntime.__version__) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise EngineError(
            f"ONNX Runtime {onnxruntime.__version__} is too old, {oldest} is needed; "
            "update it, as in: pip install --upgrade onnxruntime"
        )
    return onnxruntime


# the first that knows the operators of our graphs, of ONNX's set 20
_OLDEST = (1, 17)


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int(part) for part in parts if part.isdecimal())


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__


def count_threads() -> int:
    """Say how many threads compute: as many as the process may use cores, or as OMP_NUM_THREADS says."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told):
        return int(told)
    cores: Any = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return max(1, min(cores, mine))
