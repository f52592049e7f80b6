"""Adjudication: what was decided between several persons' revisions of a frame, under a head of its own."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, not_, select

from sonoloop.errors import StoreError
from sonoloop.store.database import check_who, now
from sonoloop.store.revisions import ADJUDICATION, is_withdrawn
from sonoloop.store.tables import ADJUDICATIONS, FRAMES, REVISIONS


def check_annotator(name: str) -> str:
    """Return a pseudonym as it is kept; refuse the one under which adjudicated revisions stand."""
    annotator = check_who(name)
    if annotator == ADJUDICATION:
        raise StoreError(f"nobody is called {ADJUDICATION}: what is adjudicated stands there; choose another")
    return annotator


def check_originals(connection: Connection, of: Sequence[str], pixels_hash: str) -> bool:
    """Refuse to decide between what is not two persons' revisions of one image.

    Tell whether a prediction was seen by who drew one of them.
    """
    query = (
        select(REVISIONS.c.id, REVISIONS.c.annotator, REVISIONS.c.prediction_seen, FRAMES.c.pixels_hash)
        .join(FRAMES, FRAMES.c.id == REVISIONS.c.frame_id)
        .where(REVISIONS.c.id.in_(list(of)), not_(is_withdrawn(REVISIONS.c.frame_id)))
    )
    found = {row.id: row for row in connection.execute(query)}
    for one in of:
        if one not in found:
            raise StoreError(f"there is no revision {one} to decide between: look the image up again")
        if found[one].pixels_hash != pixels_hash:
            raise StoreError(f"revision {one} is of another image: give revisions of one image")
    if len({row.annotator for row in found.values()} - {ADJUDICATION}) < 2:
        raise StoreError("there is nothing to decide: give the revisions of two persons or more")
    return any(row.prediction_seen for row in found.values())


def add_adjudication(connection: Connection, revision_id: str, of: Sequence[str], *, who: str) -> None:
    """Record what a revision decided between, as far as that is new, inside a writing transaction."""
    known = select(ADJUDICATIONS.c.original).where(ADJUDICATIONS.c.revision_id == revision_id)
    there = set(connection.scalars(known))
    for original in dict.fromkeys(of):
        if original not in there:
            row = {"revision_id": revision_id, "original": original, "who": who, "created": now()}
            connection.execute(insert(ADJUDICATIONS).values(row))
