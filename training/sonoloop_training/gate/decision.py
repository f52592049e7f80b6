"""The figures that two models are compared by: Dice, and the three that must not get worse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sonoloop.jobs.events import Side, State
from sonoloop_training.evaluation.measures import auc
from sonoloop_training.evaluation.scores import Bools, Counts, Floats, Score

_TAIL = 0.975
# the chance to tell with as many groups as `groups_to_tell` asks for
_POWER = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A difference with its 95 % interval over groups.

    Parameters
    ----------
    value : float
        The difference.
    low, high : float
        Of the interval.
    groups : int
        How many there are.
    effective : float
        How many groups of equal size would say as much; at most `groups`.
    spread : float
        Standard deviation of one such group's contribution.
    case : float
        See `estimate`.
    """

    value: float
    low: float
    high: float
    groups: int
    effective: float
    spread: float
    case: float


def estimate(
    value_of: Callable[[Counts], Floats],
    groups: NDArray[np.str_],
    *,
    case: float,
    effective: float | None = None,
) -> Estimate | None:
    """Estimate a figure with its interval, by leaving out one group at a time.

    A t-interval of the jackknife's pseudo-values (Tukey 1958), which for a mean are the groups' own values.
    Its spread is at least what two imagined groups would give, in one of which a case goes wrong and in the
    other right: this is what Bonett & Price (2012) add to paired proportions, here as a floor. Where the
    groups are skewed, it is widened towards the long tail by the term of Johnson (1978) and Hall (1992).
    """
    names, index = np.unique(groups, return_inverse=True)
    count = len(names)
    if count < 2:
        return None
    whole = float(value_of(np.ones((1, len(groups))))[0])
    without = value_of((index[None] != np.arange(count)[:, None]).astype(np.float64))
    if not (math.isfinite(whole) and np.isfinite(without).all()):
        return None
    effective = effective_groups(groups) if effective is None else effective
    values = count * whole - (count - 1) * without
    deviations = values - values.mean()
    squared = float((deviations**2).sum() / (count - 1) / count)
    # of the estimate: one case each way among so many groups
    squared = max(squared, 2 * (case / effective) ** 2)
    if squared == 0:
        return Estimate(
            value=whole, low=whole, high=whole, groups=count, effective=effective, spread=0.0, case=case
        )
    t = float(stats.t.ppf(_TAIL, max(effective - 1, 1.0)))
    skew = float((deviations**3).mean()) / (squared * count) / (6 * count) * (1 + 2 * t**2)
    reach = t * math.sqrt(squared)
    return Estimate(
        value=whole,
        low=max(-1.0, whole - reach + min(0.0, skew)),
        high=min(1.0, whole + reach + max(0.0, skew)),
        groups=count,
        effective=effective,
        spread=math.sqrt(float((deviations**2).sum() / (count - 1)) * effective / count),
        case=case,
    )


def effective_groups(groups: NDArray[np.str_]) -> float:
    """Count groups as if they were of equal size (Kish 1965): a few large ones say less than many small."""
    _, sizes = np.unique(groups, return_counts=True)
    return float(sizes.sum() ** 2 / (sizes**2).sum()) if len(sizes) else 0.0


def groups_to_tell(found: Estimate) -> int | None:
    """Count the further groups with which the interval would leave out zero, four times in five.

    The difference and the spread are taken to stay as they are.
    """
    if not found.value:
        return None
    wanted = 2.0
    # the t quantile depends on the answer; it settles at once
    for _ in range(8):
        reach = float(stats.t.ppf(_TAIL, max(wanted - 1, 1.0)) + stats.norm.ppf(_POWER)) / abs(found.value)
        wanted = max((reach * found.spread) ** 2, reach * math.sqrt(2) * found.case, 2.0)
    more = (wanted - found.effective) * found.groups / found.effective
    return max(1, math.ceil(more))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a model did on one frame.

    Parameters
    ----------
    frame : str
        Which; unique within a test set.
    group : str
        Patient, or near-duplicates.
    label : str
        The class: the reference standard where one is recorded, else the reader's; "unsure" counts for no
        class.
    lesion : bool
        Whether there is one.
    dice : float
        Of the predicted mask, in [0, 1]; without a lesion 1 where none was predicted, else 0.
    claimed : bool
        Whether the predicted mask holds a pixel.
    malignant : float
        Probability of malignant against benign, in [0, 1].
    """

    frame: str
    group: str
    label: str
    lesion: bool
    dice: float
    claimed: bool
    malignant: float


def to_outcome(score: Score) -> Outcome:
    """Keep of a score what the gate asks."""
    return Outcome(
        frame=score.key,
        group=score.group,
        label=score.label,
        lesion=score.lesion,
        dice=score.dice,
        claimed=score.claimed,
        malignant=score.malignant,
    )


# rounding must not carry a figure over its margin
_HAIR = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """By how much a candidate may be worse in each and still take over, in [0, 1]."""

    missed_malignant: float = 0.05
    false_alarms: float = 0.05
    auc: float = 0.02


class Pairs:
    """What two models did on the same frames, as arrays (N,).

    Parameters
    ----------
    candidate, incumbent : sequence of Outcome
        Of the same frames, in the same order.
    """

    def __init__(self, candidate: Sequence[Outcome], incumbent: Sequence[Outcome]) -> None:
        if [_truth(one) for one in candidate] != [_truth(one) for one in incumbent]:
            raise ValueError("the outcomes are not of the same frames with the same truth, in the same order")
        self.groups: NDArray[np.str_] = np.array([one.group for one in candidate], np.str_)
        self.lesion: Bools = np.array([one.lesion for one in candidate], np.bool_)
        labels = np.array([one.label for one in candidate], np.str_)
        self.malignant: Bools = labels == "malignant"
        self.benign: Bools = labels == "benign"
        self.dice = _both(candidate, incumbent, lambda one: one.dice)
        self.claimed = _both(candidate, incumbent, lambda one: one.claimed)
        self.probability = _both(candidate, incumbent, lambda one: one.malignant)

    def compare_dice(self) -> Estimate | None:
        """Compare the mean Dice over frames with a lesion; None with fewer than two groups of them."""
        about = self.lesion
        if not about.any():
            return None
        candidate, incumbent = (values[about] for values in self.dice)
        return estimate(
            lambda counts: _mean(candidate - incumbent, counts),
            self.groups[about],
            case=cost_of_a_miss(incumbent),
        )

    def compare_missed(self, margin: float) -> Side:
        """Compare the share of malignant lesions that the mask does not touch."""
        missed = tuple(values == 0 for values in self.dice)
        return self._compare_shares(missed, self.lesion & self.malignant, margin)

    def compare_false_alarms(self, margin: float) -> Side:
        """Compare the share of frames without a lesion in which a pixel is predicted."""
        return self._compare_shares(self.claimed, ~self.lesion, margin)

    def compare_auc(self, margin: float) -> Side:
        """Compare the area under the ROC curve, malignant against benign."""
        about = self.malignant | self.benign
        positive, groups = self.malignant[about], self.groups[about]
        if not (self.malignant.any() and self.benign.any()):
            return _unknown(margin)
        candidate, incumbent = (values[about] for values in self.probability)
        found = estimate(
            lambda counts: auc(candidate, positive, counts) - auc(incumbent, positive, counts),
            groups,
            case=1.0,
            # it hangs on the class of which there is less
            effective=min(effective_groups(groups[positive]), effective_groups(groups[~positive])),
        )
        once = np.ones((1, len(groups)))
        values = [float(auc(scores, positive, once)[0]) for scores in (candidate, incumbent)]
        return _judge(values, found, groups, margin, worse=-1)

    def _compare_shares(self, values: tuple[Floats | Bools, ...], about: Bools, margin: float) -> Side:
        if not about.any():
            return _unknown(margin)
        candidate, incumbent = (np.asarray(own[about], np.float64) for own in values)
        found = estimate(lambda counts: _mean(candidate - incumbent, counts), self.groups[about], case=1.0)
        shares = [float(own.mean()) for own in (candidate, incumbent)]
        return _judge(shares, found, self.groups[about], margin, worse=1)


def cost_of_a_miss(incumbent: Sequence[float] | Floats) -> float:
    """Say what it costs to miss a lesion that the incumbent finds: its mean Dice where it finds one."""
    found = np.asarray(incumbent, np.float64)
    found = found[found > 0]
    return float(found.mean()) if len(found) else 0.0


def _judge(
    values: Sequence[float], found: Estimate | None, groups: NDArray[np.str_], margin: float, *, worse: int
) -> Side:
    candidate, incumbent = values
    difference = candidate - incumbent
    state: State = "held"
    if worse * difference > margin + _HAIR:
        sure = found is not None and (found.low > 0 if worse > 0 else found.high < 0)
        state = "worse" if sure else "open"
    return Side(
        candidate=candidate,
        incumbent=incumbent,
        difference=difference,
        interval=None if found is None else (found.low, found.high),
        frames=len(groups),
        groups=len(np.unique(groups)),
        margin=margin,
        state=state,
        needed=groups_to_tell(found) if state == "open" and found is not None else None,
    )


def _unknown(margin: float) -> Side:
    return Side(
        candidate=None,
        incumbent=None,
        difference=None,
        interval=None,
        frames=0,
        groups=0,
        margin=margin,
        state="unknown",
        needed=None,
    )


def _truth(one: Outcome) -> tuple[str, str, str, bool]:
    return one.frame, one.group, one.label, one.lesion


def _both(
    candidate: Sequence[Outcome], incumbent: Sequence[Outcome], value: Callable[[Outcome], float]
) -> tuple[Floats, Floats]:
    one, other = (np.array([value(o) for o in own], np.float64) for own in (candidate, incumbent))
    return one, other


def _mean(values: Floats, counts: Counts) -> Floats:
    total = counts.sum(1, dtype=np.float64)
    return np.asarray(np.divide(counts @ values, total, out=np.full(len(total), np.nan), where=total > 0))


# more test groups than anybody will collect
_MOST = 1000
_TITLES = {
    "missed_malignant": "missed malignant lesions",
    "false_alarms": "false alarms on normals",
    "auc": "AUC",
}
_ABOUT = {
    "missed_malignant": "a malignant lesion",
    "false_alarms": "a frame without a lesion",
    "auc": "a benign or malignant lesion",
}
_ABSENT = {
    "missed_malignant": "No malignant lesion judges, so missed ones were not compared.",
    "false_alarms": "No frame without a lesion judges, so false alarms were not compared.",
    "auc": "Not both benign and malignant lesions judge, so AUC was not compared.",
}


def explain(found: Verdict, *, fewest: int) -> str:
    """Say why a verdict was given, in a few sentences."""
    sides = {name: getattr(found, name) for name in _TITLES}
    if found.verdict == "promote":
        told = [f"Better: {_dice(found)}, and nothing else is worse by more than its margin."]
        told += [_ABSENT[name] for name, side in sides.items() if side.state == "unknown"]
    elif found.verdict == "refuse":
        told = [f"Worse: {text}." for text in _faults(found, sides)]
    else:
        told = _doubts(found, sides, fewest)
    return " ".join(told)


def _faults(found: Verdict, sides: dict[str, Side]) -> list[str]:
    faults = []
    if found.interval is not None and found.interval[1] < 0:
        faults.append(_dice(found))
    faults += [_side(name, side) for name, side in sides.items() if side.state == "worse"]
    return faults


def _doubts(found: Verdict, sides: dict[str, Side], fewest: int) -> list[str]:
    if found.difference is None:
        return ["Nothing to go by: no frame with a lesion judges."]
    told = [f"Not clear: {_dice(found)}."]
    if found.groups < fewest:
        told.append(f"At least {fewest} groups with a lesion have to judge before a model is promoted.")
    better = found.interval is not None and found.interval[0] > 0
    opened = {name: side for name, side in sides.items() if side.state == "open"}
    for name, side in opened.items():
        told.append(f"Worse by more than its margin, which may be chance: {_side(name, side)}.")
        if better and found.groups >= fewest and side.needed:
            told.append(f"{_more(side.needed, _ABOUT[name])} would tell.")
    if better and found.groups >= fewest:
        return told
    if found.groups_needed is None:
        told.append("The two do the same.")
    elif found.groups_needed > _MOST:
        told.append(f"No difference to be found: it would take {_thousands(found.groups_needed)}.")
    else:
        told.append(f"{_more(found.groups_needed, 'a lesion')} would tell, if the difference stays as it is.")
    return told


def _more(count: int, what: str) -> str:
    # two digits: the estimate has no more
    rounded = round(count, -1) if count >= 100 else count
    plural = "" if rounded == 1 else "s"
    return f"About {rounded} more test group{plural} with {what}"


def _thousands(count: int) -> str:
    thousands = round(count, -3)
    return "a thousand test groups more" if thousands <= _MOST else "thousands of test groups more"


def _dice(found: Verdict) -> str:
    text = f"mean Dice {found.difference:+.3f}"
    if found.interval is not None:
        text += f" [{found.interval[0]:+.3f}, {found.interval[1]:+.3f}]"
    return f"{text} on {_count(found.frames, 'frame')} with a lesion from {_count(found.groups, 'group')}"


def _side(name: str, side: Side) -> str:
    title = _TITLES[name]
    if side.candidate is None or side.incumbent is None or side.difference is None:
        return title
    if name == "auc":
        text = f"{title} {side.candidate:.3f}, before {side.incumbent:.3f}"
    else:
        after, before = (round(share * side.frames) for share in (side.candidate, side.incumbent))
        text = f"{title}, {after} of {side.frames}, before {before}"
    return f"{text} ({side.difference:+.3f}, margin {side.margin:g})"


def _count(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


VerdictName = Literal["promote", "refuse", "inconclusive"]
# groups with a lesion, below which nothing is promoted
FEWEST_GROUPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate says.

    Parameters
    ----------
    verdict : str
        "promote", "refuse" or "inconclusive".
    reason : str
        In words.
    difference : float, optional
        Of mean Dice over frames with a lesion, candidate - incumbent; None where no frame has one.
    interval : tuple of float, optional
        95 %, over groups; None with fewer than two groups.
    missed_malignant, false_alarms, auc : Side
        What must not get worse.
    groups, frames : int
        With a lesion: those that the difference is of.
    judged : int
        All frames that judged.
    groups_needed : int, optional
        Further groups with a lesion with which it would tell, if the difference stays as it is; where Dice is
        decided and another figure is not, groups of frames that this figure is about. None where it is
        decided, or where there is nothing to tell.
    """

    verdict: VerdictName
    reason: str
    difference: float | None
    interval: tuple[float, float] | None
    missed_malignant: Side
    false_alarms: Side
    auc: Side
    groups: int
    frames: int
    judged: int
    groups_needed: int | None


def decide(
    candidate: Sequence[Outcome], incumbent: Sequence[Outcome], margins: Margins | None = None
) -> Verdict:
    """Judge whether a candidate may take the incumbent's place.

    Promote: the interval of the difference of mean Dice lies above zero, at least `FEWEST_GROUPS` groups have
    a lesion, and no other figure is worse by more than its margin. Refuse: the interval lies below zero, or
    another figure is worse by more than its margin and its interval leaves out zero. Else inconclusive.
    """
    margins = margins or Margins()
    pairs = Pairs(candidate, incumbent)
    dice = pairs.compare_dice()
    sides = {
        "missed_malignant": pairs.compare_missed(margins.missed_malignant),
        "false_alarms": pairs.compare_false_alarms(margins.false_alarms),
        "auc": pairs.compare_auc(margins.auc),
    }
    groups = len(np.unique(pairs.groups[pairs.lesion]))
    verdict = _decide(dice, groups, list(sides.values()))
    needed = _count_needed(dice, groups, list(sides.values())) if verdict == "inconclusive" else None
    ours, theirs = (values[pairs.lesion] for values in pairs.dice)
    found = Verdict(
        verdict=verdict,
        reason="",
        difference=float((ours - theirs).mean()) if len(ours) else None,
        interval=None if dice is None else (dice.low, dice.high),
        **sides,
        groups=groups,
        frames=len(ours),
        judged=len(candidate),
        groups_needed=needed,
    )
    return replace(found, reason=explain(found, fewest=FEWEST_GROUPS))


def _decide(dice: Estimate | None, groups: int, sides: Sequence[Side]) -> VerdictName:
    states = {side.state for side in sides}
    if "worse" in states or (dice is not None and dice.high < 0):
        return "refuse"
    if _is_better(dice, groups) and "open" not in states:
        return "promote"
    return "inconclusive"


def _is_better(dice: Estimate | None, groups: int) -> bool:
    return dice is not None and groups >= FEWEST_GROUPS and dice.low > 0


def _count_needed(dice: Estimate | None, groups: int, sides: Sequence[Side]) -> int | None:
    if _is_better(dice, groups):
        return max((side.needed for side in sides if side.needed), default=None)
    missing = FEWEST_GROUPS - groups
    if dice is None:
        return missing
    more = 0 if dice.low > 0 else groups_to_tell(dice)
    if more is None:
        return missing if missing > 0 else None
    return max(missing, more)
