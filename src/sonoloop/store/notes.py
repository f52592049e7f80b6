"""Notes on a frame: what annotators wrote beside its mask and class."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, select

from sonoloop.errors import StoreError
from sonoloop.store.database import Database, check_text, check_who, now, values_of
from sonoloop.store.references import lock_frame
from sonoloop.store.tables import NOTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What somebody wrote on a frame, and when (UTC); the text is empty once the frame was withdrawn."""

    frame_id: str
    annotator: str
    text: str
    created: datetime


def add_note(database: Database, frame_id: str, text: str, *, annotator: str) -> None:
    """Add a note to a frame; what was written before stays."""
    annotator, text = check_who(annotator), check_text(text, "the note")
    if not text:
        raise StoreError("the note is empty: write something, or leave it")
    with database.writing() as connection:
        lock_frame(connection, frame_id)
        row = {"frame_id": frame_id, "annotator": annotator, "text": text, "created": now()}
        connection.execute(insert(NOTES).values(row))


def list_notes(database: Database, frame_id: str) -> list[Note]:
    """List the notes on a frame, the oldest first."""
    query = select(NOTES).where(NOTES.c.frame_id == frame_id).order_by(NOTES.c.number)
    with database.reading() as connection:
        rows = connection.execute(query).all()
    return [
        Note(frame_id=row.frame_id, annotator=row.annotator, text=row.text, created=values_of(row)["created"])
        for row in rows
    ]
