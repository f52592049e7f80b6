"""OpenVINO: a bundle's graph on the CPU, in bfloat16 where the processor has it."""

from __future__ import annotations

import functools
import io
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

# OpenVINO's names of types
_PRECISIONS = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


class OpenVinoEngine(Engine):
    """A bundle's graph in OpenVINO; `graph` is the content of the file."""

    def __init__(self, card: Card, graph: bytes, precision: str = "") -> None:
        super().__init__(card)
        self._graph = check_graph(graph, card)
        library = _library()
        options = {"INFERENCE_NUM_THREADS": count_threads(), "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
        if precision:
            options["INFERENCE_PRECISION_HINT"] = precision
        try:
            core = library.Core()
            compiled = core.compile_model(core.read_model(io.BytesIO(graph)), "CPU", options)
            self._request = compiled.create_infer_request()
            kind = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        except Exception as error:  # its exceptions have no base of their own
            raise EngineError(
                f"OpenVINO {library.__version__} cannot load the graph of the model {card.model} "
                f"({first_line(error)}); use another engine with --engine, or another model"
            ) from error
        self.precision = _PRECISIONS.get(kind, kind)

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> Self:
        """Load and verify the graph of the bundle in a folder."""
        card = read_card(folder)
        return cls(card, find_graph(folder, card))

    def run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the graph."""
        self._graph.check_batch(len(images))
        found = self._request.infer({IMAGES: np.ascontiguousarray(images)})
        lesion, classes = (found[name] for name in OUTPUTS)
        return lesion, classes

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether memory ran out; it says so in words only."""
        words = ("bad_alloc", "bad allocation", "out of memory", "Cannot allocate")
        return isinstance(error, MemoryError) or any(told in str(error) for told in words)


@functools.cache
def _library() -> ModuleType:
    # bfloat16 by itself, and names of outputs in results
    return import_library("openvino", "OpenVINO", (2023, 1))
