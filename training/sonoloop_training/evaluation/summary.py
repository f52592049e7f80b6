"""Figures of a set of images with their intervals: for one model, for two, for parts of the set."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from sonoloop.models.spec import Head
from sonoloop.store.bootstrap import draw_groups, percentile_interval
from sonoloop_training.evaluation.columns import Bools, Columns, Counts, to_columns
from sonoloop_training.evaluation.measures import MEASURES, Measure
from sonoloop_training.evaluation.reliability import simulate_perfect
from sonoloop_training.evaluation.scores_ import Score

HEADS: tuple[Head, ...] = ("lesion", "classes")
# shares of the image: the thirds of the lesions in BUSI and BUS-BRA, rounded, so that models are compared on
# the same bounds whatever the images
SIZES = {"small": (0.0, 0.035), "medium": (0.035, 0.09), "large": (0.09, 1.01)}
# on the images in which both models claim nothing it depends on the truth alone: no difference could show
_NEVER_COMPARED = frozenset({"empty_right"})
# the verdict on a difference whose interval holds zero
SAME = "no difference shown"
_STRATUM = (
    "lesion_dice",
    "iou",
    "hd95_px",
    "missed",
    "false_alarms",
    "lesion_sensitivity",
    "false_positives_per_image",
    "accuracy",
    "auc",
    "sensitivity",
    "specificity",
)


def summarise(
    scores: Sequence[Score], *, heads: Sequence[Head] = HEADS, keys: Collection[str] | None = None
) -> dict[str, Any]:
    """Compute figures with 95 % bootstrap intervals over groups.

    Parameters
    ----------
    scores : sequence of Score
        One an image.
    heads : sequence of str
        What the model gives; figures of what it does not give are left out.
    keys : collection of str, optional
        Which figures; all of `sonoloop_training.evaluation.measures.MEASURES` unless given.

    Returns
    -------
    dict
        ``images``, ``groups``, and each figure as ``{"value", "ci95", "n"}``: n is the number of images it is
        about, ``ci95`` is None for a single group. A figure is None where nothing can be said.
    """
    summary: dict[str, Any] = {"images": len(scores), "groups": len({s.group for s in scores})}
    columns = to_columns(scores)
    resampled = _Resampled([columns])
    for measure in MEASURES:
        if measure.head in heads and (keys is None or measure.key in keys):
            summary[measure.key] = resampled.figure(measure)
    if "classes" in heads and (keys is None or "ece" in keys):
        summary["ece_if_perfect"] = _ece_if_perfect(columns)
    return summary


def compare(one: Sequence[Score], other: Sequence[Score], *, heads: Sequence[Head] = HEADS) -> dict[str, Any]:
    """Differences ``other - one`` of two models' figures on the same images, by the paired bootstrap.

    Both are resampled together, so that what makes an image hard falls out of the difference.

    Parameters
    ----------
    one, other : sequence of Score
        Of the same images, in the same order.
    heads : sequence of str
        What both models give.

    Returns
    -------
    dict
        Each figure as ``{"value", "ci95", "n", "verdict"}``, the verdict "better", "worse", "no difference
        shown", or "differs" where neither direction is good; None where nothing can be said. Each is over the
        images that it is about for both models: ``aurc`` and ``dice_at_80`` where both claim a mask.
        ``empty_right`` is left out.

    Raises
    ------
    ValueError
        If the images are not the same.
    """
    if [s.key for s in one] != [s.key for s in other]:
        raise ValueError("the scores are not of the same images, in the same order")
    resampled = _Resampled([to_columns(one), to_columns(other)])
    return {
        measure.key: resampled.difference(measure)
        for measure in MEASURES
        if measure.head in heads and measure.key not in _NEVER_COMPARED
    }


def stratify(scores: Sequence[Score], *, heads: Sequence[Head] = HEADS) -> dict[str, dict[str, Any]]:
    """Compute the main figures by class, lesion size, overlay, scanner and dataset.

    Returns
    -------
    dict
        For each of these of which something is known, its values and their figures. Sizes are shares of the
        image; see `SIZES`.
    """
    kinds: dict[str, Callable[[Score], str | None]] = {
        "class": lambda s: s.label,
        "size": _size,
        "overlay": lambda s: None if s.overlay is None else ("overlay" if s.overlay else "no overlay"),
        "scanner": lambda s: s.scanner or None,
        "dataset": lambda s: s.dataset,
    }
    strata: dict[str, dict[str, Any]] = {}
    for kind, value_of in kinds.items():
        members: dict[str, list[Score]] = {}
        for score in scores:
            if (value := value_of(score)) is not None:
                members.setdefault(value, []).append(score)
        order = list(SIZES) if kind == "size" else sorted(members)
        if members:
            strata[kind] = {
                value: summarise(members[value], heads=heads, keys=_STRATUM)
                for value in order
                if value in members
            }
    return strata


class _Resampled:
    """Columns of one model or two on the same images, with the draws made for each subset once."""

    def __init__(self, models: Sequence[Columns]) -> None:
        self._models = models
        self._draws: dict[bytes, Counts] = {}

    def figure(self, measure: Measure) -> dict[str, Any] | None:
        """Value and interval of the first model."""
        which = measure.about(self._models[0])
        return self._describe(which, lambda counts: measure.value(self._models[0].select(which), counts))

    def difference(self, measure: Measure) -> dict[str, Any] | None:
        """Second model less the first, on the images that count for both."""
        one, other = self._models
        which = np.asarray(measure.about(one) & measure.about(other))
        found = self._describe(
            which,
            lambda counts: (
                measure.value(other.select(which), counts) - measure.value(one.select(which), counts)
            ),
        )
        return found and found | {"verdict": _verdict(found, measure.better)}

    def _describe(self, which: Bools, value_of: Callable[[Counts], Any]) -> dict[str, Any] | None:
        count = int(np.count_nonzero(which))
        if not count or not np.isfinite(value := float(value_of(np.ones((1, count)))[0])):
            return None
        groups = self._models[0].groups[which]
        interval = None
        if len(np.unique(groups)) > 1:
            key = which.tobytes()
            if key not in self._draws:
                self._draws[key] = draw_groups(groups)
            interval = percentile_interval(value_of(self._draws[key]))
        return {"value": round(value, 4), "ci95": interval, "n": count}


def _ece_if_perfect(columns: Columns) -> dict[str, Any] | None:
    if not len(columns):
        return None
    errors = simulate_perfect(columns.probabilities.max(1))
    return {"value": round(float(errors.mean()), 4), "ci95": percentile_interval(errors), "n": len(columns)}


def _verdict(found: dict[str, Any], better: int) -> str:
    if found["ci95"] is None or found["ci95"][0] <= 0 <= found["ci95"][1]:
        return SAME
    if not better:
        return "differs"
    return "better" if found["value"] * better > 0 else "worse"


def _size(score: Score) -> str | None:
    if not score.lesion:
        return None
    return next(name for name, (low, high) in SIZES.items() if low <= score.area < high)
