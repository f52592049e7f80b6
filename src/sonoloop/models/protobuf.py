"""Protocol buffers, in which ONNX files are written: fields of a message, read as they stand, and written."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

VARINT, FIXED64, BLOCK, FIXED32 = 0, 1, 2, 5
_MOST_FIELDS = 1_000_000
_64_BITS = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message: its number, how it is written, and a number or bytes."""

    number: int
    wire: int
    value: int | memoryview


class Message:
    """The fields of a message, in order; a `ValueError` where it breaks off."""

    def __init__(self, data: memoryview) -> None:
        self.fields = [*_read(data)]

    def blocks(self, number: int) -> list[memoryview]:
        """Give the bytes of every field of a number."""
        return [f.value for f in self.fields if f.number == number and isinstance(f.value, memoryview)]

    def text(self, number: int) -> str:
        """Give a field as a text; of one that comes twice the last counts."""
        found = self.blocks(number)
        try:
            return bytes(found[-1]).decode() if found else ""
        except UnicodeDecodeError:
            raise ValueError("a name in it is no text") from None

    def integers(self, number: int) -> list[int]:
        """Give whole numbers, packed or one by one, as 64 bits with their sign."""
        found: list[int] = []
        for field in self.fields:
            if field.number != number:
                continue
            if isinstance(field.value, int):
                found.append(field.value)
                continue
            place = 0
            while place < len(field.value) and len(found) <= _MOST_FIELDS:
                value, place = read_varint(field.value, place)
                found.append(value)
            if len(found) > _MOST_FIELDS:
                raise ValueError(f"it has a list of more than {_MOST_FIELDS:,} whole numbers")
        return [*map(signed, found)]

    def integer(self, number: int) -> int:
        """Give a whole number; 0 where it is not told."""
        return (self.integers(number) or [0])[-1]

    def holds(self, number: int) -> bool:
        """Whether there is a field of a number."""
        return any(field.number == number for field in self.fields)


def write_block(number: int, data: bytes | memoryview) -> bytes:
    """Write bytes as a field."""
    return b"".join((_tag(number, BLOCK), _number(len(data)), data))


def write_text(number: int, text: str) -> bytes:
    """Write a text as a field."""
    return write_block(number, text.encode())


def write_integer(number: int, value: int) -> bytes:
    """Write a whole number as a field."""
    return _tag(number, VARINT) + _number(value & _64_BITS)


def write_float(number: int, value: float) -> bytes:
    """Write a number as a field, in float32."""
    return _tag(number, FIXED32) + struct.pack("<f", value)


def write_fields(fields: Iterable[Field]) -> bytes:
    """Write fields as they were read."""
    parts = []
    for field in fields:
        if isinstance(field.value, int):
            parts.append(write_integer(field.number, field.value))
        elif field.wire == BLOCK:
            parts.append(write_block(field.number, field.value))
        else:
            parts += [_tag(field.number, field.wire), bytes(field.value)]
    return b"".join(parts)


def _read(data: memoryview) -> Iterable[Field]:
    place = count = 0
    while place < len(data):
        count += 1
        if count > _MOST_FIELDS:
            raise ValueError(f"it has more than {_MOST_FIELDS:,} parts")
        tag, place = read_varint(data, place)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, place = read_varint(data, place)
            yield Field(number, wire, value)
            continue
        if wire == BLOCK:
            length, place = read_varint(data, place)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise ValueError("a part of it is of no kind that there is")
        if length > len(data) - place:
            raise ValueError("it breaks off")
        yield Field(number, wire, data[place : place + length])
        place += length


def read_varint(data: memoryview, place: int) -> tuple[int, int]:
    """Read a whole number without its sign, and where the next part begins."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ValueError("it breaks off")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _64_BITS, place
    raise ValueError("a number in it does not end")


def signed(value: int) -> int:
    """Give the sign back to a whole number of 64 bits."""
    return value - (1 << 64) if value >> 63 else value


def _tag(number: int, wire: int) -> bytes:
    return _number(number << 3 | wire)


def _number(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
