"""One predicted mask against the truth: overlap, distances between outlines, lesions found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from sonoloop.values import CLASSES, Frame, Prediction
from sonoloop_training.datasets import Sample

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A frame with its truth.

    Parameters
    ----------
    frame : Frame
        What a model sees.
    mask : numpy.ndarray
        Its lesions, bool (H, W).
    label : str
        Its class.
    dataset, group : str
        See `sonoloop_training.datasets.Sample`.
    name : str
        Unique within its dataset; empty where nobody needs it.
    patient, scanner : str
        Empty where they are not known.
    overlay : bool, optional
        Whether callipers, text or marks are burned in; None where that is not known.
    """

    frame: Frame
    mask: NDArray[np.bool_]
    label: str
    dataset: str
    group: str
    name: str = ""
    patient: str = ""
    scanner: str = ""
    overlay: bool | None = None


def read_case(sample: Sample) -> Case:
    """Read a sample's frame and masks; raises what `Sample.read` does."""
    frame, mask = sample.read()
    return Case(
        frame=frame,
        mask=mask,
        label=sample.label,
        dataset=sample.dataset,
        group=sample.group,
        name=sample.name,
        patient=sample.patient,
        scanner=sample.scanner,
        overlay=sample.overlay,
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
        See `sonoloop_training.evaluation.scores.Case`.
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
