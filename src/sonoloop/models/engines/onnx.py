"""ONNX Runtime: a bundle's graph on the CPU; neither torch nor a bundle's weights are needed."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from types import ModuleType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import EngineError
from sonoloop.models.card import IMAGES, OUTPUTS, Card, read_card
from sonoloop.models.engines import Engine, count_threads, first_line, import_library
from sonoloop.models.graph_check import check_graph
from sonoloop.models.kept_graphs import find_graph


class OnnxEngine(Engine):
    """A bundle's graph in ONNX Runtime; `graph` is the content of the file."""

    def __init__(self, card: Card, graph: bytes) -> None:
        super().__init__(card)
        self._graph = check_graph(graph, card)
        runtime = _runtime()
        try:
            options = runtime.SessionOptions()
            options.intra_op_num_threads = count_threads()
            # threads that wait by spinning take the time of whatever else runs
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            options.log_severity_level = 4
            self._session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no base of their own
            raise EngineError(
                f"ONNX Runtime {runtime.__version__} cannot load the graph of the model {card.model} "
                f"({first_line(error)}); use another engine with --engine, or another model"
            ) from error

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> Self:
        """Load and verify the graph of the bundle in a folder."""
        card = read_card(folder)
        return cls(card, find_graph(folder, card))

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the graph."""
        self._graph.check_batch(len(images))
        lesion, classes = self._session.run([*OUTPUTS], {IMAGES: np.ascontiguousarray(images)})
        return lesion, classes

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether memory ran out; it says so in words only."""
        words = ("bad_alloc", "bad allocation", "Failed to allocate memory", "out of memory")
        return isinstance(error, MemoryError) or any(told in str(error) for told in words)


def is_usable() -> bool:
    """Whether ONNX Runtime is there and can be loaded."""
    try:
        _runtime()
    except EngineError:
        return False
    return True


@functools.cache
def _runtime() -> ModuleType:
    # some of its builds tell their maker how they are used: nothing is sent from here; read as it is loaded
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    # the first that knows ONNX's set 20 of operators, of which our graphs are
    runtime = import_library("onnxruntime", "ONNX Runtime", (1, 17))
    if hasattr(runtime, "disable_telemetry_events"):
        runtime.disable_telemetry_events()
    return runtime
