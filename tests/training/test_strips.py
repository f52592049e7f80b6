"""Strips: a part of an image's width with the whole lesion, or with none of it."""

from __future__ import annotations

import pytest
import torch

from sonoloop.values import CLASSES
from sonoloop_training.fit.batches import cut_strip

SIDE = 128
NORMAL, BENIGN = CLASSES.index("normal"), CLASSES.index("benign")


def pair(columns: slice | None, rows: slice = slice(40, 70)) -> tuple[torch.Tensor, torch.Tensor]:
    """An image with black borders above and below, bright where the lesion is."""
    image = torch.zeros(1, SIDE, SIDE)
    image[:, 16:112] = 0.2
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    if columns is not None:
        mask[:, rows, columns] = 1
    return image + 0.6 * mask, mask


def cut(columns: slice | None, label: int, seeds: int = 200):
    image, mask = pair(columns)
    for seed in range(seeds):
        torch.manual_seed(seed)
        got = cut_strip(image, mask, label)
        yield got, torch.equal(got[0], image)


def test_a_lesion_is_kept_whole_or_left_out_whole_and_the_label_follows():
    seen = set()
    for (image, mask, label), unchanged in cut(slice(20, 40), BENIGN):
        assert image.shape == mask.shape == (1, SIDE, SIDE)
        if unchanged:
            seen.add("unchanged")
            assert label == BENIGN
            continue
        if label == NORMAL:
            seen.add("beside")
            assert not mask.any()
            assert image.max() < 0.3
            continue
        seen.add("whole")
        # bright exactly where the mask is, but for the rim that is interpolated
        bright = image > 0.5
        assert (bright != (mask > 0)).sum() <= 0.15 * mask.sum()
        rows, columns = torch.nonzero(mask[0], as_tuple=True)
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        # 30 rows and 20 columns, grown alike
        assert width / height == pytest.approx(20 / 30, abs=0.1)
        assert height >= 30
    assert seen == {"unchanged", "beside", "whole"}


def test_a_lesion_in_the_middle_of_a_narrow_margin_is_never_cut():
    for (_, mask, label), unchanged in cut(slice(30, 98), BENIGN):
        assert unchanged or (label == BENIGN and mask.sum() > 0)


def test_a_strip_beside_a_lesion_keeps_its_distance():
    # the lesion's own grey levels would show if the margin were cut into
    image, mask = pair(slice(100, 110))
    image[:, 16:112, 97:100] = image[:, 16:112, 110:113] = 1.0
    beside = 0
    for seed in range(200):
        torch.manual_seed(seed)
        got, _, label = cut_strip(image, mask, BENIGN)
        if label == NORMAL:
            beside += 1
            assert got.max() < 0.5
    assert beside > 5


def test_a_normal_image_stays_normal_and_shows_less_of_its_width():
    for (image, mask, label), unchanged in cut(None, NORMAL, seeds=50):
        assert not unchanged
        assert label == NORMAL
        assert not mask.any()
        lit = torch.nonzero(image[0] > 0)
        height, width = (int(v) + 1 for v in lit.max(0).values - lit.min(0).values)
        # 96 rows, 40 to 75 % of 128 columns, as large as fits
        assert max(height, width) == SIDE
        assert 0.4 * SIDE / 96 - 0.03 <= width / height <= 0.75 * SIDE / 96 + 0.03


def test_an_image_with_hardly_any_light_is_left_alone():
    image, mask = torch.zeros(1, SIDE, SIDE), torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    image[:, :, 60:70] = 0.5
    assert all(torch.equal(a, b) for a, b in zip(cut_strip(image, mask, 0), (image, mask), strict=False))


def test_a_strip_between_two_pictures_is_not_taken():
    # text at one edge, the picture at the other, black in between
    image, mask = torch.zeros(1, SIDE, SIDE), torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    image[:, 16:112, :2] = image[:, 16:112, 126:] = 0.5
    image[:, 60, 2:34] = 0.5
    for seed in range(100):
        torch.manual_seed(seed)
        got, _, label = cut_strip(image, mask, NORMAL)
        assert got.any()
        assert label == NORMAL
