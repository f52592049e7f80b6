"""From a probability map to numbered lesions."""

from __future__ import annotations

import numpy as np

from sonoloop.models.postprocess import number_lesions


def blank() -> np.ndarray:
    return np.zeros((60, 80), np.float32)


def test_lesions_are_numbered_by_size_and_islands_dropped():
    lesion = blank()
    lesion[5:15, 5:15] = 0.9
    lesion[30:50, 30:60] = 0.7
    lesion[2, 70] = 1.0
    mask = number_lesions(lesion, threshold=0.5, min_area=0.001)
    assert mask.dtype == np.uint8
    assert np.unique(mask).tolist() == [0, 1, 2]
    assert (mask[30:50, 30:60] == 1).all()
    assert (mask[5:15, 5:15] == 2).all()
    assert mask[2, 70] == 0


def test_holes_are_filled_and_swallow_what_lies_inside():
    lesion = blank()
    lesion[10:40, 10:40] = 1
    lesion[15:35, 15:35] = 0
    lesion[20:30, 20:30] = 1
    mask = number_lesions(lesion, threshold=0.5, min_area=0.001)
    assert np.unique(mask).tolist() == [0, 1]
    assert np.count_nonzero(mask) == 30 * 30


def test_regions_that_touch_at_a_corner_are_one():
    lesion = blank()
    lesion[10:20, 10:20] = 1
    lesion[20:30, 20:30] = 1
    assert number_lesions(lesion, threshold=0.5, min_area=0).max() == 1


def test_the_threshold_itself_counts():
    lesion = blank()
    lesion[10:20, 10:20] = 0.5
    assert number_lesions(lesion, threshold=0.5, min_area=0).any()
    assert not number_lesions(lesion, threshold=0.51, min_area=0).any()


def test_more_than_255_regions_keep_the_largest():
    lesion = np.zeros((100, 100), np.float32)
    lesion[::4, ::4] = 1
    lesion[50:54, 50:54] = 1
    mask = number_lesions(lesion, threshold=0.5, min_area=0)
    assert mask.max() == 255
    assert mask[51, 51] == 1
