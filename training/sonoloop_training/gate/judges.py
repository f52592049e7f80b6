"""The frames of a test set with what is true of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import ImageError, TrainingError
from sonoloop.imaging.grey import check_frame
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.file_index import Places
from sonoloop.store.rereading import reread
from sonoloop.store.revisions import read_revision, select_revisions
from sonoloop.store.tables import REVISIONS
from sonoloop.store.test_sets import Judge
from sonoloop.values import Frame
from sonoloop_training.gate.outcomes import Outcome

_SHORT = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """A frame that judges, with its pixels.

    Parameters
    ----------
    judge : Judge
        Which, and the correction that counts as true.
    frame : Frame
        What a model sees.
    mask : numpy.ndarray
        Its lesions, bool (H, W).
    label : str
        Its class.
    """

    judge: Judge
    frame: Frame
    mask: NDArray[np.bool_]
    label: str


def read_judged(store: CorrectionStore, places: Places, judge: Judge) -> Judged:
    """Read a frame that judges, and make sure that it is the one that was corrected.

    Raises
    ------
    TrainingError
        If its file is gone or unreadable, has other pixels, or the person was withdrawn.
    """
    with store.reading() as connection:
        row = connection.execute(select_revisions().where(REVISIONS.c.id == judge.revision_id)).one()
    revision = read_revision(row)
    if revision.withdrawn:
        raise TrainingError("it was withdrawn")
    place, correction = places.find(judge.frame_id), revision.correction
    if place is None or not place.path.is_file():
        raise TrainingError(
            "its file is not on this machine; say where it is with: sonoloop store relink FOLDER"
        )
    try:
        frame = check_frame(reread(place, correction.pixels_hash))
    except ImageError as error:
        raise TrainingError(str(error).replace(place.path.name, "its file")) from error
    return Judged(
        judge=judge, frame=frame, mask=correction.mask > 0, label=judge.reference or correction.label
    )


def as_outcome(judge: Judge, label: str, score: Mapping[str, Any]) -> Outcome:
    """Turn a stored score into an outcome; the class and the group are those of the test set."""
    return Outcome(
        frame=judge.frame_id,
        group=judge.group_id,
        label=label,
        lesion=bool(score["lesion"]),
        dice=float(score["dice"]),
        claimed=bool(score["claimed"]),
        malignant=float(score["malignant"]),
    )


def short(frame_id: str) -> str:
    """Give the digits by which a frame is named before people."""
    return frame_id[:_SHORT]
