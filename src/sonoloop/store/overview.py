"""What the store holds of many frames at once, for one annotator's queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, Select, and_, func, select

from sonoloop.store.assignments import read_assigned
from sonoloop.store.database import Database, check_who, in_batches
from sonoloop.store.groups import draws_first
from sonoloop.store.marks import Mark, last_marks
from sonoloop.store.revisions import has_withdrawn_pixels
from sonoloop.store.settings import settings_in, store_secret
from sonoloop.store.tables import FRAMES, GROUPS, HEADS, MEMBERS, PREDICTIONS, REVISIONS
from sonoloop.values import Label

QueueStatus = Literal["to do", "accepted", "flagged", "skipped", "excluded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameOverview:
    """What the store holds of a frame, for one annotator.

    `label` is the class that the annotator gave, `reason` why it was marked. `expected_dice` is that of the
    last stored prediction; there is none as long as the frame is drawn first. `draw_first` is None where the
    frame was not placed yet. `assigned` says that it is read twice; `others` how many other annotators
    accepted it, 0 as long as their work is hidden.
    """

    status: QueueStatus = "to do"
    reason: str = ""
    label: Label | None = None
    expected_dice: float | None = None
    draw_first: bool | None = None
    assigned: bool = False
    others: int = 0


def read_overview(
    database: Database, frame_ids: Iterable[str], *, annotator: str
) -> dict[str, FrameOverview]:
    """Read what the store holds of frames, a few statements for each 500; an id it does not know is to do."""
    annotator, secret = check_who(annotator), store_secret(database)
    found: dict[str, FrameOverview] = {}
    with database.reading() as connection:
        share = settings_in(connection).draw_first_share
        for ids in in_batches(dict.fromkeys(frame_ids)):
            rows = {row.id: row for row in connection.execute(_select_frames(ids, annotator))}
            marks = last_marks(connection, ids, annotator)
            expected = connection.execute(_select_expected_dice(ids)).all()
            dice = {row.frame_id: row.expected_dice for row in expected}
            others = {row.frame_id: row.number for row in connection.execute(_count_others(ids, annotator))}
            assigned = read_assigned(connection, ids, annotator)
            for frame_id in ids:
                row = rows.get(frame_id)
                if row is None:
                    found[frame_id] = FrameOverview()
                    continue
                first = _is_drawn_first(row, secret, share)
                waits = row.label is None
                hidden = frame_id in assigned and waits
                status, reason = _say_status(row, marks.get(frame_id))
                found[frame_id] = FrameOverview(
                    status=status,
                    reason=reason,
                    label=row.label,
                    expected_dice=None if waits and first is not False else dice.get(frame_id),
                    draw_first=first,
                    assigned=frame_id in assigned,
                    others=0 if hidden else others.get(frame_id, 0),
                )
    return found


def _is_drawn_first(row: Row[Any], secret: bytes, share: float) -> bool | None:
    if row.role is None:
        return None
    role = "neither" if row.bridges or row.withdrawn else row.role
    return draws_first(secret, row.id, role, share)


def _say_status(row: Row[Any], mark: Mark | None) -> tuple[QueueStatus, str]:
    if row.withdrawn:
        return "excluded", "withdrawn"
    if mark is not None and mark.status != "open":
        return mark.status, mark.reason
    return ("to do" if row.label is None else "accepted"), ""


def _select_frames(ids: Sequence[str], annotator: str) -> Select[Any]:
    """Select where frames belong, and the class that the annotator gave."""
    own = and_(HEADS.c.frame_id == FRAMES.c.id, HEADS.c.annotator == annotator)
    withdrawn = has_withdrawn_pixels(FRAMES.c.pixels_hash).label("withdrawn")
    return (
        select(FRAMES.c.id, GROUPS.c.role, MEMBERS.c.bridges, REVISIONS.c.label, withdrawn)
        .outerjoin(MEMBERS, MEMBERS.c.frame_id == FRAMES.c.id)
        .outerjoin(GROUPS, GROUPS.c.id == MEMBERS.c.group_id)
        .outerjoin(HEADS, own)
        .outerjoin(REVISIONS, REVISIONS.c.id == HEADS.c.revision_id)
        .where(FRAMES.c.id.in_(ids))
    )


def _select_expected_dice(ids: Sequence[str]) -> Select[Any]:
    """Select the expected Dice of the prediction that was last stored of each frame."""
    last = (
        select(func.max(REVISIONS.c.number))
        .where(REVISIONS.c.frame_id.in_(ids), REVISIONS.c.prediction_id.is_not(None))
        .group_by(REVISIONS.c.frame_id)
    )
    return (
        select(REVISIONS.c.frame_id, PREDICTIONS.c.expected_dice)
        .join(PREDICTIONS, PREDICTIONS.c.id == REVISIONS.c.prediction_id)
        .where(REVISIONS.c.number.in_(last))
    )


def _count_others(ids: Sequence[str], annotator: str) -> Select[Any]:
    return (
        select(HEADS.c.frame_id, func.count().label("number"))
        .where(HEADS.c.frame_id.in_(ids), HEADS.c.annotator != annotator)
        .group_by(HEADS.c.frame_id)
    )
