"""From a probability map to numbered lesions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

MAX_LESIONS = 255
_TOUCHING = np.ones((3, 3), np.bool_)


def number_lesions(lesion: NDArray[np.float32], *, threshold: float, min_area: float) -> NDArray[np.uint8]:
    """Threshold a probability map (H, W), fill holes, and number the lesions, the largest 1; 0 is background.

    8-connected regions below the share `min_area` of the frame are dropped.
    """
    above = lesion >= threshold
    numbered = np.zeros(lesion.shape, np.uint8)
    if not above.any():
        return numbered
    # what lies around them is most of the frame, and has nothing to label
    part = ndimage.find_objects(above.view(np.int8))[0]
    regions, count = ndimage.label(above[part], _TOUCHING)
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(regions)
    kept = [int(i) for i in np.argsort(-areas, kind="stable") if areas[i] >= min_area * lesion.size]
    drawn = numbered[part]
    # the largest is drawn last, so that a hole filled in it swallows what lay inside
    for number, i in reversed([*enumerate(kept[:MAX_LESIONS], start=1)]):
        drawn[boxes[i]][ndimage.binary_fill_holes(regions[boxes[i]] == i + 1)] = number
    # swallowed ones leave gaps
    there = np.bincount(drawn.ravel(), minlength=MAX_LESIONS + 1) > 0
    there[0] = False
    drawn[:] = np.where(there, there.cumsum(), 0).astype(np.uint8)[drawn]
    return numbered
