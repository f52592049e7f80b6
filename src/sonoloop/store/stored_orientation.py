"""Frames that an earlier Sonoloop stored as they lie in their files, when no orientation was heeded.

Nothing stored changes: such a frame keeps the pixels' hash and the grid that it was stored with, and what is
read of it or added to it is turned on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray
from sqlalchemy import select

from sonoloop.imaging.orientation import as_stored, turn, turn_back
from sonoloop.store.database import Database
from sonoloop.store.revisions import Revision
from sonoloop.store.tables import FRAMES
from sonoloop.values import Correction, Frame


def as_known(store: Database, frame: Frame) -> Frame:
    """Give a frame as a store knows it: itself, or as it lies in its file where it was first stored so."""
    lying = as_stored(frame)
    if lying.pixels_hash == frame.pixels_hash:
        return frame
    with store.reading() as connection:
        own = connection.scalar(select(FRAMES.c.pixels_hash).where(FRAMES.c.id == frame.id))
        if own is None:
            both = (frame.pixels_hash, lying.pixels_hash)
            same = select(FRAMES.c.pixels_hash).where(FRAMES.c.pixels_hash.in_(both))
            known = set(connection.scalars(same))
            own = lying.pixels_hash if known == {lying.pixels_hash} else frame.pixels_hash
    return lying if own == lying.pixels_hash else frame


def to_stored(correction: Correction, frame: Frame, known: Frame) -> Correction:
    """Bring a correction from a frame's grid to that of the frame `as_known`."""
    if known is frame:
        return correction
    turned = _turned(correction, turn_back, frame.orientation)
    return replace(turned, pixels_hash=known.pixels_hash)


def to_frame(revision: Revision, frame: Frame, known: Frame) -> Revision:
    """Bring a revision of the frame `as_known` to the frame's own grid."""
    if known is frame:
        return revision
    turned = _turned(revision.correction, turn, frame.orientation)
    return replace(revision, correction=replace(turned, pixels_hash=frame.pixels_hash))


def _turned(
    correction: Correction, how: Callable[[NDArray[Any], int], NDArray[Any]], orientation: int
) -> Correction:
    prediction = correction.prediction
    if prediction is not None:
        lesion, mask = how(prediction.lesion, orientation), how(prediction.mask, orientation)
        prediction = replace(prediction, lesion=lesion, mask=mask)
    return replace(correction, mask=how(correction.mask, orientation), prediction=prediction)
