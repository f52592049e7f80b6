"""One predicted mask against the truth: overlap, distances between outlines, lesions found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

# how far apart outlines may lie and still count as the same (Nikolov et al. 2021 take readers' own spread,
# which nobody has measured on these images)
NSD_TOLERANCE_PX = 5.0
NSD_TOLERANCE_MM = 0.5
# from this IoU on a predicted lesion is that lesion: PI-CAI's rule (Saha et al. 2024, `picai_eval`)
MIN_LESION_IOU = 0.1
# regions below this share of the image are stray pixels of a drawing, unless there is nothing else
_SPECK = 0.0005
_EIGHT = np.ones((3, 3), np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """How far two outlines lie apart; see `surface_distances`."""

    hd95: float
    assd: float
    nsd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionCounts:
    """Lesions in the truth, those of them that were found, and predicted ones that are none."""

    lesions: int
    found: int
    false_positives: int


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Dice of two masks (H, W); 1 where both are empty, 0 where one is."""
    total = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return 1.0 if total == 0 else 2 * int(np.count_nonzero(one & other)) / total


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks (H, W); 1 where both are empty, 0 where one is."""
    union = int(np.count_nonzero(one | other))
    return 1.0 if union == 0 else int(np.count_nonzero(one & other)) / union


def surface_distances(
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    tolerance: float = NSD_TOLERANCE_PX,
) -> Distances | None:
    """Compare outlines by MONAI's surface distances, empty masks by a rule of our own.

    HD95 is the larger of the two directed 95th percentiles, ASSD the mean over both outlines' points, NSD the
    share of those points within `tolerance` (Nikolov et al. 2021). MONAI gives infinity or NaN for an empty
    mask and leaves them out of its means, which makes a missed lesion look perfect; here a prediction that is
    empty lies as far away as the image's diagonal, with NSD 0.

    Parameters
    ----------
    predicted, truth : numpy.ndarray
        bool (H, W).
    spacing : tuple of float
        Of rows and columns; the distances and the tolerance have its unit. Pixels unless given.
    tolerance : float
        Of NSD.

    Returns
    -------
    Distances or None
        None where the truth is empty: there is no outline to be near to.
    """
    if not truth.any():
        return None
    if not predicted.any():
        diagonal = float(np.hypot(truth.shape[0] * spacing[0], truth.shape[1] * spacing[1]))
        return Distances(hd95=diagonal, assd=diagonal, nsd=0.0)
    from monai.metrics.utils import get_mask_edges, get_surface_distance  # noqa: PLC0415 - seconds to import

    ours, theirs = get_mask_edges(predicted, truth)
    there = get_surface_distance(ours, theirs, spacing=spacing)
    back = get_surface_distance(theirs, ours, spacing=spacing)
    apart = np.concatenate([there, back])
    return Distances(
        hd95=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        assd=float(apart.mean()),
        nsd=float((apart <= tolerance).mean()),
    )


def match_lesions(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> LesionCounts:
    """Match lesions one to one.

    Lesions are 8-connected regions; pairs are assigned so that their IoU is largest in sum, and a pair counts
    from an IoU of 0.1 on, as in the PI-CAI challenge (Saha et al., Lancet Oncology 2024).

    Parameters
    ----------
    predicted, truth : numpy.ndarray
        bool (H, W).
    """
    ours, our_areas = _regions(predicted)
    theirs, their_areas = _regions(truth)
    lesions, claimed = len(their_areas), len(our_areas)
    if not lesions or not claimed:
        return LesionCounts(lesions=lesions, found=0, false_positives=claimed)
    shared = np.bincount(
        (theirs * (claimed + 1) + ours).ravel(), minlength=(lesions + 1) * (claimed + 1)
    ).reshape(lesions + 1, claimed + 1)[1:, 1:]
    overlap = shared / (their_areas[:, None] + our_areas[None] - shared)
    overlap[overlap < MIN_LESION_IOU] = 0
    found = int(np.count_nonzero(overlap[linear_sum_assignment(overlap, maximize=True)]))
    return LesionCounts(lesions=lesions, found=found, false_positives=claimed - found)


def _regions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give each region but the specks a number from 1, and its area in that order."""
    regions, count = ndimage.label(mask, structure=_EIGHT)
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    kept = np.flatnonzero(areas >= min(_SPECK * mask.size, areas.max(initial=0)))
    numbers = np.zeros(count + 1, np.int64)
    numbers[kept + 1] = np.arange(1, len(kept) + 1)
    return numbers[regions], areas[kept]
