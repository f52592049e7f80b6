"""Graphs of strangers: what may stand in one, and what is refused before an engine gets it."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sonoloop.errors import EngineError
from sonoloop.models import graph_check
from sonoloop.models.card import OUTPUTS, Card, ModelSpec, read_graph, shipped_card, shipped_folder
from sonoloop.models.engines.onnx import OnnxEngine
from sonoloop.models.graph_check import check_graph
from sonoloop.models.graph_shapes import Tensor, compute

BLACK = np.zeros((1, 1, 32, 32), np.float32)
CARD = Card(name="tiny", spec=ModelSpec(size=32))


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes=(), stored=(), inputs=None, outputs=None, **more) -> onnx.ModelProto:
    """A small graph whose lesion is the brightness, and whatever else is asked for."""
    weights = numpy_helper.from_array(_weights(), "weights")
    base = [
        helper.make_node("Sigmoid", ["images"], ["lesion"]),
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["classes"]),
    ]
    graph = helper.make_graph(
        [*base, *nodes],
        "g",
        inputs or [value("images", ["batch", 1, 32, 32])],
        outputs or [value("lesion", ["batch", 1, 32, 32]), value("classes", ["batch", 3])],
        [weights, *stored],
    )
    opsets = more.pop("opset_imports", [helper.make_opsetid("", 20)])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **more)


def _weights():
    return np.arange(3, dtype=np.float32).reshape(1, 3)


def edit(change) -> onnx.ModelProto:
    proto = model()
    change(proto)
    return proto


def external(proto):
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def untold(proto):
    attribute = proto.graph.node[0].attribute.add()
    attribute.name, attribute.type, attribute.ints[:] = "axis", onnx.AttributeProto.INT, [1]


def larger(proto):
    proto.graph.initializer[0].dims[1] = 1 << 40


BRANCH = helper.make_graph([], "inner", [], [])
HOSTILE = {
    "another operator": (model([helper.make_node("Loop", ["mean"], ["x"])]), "operator 'Loop'"),
    "operators of others": (
        model([helper.make_node("Relu", ["mean"], ["x"], domain="com.evil")]),
        "operator 'Relu'",
    ),
    "a graph in a graph": (
        model([helper.make_node("Relu", ["mean"], ["x"], then_branch=BRANCH)]),
        "holds a part, 6,",
    ),
    "a function": (
        edit(lambda m: m.functions.append(helper.make_function("d", "f", [], [], [], []))),
        "holds a part, 25,",
    ),
    "weights elsewhere": (edit(external), "holds a part"),
    "a tensor that is not there": (edit(larger), "shape"),
    "weights that are no numbers": (
        model(stored=[numpy_helper.from_array(_weights().repeat(9, 0) * float("nan"), "x")]),
        "NaN or infinite",
    ),
    "text as weights": (
        edit(lambda m: m.graph.initializer.append(helper.make_tensor("x", TensorProto.STRING, [1], [b"a"]))),
        "holds a part, 6,",
    ),
    "an attribute of another type": (edit(untold), "is not of the type that it tells"),
    "what nothing computes": (model([helper.make_node("Relu", ["nowhere"], ["x"])]), "'nowhere'"),
    "an answer twice": (
        model([helper.make_node("Relu", ["mean"], ["lesion"])]),
        "'lesion' is computed twice",
    ),
    "another size": (model(inputs=[value("images", ["batch", 1, 64, 64])]), "images is of the shape"),
    "another input": (
        model(inputs=[value("images", ["batch", 1, 32, 32]), value("more", [1])]),
        "its inputs are",
    ),
    "whole numbers": (
        model(inputs=[value("images", ["batch", 1, 32, 32], TensorProto.UINT8)]),
        "no tensor of float32",
    ),
    "four classes": (
        model(outputs=[value("lesion", ["batch", 1, 32, 32]), value("classes", ["batch", 4])]),
        "classes is of the shape",
    ),
    "no classes": (model(outputs=[value("lesion", ["batch", 1, 32, 32])]), "its outputs are"),
    "operators of two sets": (
        model(opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]),
        "other operators",
    ),
    "operators of the future": (model(opset_imports=[helper.make_opsetid("", 99)]), "other operators"),
    "no graph": (onnx.ModelProto(), "other operators"),
}


def test_a_graph_of_known_operators_is_taken_and_run():
    data = model().SerializeToString()
    check_graph(data, CARD)
    assert OnnxEngine(CARD, data).run(BLACK)[1].shape == (1, 3)
    check_graph(read_graph(shipped_folder(), shipped_card()), shipped_card())


def test_an_attribute_without_a_value_is_as_nought():
    proto = model([helper.make_node("Elu", ["mean"], ["x"], alpha=1.0)])
    proto.graph.node[-1].attribute[0].ClearField("f")
    check_graph(proto.SerializeToString(), CARD)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_graph_is_refused(name):
    proto, told = HOSTILE[name]
    with pytest.raises(EngineError, match=told):
        check_graph(proto.SerializeToString(), CARD)


def of(kind, *inputs, **attributes):
    """An operation on tensors or names of tensors, with the constants that it takes."""
    stored = [
        numpy_helper.from_array(each, f"c{n}") for n, each in enumerate(inputs) if not isinstance(each, str)
    ]
    names = [each if isinstance(each, str) else f"c{n}" for n, each in enumerate(inputs)]
    return model([helper.make_node(kind, names, ["x"], **attributes)], stored)


def chain(kind, count, *first, copies=2, **attributes):
    """An operation on what the one before gave, over and over."""
    nodes = [*first]
    for n in range(count):
        before = first[-1].output[0] if first and not n else f"x{n - 1}" if n else "images"
        nodes.append(helper.make_node(kind, [before] * copies, [f"x{n}"], **attributes))
    return model(nodes)


def whole(*values):
    return np.array(values, np.int64)


def ones(*shape):
    return np.ones(shape, np.float32)


def constant(name, *values):
    return helper.make_node("Constant", [], [name], value_ints=values)


# each asks for gigabytes, or for minutes, in a few hundred bytes
BOMBS = {
    "Expand": of("Expand", ones(1), whole(1 << 29)),
    "Expand of images": of("Expand", "mean", whole(1, 1, 1 << 15, 1 << 15)),
    "Tile": of("Tile", "images", whole(1, 1, 1 << 10, 1 << 9)),
    "Resize to a size": of("Resize", "images", "", "", whole(1, 1, 1 << 15, 1 << 14), mode="nearest"),
    "Resize by a factor": of("Resize", "images", "", np.array([1, 1, 512, 1024], np.float32), mode="nearest"),
    "Pad": of("Pad", "images", whole(0, 0, 0, 0, 0, 0, 1 << 14, 1 << 15)),
    "Range": of("Range", np.array(0), np.array(1 << 28), np.array(1)),
    "Concat": chain("Concat", 10, copies=4, axis=3),
    "Conv with wide pads": of("Conv", "images", ones(1, 1, 1, 1), pads=[0, 0, 1 << 14, 1 << 15]),
    "ConvTranspose": of("ConvTranspose", "images", ones(1, 1, 1, 1), strides=[1 << 10, 1 << 9]),
    "ConvTranspose of a wide kernel": of("ConvTranspose", "images", ones(1, 64, 64, 64), pads=[31] * 4),
    "MaxPool with wide pads": of("MaxPool", "images", kernel_shape=[1, 1], pads=[0, 0, 1 << 14, 1 << 15]),
    "MaxPool of a wide kernel": of("MaxPool", "images", kernel_shape=[9999, 9999], pads=[9998] * 4),
    "Gather": of("Gather", "images", np.zeros((1 << 8, 1 << 8), np.int64), axis=3),
    "a sum of a row and a column": model(
        [
            constant("row", 1, 1024),
            constant("column", 1024, 1),
            helper.make_node("Reshape", ["images", "row"], ["r"]),
            helper.make_node("Reshape", ["images", "column"], ["c"]),
            helper.make_node("Add", ["r", "c"], ["sum"]),
            helper.make_node("Concat", ["sum", "sum"], ["x"], axis=0),
        ]
    ),
    "MatMul of a column and a row": model(
        [
            constant("row", 1, 1024),
            constant("column", 1024, 1),
            helper.make_node("Reshape", ["images", "row"], ["r"]),
            helper.make_node("Reshape", ["images", "column"], ["c"]),
            helper.make_node("MatMul", ["c", "r"], ["square"]),
            helper.make_node("Concat", ["square", "square"], ["x"], axis=0),
        ]
    ),
    "MatMul over and over": chain(
        "MatMul",
        400,
        constant("s", 256, 256),
        constant("n", 0, 0, 0, 0, 0, 0, 224, 224),
        helper.make_node("Pad", ["images", "n"], ["p"]),
        helper.make_node("Reshape", ["p", "s"], ["square"]),
    ),
    "constants that are kept": model(
        [helper.make_node("Range", ["c0", "c1", "c2"], [f"x{n}"]) for n in range(4)],
        [numpy_helper.from_array(np.array(n), f"c{place}") for place, n in enumerate((0, 1 << 19, 1))],
    ),
    "a size of its own making": model(
        [
            helper.make_node("Shape", ["images"], ["s"]),
            helper.make_node("Mul", ["s", "s"], ["t"]),
            helper.make_node("Expand", ["mean", "t"], ["x"]),
            helper.make_node("Concat", ["x", "x"], ["y"], axis=3),
        ]
    ),
    "a size that hangs on the image": model(
        [
            helper.make_node("Cast", ["flat"], ["s"], to=TensorProto.INT64),
            constant("one", 1),
            helper.make_node("Reshape", ["s", "one"], ["t"]),
            helper.make_node("Expand", ["mean", "t"], ["x"]),
        ]
    ),
}


# of each operator what is easily got wrong
CASES = [
    ("AveragePool", ["images"], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("Concat", ["images", "images"], {"axis": -3}),
    ("Conv", ["images", ones(4, 1, 3, 3)], {"strides": [2, 1], "dilations": [2, 3], "pads": [1, 0, 2, 3]}),
    ("ConvTranspose", ["images", ones(1, 2, 3, 3)], {"strides": [2, 3], "output_padding": [1, 2]}),
    ("ConvTranspose", ["images", ones(1, 2, 3, 3)], {"dilations": [2, 1], "pads": [1, 1, 0, 2]}),
    ("Expand", [ones(3, 1), whole(2, 1, 4)], {}),
    ("Flatten", ["images"], {"axis": -1}),
    ("Flatten", ["images"], {"axis": 4}),
    ("Gather", ["images", np.zeros((2, 3), np.int64)], {"axis": -1}),
    ("Gemm", [ones(2, 3), ones(4, 2), ones(1)], {"transA": 1, "transB": 1}),
    ("GlobalMaxPool", ["images"], {}),
    ("MatMul", [ones(3), ones(2, 3, 4)], {}),
    ("MatMul", [ones(5, 1, 2, 3), ones(4, 3, 1)], {}),
    ("MatMul", [ones(3), ones(3)], {}),
    ("Max", ["images", ones(7, 1, 1, 1, 1), ones()], {}),
    ("PRelu", [ones(3), ones(2, 3)], {}),
    ("Pad", ["images", whole(-2, 3), "", whole(-1)], {}),
    ("Range", [np.array(7), np.array(-5), np.array(-3)], {}),
    ("ReduceMean", ["images", whole(-1, 1)], {"keepdims": 0}),
    ("ReduceSum", ["images"], {"noop_with_empty_axes": 1}),
    ("Reshape", ["images", whole(0, -1, 16)], {}),
    ("Resize", ["images", "", "", whole(5, 7)], {"axes": [-1, 2]}),
    ("Resize", ["images", "", np.array([1, 1, 1.5, 0.25], np.float32)], {}),
    ("Shape", ["images"], {"start": -3, "end": 99}),
    ("Size", ["images"], {}),
    ("Slice", ["images", whole(-1, 5), whole(-99, 1 << 60), whole(3, -2), whole(-2, 4)], {}),
    ("Split", ["images"], {"axis": 3, "num_outputs": 1}),
    ("Squeeze", ["mean"], {}),
    ("Squeeze", ["mean", whole(-1)], {}),
    ("Tile", [ones(2, 3), whole(3, 2)], {}),
    ("Transpose", ["images"], {}),
    ("Unsqueeze", ["images", whole(-1, 0)], {}),
    ("Where", [ones(3, 1) > 0, ones(2), ones()], {}),
    ("Div", [whole(7, 8), whole(2)], {}),
    ("Mul", [np.array([1.5, 2], np.float32), np.array([3], np.float32)], {}),
]


def test_shapes_are_those_that_an_engine_gives():
    data = everything().SerializeToString()
    graph = check_graph(data, CARD)
    tensors = {**graph.stored, "images": Tensor((2, 1, 32, 32), is_fixed=False)}
    for node in graph.nodes:
        made = compute(node, [tensors[name] if name else None for name in node.inputs])
        tensors.update(zip(node.outputs, made, strict=True))
    proto = onnx.load_from_string(data)
    names = [name for node in proto.graph.node for name in node.output if name not in OUTPUTS]
    proto.graph.output.extend(map(helper.make_empty_tensor_value_info, names))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for name, given in zip(names, session.run(names, {"images": BLACK.repeat(2, 0)}), strict=True):
        assert tensors[name].shape == given.shape, name
        known = tensors[name].values
        assert known is None or np.array_equal(known, given), name


def everything():
    """One graph of all the cases."""
    nodes, stored = [], []
    for kind, inputs, attributes in CASES:
        names = [each if isinstance(each, str) else f"c{len(nodes)}.{n}" for n, each in enumerate(inputs)]
        stored += [
            numpy_helper.from_array(each, name)
            for each, name in zip(inputs, names, strict=True)
            if not isinstance(each, str)
        ]
        nodes.append(helper.make_node(kind, names, [f"{kind} {len(nodes)}"], **attributes))
    return model(nodes, stored)


@pytest.mark.parametrize("name", BOMBS)
def test_a_graph_that_takes_too_much_is_refused(name):
    data = BOMBS[name].SerializeToString()
    told = "takes a size that only" if "hangs" in name else "it takes [0-9,]+ (values|multiplications)"
    with pytest.raises(EngineError, match=told):
        check_graph(data, CARD)


# what ends the process when a processor computes it, or reads beyond what there is
TRAPS = {
    "the least number by -1": of("Div", whole(-(1 << 63)), whole(-1)),
    "a division by nought": of("Div", whole(1), whole(0)),
    "a rest of nought": of("Mod", whole(1), whole(0)),
    "a division by what the image tells": model(
        [
            helper.make_node("Cast", ["flat"], ["n"], to=TensorProto.INT64),
            helper.make_node("Div", ["n", "n"], ["x"]),
        ]
    ),
    "a crop": of(
        "Resize",
        "images",
        np.array([0, 0, -1e9, -1e9, 1, 1, 1e9, 1e9], np.float32),
        "",
        whole(1, 1, 8, 8),
        coordinate_transformation_mode="tf_crop_and_resize",
    ),
    "nothing at all": of("Slice", "images", whole(0), whole(0), whole(3)),
    "a stride of nought": of("Conv", "images", ones(1, 1, 1, 1), strides=[0, 0]),
    "no group": of("Conv", "images", ones(1, 1, 1, 1), group=0),
    "a list that is a tensor": model(
        [helper.make_node("Constant", [], ["x"], value_ints=numpy_helper.from_array(whole(1)))]
    ),
    "a number beyond all": model([helper.make_node("Constant", [], ["x"], value_int=1e30)]),
    "a cast to text": of("Cast", "images", to=TensorProto.STRING),
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_graph_that_ends_the_process_is_refused(name):
    with pytest.raises(EngineError, match=r"operator|a Cast goes"):
        check_graph(TRAPS[name].SerializeToString(), CARD)


def test_a_graph_of_endless_parts_is_not_read_to_the_end(monkeypatch):
    monkeypatch.setattr(graph_check, "_MAX_PARTS", 1000)
    endless = model([helper.make_node("Max", ["images"] * 1000, ["x"])])
    with pytest.raises(EngineError, match="more than 1,000 parts"):
        check_graph(endless.SerializeToString(), CARD)


def test_a_graph_that_takes_too_much_for_many_images_is_not_run():
    squared = model(
        [
            helper.make_node("Shape", ["images"], ["n"], end=1),
            helper.make_node("Mul", ["n", "n"], ["n2"]),
            helper.make_node("Mul", ["n2", "n2"], ["n4"]),
            helper.make_node("Mul", ["n4", "n4"], ["n8"]),
            helper.make_node("Mul", ["n8", "n4"], ["n12"]),
            helper.make_node("Expand", ["dot", "n12"], ["x"]),
        ],
        [numpy_helper.from_array(ones(1), "dot")],
    )
    engine = OnnxEngine(CARD, squared.SerializeToString())
    assert engine.run(BLACK)[1].shape == (1, 3)
    with pytest.raises(ValueError, match=r"it takes .* values at once to compute 4,096 pixels"):
        engine.run(BLACK.repeat(4, 0))


def test_a_large_network_takes_fewer_images_at_once():
    card = dataclasses.replace(CARD, spec=ModelSpec(size=1024))
    graph = check_graph(wide(1024, 384).SerializeToString(), card)
    graph.check_batch(2)
    with pytest.raises(MemoryError):
        graph.check_batch(4)


def wide(side, channels):
    """A network of many channels."""
    sides = [side, side]
    stored = numpy_helper.from_array(ones(channels, 1, 1, 1), "wide")
    return model(
        [helper.make_node("Conv", ["images", "wide"], ["x"])],
        [stored],
        [value("images", ["batch", 1, *sides])],
        [value("lesion", ["batch", 1, *sides]), value("classes", ["batch", 3])],
    )


def test_a_graph_of_another_model_is_refused():
    card = dataclasses.replace(shipped_card(), spec=ModelSpec(size=320))
    with pytest.raises(EngineError, match="images is of the shape"):
        check_graph(read_graph(shipped_folder(), shipped_card()), card)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Flip bits, cut, repeat, or let lengths lie."""
    broken = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(broken))
        match rng.randrange(5):
            case 0:
                broken[place] ^= 1 << rng.randrange(8)
            case 1:
                broken[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del broken[place : place + rng.choice((1, 4, 1000))]
            case 3:
                broken[place:place] = broken[place : place + rng.randrange(1, 40)]
            case _:
                broken[place:place] = bytes([0xFF] * rng.randrange(1, 12))
        if not broken:
            break
    return bytes(broken)


def attack(count: int, seed: int, data: bytes, card: Card, *, run: bool) -> int:
    rng, taken = random.Random(seed), 0
    for _ in range(count):
        broken = damaged(data, rng)
        try:
            check_graph(broken, card)
        except EngineError:
            continue
        taken += 1
        if run:
            try:
                OnnxEngine(card, broken).run(BLACK)
            except EngineError:
                pass
            except Exception as error:
                # an engine may refuse what it is to compute; `Predictor` names the model then
                assert "onnxruntime" in type(error).__module__, error
    return taken


def test_a_damaged_graph_is_refused_or_read():
    assert attack(3000, 0, model().SerializeToString(), CARD, run=False) < 3000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_graph_is_refused_read_or_run(seed):
    attack(20_000, seed, model().SerializeToString(), CARD, run=True)
    attack(20_000, seed, everything().SerializeToString(), CARD, run=True)


@pytest.mark.slow
def test_a_damaged_graph_of_the_shipped_model_is_refused_or_read():
    data = read_graph(shipped_folder(), shipped_card())
    # what is no weights stands at the end and the beginning
    attack(300, 1, data[:20_000] + data[-60_000:], shipped_card(), run=False)
    attack(100, 2, data, shipped_card(), run=False)
