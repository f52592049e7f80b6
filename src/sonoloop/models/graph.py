"""A network as a graph, ``graph.onnx`` of a bundle: engines other than torch run it; made with torch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sonoloop.errors import ModelError
from sonoloop.imaging.phantom import phantom
from sonoloop.models.card import IMAGES, OUTPUTS, Card, ModelSpec
from sonoloop.models.engines import first_line
from sonoloop.models.engines.onnx import OnnxEngine
from sonoloop.models.prompts import Prompts, draw_prompts
from sonoloop.values import CLASSES, ClassName

if TYPE_CHECKING:
    import onnx

# of probabilities and of logits, computed in the same precision
_MAX_APART = 0.01
_AGAIN = "do not use it, and export the model again where it was made"

# ONNX Runtime 1.15 and newer know it, and OpenVINO 2023
_OPSET = 20
_BATCH = "batch"
# a logit whose probability is zero in every precision
_NO_LESION = -100.0


def make_graph(network: nn.Module, spec: ModelSpec) -> bytes:
    """Write a network as ONNX: images (B, C, S, S) to lesion probability and class logits.

    See `write_onnx`.
    """
    return write_onnx(_Answering(network), spec.size, spec.channels, OUTPUTS)


def write_onnx(network: nn.Module, size: int, channels: int, outputs: Sequence[str]) -> bytes:
    """Write a network of whatever answers as ONNX, of images (B, C, S, S).

    Weights that half precision holds exactly, which those of a bundle are, lie in it and are cast when the
    graph is loaded: the file is half as large, and computes the same.

    Raises
    ------
    ModelError
        If the packages `onnx` and `onnxscript` are not there, or the network cannot be written.
    """
    try:
        import onnx  # noqa: F401, PLC0415 - the training's extra brings it
        import onnx_ir  # noqa: PLC0415
        from onnxscript.optimizer import fold_constants, remove_unused_nodes  # noqa: PLC0415
    except ImportError as error:
        raise ModelError(
            f"a graph is made with the packages onnx and onnxscript, and one cannot be loaded ({error}); "
            'pip install "napari-sonoloop[train]"'
        ) from error
    try:
        # batch normalisation stays apart: fused, its weights would need full precision
        model = onnx_ir.from_proto(_export(network, (2, channels, size, size), outputs))
        # what one round makes constant, the next one can use
        for _ in range(2):
            fold_constants(model, onnx_shape_inference=False)
            remove_unused_nodes(model)
        proto = onnx_ir.to_proto(model)
    except Exception as error:  # exporters raise whatever they come upon
        fault = str(error).partition("\n")[0] or type(error).__name__
        raise ModelError(f"the network cannot be written as a graph: {fault}") from error
    _strip(proto)
    _halve(proto)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


@torch.inference_mode()
def prove_graph(graph: bytes, network: nn.Module, card: Card) -> None:
    """Refuse a graph that ONNX Runtime does not take, or that answers otherwise than its network."""
    prepared = np.stack([_prepare(kind, card.spec) for kind in CLASSES])
    engine = OnnxEngine(card, graph)
    try:
        mine = engine.run(prepared)
    except Exception as error:  # its exceptions have no base of their own
        raise ModelError(
            f"the graph of the model {card.model} cannot compute an image ({first_line(error)}); {_AGAIN}"
        ) from error
    theirs = [each.numpy() for each in _Answering(network).eval()(torch.from_numpy(prepared))]
    apart = max(float(np.abs(one - other).max()) for one, other in zip(mine, theirs, strict=True))
    # NaN is not near either
    if not apart <= _MAX_APART:
        raise ModelError(
            f"the graph of the model {card.model} answers otherwise than its network, by {apart:g}; {_AGAIN}"
        )


def _prepare(kind: ClassName, spec: ModelSpec) -> NDArray[np.float32]:
    """Make a simulated image as a network sees it, with a click where it takes prompts, (C, S, S)."""
    shown = phantom(kind, seed=1, shape=(spec.size,) * 2).image[None].astype(np.float32) / 127.5 - 1
    if not spec.takes_prompts:
        return shown
    middle = spec.size / 2
    return np.concatenate([shown, draw_prompts(spec.size, Prompts().click(middle, middle))])


class _Answering(nn.Module):
    """Answers as `sonoloop.models.engines.Engine.run` does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        lesion, classes = self.network(images)
        if lesion is None:
            lesion = torch.full_like(images[:, :1], _NO_LESION)
        # an infinite one would pass for certainty
        return torch.where(lesion.isinf(), torch.nan, lesion).sigmoid(), classes


def _export(network: nn.Module, shape: tuple[int, ...], outputs: Sequence[str]) -> onnx.ModelProto:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # of deprecated parts of torch that its exporter uses
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network.eval(),
                (torch.zeros(shape),),
                dynamo=True,
                optimize=False,
                opset_version=_OPSET,
                input_names=[IMAGES],
                output_names=[*outputs],
                dynamic_shapes={"images": {0: torch.export.Dim(_BATCH)}},
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    return program.model_proto


def _strip(proto: onnx.ModelProto) -> None:
    """Remove what is not computed: it names files of the machine, and differs from run to run."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    graph.name = "sonoloop"
    proto.producer_name, proto.producer_version = "sonoloop", ""
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{number}"


def _halve(proto: onnx.ModelProto) -> None:
    """Store weights that half precision holds exactly in it, each with a cast."""
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415 - the training's extra brings it

    casts = []
    for tensor in proto.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
