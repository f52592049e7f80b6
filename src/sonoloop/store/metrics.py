"""How a model did on frames: the value that says it, figures of it, and their intervals over groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
# how often each of N frames counts in each of R resamples, (R, N)
Counts = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameScore:
    """How a model did on one frame: what the store keeps, the models table sums up and the gate compares."""

    # its id; unique within a test set
    frame: str
    # patient, or near copies
    group: str
    # the class that counts as true: the reference standard, else the reader's; "unsure" counts for no class
    label: str
    # whether there is one
    lesion: bool
    # of the predicted mask, in [0, 1]; without a lesion 1 where none was predicted, else 0
    dice: float
    # whether the predicted mask holds a pixel
    claimed: bool
    # probability of malignant against benign, in [0, 1]
    malignant: float
    # the class that the model gives, and what it expected of its mask
    predicted: str | None = None
    expected_dice: float | None = None
    # the model trained on the frame, on a copy of it or on its patient: in no figure of the models table
    known: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure over so many frames, with its 95 % interval over groups; without one of a single group."""

    value: float
    low: float | None
    high: float | None
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the models table shows of one model; a figure is None where no frame is about it."""

    frames: int
    groups: int
    # mean over frames with a lesion
    dice: Figure | None
    # share of the frames without a lesion in which a pixel is predicted
    false_alarms: Figure | None
    # share of the malignant lesions that the mask does not touch (Dice 0)
    missed_malignant: Figure | None
    # of malignant against benign; None unless both are there
    auc: Figure | None


def summarise_scores(scores: Sequence[FrameScore]) -> Figures:
    """Compute the figures of one model; the order of the frames does not matter."""
    scores = sorted(scores, key=lambda score: score.frame)
    groups = np.array([score.group for score in scores], np.str_)
    labels = np.array([score.label for score in scores], np.str_)
    lesion = np.array([score.lesion for score in scores], np.bool_)
    dice = np.array([score.dice for score in scores], np.float64)
    claimed = np.array([score.claimed for score in scores], np.float64)
    probability = np.array([score.malignant for score in scores], np.float64)
    malignant, benign = labels == "malignant", labels == "benign"
    # the interval of every figure comes from the same draws
    counts = draw_groups(groups) if scores else np.zeros((0, 0), np.float32)

    def figure(about: Bools, value: Callable[[Counts], Floats]) -> Figure | None:
        frames = int(about.sum())
        if not frames:
            return None
        plain = float(value(np.ones((1, frames), np.float32))[0])
        bounds = percentile_interval(value(counts[:, about])) if len(set(groups[about])) > 1 else None
        low, high = bounds or (None, None)
        return Figure(value=plain, low=low, high=high, frames=frames)

    missed = lesion & malignant
    classed = (malignant | benign) & malignant.any() & benign.any()
    return Figures(
        frames=len(scores),
        groups=len(set(groups)),
        dice=figure(lesion, lambda drawn: resampled_mean(dice[lesion], drawn)),
        false_alarms=figure(~lesion, lambda drawn: resampled_mean(claimed[~lesion], drawn)),
        missed_malignant=figure(missed, lambda drawn: resampled_mean(dice[missed] == 0, drawn)),
        auc=figure(classed, lambda drawn: auc(probability[classed], malignant[classed], drawn)),
    )


def mean_figure(values: Sequence[float], groups: NDArray[np.str_], counts: Counts) -> Figure | None:
    """Average values, one an image, with the interval over groups from given draws; NaN counts for none."""
    numbers = np.asarray(values, np.float64)
    known = np.isfinite(numbers)
    if not known.any():
        return None
    bounds = None
    if len(set(groups[known])) > 1:
        bounds = percentile_interval(resampled_mean(numbers[known], counts[:, known]))
    low, high = bounds or (None, None)
    return Figure(value=float(numbers[known].mean()), low=low, high=high, frames=int(known.sum()))


def dice(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Dice of two masks of one shape, whatever their lesions' numbers; 1 where both are empty."""
    first, second = one > 0, other > 0
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def kappa(one: NDArray[np.str_], other: NDArray[np.str_], counts: Counts) -> Floats:
    """Agree on classes beyond chance (Cohen 1960) in each resample, (R,).

    What two readers said of N images (N,) with counts (R, N); NaN where both say one class of every image.
    """
    drawn = counts.astype(np.float64)
    total, same = drawn.sum(1), drawn @ (one == other)
    named = np.union1d(one, other)
    chance = sum(
        ((drawn @ (one == name)) * (drawn @ (other == name)) for name in named), np.zeros(len(drawn))
    )
    return resampled_ratio(total * same - chance, total**2 - chance)


def draw_groups(
    groups: NDArray[np.str_], resamples: int = RESAMPLES, *, seed: int = 0
) -> NDArray[np.float32]:
    """Draw as many groups as there are, with replacement, and count how often each image came along.

    Images of one patient, or copies of one another, are not independent: whole groups are drawn (the cluster
    bootstrap; Field & Welsh 2007). Groups of images (N,) give counts float32 (R, N), the same for one seed.
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


def resampled_mean(values: NDArray[Any], counts: Counts) -> Floats:
    """Average values (N,) in each resample, (R,); NaN where a resample drew none."""
    return resampled_ratio(counts @ values.astype(np.float64), counts.sum(1, dtype=np.float64))


def resampled_ratio(above: Counts, below: Counts) -> Floats:
    """Divide one sum of each resample by another, (R,); NaN where there is nothing to divide by."""
    return np.asarray(np.divide(above, below, out=np.full(len(below), np.nan), where=below > 0))


def auc(scores: Floats, positive: Bools, counts: Counts) -> Floats:
    """Probability that a positive scores above a negative, ties by half, in each resample.

    Scores and positive (N,) with counts (R, N) give (R,), NaN where no positive or no negative was drawn.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))
    drawn = counts[:, order]
    hits, others = (
        np.add.reduceat(drawn * own[order], starts, axis=1, dtype=np.float64) for own in (positive, ~positive)
    )
    below = others.cumsum(1) - others
    return resampled_ratio((hits * (below + others / 2)).sum(1), hits.sum(1) * others.sum(1))
