"""An interval that keeps its word with few groups and with rare, large differences.

The bootstrap's percentile interval does not: where a group goes badly wrong now and then, many small samples
hold none of these and call a model better that is not. ``docs/decisions/0006-the-gates-interval.md`` has the
figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sonoloop_training.evaluation.columns import Counts, Floats

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

    Parameters
    ----------
    value_of : callable
        Counts (R, N), how often each image counts in each of R resamples, to values (R,).
    groups : numpy.ndarray
        The group of each image, (N,).
    case : float
        By how much a group changes that goes wrong altogether.
    effective : float, optional
        How many groups of equal size they are worth; from their sizes unless given.

    Returns
    -------
    Estimate or None
        None with fewer than two groups, or where the figure hangs on one of them alone.
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

    Returns
    -------
    int or None
        At least 1; None where the difference is zero.
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
