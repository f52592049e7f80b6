"""Predictions against the truth, image by image: overlap, distances between outlines, lesions found."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from sonoloop.errors import ImageError, ModelError, TrainingError
from sonoloop.imaging.fingerprints import fingerprint
from sonoloop.imaging.grey import check_frame
from sonoloop.jobs.events import Event, Progress, Unreadable
from sonoloop.models.manifest import Member, is_other
from sonoloop.models.predictor import Predictor
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
    empty lies as far away as the image's diagonal, with NSD 0. Where the truth is empty, there is no outline
    to be near to. `spacing` is that of rows and columns; distances and tolerance have its unit.
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
    """A frame with its truth; what is not known, or not needed, is empty. See `Sample`."""

    frame: Frame
    # its lesions, (H, W)
    mask: NDArray[np.bool_]
    label: str
    dataset: str
    group: str
    name: str = ""
    patient: str = ""
    scanner: str = ""
    overlay: bool | None = None
    # of the image that the frame was made from, where that was another
    fingerprint: str = ""

    @property
    def key(self) -> str:
        """How splits name the image: "dataset/name"."""
        return f"{self.dataset}/{self.name}"

    def listed(self) -> Member:
        """Describe it as a split lists it."""
        return Member(
            name=self.key,
            group=self.group,
            id=self.frame.id,
            pixels_hash=self.frame.pixels_hash,
            fingerprint=self.fingerprint or fingerprint(self.frame.pixels),
        )


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
        fingerprint=sample.fingerprint,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How one prediction compares with the truth."""

    group: str
    dataset: str
    label: str
    # whether there is one
    lesion: bool
    dice: float
    iou: float
    # whether the predicted mask holds a pixel
    claimed: bool
    # the most probable class, and the probability of each of `CLASSES`
    predicted: str
    probabilities: tuple[float, float, float]
    expected_dice: float
    # shares of the image that are lesion, in [0, 1]
    area: float
    predicted_area: float
    # mean lesion probability inside the predicted mask; 0 where it is empty
    foreground: float
    counts: LesionCounts
    # between the outlines; None where there is no lesion, in mm also where the spacing is not known
    pixels: Distances | None
    millimetres: Distances | None
    name: str = ""
    patient: str = ""
    scanner: str = ""
    overlay: bool | None = None

    @property
    def malignant(self) -> float:
        """Probability of malignant against benign, in [0, 1]."""
        return malignant_share(self.probabilities)

    @property
    def key(self) -> str:
        """How splits name the image: "dataset/name"."""
        return f"{self.dataset}/{self.name}"


def malignant_share(probabilities: Sequence[float] | NDArray[np.float32]) -> float:
    """Weigh malignant against benign, in [0, 1], by the probabilities of `CLASSES`."""
    _, benign, malignant = (float(p) for p in probabilities)
    return malignant / max(malignant + benign, 1e-9)


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
        foreground=float(prediction.lesion[predicted].mean()) if predicted.any() else 0.0,
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


@dataclass(slots=True, kw_only=True)
class Assessment:
    """What came out, filled image by image."""

    # one list a model, over the same images in the same order
    scores: list[list[Score]]
    # those images as a split lists them; empty where nobody asked
    listed: list[Member] = field(default_factory=list)
    # name and reason of each image that could not be judged
    failures: list[tuple[str, str]] = field(default_factory=list)
    # images that were left out since a split lists another one by their name
    others: list[str] = field(default_factory=list)


def assess(
    samples: Sequence[Sample],
    predictors: Sequence[Predictor],
    *,
    identified: bool,
    stage: str,
    wanted: Mapping[str, Member] | None = None,
) -> Generator[Event, None, Assessment]:
    """Score every image by every model; one that cannot be read is told and the others go on."""
    found = Assessment(scores=[[] for _ in predictors])
    batch = max(predictor.batch for predictor in predictors)
    for first in range(0, len(samples), batch):
        cases: list[Case] = []
        for sample in samples[first : first + batch]:
            try:
                case = read_case(sample)
                if wanted is not None and is_other(case.frame, wanted.get(case.key)):
                    found.others.append(case.key)
                    continue
                check_frame(case.frame)
                cases.append(case)
            except (ImageError, TrainingError) as error:
                yield _refuse(found, sample.key, error)
        for case, predictions in _predict(cases, predictors):
            if isinstance(predictions, ModelError):
                yield _refuse(found, case.key, predictions)
                continue
            for scores, prediction in zip(found.scores, predictions, strict=True):
                scores.append(score_case(prediction, case))
            if identified:
                found.listed.append(case.listed())
        yield Progress(stage=stage, done=min(first + batch, len(samples)), total=len(samples))
    if len(found.others) == len(samples):
        raise TrainingError(
            f"all {len(samples)} images have the names of others that the split lists, as {found.others[0]}; "
            "give the data that the split was made of, or --part all"
        )
    if not found.scores[0]:
        raise TrainingError(
            f"none of the {len(samples)} images could be judged; the first, {found.failures[0][0]}: "
            f"{found.failures[0][1]}"
        )
    return found


def _predict(
    cases: Sequence[Case], predictors: Sequence[Predictor]
) -> Iterator[tuple[Case, tuple[Prediction, ...] | ModelError]]:
    try:
        frames = [case.frame for case in cases]
        # first, so that nothing is given before all models have answered
        answers = [predictor.predict_batch(frames) for predictor in predictors]
    except ModelError as error:  # too little memory, even for one image
        if len(cases) == 1:
            yield cases[0], error
            return
        for case in cases:
            yield from _predict([case], predictors)
        return
    yield from zip(cases, zip(*answers, strict=True), strict=True)


def _refuse(found: Assessment, name: str, error: Exception) -> Unreadable:
    found.failures.append((name, str(error)))
    return Unreadable(image=name, error=str(error))
