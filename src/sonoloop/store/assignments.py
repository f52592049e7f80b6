"""Double reading: which annotators read a frame without seeing what others said of it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select

from sonoloop.store.database import Database, check_who
from sonoloop.store.tables import ASSIGNMENTS, FRAMES, REVISIONS


def select_assigned_pixels(reader: str) -> Select[Any]:
    """Select the hashes of the pixels that a reader is assigned, whichever file they are opened from."""
    assigned = FRAMES.join(ASSIGNMENTS, ASSIGNMENTS.c.frame_id == FRAMES.c.id)
    return select(FRAMES.c.pixels_hash).select_from(assigned).where(ASSIGNMENTS.c.reader == reader)


def hides_others(database: Database, frame_id: str, reader: str) -> bool:
    """Tell whether others' work on a frame is hidden: the reader is assigned it and has said nothing yet."""
    reader = check_who(reader)
    own = select(FRAMES.c.pixels_hash).where(FRAMES.c.id == frame_id).scalar_subquery()
    assigned = select_assigned_pixels(reader).where(FRAMES.c.pixels_hash == own).limit(1)
    said = (
        select(REVISIONS.c.number)
        .join(FRAMES, FRAMES.c.id == REVISIONS.c.frame_id)
        .where(FRAMES.c.pixels_hash == own, REVISIONS.c.annotator == reader)
        .limit(1)
    )
    with database.reading() as connection:
        return connection.scalar(assigned) is not None and connection.scalar(said) is None
