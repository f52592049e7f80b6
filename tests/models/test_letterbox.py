"""A frame into the square and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonoloop.imaging.grey import to_unit
from sonoloop.models.preprocess import Letterbox
from sonoloop.models.tta import agreement, list_views, make_views, undo_views

sides = st.integers(1, 700)


@given(height=sides, width=sides, size=st.sampled_from([64, 256, 320]))
@settings(deadline=None)
def test_the_content_keeps_its_shape_and_touches_two_borders(height, width, size):
    top, left, inner_height, inner_width = Letterbox(height, width, size).content
    assert max(inner_height, inner_width) == size
    assert 0 <= top <= size - inner_height - top <= top + 1
    assert 0 <= left <= size - inner_width - left <= left + 1
    scale = size / max(height, width)
    assert abs(inner_height - height * scale) <= 1
    assert abs(inner_width - width * scale) <= 1


@given(height=st.integers(20, 500), width=st.integers(20, 500), row=st.floats(0, 1), column=st.floats(0, 1))
@settings(deadline=None, max_examples=60)
def test_a_ramp_comes_back_where_it_was(height, width, row, column):
    rows = torch.linspace(0, row, height)[:, None]
    ramp = (rows + torch.linspace(0, column, width)) / 2
    box = Letterbox(height, width, 256)
    back = box.invert(box.apply(ramp)[None])[0]
    assert back.shape == (height, width)
    # a shift by half a pixel of the coarser grid would already show
    step = max(row / height, column / width) / 2 * max(1.0, max(height, width) / 256)
    assert (back - ramp).abs()[2:-2, 2:-2].max() <= 0.55 * step + 1e-5


@given(height=st.integers(80, 600), width=st.integers(80, 600), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_a_round_lesion_survives_the_round_trip(height, width, seed):
    rng = np.random.default_rng(seed)
    radius = min(height, width) * rng.uniform(0.15, 0.3)
    centre = rng.uniform(radius, np.array([height, width]) - radius)
    grid = np.indices((height, width)) - centre[:, None, None]
    disc = torch.from_numpy((np.hypot(*grid) < radius).astype(np.float32))
    box = Letterbox(height, width, 256)
    back = box.invert(box.apply(disc)[None])[0] >= 0.5
    assert 2 * (back & (disc > 0)).sum() / (back.sum() + disc.sum()) > 0.97


def test_the_border_is_black():
    square = Letterbox(50, 100, 64).apply(torch.ones(50, 100))
    assert square[:16].max() == 0
    assert square[17:47].min() == pytest.approx(1)
    assert square[48:].max() == 0


def test_eight_bits_span_their_range_and_others_their_own():
    assert to_unit(np.array([[0, 51]], np.uint8)).tolist() == [[0.0, pytest.approx(0.2)]]
    assert to_unit(np.array([[1000, 3000, 2000]], np.uint16)).tolist() == [[0.0, 1.0, 0.5]]
    assert to_unit(np.array([[-1.0, 1.0]])).tolist() == [[0.0, 1.0]]
    assert to_unit(np.full((2, 2), 7, np.uint16)).tolist() == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(("number", "mirror_scale"), [(1, 1.0), (2, 1.0), (2, 0.8), (4, 1.0)])
def test_views_are_undone(number, mirror_scale):
    views = list_views(number, mirror_scale)
    ramp = torch.linspace(-1, 1, 64)[None].repeat(64, 1)
    images = torch.stack([ramp, -ramp])[:, None]
    undone = undo_views(make_views(images, views), views)
    assert undone.shape == (number, 2, 64, 64)
    assert (undone - images[:, 0]).abs()[..., 3:-3].max() < 0.02


def test_the_mirror_image_of_two_views_is_as_large_as_the_card_says():
    images = torch.ones(1, 1, 50, 50)
    as_is, mirrored = make_views(images, list_views(2))
    assert torch.equal(as_is, mirrored)
    _, smaller = make_views(images, list_views(2, 0.8))
    assert (smaller > 0).sum() == 40 * 40
    assert (smaller == -1).sum() == 50 * 50 - 40 * 40


def test_views_that_agree_score_higher():
    disc = (
        torch.hypot(
            *(torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")) - 32)
        )
        < 12
    )
    same = torch.stack([disc, disc]).float()[:, None]
    apart = torch.stack([disc, disc.roll(20, 1)]).float()[:, None]
    assert agreement(same, 0.5).item() == pytest.approx(1, abs=1e-3)
    assert agreement(apart, 0.5).item() < 0.7
    assert agreement(torch.zeros(2, 1, 64, 64), 0.5).item() == 0
