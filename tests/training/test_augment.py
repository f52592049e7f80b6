"""Augmentation, joint on image and mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import Image, Mask

from sonoloop.imaging.phantom import phantom
from sonoloop.values import CLASSES
from sonoloop_training.augment import PROBABILITIES, AugmentConfig, build_augmentation
from sonoloop_training.augment.transforms import (
    BurnedIn,
    Elastic,
    Levels,
    Sector,
    contrast,
    gamma,
    resolution,
    speckle,
    time_gain,
)
from sonoloop_training.fit.batches import letterbox_pair

SIDE = 128
STILL = {"rotation": 0.0, "translation": 0.0, "scale": (1.0, 1.0), "shear": 0.0}
NEVER = dict.fromkeys(PROBABILITIES, 0.0)


def pair(label: str = "benign") -> tuple[Image, Mask]:
    made = phantom(label, seed=3, shape=(200, 256))
    image, mask = letterbox_pair(made.image, made.mask > 0, SIDE)
    return Image(image[None].float() / 255), Mask(mask[None])


def large_lesion() -> Mask:
    """An ellipse of about 2,000 pixels: rounding at its rim hardly counts."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = ((rows - 60) / 20) ** 2 + ((columns - 70) / 32) ** 2 < 1
    return Mask(torch.from_numpy(inside.astype(np.uint8))[None])


@pytest.mark.parametrize(
    "transform", [*map(Levels, (gamma, contrast, time_gain, speckle, resolution)), BurnedIn()]
)
def test_grey_levels_change_within_range_and_masks_do_not(transform):
    torch.manual_seed(0)
    image, mask = pair()
    changed, same = transform(image, mask)
    assert isinstance(changed, Image)
    assert changed.shape == image.shape
    assert not torch.equal(changed, image)
    assert 0 <= changed.min() <= changed.max() <= 1
    assert torch.equal(same, mask)


def test_the_time_gain_changes_along_depth_only():
    torch.manual_seed(1)
    flat = Image(torch.full((1, 32, 32), 0.5))
    changed, _ = Levels(time_gain)(flat, Mask(torch.zeros(1, 32, 32)))
    assert changed.std(dim=2).max() < 1e-6
    assert changed.std(dim=1).min() > 1e-3


def test_black_borders_stay_black():
    image, mask = pair()
    image[:, :20] = 0
    for transform in map(Levels, (gamma, contrast, time_gain, speckle)):
        torch.manual_seed(2)
        assert not transform(image, mask)[0][:, :20].any()


def test_fewer_pixels_take_detail_away_and_keep_the_rest():
    torch.manual_seed(0)
    fine = Image((torch.rand(1, SIDE, SIDE) > 0.5).float())
    coarse, _ = Levels(resolution)(fine, large_lesion())
    assert coarse.shape == fine.shape
    assert coarse.std() < 0.7 * fine.std()
    assert coarse.mean() == pytest.approx(float(fine.mean()), abs=0.01)


@pytest.mark.parametrize(
    "settings",
    [{}, {**STILL, "elastic": 1.0}, {"elastic": 1.0, "flip": 0.5}],
    ids=["affine", "elastic", "all"],
)
def test_the_mask_moves_with_the_image(settings):
    augmentation = build_augmentation(AugmentConfig(**{**NEVER, **settings}))
    mask = large_lesion()
    moved_at_all = 0
    for seed in range(12):
        torch.manual_seed(seed)
        # the mask itself as the image: where they part, they were not moved alike
        image, moved = augmentation(Image(mask.float()), mask)
        assert set(moved.unique().tolist()) == {0, 1}
        both = (image > 0.5) & (moved > 0)
        assert 2 * both.sum() / ((image > 0.5).sum() + moved.sum()) > 0.96
        moved_at_all += bool((moved != mask).sum() > 0.02 * mask.sum())
    assert moved_at_all >= 10


def test_a_warp_is_smooth_and_small():
    ramp = Image(torch.linspace(0, 1, SIDE).expand(1, SIDE, SIDE).clone())
    for seed in range(8):
        torch.manual_seed(seed)
        warped, _ = Elastic()(ramp, large_lesion())
        inner = warped[0, 16:-16, 16:-16]
        shift = (inner - ramp[0, 16:-16, 16:-16]) * (SIDE - 1)
        assert 0.2 < shift.abs().max() < 0.12 * SIDE
        # no fold: levels still rise from left to right
        assert (inner.diff(dim=1) > -1e-4).all()


def test_flips_are_horizontal_only():
    augmentation = build_augmentation(AugmentConfig(**STILL, **{**NEVER, "flip": 0.5}))
    image, mask = pair()
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        flipped, moved = augmentation(image, mask)
        turned = "same" if torch.equal(flipped, image) else "mirrored"
        expected = (image, mask) if turned == "same" else (image.flip(-1), mask.flip(-1))
        assert torch.equal(flipped, expected[0])
        assert torch.equal(moved, expected[1])
        seen.add(turned)
    assert seen == {"same", "mirrored"}


def test_flips_can_be_switched_off_and_forced():
    image, mask = pair()
    for flip, expected in ((0.0, image), (1.0, image.flip(-1))):
        augmentation = build_augmentation(AugmentConfig(**STILL, **{**NEVER, "flip": flip}))
        for seed in range(5):
            torch.manual_seed(seed)
            assert torch.equal(augmentation(image, mask)[0], expected)


def test_a_sector_blacks_out_both_and_never_more_than_half_a_lesion():
    image = Image(torch.ones(1, SIDE, SIDE))
    hidden, left_alone = [], 0
    for seed in range(60):
        torch.manual_seed(seed)
        # at the edge, where sectors end
        lesion = Mask(torch.zeros(1, SIDE, SIDE, dtype=torch.uint8))
        lesion[:, 4:44, 2:42] = 1
        seen, mask = Sector()(image, lesion)
        assert torch.equal(mask, lesion * (seen > 0))
        assert 2 * mask.sum() >= lesion.sum()
        left_alone += bool((seen > 0).all())
        hidden.append(1 - float(mask.sum() / lesion.sum()))
    assert left_alone > 0
    assert any(0 < share <= 0.5 for share in hidden)
    torch.manual_seed(0)
    seen, _ = Sector()(image, Mask(torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)))
    assert 0.3 < seen.mean() < 0.95


@pytest.mark.parametrize("label", CLASSES)
def test_marks_are_burned_into_every_class_alike(label):
    augmentation = build_augmentation(AugmentConfig(**STILL, **{**NEVER, "overlay": 0.5}))
    image, mask = pair(label)
    marked = []
    for seed in range(60):
        torch.manual_seed(seed)
        burned, same = augmentation(image, mask)
        assert torch.equal(same, mask)
        marked.append(not torch.equal(burned, image))
    # whether there are marks follows from the draw, not from the image
    torch.manual_seed(0)
    blank = torch.zeros_like(image)
    expected = []
    for seed in range(60):
        torch.manual_seed(seed)
        expected.append(bool(augmentation(Image(blank), Mask(torch.zeros_like(mask)))[0].any()))
    assert marked == expected
    assert 20 <= sum(marked) <= 40


def test_callipers_stand_at_the_ends_of_some_lesions():
    image, lesion = Image(torch.zeros(1, SIDE, SIDE)), large_lesion()
    columns = torch.nonzero(lesion[0].amax(0))[:, 0]
    marked = []
    for mask in (lesion, Mask(torch.zeros_like(lesion))):
        marked.append(0)
        for seed in range(200):
            torch.manual_seed(seed)
            burned, _ = BurnedIn()(image, mask)
            marked[-1] += bool(all(burned[0, 55:66, end].any() for end in (columns[0], columns[-1])))
    # along the width of a quarter of the lesions with callipers; without a lesion only by chance
    assert marked[0] > marked[1] + 15


def test_marks_are_bright_and_few():
    image, mask = pair("normal")
    for seed in range(30):
        torch.manual_seed(seed)
        burned, _ = BurnedIn()(image, mask)
        changed = burned != image
        assert 0 < changed.float().mean() < 0.25
        assert burned[changed].max() > 0.5


def test_everything_off_changes_nothing():
    image, mask = pair()
    same, also = build_augmentation(AugmentConfig(**STILL, **NEVER))(image, mask)
    assert torch.equal(same, image)
    assert torch.equal(also, mask)


@pytest.mark.parametrize("name", PROBABILITIES)
def test_a_probability_out_of_range_is_named(name):
    for value in (-0.1, 1.5):
        with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\], got {value}"):
            AugmentConfig(**{name: value})
