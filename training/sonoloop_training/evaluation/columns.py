"""Scores as arrays, an entry an image: what the figures are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sonoloop.values import CLASSES
from sonoloop_training.evaluation.scores import Distances
from sonoloop_training.evaluation.scores_ import Score

Floats = NDArray[np.floating[Any]]
# how often each image counts in each resample, (R, N)
Counts = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """The values of N scores; see `Score`.

    Parameters
    ----------
    groups : numpy.ndarray
        Names, (N,).
    truth, predicted : numpy.ndarray
        Index into `CLASSES`, (N,).
    probabilities : numpy.ndarray
        (N, 3).
    lesion, claimed : numpy.ndarray
        bool (N,).
    hd95_px, assd_px, nsd, hd95_mm, assd_mm, nsd_mm : numpy.ndarray
        (N,); NaN where there is none.
    dice, iou, expected_dice, malignant, area, predicted_area, foreground : numpy.ndarray
        (N,).
    lesions, found, false_positives : numpy.ndarray
        Counts, (N,).
    """

    groups: NDArray[np.str_]
    truth: NDArray[np.intp]
    predicted: NDArray[np.intp]
    probabilities: Floats
    lesion: Bools
    claimed: Bools
    dice: Floats
    iou: Floats
    expected_dice: Floats
    malignant: Floats
    area: Floats
    predicted_area: Floats
    foreground: Floats
    lesions: Floats
    found: Floats
    false_positives: Floats
    hd95_px: Floats
    assd_px: Floats
    nsd: Floats
    hd95_mm: Floats
    assd_mm: Floats
    nsd_mm: Floats

    def __len__(self) -> int:
        return len(self.groups)

    def select(self, which: Bools) -> Columns:
        """Keep the images for which `which` (N,) is true."""
        return Columns(**{field.name: getattr(self, field.name)[which] for field in fields(self)})


def to_columns(scores: Sequence[Score]) -> Columns:
    """Lay scores out as arrays, in their order."""

    def floats(*names: str) -> dict[str, Floats]:
        return {name: np.array([getattr(s, name) for s in scores], np.float64) for name in names}

    return Columns(
        groups=np.array([s.group for s in scores], np.str_),
        truth=np.array([CLASSES.index(s.label) for s in scores], np.intp),
        predicted=np.array([CLASSES.index(s.predicted) for s in scores], np.intp),
        probabilities=np.array([s.probabilities for s in scores], np.float64).reshape(-1, len(CLASSES)),
        lesion=np.array([s.lesion for s in scores], np.bool_),
        claimed=np.array([s.claimed for s in scores], np.bool_),
        lesions=np.array([s.counts.lesions for s in scores], np.float64),
        found=np.array([s.counts.found for s in scores], np.float64),
        false_positives=np.array([s.counts.false_positives for s in scores], np.float64),
        **floats("dice", "iou", "expected_dice", "malignant", "area", "predicted_area", "foreground"),
        **_distances([s.pixels for s in scores], ("hd95_px", "assd_px", "nsd")),
        **_distances([s.millimetres for s in scores], ("hd95_mm", "assd_mm", "nsd_mm")),
    )


def _distances(found: Sequence[Distances | None], names: tuple[str, str, str]) -> dict[str, Floats]:
    rows = [(d.hd95, d.assd, d.nsd) if d else (np.nan, np.nan, np.nan) for d in found]
    table = np.array(rows, np.float64).reshape(-1, len(names))
    return {name: table[:, place] for place, name in enumerate(names)}
