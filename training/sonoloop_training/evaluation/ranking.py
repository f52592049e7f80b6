"""Figures of orderings, for many resamples at once: ROC, rank correlation, risk and coverage.

Every function takes ``counts`` (R, N), how often each of the N images counts in each of R resamples, and
gives (R,), NaN where a resample allows no answer. Counts of one give the plain figure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sonoloop_training.evaluation.columns import Counts, Floats


def auc(scores: Floats, positive: NDArray[np.bool_], counts: Counts) -> Floats:
    """Area under the ROC curve: the probability that a positive scores above a negative, ties by half."""
    order, starts = _ties(scores)
    hits = np.add.reduceat(counts[:, order] * positive[order], starts, axis=1, dtype=np.float64)
    others = np.add.reduceat(counts[:, order] * ~positive[order], starts, axis=1, dtype=np.float64)
    below = others.cumsum(1) - others
    return _divide((hits * (below + others / 2)).sum(1), hits.sum(1) * others.sum(1))


def roc_curves(
    scores: Floats, positive: NDArray[np.bool_], counts: Counts, false_positive_rates: Floats
) -> Floats:
    """Sensitivity at given false-positive rates (K,), (R, K); straight lines between thresholds."""
    order, starts = _ties(-scores)
    hits = np.add.reduceat(counts[:, order] * positive[order], starts, axis=1, dtype=np.float64).cumsum(1)
    others = np.add.reduceat(counts[:, order] * ~positive[order], starts, axis=1, dtype=np.float64).cumsum(1)
    rows = [
        np.interp(false_positive_rates, np.append(0, x / x[-1]), np.append(0, y / y[-1]))
        if x[-1] > 0 and y[-1] > 0
        else np.full(len(false_positive_rates), np.nan)
        for x, y in zip(others, hits, strict=True)
    ]
    return np.array(rows)


def specificity_at(
    scores: Floats, positive: NDArray[np.bool_], counts: Counts, *, sensitivity: float
) -> Floats:
    """Best specificity of a threshold whose sensitivity is at least the one given."""
    order, starts = _ties(-scores)
    hits = np.add.reduceat(counts[:, order] * positive[order], starts, axis=1, dtype=np.float64).cumsum(1)
    others = np.add.reduceat(counts[:, order] * ~positive[order], starts, axis=1, dtype=np.float64).cumsum(1)
    enough = (hits >= sensitivity * hits[:, -1:] - 1e-9).argmax(1)
    called = others[np.arange(len(others)), enough]
    wrong = _divide(called, others[:, -1])
    return np.asarray(np.where(hits[:, -1] > 0, 1 - wrong, np.nan))


def spearman(one: Floats, other: Floats, counts: Counts) -> Floats:
    """Rank correlation, tied values at their mean rank."""
    x, y = _ranks(one, counts), _ranks(other, counts)
    total = counts.sum(1, dtype=np.float64)[:, None]
    x -= (counts * x).sum(1, keepdims=True) / total
    y -= (counts * y).sum(1, keepdims=True) / total
    spread = np.sqrt((counts * x**2).sum(1) * (counts * y**2).sum(1))
    # a constant has no ranks, whatever rounding leaves of its spread
    return _divide((counts * x * y).sum(1), np.where(spread > 1e-6, spread, 0.0))


def risk_curve(confidence: Floats, risk: Floats, counts: Counts) -> tuple[Floats, Floats]:
    """Mean risk of the most confident images, against the share of images that they are.

    Images of one confidence come in no order: each counts with the mean of them all.

    Returns
    -------
    tuple of numpy.ndarray
        Coverage and mean risk, both (R, N), from the most confident image to all of them.
    """
    sizes, tied, risks = _tied_risks(confidence, risk, counts)
    counted = np.repeat(tied / sizes, sizes, axis=1).cumsum(1)
    summed = np.repeat(risks / sizes, sizes, axis=1).cumsum(1)
    coverage = counted / counted[:, -1:]
    return coverage, np.divide(summed, counted, out=np.zeros_like(summed), where=counted > 0)


def aurc(confidence: Floats, risk: Floats, counts: Counts) -> Floats:
    """Area under the risk-coverage curve (Geifman & El-Yaniv 2017); a blind ranking has the mean risk.

    Images of one confidence, and an image drawn again, count with the mean over their orders.
    """
    _, tied, risks = _tied_risks(confidence, risk, counts)
    kept = np.pad(tied.cumsum(1), ((0, 0), (1, 0)))
    before, mean = risks.cumsum(1) - risks, _mean_risks(tied, risks)
    harmonic = np.append(0, (1 / np.arange(1, kept.max() + 1)).cumsum())
    # (before + k mean) / (kept + k), summed over the k = 1, 2, ... images of one confidence
    areas = risks + (before - kept[:, :-1] * mean) * np.diff(harmonic[kept.astype(np.intp)], axis=1)
    return _divide(areas.sum(1), kept[:, -1])


def risk_at(confidence: Floats, risk: Floats, counts: Counts, *, coverage: float) -> Floats:
    """Mean risk of the share `coverage` of the images in which there is most confidence.

    Where it ends among images of one confidence, these count with their mean.
    """
    _, tied, risks = _tied_risks(confidence, risk, counts)
    reached = tied.cumsum(1)
    wanted = np.ceil(coverage * reached[:, -1] - 1e-9)
    rows, place = np.arange(len(tied)), (reached >= wanted[:, None]).argmax(1)
    beyond = reached[rows, place] - wanted
    summed = risks.cumsum(1)[rows, place] - beyond * _mean_risks(tied, risks)[rows, place]
    return _divide(summed, wanted)


def _tied_risks(confidence: Floats, risk: Floats, counts: Counts) -> tuple[NDArray[np.intp], Floats, Floats]:
    """For each confidence, the highest first: of how many images, (B,); their counts and risks, (R, B)."""
    order, starts = _ties(-confidence)
    tied = np.add.reduceat(counts[:, order], starts, axis=1, dtype=np.float64)
    risks = np.add.reduceat(counts[:, order] * risk[order], starts, axis=1, dtype=np.float64)
    return np.diff(np.append(starts, len(order))), tied, risks


def _mean_risks(tied: Floats, risks: Floats) -> Floats:
    return np.asarray(np.divide(risks, tied, out=np.zeros_like(risks), where=tied > 0))


def _ties(scores: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Order by value, and where in that order each new value begins."""
    order = np.argsort(scores, kind="stable")
    return order, np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))


def _ranks(values: Floats, counts: Counts) -> Floats:
    order, starts = _ties(values)
    tied = np.add.reduceat(counts[:, order], starts, axis=1, dtype=np.float64)
    middle = tied.cumsum(1) - tied / 2
    ranks = np.empty(counts.shape)
    ranks[:, order] = np.repeat(middle, np.diff(np.append(starts, len(values))), axis=1)
    return ranks


def _divide(above: Floats, below: Floats) -> Floats:
    return np.asarray(np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0))
