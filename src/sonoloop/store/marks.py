"""What became of a frame in an annotator's queue: flagged, skipped, excluded, or open again."""

from __future__ import annotations

from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Connection, Select, func, insert, select

from sonoloop.errors import StoreError
from sonoloop.store.database import Database, check_text, check_who, now
from sonoloop.store.references import lock_frame
from sonoloop.store.tables import FRAME_MARKS

MarkStatus = Literal["flagged", "skipped", "excluded", "open"]
MARK_STATUSES: tuple[MarkStatus, ...] = get_args(MarkStatus)


def mark_frame(database: Database, frame_id: str, status: MarkStatus, reason: str, *, annotator: str) -> None:
    """Mark a frame for one annotator; marked again in the same way, nothing is stored."""
    if status not in MARK_STATUSES:
        raise StoreError(f"a frame cannot be {status!r}: choose one of {', '.join(MARK_STATUSES)}")
    annotator, reason = check_who(annotator), check_text(reason, "the reason")
    with database.writing() as connection:
        lock_frame(connection, frame_id)
        if _read_last(connection, frame_id, annotator) != (status, reason):
            _add(connection, frame_id, annotator, status, reason)


def take_back(connection: Connection, frame_id: str, annotator: str) -> None:
    """Open a frame again whose annotator accepts it, inside a writing transaction."""
    status, _ = _read_last(connection, frame_id, annotator)
    if status != "open":
        _add(connection, frame_id, annotator, "open", "")


def select_last_marks(annotator: str, among: ColumnElement[bool]) -> Select[Any]:
    """Select what an annotator last set frames to, and why, of those that a condition on their id gives."""
    last = (
        select(func.max(FRAME_MARKS.c.number))
        .where(among, FRAME_MARKS.c.annotator == annotator)
        .group_by(FRAME_MARKS.c.frame_id)
    )
    columns = (FRAME_MARKS.c.frame_id, FRAME_MARKS.c.status, FRAME_MARKS.c.reason)
    return select(*columns).where(FRAME_MARKS.c.number.in_(last))


def _read_last(connection: Connection, frame_id: str, annotator: str) -> tuple[MarkStatus, str]:
    query = select_last_marks(annotator, FRAME_MARKS.c.frame_id == frame_id)
    last = connection.execute(query).one_or_none()
    return ("open", "") if last is None else (last.status, last.reason)


def _add(connection: Connection, frame_id: str, annotator: str, status: MarkStatus, reason: str) -> None:
    row = {"frame_id": frame_id, "annotator": annotator, "status": status, "reason": reason}
    connection.execute(insert(FRAME_MARKS).values(**row, created=now()))
