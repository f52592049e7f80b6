"""Pictures of a frame with its lesions outlined, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from sonoloop.imaging.grey import to_unit

# cyan, magenta, yellow and orange: told apart with any colour vision, and none of them a grey level
LESION_COLOURS = ((0, 255, 255), (255, 0, 255), (255, 255, 0), (255, 165, 0))

_STRIP = (24, 24, 24)
_TEXT = (235, 235, 235)


def lesion_colour(number: int) -> tuple[int, int, int]:
    """Give the colour (red, green, blue) in which the lesion of that number, from 1, is drawn."""
    return LESION_COLOURS[(number - 1) % len(LESION_COLOURS)]


def draw_overlay(pixels: NDArray[Any], mask: NDArray[np.uint8], lines: Sequence[str]) -> NDArray[np.uint8]:
    """Outline the lesions of a frame (H, W) and write text below it: uint8 (H + strip, at least W, 3).

    The frame is the upper left; the outlines lie just outside the lesions, so that they cover none of them.
    """
    height, width = pixels.shape
    picture = np.repeat(to_display(pixels)[..., None], 3, axis=-1)
    thickness = max(1, round(max(height, width) / 300))
    for number in np.unique(mask[mask > 0]):
        rows, columns, ring = outline(mask == number, thickness)
        picture[rows, columns][ring & (mask[rows, columns] == 0)] = lesion_colour(int(number))
    strip = _write(lines, width=width, size=max(12, round(max(height, width) / 38)))
    canvas = np.full((height + strip.shape[0], strip.shape[1], 3), _STRIP, np.uint8)
    canvas[:height, :width] = picture
    canvas[height:] = strip
    return canvas


def outline(lesion: NDArray[np.bool_], thickness: int) -> tuple[slice, slice, NDArray[np.bool_]]:
    """Find the ring of pixels around a lesion (H, W): the rows and columns it is in, and it within these."""
    rows, columns = (
        slice(max(0, s.start - thickness), s.stop + thickness)
        for s in ndimage.find_objects(lesion.astype(np.uint8))[0]
    )
    inside = lesion[rows, columns]
    disc = ndimage.generate_binary_structure(2, 1)
    ring: NDArray[np.bool_] = ndimage.binary_dilation(inside, disc, iterations=thickness) & ~inside
    return rows, columns, ring


def to_display(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Bring grey levels to 8 bits, scaled as `to_unit` does."""
    if pixels.dtype == np.uint8:
        return pixels
    return np.rint(to_unit(pixels) * 255).astype(np.uint8)


def _write(lines: Sequence[str], *, width: int, size: int) -> NDArray[np.uint8]:
    """Set the lines on a strip that is at least `width` wide, and wider where they need it."""
    font = ImageFont.load_default(size)
    margin, leading = size // 2, round(size * 1.35)
    longest = max((font.getlength(line) for line in lines), default=0)
    strip = Image.new("RGB", (max(width, int(longest) + 2 * margin), len(lines) * leading + margin), _STRIP)
    draw = ImageDraw.Draw(strip)
    for row, line in enumerate(lines):
        draw.text((margin, margin // 2 + row * leading), line, fill=_TEXT, font=font)
    return np.asarray(strip)
