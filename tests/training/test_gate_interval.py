"""The interval keeps its word."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sonoloop.store.metrics import auc, draw_groups, percentile_interval
from sonoloop_training.gate.decision import effective_groups, estimate, groups_to_tell


def of_mean(values, groups=None, *, case=0.7):
    values = np.asarray(values, float)
    names = np.arange(len(values)).astype(str) if groups is None else np.asarray(groups, str)
    return estimate(lambda counts: counts @ values / counts.sum(1), names, case=case)


def test_of_symmetric_groups_it_is_the_t_interval():
    values = np.concatenate([np.linspace(-0.4, 0.5, 30), -np.linspace(-0.4, 0.5, 30) + 0.1])
    found = of_mean(values)
    low, high = stats.t.interval(0.95, 59, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(60))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)
    assert found.value == pytest.approx(values.mean())


def test_frames_of_one_group_count_as_one():
    rng = np.random.default_rng(0)
    means = rng.normal(0.05, 0.2, 30)
    once, often = of_mean(means), of_mean(np.repeat(means, 4), np.repeat(np.arange(30), 4))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    assert (often.groups, often.effective) == (30, pytest.approx(30))


def test_it_is_never_narrower_than_one_case_each_way_would_make_it():
    found = of_mean(np.full(40, 0.05), case=0.8)
    reach = stats.t.ppf(0.975, 39) * 0.8 * np.sqrt(2) / 40
    assert found.low == pytest.approx(0.05 - reach)
    # with as many groups that one more failure would not matter, it tells
    assert of_mean(np.full(40, 0.05), case=0.8).low < 0 < of_mean(np.full(60, 0.05), case=0.8).low


def test_it_reaches_farther_towards_the_long_tail():
    values = np.full(60, 0.03) + np.random.default_rng(0).normal(0, 0.1, 60)
    values[:3] = -0.7
    found = of_mean(values)
    assert found.value - found.low > 1.1 * (found.high - found.value)
    mirrored = of_mean(-values)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_one_group_or_a_figure_that_hangs_on_one_has_no_interval():
    assert of_mean([0.1, 0.2], ["a", "a"]) is None
    positive = np.array([True, False, False, False])
    scores = np.array([0.9, 0.1, 0.2, 0.3])
    assert estimate(lambda counts: auc(scores, positive, counts), np.array(list("abcd")), case=1.0) is None


def test_groups_of_equal_size_count_in_full_and_one_large_one_little():
    assert effective_groups(np.repeat(["a", "b", "c"], 5)) == pytest.approx(3)
    assert effective_groups(np.array(["a"] * 50 + ["b", "c"])) == pytest.approx(52**2 / (2500 + 2))


def test_half_the_difference_needs_four_times_the_groups():
    spread = np.tile([-0.5, 0.5], 30)
    few, many = (groups_to_tell(of_mean(spread + shift)) + 60 for shift in (0.1, 0.05))
    assert many / few == pytest.approx(4, rel=0.03)
    # (1.96 + 0.84)² x 0.5² / 0.05²
    assert many == pytest.approx(790, rel=0.02)
    assert groups_to_tell(of_mean(spread)) is None


def zeros_and_rare_jumps(rng, shape):
    """Most frames the same, a few lost and as many won."""
    kind = rng.random(shape)
    values = np.where(kind < 0.7, 0, rng.normal(0, 0.1, shape))
    return np.where(kind < 0.03, -0.8, np.where(kind > 0.97, 0.8, values))


def rare_failures(rng, shape):
    """A little better on most, and lost on one in forty: equal in the mean."""
    lost = rng.random(shape) < 1 / 40
    return np.where(lost, -0.8, 0.8 / 39 + rng.normal(0, 0.06, shape))


@pytest.mark.parametrize("draw", [zeros_and_rare_jumps, rare_failures])
@pytest.mark.parametrize("count", [10, 40, 120])
def test_equal_models_pass_in_at_most_a_twentieth(draw, count):
    values = draw(np.random.default_rng(count), (1000, count))
    passed = np.mean([of_mean(row).low > 0 for row in values])
    # 0.05 and twice the error of a thousand draws
    assert passed <= 0.064


def test_the_percentile_bootstrap_would_let_them_pass():
    values = rare_failures(np.random.default_rng(40), (300, 40))
    counts = draw_groups(np.arange(40).astype(str), 500)
    low = [percentile_interval(counts @ row / 40)[0] for row in values]
    assert np.mean(np.array(low) > 0) > 0.15
