"""Callipers, text and body marks that a scanner burned into an image.

An ultrasound beam is wider than its pulse is long: echoes are lying streaks, and a bright line of a pixel or
two that stands upright does not come from tissue. Letters and callipers are full of such strokes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sonoloop.imaging.grey import to_unit

# grey levels of 255 that a stroke stands out against both its sides
_CONTRAST = 50
# pixels to either side at which these are read: half as wide again as a stroke
_GAP = 3
# the horizontal arm of a calliper interrupts its upright one
_BREAK = 5
_SHORTEST = 6
_LONGEST_SIDE = 1000
# maker's marks stand in the upper corners of all of a scanner's images, and tell nothing of a lesion
_CORNER = (0.09, 0.18)
_TOP = 0.035
_EDGE = 2


def overlay_score(pixels: NDArray[np.generic]) -> int:
    """Measure what looks burned in."""
    strokes = ndimage.binary_closing(_upright(_levels(pixels)), np.ones((_BREAK, 1), np.bool_))
    labelled, _ = ndimage.label(strokes, np.ones((3, 3)))
    total = 0
    for rows, columns in ndimage.find_objects(labelled):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        # specks in a row are a streak of tissue
        lying = width > 2 * _SHORTEST and width > 1.5 * height
        total += height if height >= _SHORTEST and not lying else 0
    return total


def has_overlay(pixels: NDArray[np.generic]) -> bool:
    """Whether callipers, text or a body mark look burned in; see `overlay_score`.

    On BUSI it is right of 95 % or more of what experts flagged and of what it flags itself
    (``benchmarks/burned_in.py``).
    """
    return overlay_score(pixels) > 0


def _levels(pixels: NDArray[np.generic]) -> NDArray[np.int16]:
    levels = (to_unit(pixels) * 255).round().astype(np.int16)
    # where pixels are many, strokes are wide
    step = -(-max(levels.shape) // _LONGEST_SIDE)
    if step == 1:
        return levels
    height, width = (side // step * step for side in levels.shape)
    blocks = levels[:height, :width].reshape(height // step, step, width // step, step)
    shrunk: NDArray[np.int16] = blocks.mean((1, 3)).astype(np.int16)
    return shrunk


def _upright(levels: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Mark the pixels that are far brighter than those to both sides, (H, W)."""
    beside = np.pad(levels, ((0, 0), (_GAP, _GAP)), mode="edge")
    strokes: NDArray[np.bool_] = (
        levels - np.maximum(beside[:, : -2 * _GAP], beside[:, 2 * _GAP :]) >= _CONTRAST
    )
    height, width = levels.shape
    down, across = int(_CORNER[0] * height), int(_CORNER[1] * width)
    strokes[: int(_TOP * height)] = False
    strokes[:down, :across] = strokes[:down, width - across :] = False
    strokes[-_EDGE:] = strokes[:, :_EDGE] = strokes[:, -_EDGE:] = False
    return strokes
