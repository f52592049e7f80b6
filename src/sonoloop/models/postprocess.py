"""From a probability map to numbered lesions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_EIGHT = np.ones((3, 3), np.bool_)
MAX_LESIONS = 255


def number_lesions(lesion: NDArray[np.float32], *, threshold: float, min_area: float) -> NDArray[np.uint8]:
    """Threshold a probability map, drop islands, fill holes, and number what is left.

    Parameters
    ----------
    lesion : numpy.ndarray
        Lesion probability, (H, W) in [0, 1].
    threshold : float
        A pixel of at least this probability is lesion.
    min_area : float
        8-connected regions below this share of the frame are dropped.

    Returns
    -------
    numpy.ndarray
        uint8 (H, W): 0 background, then one number a lesion, the largest 1.
    """
    regions, count = ndimage.label(lesion >= threshold, structure=_EIGHT)
    numbered = np.zeros(lesion.shape, np.uint8)
    if count == 0:
        return numbered
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(regions)
    order = np.argsort(-areas, kind="stable")
    kept = [index for index in order if areas[index] >= min_area * lesion.size][:MAX_LESIONS]
    # the largest is drawn last, so that a hole filled in it swallows what lay inside
    for index in reversed(kept):
        box = boxes[index]
        numbered[box][ndimage.binary_fill_holes(regions[box] == index + 1)] = kept.index(index) + 1
    return _close_gaps(numbered)


def _close_gaps(numbered: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Renumber without gaps, order kept."""
    present = np.unique(numbered)
    if present[-1] == np.count_nonzero(present):
        return numbered
    renumbered = np.zeros(256, np.uint8)
    renumbered[present[present > 0]] = np.arange(1, np.count_nonzero(present) + 1)
    return renumbered[numbered]
