"""What is kept of one image: how its prediction compares with the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sonoloop.values import CLASSES, Prediction
from sonoloop_training.evaluation.cases_ import Case
from sonoloop_training.evaluation.scores import (
    NSD_TOLERANCE_MM,
    Distances,
    LesionCounts,
    dice,
    iou,
    match_lesions,
    surface_distances,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How one prediction compares with the truth.

    Parameters
    ----------
    group, dataset, label : str
        Of the frame.
    lesion : bool
        Whether there is one.
    dice, iou : float
        See `sonoloop_training.evaluation.scores`.
    claimed : bool
        Whether the predicted mask holds a pixel.
    predicted : str
        The most probable class.
    probabilities : tuple of float
        Of each of `CLASSES`.
    expected_dice : float
        What the model expected.
    area, predicted_area : float
        Share of the image that is lesion, in [0, 1].
    foreground : float
        Mean lesion probability inside the predicted mask; 0 where it is empty.
    counts : LesionCounts
        Lesions found and claimed.
    pixels, millimetres : Distances, optional
        Between the outlines; None where there is no lesion, in mm also where the spacing is not known.
    name, patient, scanner, overlay
        See `sonoloop_training.evaluation.cases_.Case`.
    """

    group: str
    dataset: str
    label: str
    lesion: bool
    dice: float
    iou: float
    claimed: bool
    predicted: str
    probabilities: tuple[float, float, float]
    expected_dice: float
    area: float
    predicted_area: float
    foreground: float
    counts: LesionCounts
    pixels: Distances | None
    millimetres: Distances | None
    name: str = ""
    patient: str = ""
    scanner: str = ""
    overlay: bool | None = None

    @property
    def malignant(self) -> float:
        """Probability of malignant against benign, in [0, 1]."""
        _, benign, malignant = self.probabilities
        return malignant / max(malignant + benign, 1e-9)

    @property
    def key(self) -> str:
        """How splits name the image: "dataset/name"."""
        return f"{self.dataset}/{self.name}"


def score_case(prediction: Prediction, case: Case) -> Score:
    """Compare a prediction with a case's truth, on the image's own grid."""
    mask, predicted = case.mask, prediction.mask > 0
    normal, benign, malignant = (float(p) for p in prediction.classes)
    spacing = case.frame.spacing
    return Score(
        group=case.group,
        dataset=case.dataset,
        label=case.label,
        lesion=bool(mask.any()),
        dice=dice(predicted, mask),
        iou=iou(predicted, mask),
        claimed=bool(predicted.any()),
        predicted=prediction.label,
        probabilities=(normal, benign, malignant),
        expected_dice=prediction.expected_dice,
        area=float(mask.mean()),
        predicted_area=float(predicted.mean()),
        foreground=_foreground(prediction.lesion, predicted),
        counts=match_lesions(predicted, mask),
        pixels=surface_distances(predicted, mask),
        millimetres=(
            surface_distances(predicted, mask, spacing=spacing, tolerance=NSD_TOLERANCE_MM)
            if spacing
            else None
        ),
        name=case.name,
        patient=case.patient,
        scanner=case.scanner,
        overlay=case.overlay,
    )


def confusion(scores: Sequence[Score]) -> dict[str, dict[str, int]]:
    """Count predicted classes by true class."""
    return {
        true: {got: sum(s.label == true and s.predicted == got for s in scores) for got in CLASSES}
        for true in CLASSES
    }


def _foreground(lesion: NDArray[np.float32], predicted: NDArray[np.bool_]) -> float:
    return float(lesion[predicted].mean()) if predicted.any() else 0.0
