"""What the store holds of many frames at once, for one annotator's queue."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import JSON, ColumnElement, Connection, Select, Text, cast, func, literal, select

from sonoloop.store.assignments import select_assigned_pixels
from sonoloop.store.database import Database, check_who
from sonoloop.store.groups import draws_first
from sonoloop.store.leases import claims_among
from sonoloop.store.marks import select_last_marks
from sonoloop.store.settings import settings_in, store_secret
from sonoloop.store.tables import (
    FRAME_MARKS,
    FRAMES,
    GROUPS,
    HEADS,
    LEASES,
    MEMBERS,
    PREDICTIONS,
    REVISIONS,
    TOMBSTONES,
)
from sonoloop.values import Label

_CHUNK = 5_000

QueueStatus = Literal["to do", "accepted", "flagged", "skipped", "excluded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameOverview:
    """What the store holds of a frame, for one annotator.

    `label` is the class that the annotator gave, `reason` why it was marked. `expected_dice` is that of the
    last stored prediction; there is none as long as the frame is drawn first. `draw_first` is None where the
    frame was not placed yet. `assigned` says that it is read twice; `others` how many other annotators
    accepted it, 0 as long as their work is hidden; `claimed_by` is another annotator who works on it now.
    """

    status: QueueStatus = "to do"
    reason: str = ""
    label: Label | None = None
    expected_dice: float | None = None
    draw_first: bool | None = None
    assigned: bool = False
    others: int = 0
    claimed_by: str | None = None


def read_overview(
    database: Database, frame_ids: Iterable[str], *, annotator: str
) -> dict[str, FrameOverview]:
    """Read what the store holds of frames, few statements for thousands; an id it does not know is to do."""
    annotator, secret = check_who(annotator), store_secret(database)
    every = list(dict.fromkeys(frame_ids))
    found: dict[str, FrameOverview] = {}
    with database.reading() as connection:
        share = settings_in(connection).draw_first_share
        assigned = set(connection.scalars(select_assigned_pixels(annotator)))
        withdrawn = set(connection.scalars(_select_withdrawn_pixels()))
        for start in range(0, len(every), _CHUNK):
            ids = sorted(every[start : start + _CHUNK])  # neighbours lie on one page of an index
            rows = connection.execute(_select_frames(_among(connection, FRAMES.c.id, ids))).all()
            in_heads = _among(connection, HEADS.c.frame_id, ids)
            labels = _read(connection, _select_labels(in_heads, annotator))
            others = _read(connection, _count_others(in_heads, annotator))
            in_marks = _among(connection, FRAME_MARKS.c.frame_id, ids)
            marks = {row.frame_id: row for row in connection.execute(select_last_marks(annotator, in_marks))}
            claims = claims_among(connection, _among(connection, LEASES.c.name, ids))
            dice = _read_expected_dice(connection, ids)
            for row in rows:
                label, mark = labels.get(row.id), marks.get(row.id)
                twice, gone = row.pixels_hash in assigned, row.pixels_hash in withdrawn
                first = None
                if row.role is not None:
                    first = draws_first(secret, row.id, "neither" if row.bridges or gone else row.role, share)
                status: QueueStatus = "to do" if label is None else "accepted"
                reason = ""
                if gone:
                    status, reason = "excluded", "withdrawn"
                elif mark is not None and mark.status != "open":
                    status, reason = mark.status, mark.reason
                claim = claims.get(row.id)
                found[row.id] = FrameOverview(
                    status=status,
                    reason=reason,
                    label=label,
                    expected_dice=None if label is None and first is not False else dice.get(row.id),
                    draw_first=first,
                    assigned=twice,
                    others=0 if twice and label is None else others.get(row.id, 0),
                    claimed_by=None if claim is None or claim.by == annotator else claim.by,
                )
    unknown = FrameOverview()
    return {frame_id: found.get(frame_id, unknown) for frame_id in every}


def _among(connection: Connection, column: ColumnElement[str], ids: Sequence[str]) -> ColumnElement[bool]:
    """Say in SQL that a column is one of thousands of ids, which are one value to the database."""
    given = literal(json.dumps(ids), Text)
    if connection.dialect.name == "postgresql":
        return column.in_(select(func.json_array_elements_text(cast(given, JSON))))
    return column.in_(select(func.json_each(given).table_valued("value").c.value))


def _read(connection: Connection, query: Select[Any]) -> dict[str, Any]:
    """Read pairs of a frame's id and a value."""
    return {frame_id: value for frame_id, value in connection.execute(query).all()}  # noqa: C416 - typed rows


def _select_withdrawn_pixels() -> Select[Any]:
    return select(FRAMES.c.pixels_hash).join(TOMBSTONES, TOMBSTONES.c.frame_id == FRAMES.c.id)


def _select_frames(among: ColumnElement[bool]) -> Select[Any]:
    """Select where frames belong."""
    return (
        select(FRAMES.c.id, FRAMES.c.pixels_hash, GROUPS.c.role, MEMBERS.c.bridges)
        .outerjoin(MEMBERS, MEMBERS.c.frame_id == FRAMES.c.id)
        .outerjoin(GROUPS, GROUPS.c.id == MEMBERS.c.group_id)
        .where(among)
    )


def _select_labels(among: ColumnElement[bool], annotator: str) -> Select[Any]:
    """Select the class that an annotator last gave to frames."""
    return (
        select(HEADS.c.frame_id, REVISIONS.c.label)
        .join(REVISIONS, REVISIONS.c.id == HEADS.c.revision_id)
        .where(among, HEADS.c.annotator == annotator)
    )


def _count_others(among: ColumnElement[bool], annotator: str) -> Select[Any]:
    return (
        select(HEADS.c.frame_id, func.count())
        .where(among, HEADS.c.annotator != annotator)
        .group_by(HEADS.c.frame_id)
    )


def _read_expected_dice(connection: Connection, ids: Sequence[str]) -> dict[str, float]:
    """Read what was expected of frames by the prediction that a correction last began from."""
    columns = (PREDICTIONS.c.frame_id, PREDICTIONS.c.id, PREDICTIONS.c.expected_dice)
    query = select(*columns).where(_among(connection, PREDICTIONS.c.frame_id, ids))
    by_prediction: dict[str, dict[str, float]] = {}
    for row in connection.execute(query).all():
        by_prediction.setdefault(row.frame_id, {})[row.id] = row.expected_dice
    several = [frame_id for frame_id, dice in by_prediction.items() if len(dice) > 1]
    last = (
        select(func.max(REVISIONS.c.number))
        .where(_among(connection, REVISIONS.c.frame_id, several), REVISIONS.c.prediction_id.is_not(None))
        .group_by(REVISIONS.c.frame_id)
    )
    begun = select(REVISIONS.c.frame_id, REVISIONS.c.prediction_id).where(REVISIONS.c.number.in_(last))
    chosen = _read(connection, begun) if several else {}
    return {
        frame_id: dice[chosen.get(frame_id, next(iter(dice)))] for frame_id, dice in by_prediction.items()
    }
