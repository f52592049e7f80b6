"""Figures for many resamples at once, against the libraries and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluation_scores import random_scores
from scipy.optimize import minimize
from scipy.stats import spearmanr
from torchmetrics.functional.classification import binary_auroc, multiclass_calibration_error

from sonoloop.store.metrics import auc, draw_groups, percentile_interval
from sonoloop.values import CLASSES
from sonoloop_training.evaluation.measures import (
    aurc,
    expected_calibration_error,
    recalibrate,
    reliability_curve,
    risk_at,
    risk_curve,
    roc_curves,
    simulate_perfect,
    spearman,
    specificity_at,
    to_columns,
)
from sonoloop_training.evaluation.summary import summarise

ONES = np.ones((1, 60))
RNG = np.random.default_rng(5)
TRUTH = RNG.random(60) < 0.4
# ties, within and between the classes
VALUES = np.round(RNG.random(60) * 0.7 + 0.3 * TRUTH, 1)
COUNTS = RNG.integers(0, 4, (3, 60)).astype(float)


def repeated(row: np.ndarray, *columns: np.ndarray) -> list[np.ndarray]:
    """What a resample is: each image as often as it was drawn."""
    return [np.repeat(column, row.astype(int)) for column in columns]


def test_auc_is_that_of_torchmetrics_in_every_resample():
    got = auc(VALUES, TRUTH, COUNTS)
    for row, value in zip(COUNTS, got, strict=True):
        scores, truth = repeated(row, VALUES, TRUTH)
        want = binary_auroc(torch.from_numpy(scores), torch.from_numpy(truth).long())
        assert value == pytest.approx(float(want), abs=1e-6)
    assert np.isnan(auc(VALUES, np.zeros(60, bool), ONES)[0])


def test_rank_correlation_is_that_of_scipy_in_every_resample():
    other = np.round(VALUES + RNG.normal(0, 0.3, 60), 1)
    for row, value in zip(COUNTS, spearman(VALUES, other, COUNTS), strict=True):
        assert value == pytest.approx(spearmanr(*repeated(row, VALUES, other)).statistic, abs=1e-9)
    assert np.isnan(spearman(VALUES, np.full(60, 0.3), ONES)[0])


def test_specificity_at_a_sensitivity_takes_the_best_threshold():
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    positive = np.array([True, True, False, True, False, False])
    ones = np.ones((1, 6))
    assert specificity_at(scores, positive, ones, sensitivity=0.6)[0] == 1
    assert specificity_at(scores, positive, ones, sensitivity=0.95)[0] == pytest.approx(2 / 3)


def test_the_roc_curve_has_the_area():
    rates = np.linspace(0, 1, 2001)
    curve = roc_curves(VALUES, TRUTH, COUNTS, rates)
    assert np.trapezoid(curve, rates, axis=1) == pytest.approx(auc(VALUES, TRUTH, COUNTS), abs=2e-3)


def test_risk_is_that_of_the_most_trusted():
    confidence = np.array([0.2, 0.9, 0.5, 0.7, 0.1])
    risk = np.array([0.5, 0.0, 0.3, 0.1, 1.0])
    ones = np.ones((1, 5))
    assert risk_at(confidence, risk, ones, coverage=0.6)[0] == pytest.approx(0.4 / 3)
    # means of 1, 2, ... images: 0, .05, .4/3, .9/4, 1.9/5
    assert aurc(confidence, risk, ones)[0] == pytest.approx(np.mean([0, 0.05, 0.4 / 3, 0.225, 0.38]))
    # in a resample only what was drawn counts
    assert risk_at(confidence, risk, np.array([[2.0, 0, 0, 2.0, 0]]), coverage=0.5)[0] == pytest.approx(0.1)


def test_risks_of_tied_images_do_not_depend_on_their_order():
    tied, ones = np.full(4, 0.5), np.ones((1, 4))
    # mean risk 0.5 from the first image to the last
    for risk in ([0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1]):
        assert aurc(tied, np.array(risk, float), ones)[0] == pytest.approx(0.5)
        assert risk_at(tied, np.array(risk, float), ones, coverage=0.5)[0] == pytest.approx(0.5)
        assert risk_curve(tied, np.array(risk, float), ones)[1][0] == pytest.approx([0.5] * 4)
    risk, shuffled = RNG.random(60), RNG.permutation(60)
    for figure in (aurc, lambda *given: risk_at(*given, coverage=0.8)):
        again = figure(VALUES[shuffled], risk[shuffled], COUNTS[:, shuffled])
        assert figure(VALUES, risk, COUNTS) == pytest.approx(again, abs=1e-12)


def test_risks_are_those_of_random_orders_of_the_tied_in_every_resample():
    risk = RNG.random(60)
    for row, area, mean in zip(
        COUNTS, aurc(VALUES, risk, COUNTS), risk_at(VALUES, risk, COUNTS, coverage=0.8), strict=True
    ):
        confidence, risks = repeated(row, VALUES, risk)
        size = np.arange(1, len(risks) + 1)
        orders = [np.lexsort((RNG.random(len(risks)), -confidence)) for _ in range(3000)]
        curves = np.array([risks[order].cumsum() / size for order in orders])
        assert area == pytest.approx(curves.mean(), abs=2e-3)
        assert mean == pytest.approx(curves[:, int(np.ceil(0.8 * len(risks))) - 1].mean(), abs=2e-3)


def test_recalibration_is_the_likeliest():
    true = RNG.uniform(0.02, 0.98, 500)
    came = RNG.random(500) < true
    logit = np.log(true / (1 - true))
    shown = 1 / (1 + np.exp(-(2 * logit + 0.5)))
    slope, intercept = recalibrate(shown, came, np.ones((1, 500)))
    assert slope[0] == pytest.approx(0.5, abs=0.1)

    def loss(found: np.ndarray) -> float:
        scaled = found[0] + found[1] * np.log(shown / (1 - shown))
        return float(np.logaddexp(0, scaled).sum() - scaled[came].sum())

    best = minimize(loss, [0, 1], tol=1e-10).x
    assert (intercept[0], slope[0]) == pytest.approx(tuple(best), abs=1e-3)


def test_separated_classes_have_no_slope():
    slope, intercept = recalibrate(
        np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1], bool), np.ones((1, 4))
    )
    assert np.isnan(slope[0])
    assert np.isnan(intercept[0])


def test_the_calibration_error_is_that_of_torchmetrics():
    logits = RNG.normal(0, 2, (400, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = RNG.integers(0, 3, 400)
    right = probabilities.argmax(1) == truth
    got = expected_calibration_error(probabilities.max(1), right, np.ones((1, 400)))[0]
    want = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(truth), 3, n_bins=10
    )
    assert got == pytest.approx(float(want), abs=1e-5)


def test_a_perfect_model_has_an_error_too_and_a_smaller_one_on_more_images():
    confidence = RNG.uniform(0.4, 1, 100)
    few, many = simulate_perfect(confidence).mean(), simulate_perfect(np.tile(confidence, 25)).mean()
    assert 0.05 < few < 0.15
    assert many == pytest.approx(few / 5, rel=0.2)


def test_the_reliability_curve_bins_by_count():
    predicted, came, images = reliability_curve(np.linspace(0, 1, 40), np.arange(40) >= 20, np.ones((1, 40)))
    assert images.tolist() == [5] * 8
    assert came[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert predicted == pytest.approx(np.linspace(0, 1, 40).reshape(8, 5).mean(1))


def test_the_bootstrap_draws_whole_groups():
    groups = np.array(["b", "a", "b", "c"])
    drawn = draw_groups(groups, 500)
    assert (drawn[:, 0] == drawn[:, 2]).all()
    assert (drawn[:, 0] + drawn[:, 1] + drawn[:, 3] == 3).all()
    assert drawn.mean(0) == pytest.approx([1, 1, 1, 1], abs=0.12)
    assert (draw_groups(groups, 500) == drawn).all()


def test_an_interval_leaves_out_what_does_not_exist_but_not_most_of_it():
    values = np.concatenate([np.linspace(0, 1, 101), np.full(50, np.nan)])
    assert percentile_interval(values) == pytest.approx([0.025, 0.975])
    assert percentile_interval(np.append(np.full(10, np.nan), [0.5, 0.6])) is None


def test_the_intervals_are_those_of_a_plain_loop():
    scores = random_scores(80)
    summary = summarise(scores)
    lesions = [s for s in scores if s.lesion]
    groups = list(dict.fromkeys(s.group for s in lesions))
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(2000):
        some = [
            s.dice for g in rng.integers(0, len(groups), len(groups)) for s in lesions if s.group == groups[g]
        ]
        drawn.append(np.mean(some))
    assert summary["lesion_dice"]["ci95"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=2e-4)


def test_class_figures_follow_their_definitions():
    scores = random_scores(200)
    summary = summarise(scores)
    malignant = [s for s in scores if s.label == "malignant"]
    benign = [s for s in scores if s.label == "benign"]
    assert summary["sensitivity"]["value"] == pytest.approx(
        np.mean([s.malignant >= 0.5 for s in malignant]), abs=1e-4
    )
    assert summary["specificity"]["value"] == pytest.approx(
        np.mean([s.malignant < 0.5 for s in benign]), abs=1e-4
    )
    squares = [
        sum((p - (name == s.label)) ** 2 for p, name in zip(s.probabilities, CLASSES, strict=True))
        for s in scores
    ]
    assert summary["brier"]["value"] == pytest.approx(np.mean(squares), abs=1e-4)
    both = [(s.malignant - (s.label == "malignant")) ** 2 for s in malignant + benign]
    assert summary["brier_malignant"]["value"] == pytest.approx(np.mean(both), abs=1e-4)
    assert summary["specificity_at_95_sensitivity"]["n"] == len(malignant + benign)
    recalls = [np.mean([s.predicted == name for s in scores if s.label == name]) for name in CLASSES]
    assert summary["balanced_accuracy"]["value"] == pytest.approx(np.mean(recalls), abs=1e-4)


def test_rankings_are_over_predicted_masks_and_lesions_found_over_lesions():
    scores = random_scores(100)
    summary = summarise(scores)
    claimed = [s for s in scores if s.claimed]
    assert summary["aurc"]["n"] == len(claimed)
    assert summary["empty_right"]["n"] == 100 - len(claimed)
    lesions = [s for s in scores if s.lesion]
    assert summary["lesion_sensitivity"]["value"] == pytest.approx(
        sum(s.counts.found for s in lesions) / len(lesions), abs=1e-4
    )
    best = sorted(claimed, key=lambda s: -s.predicted_area)[: int(np.ceil(0.8 * len(claimed)))]
    assert summary["dice_at_80_by_area"]["value"] == pytest.approx(np.mean([s.dice for s in best]), abs=1e-4)


def test_columns_keep_the_order_and_the_gaps():
    scores = random_scores(10)
    columns = to_columns(scores)
    assert columns.dice.tolist() == [s.dice for s in scores]
    assert np.isnan(columns.hd95_mm).all()
    assert len(columns.select(columns.lesion)) == sum(s.lesion for s in scores)
