"""Masks as palette PNG: the value is the lesion's number, and the file shows it in colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sonoloop.atomic import whole
from sonoloop.imaging.io import read_values
from sonoloop.imaging.overlay import lesion_colour

_PALETTE = [0, 0, 0, *(part for number in range(1, 256) for part in lesion_colour(number))]


def write_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    """Write a mask (H, W), 0 background, then one number a lesion; a file there is replaced in one step."""
    image = Image.fromarray(np.ascontiguousarray(mask))
    image.putpalette(_PALETTE)
    write_png(path, image)


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Read a mask that `write_mask` wrote, or any palette or grey PNG whose values are lesion numbers."""
    return read_values(path)


def write_png(path: Path, image: Image.Image) -> None:
    """Write a PNG beside its place and move it there, so that no half of a file is ever seen."""
    with whole(path, durable=False) as partial:
        image.save(partial, format="PNG")
