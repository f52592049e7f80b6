"""The figures that two models are compared by: Dice, and the three that must not get worse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sonoloop_training.evaluation.columns import Bools, Counts, Floats
from sonoloop_training.evaluation.ranking import auc
from sonoloop_training.gate.interval import Estimate, effective_groups, estimate, groups_to_tell
from sonoloop_training.gate.outcomes import Outcome

State = Literal["held", "open", "worse", "unknown"]
# rounding must not carry a figure over its margin
_HAIR = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """By how much a candidate may be worse in each and still take over, in [0, 1]."""

    missed_malignant: float = 0.05
    false_alarms: float = 0.05
    auc: float = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A figure that must not get worse.

    Parameters
    ----------
    candidate, incumbent, difference : float, optional
        The figure of both models, and candidate - incumbent; None where no frame is about it.
    interval : tuple of float, optional
        95 %, of the difference.
    frames, groups : int
        That it is about.
    margin : float
        By how much it may be worse.
    state : str
        "held": not worse by more than the margin. "worse": it is, and not by chance, for the interval leaves
        out zero. "open": it is, and that may be chance. "unknown": no frame is about it.
    needed : int, optional
        Further groups with which an open one would tell.
    """

    candidate: float | None
    incumbent: float | None
    difference: float | None
    interval: tuple[float, float] | None
    frames: int
    groups: int
    margin: float
    state: State
    needed: int | None


class Pairs:
    """What two models did on the same frames, as arrays (N,).

    Parameters
    ----------
    candidate, incumbent : sequence of Outcome
        Of the same frames, in the same order.

    Raises
    ------
    ValueError
        If they are not.
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
