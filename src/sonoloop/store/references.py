"""The reference standard: what is known of a frame from elsewhere, apart from what a reader thought.

Frames of the same pixels, as from a file that was saved anew, have one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Select, insert, select

from sonoloop.errors import StoreError
from sonoloop.store.database import Database, in_batches, now
from sonoloop.store.revisions import check_not_withdrawn
from sonoloop.store.tables import FRAMES, REFERENCES
from sonoloop.values import CLASSES, ClassName


def set_reference(database: Database, frame_id: str, label: ClassName, *, source: str) -> None:
    """Record what is known of a frame; what was known before is kept, and the last one holds."""
    with database.writing() as connection:
        add_reference(connection, frame_id, label, source=source)


def reference_of(database: Database, frame_id: str) -> ClassName | None:
    """Give the reference standard of a frame."""
    with database.reading() as connection:
        return references_in(connection, [frame_id]).get(frame_id)


def offer_reference(database: Database, frame_id: str, label: ClassName, *, source: str) -> bool:
    """Do what `set_reference` does, unless another source has said something of the frame already.

    So that what comes with a dataset never takes the place of, say, a histology.
    """
    with database.writing() as connection:
        lock_frame(connection, frame_id)
        said = _select_said([frame_id]).where(REFERENCES.c.source != source).limit(1)
        if connection.execute(said).first() is not None:
            return False
        add_reference(connection, frame_id, label, source=source)
        return True


def add_reference(connection: Connection, frame_id: str, label: ClassName, *, source: str) -> None:
    """Record a reference inside a writing transaction; see `set_reference`."""
    if label not in CLASSES:
        raise ValueError(f"a reference must be one of {', '.join(CLASSES)}, got {label!r}")
    if not source.strip():
        raise ValueError("a reference needs its source, such as histology")
    lock_frame(connection, frame_id)
    last = connection.execute(
        _select_said([frame_id]).order_by(None).order_by(REFERENCES.c.number.desc()).limit(1)
    ).one_or_none()
    if last is None or (last.label, last.source) != (label, source):
        values = {"frame_id": frame_id, "label": label, "source": source, "created": now()}
        connection.execute(insert(REFERENCES).values(values))


def references_in(connection: Connection, frame_ids: Iterable[str]) -> dict[str, ClassName]:
    """Read the references of many frames inside a transaction."""
    found: dict[str, ClassName] = {}
    for ids in in_batches(frame_ids):
        # the last one holds
        found.update((row.asked, row.label) for row in connection.execute(_select_said(ids)))
    return found


def lock_frame(connection: Connection, frame_id: str) -> None:
    """Lock a frame's row, to say something of it; refuse one that is not there or was withdrawn."""
    query = select(FRAMES.c.id, FRAMES.c.pixels_hash).where(FRAMES.c.id == frame_id).with_for_update()
    frame = connection.execute(query).one_or_none()
    if frame is None:
        raise StoreError(f"the store has no image {frame_id[:12]}: place or correct it first")
    check_not_withdrawn(connection, dict(frame._mapping))


def _select_said(frame_ids: Sequence[str]) -> Select[Any]:
    """Select everything that was recorded of frames, or of others of the same pixels, in its order."""
    asked = FRAMES.alias("asked")
    return (
        select(asked.c.id.label("asked"), REFERENCES.c.label, REFERENCES.c.source)
        .join(FRAMES, FRAMES.c.pixels_hash == asked.c.pixels_hash)
        .join(REFERENCES, REFERENCES.c.frame_id == FRAMES.c.id)
        .where(asked.c.id.in_(frame_ids))
        .order_by(REFERENCES.c.number)
    )
