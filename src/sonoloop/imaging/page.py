"""A decoded page of an image file, and the depth that its colours are kept at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

# above it, colours fill their 16 bits
_HALF = 0x7FFF


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Page:
    """What a decoder makes of a page.

    Parameters
    ----------
    pixels : numpy.ndarray
        (H, W) or (H, W, C), upright.
    values : numpy.ndarray, optional
        The numbers that the file holds, uint8 (H, W), where `pixels` shows them otherwise: indices of a
        palette, and the 0 and 1 of a 1-bit image. In a mask they are the lesions' numbers.
    orientation : int
        The turn that was made here and that an earlier Sonoloop did not make; see `Frame`.
    note : str, optional
        What of the page is not there, or was not read.
    """

    pixels: NDArray[Any]
    values: NDArray[np.uint8] | None = None
    orientation: int = 1
    note: str | None = None


def missing_rows(there: int, of: int) -> str:
    """Say that rows of a page are not there."""
    return f"only {there} of {of} rows are there; the rest is blank"


def narrow_colour(pages: Sequence[Page]) -> list[Page]:
    """Bring colours of 16 bits to 8, unless 10 or 12 bits of signal would be lost with them."""
    deep = [page.pixels for page in pages if _is_deep_colour(page.pixels)]
    if not deep or max(int(pixels[..., :3].max()) for pixels in deep) <= _HALF:
        return list(pages)
    return [
        replace(page, pixels=(page.pixels >> 8).astype(np.uint8)) if _is_deep_colour(page.pixels) else page
        for page in pages
    ]


def _is_deep_colour(pixels: NDArray[Any]) -> bool:
    return pixels.ndim == 3 and pixels.shape[2] >= 3 and pixels.dtype == np.uint16


def unmultiply(colour: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    """Undo that colours (H, W, C) were multiplied by alpha (H, W); where alpha is 0 they are lost."""
    alpha = alpha[..., None]
    if colour.dtype.kind == "f":
        return np.where(alpha > 0, colour / np.where(alpha > 0, alpha, 1), 0).astype(colour.dtype)
    if colour.dtype.kind != "u":
        return colour
    top = np.iinfo(colour.dtype).max
    wide = colour.astype(np.uint64) * np.uint64(top) // np.maximum(alpha, 1).astype(np.uint64)
    return np.where(alpha > 0, np.minimum(wide, top), 0).astype(colour.dtype)
