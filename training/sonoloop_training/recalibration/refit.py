"""Which numbers of a model are fitted anew on a project's own frames, and what it changes, out of fold.

Numbers that are judged on the frames they were fitted on flatter themselves. Whole groups are dealt into
folds, and each frame is judged with the numbers that were fitted on the other folds; so it is settled which
numbers are fitted anew. What is kept are the numbers fitted on all frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Compared, Refitted
from sonoloop.store.metrics import Counts, auc, draw_groups, percentile_interval, resampled_mean
from sonoloop.values import CLASSES
from sonoloop_training.evaluation.measures import expected_calibration_error
from sonoloop_training.fit.calibration import (
    Answers,
    Bools,
    Floats,
    Numbers,
    fit_temperature,
    fit_threshold,
    lowest_gate,
    normal_of_found,
    unlikelihood,
)
from sonoloop_training.gate.decision import estimate

FOLDS = 5
# fewer groups say nothing: with a lesion, or with a class that is known; of each of two classes; without a
# lesion
FEWEST = 20
FEWEST_OF_A_CLASS = FEWEST_NORMALS = 5
_NORMAL, _BENIGN, _MALIGNANT = range(len(CLASSES))
_HAIR = 1e-9

# fitted one after the other; what is fitted together is kept or left together
TEMPERATURE, GATE, THRESHOLD, AREA = "temperature", "normal_gate", "threshold", "min_area"
_STEPS = ((TEMPERATURE, GATE), (TEMPERATURE,), (GATE,), (THRESHOLD, AREA))


@dataclass(frozen=True, slots=True, kw_only=True)
class Refit:
    """What came out: the numbers on all frames, why others were left, and the figures out of fold."""

    numbers: Numbers
    told: list[Refitted]
    figures: list[Compared]
    # of the new numbers, by name, as a card holds them
    metrics: Mapping[str, Mapping[str, object]]

    @property
    def changes(self) -> bool:
        """Whether any number is another one."""
        return any(one.before != one.after for one in self.told)


def refit(answers: Answers, before: Numbers) -> Refit:
    """Fit the numbers anew, as far as it helps out of fold and loses no lesion.

    A number is left as it was where too little is there to fit it, where its fit does no better out of fold,
    or where it would miss a lesion more, malignant or any.
    """
    left = _find_unfit(answers, before)
    if len(left) == len(_ALL):
        reasons = "; ".join(f"{_TITLES[name]}: {why}" for name, why in left.items())
        few = len(set(answers.groups[answers.lesion])) < FEWEST
        advice = ": correct more frames that judge, before their prediction is shown" if few else ""
        raise TrainingError(f"nothing can be fitted on these {len(answers)} frames ({reasons}){advice}")
    folds = deal(answers)
    fitted: set[str] = set()
    was = judge(answers, lambda _: before, folds)
    now = was
    for step in _STEPS:
        if any(name in left or name in fitted for name in step):
            continue
        wanted = fitted | set(step)
        tried = judge(answers, lambda some, wanted=wanted: fit(some, before, wanted), folds)  # type: ignore[misc]
        whole = judge(answers, lambda _, wanted=wanted: fit(answers, before, wanted), folds)  # type: ignore[misc]
        why = _object(step, tried, now, was) or _object_to_loss(whole, was)
        if why is None:
            fitted, now = wanted, tried
            for name in step:
                left.pop(name, None)
        elif len(step) == 1 or step == (THRESHOLD, AREA):
            left |= dict.fromkeys(step, why)
    numbers = fit(answers, before, fitted)
    told = [
        Refitted(
            name=name, before=getattr(before, name), after=getattr(numbers, name), left=left.get(name, "")
        )
        for name in _ALL
    ]
    return Refit(
        numbers=numbers, told=told, figures=compare(answers, was, now), metrics=describe(answers, now)
    )


_ALL = (TEMPERATURE, GATE, THRESHOLD, AREA)
_TITLES = {
    TEMPERATURE: "temperature",
    GATE: "gate for normals",
    THRESHOLD: "threshold",
    AREA: "smallest lesion",
}


def fit(some: Answers, before: Numbers, wanted: set[str]) -> Numbers:
    """Fit those numbers that are wanted."""
    numbers = before
    if TEMPERATURE in wanted:
        numbers = replace(numbers, temperature=fit_temperature([some]))
    if THRESHOLD in wanted:
        threshold, min_area = fit_threshold([some])
        numbers = replace(numbers, threshold=threshold, min_area=min_area)
    if GATE in wanted:
        numbers = replace(numbers, normal_gate=fit_gate(some, numbers))
    return numbers


def fit_gate(some: Answers, numbers: Numbers) -> float:
    """Give a gate that no lesion found reaches by far: halfway from the highest among them to certainty."""
    normal = normal_of_found(some, numbers)
    return round((lowest_gate(normal, 0.0) + 1) / 2, 3) if len(normal) else numbers.normal_gate


def _find_unfit(answers: Answers, before: Numbers) -> dict[str, str]:
    """Say of each number why it cannot be fitted on these frames, if it cannot."""
    left: dict[str, str] = {}
    known = answers.truth >= 0
    classes = {name: len(set(answers.groups[answers.truth == place])) for place, name in enumerate(CLASSES)}
    enough = [name for name, count in classes.items() if count >= FEWEST_OF_A_CLASS]
    lesions, normals = (len(set(answers.groups[which])) for which in (answers.lesion, ~answers.lesion))
    constant = len(answers) < 2 or not np.ptp(answers.logits, axis=1).max() > _HAIR
    if (count := len(set(answers.groups[known]))) < FEWEST:
        left[TEMPERATURE] = f"{count} groups whose class is known, it takes {FEWEST}"
    elif len(enough) < 2:
        left[TEMPERATURE] = f"no two classes with {FEWEST_OF_A_CLASS} groups each are there"
    elif constant:
        left[TEMPERATURE] = "the model says the same of all frames"
    few = f"{lesions} groups with a lesion, it takes {FEWEST}"
    if lesions < FEWEST:
        left[GATE] = few
    elif normals < FEWEST_NORMALS:
        left[GATE] = f"{normals} groups without a lesion, it takes {FEWEST_NORMALS}"
    elif constant:
        left[GATE] = "the model says the same of all frames"
    table = answers.dice[answers.lesion].mean(0) if lesions else np.zeros((1, 1))
    if lesions < FEWEST:
        left[THRESHOLD] = left[AREA] = few
    elif not np.ptp(table) > _HAIR:
        left[THRESHOLD] = left[AREA] = "every threshold gives the same masks"
    return left


def deal(answers: Answers) -> NDArray[np.intp]:
    """Deal whole groups into folds, (N,): malignant ones, others with a lesion and the rest each in turn."""
    worst: dict[str, int] = {}
    for group, lesion, truth in zip(answers.groups, answers.lesion, answers.truth, strict=True):
        kind = 2 if lesion and truth == _MALIGNANT else 1 if lesion else 0
        worst[str(group)] = max(worst.get(str(group), 0), kind)
    # by a hash: a group's name may tell of when it came
    ordered = sorted(worst, key=lambda group: (worst[group], sha256(group.encode()).hexdigest()))
    place = {group: number % FOLDS for number, group in enumerate(ordered)}
    return np.array([place[str(group)] for group in answers.groups], np.intp)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """What numbers make of N frames, each by those that were fitted without it."""

    dice: Floats
    claimed: Bools
    probabilities: Floats
    # of the frames whose class is known
    unlikelihood: Floats
    # how many lesions, and malignant ones, the masks do not touch, and in how many normals there is one
    missed: int
    missed_malignant: int
    alarms: int
    mean_dice: float


def judge(answers: Answers, numbers_of: Callable[[Answers], Numbers], folds: NDArray[np.intp]) -> Judged:
    """Judge every frame with the numbers that the frames of the other folds give."""
    count = len(answers)
    dice, claimed = np.zeros(count), np.zeros(count, np.bool_)
    probabilities, unlikely = np.zeros((count, len(CLASSES))), np.zeros(count)
    for fold in np.unique(folds):
        own = folds == fold
        numbers, mine = numbers_of(answers.select(~own)), answers.select(own)
        dice[own], claimed[own] = mine.masks(numbers)
        probabilities[own] = mine.probabilities(numbers.temperature)
        known = mine.truth >= 0
        unlikely[np.flatnonzero(own)[known]] = unlikelihood(mine.select(known), numbers.temperature)
    missed = answers.lesion & (dice == 0)
    return Judged(
        dice=dice,
        claimed=claimed,
        probabilities=probabilities,
        unlikelihood=unlikely[answers.truth >= 0],
        missed=int(missed.sum()),
        missed_malignant=int((missed & (answers.truth == _MALIGNANT)).sum()),
        alarms=int((claimed & ~answers.lesion).sum()),
        mean_dice=float(dice[answers.lesion].mean()) if answers.lesion.any() else 0.0,
    )


def _object(step: tuple[str, ...], tried: Judged, now: Judged, was: Judged) -> str | None:
    """Say what speaks against a fit out of fold, if something does."""
    if why := _object_to_loss(tried, was):
        return why
    if TEMPERATURE in step and not tried.unlikelihood.mean() < now.unlikelihood.mean() - _HAIR:
        return "no better out of fold"
    if step == (GATE,) and not (tried.missed, tried.alarms) < (now.missed, now.alarms):
        return "no better out of fold"
    if TEMPERATURE in step and tried.missed == now.missed and tried.alarms > now.alarms:
        return f"it would draw a mask in {tried.alarms - now.alarms} more normals"
    if THRESHOLD in step and not tried.mean_dice > now.mean_dice + _HAIR:
        return "no better out of fold"
    return None


def _object_to_loss(tried: Judged, was: Judged) -> str | None:
    for name, count in (
        ("malignant lesion", tried.missed_malignant - was.missed_malignant),
        ("lesion", tried.missed - was.missed),
    ):
        if count > 0:
            return f"it would miss {count} more {name}{'' if count == 1 else 's'}"
    return None


def compare(answers: Answers, was: Judged, now: Judged) -> list[Compared]:
    """Put both side by side, paired, with intervals over groups as the gate has them."""
    found = [
        _compare_means(answers, name, title, about, values)
        for name, title, about, values in (
            ("lesion_dice", "mean Dice, frames with a lesion", answers.lesion, (was.dice, now.dice)),
            ("missed", "lesions missed", answers.lesion, (was.dice == 0, now.dice == 0)),
            (
                "missed_malignant",
                "malignant lesions missed",
                answers.lesion & (answers.truth == _MALIGNANT),
                (was.dice == 0, now.dice == 0),
            ),
            ("false_alarms", "normals with a mask", ~answers.lesion, (was.claimed, now.claimed)),
        )
    ]
    malignant = answers.truth == _MALIGNANT
    classed, known = malignant | (answers.truth == _BENIGN), answers.truth >= 0
    found += [
        _compare_resampled(
            answers, "auc", "AUC, malignant against benign", classed, sides=(was, now), value=_auc
        )
        if malignant.any() and (classed & ~malignant).any()
        else None,
        _compare_resampled(answers, "ece", "expected calibration error", known, sides=(was, now), value=_ece),
    ]
    return [one for one in found if one is not None]


def _compare_means(
    answers: Answers,
    name: str,
    title: str,
    about: Bools,
    values: tuple[NDArray[np.generic], NDArray[np.generic]],
) -> Compared | None:
    if not about.any():
        return None
    before, after = (np.asarray(own[about], np.float64) for own in values)
    found = estimate(lambda counts: resampled_mean(after - before, counts), answers.groups[about], case=1.0)
    return Compared(
        name=name,
        title=title,
        before=float(before.mean()),
        after=float(after.mean()),
        difference=float((after - before).mean()),
        interval=None if found is None else (found.low, found.high),
        frames=int(about.sum()),
    )


def _compare_resampled(
    answers: Answers,
    name: str,
    title: str,
    about: Bools,
    *,
    sides: tuple[Judged, Judged],
    value: Callable[[Floats, NDArray[np.intp], Counts], Floats],
) -> Compared | None:
    if not about.any():
        return None
    truth, groups = answers.truth[about], answers.groups[about]
    once, drawn = np.ones((1, len(truth)), np.float64), draw_groups(groups)
    before, after = (float(value(side.probabilities[about], truth, once)[0]) for side in sides)
    ends = [value(side.probabilities[about], truth, drawn) for side in sides]
    interval = percentile_interval(ends[1] - ends[0]) if len(set(groups)) > 1 else None
    return Compared(
        name=name,
        title=title,
        before=before,
        after=after,
        difference=after - before,
        interval=None if interval is None else (interval[0], interval[1]),
        frames=len(truth),
    )


def _auc(probabilities: Floats, truth: NDArray[np.intp], counts: Counts) -> Floats:
    share = probabilities[:, _MALIGNANT] / probabilities[:, (_BENIGN, _MALIGNANT)].sum(1).clip(1e-9)
    return auc(share, truth == _MALIGNANT, counts)


def _ece(probabilities: Floats, truth: NDArray[np.intp], counts: Counts) -> Floats:
    return expected_calibration_error(probabilities.max(1), probabilities.argmax(1) == truth, counts)


def describe(answers: Answers, now: Judged) -> dict[str, dict[str, object]]:
    """Give the figures of the new numbers, out of fold, as a card holds them."""
    same = compare(answers, now, now)
    return {
        **{one.name: {"value": round(one.after, 4), "ci95": None, "n": one.frames} for one in same},
        "frames": {"value": len(answers)},
        "groups": {"value": len(set(answers.groups))},
    }
