"""Figures of orderings, for many resamples at once: ROC, rank correlation, risk and coverage.

Every function takes ``weights`` (R, N), how often each of the N images counts in each of R resamples, and
gives (R,), NaN where a resample allows no answer. Weights of one give the plain figure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sonoloop_training.evaluation.columns import Floats, Weights


def auc(scores: Floats, positive: NDArray[np.bool_], weights: Weights) -> Floats:
    """Area under the ROC curve: the probability that a positive scores above a negative, ties by half."""
    order, starts = _ties(scores)
    hits = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1, dtype=np.float64)
    others = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1, dtype=np.float64)
    below = others.cumsum(1) - others
    return _divide((hits * (below + others / 2)).sum(1), hits.sum(1) * others.sum(1))


def roc_curves(
    scores: Floats, positive: NDArray[np.bool_], weights: Weights, false_positive_rates: Floats
) -> Floats:
    """Sensitivity at given false-positive rates (K,), (R, K); straight lines between thresholds."""
    order, starts = _ties(-scores)
    hits = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1, dtype=np.float64).cumsum(1)
    others = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1, dtype=np.float64).cumsum(1)
    rows = [
        np.interp(false_positive_rates, np.append(0, x / x[-1]), np.append(0, y / y[-1]))
        if x[-1] > 0 and y[-1] > 0
        else np.full(len(false_positive_rates), np.nan)
        for x, y in zip(others, hits, strict=True)
    ]
    return np.array(rows)


def specificity_at(
    scores: Floats, positive: NDArray[np.bool_], weights: Weights, *, sensitivity: float
) -> Floats:
    """Best specificity of a threshold whose sensitivity is at least the one given."""
    order, starts = _ties(-scores)
    hits = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1, dtype=np.float64).cumsum(1)
    others = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1, dtype=np.float64).cumsum(1)
    enough = (hits >= sensitivity * hits[:, -1:] - 1e-9).argmax(1)
    called = others[np.arange(len(others)), enough]
    wrong = _divide(called, others[:, -1])
    return np.asarray(np.where(hits[:, -1] > 0, 1 - wrong, np.nan))


def spearman(one: Floats, other: Floats, weights: Weights) -> Floats:
    """Rank correlation, tied values at their mean rank."""
    x, y = _ranks(one, weights), _ranks(other, weights)
    total = weights.sum(1, dtype=np.float64)[:, None]
    x -= (weights * x).sum(1, keepdims=True) / total
    y -= (weights * y).sum(1, keepdims=True) / total
    spread = np.sqrt((weights * x**2).sum(1) * (weights * y**2).sum(1))
    # a constant has no ranks, whatever rounding leaves of its spread
    return _divide((weights * x * y).sum(1), np.where(spread > 1e-6, spread, 0.0))


def risk_curve(confidence: Floats, risk: Floats, weights: Weights) -> tuple[Floats, Floats]:
    """Mean risk of the most confident images, against the share of images that they are.

    Returns
    -------
    tuple of numpy.ndarray
        Coverage and mean risk, both (R, N), from the most confident image to all of them.
    """
    order = np.argsort(-confidence, kind="stable")
    counted = weights[:, order].cumsum(1, dtype=np.float64)
    summed = (weights[:, order] * risk[order]).cumsum(1, dtype=np.float64)
    coverage = counted / counted[:, -1:]
    return coverage, np.divide(summed, counted, out=np.zeros_like(summed), where=counted > 0)


def aurc(confidence: Floats, risk: Floats, weights: Weights) -> Floats:
    """Area under the risk-coverage curve (Geifman & El-Yaniv 2017); a blind ranking has the mean risk."""
    _, curve = risk_curve(confidence, risk, weights)
    own = weights[:, np.argsort(-confidence, kind="stable")]
    return _divide((own * curve).sum(1, dtype=np.float64), own.sum(1, dtype=np.float64))


def risk_at(confidence: Floats, risk: Floats, weights: Weights, *, coverage: float) -> Floats:
    """Mean risk of the share `coverage` of the images in which there is most confidence."""
    reached, curve = risk_curve(confidence, risk, weights)
    place = (reached >= coverage - 1e-9).argmax(1)
    return np.asarray(curve[np.arange(len(curve)), place])


def _ties(scores: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Order by value, and where in that order each new value begins."""
    order = np.argsort(scores, kind="stable")
    return order, np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))


def _ranks(values: Floats, weights: Weights) -> Floats:
    order, starts = _ties(values)
    tied = np.add.reduceat(weights[:, order], starts, axis=1, dtype=np.float64)
    middle = tied.cumsum(1) - tied / 2
    ranks = np.empty(weights.shape)
    ranks[:, order] = np.repeat(middle, np.diff(np.append(starts, len(values))), axis=1)
    return ranks


def _divide(above: Floats, below: Floats) -> Floats:
    return np.asarray(np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0))
