"""Which way up a picture is stored: EXIF's and TIFF's orientation, from 1 to 8."""

from __future__ import annotations

import re
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
# as Pillow looks for it in the other containers
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


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


def read_xmp(packet: object) -> int:
    """Read the orientation of an XMP packet, which counts where a file's EXIF or TIFF tags have none."""
    match = _XMP.search(packet) if isinstance(packet, bytes) else None
    return known_orientation(int(match[1])) if match else UPRIGHT


def known_orientation(value: object) -> int:
    """Return an orientation if it is one, also as a single byte; anything else counts as upright."""
    if isinstance(value, bytes) and len(value) == 1:
        value = value[0]
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
