"""Nodes before and after a user's network, so that it takes and gives what every network here does.

Images (B, 1, S, S) in [-1, 1] become what its description says it takes, and its answer becomes lesion
probability and class logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sonoloop.models.card import IMAGES, OUTPUTS, ModelSpec
from sonoloop.models.own.description import NHWC, NONE, SIGMOID, SOFTMAX, Classes, Description, Input, Lesion
from sonoloop.models.own.onnx_file import FLOAT, HALF, TYPES, OnnxFile, Port, write_port
from sonoloop.models.protobuf import write_block, write_float, write_integer, write_text
from sonoloop.values import CLASSES

_PREFIX = "own."
# the first whose Resize, Clip, Softmax and ReduceSum are those of today
_IR = 8
# a logit of a class that the network does not know
_NEVER = -100.0
# of a probability, before its logarithm
_LEAST = 1e-6
_STEP = 32
_TYPE_OF = {np.dtype(np.float32): FLOAT, np.dtype(np.int64): 7}


def specify(description: Description, architecture: str) -> ModelSpec:
    """Give the specification of the network as it is once its nodes are around it."""
    return ModelSpec(
        library="onnx",
        architecture=architecture,
        encoder="",
        # any other is resized within the graph
        size=max(_STEP, -(-description.input.size // _STEP) * _STEP),
        dropout=0.0,
        arguments={"heads": description.heads, "resize": description.input.resize},
    )


def adapt(file: OnnxFile, description: Description, size: int) -> bytes:
    """Write the graph of a bundle; a `ValueError` where the file is not as described."""
    source = find_input(file, description.input)
    lesion = description.lesion and find_lesion(file, description)
    classes = description.classes and find_classes(file, description.classes)
    writer = _Writer()
    before = _take(writer, description.input, source, size)
    writer.node("Identity", [before], into=_PREFIX + source.name)
    first, writer.nodes = writer.nodes, []
    if description.lesion and lesion:
        _give_lesion(writer, description, description.lesion, lesion, size)
    else:
        writer.node("Mul", [IMAGES, writer.constant(np.zeros((), np.float32))], into=OUTPUTS[0])
    if description.classes and classes:
        _give_classes(writer, description.classes, classes)
    else:
        # it says the same of every image
        few = writer.node(
            "Slice", [writer.node("Flatten", [IMAGES], axis=1), *writer.integers([0], [3], [1])]
        )
        writer.node("Mul", [few, writer.constant(np.zeros((), np.float32))], into=OUTPUTS[1])
    stored, own = file.write_parts(_PREFIX)
    ports = [
        write_block(11, write_port(Port(IMAGES, FLOAT, (None, 1, size, size)))),
        write_block(12, write_port(Port(OUTPUTS[0], FLOAT, (None, 1, size, size)))),
        write_block(12, write_port(Port(OUTPUTS[1], FLOAT, (None, len(CLASSES))))),
    ]
    graph = b"".join(
        [*first, *own, *writer.nodes, write_text(2, "sonoloop"), *stored, *writer.stored, *ports]
    )
    opset = write_text(1, "") + write_integer(2, file.opset)
    model = [write_integer(1, _IR), write_text(2, "sonoloop"), write_block(7, graph), write_block(8, opset)]
    return b"".join(model)


def find_input(file: OnnxFile, wanted: Input) -> Port:
    """Find the input for the image, which is as described."""
    if not wanted.name and len(file.inputs) > 1:
        names = ", ".join(port.name for port in file.inputs)
        raise ValueError(f"it takes {names}, and only one image is given; export it with one input")
    port = _named(
        file.inputs, wanted.name or (file.inputs[0].name if file.inputs else ""), "input", "[input] name"
    )
    if len(file.inputs) > 1:
        raise ValueError(
            f"it takes {len(file.inputs)} inputs, and only one image is given; export it with one"
        )
    if port.kind not in (FLOAT, HALF):
        kind = TYPES.get(port.kind, "another type")
        raise ValueError(f"its input {port.name} is {kind}, and float32 is given; export it for float32")
    if port.shape:
        if len(port.shape) != 4:
            raise ValueError(f"its input {port.name} has {len(port.shape)} sides, and an image has 4")
        channels, *sides = _sides(port.shape, wanted.layout)
        if channels not in (None, wanted.channels):
            other = NHWC if wanted.layout != NHWC else "NCHW"
            hint = f'; or is layout = "{other}"?' if _sides(port.shape, other)[0] == wanted.channels else ""
            raise ValueError(
                f"its input {port.name} has {channels} channels, and [input] says channels = "
                f"{wanted.channels}{hint}"
            )
        if any(side not in (None, wanted.size) for side in sides):
            told = " x ".join(str(side or "?") for side in sides)
            raise ValueError(
                f"its input {port.name} is {told} pixels, and [input] says size = {wanted.size}"
                + ("; export it for a square" if len({*sides}) > 1 else "")
            )
    return port


def find_lesion(file: OnnxFile, description: Description) -> Port:
    """Find the output that is a map of the lesion, which is as described."""
    lesion = description.lesion
    assert lesion is not None
    port = _named(file.outputs, lesion.output, "output", "[lesion] output", (3, 4))
    if port.shape and len(port.shape) not in (3, 4):
        raise ValueError(f"its output {port.name} has {len(port.shape)} sides, and a map has 4")
    if port.shape:
        channels = 1 if len(port.shape) == 3 else _sides(port.shape, description.input.layout)[0]
        if channels not in (None, lesion.channels):
            raise ValueError(
                f"its output {port.name} has {channels} channels, and [lesion] says channels = "
                f"{lesion.channels}"
            )
    return _floating(port)


def find_classes(file: OnnxFile, classes: Classes) -> Port:
    """Find the output that tells the classes, which is as described."""
    port = _named(file.outputs, classes.output, "output", "[classes] output", (1, 2))
    told = _count(port)
    # a probability may be that of the second class alone
    if told is not None and told != classes.channels and not _is_single(port, classes):
        raise ValueError(
            f"its output {port.name} gives {told} numbers, and [classes] with activation = "
            f"{classes.activation} and order of {len(classes.order)} says {classes.channels}"
        )
    return _floating(port)


def _count(port: Port) -> int | None:
    """Count the numbers that an output gives for each image; None where that is not told."""
    told = port.shape[1:]
    return None if not port.shape or None in told else math.prod(side for side in told if side)


def _is_single(port: Port, classes: Classes) -> bool:
    """Whether the second of two classes alone is told."""
    one = _count(port) == 1 and len(classes.order) == 2
    return classes.activation == SIGMOID or (classes.activation == NONE and one)


def _floating(port: Port) -> Port:
    if port.kind not in (FLOAT, HALF):
        raise ValueError(
            f"its output {port.name} is {TYPES.get(port.kind, 'of another type')}, and has to be float32; "
            "export it without the step that picks the most likely"
        )
    return port


def _named(ports: Sequence[Port], name: str, what: str, key: str, sides: tuple[int, ...] = ()) -> Port:
    """Find an input or output by its name, or the only one with so many sides."""
    names = ", ".join(port.name for port in ports) or "none"
    if name:
        for port in ports:
            if port.name == name:
                return port
        raise ValueError(f"it has no {what} {name}; its {what}s are: {names}")
    fitting = [port for port in ports if not port.shape or len(port.shape) in sides]
    if len(fitting) != 1:
        raise ValueError(f"its {what}s are {names}: say which one with {key} = NAME")
    return fitting[0]


def _sides(shape: Sequence[int | None], layout: str) -> tuple[int | None, ...]:
    """Give channels, height and width."""
    return (shape[3], shape[1], shape[2]) if layout == NHWC else (shape[1], shape[2], shape[3])


class _Writer:
    """Writes operations and the numbers they take."""

    def __init__(self) -> None:
        self.nodes: list[bytes] = []
        self.stored: list[bytes] = []
        self._count = 0

    def node(self, kind: str, inputs: Sequence[str], *, into: str = "", **attributes: Any) -> str:  # noqa: ANN401
        """Write an operation; gives the name of its answer."""
        output = into or self._name()
        parts = [write_text(1, name) for name in inputs]
        parts += [write_text(2, output), write_text(4, kind)]
        parts += [write_block(5, _attribute(name, value)) for name, value in attributes.items()]
        self.nodes.append(write_block(1, b"".join(parts)))
        return output

    def constant(self, values: NDArray[Any]) -> str:
        """Store numbers; gives their name."""
        name = self._name()
        parts = [write_integer(1, side) for side in values.shape]
        parts += [
            write_integer(2, _TYPE_OF[values.dtype]),
            write_text(8, name),
            write_block(9, values.tobytes()),
        ]
        self.stored.append(write_block(5, b"".join(parts)))
        return name

    def integers(self, *lists: Sequence[int]) -> list[str]:
        """Store lists of whole numbers."""
        return [self.constant(np.array(each, np.int64)) for each in lists]

    def _name(self) -> str:
        self._count += 1
        return f"around.{self._count}"


def _attribute(name: str, value: Any) -> bytes:  # noqa: ANN401 - a number, a text or a list of numbers
    told = write_text(1, name)
    if isinstance(value, str):
        return told + write_text(4, value) + write_integer(20, 3)
    if isinstance(value, float):
        return told + write_float(2, value) + write_integer(20, 1)
    if isinstance(value, int):
        return told + write_integer(3, value) + write_integer(20, 2)
    return told + b"".join(write_integer(8, each) for each in value) + write_integer(20, 7)


def _resize(writer: _Writer, maps: str, size: int) -> str:
    """Resize maps (B, C, ?, ?) to a square."""
    kept = writer.node("Slice", [writer.node("Shape", [maps]), *writer.integers([0], [2])])
    sizes = writer.node("Concat", [kept, *writer.integers([size, size])], axis=0)
    options = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    return writer.node("Resize", [maps, "", "", sizes], **options)


def _take(writer: _Writer, wanted: Input, port: Port, size: int) -> str:
    images = IMAGES
    if wanted.size != size:
        images = _resize(writer, images, wanted.size)
    black, white = wanted.range
    mean = np.array(wanted.mean or [0.0] * wanted.channels)
    std = np.array(wanted.std or [1.0] * wanted.channels)
    # one channel becomes as many as there are numbers
    scale, shift = (white - black) / 2 / std, ((white + black) / 2 - mean) / std
    for kind, values in (("Mul", scale), ("Add", shift)):
        images = writer.node(kind, [images, writer.constant(values.astype(np.float32).reshape(1, -1, 1, 1))])
    if wanted.layout == NHWC:
        images = writer.node("Transpose", [images], perm=[0, 2, 3, 1])
    return writer.node("Cast", [images], to=HALF) if port.kind == HALF else images


def _give_lesion(writer: _Writer, description: Description, lesion: Lesion, port: Port, size: int) -> None:
    maps = _PREFIX + port.name
    if port.kind == HALF:
        maps = writer.node("Cast", [maps], to=FLOAT)
    layout = description.input.layout
    if len(port.shape) == 3:
        maps = writer.node("Unsqueeze", [maps, *writer.integers([1])])
    elif layout == NHWC:
        maps = writer.node("Transpose", [maps], perm=[0, 3, 1, 2])
    if lesion.activation != NONE:
        options: dict[str, Any] = {"axis": 1} if lesion.activation == SOFTMAX else {}
        maps = writer.node("Softmax" if lesion.activation == SOFTMAX else "Sigmoid", [maps], **options)
    if lesion.channels > 1:
        first, *others = (
            writer.node("Gather", [maps, *writer.integers([channel])], axis=1) for channel in lesion.chosen
        )
        for other in others:
            # of a softmax a pixel is one of them or another; else it may be all
            first = writer.node("Max" if lesion.activation == SIGMOID else "Add", [first, other])
        maps = first
    height_width = (
        port.shape[1:] if len(port.shape) == 3 else _sides(port.shape, layout)[1:] if port.shape else ()
    )
    if height_width != (size, size):
        maps = _resize(writer, maps, size)
    # not clipped, which would make a number of what is none
    writer.node("Identity", [maps], into=OUTPUTS[0])


def _give_classes(writer: _Writer, classes: Classes, port: Port) -> None:
    answer = _PREFIX + port.name
    if port.kind == HALF:
        answer = writer.node("Cast", [answer], to=FLOAT)
    is_one = _is_single(port, classes)
    # (B, K, 1, 1) as it is before a last squeeze, and (B,) after one too many
    answer = writer.node("Reshape", [answer, *writer.integers([-1, 1 if is_one else len(classes.order)])])
    if classes.activation == NONE:
        if is_one:
            other = writer.node("Sub", [writer.constant(np.ones((), np.float32)), answer])
            answer = writer.node("Concat", [other, answer], axis=1)
        answer = writer.node(
            "Log", [writer.node("Max", [answer, writer.constant(np.array(_LEAST, np.float32))])]
        )
    is_logit = classes.activation == SIGMOID
    count = 1 if is_logit else len(classes.order)
    first = answer if is_logit else writer.node("Slice", [answer, *writer.integers([0], [1], [1])])
    nothing = writer.node("Mul", [first, writer.constant(np.zeros((), np.float32))])
    never = writer.node("Add", [nothing, writer.constant(np.array(_NEVER, np.float32))])
    joined = writer.node("Concat", [answer, never, nothing], axis=1)
    columns = {name: place for place, name in enumerate(classes.order)}
    if is_logit:
        # the first of two stands at zero
        columns = {classes.order[0]: count + 1, classes.order[1]: 0}
    places = [columns.get(name, count) for name in CLASSES]
    writer.node("Gather", [joined, *writer.integers(places)], axis=1, into=OUTPUTS[1])
