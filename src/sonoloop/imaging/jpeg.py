"""JPEG files: Pillow decodes them; which kind they are, and whether they are whole, is read here."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from sonoloop.errors import ImageTruncatedError, NotAnImageError
from sonoloop.imaging.io import say_truncated
from sonoloop.imaging.orientation import turn
from sonoloop.imaging.page import Page, missing_rows
from sonoloop.imaging.pictures import open_picture, read_orientation, to_array

_BASELINE = (0xC0, 0xC1)
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_READ_FRAMES = {*_BASELINE, 0xC2, 0xC9, 0xCA}
_START, _END, _SCAN, _ADOBE = 0xD8, 0xD9, 0xDA, 0xEE
# not a marker, but a byte of data, a fill byte or a restart
_CODED = {0x00, 0xFF, *range(0xD0, 0xD8)}
_ALONE = {0x01, *range(0xD0, 0xD9)}
# what a decoder makes of blocks that are not there
_GREY = 128
# a picture that is whole ends before them
_MORE = bytes(number * 73 % 255 for number in range(1, 4097))


@dataclass(slots=True)
class Header:
    """What the markers of a JPEG say."""

    frame: int = 0
    precision: int = 8
    channels: int = 0
    rows: int = 0
    # rows that are coded together
    step: int = 8
    adobe: bool = False
    # where the picture ends; None where it breaks off
    end: int | None = None


def decode_jpeg(data: bytes, name: str, max_pixels: int) -> list[Page]:
    """Decode a JPEG."""
    header = read_header(data)
    if header.precision != 8 or (header.frame and header.frame not in _READ_FRAMES):
        raise NotAnImageError(
            f"{name} is a JPEG of a kind that Sonoloop does not read ({header.precision}-bit, process "
            f"{header.frame - 0xC0}); save it as an 8-bit JPEG or as PNG"
        )
    if header.channels == 4 and not header.adobe:
        raise NotAnImageError(
            f"{name} is a CMYK JPEG that does not say how its inks are meant; save it as RGB"
        )
    with open_picture(data, "JPEG", name, max_pixels) as image:
        pixels, orientation = to_array(image, name), read_orientation(image)
    rows = _count_rows(data, header, pixels, name, max_pixels)
    return [
        Page(
            pixels=turn(pixels, orientation),
            orientation=orientation,
            note=None if rows == len(pixels) else _say_missing(header, rows, len(pixels)),
        )
    ]


def _say_missing(header: Header, there: int, of: int) -> str:
    if header.frame in _BASELINE:
        return missing_rows(there, of)
    return f"it ends early: from row {there} of {of} on it is coarser, or blank"


def read_header(data: bytes) -> Header:
    """Walk the markers of a JPEG to its end."""
    header, at = Header(), 2
    while at + 4 <= len(data) or data[at : at + 2] == b"\xff\xd9":
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == _END:
            header.end = at
            break
        if marker in _ALONE:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        _take(header, marker, data[at + 4 : at + 2 + length])
        at += 2 + length
        if marker == _SCAN:
            at = _skip_scan(data, at)
    return header


def _take(header: Header, marker: int, body: bytes) -> None:
    if marker in _FRAMES and len(body) >= 6:
        header.frame, header.precision, header.channels = marker, body[0], body[5]
        (header.rows,) = struct.unpack_from(">H", body, 1)
        header.step = 8 * max([1, *(factor & 15 for factor in body[7 : 6 + 3 * body[5] : 3])])
    elif marker == _ADOBE and body.startswith(b"Adobe"):
        header.adobe = True


def _skip_scan(data: bytes, at: int) -> int:
    """Find the marker that ends a scan's coded data."""
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        follows = data[at + 1]
        if follows not in _CODED:
            return at
        at += 1 if follows == 0xFF else 2
    return len(data)


def _count_rows(data: bytes, header: Header, pixels: NDArray[Any], name: str, max_pixels: int) -> int:
    """Count the rows that are there, where a JPEG ends before its picture does, which Pillow passes over.

    What is put before the end changes a picture that is not whole, from where it stops.
    """
    whole = header.frame in _BASELINE and header.channels in (1, 3) and (pixels[-1, -1] != _GREY).any()
    if header.end is None or whole:
        return len(pixels)
    longer = data[: header.end] + _MORE + data[header.end :]
    with open_picture(longer, "JPEG", name, max_pixels) as image:
        differ = to_array(image, name) != pixels
    lines = differ.reshape(len(pixels), -1).any(axis=1)
    if not lines.any():
        return len(pixels)
    rows = int(lines.argmax()) // header.step * header.step
    if rows == 0:
        raise ImageTruncatedError(say_truncated(name))
    return rows
