"""Masks as palette PNG: the value is the lesion's number, and the file shows it in colour."""

from __future__ import annotations

import io
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
    _write(path, encode_mask(mask))


def encode_mask(mask: NDArray[np.uint8]) -> bytes:
    """Return what `write_mask` writes."""
    image = Image.fromarray(np.ascontiguousarray(mask))
    image.putpalette(_PALETTE)
    return encode_png(image)


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Read a mask that `write_mask` wrote, or any palette or grey PNG whose values are lesion numbers."""
    return read_values(path)


def write_png(path: Path, image: Image.Image) -> None:
    """Write a PNG beside its place and move it there, so that no half of a file is ever seen."""
    _write(path, encode_png(image))


def encode_png(image: Image.Image) -> bytes:
    """Return what `write_png` writes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> None:
    with whole(path, durable=False) as partial:
        partial.write_bytes(data)
