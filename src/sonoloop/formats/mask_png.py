"""Masks as palette PNG: the value is the lesion's number, and the file shows it in colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sonoloop.atomic import whole
from sonoloop.errors import ImageTruncatedError, NotAnImageError
from sonoloop.imaging.io import read_study
from sonoloop.imaging.overlay import lesion_colour

_PALETTE = [0, 0, 0, *(part for number in range(1, 256) for part in lesion_colour(number))]


def write_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    """Write a mask; a file that was there is replaced in one step.

    Parameters
    ----------
    path : pathlib.Path
        Where to; its folder is there.
    mask : numpy.ndarray
        uint8 (H, W): 0 background, then one number a lesion.
    """
    image = Image.fromarray(np.ascontiguousarray(mask))
    image.putpalette(_PALETTE)
    write_png(path, image)


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Read a mask that `write_mask` wrote, or any palette or grey PNG whose values are lesion numbers.

    Returns
    -------
    numpy.ndarray
        uint8 (H, W).
    """
    read_study(path)  # for its checks and its messages
    try:
        with Image.open(path) as image:
            if image.mode not in ("1", "L", "P"):
                raise NotAnImageError(
                    f"{path.name} is no mask: it holds {image.mode} values; save it as a grey or palette PNG"
                )
            return np.array(image).astype(np.uint8)
    except OSError as error:
        raise ImageTruncatedError(f"{path.name} breaks off or is damaged; write it again") from error


def write_png(path: Path, image: Image.Image) -> None:
    """Write a PNG beside its place and move it there, so that no half of a file is ever seen."""
    with whole(path, durable=False) as partial:
        image.save(partial, format="PNG")
