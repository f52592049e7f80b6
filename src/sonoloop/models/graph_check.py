"""Looks a graph through before an engine gets it: bundles come from strangers.

The file is read here, by the few parts of the format that our graphs consist of. Whatever else stands in one
is refused, and no other parser sees it before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from sonoloop.errors import EngineError
from sonoloop.models.card import IMAGES, MAX_GRAPH_BYTES, OUTPUTS, Card
from sonoloop.models.graph_limits import Graph
from sonoloop.models.graph_shapes import MOST_KNOWN, OPERATORS, Node, Tensor
from sonoloop.models.protobuf import BLOCK, FIXED32, FIXED64, VARINT, read_varint, signed
from sonoloop.models.schema import show
from sonoloop.values import CLASSES

MAX_NODES = 10_000
MAX_TENSORS = 20_000
_MAX_NAME = 1000
_MAX_DIMENSIONS = 8
OPSETS = range(13, 26)
# ONNX's numbers of types, and the bytes of one value
_FLOAT, _HALF, _BOOL, _INT64 = 1, 10, 9, 7
_BYTES = {_FLOAT: 4, 2: 1, 3: 1, 6: 4, _INT64: 8, _BOOL: 1, _HALF: 2}
_KINDS = {_FLOAT: np.float32, _HALF: np.float16}
# whose values shapes may hang on
_NUMBERS: dict[int, np.dtype[Any]] = {_FLOAT: np.dtype("<f4"), _INT64: np.dtype("<i8")}
# larger ones are weights; a limit may be infinite
_FEW_VALUES = 16
# pieces of all messages together; the shipped graph has 10,283
_MAX_PARTS = 200_000

# of each message the fields that our graphs have, with their wire types; numbers may come packed
_MODEL = {1: VARINT, 2: BLOCK, 3: BLOCK, 4: BLOCK, 5: VARINT, 7: BLOCK, 8: BLOCK}
_OPSET = {1: BLOCK, 2: VARINT}
_GRAPH = {1: BLOCK, 2: BLOCK, 5: BLOCK, 11: BLOCK, 12: BLOCK}
_NODE = {1: BLOCK, 2: BLOCK, 3: BLOCK, 4: BLOCK, 5: BLOCK, 7: BLOCK}
_ATTRIBUTE = {1: BLOCK, 2: FIXED32, 3: VARINT, 4: BLOCK, 5: BLOCK, 7: FIXED32, 8: VARINT, 20: VARINT}
# the field of the value by the type that an attribute tells
_VALUES = {1: 2, 2: 3, 3: 4, 4: 5, 6: 7, 7: 8}
_TENSOR = {1: VARINT, 2: VARINT, 8: BLOCK, 9: BLOCK}
_VALUE = {1: BLOCK, 2: BLOCK}
_TYPE = {1: BLOCK}
_TENSOR_TYPE = {1: VARINT, 2: BLOCK}
_SHAPE = {1: BLOCK}
_DIMENSION = {1: VARINT, 2: BLOCK}


def check_graph(data: bytes, card: Card) -> Graph:
    """Refuse a graph that is not made of known operators alone, or is none of the card's network.

    What is given knows how much room and time a batch takes, which `Graph.check_batch` holds within limits;
    here one image is tried.

    Raises
    ------
    EngineError
        If it is damaged, holds what no graph of ours does, or takes too much.
    """
    try:
        graph = _Checked(card).read(data)
        graph.check_batch(1)
        return graph
    except ValueError as error:
        raise EngineError(
            f"the graph of the model {card.model} cannot be used: {error}; use --engine torch, or export the "
            "model again where it was made"
        ) from error


@dataclass(slots=True)
class _Checked:
    """What is known of a graph so far; `ValueError` for what may not be."""

    card: Card
    # what was computed or stored so far
    names: set[str] = field(default_factory=set)
    tensors: int = 0
    parts: int = 0

    def read(self, data: bytes) -> Graph:
        if len(data) > MAX_GRAPH_BYTES:
            raise ValueError(f"it has {len(data):,} bytes, more than {MAX_GRAPH_BYTES:,}")
        model = self._gather(memoryview(data), _MODEL, "the model")
        opsets = [self._gather(each, _OPSET, "a set of operators") for each in _blocks(model, 8)]
        if len(opsets) != 1 or _text(opsets[0], 1) or _number(opsets[0], 2) not in OPSETS:
            raise ValueError("it needs other operators than ONNX's own, of the sets 13 to 25")
        graphs = _blocks(model, 7)
        if len(graphs) != 1:
            raise ValueError(f"it holds {len(graphs)} graphs")
        return self._read_graph(self._gather(graphs[0], _GRAPH, "the graph"))

    def _gather(self, data: memoryview, known: Mapping[int, int], what: str) -> _Fields:
        """Read the fields of a message."""
        found: _Fields = {}
        for number, value in _fields(data, known, what):
            self.parts += 1
            if self.parts > _MAX_PARTS:
                raise ValueError(f"it has more than {_MAX_PARTS:,} parts")
            found.setdefault(number, []).append(value)
        return found

    def _read_graph(self, graph: _Fields) -> Graph:
        nodes, stored = _blocks(graph, 1), _blocks(graph, 5)
        if len(nodes) > MAX_NODES or len(stored) > MAX_TENSORS:
            raise ValueError(f"it has {len(nodes):,} operations and {len(stored):,} tensors")
        size, channels = self.card.spec.size, self.card.spec.channels
        read = Graph(size, channels)
        self._check_values("inputs", _blocks(graph, 11), {IMAGES: (None, channels, size, size)})
        self._add(IMAGES)
        for each in stored:
            name, tensor = self._read_tensor(each)
            self._add(name)
            read.stored[name] = tensor
        for each in nodes:
            read.nodes.append(self._read_node(self._gather(each, _NODE, "an operation")))
        lesion, classes = OUTPUTS
        shapes = {lesion: (None, 1, size, size), classes: (None, len(CLASSES))}
        self._check_values("outputs", _blocks(graph, 12), shapes)
        for name in OUTPUTS:
            if name not in self.names:
                raise ValueError(f"nothing computes {name}")
        return read

    def _read_node(self, node: _Fields) -> Node:
        kind = _text(node, 4)
        if _text(node, 7) or kind not in OPERATORS:
            raise ValueError(f"it has the operator {show(kind)}, which Sonoloop does not know")
        inputs = [*map(_decode, _blocks(node, 1))]
        for name in inputs:
            # an input that may be left out has no name
            if name and name not in self.names:
                raise ValueError(f"the operator {kind} takes {show(name)}, which nothing computes before")
        outputs = [*filter(None, map(_decode, _blocks(node, 2)))]
        if not outputs:
            raise ValueError(f"an operator {kind} gives nothing")
        for name in outputs:
            self._add(name)
        attributes: dict[str, Any] = {}
        for each in _blocks(node, 5):
            name, value = self._read_attribute(self._gather(each, _ATTRIBUTE, f"an attribute of {kind}"))
            if name in attributes:
                raise ValueError(f"the operator {kind} has {show(name)} twice")
            attributes[name] = value
        return Node(kind, inputs, outputs, attributes)

    def _read_attribute(self, attribute: _Fields) -> tuple[str, Any]:
        name, number = _text(attribute, 1), _VALUES.get(_number(attribute, 20), 0)
        # engines take the value of the type that is told
        if not number or attribute.keys() - {1, number, 20}:
            raise ValueError(f"the attribute {show(name)} is not of the type that it tells")
        match number:
            case 2 | 7:
                floats = np.frombuffer(b"".join(_blocks(attribute, number)), "<f4").tolist()
                return name, floats if number == 7 else (floats or [0.0])[-1]
            case 3:
                return name, signed(_number(attribute, 3))
            case 4:
                return name, _text(attribute, 4)
            case 8:
                return name, [signed(each) for each in _numbers(attribute, 8)]
        tensors = _blocks(attribute, 5)
        if len(tensors) != 1:
            raise ValueError(f"the attribute {show(name)} has {len(tensors)} tensors")
        return name, self._read_tensor(tensors[0])[1]

    def _add(self, name: str) -> None:
        if not name or name in self.names:
            raise ValueError(f"{show(name)} is computed twice")
        self.names.add(name)

    def _read_tensor(self, data: memoryview) -> tuple[str, Tensor]:
        self.tensors += 1
        if self.tensors > MAX_TENSORS:
            raise ValueError(f"it has more than {MAX_TENSORS:,} tensors")
        tensor = self._gather(data, _TENSOR, "a tensor")
        name, shape, kind = _text(tensor, 8), _numbers(tensor, 1), _number(tensor, 2)
        if kind not in _BYTES:
            raise ValueError(f"the tensor {show(name)} is of the type {kind}")
        if len(shape) > _MAX_DIMENSIONS or any(not 0 <= side <= MAX_GRAPH_BYTES for side in shape):
            raise ValueError(f"the tensor {show(name)} has the shape {show(shape)}")
        values = b"".join(_blocks(tensor, 9))
        if len(values) != math.prod(shape) * _BYTES[kind]:
            raise ValueError(f"the tensor {show(name)} of the shape {shape} has {len(values):,} bytes")
        weights = kind in _KINDS and math.prod(shape) > _FEW_VALUES
        if weights and not np.isfinite(np.frombuffer(values, _KINDS[kind])).all():
            raise ValueError(f"values of the tensor {show(name)} are NaN or infinite")
        known = kind in _NUMBERS and math.prod(shape) <= MOST_KNOWN
        numbers = np.frombuffer(values, _NUMBERS[kind]).reshape(shape) if known else None
        return name, Tensor(tuple(shape), numbers, is_whole=kind not in _KINDS)

    def _check_values(
        self, what: str, values: list[memoryview], wanted: Mapping[str, tuple[int | None, ...]]
    ) -> None:
        told = {}
        for each in values:
            value = self._gather(each, _VALUE, what)
            told[_text(value, 1)] = self._read_shape(value)
        if len(values) != len(told) or told.keys() != wanted.keys():
            raise ValueError(f"its {what} are {show(sorted(told))}, not {', '.join(wanted)}")
        for name, shape in told.items():
            if len(shape) != len(wanted[name]) or any(
                side is not None and side != given for side, given in zip(wanted[name], shape, strict=True)
            ):
                raise ValueError(f"{name} is of the shape {shape}, and the card's network is not")

    def _read_shape(self, value: _Fields) -> tuple[int | None, ...]:
        """Read the shape of a tensor of float32; None for a side that has a name."""
        types = [self._gather(each, _TYPE, "a type") for each in _blocks(value, 2)]
        tensors = [self._gather(each, _TENSOR_TYPE, "a type") for told in types for each in _blocks(told, 1)]
        if len(tensors) != 1 or _number(tensors[0], 1) != _FLOAT:
            raise ValueError("an input or output is no tensor of float32")
        shapes = [self._gather(each, _SHAPE, "a shape") for each in _blocks(tensors[0], 2)]
        if len(shapes) != 1:
            raise ValueError("an input or output has no shape")
        sides = [self._gather(each, _DIMENSION, "a side") for each in _blocks(shapes[0], 1)]
        return tuple(_number(side, 1) if 1 in side else None for side in sides)


_Fields: TypeAlias = dict[int, list["int | memoryview"]]


def _fields(data: memoryview, known: Mapping[int, int], what: str) -> Iterator[tuple[int, int | memoryview]]:
    place = 0
    while place < len(data):
        tag, place = read_varint(data, place)
        number, wire = tag >> 3, tag & 7
        if number not in known:
            raise ValueError(f"{what} holds a part, {number}, that Sonoloop does not know")
        if wire != known[number] and (wire != BLOCK or known[number] == FIXED64):
            raise ValueError(f"the part {number} of {what} is damaged")
        if wire == VARINT:
            value, place = read_varint(data, place)
            yield number, value
            continue
        length = 4
        if wire == BLOCK:
            length, place = read_varint(data, place)
        if length > len(data) - place:
            raise ValueError(f"{what} breaks off")
        if wire == BLOCK and known[number] == VARINT:
            # numbers packed into one block
            block, inside = data[place : place + length], 0
            while inside < len(block):
                value, inside = read_varint(block, inside)
                yield number, value
        else:
            yield number, data[place : place + length]
        place += length


def _blocks(fields: _Fields, number: int) -> list[memoryview]:
    return [value for value in fields.get(number, []) if isinstance(value, memoryview)]


def _numbers(fields: _Fields, number: int) -> list[int]:
    return [value for value in fields.get(number, []) if isinstance(value, int)]


def _number(fields: _Fields, number: int) -> int:
    # of one that is told twice, parsers take the last
    return (_numbers(fields, number) or [0])[-1]


def _text(fields: _Fields, number: int) -> str:
    return _decode((_blocks(fields, number) or [memoryview(b"")])[-1])


def _decode(text: memoryview) -> str:
    if len(text) > _MAX_NAME:
        raise ValueError(f"a name in it has {len(text):,} letters")
    # an UnicodeDecodeError is a ValueError, of many words
    try:
        return bytes(text).decode()
    except UnicodeDecodeError:
        raise ValueError("a name in it is no text") from None
