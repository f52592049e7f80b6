"""Masks as palette PNG: the value is the lesion's number, and the file shows it in colour."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sonoloop.atomic import whole
from sonoloop.errors import SonoloopError
from sonoloop.imaging.io import read_values
from sonoloop.imaging.overlay import lesion_colour
from sonoloop.regular_files import open_regular

# of the text in a PNG, as its specification names it
MAKER = "Software"
_MOST_BYTES = 1 << 30
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


def write_png(path: Path, image: Image.Image, *, maker: str | None = None) -> None:
    """Write a PNG beside its place and move it there, so that no half of a file is ever seen."""
    _write(path, encode_png(image, maker=maker))


def encode_png(image: Image.Image, *, maker: str | None = None) -> bytes:
    """Return what `write_png` writes; `maker` is kept in it for `refuse_others`."""
    buffer, told = io.BytesIO(), PngInfo()
    if maker is not None:
        told.add_text(MAKER, maker)
    image.save(buffer, format="PNG", pnginfo=told)
    return buffer.getvalue()


def refuse_others(pictures: Iterable[Path], maker: str) -> None:
    """Refuse to replace pictures of which none says that this maker made them."""
    for path in pictures:
        if os.path.lexists(path) and _maker_of(path) != maker:
            raise SonoloopError(
                f"{path} was not made by `{maker}` and would be lost; move it away, or give another --out"
            )


def _maker_of(path: Path) -> object:
    try:
        with open_regular(path, most=_MOST_BYTES) as file, Image.open(file, formats=("PNG",)) as image:
            return image.info.get(MAKER)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _write(path: Path, data: bytes) -> None:
    with whole(path, durable=False) as partial:
        partial.write_bytes(data)
