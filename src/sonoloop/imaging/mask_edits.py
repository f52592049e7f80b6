"""Edits of one lesion of a mask: larger, smaller, smoother, whole, in two, one with another.

Each takes a mask, uint8 (H, W), with 0 for background and a number a lesion, and gives a new one. Pixels of
other lesions stay as they are, and so do those that are `kept`, bool (H, W), such as those painted by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import line
from skimage.feature import peak_local_max
from skimage.morphology import disk
from skimage.segmentation import watershed

Mask = NDArray[np.uint8]
Bools = NDArray[np.bool_]

MAX_LESIONS = 255
_CROSS = ndimage.generate_binary_structure(2, 1)
_TOUCHING = np.ones((3, 3), np.bool_)


def grow(mask: Mask, lesion: int, *, pixels: int = 1, kept: Bools | None = None) -> Mask:
    """Grow a lesion by so many pixels on all sides, onto background alone."""
    old = _select(mask, lesion, kept)
    return _replace(mask, lesion, ndimage.binary_dilation(old, _ball(pixels)), kept)


def shrink(mask: Mask, lesion: int, *, pixels: int = 1, kept: Bools | None = None) -> Mask:
    """Take so many pixels off a lesion on all sides, the image's edge not being one; what is thin goes."""
    old = _select(mask, lesion, kept)
    return _replace(mask, lesion, ndimage.binary_erosion(old, _ball(pixels), border_value=1), kept)


def smooth(mask: Mask, lesion: int, *, pixels: float = 3.0, kept: Bools | None = None) -> Mask:
    """Smooth an outline: corners and notches smaller than about so many pixels go, its area hardly changes.

    The lesion is blurred, and what is above one half stays; of a lesion that would go altogether the outline
    is left as it is.
    """
    if not 0 < pixels <= 100:
        raise ValueError(f"pixels must be above 0 and at most 100, got {pixels}")
    old = _select(mask, lesion, kept)
    blurred = ndimage.gaussian_filter(old.astype(np.float32), pixels, mode="nearest")
    new = blurred > 0.5
    return _replace(mask, lesion, new if new.any() else old, kept)


def fill_holes(mask: Mask, lesion: int, *, kept: Bools | None = None) -> Mask:
    """Fill the holes of a lesion that are background; another lesion inside it stays."""
    return _replace(mask, lesion, ndimage.binary_fill_holes(_select(mask, lesion, kept)), kept)


def split(mask: Mask, lesion: int, *, kept: Bools | None = None) -> Mask:
    """Split a lesion in two: in parts that are apart, else at its narrowest place.

    The place is found by a watershed on the distance from the outline, from its two highest peaks. The larger
    part keeps the number, the other gets the lowest one that is free. Pixels that are kept keep theirs.

    Raises
    ------
    ValueError
        If the lesion has one peak alone, so that it has no narrow place, or there is no free number.
    """
    old = _select(mask, lesion, kept)
    regions, count = ndimage.label(old, _TOUCHING)
    if count < 2:
        depth = ndimage.distance_transform_edt(np.pad(old, 1))[1:-1, 1:-1]
        # peaks nearer to each other than the lesion is thick are of one bulge
        apart = max(2, round(float(depth.max())))
        peaks = peak_local_max(
            depth, min_distance=apart, num_peaks=2, labels=old.astype(np.int32), exclude_border=False
        )
        if len(peaks) < 2:
            raise ValueError(f"lesion {lesion} has no narrow place to split it at: draw a line across it")
        seeds = np.zeros(mask.shape, np.int32)
        seeds[tuple(peaks.T)] = (1, 2)
        regions = watershed(-depth, seeds, mask=old)
    return _divide(mask, lesion, regions, kept)


def split_along(
    mask: Mask, lesion: int, points: Sequence[tuple[float, float]], *, kept: Bools | None = None
) -> Mask:
    """Split a lesion along a line through points (row, column), as a cut that is drawn across it.

    The largest part keeps the number, all others together get the lowest one that is free. Pixels of the line
    go to the part next to them. Pixels that are kept keep their number.

    Raises
    ------
    ValueError
        If the line does not part the lesion, or there is no free number.
    """
    old = _select(mask, lesion, kept)
    if len(points) < 2:
        raise ValueError("a line to split along needs two points at least")
    cut = np.zeros(mask.shape, np.bool_)
    corners = np.round(np.array(points, np.float64)).astype(int)
    for before, after in pairwise(corners):
        rows, columns = line(*before, *after)
        inside = (rows >= 0) & (columns >= 0) & (rows < mask.shape[0]) & (columns < mask.shape[1])
        cut[rows[inside], columns[inside]] = True
    # parts that touch at a corner of the line alone are apart
    regions, count = ndimage.label(old & ~cut, _CROSS)
    before = ndimage.label(old, _CROSS)[1]
    if count <= before:
        raise ValueError(
            f"the line does not part lesion {lesion}: draw it across, from background to background"
        )
    whole = watershed(np.zeros(mask.shape, np.uint8), regions, mask=old)
    return _divide(mask, lesion, whole, kept)


def merge(mask: Mask, lesion: int, other: int, *, kept: Bools | None = None) -> Mask:
    """Give the pixels of another lesion to this one; a gap between them stays background.

    Pixels of the other one that are kept keep their number.
    """
    _select(mask, lesion, kept)
    theirs = _select(mask, other, kept)
    if lesion == other:
        raise ValueError(f"lesion {lesion} cannot be merged with itself: give two numbers")
    if kept is not None:
        theirs = theirs & ~kept
    return np.where(theirs, np.uint8(lesion), mask)


def threshold(
    mask: Mask, lesion: int, probability: NDArray[np.float32], at: float, *, kept: Bools | None = None
) -> Mask:
    """Draw a lesion anew where a probability map is at least `at`.

    Of the map's connected parts those count that touch the lesion as it is; the holes of what comes out are
    filled. Where none touches it, the lesion goes.

    Parameters
    ----------
    probability : numpy.ndarray
        Lesion probability, float (H, W) in [0, 1], as `Prediction.lesion`.
    at : float
        In (0, 1).
    """
    if probability.shape != mask.shape:
        raise ValueError(f"probability must be {mask.shape}, got {probability.shape}")
    if not 0 < at < 1:
        raise ValueError(f"at must be in (0, 1), got {at}")
    old = _select(mask, lesion, kept)
    regions, _ = ndimage.label(probability >= at, _TOUCHING)
    touched = np.unique(regions[old])
    new = np.isin(regions, touched[touched > 0])
    return _replace(mask, lesion, ndimage.binary_fill_holes(new), kept)


def free_number(mask: Mask) -> int:
    """Give the lowest number that no lesion has."""
    free = np.setdiff1d(np.arange(1, MAX_LESIONS + 1), mask)
    if not len(free):
        raise ValueError(f"the mask has {MAX_LESIONS} lesions, and a mask holds no more: merge some first")
    return int(free[0])


def _select(mask: Mask, lesion: int, kept: Bools | None) -> Bools:
    """Find the pixels of a lesion, and refuse what is no mask or not there."""
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(f"mask must be uint8 (H, W), got {mask.dtype} {mask.shape}")
    if kept is not None and (kept.shape != mask.shape or kept.dtype != np.bool_):
        raise ValueError(f"kept must be bool {mask.shape}, got {kept.dtype} {kept.shape}")
    if not 1 <= lesion <= MAX_LESIONS:
        raise ValueError(f"a lesion has a number from 1 to {MAX_LESIONS}, got {lesion}")
    found: Bools = mask == lesion
    if not found.any():
        raise ValueError(f"there is no lesion {lesion} in the mask")
    return found


def _replace(mask: Mask, lesion: int, new: NDArray[np.bool_], kept: Bools | None) -> Mask:
    """Give a lesion other pixels: never those of another one, and those that are kept as they are."""
    old = mask == lesion
    changes = (new != old) & (old | (mask == 0))
    if kept is not None:
        changes &= ~kept
    return np.where(changes, np.where(new, np.uint8(lesion), np.uint8(0)), mask)


def _divide(mask: Mask, lesion: int, regions: NDArray[Any], kept: Bools | None) -> Mask:
    """Give all regions of a lesion but the largest a number of their own."""
    areas = np.bincount(regions.ravel())
    areas[0] = 0
    theirs = (regions > 0) & (regions != areas.argmax())
    if kept is not None:
        theirs &= ~kept
    return np.where(theirs, np.uint8(free_number(mask)), mask)


def _ball(pixels: int) -> NDArray[np.bool_]:
    if not 1 <= pixels <= 100:
        raise ValueError(f"pixels must be from 1 to 100, got {pixels}")
    return np.asarray(disk(pixels), np.bool_)
