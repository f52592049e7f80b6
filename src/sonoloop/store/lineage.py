"""Which snapshots hold a frame, and which models learned from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from sqlalchemy import Connection, select

from sonoloop.store.tables import MODELS, REVISIONS, SNAPSHOT_MEMBERS

_BATCH = 500


def snapshots_with(
    connection: Connection, frame_ids: Iterable[str], *, role: Literal["train", "test"] | None = None
) -> list[str]:
    """Name the snapshots that hold a revision of any of these frames.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        In a transaction.
    frame_ids : iterable of str
        The frames.
    role : str, optional
        Only where it had this role.

    Returns
    -------
    list of str
        Names, sorted.
    """
    ids = list(frame_ids)
    found: set[str] = set()
    for start in range(0, len(ids), _BATCH):
        query = (
            select(SNAPSHOT_MEMBERS.c.snapshot)
            .distinct()
            .join(REVISIONS, REVISIONS.c.id == SNAPSHOT_MEMBERS.c.revision_id)
            .where(REVISIONS.c.frame_id.in_(ids[start : start + _BATCH]))
        )
        if role is not None:
            query = query.where(SNAPSHOT_MEMBERS.c.role == role)
        found.update(connection.scalars(query))
    return sorted(found)


def models_from(connection: Connection, snapshots: Iterable[str]) -> list[str]:
    """Name the models that learned from any of these snapshots, and those that were tuned from such a model.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        In a transaction.
    snapshots : iterable of str
        Names.

    Returns
    -------
    list of str
        Versions, in the order in which they were registered.
    """
    wanted = set(snapshots)
    rows = connection.execute(
        select(MODELS.c.version, MODELS.c.parent, MODELS.c.snapshot).order_by(
            MODELS.c.created, MODELS.c.version
        )
    ).all()
    found = {row.version for row in rows if row.snapshot in wanted}
    # a clock set back may put a child before its parent
    while grown := {row.version for row in rows if row.parent in found} - found:
        found |= grown
    return [row.version for row in rows if row.version in found]
