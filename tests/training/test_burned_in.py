"""What a scanner burned in, told from tissue."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from sonoloop.imaging.phantom import phantom
from sonoloop.values import CLASSES
from sonoloop_training.checking.burned_in import has_overlay, overlay_score
from sonoloop_training.checking.survey import find_sources
from sonoloop_training.datasets.groups import read_groups


@pytest.fixture(scope="module")
def clean():
    return phantom("benign", seed=3).image


def callipers(draw, at=(200, 180)):
    for x, y in (at, (at[0] + 120, at[1] + 30)):
        draw.line((x - 7, y, x + 7, y), fill=255)
        draw.line((x, y - 7, x, y + 7), fill=255)


def text(draw, at=(60, 380)):
    draw.text(at, "RT BREAST 10 H", fill=240, font=ImageFont.load_default(14))


def corner_mark(draw, at=(4, 20)):
    draw.text(at, "LOGIQ", fill=255, font=ImageFont.load_default(12))


def drawn(pixels, *drawers, **options):
    image = Image.fromarray(pixels)
    for drawer in drawers:
        drawer(ImageDraw.Draw(image), **options)
    return np.asarray(image)


@pytest.mark.parametrize("label", CLASSES)
def test_tissue_alone_is_clean(label):
    assert [overlay_score(phantom(label, seed=seed).image) for seed in range(1, 6)] == [0] * 5


@pytest.mark.parametrize("drawer", [callipers, text])
def test_callipers_and_text_are_seen(clean, drawer):
    assert has_overlay(drawn(clean, drawer))


def test_more_of_it_scores_higher(clean):
    assert overlay_score(drawn(clean, callipers, text)) > overlay_score(drawn(clean, callipers)) >= 28


def test_other_depths_and_sizes(clean):
    marked = drawn(clean, text)
    assert has_overlay(marked.astype(np.uint16) * 257)
    large = np.asarray(Image.fromarray(marked).resize((1680, 1344)))
    assert has_overlay(large)
    assert not has_overlay(np.asarray(Image.fromarray(clean).resize((1680, 1344))))


def test_a_makers_mark_in_an_upper_corner_is_no_overlay(clean):
    assert not has_overlay(drawn(clean, corner_mark))
    assert has_overlay(drawn(clean, corner_mark, at=(250, 200)))


def test_lying_streaks_and_blank_frames_are_clean():
    streaks = np.full((200, 240), 40, np.uint8)
    streaks[60:62, 20:200] = streaks[120:123, 40:180] = 255
    assert overlay_score(streaks) == 0
    assert overlay_score(np.zeros((5, 4), np.uint8)) == 0
    assert overlay_score(np.zeros((1, 1), np.uint8)) == 0


@pytest.mark.data
def test_flags_of_busi_are_found_again(data):
    source = next(source for source in find_sources(data) if source.dataset == "busi")
    overlays = read_groups(source.listed).overlays
    some = source.samples[::4]
    said = {sample.name: has_overlay(sample.read()[0].pixels) for sample in some}
    flagged = {sample.name for sample in some if sample.name.casefold() in overlays}
    right = sum(said[name] for name in flagged)
    assert right / len(flagged) >= 0.95
    assert right / sum(said.values()) >= 0.9
