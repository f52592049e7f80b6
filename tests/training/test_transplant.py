"""Lesions painted out and put elsewhere, and another image's look."""

from __future__ import annotations

import pytest
import torch

from sonoloop_training.augment.transplant import exchange_look, paint_out, put_in
from sonoloop_training.fit.batches import Batch, Cache, CachedImage, make_batch
from sonoloop_training.fit.loop import joint_loss, miss_loss
from sonoloop_training.fit.recipe import FitConfig

SIDE = 96


def scene(rows=slice(40, 60), columns=slice(36, 56), *, seed=0, lesion=0.05):
    """Layered tissue with black borders above and below, and one dark lesion."""
    torch.manual_seed(seed)
    image = torch.zeros(1, SIDE, SIDE)
    image[:, 12:84] = 0.4 + 0.2 * torch.sin(torch.arange(12, 84) / 3.0)[:, None] + 0.05 * torch.rand(72, SIDE)
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    mask[:, rows, columns] = 1
    return torch.where(mask > 0, torch.tensor(lesion), image), mask


@pytest.mark.parametrize("columns", [slice(36, 56), slice(20, 76), slice(0, 40), slice(56, 96)])
def test_a_painted_out_lesion_is_gone_and_the_rest_stays(columns):
    image, mask = scene(columns=columns)
    for seed in range(10):
        torch.manual_seed(seed)
        painted, none = paint_out(image, mask)
        assert not none.any()
        # as bright as tissue now, and layered as it is
        inside = painted[0, 42:58, columns]
        assert inside.mean() > 0.25
        assert painted.min() >= 0
        assert painted.max() <= 1
        far = torch.ones(SIDE, SIDE, dtype=torch.bool)
        far[24:76, max(0, columns.start - 16) : columns.stop + 16] = False
        assert torch.equal(painted[0][far], image[0][far])


def test_a_lesion_with_no_tissue_beside_it_stays():
    image, mask = scene(columns=slice(0, SIDE))
    painted, same = paint_out(image, mask)
    assert torch.equal(painted, image)
    assert torch.equal(same, mask)


def test_an_image_without_a_lesion_is_left_as_it_is():
    image, _ = scene()
    empty = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    assert paint_out(image, empty)[0] is image
    assert put_in(image, empty, image, empty)[0] is image


def test_a_lesion_is_put_beside_those_that_are_there():
    image, mask = scene(columns=slice(2, 20))
    donor, donor_mask = scene(columns=slice(60, 80), seed=1)
    moved = 0
    for seed in range(20):
        torch.manual_seed(seed)
        put, both = put_in(image, mask, donor, donor_mask)
        added = (both > 0) & (mask == 0)
        if not added.any():
            assert torch.equal(put, image)
            continue
        moved += 1
        assert both[mask > 0].all()
        # dark where it was put, inside what the image shows
        assert put[added].mean() < image[added].mean() - 0.1
        rows = torch.nonzero(added[0].any(1))[:, 0]
        assert rows.min() >= 12
        assert rows.max() < 84
    assert moved > 10


def test_another_look_keeps_the_black_borders_and_what_is_where():
    image, _ = scene()
    other = (image * 0.3).clamp(0, 1)
    torch.manual_seed(1)
    looks = exchange_look(image, other)
    assert not looks[image == 0].any()
    assert looks.mean() < image.mean()
    pair = torch.stack([looks[0, 12:84].flatten(), image[0, 12:84].flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.8


def cache():
    return Cache.of(
        [CachedImage(*(x[0] for x in levels(seed)), "benign", f"a{seed}", "a") for seed in range(4)]
    )


def levels(seed):
    image, mask = scene(seed=seed)
    return (image * 255).to(torch.uint8), mask


def batch(config):
    drawn = torch.arange(4)
    return make_batch(cache(), drawn, lambda *pair: pair, config, epoch=0, first=0)


def test_the_class_learns_nothing_from_an_image_that_lost_its_lesion():
    painted = batch(FitConfig(paint_out=1.0))
    assert not painted.masks.any()
    assert painted.weights.tolist() == [[1, 0]] * 4
    untouched = batch(FitConfig())
    assert untouched.weights.tolist() == [[1, 1]] * 4
    # and the cache's own weights stay as they are
    assert cache().weights.tolist() == [[1, 1]] * 4


def test_without_transplants_batches_are_drawn_as_before():
    assert torch.equal(batch(FitConfig()).images, batch(FitConfig(look=0.0, put_in=0.0)).images)


def test_missing_a_small_lesion_as_a_whole_costs_as_much_as_a_large_one():
    masks = torch.zeros(3, 1, SIDE, SIDE)
    masks[0, 0, :5, :5] = 1
    masks[1, 0, :50, :50] = 1
    missed = miss_loss(torch.full((3, 1, SIDE, SIDE), -5.0), masks)
    assert missed[0] == pytest.approx(float(missed[1]))
    assert missed[0] > 4
    assert missed[2] == 0
    found = miss_loss(torch.where(masks > 0, 5.0, -5.0), masks)
    assert found[:2].max() < 0.01


def test_the_price_of_missing_is_part_of_the_loss():
    masks = torch.zeros(1, 1, SIDE, SIDE)
    masks[..., :5, :5] = 1
    logits, classes = torch.full((1, 1, SIDE, SIDE), -5.0), torch.zeros(1, 3)
    one = Batch(torch.zeros(1, 1, SIDE, SIDE), masks, torch.tensor([1]), torch.ones(1, 2))
    plain, priced = (joint_loss(logits, classes, one, FitConfig(miss_weight=w)) for w in (0.0, 0.5))
    assert float(priced - plain) == pytest.approx(0.5 * float(miss_loss(logits, masks)), rel=1e-4)
