"""Every figure by name: which images it is about, and how it is computed for many resamples at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from sonoloop.models.spec import Head
from sonoloop.values import CLASSES
from sonoloop_training.evaluation.columns import Bools, Columns, Counts, Floats
from sonoloop_training.evaluation.ranking import auc, aurc, risk_at, spearman, specificity_at
from sonoloop_training.evaluation.reliability import expected_calibration_error, recalibrate
from sonoloop_training.evaluation.scores import NSD_TOLERANCE_MM, NSD_TOLERANCE_PX

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
