"""An ONNX file that somebody else's program wrote: what it takes and gives, and its parts as our graphs are.

Only the parts that are computed are read. Names of files and people, notes, and shapes that an exporter
guessed are left behind; weights that lie as numbers one by one are written as bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Set
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from sonoloop.models.graph_check import MAX_NODES, OPSETS
from sonoloop.models.protobuf import (
    BLOCK,
    FIXED32,
    Message,
    write_block,
    write_fields,
    write_integer,
    write_text,
)
from sonoloop.models.schema import show

FLOAT, HALF = 1, 10
TYPES = {
    FLOAT: "float32",
    2: "uint8",
    3: "int8",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "text",
    9: "bool",
    HALF: "float16",
    11: "float64",
    16: "bfloat16",
}
_ONE_FILE = (
    "write it as one file: torch.onnx.export(..., external_data=False), or onnx.save(model, file, "
    "save_as_external_data=False)"
)
# fields that hold numbers one by one, and what they are written as, by the type of the tensor
_NUMBERS = {4: {FLOAT: "<f4"}, 5: {6: "<i4", 2: "u1", 3: "i1", 9: "u1", HALF: "<u2"}, 7: {7: "<i8"}}
# of an attribute: its name, and a value of each kind with the number by which the format names that kind
_KINDS = {2: 1, 3: 2, 4: 3, 5: 4, 7: 6, 8: 7}
_TENSOR = 5
_ENGLISH_LIST = 5


@dataclass(frozen=True, slots=True)
class Port:
    """An input or an output: its name, type and sides; None for a side that is not settled, () if unknown."""

    name: str
    kind: int
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sides = " x ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name}: {TYPES.get(self.kind, 'another type')}{sides and f' {sides}'}"


class OnnxFile:
    """The parts of a file; a `ValueError` for what cannot be taken over."""

    def __init__(self, data: bytes) -> None:
        try:
            model = Message(memoryview(data))
            graphs = model.blocks(7)
            if len(graphs) != 1:
                raise ValueError(f"it holds {len(graphs)} networks")
            graph = Message(graphs[0])
        except ValueError as error:
            raise ValueError(f"it is no ONNX file, or damaged ({error}); export the network again") from error
        opsets = {each.text(1): each.integer(2) for each in map(Message, model.blocks(8))}
        self.opset = opsets.get("", opsets.get("ai.onnx", 0))
        self.producer = f"{model.text(2)} {model.text(3)}".strip()
        self._graph = graph
        if (count := max(len(graph.blocks(1)), len(graph.blocks(5)))) > MAX_NODES:
            raise ValueError(f"it has {count:,} operations or weights, more than {MAX_NODES:,}")
        stored = [Message(each) for each in graph.blocks(5)]
        self.tensors = len(stored)
        self._stored = stored
        self._nodes = [Message(each) for each in graph.blocks(1)]
        self.operators = Counter(node.text(4) for node in self._nodes)
        # older files list weights as inputs too
        names = {each.text(8) for each in stored}
        self.inputs = tuple(p for p in map(_read_port, graph.blocks(11)) if p.name not in names)
        self.outputs = tuple(map(_read_port, graph.blocks(12)))
        self._functions = model.holds(25)

    def find_faults(self, known: Set[str]) -> list[str]:
        """Say what keeps it from being taken over; `known` are the operators that may be in it."""
        faults = []
        if self.opset not in OPSETS:
            faults.append(
                f"its operators are of ONNX's set {self.opset}, and {OPSETS[0]} to {OPSETS[-1]} are read; "
                "export it again with opset_version=17, or convert it with onnx.version_converter"
            )
        if unknown := sorted(self.operators.keys() - known - {"Dropout"}):
            faults.append(
                f"it has the operator{'s' * (len(unknown) > 1)} {_list(unknown)}, which Sonoloop does not "
                "run; leave it out of what is exported, such as what comes after the network's own answer"
            )
        foreign = sorted({node.text(7) for node in self._nodes} - {"", "ai.onnx"})
        if foreign or self._functions:
            faults.append(
                f"it has operators of {_list(foreign) or 'its own'}, and ONNX's own alone are run; export it "
                "again without them"
            )
        outside = [_location(tensor) for tensor in self._stored if tensor.integer(14) == 1]
        if outside:
            faults.append(f"its weights lie in another file, {_list(sorted({*outside}))}; {_ONE_FILE}")
        if self._graph.holds(15):
            faults.append("it has sparse weights; export it again with dense ones")
        return faults

    def last_operator(self, name: str) -> str:
        """Name the operator that gives an output; "" where nothing does."""
        for node in self._nodes:
            if name.encode() in node.blocks(2):
                return node.text(4)
        return ""

    def write_parts(self, prefix: str) -> tuple[list[bytes], list[bytes]]:
        """Write its weights and its operations, every name in them with a prefix, as our graphs have them."""
        stored = [write_block(5, _write_tensor(tensor, prefix)) for tensor in self._stored]
        return stored, [write_block(1, _write_node(node, prefix)) for node in self._nodes]


def _read_port(data: memoryview) -> Port:
    value = Message(data)
    if not value.text(1).isprintable():
        raise ValueError(f"an input or output is called {show(value.text(1))}; give it a plain name")
    for told in map(Message, value.blocks(2)):
        for tensor in map(Message, told.blocks(1)):
            sides = [
                side for shape in map(Message, tensor.blocks(2)) for side in map(Message, shape.blocks(1))
            ]
            # below 1 it is as good as not told
            shape = tuple(max(side.integer(1), 0) or None for side in sides)
            return Port(value.text(1), tensor.integer(1), shape)
    # a list, or a map
    return Port(value.text(1), 0, ())


def _write_node(node: Message, prefix: str) -> bytes:
    kind, parts = node.text(4), []
    outputs = node.blocks(2)
    if kind == "Dropout":
        # it does nothing but in training
        kind, outputs = "Identity", outputs[:1]
        inputs, attributes = node.blocks(1)[:1], []
    else:
        inputs, attributes = node.blocks(1), node.blocks(5)
    for number, names in ((1, inputs), (2, outputs)):
        # an input that is left out has no name
        parts += [write_block(number, prefix.encode() + bytes(name) if len(name) else b"") for name in names]
    parts.append(write_text(4, kind))
    parts += [write_block(5, _write_attribute(Message(each), kind)) for each in attributes]
    return b"".join(parts)


def _write_attribute(attribute: Message, operator: str) -> bytes:
    name, told = attribute.text(1), [number for number in _KINDS if attribute.holds(number)]
    kind = attribute.integer(20)
    if not told and kind in (6, 7):
        # a list of nothing
        told = [number for number in _KINDS if _KINDS[number] == kind]
    if len(told) != 1 or kind not in (0, _KINDS[told[0]]):
        raise ValueError(f"{show(name)} of its operator {operator} is of a kind that Sonoloop does not read")
    number = told[0]
    if number == _TENSOR:
        value = b"".join(write_block(number, _write_tensor(Message(t), "")) for t in attribute.blocks(number))
    else:
        value = write_fields(field for field in attribute.fields if field.number == number)
    return write_text(1, name) + value + write_integer(20, _KINDS[number])


def _write_tensor(tensor: Message, prefix: str) -> bytes:
    name, kind, shape = tensor.text(8), tensor.integer(2), tensor.integers(1)
    if tensor.integer(14) == 1:
        raise ValueError(f"its weights lie in another file, {show(_location(tensor))}; {_ONE_FILE}")
    values = tensor.blocks(9)
    if not values:
        values = [memoryview(_to_bytes(tensor, kind))]
    parts = [write_integer(1, side) for side in shape]
    parts += [write_integer(2, kind), *([write_text(8, prefix + name)] if prefix else [])]
    return b"".join([*parts, *(write_block(9, each) for each in values)])


def _to_bytes(tensor: Message, kind: int) -> bytes:
    """Write the numbers of a tensor, which lie one by one, as bytes."""
    for number, types in _NUMBERS.items():
        if not tensor.holds(number):
            continue
        if kind not in types:
            raise ValueError(f"the weights {show(tensor.text(8))} are of a type that Sonoloop does not read")
        if number == 4:
            return b"".join(
                bytes(field.value)
                for field in tensor.fields
                if field.number == number
                and field.wire in (BLOCK, FIXED32)
                and not isinstance(field.value, int)
            )
        wide = np.array(tensor.integers(number), np.int64)
        return wide.astype(types[kind]).tobytes()
    return b""


def _location(tensor: Message) -> str:
    """Name the file that weights lie in, without its folders."""
    for entry in map(Message, tensor.blocks(13)):
        if entry.text(1) == "location":
            return PurePath(entry.text(2).replace("\\", "/")).name[:100]
    return "?"


def _list(names: Collection[str]) -> str:
    shown = [show(name).strip("'") for name in names]
    more = f" and {len(shown) - _ENGLISH_LIST} more" if len(shown) > _ENGLISH_LIST else ""
    return ", ".join(shown[:_ENGLISH_LIST]) + more


def write_port(port: Port) -> bytes:
    """Write an input or an output; a side that is not settled is the number of images."""
    sides = b"".join(
        write_block(1, write_text(2, "batch") if side is None else write_integer(1, side))
        for side in port.shape
    )
    tensor = write_integer(1, port.kind) + write_block(2, sides)
    return write_text(1, port.name) + write_block(2, write_block(1, tensor))
