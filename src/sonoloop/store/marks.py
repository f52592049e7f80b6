"""What became of a frame in an annotator's queue: flagged, skipped, excluded, or open again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import Connection, func, insert, select

from sonoloop.errors import StoreError
from sonoloop.store.database import Database, check_text, check_who, in_batches, now, values_of
from sonoloop.store.references import lock_frame
from sonoloop.store.tables import FRAME_MARKS

MarkStatus = Literal["flagged", "skipped", "excluded", "open"]
MARK_STATUSES: tuple[MarkStatus, ...] = get_args(MarkStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What an annotator set a frame to, and why; "open" takes back what was set before."""

    frame_id: str
    annotator: str
    status: MarkStatus
    reason: str
    created: datetime


def mark_frame(database: Database, frame_id: str, status: MarkStatus, reason: str, *, annotator: str) -> None:
    """Mark a frame for one annotator; marked again in the same way, nothing is stored."""
    if status not in MARK_STATUSES:
        raise StoreError(f"a frame cannot be {status!r}: choose one of {', '.join(MARK_STATUSES)}")
    annotator, reason = check_who(annotator), check_text(reason, "the reason")
    with database.writing() as connection:
        lock_frame(connection, frame_id)
        last = last_marks(connection, [frame_id], annotator).get(frame_id)
        said = ("open", "") if last is None else (last.status, last.reason)
        if said != (status, reason):
            _add(connection, frame_id, annotator, status, reason)


def take_back(connection: Connection, frame_id: str, annotator: str) -> None:
    """Open a frame again whose annotator accepts it, inside a writing transaction."""
    last = last_marks(connection, [frame_id], annotator).get(frame_id)
    if last is not None and last.status != "open":
        _add(connection, frame_id, annotator, "open", "")


def last_marks(connection: Connection, frame_ids: Iterable[str], annotator: str) -> dict[str, Mark]:
    """Read what one annotator last set frames to, inside a transaction."""
    found: dict[str, Mark] = {}
    for ids in in_batches(frame_ids):
        own = (FRAME_MARKS.c.frame_id.in_(ids), FRAME_MARKS.c.annotator == annotator)
        last = select(func.max(FRAME_MARKS.c.number)).where(*own).group_by(FRAME_MARKS.c.frame_id)
        for row in connection.execute(select(FRAME_MARKS).where(FRAME_MARKS.c.number.in_(last))):
            values = values_of(row)
            del values["number"]
            found[row.frame_id] = Mark(**values)
    return found


def _add(connection: Connection, frame_id: str, annotator: str, status: MarkStatus, reason: str) -> None:
    row = {"frame_id": frame_id, "annotator": annotator, "status": status, "reason": reason}
    connection.execute(insert(FRAME_MARKS).values(**row, created=now()))
