"""What a network is taught, and how it is validated."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch

from sonoloop_training.fit.batches import Batch
from sonoloop_training.fit.loop import joint_loss, segmentation_loss, validate
from sonoloop_training.fit.recipe import FitConfig


def test_losses_prefer_what_is_right():
    masks = torch.zeros(2, 1, 32, 32)
    masks[0, :, 8:20, 8:20] = 1
    right, nothing = (masks * 2 - 1) * 12, torch.full_like(masks, -12.0)
    claimed = nothing.clone()
    claimed[1, :, :4, :4] = 12
    loss = "cross-entropy + dice"
    good, empty, false = (
        segmentation_loss(x, masks, loss=loss, empty_weight=1.0) for x in (right, nothing, claimed)
    )
    assert good.shape == (2,)
    assert good[0] < 0.1 < empty[0]
    assert good[1] < 0.1 < false[1]
    # a small false mask costs about all that a large one does
    assert false[1] > 0.8
    plain = segmentation_loss(claimed, masks, loss="cross-entropy", empty_weight=1.0)
    assert plain[1] == pytest.approx(12 * 16 / 1024, rel=0.01)
    batch = Batch(masks[:1], masks[:1], torch.tensor([0]), torch.ones(1, 2))
    assert joint_loss(None, torch.tensor([[5.0, 0, 0]]), batch, FitConfig(label_smoothing=0.05)) < 0.6


def test_the_focal_tversky_loss_minds_what_is_missed_more_than_what_is_claimed():
    masks = torch.zeros(2, 1, 32, 32)
    masks[:, :, 8:24, 8:24] = 1
    said = (masks * 2 - 1) * 12
    said[0, :, 8:24, 8:16] = -12  # half of it is missed
    said[1, :, 8:24, 24:32] = 12  # half as much again is claimed
    plain = segmentation_loss(said, masks, loss="cross-entropy", empty_weight=1.0)
    whole = segmentation_loss(said, masks, loss="cross-entropy + focal tversky", empty_weight=1.0)
    missed, claimed = (whole - plain).tolist()
    assert missed == pytest.approx((1 - 129 / (128 + 0.7 * 128 + 1)) ** 0.75, rel=1e-3)
    assert claimed == pytest.approx((1 - 257 / (256 + 0.3 * 128 + 1)) ** 0.75, rel=1e-3)
    # as right as a float can tell
    right = ((masks * 2 - 1) * 40).requires_grad_()
    segmentation_loss(right, masks, loss="cross-entropy + focal tversky", empty_weight=1.0).sum().backward()
    assert right.grad.isfinite().all()


def test_the_heads_are_weighed_and_one_that_is_not_there_costs_nothing():
    nothing = torch.zeros(2, 1, 32, 32)
    batch = Batch(nothing, nothing, torch.tensor([0, 2]), torch.ones(2, 2))
    lesion, classes = torch.zeros(2, 1, 32, 32), torch.zeros(2, 3)
    config = FitConfig(lesion_weight=2.0, class_weight=0.5, loss="cross-entropy", label_smoothing=0.0)
    expected = 2 * math.log(2) + 0.5 * math.log(3)
    assert joint_loss(lesion, classes, batch, config).tolist() == pytest.approx([expected] * 2)
    assert joint_loss(None, classes, batch, config).tolist() == pytest.approx([math.log(3)] * 2)


class Says(torch.nn.Module):
    """A network that gives each image the logits it is told to."""

    def __init__(self, lesion: torch.Tensor | None, classes: torch.Tensor) -> None:
        super().__init__()
        self.lesion, self.classes = lesion, classes

    def forward(self, images):
        return self.lesion, self.classes


def test_validation_counts_missed_lesions_and_false_alarms(tiny_cache):
    cache = tiny_cache(4)
    lesion = cache.masks[:, None].float() * 2 - 1
    lesion[0, 0, :2, :2] = 1
    lesion[1] = -1
    lesion[2, :, :, :32] = -1
    classes = torch.eye(3)[[0, 1, 1, 0]]
    scores = validate(Says(lesion, classes), cache, torch.device("cpu"), nullcontext)
    half = 2 * 20 * 16 / (20 * 16 + 20 * 32)
    assert scores.dice == pytest.approx((0 + half + 1) / 3)
    assert scores.missed == pytest.approx(1 / 3)
    assert scores.false_alarms == 1
    assert scores.accuracy == 0.75
    assert scores.score == pytest.approx((0 + half + 1 + 0) / 4)


def test_a_classifier_is_validated_by_its_mean_recall(tiny_cache):
    classes = torch.eye(3)[[0, 1, 1, 1]]
    scores = validate(Says(None, classes), tiny_cache(4), torch.device("cpu"), nullcontext)
    assert scores.dice is scores.missed is scores.false_alarms is None
    assert scores.score == pytest.approx((0.5 + 1 + 0) / 3)
