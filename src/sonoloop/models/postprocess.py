"""From a probability map to numbered lesions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label, regionprops
from skimage.segmentation import relabel_sequential

MAX_LESIONS = 255


def number_lesions(lesion: NDArray[np.float32], *, threshold: float, min_area: float) -> NDArray[np.uint8]:
    """Threshold a probability map (H, W), fill holes, and number the lesions, the largest 1; 0 is background.

    8-connected regions below the share `min_area` of the frame are dropped.
    """
    regions = label(lesion >= threshold, connectivity=2)
    regions[np.bincount(regions.ravel())[regions] < min_area * lesion.size] = 0
    kept = sorted(regionprops(regions), key=lambda region: -region.area)[:MAX_LESIONS]
    numbered = np.zeros(lesion.shape, np.uint8)
    # the largest is drawn last, so that a hole filled in it swallows what lay inside
    for number, region in reversed([*enumerate(kept, start=1)]):
        numbered[region.slice][ndimage.binary_fill_holes(region.image)] = number
    # swallowed ones leave gaps
    return np.asarray(relabel_sequential(numbered)[0], np.uint8)
