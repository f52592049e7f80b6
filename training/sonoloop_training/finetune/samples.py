"""Samples of a fine-tuning: which corrections train and validate, and how much each head learns from each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import MissingFilesError, TrainingError
from sonoloop.imaging.fingerprints import fingerprint
from sonoloop.imaging.orientation import onto_frame
from sonoloop.jobs.events import Notice, Progress
from sonoloop.models.card import Head
from sonoloop.models.manifest import Member
from sonoloop.store.file_index import Place, describe_missing, reread
from sonoloop.store.revisions import Revision
from sonoloop.store.snapshots import Entry
from sonoloop.values import CLASSES, ClassName, Correction, Frame
from sonoloop_training.evaluation.scores import Case
from sonoloop_training.fit.batches import Cache, CachedImage, letterbox_pair
from sonoloop_training.fit.recipe import FitConfig
from sonoloop_training.splits import SplitConfig
from sonoloop_training.splits.parts import draw_place

# tells where the file of a frame is
Find = Callable[[str], Place | None]
# the samples' dataset
CORRECTIONS = "corrections"
# below this there is nothing to learn that lasts
FEWEST = 5
# below this too few would be left to train
GROUPS_TO_VALIDATE = 20

_UNSURE = "unsure"
SPOILT = "near copies of it, or its patient, are among the images that judge"
NO_PART = "it takes no part, as the samples do"
_EVERY = 20
# of what is wrong, so many are named, by so many digits
_NAMED, _SHORT = 5, 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CorrectedSample:
    """What one correction teaches."""

    frame_id: str
    pixels_hash: str
    group_id: str
    # the lesions, (H, W)
    mask: NDArray[np.bool_]
    # the reference standard's where one is recorded, else the reader's; None where the reader was unsure
    label: ClassName | None
    # how much each head learns, in [0, 1]
    mask_weight: float
    class_weight: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """What of a snapshot is learned from, in order of the frames' ids."""

    train: tuple[CorrectedSample, ...]
    validation: tuple[CorrectedSample, ...]
    # frame id and reason of each that could teach and does not
    left_out: tuple[tuple[str, str], ...]
    # how many groups are tested on alone
    test_groups: int

    @property
    def by_class(self) -> dict[str, int]:
        """Count the samples by class, with "unsure" for those that teach none."""
        counted = Counter(sample.label or _UNSURE for sample in (*self.train, *self.validation))
        return {label: counted[label] for label in (*CLASSES, _UNSURE)}

    def without(self, missing: Iterable[tuple[str, str]]) -> Selection:
        """Return it without some frames, each given with its id and the reason."""
        gone = dict(missing)
        return replace(
            self,
            train=tuple(sample for sample in self.train if sample.frame_id not in gone),
            validation=tuple(sample for sample in self.validation if sample.frame_id not in gone),
            left_out=tuple(sorted((*self.left_out, *gone.items()))),
        )


def select(
    corrections: Iterable[tuple[Entry, Revision]],
    config: FitConfig,
    split: SplitConfig,
    *,
    seen: Collection[str] = (),
    test_frames: Collection[str] = (),
    outsiders: Collection[str] = (),
) -> Selection:
    """Choose what is learned from.

    Only frames of the train role teach. One whose mask and class contradict each other is left out, and so is
    one between a train and a test group, or of a person who was withdrawn since. From twenty groups on, the
    split's share of them validates: a group does, or does not, by a keyed hash of its id alone, for ever. One
    that trained the model started from does not, since that model knows it.
    """
    samples: list[CorrectedSample] = []
    left_out: list[tuple[str, str]] = []
    test_groups = set()
    for entry, revision in corrections:
        if entry.role == "test":
            test_groups.add(entry.group_id)
            continue
        sample = _teach(entry, revision.correction, config)
        if entry.frame_id in outsiders:
            why: str | None = NO_PART
        elif entry.frame_id in test_frames:
            why = SPOILT
        else:
            why = _reason_against(entry, revision, sample)
        if why is None:
            samples.append(sample)
        else:
            left_out.append((entry.frame_id, why))
    samples.sort(key=lambda sample: sample.frame_id)
    validates: set[str] = set()
    groups = {sample.group_id for sample in samples}
    if len(groups) >= GROUPS_TO_VALIDATE:
        known = {s.group_id for s in samples if s.frame_id in seen or s.pixels_hash in seen}
        validates = {group for group in groups - known if draw_place(split.key, group) < split.validation}
    return Selection(
        train=tuple(sample for sample in samples if sample.group_id not in validates),
        validation=tuple(sample for sample in samples if sample.group_id in validates),
        left_out=tuple(sorted(left_out)),
        test_groups=len(test_groups),
    )


def check_enough(selection: Selection) -> None:
    """Refuse too few corrections."""
    count = len(selection.train) + len(selection.validation)
    if count >= FEWEST:
        return
    others = [f"{count} of the corrections can teach, and at least {FEWEST} are needed"]
    if selection.left_out:
        frame, why = selection.left_out[0]
        others.append(f"{len(selection.left_out)} are left out, such as {frame[:8]} ({why})")
    if selection.test_groups:
        others.append(f"{selection.test_groups} groups of images only judge")
    raise TrainingError(f"{'; '.join(others)}: correct more images, then fine-tune")


def check_classes(
    samples: Sequence[CorrectedSample], replayed: Iterable[str], heads: Sequence[Head]
) -> tuple[bool, str | None]:
    """See whether the class head has something to tell apart.

    A head that is shown one class alone learns to say nothing else. Where the replayed images supply the
    other classes that is no danger; where they do not, the mask head learns alone, from all images.
    """
    taught = {sample.label for sample in samples if sample.label is not None and sample.class_weight}
    if len(taught) > 1:
        return True, None
    only = "none of the corrections has a class"
    if taught:
        only = f"all corrections are {next(iter(taught))}"
    if len(taught | set(replayed)) > 1:
        return True, f"{only}; the other classes come from the replayed images"
    if "lesion" not in heads:
        raise TrainingError(
            f"{only}, and this model only classifies: correct images of another class too, or give the data "
            "that it was trained on with --base-data"
        )
    return False, f"{only}: the mask alone is learned; correct images of another class too for the class"


def _teach(entry: Entry, correction: Correction, config: FitConfig) -> CorrectedSample:
    standing = config.accepted_weight if correction.prediction_seen else 1.0
    label = entry.reference
    class_weight = 1.0
    if label is None and correction.label != "unsure":
        label = correction.label
        class_weight = standing if correction.class_decision == "kept" else 1.0
    return CorrectedSample(
        frame_id=entry.frame_id,
        pixels_hash=correction.pixels_hash,
        group_id=entry.group_id,
        mask=correction.mask > 0,
        label=label,
        mask_weight=standing if _is_mask_kept(correction) else 1.0,
        class_weight=0.0 if label is None else class_weight,
    )


def _is_mask_kept(correction: Correction) -> bool:
    if correction.mask_decision == "none":
        # nothing was proposed, and nothing was drawn
        return correction.prediction is not None and not correction.prediction.mask.any()
    return correction.mask_decision == "kept"


def _reason_against(entry: Entry, revision: Revision, sample: CorrectedSample) -> str | None:
    if revision.withdrawn:
        return "it was withdrawn"
    if entry.role == "neither":
        return SPOILT
    source = "class" if entry.reference is None else "reference"
    if sample.mask.any() and sample.label == "normal":
        return f"a lesion is drawn, and its {source} is normal"
    if not sample.mask.any() and sample.label not in (None, "normal"):
        return f"no lesion is drawn, and its {source} is {sample.label}"
    if not (sample.mask_weight or sample.class_weight):
        return "it was accepted unchanged, and fit.accepted_weight is 0"
    return None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Read:
    """Samples with their pixels."""

    # None if none is left
    cache: Cache | None
    # each as ``split.json`` lists it
    members: tuple[Member, ...]
    # frame id and reason of each that was not read
    left_out: tuple[tuple[str, str], ...]


def find_missing(
    samples: Sequence[CorrectedSample], find: Find, *, skip_missing: bool
) -> Generator[Notice, None, list[tuple[str, str]]]:
    """Look for the files of all samples, before any is read; give the missing ones with the reason."""
    missing, names = [], []
    for sample in samples:
        place = find(sample.frame_id)
        if place is None or not place.path.is_file():
            names.append(f"{sample.frame_id[:_SHORT]} ({describe_missing(place)})")
            missing.append((sample.frame_id, "its file is not there"))
    if not missing:
        return []
    told = f"the files of {len(missing)} of {len(samples)} corrected images are not there: {_name(names)}"
    if not skip_missing:
        raise MissingFilesError(
            f"{told}; say where they lie now with: sonoloop store relink FOLDER, or go on without them with "
            "--skip-missing"
        )
    yield Notice(message=f"{told}; going on without them")
    return missing


def read_samples(
    samples: Sequence[CorrectedSample],
    find: Find,
    *,
    size: int,
    skip_changed: bool = False,
    unseen: Collection[str] = (),
    is_spoilt: Callable[[Frame], bool] = lambda _: False,
) -> Generator[Progress | Notice, None, Read]:
    """Read the frames of samples, and make sure that they are those that were corrected."""
    cached: list[CachedImage] = []
    members: list[Member] = []
    changed: list[str] = []
    left_out: list[tuple[str, str]] = []
    for done, sample in enumerate(samples):
        if done % _EVERY == 0:
            yield Progress(stage="Reading", done=done, total=len(samples))
        try:
            frame = reread(find(sample.frame_id), sample.frame_id, sample.pixels_hash)
        except TrainingError as error:
            # all of them are told, not the first alone
            changed.append(f"{sample.frame_id[:_SHORT]} ({error})")
            left_out.append((sample.frame_id, str(error)))
            continue
        if sample.frame_id in unseen and is_spoilt(frame):
            left_out.append((sample.frame_id, SPOILT))
            continue
        name = f"{CORRECTIONS}/{sample.frame_id[:16]}"
        # an unsure class teaches nothing, whatever stands for it here
        label, weights = sample.label or "normal", (sample.mask_weight, sample.class_weight)
        mask = onto_frame(sample.mask, frame, sample.pixels_hash)
        pair = letterbox_pair(frame.pixels, mask, size)
        cached.append(CachedImage(*pair, label, name, CORRECTIONS, weights))
        members.append(
            Member(
                name=name,
                group=sample.group_id,
                id=sample.frame_id,
                pixels_hash=sample.pixels_hash,
                fingerprint=fingerprint(frame.pixels),
            )
        )
    yield Progress(stage="Reading", done=len(samples), total=len(samples))
    if changed:
        told = f"{len(changed)} of the corrected images cannot be learned from: {_name(changed)}"
        if not skip_changed:
            raise MissingFilesError(
                f"{told}; put the original files back, or say where they lie with: sonoloop store relink "
                "FOLDER, or go on without them with --skip-missing"
            )
        yield Notice(message=f"{told}; going on without them")
    cache = Cache.of(cached) if cached else None
    return Read(cache=cache, members=tuple(members), left_out=tuple(left_out))


def read_cases(samples: Sequence[CorrectedSample], find: Find) -> Generator[Progress, None, list[Case]]:
    """Read the samples whose class is known as cases, to calibrate on."""
    cases = []
    for done, sample in enumerate(samples):
        if done % _EVERY == 0:
            yield Progress(stage="Calibrating", done=done, total=len(samples))
        if sample.label is not None:
            try:
                frame = reread(find(sample.frame_id), sample.frame_id, sample.pixels_hash)
            except TrainingError as error:
                raise TrainingError(
                    f"{sample.frame_id[:_SHORT]} cannot be calibrated on: {error}; put the original file back"
                ) from error
            cases.append(
                Case(
                    frame=frame,
                    mask=onto_frame(sample.mask, frame, sample.pixels_hash),
                    label=sample.label,
                    dataset=CORRECTIONS,
                    group=sample.group_id,
                )
            )
    return cases


def _name(what: Sequence[str]) -> str:
    more = f" and {len(what) - _NAMED} more" if len(what) > _NAMED else ""
    return f"{', '.join(what[:_NAMED])}{more}"
