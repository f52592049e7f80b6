"""The gate's decision: two models on the same frames to a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sonoloop_training.gate.decision import Margins, Pairs, Side
from sonoloop_training.gate.interval import Estimate, groups_to_tell
from sonoloop_training.gate.outcomes import Outcome
from sonoloop_training.gate.words import explain

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

    Parameters
    ----------
    candidate, incumbent : sequence of Outcome
        Of the same frames, in the same order; may be empty.
    margins : Margins, optional
        The defaults unless given.

    Returns
    -------
    Verdict
        With its reason.

    Raises
    ------
    ValueError
        If the frames are not the same.
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
