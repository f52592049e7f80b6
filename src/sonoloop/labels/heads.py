"""What was last said of each frame, with where the frame belongs: one question that many ask."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, not_, select

from sonoloop.labels.revisions import is_withdrawn
from sonoloop.labels.tables import GROUPS, HEADS, MEMBERS, REVISIONS


def select_newest(*columns: ColumnElement[Any]) -> Select[Any]:
    """Select the newest head of each frame that was not withdrawn.

    Parameters
    ----------
    *columns : sqlalchemy.ColumnElement
        Of the revisions, the members and the groups; those of the last two are None before the frame was
        placed.

    Returns
    -------
    sqlalchemy.Select
        One row a frame, in the order of acceptance; narrow it with ``where``.
    """
    newest = (
        select(func.max(REVISIONS.c.number))
        .join(HEADS, HEADS.c.revision_id == REVISIONS.c.id)
        .group_by(REVISIONS.c.frame_id)
    )
    placed = REVISIONS.outerjoin(MEMBERS, MEMBERS.c.frame_id == REVISIONS.c.frame_id).outerjoin(
        GROUPS, GROUPS.c.id == MEMBERS.c.group_id
    )
    return (
        select(*columns)
        .select_from(placed)
        .where(REVISIONS.c.number.in_(newest), not_(is_withdrawn(REVISIONS.c.frame_id)))
        .order_by(REVISIONS.c.number)
    )


def can_judge() -> ColumnElement[bool]:
    """Say in SQL, of a row of `select_newest`, whether it judges models.

    Its frame is kept for testing, and its annotator had not seen what a model says of the frame. Once they
    have accepted, the prediction is shown: whatever the same person draws after that was drawn knowing it.
    """
    return func.coalesce(
        and_(
            GROUPS.c.role == "test",
            MEMBERS.c.bridges.is_(False),
            REVISIONS.c.prediction_seen.is_(False),
            REVISIONS.c.parent.is_(None),
        ),
        False,
    )
