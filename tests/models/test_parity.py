"""Whether a graph answers as its network does in torch, and what a card says of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from sonoloop.errors import ModelError
from sonoloop.models.bundle import Bundle
from sonoloop.models.card import PARITY, Card, ModelSpec
from sonoloop.models.engines import parity as engines_parity
from sonoloop.models.engines.parity import Parity, check_graph_answers, simulated_cases
from sonoloop.models.origin import NOT_RECORDED, describe_parity

CARD = Card(name="bright", spec=ModelSpec(size=64), views=1)
CLASSES = np.float32([[0, 3, 0]])


class Bright(torch.nn.Module):
    """Takes for a lesion what is bright."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images * 20, torch.from_numpy(CLASSES).tile(len(images), 1) + images.mean((2, 3)) * 0


def graph_of(*, gain: float, classes: np.ndarray = CLASSES) -> bytes:
    """Write the same as a graph, or nearly."""
    stored = {"gain": np.float32(gain).reshape(1), "zero": np.zeros((1, 3), np.float32), "classes_": classes}
    nodes = [
        helper.make_node("Mul", ["images", "gain"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["lesion"]),
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "classes_"], ["classes"]),
    ]
    shapes = {"images": ["batch", 1, 64, 64], "lesion": ["batch", 1, 64, 64], "classes": ["batch", 3]}
    values = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()}
    graph = helper.make_graph(
        nodes,
        "g",
        [values["images"]],
        [values["lesion"], values["classes"]],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_a_graph_that_answers_as_torch_does_is_taken_and_its_card_says_so():
    parity = check_graph_answers(graph_of(gain=20), Bundle(CARD, Bright()))
    assert (parity.holds, parity.frames) == (True, 6)
    assert describe_parity(replace(CARD, metrics={PARITY: parity.figures()})) == (
        "mean Dice differs by 0.0000, 0 lesions are lost, class probabilities differ by 0.0000, on 6 frames"
    )
    known = simulated_cases(1)
    assert check_graph_answers(graph_of(gain=20), Bundle(CARD, Bright()), known).frames == len(known)


@pytest.mark.parametrize(
    "graph",
    [graph_of(gain=-20), graph_of(gain=1e-9), graph_of(gain=20, classes=np.float32([[0, 2, 0]]))],
    ids=["it sees what is dark", "it sees nothing", "it is less sure of the class"],
)
def test_a_graph_that_answers_otherwise_is_refused(graph):
    with pytest.raises(ModelError, match="on 6 frames the graph answers otherwise than torch: mean Dice"):
        check_graph_answers(graph, Bundle(CARD, Bright()))


def test_each_lesion_that_is_lost_counts():
    theirs = np.zeros((8, 8), np.uint8)
    theirs[1, 1:3], theirs[6, 6] = 1, 2
    mine = np.zeros_like(theirs)
    mine[1, 2] = 1
    assert [engines_parity._count_lost(mask, theirs) for mask in (theirs, mine, mine * 0)] == [0, 1, 2]


@pytest.mark.parametrize(
    "told",
    [None, {}, {"images": 3}, Parity(0, 0, 0).figures() | {"images": 0.5}, {"dice_apart": {"value": 1}}],
)
def test_a_card_that_says_nothing_of_it_is_read(told):
    assert describe_parity(replace(CARD, metrics={PARITY: told})) == NOT_RECORDED
