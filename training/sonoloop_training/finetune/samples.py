"""What a snapshot teaches: which corrections train, and how much each head learns from each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from sonoloop.errors import MissingFilesError, TrainingError
from sonoloop.imaging.fingerprints import fingerprint
from sonoloop.jobs.events import Notice, Progress
from sonoloop.models.card import Head
from sonoloop.store.file_index import Place, describe_missing, reread
from sonoloop.store.revisions import Revision
from sonoloop.store.snapshots import Entry
from sonoloop.values import CLASSES, ClassName, Correction, Frame
from sonoloop_training.evaluation.scores import Case
from sonoloop_training.fit.batches import Cache, letterbox_pair
from sonoloop_training.fit.recipe import FitConfig
from sonoloop_training.splits import SplitConfig
from sonoloop_training.splits.parts import digest

# below this there is nothing to learn that lasts
FEWEST = 5
# below this too few would be left to train
GROUPS_TO_WATCH = 20

_UNSURE = "unsure"
SPOILT = "near copies of it, or its patient, are among the images that judge"
NO_PART = "it takes no part, as the samples do"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """What one correction teaches.

    Parameters
    ----------
    frame_id, pixels_hash : str
        See `sonoloop.values.Frame`.
    group_id : str
        See `sonoloop.store.groups.Placement`.
    mask : numpy.ndarray
        The lesions, bool (H, W).
    label : str, optional
        The class: the reference standard's where one is recorded, else the reader's; None where the reader
        was unsure.
    mask_weight, class_weight : float
        How much each head learns, in [0, 1].
    """

    frame_id: str
    pixels_hash: str
    group_id: str
    mask: NDArray[np.bool_]
    label: ClassName | None
    mask_weight: float
    class_weight: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """What of a snapshot is learned from.

    Parameters
    ----------
    train, validation : tuple of Lesson
        Those that teach, and those that are watched; in order of their frames' ids.
    left_out : tuple of tuple
        Frame id and reason of each that could teach and does not.
    test_groups : int
        Groups that only judge.
    """

    train: tuple[Lesson, ...]
    validation: tuple[Lesson, ...]
    left_out: tuple[tuple[str, str], ...]
    test_groups: int

    @property
    def by_class(self) -> dict[str, int]:
        """Count the lessons by class, with "unsure" for those that teach none."""
        counted = Counter(lesson.label or _UNSURE for lesson in (*self.train, *self.validation))
        return {label: counted[label] for label in (*CLASSES, _UNSURE)}

    def without(self, missing: Iterable[tuple[str, str]]) -> Selection:
        """Return it without some frames, each given with its id and the reason."""
        gone = dict(missing)
        return replace(
            self,
            train=tuple(lesson for lesson in self.train if lesson.frame_id not in gone),
            validation=tuple(lesson for lesson in self.validation if lesson.frame_id not in gone),
            left_out=tuple(sorted((*self.left_out, *gone.items()))),
        )


def select(
    corrections: Iterable[tuple[Entry, Revision]],
    config: FitConfig,
    split: SplitConfig,
    *,
    seen: Collection[str] = (),
    judging: Collection[str] = (),
    outsiders: Collection[str] = (),
) -> Selection:
    """Choose what is learned from.

    Only frames of the train role teach. One whose mask and class contradict each other is left out, and so is
    one between a train and a test group, or of a person who was withdrawn since. From twenty groups on, the
    split's share of them is watched: a group is, or is not, by a keyed hash of its id alone, for ever. One
    that trained the model started from is not, since that model knows it.
    """
    lessons: list[Lesson] = []
    left_out: list[tuple[str, str]] = []
    test_groups = set()
    for entry, revision in corrections:
        if entry.role == "test":
            test_groups.add(entry.group_id)
            continue
        lesson = _teach(entry, revision.correction, config)
        if entry.frame_id in outsiders:
            why: str | None = NO_PART
        elif entry.frame_id in judging:
            why = SPOILT
        else:
            why = _reason_against(entry, revision, lesson)
        if why is None:
            lessons.append(lesson)
        else:
            left_out.append((entry.frame_id, why))
    lessons.sort(key=lambda lesson: lesson.frame_id)
    watched: set[str] = set()
    groups = {lesson.group_id for lesson in lessons}
    if len(groups) >= GROUPS_TO_WATCH:
        known = {s.group_id for s in lessons if s.frame_id in seen or s.pixels_hash in seen}
        watched = {group for group in groups - known if _draw(split.key, group) < split.validation}
    return Selection(
        train=tuple(lesson for lesson in lessons if lesson.group_id not in watched),
        validation=tuple(lesson for lesson in lessons if lesson.group_id in watched),
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
    lessons: Sequence[Lesson], replayed: Iterable[str], heads: Sequence[Head]
) -> tuple[bool, str | None]:
    """See whether the class head has something to tell apart.

    A head that is shown one class alone learns to say nothing else. Where the replayed images supply the
    other classes that is no danger; where they do not, the mask head learns alone, from all images.
    """
    taught = {lesson.label for lesson in lessons if lesson.label is not None and lesson.class_weight}
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


def _teach(entry: Entry, correction: Correction, config: FitConfig) -> Lesson:
    standing = config.accepted_weight if correction.prediction_seen else 1.0
    label = entry.reference
    class_weight = 1.0
    if label is None and correction.label != "unsure":
        label = correction.label
        class_weight = standing if correction.class_decision == "kept" else 1.0
    return Lesson(
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


def _reason_against(entry: Entry, revision: Revision, lesson: Lesson) -> str | None:
    if revision.withdrawn:
        return "it was withdrawn"
    if entry.role == "neither":
        return SPOILT
    source = "class" if entry.reference is None else "reference"
    if lesson.mask.any() and lesson.label == "normal":
        return f"a lesion is drawn, and its {source} is normal"
    if not lesson.mask.any() and lesson.label not in (None, "normal"):
        return f"no lesion is drawn, and its {source} is {lesson.label}"
    if not (lesson.mask_weight or lesson.class_weight):
        return "it was accepted unchanged, and fit.accepted_weight is 0"
    return None


def _draw(key: str, group: str) -> float:
    return int(digest(key, group)[:16], 16) / 2**64


CORRECTIONS = "corrections"

Find = Callable[[str], Place | None]
_EVERY = 20
_NAMED = 5
_SHORT = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Read:
    """Lessons with their pixels.

    Parameters
    ----------
    cache : Cache, optional
        Letterboxed, each image with the weights of its lesson; None if none is left.
    lessons : tuple of Lesson
        Those that were read.
    members : tuple of dict
        Each as ``split.json`` lists it.
    left_out : tuple of tuple
        Frame id and reason of each of the others.
    """

    cache: Cache | None
    lessons: tuple[Lesson, ...]
    members: tuple[dict[str, str], ...]
    left_out: tuple[tuple[str, str], ...]


def keep_found(
    lessons: Sequence[Lesson], find: Find, *, skip_missing: bool
) -> Generator[Notice, None, tuple[tuple[Lesson, ...], list[tuple[str, str]]]]:
    """See whether the files of all lessons are there, before any is read."""
    kept, missing, names = [], [], []
    for lesson in lessons:
        place = find(lesson.frame_id)
        if place is not None and place.path.is_file():
            kept.append(lesson)
            continue
        names.append(f"{lesson.frame_id[:_SHORT]} ({describe_missing(place)})")
        missing.append((lesson.frame_id, "its file is not there"))
    if not missing:
        return tuple(kept), []
    told = f"the files of {len(missing)} of {len(lessons)} corrected images are not there: {_name(names)}"
    if not skip_missing:
        raise MissingFilesError(
            f"{told}; say where they lie now with: sonoloop store relink FOLDER, or go on without them with "
            "--skip-missing"
        )
    yield Notice(message=f"{told}; going on without them")
    return tuple(kept), missing


def read_lessons(
    lessons: Sequence[Lesson],
    find: Find,
    *,
    size: int,
    stage: str,
    skip_changed: bool = False,
    unseen: Collection[str] = (),
    is_spoilt: Callable[[Frame], bool] = lambda _: False,
) -> Generator[Progress | Notice, None, Read]:
    """Read the frames of lessons, and make sure that they are those that were corrected."""
    images, masks, members, kept = [], [], [], []
    changed: list[str] = []
    left_out: list[tuple[str, str]] = []
    for done, lesson in enumerate(lessons):
        if done % _EVERY == 0:
            yield Progress(stage=stage, done=done, total=len(lessons))
        try:
            frame = read_frame_of(lesson, find)
        except TrainingError as error:
            # all of them are told, not the first alone
            changed.append(f"{lesson.frame_id[:_SHORT]} ({error})")
            left_out.append((lesson.frame_id, str(error)))
            continue
        if lesson.frame_id in unseen and is_spoilt(frame):
            left_out.append((lesson.frame_id, SPOILT))
            continue
        kept.append(lesson)
        image, mask = letterbox_pair(frame.pixels, lesson.mask, size)
        images.append(image)
        masks.append(mask)
        members.append(
            {
                "name": f"{CORRECTIONS}/{lesson.frame_id[:16]}",
                "group": lesson.group_id,
                "id": lesson.frame_id,
                "pixels_hash": lesson.pixels_hash,
                "fingerprint": fingerprint(frame.pixels),
            }
        )
    yield Progress(stage=stage, done=len(lessons), total=len(lessons))
    if changed:
        told = f"{len(changed)} of the corrected images cannot be learned from: {_name(changed)}"
        if not skip_changed:
            raise MissingFilesError(
                f"{told}; put the original files back, or say where they lie with: sonoloop store relink "
                "FOLDER, or go on without them with --skip-missing"
            )
        yield Notice(message=f"{told}; going on without them")
    cache = (
        None
        if not kept
        else Cache(
            torch.stack(images),
            torch.stack(masks),
            # an unsure class teaches nothing, whatever stands for it here
            torch.tensor([CLASSES.index(lesson.label or "normal") for lesson in kept]),
            tuple(member["name"] for member in members),
            (CORRECTIONS,) * len(kept),
            torch.tensor([[lesson.mask_weight, lesson.class_weight] for lesson in kept]),
        )
    )
    return Read(cache=cache, lessons=tuple(kept), members=tuple(members), left_out=tuple(left_out))


def read_frame_of(lesson: Lesson, find: Find) -> Frame:
    """Read one lesson's frame."""
    return reread(find(lesson.frame_id), lesson.pixels_hash)


def read_cases(lessons: Sequence[Lesson], find: Find) -> Generator[Progress, None, list[Case]]:
    """Read the lessons whose class is known as cases, to calibrate on."""
    cases = []
    for done, lesson in enumerate(lessons):
        if done % _EVERY == 0:
            yield Progress(stage="Calibrating", done=done, total=len(lessons))
        if lesson.label is not None:
            try:
                frame = read_frame_of(lesson, find)
            except TrainingError as error:
                raise TrainingError(
                    f"{lesson.frame_id[:_SHORT]} cannot be calibrated on: {error}; put the original file back"
                ) from error
            cases.append(
                Case(
                    frame=frame,
                    mask=lesson.mask,
                    label=lesson.label,
                    dataset=CORRECTIONS,
                    group=lesson.group_id,
                )
            )
    return cases


def _name(what: Sequence[str]) -> str:
    more = f" and {len(what) - _NAMED} more" if len(what) > _NAMED else ""
    return f"{', '.join(what[:_NAMED])}{more}"
