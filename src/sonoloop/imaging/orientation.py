"""Which way up a picture is stored: EXIF's and TIFF's orientation, from 1 to 8."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sonoloop.imaging.grey import hash_pixels
from sonoloop.values import Frame

UPRIGHT = 1
TAG = 274
# what undoes each: the two quarter turns undo each other
_BACK = {6: 8, 8: 6}
# BYTE, SHORT and LONG, as EXIF writers have used them
_TYPES = {1: "B", 3: "H", 4: "I"}
_TIFF = {b"II*\0": "<", b"MM\0*": ">"}


def turn(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Bring an array (H, W, ...) as it is stored to how it is looked at."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def turn_back(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo `turn`."""
    return turn(array, _BACK.get(orientation, orientation))


def read_exif(block: bytes) -> int:
    """Read the orientation of an EXIF block; what is damaged or unknown counts as upright."""
    order = _TIFF.get(block[:4])
    if order is None:
        return UPRIGHT
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for number in range(count):
            at = start + 2 + 12 * number
            tag, kind, values = struct.unpack_from(f"{order}HHI", block, at)
            if tag == TAG:
                known = kind in _TYPES and values == 1
                return known_orientation(
                    struct.unpack_from(f"{order}{_TYPES[kind]}", block, at + 8)[0] if known else None
                )
    except struct.error:
        pass
    return UPRIGHT


def known_orientation(value: object) -> int:
    """Return an orientation if it is one; anything else counts as upright."""
    return int(value) if isinstance(value, int) and 1 <= value <= 8 else UPRIGHT


def as_stored(frame: Frame) -> Frame:
    """Give a frame as it lies in its file, which is how an earlier Sonoloop read it."""
    if frame.orientation == UPRIGHT:
        return frame
    pixels = turn_back(frame.pixels, frame.orientation)
    return replace(frame, pixels=pixels, pixels_hash=hash_pixels(pixels), orientation=UPRIGHT)


def onto_frame(drawn: NDArray[Any], frame: Frame, pixels_hash: str) -> NDArray[Any]:
    """Bring what was drawn on pixels of this hash to a frame's grid."""
    is_lying = pixels_hash != frame.pixels_hash and pixels_hash == as_stored(frame).pixels_hash
    return turn(drawn, frame.orientation) if is_lying else drawn
