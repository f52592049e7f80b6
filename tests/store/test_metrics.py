"""The figures of the models table, against values computed by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sonoloop.store.metrics import (
    FrameScore,
    auc,
    draw_groups,
    percentile_interval,
    resampled_mean,
    summarise_scores,
)


def score(frame: str, group: str, label: str, dice: float, *, claimed: bool = True, malignant: float = 0.5):
    return FrameScore(
        frame=frame,
        group=group,
        label=label,
        lesion=label != "normal",
        dice=dice,
        claimed=claimed,
        malignant=malignant,
    )


SCORES = [
    score("a", "1", "benign", 0.9, malignant=0.2),
    score("b", "1", "benign", 0.8, malignant=0.6),
    score("c", "2", "malignant", 0.7, malignant=0.6),
    score("d", "3", "malignant", 0.0, claimed=False, malignant=0.9),
    score("e", "4", "normal", 0.0, claimed=True),
    score("f", "5", "normal", 1.0, claimed=False),
    score("g", "5", "unsure", 0.6, malignant=0.1),
]


def test_figures_are_those_computed_by_hand():
    found = summarise_scores(SCORES)
    assert (found.frames, found.groups) == (7, 5)
    assert found.dice.value == pytest.approx((0.9 + 0.8 + 0.7 + 0.0 + 0.6) / 5)
    assert found.dice.frames == 5
    assert (found.false_alarms.value, found.false_alarms.frames) == (0.5, 2)
    assert (found.missed_malignant.value, found.missed_malignant.frames) == (0.5, 2)
    # of the four pairs of a malignant and a benign one three are in order and one is even
    assert found.auc.value == pytest.approx(3.5 / 4)
    assert found.auc.frames == 4


def test_the_interval_is_that_of_all_draws_of_groups():
    # two frames of one group, one of each other: all 27 draws of three groups, by hand
    scores = [
        score("a", "1", "benign", 1.0),
        score("b", "1", "benign", 0.6),
        score("c", "2", "benign", 0.5),
        score("d", "3", "benign", 0.1),
    ]
    values = {"1": [1.0, 0.6], "2": [0.5], "3": [0.1]}
    draws = itertools.product("123", repeat=3)
    means = [np.mean([dice for group in draw for dice in values[group]]) for draw in draws]
    low, high = np.percentile(means, [2.5, 97.5], method="inverted_cdf")
    found = summarise_scores(scores).dice
    assert found.value == pytest.approx(0.55)
    # 1 of 27 draws is all of the worst group, and 1 all of the best: the ends are these
    assert (low, high) == pytest.approx((0.1, 0.8))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_order_of_the_frames_does_not_matter():
    assert summarise_scores(SCORES[::-1]) == summarise_scores(SCORES)


def test_what_no_frame_is_about_is_none():
    nothing = summarise_scores([])
    assert (nothing.frames, nothing.groups, nothing.dice, nothing.auc) == (0, 0, None, None)
    benign = summarise_scores([s for s in SCORES if s.label == "benign"])
    assert benign.auc is None
    assert benign.false_alarms is None
    assert benign.missed_malignant is None
    # one group cannot tell how groups differ
    assert (benign.dice.low, benign.dice.high) == (None, None)


def test_auc_of_resamples_is_that_of_the_drawn_frames():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, 12) / 4
    positive = np.arange(12) % 3 == 0
    counts = draw_groups(np.array([f"g{n // 2}" for n in range(12)]), 50, seed=1)
    for value, drawn in zip(auc(scores, positive, counts), counts.astype(int), strict=True):
        taken = np.repeat(np.arange(12), drawn)
        hits, others = scores[taken[positive[taken]]], scores[taken[~positive[taken]]]
        if len(hits) and len(others):
            pairs = [(h > o) + (h == o) / 2 for h in hits for o in others]
            assert value == pytest.approx(np.mean(pairs))
        else:
            assert np.isnan(value)


def test_the_mean_of_resamples_is_that_of_the_drawn_frames():
    values = np.array([0.0, 0.5, 1.0])
    counts = np.array([[1, 1, 1], [0, 2, 1], [0, 0, 0]], np.float32)
    assert resampled_mean(values, counts) == pytest.approx([0.5, 2 / 3, np.nan], nan_ok=True)


def test_an_interval_leaves_out_resamples_without_the_figure_unless_they_are_most():
    values = np.append(np.arange(101) / 100, [np.nan] * 101)
    assert percentile_interval(values) == [0.025, 0.975]
    assert percentile_interval(np.append(values, np.nan)) is None


def test_auc_of_many_frames_is_that_of_their_mean_rank():
    # Mann and Whitney's U, from ranks with ties by half
    rng = np.random.default_rng(1)
    scores, positive = rng.integers(0, 50, 400) / 50, rng.random(400) < 0.3
    below = (scores[:, None] > scores).sum(1) + ((scores[:, None] == scores).sum(1) + 1) / 2
    hits, others = positive.sum(), (~positive).sum()
    expected = (below[positive].sum() - hits * (hits + 1) / 2) / (hits * others)
    assert auc(scores, positive, np.ones((1, 400)))[0] == pytest.approx(expected)
