"""Every figure by name: which images it is about, and how it is computed for many resamples at once.

Values of images are (N,); `counts` (R, N) says how often each counts in each resample; figures are (R,).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from sonoloop.models.card import Head
from sonoloop.store.metrics import (
    RESAMPLES,
    Bools,
    Counts,
    Floats,
    auc,
    resampled_mean,
    resampled_ratio,
)
from sonoloop.values import CLASSES
from sonoloop_training.evaluation.scores import NSD_TOLERANCE_MM, NSD_TOLERANCE_PX, Distances, Score

# p(malignant) / (p(malignant) + p(benign)) from which a lesion is called malignant
OPERATING_POINT = 0.5
SENSITIVITY = 0.95
COVERAGE = 0.8
BINS = 10
# what the masks can be ordered by, and how figures of it are called: the model's own expectation first
RANKERS = {"expected_dice": "", "predicted_area": "_by_area", "foreground": "_by_foreground"}
RANKER_TITLES = {
    "expected_dice": "expected Dice",
    "predicted_area": "predicted area",
    "foreground": "mean foreground probability",
}
# fewer malignant images than this, and 0.95 lies between the steps of the curve
_FEWEST_MALIGNANT = 20
_STEPS = 30
# beyond this slope the classes are as good as separated, and the likelihood has no maximum
_STEEPEST = 50.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """The values of N scores as arrays, all but the probabilities (N,); see `Score`."""

    groups: NDArray[np.str_]
    # index into `CLASSES`
    truth: NDArray[np.intp]
    predicted: NDArray[np.intp]
    # (N, 3)
    probabilities: Floats
    lesion: Bools
    claimed: Bools
    dice: Floats
    iou: Floats
    expected_dice: Floats
    malignant: Floats
    area: Floats
    predicted_area: Floats
    foreground: Floats
    lesions: Floats
    found: Floats
    false_positives: Floats
    # NaN where there is no distance
    hd95_px: Floats
    assd_px: Floats
    nsd: Floats
    hd95_mm: Floats
    assd_mm: Floats
    nsd_mm: Floats

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def classed(self) -> Bools:
        """Which are benign or malignant in truth."""
        return np.asarray(self.truth != CLASSES.index("normal"))

    @property
    def is_malignant(self) -> Bools:
        """Which are malignant in truth."""
        return np.asarray(self.truth == CLASSES.index("malignant"))

    def select(self, which: Bools) -> Columns:
        """Keep the images for which `which` (N,) is true."""
        return Columns(**{field.name: getattr(self, field.name)[which] for field in fields(self)})


def to_columns(scores: Sequence[Score]) -> Columns:
    """Lay scores out as arrays, in their order."""

    def floats(*names: str) -> dict[str, Floats]:
        return {name: np.array([getattr(s, name) for s in scores], np.float64) for name in names}

    return Columns(
        groups=np.array([s.group for s in scores], np.str_),
        truth=np.array([CLASSES.index(s.label) for s in scores], np.intp),
        predicted=np.array([CLASSES.index(s.predicted) for s in scores], np.intp),
        probabilities=np.array([s.probabilities for s in scores], np.float64).reshape(-1, len(CLASSES)),
        lesion=np.array([s.lesion for s in scores], np.bool_),
        claimed=np.array([s.claimed for s in scores], np.bool_),
        lesions=np.array([s.counts.lesions for s in scores], np.float64),
        found=np.array([s.counts.found for s in scores], np.float64),
        false_positives=np.array([s.counts.false_positives for s in scores], np.float64),
        **floats("dice", "iou", "expected_dice", "malignant", "area", "predicted_area", "foreground"),
        **_distances([s.pixels for s in scores], ("hd95_px", "assd_px", "nsd")),
        **_distances([s.millimetres for s in scores], ("hd95_mm", "assd_mm", "nsd_mm")),
    )


def _distances(found: Sequence[Distances | None], names: tuple[str, str, str]) -> dict[str, Floats]:
    rows = [(d.hd95, d.assd, d.nsd) if d else (np.nan, np.nan, np.nan) for d in found]
    table = np.array(rows, np.float64).reshape(-1, len(names))
    return {name: table[:, place] for place, name in enumerate(names)}


def roc_curves(scores: Floats, positive: Bools, counts: Counts, false_positive_rates: Floats) -> Floats:
    """Sensitivity at given false-positive rates (K,), (R, K); straight lines between thresholds."""
    hits, others = _reached(scores, positive, counts)
    rows = [
        np.interp(false_positive_rates, np.append(0, x / x[-1]), np.append(0, y / y[-1]))
        if x[-1] > 0 and y[-1] > 0
        else np.full(len(false_positive_rates), np.nan)
        for x, y in zip(others, hits, strict=True)
    ]
    return np.array(rows)


def specificity_at(scores: Floats, positive: Bools, counts: Counts, *, sensitivity: float) -> Floats:
    """Best specificity of a threshold whose sensitivity is at least the one given."""
    hits, others = _reached(scores, positive, counts)
    enough = (hits >= sensitivity * hits[:, -1:] - 1e-9).argmax(1)
    called = others[np.arange(len(others)), enough]
    wrong = resampled_ratio(called, others[:, -1])
    return np.asarray(np.where(hits[:, -1] > 0, 1 - wrong, np.nan))


def _reached(scores: Floats, positive: Bools, counts: Counts) -> tuple[Floats, Floats]:
    """Count the positives and the negatives from each score on upwards, the highest first; both (R, B)."""
    order, starts = _ties(-scores)
    hits = np.add.reduceat(counts[:, order] * positive[order], starts, axis=1, dtype=np.float64)
    others = np.add.reduceat(counts[:, order] * ~positive[order], starts, axis=1, dtype=np.float64)
    return hits.cumsum(1), others.cumsum(1)


def spearman(one: Floats, other: Floats, counts: Counts) -> Floats:
    """Rank correlation, tied values at their mean rank."""
    x, y = _ranks(one, counts), _ranks(other, counts)
    total = counts.sum(1, dtype=np.float64)[:, None]
    x -= (counts * x).sum(1, keepdims=True) / total
    y -= (counts * y).sum(1, keepdims=True) / total
    spread = np.sqrt((counts * x**2).sum(1) * (counts * y**2).sum(1))
    # a constant has no ranks, whatever rounding leaves of its spread
    return resampled_ratio((counts * x * y).sum(1), np.where(spread > 1e-6, spread, 0.0))


def risk_curve(confidence: Floats, risk: Floats, counts: Counts) -> tuple[Floats, Floats]:
    """Share of the images that are most confident, from one to all, and their mean risk; both (R, N).

    Images of one confidence come in no order: each counts with the mean of them all.
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
    return resampled_ratio(areas.sum(1), kept[:, -1])


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
    return resampled_ratio(summed, wanted)


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


def expected_calibration_error(confidence: Floats, correct: Bools, counts: Counts) -> Floats:
    """Compute the expected calibration error over ten equal bins (Naeini et al. 2015; Guo et al. 2017).

    Of the probability of the predicted class, and whether it was right: (N,), or (R, N) if simulated.
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


def recalibrate(probabilities: Floats, positive: Bools, counts: Counts) -> tuple[Floats, Floats]:
    """Fit ``logit(p) -> a + b logit(p)`` by likelihood (Cox 1958), by Newton's method.

    Gives the slope b (1 is calibrated, below 1 overconfident) and the intercept a (0 is calibrated, above 0
    too low); NaN where the classes are separated, so that there is no maximum.
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
    probabilities: Floats, positive: Bools, counts: Counts
) -> tuple[Floats, Floats, Floats]:
    """Predicted against observed, by bins of equal counts, at most ten, of five images at least.

    Gives the mean prediction (B,), the share that came (R, B) and the images (B,) of each bin.
    """
    count = min(BINS, max(1, len(probabilities) // 5))
    members = np.zeros((len(probabilities), count))
    for place, chunk in enumerate(np.array_split(np.argsort(probabilities, kind="stable"), count)):
        members[chunk, place] = 1
    images = members.sum(0)
    total = counts @ members
    came = np.divide((counts * positive) @ members, total, out=np.full(total.shape, np.nan), where=total > 0)
    return (probabilities @ members) / images, np.asarray(came, np.float64), images


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure."""

    # which output of a model it judges
    head: Head
    # its name in files, and before people
    key: str
    title: str
    # 1 where more is better, -1 where less is, 0 where neither
    better: int
    # which images it is about, (N,)
    about: Callable[[Columns], Bools]
    # of those images alone, (R,)
    value: Callable[[Columns, Counts], Floats]


def _mean(name: str) -> Callable[[Columns, Counts], Floats]:
    return lambda of, counts: resampled_mean(getattr(of, name), counts)


def _aurc(ranker: str) -> Callable[[Columns, Counts], Floats]:
    return lambda of, counts: aurc(getattr(of, ranker), 1 - of.dice, counts)


def _dice_at(ranker: str) -> Callable[[Columns, Counts], Floats]:
    return lambda of, counts: 1 - risk_at(getattr(of, ranker), 1 - of.dice, counts, coverage=COVERAGE)


def _enough_malignant(of: Columns) -> Bools:
    return of.classed & (np.count_nonzero(of.is_malignant) >= _FEWEST_MALIGNANT)


def _balanced_accuracy(of: Columns, counts: Counts) -> Floats:
    recalls = [
        resampled_mean(of.predicted == place, counts * (of.truth == place)) for place in np.unique(of.truth)
    ]
    return np.asarray(np.mean(recalls, axis=0))


def _brier(of: Columns, counts: Counts) -> Floats:
    squares = ((of.probabilities - np.eye(len(CLASSES))[of.truth]) ** 2).sum(1)
    return resampled_mean(squares, counts)


def _ece(of: Columns, counts: Counts) -> Floats:
    return expected_calibration_error(of.probabilities.max(1), of.truth == of.predicted, counts)


_lesion, _class = partial(Measure, "lesion"), partial(Measure, "classes")
_LESIONS, _CLAIMED, _CLASSED, _MALIGNANT = map(attrgetter, ("lesion", "claimed", "classed", "is_malignant"))


def _all(of: Columns) -> Bools:
    return np.ones(len(of), np.bool_)


def _in_mm(of: Columns) -> Bools:
    return np.isfinite(of.hd95_mm)


MEASURES: tuple[Measure, ...] = (
    _lesion("lesion_dice", "Dice, images with a lesion", 1, _LESIONS, _mean("dice")),
    _lesion("iou", "IoU, images with a lesion", 1, _LESIONS, _mean("iou")),
    _lesion("hd95_px", "HD95 (pixels)", -1, _LESIONS, _mean("hd95_px")),
    _lesion("assd_px", "ASSD (pixels)", -1, _LESIONS, _mean("assd_px")),
    _lesion("nsd", f"surface Dice at {NSD_TOLERANCE_PX:g} pixels", 1, _LESIONS, _mean("nsd")),
    _lesion("hd95_mm", "HD95 (mm)", -1, _in_mm, _mean("hd95_mm")),
    _lesion("assd_mm", "ASSD (mm)", -1, _in_mm, _mean("assd_mm")),
    _lesion("nsd_mm", f"surface Dice at {NSD_TOLERANCE_MM:g} mm", 1, _in_mm, _mean("nsd_mm")),
    _lesion(
        "missed",
        "lesions missed (Dice 0)",
        -1,
        _LESIONS,
        lambda of, counts: resampled_mean(of.dice == 0, counts),
    ),
    _lesion("false_alarms", "normals with a mask", -1, lambda of: ~of.lesion, _mean("claimed")),
    _lesion(
        "lesion_sensitivity",
        "lesions found",
        1,
        _LESIONS,
        lambda of, counts: resampled_ratio(counts @ of.found, counts @ of.lesions),
    ),
    _lesion("false_positives_per_image", "false lesions an image", -1, _all, _mean("false_positives")),
    _lesion(
        "empty_right",
        "empty masks without a lesion",
        1,
        lambda of: ~of.claimed,
        lambda of, counts: resampled_mean(~of.lesion, counts),
    ),
    _lesion(
        "rank_correlation",
        "rank correlation of expected and real Dice",
        1,
        _LESIONS,
        lambda of, counts: spearman(of.dice, of.expected_dice, counts),
    ),
    *(
        _lesion(f"aurc{suffix}", f"AURC, by {RANKER_TITLES[ranker]}", -1, _CLAIMED, _aurc(ranker))
        for ranker, suffix in RANKERS.items()
    ),
    *(
        _lesion(
            f"dice_at_80{suffix}",
            f"Dice at 80 % coverage, by {RANKER_TITLES[ranker]}",
            1,
            _CLAIMED,
            _dice_at(ranker),
        )
        for ranker, suffix in RANKERS.items()
    ),
    _class(
        "accuracy",
        "accuracy, three classes",
        1,
        _all,
        lambda of, counts: resampled_mean(of.truth == of.predicted, counts),
    ),
    _class("balanced_accuracy", "balanced accuracy", 1, _all, _balanced_accuracy),
    _class(
        "auc",
        "AUC, malignant against benign",
        1,
        _CLASSED,
        lambda of, counts: auc(of.malignant, of.is_malignant, counts),
    ),
    _class(
        "sensitivity",
        "sensitivity for malignant",
        1,
        _MALIGNANT,
        lambda of, counts: resampled_mean(of.malignant >= OPERATING_POINT, counts),
    ),
    _class(
        "specificity",
        "specificity",
        1,
        lambda of: of.classed & ~of.is_malignant,
        lambda of, counts: resampled_mean(of.malignant < OPERATING_POINT, counts),
    ),
    _class(
        "specificity_at_95_sensitivity",
        "specificity at 0.95 sensitivity",
        1,
        _enough_malignant,
        lambda of, counts: specificity_at(of.malignant, of.is_malignant, counts, sensitivity=SENSITIVITY),
    ),
    _class("brier", "Brier score, three classes", -1, _all, _brier),
    _class(
        "brier_malignant",
        "Brier score, malignant against benign",
        -1,
        _CLASSED,
        lambda of, counts: resampled_mean((of.malignant - of.is_malignant) ** 2, counts),
    ),
    _class(
        "calibration_slope",
        "calibration slope",
        0,
        _CLASSED,
        lambda of, counts: recalibrate(of.malignant, of.is_malignant, counts)[0],
    ),
    _class(
        "calibration_intercept",
        "calibration intercept",
        0,
        _CLASSED,
        lambda of, counts: recalibrate(of.malignant, of.is_malignant, counts)[1],
    ),
    _class("ece", "expected calibration error", -1, _all, _ece),
)
