"""Which frames of a test set trained a model, or are copies of such, or of their patients."""

from __future__ import annotations

from collections.abc import Generator

from sqlalchemy import select

from sonoloop.imaging.fingerprints import BITS
from sonoloop.labels.judging import TestSet
from sonoloop.labels.store import CorrectionStore
from sonoloop.labels.tables import FRAMES, MEMBERS
from sonoloop.models.library import Library
from sonoloop_training.evaluation.leaks import Leak, find_leaks
from sonoloop_training.evaluation.split_list import Listed, read_split_list
from sonoloop_training.events import Notice, Progress
from sonoloop_training.membership import SPLIT

_EVERY = 50
_FINGERPRINT_BYTES = BITS // 8


def find_trained(
    store: CorrectionStore, test_set: TestSet, version: str, model: str, library: Library
) -> Generator[Progress | Notice, None, list[Leak]]:
    """Find the frames of a test set that a model knows.

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
    leaks: list[Leak] = []
    for first in range(0, len(frames), _EVERY):
        yield Progress(stage=f"Looking for what trained {model}", done=first, total=len(frames))
        leaks += find_leaks(frames[first : first + _EVERY], trained)
    return leaks


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
