"""Which frames of a test set trained a model, or are copies of such, or of their patients."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from sqlalchemy import select

from sonoloop.imaging.fingerprints import BITS
from sonoloop.labels.judging import TestSet
from sonoloop.labels.store import CorrectionStore
from sonoloop.labels.tables import FRAMES, MEMBERS
from sonoloop.models.library import Library
from sonoloop_training.evaluation.leaks import Leak, find_leaks_in_steps
from sonoloop_training.evaluation.split_list import Listed, read_split_list
from sonoloop_training.events import Notice, Progress
from sonoloop_training.membership import SPLIT

_EVERY = 50
_FINGERPRINT_BYTES = BITS // 8


def find_trained(
    store: CorrectionStore, test_set: TestSet, version: str, model: str, library: Library
) -> Generator[Progress | Notice, None, list[Leak]]:
    """Find the frames of a test set that a model knows.

    Its list says what was known when it trained; whether one of its frames has the patient or the group of
    one that judges is looked up as the store knows it by now.

    Yields
    ------
    Progress
        Every fifty frames.
    Notice
        If the model does not say who trained it.

    Returns
    -------
    list of Leak
        ``image`` is the frame's id.

    Raises
    ------
    TrainingError
        If the model's list cannot be read.
    ModelError
        If the model is not on this machine.
    """
    path = library.find(version) / SPLIT
    if not path.is_file():
        yield Notice(message=f"{model} does not say who trained it; frames that judge it may be among them")
        return []
    trained = read_split_list(path)["train"]
    frames = list_frames(store, test_set)
    stage = f"Looking for what trained {model}"
    leaks = yield from find_leaks_in_steps(frames, trained, stage=stage, every=_EVERY)
    found = {leak.image for leak in leaks}
    return leaks + [leak for leak in find_relatives(store, frames, trained) if leak.image not in found]


def find_relatives(store: CorrectionStore, frames: Sequence[Listed], trained: Sequence[Listed]) -> list[Leak]:
    """Find the frames of whose patient or group one trained, as the store knows it by now.

    Parameters
    ----------
    store : CorrectionStore
        Where.
    frames : sequence of Listed
        From `list_frames`.
    trained : sequence of Listed
        Who trained the model.
    """
    names = {key: one.name for one in trained for key in (one.id, one.pixels_hash) if key}
    query = select(MEMBERS.c.frame_id, MEMBERS.c.group_id, MEMBERS.c.patient, FRAMES.c.pixels_hash).join(
        FRAMES, FRAMES.c.id == MEMBERS.c.frame_id
    )
    kin: dict[str, tuple[str, ...]] = {}
    taught: dict[str, str] = {}
    with store.reading() as connection:
        for row in connection.execute(query.order_by(MEMBERS.c.frame_id)):
            own = tuple(key for key in (row.group_id, row.patient) if key)
            kin[row.frame_id] = own
            name = names.get(row.frame_id) or names.get(row.pixels_hash)
            if name is not None:
                taught |= {key: name for key in own if key not in taught}
    shared = ((frame.name, next((key for key in kin[frame.id] if key in taught), None)) for frame in frames)
    return [
        Leak(image=image, trained=taught[key], kind="same patient or group")
        for image, key in shared
        if key is not None
    ]


def list_frames(store: CorrectionStore, test_set: TestSet) -> list[Listed]:
    """Describe the frames of a test set as a split lists them, named by their ids."""
    wanted = {judge.frame_id for judge in test_set.members}
    query = select(MEMBERS.c.frame_id, MEMBERS.c.group_id, MEMBERS.c.bits, FRAMES.c.pixels_hash).join(
        FRAMES, FRAMES.c.id == MEMBERS.c.frame_id
    )
    with store.reading() as connection:
        rows = connection.execute(query.order_by(MEMBERS.c.frame_id)).all()
    return [
        Listed(
            name=row.frame_id,
            group=row.group_id,
            id=row.frame_id,
            pixels_hash=row.pixels_hash,
            # the first hash is that of the whole frame
            fingerprint=row.bits[:_FINGERPRINT_BYTES].hex(),
        )
        for row in rows
        if row.frame_id in wanted
    ]
