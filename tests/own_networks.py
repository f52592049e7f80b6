"""Networks that are not ours, made by hand as ONNX, and what a user would write of them."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

SIZE = 64
FLOAT = TensorProto.FLOAT
TOML = """
[input]
size = 64
channels = 3
mean = [0.5, 0.4, 0.3]
std = [0.2, 0.25, 0.5]

[lesion]
output = "map"
activation = "softmax"
channels = 2
channel = 1

[classes]
output = "kind"
activation = "softmax"
order = ["malignant", "benign"]
"""


def tensor(name, values, kind=np.float32):
    return numpy_helper.from_array(np.asarray(values, kind), name)


def segmenter(*, channels=3, batch="n", opset=17, size=SIZE, kind=FLOAT):
    """A network of two channels at half the size, and two classes: bright is lesion."""
    rng = np.random.default_rng(0)
    dtype = {FLOAT: np.float32, TensorProto.FLOAT16: np.float16}[kind]
    weights = rng.normal(0, 0.3, (2, channels, 3, 3))
    stored = [
        tensor("w", weights, dtype),
        tensor("b", [0.1, -0.2], dtype),
        tensor("d", [[1.0, -1.0], [0.5, 2.0]], dtype),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["map"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "d"], ["kind"]),
    ]
    return build(
        nodes,
        stored,
        {"x": [batch, channels, size, size]},
        {"map": [batch, 2, size and size // 2, size and size // 2], "kind": [batch, 2]},
        opset=opset,
        kind=kind,
    )


def build(nodes, stored, inputs, outputs, *, opset=17, kind=FLOAT):
    def ports(told):
        return [helper.make_tensor_value_info(name, kind, sides) for name, sides in told.items()]

    graph = helper.make_graph(nodes, "theirs", ports(inputs), ports(outputs), stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
