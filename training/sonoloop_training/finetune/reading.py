"""The pixels that corrections are about, found again and known to be the same."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch

from sonoloop.errors import ImageError, TrainingError
from sonoloop.imaging.fingerprints import fingerprint
from sonoloop.imaging.images import read_study
from sonoloop.labels.places import Place
from sonoloop.values import CLASSES, Frame
from sonoloop_training.cache import Cache, letterbox_pair
from sonoloop_training.evaluation.cases import Case
from sonoloop_training.events import Notice, Progress
from sonoloop_training.finetune.selecting import Lesson

CORRECTIONS = "corrections"

Find = Callable[[str], Place | None]
_EVERY = 20
_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Read:
    """Lessons with their pixels.

    Parameters
    ----------
    cache : Cache
        Letterboxed, each image with the weights of its lesson.
    members : tuple of dict
        Each as ``split.json`` lists it.
    """

    cache: Cache
    members: tuple[dict[str, str], ...]


def keep_found(
    lessons: Sequence[Lesson], find: Find, *, skip_missing: bool
) -> Generator[Notice, None, tuple[tuple[Lesson, ...], list[tuple[str, str]]]]:
    """See whether the files of all lessons are there, before any is read.

    Parameters
    ----------
    lessons : sequence of Lesson
        Those that are learned from.
    find : callable
        See `sonoloop.labels.places.Places.find`.
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
        known = "nobody opened it on this machine" if place is None else f"{place.path} is gone"
        names.append(f"{lesson.frame_id[:8]} ({known})")
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
    lessons: Sequence[Lesson], find: Find, *, size: int, stage: str
) -> Generator[Progress, None, Read]:
    """Read the frames of lessons, and make sure that they are those that were corrected.

    Yields
    ------
    Progress
        Every twenty images.

    Raises
    ------
    TrainingError
        If the pixels of some are others than when they were corrected, or their files cannot be read; they
        are named.
    """
    images, masks, members = [], [], []
    changed: list[str] = []
    for done, lesson in enumerate(lessons):
        if done % _EVERY == 0:
            yield Progress(stage=stage, done=done, total=len(lessons))
        try:
            frame = read_frame_of(lesson, find)
        except TrainingError as error:
            # all of them are told, not the first alone
            changed.append(str(error))
            continue
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
        raise TrainingError(
            f"{len(changed)} of the corrected images cannot be learned from: {_name(changed)}; put the "
            "original files back, or say where they lie with: sonoloop store relink FOLDER"
        )
    cache = Cache(
        torch.stack(images),
        torch.stack(masks),
        # an unsure class teaches nothing, whatever stands for it here
        torch.tensor([CLASSES.index(lesson.label or "normal") for lesson in lessons]),
        tuple(member["name"] for member in members),
        (CORRECTIONS,) * len(lessons),
        torch.tensor([[lesson.mask_weight, lesson.class_weight] for lesson in lessons]),
    )
    return Read(cache=cache, members=tuple(members))


def read_frame_of(lesson: Lesson, find: Find) -> Frame:
    """Read one lesson's frame.

    Raises
    ------
    TrainingError
        If it is gone, cannot be read, or has other pixels than when it was corrected.
    """
    short = lesson.frame_id[:8]
    place = find(lesson.frame_id)
    if place is None:
        raise TrainingError(f"{short} (its file is not there)")
    try:
        frames = read_study(place.path).frames
    except ImageError as error:
        raise TrainingError(f"{short} ({error})") from error
    if place.index >= len(frames):
        raise TrainingError(
            f"{short} ({place.path} has {len(frames)} frames, and it was number {place.index})"
        )
    frame = frames[place.index]
    if frame.pixels_hash != lesson.pixels_hash:
        raise TrainingError(f"{short} ({place.path} has other pixels than when it was corrected)")
    return frame


def read_cases(lessons: Sequence[Lesson], find: Find) -> Generator[Progress, None, list[Case]]:
    """Read the lessons whose class is known as cases, to calibrate on."""
    cases = []
    for done, lesson in enumerate(lessons):
        if done % _EVERY == 0:
            yield Progress(stage="Calibrating", done=done, total=len(lessons))
        if lesson.label is not None:
            cases.append(
                Case(
                    frame=read_frame_of(lesson, find),
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
