"""PNG files: Pillow decodes them; what it narrows or passes over is read here."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sonoloop.errors import ImageTruncatedError
from sonoloop.imaging.io import say_truncated
from sonoloop.imaging.orientation import turn
from sonoloop.imaging.page import Page, missing_rows
from sonoloop.imaging.pictures import open_picture, read_orientation, to_array, to_values

_HEADER = struct.Struct(">IIBBBBB")
_RGB, _GREY_ALPHA, _RGBA = 2, 4, 6
_CHANNELS = {0: 1, _RGB: 3, 3: 1, _GREY_ALPHA: 2, _RGBA: 4}
_BLOCK = 1 << 20
# Adam7: first row and column of each pass, and the steps
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


@dataclass(frozen=True, slots=True)
class _Header:
    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool

    def sizes(self) -> list[tuple[int, int]]:
        """Give how many rows each pass has, and the bytes of such a row with its filter's."""
        bits = self.depth * _CHANNELS[self.colour]
        passes = _PASSES if self.interlaced else ((0, 0, 1, 1),)
        counts = (
            (-(-(self.height - y) // down), -(-(self.width - x) // across)) for y, x, down, across in passes
        )
        return [(rows, 1 + -(-columns * bits // 8)) for rows, columns in counts if rows > 0 and columns > 0]


def decode_png(data: bytes, name: str, max_pixels: int) -> list[Page]:
    """Decode a PNG."""
    chunks = list(_chunks(data))
    # the first thing that is opened: it is what refuses a bomb
    with open_picture(data, "PNG", name, max_pixels) as image:
        pixels, values, orientation = to_array(image, name), to_values(image), read_orientation(image)
    header = _read_header(chunks, name)
    if header.depth == 16 and header.colour in (_RGB, _GREY_ALPHA, _RGBA):
        pixels = _read_deep(data, header)
    rows, first = _count_rows(header, chunks, name), dict(reversed(chunks))
    page = Page(
        pixels=turn(pixels, orientation),
        values=None if values is None else turn(values, orientation),
        orientation=orientation,
        note=_say_missing(rows, header, first.get(b"acTL", b"")),
    )
    return [page]


def _say_missing(rows: int, header: _Header, animation: bytes) -> str | None:
    if rows < header.height:
        return missing_rows(rows, header.height)
    frames = int.from_bytes(animation[:4], "big")
    return f"it is an animation, and only the first of {frames} pictures is read" if frames > 1 else None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length


def _read_header(chunks: Sequence[tuple[bytes, bytes]], name: str) -> _Header:
    try:
        width, height, depth, colour, _, _, interlace = _HEADER.unpack(chunks[0][1][: _HEADER.size])
        return _Header(width, height, depth, colour, bool(interlace))
    except (IndexError, struct.error) as error:
        raise ImageTruncatedError(say_truncated(name)) from error


def _read_deep(data: bytes, header: _Header) -> NDArray[np.uint16]:
    """Read the 16 bits of colour, or of grey with alpha, of which Pillow keeps 8."""
    if header.colour == _GREY_ALPHA:
        # its two bytes of grey and two of alpha are filtered as the four of 8-bit RGBA
        start = data.index(b"IHDR")
        told = _HEADER.pack(header.width, header.height, 8, _RGBA, 0, 0, header.interlaced)
        chunk = b"IHDR" + told
        data = data[:start] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[start + len(chunk) + 4 :]
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            high, low = np.moveaxis(np.array(image).reshape(header.height, header.width, 2, 2), -1, 0)
    else:
        high, low = (_unpack(data, rawmode) for rawmode in ("16B", "16L"))
    deep: NDArray[np.uint16] = high.astype(np.uint16) << 8 | low
    return deep


def _unpack(data: bytes, order: str) -> NDArray[np.uint8]:
    """Have Pillow take the first byte of each sample ("16B") or the second one."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.tile = [tile._replace(args=f"{image.mode};{order}") for tile in image.tile]
        return np.array(image)


def _count_rows(header: _Header, chunks: Sequence[tuple[bytes, bytes]], name: str) -> int:
    """Count the rows that are there: Pillow fills in silently what a file of fewer lacks."""
    sizes = header.sizes()
    expected, found = sum(rows * size for rows, size in sizes), 0
    stream = zlib.decompressobj()
    try:
        for kind, body in chunks:
            left = body if kind == b"IDAT" else b""
            while left and found < expected:
                found += len(stream.decompress(left, _BLOCK))
                left = stream.unconsumed_tail
    except zlib.error as error:
        raise ImageTruncatedError(say_truncated(name)) from error
    if found >= expected:
        return header.height
    rows = found // sizes[0][1]
    if header.interlaced or rows == 0 or not stream.eof:
        raise ImageTruncatedError(say_truncated(name))
    return rows
