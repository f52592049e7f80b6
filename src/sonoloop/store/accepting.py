"""The steps of one Accept, each inside the transaction that it is given."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from sonoloop.errors import StoreError
from sonoloop.store.tables import FRAMES, HEADS, PREDICTIONS, REVISIONS
from sonoloop.values import Correction


def enter_frame(connection: Connection, correction: Correction) -> dict[str, Any]:
    """Add the frame if it is new, and lock its row, so that whoever else accepts on it waits.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        In a writing transaction; on SQLite that has the whole file locked already.
    correction : Correction
        About the frame.

    Returns
    -------
    dict
        The frame's row as it was first stored.

    Raises
    ------
    StoreError
        If the mask has another size than the frame.
    """
    height, width = correction.mask.shape
    values = {
        "id": correction.frame_id,
        "pixels_hash": correction.pixels_hash,
        "height": height,
        "width": width,
    }
    frame = add_frame(connection, values)
    if (frame["height"], frame["width"]) != (height, width):
        raise StoreError(
            f"the mask has {height} x {width} pixels, its image was stored with {frame['height']} x "
            f"{frame['width']}: open the image again and correct it on its own grid"
        )
    return frame


def add_frame(connection: Connection, row: dict[str, Any]) -> dict[str, Any]:
    """Add a frame's row if it is new, and lock it.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        In a writing transaction.
    row : dict
        One value a column.

    Returns
    -------
    dict
        The row as it was first stored.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(postgresql.insert(FRAMES).values(row).on_conflict_do_nothing())
    else:
        connection.execute(sqlite.insert(FRAMES).values(row).on_conflict_do_nothing())
    query = select(FRAMES).where(FRAMES.c.id == row["id"]).with_for_update()
    return dict(connection.execute(query).one()._mapping)


def check_parent(connection: Connection, row: dict[str, Any]) -> None:
    """Refuse a parent that could never have been this annotator's head on this frame.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        In a writing transaction.
    row : dict
        The revision to be, from `sonoloop.store.revisions.write_revision`.

    Raises
    ------
    StoreError
        If the parent is unknown, another annotator's or another frame's.
    """
    if row["parent"] is None:
        return
    same = [REVISIONS.c[name] == row[name] for name in ("frame_id", "annotator")]
    if connection.scalar(select(REVISIONS.c.id).where(REVISIONS.c.id == row["parent"], *same)) is None:
        raise StoreError(
            f"revision {row['parent']} is none of this annotator's on this image: open the image again"
        )


def select_head(connection: Connection, row: dict[str, Any]) -> str | None:
    """Read the annotator's head on the frame.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        In a writing transaction that has entered the frame.
    row : dict
        The revision to be.

    Returns
    -------
    str or None
        Id of a revision; None on the annotator's first visit.
    """
    own = (HEADS.c.frame_id == row["frame_id"], HEADS.c.annotator == row["annotator"])
    head: str | None = connection.scalar(select(HEADS.c.revision_id).where(*own))
    return head


def add_prediction(connection: Connection, row: dict[str, Any]) -> None:
    """Store a prediction, unless its like is there already.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        In a writing transaction that has entered the frame: nobody else can add the same one.
    row : dict
        From `sonoloop.store.predictions.write_prediction`.
    """
    if connection.scalar(select(PREDICTIONS.c.id).where(PREDICTIONS.c.id == row["id"])) is None:
        connection.execute(insert(PREDICTIONS).values(row))


def move_head(connection: Connection, row: dict[str, Any], head: str | None) -> None:
    """Make a revision the annotator's head on the frame.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        In the transaction that added the revision.
    row : dict
        The revision.
    head : str, optional
        What `select_head` gave in this transaction.
    """
    own = {name: row[name] for name in ("frame_id", "annotator")}
    if head is None:
        connection.execute(insert(HEADS).values(**own, revision_id=row["id"]))
    else:
        at = [HEADS.c[name] == value for name, value in own.items()]
        connection.execute(update(HEADS).where(*at).values(revision_id=row["id"]))
