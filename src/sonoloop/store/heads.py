"""What was last said of each image, with where it belongs: one question that many ask.

An image is its decoded pixels. Files of the same pixels, as one that was saved anew, are frames of their own
and one image: it trains once and judges once.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, func, not_, select

from sonoloop.store.revisions import is_withdrawn
from sonoloop.store.tables import FRAMES, GROUPS, HEADS, MEMBERS, REVISIONS


def select_newest(*columns: ColumnElement[Any]) -> Select[Any]:
    """Select the newest head of each image that was not withdrawn, whichever of its files it is about.

    Parameters
    ----------
    *columns : sqlalchemy.ColumnElement
        Of the revisions, their frames, the members and the groups; those of the last two are None before the
        frame was placed.

    Returns
    -------
    sqlalchemy.Select
        One row an image, in the order of acceptance; narrow it with ``where``.
    """
    said, of = REVISIONS.alias("said"), FRAMES.alias("of")
    newest = (
        select(func.max(said.c.number))
        .join(HEADS, HEADS.c.revision_id == said.c.id)
        .join(of, of.c.id == said.c.frame_id)
        .where(not_(is_withdrawn(said.c.frame_id)))
        .group_by(of.c.pixels_hash)
    )
    placed = (
        REVISIONS.join(FRAMES, FRAMES.c.id == REVISIONS.c.frame_id)
        .outerjoin(MEMBERS, MEMBERS.c.frame_id == REVISIONS.c.frame_id)
        .outerjoin(GROUPS, GROUPS.c.id == MEMBERS.c.group_id)
    )
    return (
        select(*columns)
        .select_from(placed)
        .where(REVISIONS.c.number.in_(newest))
        .order_by(REVISIONS.c.number)
    )


def can_judge() -> ColumnElement[bool]:
    """Say in SQL, of a row of `select_newest`, whether it judges models.

    Its frame is kept for testing, and its annotator had not seen what a model says of the image. Once they
    have accepted, the prediction is shown: whatever the same person draws after that, on any file of the
    same pixels, was drawn knowing it.
    """
    before, of = REVISIONS.alias("before"), FRAMES.alias("of_before")
    drawn_before = (
        exists()
        .where(
            before.c.frame_id == of.c.id,
            of.c.pixels_hash == FRAMES.c.pixels_hash,
            before.c.annotator == REVISIONS.c.annotator,
            before.c.number < REVISIONS.c.number,
        )
        .correlate(REVISIONS, FRAMES)
    )
    return func.coalesce(
        and_(
            GROUPS.c.role == "test",
            MEMBERS.c.bridges.is_(False),
            REVISIONS.c.prediction_seen.is_(False),
            not_(drawn_before),
        ),
        False,
    )
