"""Augmentation, joint on image and mask."""

from __future__ import annotations

import pytest
import torch
from torchvision.tv_tensors import Image, Mask

from sonoloop.imaging.phantom import phantom
from sonoloop_training.augment import AugmentConfig, Contrast, Gamma, Speckle, TimeGain, build_augmentation
from sonoloop_training.cache import letterbox_pair

OFF = {"rotation": 0.0, "translation": 0.0, "scale": (1.0, 1.0), "shear": 0.0}
NEVER = dict.fromkeys(("elastic", "gamma", "gain", "speckle", "blur", "contrast"), 0.0)


def pair() -> tuple[Image, Mask]:
    made = phantom("benign", seed=3, shape=(200, 256))
    image, mask = letterbox_pair(made.image, made.mask > 0, 128)
    return Image(image[None].float() / 255), Mask(mask[None])


@pytest.mark.parametrize("transform", [Gamma(), Contrast(), TimeGain(), Speckle()])
def test_grey_levels_change_within_range_and_masks_do_not(transform):
    torch.manual_seed(0)
    image, mask = pair()
    changed, same = transform(image, mask)
    assert isinstance(changed, Image)
    assert not torch.equal(changed, image)
    assert 0 <= changed.min() <= changed.max() <= 1
    assert torch.equal(same, mask)


def test_the_time_gain_changes_along_depth_only():
    torch.manual_seed(1)
    flat = Image(torch.full((1, 32, 32), 0.5))
    changed, _ = TimeGain()(flat, Mask(torch.zeros(1, 32, 32)))
    assert changed.std(dim=2).max() < 1e-6
    assert changed.std(dim=1).min() > 1e-3


def test_the_mask_moves_with_the_image():
    augmentation = build_augmentation(AugmentConfig(elastic=1.0, **{k: 0.0 for k in NEVER if k != "elastic"}))
    _, mask = pair()
    for seed in range(8):
        torch.manual_seed(seed)
        # the mask itself as the image: where they part, they were not moved alike
        image, moved = augmentation(Image(mask.float()), mask)
        assert set(moved.unique().tolist()) <= {0, 1}
        both = (image > 0.5) & (moved > 0)
        assert 2 * both.sum() / ((image > 0.5).sum() + moved.sum()) > 0.93


def test_flips_are_horizontal_only():
    augmentation = build_augmentation(AugmentConfig(**OFF, **NEVER))
    image, mask = pair()
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        flipped, _ = augmentation(image, mask)
        seen.add(
            next(n for n, v in {"same": image, "mirrored": image.flip(-1)}.items() if torch.equal(v, flipped))
        )
    assert seen == {"same", "mirrored"}


def test_a_probability_out_of_range_is_named():
    with pytest.raises(ValueError, match="blur"):
        AugmentConfig(blur=1.5)
