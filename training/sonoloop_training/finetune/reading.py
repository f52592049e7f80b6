"""The pixels that corrections are about, found again and known to be the same."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass

import torch

from sonoloop.errors import TrainingError
from sonoloop.imaging.fingerprints import fingerprint
from sonoloop.jobs.events import Notice, Progress
from sonoloop.store.file_index import Place
from sonoloop.store.rereading import describe_missing, reread
from sonoloop.values import CLASSES, Frame
from sonoloop_training.evaluation.cases_ import Case
from sonoloop_training.finetune.samples import SPOILT, Lesson
from sonoloop_training.fit.cache import Cache, letterbox_pair

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
    """See whether the files of all lessons are there, before any is read.

    Parameters
    ----------
    lessons : sequence of Lesson
        Those that are learned from.
    find : callable
        See `sonoloop.store.file_index.Places.find`.
    skip_missing : bool
        Whether to go on without those that are gone.

    Yields
    ------
    Notice
        If some are skipped.

    Returns
    -------
    lessons : tuple of Lesson
        Those that are there.
    missing : list of tuple
        Frame id of each of the others, and the reason.

    Raises
    ------
    TrainingError
        If files are gone and are not to be skipped; they are named.
    """
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
        raise TrainingError(
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
    """Read the frames of lessons, and make sure that they are those that were corrected.

    Parameters
    ----------
    lessons : sequence of Lesson
        What to read.
    find : callable
        See `sonoloop.store.file_index.Places.find`.
    size : int
        Side of the square in pixels.
    stage : str
        What the progress is called.
    skip_changed : bool
        Whether to go on without those whose pixels changed, or that cannot be read.
    unseen : collection of str
        Frames that were placed without their pixels, and are compared now.
    is_spoilt : callable
        Whether such a frame is a near copy of one that judges; it is left out then.

    Yields
    ------
    Progress
        Every twenty images.
    Notice
        If some are skipped.

    Raises
    ------
    TrainingError
        If the pixels of some are others than when they were corrected, or their files cannot be read, and
        they are not to be skipped; they are named.
    """
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
            raise TrainingError(
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
    """Read one lesson's frame.

    Raises
    ------
    TrainingError
        If it is gone, cannot be read, or has other pixels than when it was corrected.
    """
    return reread(find(lesson.frame_id), lesson.pixels_hash)


def read_cases(lessons: Sequence[Lesson], find: Find) -> Generator[Progress, None, list[Case]]:
    """Read the lessons whose class is known as cases, to calibrate on.

    Raises
    ------
    TrainingError
        If the file of one is gone or changed by now; it is named.
    """
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
