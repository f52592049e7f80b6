"""The bootstrap over groups, as counts: how often each image counts in each resample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
