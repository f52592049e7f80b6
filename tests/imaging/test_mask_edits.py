"""Edits of one lesion of a mask, by value."""

from __future__ import annotations

import numpy as np
import pytest

from sonoloop.imaging.mask_edits import (
    fill_holes,
    free_number,
    grow,
    merge,
    shrink,
    smooth,
    split,
    split_along,
    threshold,
)


def mask_of(*rows: str) -> np.ndarray:
    return np.array([[int(letter) for letter in row.replace(".", "0")] for row in rows], np.uint8)


def test_a_lesion_grows_onto_background_alone() -> None:
    mask = mask_of(".....", ".11..", ".112.", ".....")
    assert np.array_equal(grow(mask, 1), mask_of(".11..", "1111.", "1112.", ".11.."))
    kept = np.zeros(mask.shape, np.bool_)
    kept[0] = True
    assert np.array_equal(grow(mask, 1, kept=kept), mask_of(".....", "1111.", "1112.", ".11.."))


def test_a_lesion_shrinks_and_the_edge_of_the_image_is_no_side() -> None:
    mask = mask_of("1111.", "1111.", "1111.", "....2")
    assert np.array_equal(shrink(mask, 1), mask_of("111..", "111..", ".....", "....2"))
    assert not (shrink(mask, 2) == 2).any()
    kept = mask == 1
    assert np.array_equal(shrink(mask, 1, kept=kept), mask)


def test_growing_and_shrinking_by_more_takes_a_disc() -> None:
    mask = np.zeros((31, 31), np.uint8)
    mask[15, 15] = 3
    grown = grow(mask, 3, pixels=5)
    assert (grown == 3).sum() == 81
    assert np.array_equal(shrink(grown, 3, pixels=5), mask)


def test_smoothing_takes_a_spike_and_fills_a_notch() -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[15:45, 15:45] = 1
    mask[5:15, 30] = 1
    mask[15:20, 20] = 0
    made = smooth(mask, 1, pixels=2)
    assert not made[5:13, 30].any()
    assert made[17:20, 20].all()
    assert abs(int((made == 1).sum()) - 900) < 30


def test_a_lesion_too_small_to_smooth_stays() -> None:
    mask = mask_of(".....", "..1..", ".....")
    assert np.array_equal(smooth(mask, 1), mask)


def test_holes_are_filled_and_another_lesion_in_one_stays() -> None:
    mask = mask_of("11111", "1.1.1", "11121", "11111")
    assert np.array_equal(fill_holes(mask, 1), mask_of("11111", "11111", "11121", "11111"))
    kept = np.zeros(mask.shape, np.bool_)
    kept[1, 1] = True
    assert np.array_equal(fill_holes(mask, 1, kept=kept), mask_of("11111", "1.111", "11121", "11111"))


def dumbbell() -> np.ndarray:
    rows, columns = np.indices((40, 70))
    mask = ((rows - 20) ** 2 + (columns - 18) ** 2 <= 14**2) | (
        (rows - 20) ** 2 + (columns - 48) ** 2 <= 11**2
    )
    mask |= (np.abs(rows - 20) <= 3) & (columns > 18) & (columns < 48)
    return np.where(mask, np.uint8(2), np.uint8(0))


def test_a_lesion_is_split_at_its_narrowest_place() -> None:
    mask = dumbbell()
    mask[0, 0] = 1
    made = split(mask, 2)
    assert np.array_equal(made > 0, mask > 0)
    # the larger part keeps the number, the other gets the lowest one that is free
    assert made[20, 18] == 2
    assert made[20, 48] == 3
    border = np.flatnonzero(np.diff(made[20].astype(int)) == 1)
    assert 30 <= border[-1] <= 38


def test_parts_that_are_apart_are_split_as_they_are() -> None:
    mask = mask_of("111.1", "111.1", "111.1")
    assert np.array_equal(split(mask, 1), mask_of("111.2", "111.2", "111.2"))


def test_a_round_lesion_has_no_narrow_place() -> None:
    rows, columns = np.indices((40, 40))
    mask = ((rows - 20) ** 2 + (columns - 20) ** 2 <= 100).astype(np.uint8)
    with pytest.raises(ValueError, match="lesion 1 has no narrow place to split it at: draw a line"):
        split(mask, 1)


def test_a_lesion_is_split_along_a_drawn_line() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[4:16, 4:16] = 1
    made = split_along(mask, 1, [(0, 11), (19, 11)])
    assert np.array_equal(made > 0, mask > 0)
    assert (made[4:16, 4:11] == 1).all()
    assert (made[4:16, 12:16] == 2).all()
    kept = np.zeros(mask.shape, np.bool_)
    kept[4:16, 14:] = True
    assert (split_along(mask, 1, [(0, 11), (19, 11)], kept=kept)[4:16, 14:16] == 1).all()


def test_a_line_that_parts_nothing_is_refused() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[4:16, 4:16] = 1
    with pytest.raises(ValueError, match="does not part lesion 1"):
        split_along(mask, 1, [(0, 10), (8, 10)])
    with pytest.raises(ValueError, match="two points at least"):
        split_along(mask, 1, [(0, 10)])


def test_two_lesions_become_one() -> None:
    mask = mask_of("11.22", "11322")
    assert np.array_equal(merge(mask, 2, 1), mask_of("22.22", "22322"))
    with pytest.raises(ValueError, match="with itself"):
        merge(mask, 1, 1)


def test_a_threshold_draws_the_part_of_the_map_that_touches_the_lesion() -> None:
    mask = mask_of("1.....", "......", "....22")
    probability = np.array(
        [[0.9, 0.6, 0.2, 0.0, 0.9, 0.9], [0.7, 0.4, 0.0, 0.0, 0.0, 0.0], [0.3, 0.0, 0.0, 0.6, 0.9, 0.9]],
        np.float32,
    )
    assert np.array_equal(threshold(mask, 1, probability, 0.5), mask_of("11....", "1.....", "....22"))
    assert np.array_equal(threshold(mask, 1, probability, 0.3), mask_of("11....", "11....", "1...22"))
    # what lies in another lesion stays its own
    assert np.array_equal(threshold(mask, 2, probability, 0.5), mask_of("1.....", "......", "...222"))
    assert not (threshold(mask, 1, probability, 0.95) == 1).any()


@pytest.mark.parametrize("edit", [grow, shrink, smooth, fill_holes, split])
def test_what_is_no_lesion_is_named(edit) -> None:
    mask = mask_of("11.", "...")
    with pytest.raises(ValueError, match="there is no lesion 4 in the mask"):
        edit(mask, 4)
    with pytest.raises(ValueError, match="a number from 1 to 255, got 0"):
        edit(mask, 0)
    with pytest.raises(ValueError, match=r"mask must be uint8 \(H, W\), got int64"):
        edit(mask.astype(np.int64), 1)
    with pytest.raises(ValueError, match=r"kept must be bool \(2, 3\)"):
        edit(mask, 1, kept=np.zeros((2, 2), np.bool_))


def test_bad_amounts_are_named() -> None:
    mask = mask_of("11.", "...")
    with pytest.raises(ValueError, match="pixels must be from 1 to 100, got 0"):
        grow(mask, 1, pixels=0)
    with pytest.raises(ValueError, match=r"at must be in \(0, 1\), got 1"):
        threshold(mask, 1, np.zeros(mask.shape, np.float32), 1)
    with pytest.raises(ValueError, match="probability must be"):
        threshold(mask, 1, np.zeros((3, 3), np.float32), 0.5)


def test_a_mask_holds_so_many_lesions_and_no_more() -> None:
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    with pytest.raises(ValueError, match="255 lesions"):
        free_number(mask)
    mask[0, 7] = 0
    assert free_number(mask) == 7


def test_no_edit_changes_the_mask_it_is_given() -> None:
    mask = dumbbell()
    before = mask.copy()
    for edit in (grow, shrink, smooth, fill_holes, split):
        edit(mask, 2)
    assert np.array_equal(mask, before)
