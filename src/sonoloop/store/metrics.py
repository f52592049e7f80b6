"""How a model did on a test set: the figures of the models table, with their intervals.

A score is a mapping with at least these keys, as `sonoloop.store.test_sets.read_scores` gives it: ``frame``
and ``group`` (ids), ``label`` (the class that counts as true), ``lesion`` (whether there is one), ``dice``,
``claimed`` (whether the model's mask holds a pixel) and ``malignant`` (its probability of malignant against
benign, in [0, 1]). ``known``, which older scores have not, says that the model trained on the frame, on a
copy of it or on its patient: such a score is in no figure of the models table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sonoloop.store.model_registry import ModelRow, list_models
from sonoloop.store.promotions import incumbent, locked_version
from sonoloop.store.test_sets import TestSet, looks, newest_test_set, read_scores, true_labels

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore


RESAMPLES = 2000


def draw_groups(
    groups: NDArray[np.str_], resamples: int = RESAMPLES, *, seed: int = 0
) -> NDArray[np.float32]:
    """Draw as many groups as there are, with replacement, and count how often each image came along.

    Images of one patient, or copies of one another, are not independent: whole groups are drawn (the cluster
    bootstrap; Field & Welsh 2007).

    Parameters
    ----------
    groups : numpy.ndarray
        The group of each image, (N,).
    resamples : int
        How many times, R.
    seed : int
        The same groups and seed give the same draws.

    Returns
    -------
    numpy.ndarray
        Counts, float32 (R, N).
    """
    _, first, index = np.unique(groups, return_index=True, return_inverse=True)
    count = len(first)
    # numbered as they first appear, so that an image more at the end leaves the others' draws alone
    order = np.empty(count, np.intp)
    order[np.argsort(first)] = np.arange(count)
    drawn = np.random.default_rng(seed).integers(0, count, (resamples, count))
    drawn += np.arange(resamples)[:, None] * count
    counts = np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count)
    return counts.astype(np.float32)[:, order[index]]


def percentile_interval(values: NDArray[np.floating]) -> list[float] | None:
    """Take the middle 95 % of resampled values (R,).

    Resamples in which a figure does not exist (NaN: no malignant image was drawn) are left out; None where
    that is more than half of them.
    """
    finite = values[np.isfinite(values)]
    if len(finite) < max(2, len(values) / 2):
        return None
    return [round(float(bound), 4) for bound in np.percentile(finite, [2.5, 97.5])]


Score = Mapping[str, Any]
Floats = NDArray[np.float64]
# how often each of N frames counts in each of R resamples, (R, N)
Counts = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure with its interval.

    Parameters
    ----------
    value : float
        Over the frames that it is about.
    low, high : float, optional
        95 % percentile interval of the bootstrap over groups; None where there is a single group.
    frames : int
        How many frames it is about.
    """

    value: float
    low: float | None
    high: float | None
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the models table shows of one model; a figure is None where no frame is about it.

    Parameters
    ----------
    frames, groups : int
        Scored.
    dice : Figure, optional
        Mean Dice over frames with a lesion.
    false_alarms : Figure, optional
        Share of the frames without a lesion in which a pixel is predicted.
    missed_malignant : Figure, optional
        Share of the malignant lesions that the mask does not touch (Dice 0).
    auc : Figure, optional
        Area under the ROC curve, malignant against benign; None unless both are there.
    """

    frames: int
    groups: int
    dice: Figure | None
    false_alarms: Figure | None
    missed_malignant: Figure | None
    auc: Figure | None


def summarise_scores(scores: Sequence[Score]) -> Figures:
    """Compute the figures of one model.

    Parameters
    ----------
    scores : sequence of mapping
        One a frame; see this module. The same frames in another order give the same figures.

    Returns
    -------
    Figures
        All None without scores.
    """
    scores = sorted(scores, key=lambda score: str(score["frame"]))
    lesion = np.array([bool(score["lesion"]) for score in scores], np.bool_)
    malignant = np.array([score["label"] == "malignant" for score in scores], np.bool_)
    benign = np.array([score["label"] == "benign" for score in scores], np.bool_)
    dice = np.array([score["dice"] for score in scores], np.float64)
    claimed = np.array([bool(score["claimed"]) for score in scores], np.float64)
    probability = np.array([score["malignant"] for score in scores], np.float64)
    both = malignant.any() and benign.any()
    groups = np.array([str(score["group"]) for score in scores], np.str_)
    # the interval of every figure comes from the same draws
    counts = draw_groups(groups) if scores else np.zeros((0, 0), np.float32)

    def figure(about: NDArray[np.bool_], value: Callable[[Counts], Floats]) -> Figure | None:
        if not about.any():
            return None
        plain = float(value(np.ones((1, int(about.sum())), np.float32))[0])
        bounds = percentile_interval(value(counts[:, about])) if len(set(groups[about])) > 1 else None
        low, high = bounds or (None, None)
        return Figure(value=plain, low=low, high=high, frames=int(about.sum()))

    missed = lesion & malignant
    classed = malignant | benign
    return Figures(
        frames=len(scores),
        groups=len(set(groups)),
        dice=figure(lesion, lambda drawn: mean(dice[lesion], drawn)),
        false_alarms=figure(~lesion, lambda drawn: mean(claimed[~lesion], drawn)),
        missed_malignant=figure(missed, lambda drawn: mean(dice[missed] == 0, drawn)),
        auc=figure(classed, lambda drawn: auc(probability[classed], malignant[classed], drawn))
        if both
        else None,
    )


def mean(values: NDArray[Any], counts: Counts) -> Floats:
    """Average values (N,) for each resample, counts (R, N); NaN where a resample drew none."""
    total = counts.sum(1, dtype=np.float64)
    above = counts @ values.astype(np.float64)
    return np.asarray(np.divide(above, total, out=np.full(len(total), np.nan), where=total > 0))


def auc(scores: Floats, positive: NDArray[np.bool_], counts: Counts) -> Floats:
    """Probability that a positive scores above a negative, ties by half, for each resample.

    Parameters
    ----------
    scores : numpy.ndarray
        (N,).
    positive : numpy.ndarray
        bool (N,).
    counts : numpy.ndarray
        (R, N).

    Returns
    -------
    numpy.ndarray
        (R,), NaN where a resample drew no positive or no negative.
    """
    hits, others = counts[:, positive].astype(np.float64), counts[:, ~positive].astype(np.float64)
    gap = scores[positive][:, None] - scores[~positive][None, :]
    wins = ((hits @ ((gap > 0) + (gap == 0) / 2)) * others).sum(1)
    pairs = hits.sum(1) * others.sum(1)
    return np.asarray(np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A model and how it does.

    Parameters
    ----------
    row : ModelRow
        The model.
    parent : str, optional
        What it was tuned from, as users call it; the version's first digits where the project does not know
        it.
    figures : Figures, optional
        On the frames of the newest test set that were scored and that the model does not know; None where
        there is none. They are fewer than the set has where others trained the model, or where nobody judged
        it since the set grew.
    in_use : bool
        Whether it is the model in use.
    """

    row: ModelRow
    parent: str | None
    figures: Figures | None
    in_use: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The models table.

    Parameters
    ----------
    lines : tuple of Line
        The newest model first.
    test_set : TestSet, optional
        That they are judged on; None before the first was frozen.
    looks : int
        How often that set was looked at.
    locked : str, optional
        The version that the project is locked to.
    """

    lines: tuple[Line, ...]
    test_set: TestSet | None
    looks: int
    locked: str | None


def compare_models(store: CorrectionStore) -> Overview:
    """Put all models of a project side by side.

    Parameters
    ----------
    store : CorrectionStore
        Where.

    Returns
    -------
    Overview
        With the scores that are stored; nothing is predicted.
    """
    rows, used, test_set = list_models(store), incumbent(store), newest_test_set(store)
    labels = {} if test_set is None else true_labels(store, test_set)
    names = {row.version: row.model for row in rows}
    lines = [
        Line(
            row=row,
            parent=None if row.parent is None else names.get(row.parent, row.parent[:8]),
            figures=_judge(store, row.version, test_set, labels),
            in_use=used is not None and used.version == row.version,
        )
        for row in reversed(rows)
    ]
    return Overview(
        lines=tuple(lines),
        test_set=test_set,
        looks=0 if test_set is None else len(looks(store, test_set.number)),
        locked=locked_version(store),
    )


def _judge(
    store: CorrectionStore, version: str, test_set: TestSet | None, labels: Mapping[str, str]
) -> Figures | None:
    if test_set is None:
        return None
    scores = read_scores(store, version)
    judged = [
        # what is true is asked of the set: a score may be older than a histology or a patient's number
        {**score, "frame": judge.frame_id, "group": judge.group_id, "label": labels[judge.frame_id]}
        for judge in test_set.members
        if (score := scores.get(judge.revision_id)) is not None and not score.get("known")
    ]
    return summarise_scores(judged) if judged else None
