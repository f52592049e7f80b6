"""Whether probabilities are frequencies, for many resamples at once; counts as in `ranking`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sonoloop.store.bootstrap import RESAMPLES
from sonoloop_training.evaluation.columns import Counts, Floats

BINS = 10
_STEPS = 30
# beyond this slope the classes are as good as separated, and the likelihood has no maximum
_STEEPEST = 50.0


def expected_calibration_error(confidence: Floats, correct: NDArray[np.bool_], counts: Counts) -> Floats:
    """Compute the expected calibration error over ten equal bins (Naeini et al. 2015; Guo et al. 2017).

    Parameters
    ----------
    confidence : numpy.ndarray
        Probability of the predicted class, (N,).
    correct : numpy.ndarray
        Whether it was right, (N,); or, for simulated outcomes, (R, N).
    counts : numpy.ndarray
        (R, N).

    Returns
    -------
    numpy.ndarray
        (R,) in [0, 1].
    """
    bins = np.eye(BINS)[np.clip((confidence * BINS).astype(np.intp), 0, BINS - 1)]
    gaps = np.abs((counts * (confidence - correct)) @ bins).sum(1)
    return np.asarray(gaps / counts.sum(1, dtype=np.float64))


def simulate_perfect(confidence: Floats, *, seed: int = 0) -> Floats:
    """Simulate the calibration errors of a perfectly calibrated model of these confidences, (R,).

    Each image is right with the very probability that was predicted; what error is left comes from the number
    of images alone (the consistency resampling of Bröcker & Smith 2007).
    """
    drawn = np.random.default_rng(seed).random((RESAMPLES, len(confidence))) < confidence
    return expected_calibration_error(confidence, drawn, np.ones((1, len(confidence))))


def recalibrate(probabilities: Floats, positive: NDArray[np.bool_], counts: Counts) -> tuple[Floats, Floats]:
    """Fit ``logit(p) -> a + b logit(p)`` by likelihood (Cox 1958), by Newton's method.

    Parameters
    ----------
    probabilities : numpy.ndarray
        Predicted, (N,).
    positive : numpy.ndarray
        What came, bool (N,).
    counts : numpy.ndarray
        (R, N).

    Returns
    -------
    tuple of numpy.ndarray
        Slope b (1 is calibrated, below 1 overconfident) and intercept a (0 is calibrated, above 0 too low),
        both (R,); NaN where the classes are separated, so that there is no maximum.
    """
    clipped = probabilities.clip(1e-6, 1 - 1e-6)
    x = np.log(clipped / (1 - clipped))
    intercept, slope = np.zeros(len(counts)), np.zeros(len(counts))
    with np.errstate(all="ignore"):
        for _ in range(_STEPS):
            fitted = 1 / (1 + np.exp(-(intercept[:, None] + slope[:, None] * x)))
            left = counts * (positive - fitted)
            curvature = counts * fitted * (1 - fitted)
            h0, h1, h2 = curvature.sum(1), curvature @ x, curvature @ x**2
            g0, g1 = left.sum(1), left @ x
            determinant = h0 * h2 - h1**2
            up, along = (h2 * g0 - h1 * g1) / determinant, (h0 * g1 - h1 * g0) / determinant
            intercept, slope = intercept + up, slope + along
            if np.nanmax(np.abs(np.append(up, along)), initial=0) < 1e-8:
                break
        settled = (np.abs(up) < 1e-4) & (np.abs(along) < 1e-4) & (np.abs(slope) < _STEEPEST)
    return np.where(settled, slope, np.nan), np.where(settled, intercept, np.nan)


def reliability_curve(
    probabilities: Floats, positive: NDArray[np.bool_], counts: Counts
) -> tuple[Floats, Floats, Floats]:
    """Predicted against observed, by bins of equal counts.

    Returns
    -------
    tuple of numpy.ndarray
        Mean prediction (B,), share that came (R, B) and images (B,) of each bin; at most ten bins, of
        five images at least.
    """
    count = min(BINS, max(1, len(probabilities) // 5))
    members = np.zeros((len(probabilities), count))
    for place, chunk in enumerate(np.array_split(np.argsort(probabilities, kind="stable"), count)):
        members[chunk, place] = 1
    images = members.sum(0)
    total = counts @ members
    came = np.divide((counts * positive) @ members, total, out=np.full(total.shape, np.nan), where=total > 0)
    return (probabilities @ members) / images, np.asarray(came, np.float64), images
