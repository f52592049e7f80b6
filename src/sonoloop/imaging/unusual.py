"""Images that a breast ultrasound model does not know the like of: told, never refused."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SMALL, _LARGE = 100, 4000  # pixels
_LONG = 4  # times as long as wide
_COLOURED = 40  # difference of red, green and blue, of 255; a scanner's colour is in menus and small maps
_MUCH = 0.3  # of the image
_SAMPLES = 64  # rows and columns that are looked at


def why_unusual(shape: tuple[int, int], colour: NDArray[Any] | None = None) -> str | None:
    """Say in one line why an image is far from an ultrasound image; None where it is not.

    `colour` is (H, W, 3 or 4) where the image is in colour.
    """
    height, width = shape
    size = f"{width} x {height} pixels"
    if min(shape) < _SMALL:
        return f"Small for ultrasound: {size}"
    if max(shape) > _LARGE:
        return f"Large for ultrasound: {size}"
    if max(shape) > _LONG * min(shape):
        return f"Long for ultrasound: {size}"
    if colour is not None and _is_colourful(colour):
        return "Coloured like a photograph"
    return None


def _is_colourful(colour: NDArray[Any]) -> bool:
    rows, columns = (max(1, n // _SAMPLES) for n in colour.shape[:2])
    some = np.asarray(colour[::rows, ::columns, :3]).astype(np.float64)
    top = 255 if colour.dtype == np.uint8 else max(float(some.max()), 1e-12)
    return bool(np.mean(np.ptp(some, axis=-1) * 255 / top > _COLOURED) > _MUCH)
