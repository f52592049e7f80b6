"""Every figure by name: which images it is about, and how it is computed for many resamples at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sonoloop.models.card import Head
from sonoloop.store.metrics import RESAMPLES
from sonoloop.values import CLASSES
from sonoloop_training.evaluation.scores import (
    NSD_TOLERANCE_MM,
    NSD_TOLERANCE_PX,
    Bools,
    Columns,
    Counts,
    Floats,
)


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


_NORMAL, _MALIGNANT = CLASSES.index("normal"), CLASSES.index("malignant")
# p(malignant) / (p(malignant) + p(benign)) from which a lesion is called malignant
OPERATING_POINT = 0.5
SENSITIVITY = 0.95
COVERAGE = 0.8
# fewer malignant images than this, and 0.95 lies between the steps of the curve
_FEWEST_MALIGNANT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A figure.

    Parameters
    ----------
    key, title : str
        Its name in files, and before people.
    head : str
        Which output of a model it judges.
    better : int
        1 where more is better, -1 where less is, 0 where neither.
    about : callable
        Columns to a mask of the images that it is about, (N,).
    value : callable
        Those images' columns and counts (R, N) to values (R,).
    """

    key: str
    title: str
    head: Head
    better: int
    about: Callable[[Columns], Bools]
    value: Callable[[Columns, Counts], Floats]


def _mean(name: str) -> Callable[[Columns, Counts], Floats]:
    def value(columns: Columns, counts: Counts) -> Floats:
        return _ratio(counts @ getattr(columns, name).astype(np.float64), counts)

    return value


def _ratio(above: Floats, counts: Counts) -> Floats:
    total = counts.sum(1, dtype=np.float64)
    return np.asarray(np.divide(above, total, out=np.full(len(total), np.nan), where=total > 0))


def _lesions(columns: Columns) -> Bools:
    return columns.lesion


def _normals(columns: Columns) -> Bools:
    return ~columns.lesion


def _everything(columns: Columns) -> Bools:
    return np.ones(len(columns), np.bool_)


def _claimed(columns: Columns) -> Bools:
    return columns.claimed


def _unclaimed(columns: Columns) -> Bools:
    return ~columns.claimed


def _in_mm(columns: Columns) -> Bools:
    return np.isfinite(columns.hd95_mm)


def _lesion_classes(columns: Columns) -> Bools:
    return np.asarray(columns.truth != _NORMAL)


def _malignant(columns: Columns) -> Bools:
    return np.asarray(columns.truth == _MALIGNANT)


def _benign(columns: Columns) -> Bools:
    return _lesion_classes(columns) & ~_malignant(columns)


def _enough_malignant(columns: Columns) -> Bools:
    enough = np.count_nonzero(_malignant(columns)) >= _FEWEST_MALIGNANT
    return _lesion_classes(columns) & enough


def _missed(columns: Columns, counts: Counts) -> Floats:
    return _ratio(counts @ (columns.dice == 0), counts)


def _no_lesion(columns: Columns, counts: Counts) -> Floats:
    return _ratio(counts @ ~columns.lesion, counts)


def _lesion_sensitivity(columns: Columns, counts: Counts) -> Floats:
    total = counts @ columns.lesions
    found = counts @ columns.found
    return np.asarray(np.divide(found, total, out=np.full(len(total), np.nan), where=total > 0))


def _rank_correlation(columns: Columns, counts: Counts) -> Floats:
    return spearman(columns.dice, columns.expected_dice, counts)


def _accuracy(columns: Columns, counts: Counts) -> Floats:
    return _ratio(counts @ (columns.truth == columns.predicted), counts)


def _balanced_accuracy(columns: Columns, counts: Counts) -> Floats:
    recalls = []
    for place in np.unique(columns.truth):
        own = counts * (columns.truth == place)
        recalls.append(_ratio((own * (columns.predicted == place)).sum(1, dtype=np.float64), own))
    return np.asarray(np.mean(recalls, axis=0))


def _auc(columns: Columns, counts: Counts) -> Floats:
    return auc(columns.malignant, _malignant(columns), counts)


def _called(columns: Columns, counts: Counts) -> Floats:
    return _ratio(counts @ (columns.malignant >= OPERATING_POINT), counts)


def _not_called(columns: Columns, counts: Counts) -> Floats:
    return _ratio(counts @ (columns.malignant < OPERATING_POINT), counts)


def _specificity_at(columns: Columns, counts: Counts) -> Floats:
    return specificity_at(columns.malignant, _malignant(columns), counts, sensitivity=SENSITIVITY)


def _brier(columns: Columns, counts: Counts) -> Floats:
    squares = ((columns.probabilities - np.eye(len(CLASSES))[columns.truth]) ** 2).sum(1)
    return _ratio(counts @ squares, counts)


def _brier_malignant(columns: Columns, counts: Counts) -> Floats:
    return _ratio(counts @ (columns.malignant - _malignant(columns)) ** 2, counts)


def _slope(columns: Columns, counts: Counts) -> Floats:
    return recalibrate(columns.malignant, _malignant(columns), counts)[0]


def _intercept(columns: Columns, counts: Counts) -> Floats:
    return recalibrate(columns.malignant, _malignant(columns), counts)[1]


def _ece(columns: Columns, counts: Counts) -> Floats:
    confidence = columns.probabilities.max(1)
    return expected_calibration_error(confidence, columns.truth == columns.predicted, counts)


def _aurc(ranker: str) -> Callable[[Columns, Counts], Floats]:
    return lambda columns, counts: aurc(getattr(columns, ranker), 1 - columns.dice, counts)


def _dice_at(ranker: str) -> Callable[[Columns, Counts], Floats]:
    def value(columns: Columns, counts: Counts) -> Floats:
        return 1 - risk_at(getattr(columns, ranker), 1 - columns.dice, counts, coverage=COVERAGE)

    return value


# what the masks can be ordered by, and how figures of it are called: the model's own expectation first
RANKERS = {"expected_dice": "", "predicted_area": "_by_area", "foreground": "_by_foreground"}
RANKER_TITLES = {
    "expected_dice": "expected Dice",
    "predicted_area": "predicted area",
    "foreground": "mean foreground probability",
}


def _measure(
    key: str,
    title: str,
    better: int,
    about: Callable[[Columns], Bools],
    value: Callable[[Columns, Counts], Floats],
    *,
    head: Head,
) -> Measure:
    return Measure(key=key, title=title, head=head, better=better, about=about, value=value)


_lesion, _class = partial(_measure, head="lesion"), partial(_measure, head="classes")

MEASURES: tuple[Measure, ...] = (
    _lesion("lesion_dice", "Dice, images with a lesion", 1, _lesions, _mean("dice")),
    _lesion("iou", "IoU, images with a lesion", 1, _lesions, _mean("iou")),
    _lesion("hd95_px", "HD95 (pixels)", -1, _lesions, _mean("hd95_px")),
    _lesion("assd_px", "ASSD (pixels)", -1, _lesions, _mean("assd_px")),
    _lesion("nsd", f"surface Dice at {NSD_TOLERANCE_PX:g} pixels", 1, _lesions, _mean("nsd")),
    _lesion("hd95_mm", "HD95 (mm)", -1, _in_mm, _mean("hd95_mm")),
    _lesion("assd_mm", "ASSD (mm)", -1, _in_mm, _mean("assd_mm")),
    _lesion("nsd_mm", f"surface Dice at {NSD_TOLERANCE_MM:g} mm", 1, _in_mm, _mean("nsd_mm")),
    _lesion("missed", "lesions missed (Dice 0)", -1, _lesions, _missed),
    _lesion("false_alarms", "normals with a mask", -1, _normals, _mean("claimed")),
    _lesion("lesion_sensitivity", "lesions found", 1, _lesions, _lesion_sensitivity),
    _lesion("false_positives_per_image", "false lesions an image", -1, _everything, _mean("false_positives")),
    _lesion("empty_right", "empty masks without a lesion", 1, _unclaimed, _no_lesion),
    _lesion("rank_correlation", "rank correlation of expected and real Dice", 1, _lesions, _rank_correlation),
    *(
        _lesion(f"aurc{suffix}", f"AURC, by {RANKER_TITLES[ranker]}", -1, _claimed, _aurc(ranker))
        for ranker, suffix in RANKERS.items()
    ),
    *(
        _lesion(
            f"dice_at_80{suffix}",
            f"Dice at 80 % coverage, by {RANKER_TITLES[ranker]}",
            1,
            _claimed,
            _dice_at(ranker),
        )
        for ranker, suffix in RANKERS.items()
    ),
    _class("accuracy", "accuracy, three classes", 1, _everything, _accuracy),
    _class("balanced_accuracy", "balanced accuracy", 1, _everything, _balanced_accuracy),
    _class("auc", "AUC, malignant against benign", 1, _lesion_classes, _auc),
    _class("sensitivity", "sensitivity for malignant", 1, _malignant, _called),
    _class("specificity", "specificity", 1, _benign, _not_called),
    _class(
        "specificity_at_95_sensitivity",
        "specificity at 0.95 sensitivity",
        1,
        _enough_malignant,
        _specificity_at,
    ),
    _class("brier", "Brier score, three classes", -1, _everything, _brier),
    _class("brier_malignant", "Brier score, malignant against benign", -1, _lesion_classes, _brier_malignant),
    _class("calibration_slope", "calibration slope", 0, _lesion_classes, _slope),
    _class("calibration_intercept", "calibration intercept", 0, _lesion_classes, _intercept),
    _class("ece", "expected calibration error", -1, _everything, _ece),
)
