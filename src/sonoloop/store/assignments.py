"""Double reading: which annotators read a frame without seeing what others said of it."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select

from sonoloop.store.database import Database, check_who, in_batches
from sonoloop.store.tables import ASSIGNMENTS, FRAMES, REVISIONS


def read_assigned(connection: Connection, frame_ids: Iterable[str], reader: str) -> set[str]:
    """Tell which frames a reader is assigned, by ids or as the same pixels in another file."""
    asked = FRAMES.alias("asked")
    found: set[str] = set()
    for ids in in_batches(frame_ids):
        own = (
            select(asked.c.id)
            .join(FRAMES, FRAMES.c.pixels_hash == asked.c.pixels_hash)
            .join(ASSIGNMENTS, ASSIGNMENTS.c.frame_id == FRAMES.c.id)
            .where(asked.c.id.in_(ids), ASSIGNMENTS.c.reader == reader)
        )
        found.update(connection.scalars(own))
    return found


def hides_others(database: Database, frame_id: str, reader: str) -> bool:
    """Tell whether others' work on a frame is hidden: the reader is assigned it and has said nothing yet."""
    reader = check_who(reader)
    pixels = select(FRAMES.c.pixels_hash).where(FRAMES.c.id == frame_id).scalar_subquery()
    said = (
        select(REVISIONS.c.number)
        .join(FRAMES, FRAMES.c.id == REVISIONS.c.frame_id)
        .where(FRAMES.c.pixels_hash == pixels, REVISIONS.c.annotator == reader)
        .limit(1)
    )
    with database.reading() as connection:
        assigned = read_assigned(connection, [frame_id], reader)
        return bool(assigned) and connection.scalar(said) is None
