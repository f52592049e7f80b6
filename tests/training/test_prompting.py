"""Simulated prompts, and a network that learns from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import Image, Mask

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import EpochDone
from sonoloop.models.card import ModelSpec
from sonoloop.models.networks import build_network
from sonoloop_training.fit.batches import Batch
from sonoloop_training.fit.fitting import fit_channels
from sonoloop_training.fit.prompting import (
    PromptConfig,
    ZoomIn,
    blank,
    choose_lesion,
    distort,
    largest_error,
    line_within,
    loose_box,
    point_at,
    prompt,
    score_clicks,
)

PROMPTED = ("model.arguments.prompts=discs", "freeze_norm=true")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def square(top: int, left: int, side: int, size: int = 64) -> np.ndarray:
    mask = np.zeros((size, size), np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


def test_the_largest_error_tells_whether_it_is_missed_or_claimed() -> None:
    target, mask = square(10, 10, 20), square(10, 10, 20)
    mask[10:30, 10:15] = False
    mask[30:33, 10:30] = True
    error, inside = largest_error(mask, target)
    assert inside
    assert error.sum() == 100
    mask[10:30, 10:15] = True
    error, inside = largest_error(mask, target)
    assert not inside
    assert error.sum() == 60
    assert largest_error(target, target) is None


def test_a_click_at_the_middle_is_furthest_from_the_edge(rng) -> None:
    error = square(10, 20, 21)
    error[20, 0:20] = True
    assert point_at(error, "centre", rng) == (20, 30)
    assert all(error[int(r), int(c)] for r, c in (point_at(error, "random", rng) for _ in range(20)))
    beside = np.array([point_at(error, "jittered", rng, jitter=3) for _ in range(200)])
    assert beside.mean(0) == pytest.approx((20, 30), abs=1)
    assert beside.std(0) == pytest.approx((3, 3), abs=0.6)


def test_a_line_stays_in_its_region(rng) -> None:
    error = square(5, 5, 30)
    error[15:25, 10:40] = False
    for _ in range(20):
        assert all(error[int(row), int(column)] for row, column in line_within(error, rng))


def test_a_box_is_off_by_a_tenth_at_most(rng) -> None:
    boxes = np.array([loose_box(square(20, 10, 20), 0.1, rng) for _ in range(50)])
    assert np.abs(boxes - (20, 10, 39, 29)).max() <= 2


def test_what_touches_a_lesion_most_is_repaired(rng) -> None:
    truth = square(10, 10, 10)
    answer = square(12, 12, 10) | square(40, 40, 15) | square(8, 10, 1)
    target, mask = choose_lesion(truth, answer, rng)
    assert np.array_equal(target, truth)
    assert np.array_equal(mask, square(12, 12, 10))
    assert choose_lesion(truth, square(40, 40, 15), rng)[1] is None
    target, mask = choose_lesion(np.zeros_like(truth), answer, rng)
    assert not target.any()
    assert mask.any()


def test_a_distorted_mask_is_near_the_lesion_and_another(rng) -> None:
    target = square(20, 20, 20)
    dices = []
    for _ in range(40):
        made = distort(target, rng)
        dices.append(2 * (made & target).sum() / (made.sum() + target.sum()))
    assert 0.6 < np.mean(dices) < 0.95
    assert max(dices) < 1
    assert distort(np.zeros_like(target), rng).any()


def test_a_zoomed_image_holds_a_lesion_whole() -> None:
    torch.manual_seed(0)
    image, mask = torch.zeros(1, 96, 96), torch.zeros(1, 96, 96, dtype=torch.uint8)
    image[:, 70:82, 4:16], mask[:, 70:82, 4:16] = 1, 1
    shares = []
    for _ in range(20):
        shown, drawn = ZoomIn(64, 1.0)(Image(image), Mask(mask))
        assert shown.shape == drawn.shape == (1, 64, 64)
        shares.append(float(drawn.float().mean()))
        assert shown[drawn > 0].float().mean() > 0.9
    assert min(shares) >= (1 / 4.2) ** 2
    whole, _ = ZoomIn(64, 0.0)(Image(image), Mask(mask))
    assert float(whole.mean()) == pytest.approx(float(image.mean()), rel=0.1)


def test_prompts_point_at_what_the_network_got_wrong() -> None:
    torch.manual_seed(0)
    masks = torch.zeros(8, 1, 64, 64)
    masks[:, :, 20:40, 20:40] = 1
    batch = Batch(torch.zeros(8, 1, 64, 64), masks, torch.ones(8, dtype=torch.long), torch.ones(8, 2))
    # it always claims the upper half of the lesion
    said = torch.full((8, 1, 64, 64), -9.0)
    said[:, :, 20:30, 20:40] = 9
    config = PromptConfig(imported=0, empty=0, box=0, line=0, jittered=0, random=0)
    asked = []
    for _ in range(12):
        made = prompt(batch, lambda images: (asked.append(images), said)[1], config, 5)
        assert made.images.shape == (8, 5, 64, 64)
        assert torch.equal(made.masks, masks)
        if made.images[0, 1].any():
            assert torch.equal(made.images[0, 1], (said[0, 0] > 0).float())
            # in the middle of the lower half, and nothing beside the lesion
            assert made.images[0, 2, 34:36, 24:36].any()
            assert not made.images[:, 3].any()
    assert {images[:, 1:].any().item() for images in asked} == {True, False}


def test_a_network_with_prompts_answers_without_any_as_the_one_it_came_from() -> None:
    spec = ModelSpec(
        encoder="tu-test_efficientnet", size=64, arguments={"decoder_channels": [32, 16, 8, 8, 4]}
    )
    prompted = ModelSpec(**{**spec.to_dict(), "arguments": {**spec.arguments, "prompts": "discs"}})
    torch.manual_seed(0)
    one, other = build_network(spec).eval(), build_network(prompted).eval()
    other.load_state_dict(fit_channels(one.state_dict(), other.state_dict()))
    images = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        expected, found = one(images), other(blank(images, 5))
    assert torch.allclose(expected[0], found[0], atol=1e-5)
    back = fit_channels(other.state_dict(), one.state_dict())
    assert all(torch.equal(tensor, back[name]) for name, tensor in one.state_dict().items())


def test_a_training_learns_to_follow_clicks(run_fit, tiny, tmp_path) -> None:
    recipe = tiny("epochs=2", "fit.size=64", *PROMPTED)
    first = [event for event in run_fit(recipe, tmp_path / "a") if isinstance(event, EpochDone)]
    assert all(event.score is not None and event.dice is not None for event in first)
    # it goes on from its first epoch to the same numbers
    run_fit(recipe, tmp_path / "b", stop_after=1)
    again = [event for event in run_fit(recipe, tmp_path / "b") if isinstance(event, EpochDone)]
    assert [event.loss for event in again] == [first[1].loss]


def test_clicks_are_scored_until_there_is_nothing_to_point_at() -> None:
    truth = torch.from_numpy(square(20, 20, 20))[None]

    class Obeying(torch.nn.Module):
        """Claims what a click points at, nothing before."""

        def forward(self, images):
            clicked = images[:, 2:3].amax((2, 3), keepdim=True)
            return (clicked * truth[:, None] - 0.5), torch.zeros(1, 3)

    assert score_clicks(Obeying(), torch.zeros(1, 1, 64, 64), truth, 5, clicks=2) == [[0.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("prompts.box=1.5", r"box must be in \[0, 1\]"),
        ("prompts.size=100", "size must be a multiple of 32"),
        ("prompts.imported=0.9", "imported and empty are at most 1 together"),
        ("model.arguments.prompts=arrows", "arguments.prompts must be one of discs"),
        ("prompts.clicks=3", "unknown in the recipe: prompts.clicks"),
    ],
)
def test_bad_settings_of_prompts_are_named(tiny, setting, told) -> None:
    settings = (setting, "prompts.empty=0.2") if "imported" in setting else (setting,)
    with pytest.raises(TrainingError, match=told):
        tiny(*settings)
