"""Near copies of a frame among those of a store: the same pixels, or the same scene."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, Select, func, select

from sonoloop.imaging.fingerprints import ALIKE, MEMBERS_ASKED, RELATED, SURE, Sketch, correlate
from sonoloop.store.drawing import GroupRole
from sonoloop.store.near_duplicates import SketchIndex, read_sketch
from sonoloop.store.tables import FRAMES, GROUPS, MEMBERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """A group that a frame has something in common with.

    Parameters
    ----------
    group_id : str
        The group.
    role : str
        What the group is for.
    bridges : bool
        Whether the frame found there belongs to both sides itself.
    """

    group_id: str
    role: GroupRole
    bridges: bool


def find_patient(connection: Connection, hashed: str) -> list[Home]:
    """Find where a patient's frames are, the oldest group first.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        In a transaction.
    hashed : str
        From `sonoloop.store.drawing.hash_patient`.

    Returns
    -------
    list of Home
        A group each. Whether a frame of the patient bridges says nothing of the others.
    """
    query = (
        select(GROUPS.c.id, GROUPS.c.role)
        .where(GROUPS.c.id.in_(select(MEMBERS.c.group_id).where(MEMBERS.c.patient == hashed)))
        .order_by(GROUPS.c.created, GROUPS.c.id)
    )
    return [Home(group_id=row.id, role=row.role, bridges=False) for row in connection.execute(query)]


def find_twins(connection: Connection, frame_id: str, pixels_hash: str) -> list[Home]:
    """Find where the frames of the same pixels are, whatever file they came from."""
    query = (
        _select_homes()
        .join(FRAMES, FRAMES.c.id == MEMBERS.c.frame_id)
        .where(FRAMES.c.pixels_hash == pixels_hash, FRAMES.c.id != frame_id)
        .order_by(GROUPS.c.created, GROUPS.c.id)
    )
    return [_read_home(row) for row in connection.execute(query)]


def find_twin_ids(connection: Connection, frame_id: str, pixels_hash: str) -> set[str]:
    """Name the other frames of the same pixels."""
    same = select(FRAMES.c.id).where(FRAMES.c.pixels_hash == pixels_hash, FRAMES.c.id != frame_id)
    return set(connection.scalars(same))


def find_near_ids(connection: Connection, index: SketchIndex, seen: Sketch, frame_id: str) -> set[str]:
    """Name all near copies of a frame, whatever they are for; see `find_near`."""
    return {row.frame_id for row in _compare(connection, index, seen, frame_id, settled=set())}


def find_near(
    connection: Connection, index: SketchIndex, seen: Sketch, frame_id: str, *, known: Collection[GroupRole]
) -> list[Home]:
    """Find where the near copies of a frame are, as training groups the images of a dataset.

    Images are compared where hashes are near, the nearest first. One that is alike and not surely so counts
    only where the other members of its group are alike too; one whose group is for what is known already
    is not compared, since it would change nothing.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        In a transaction.
    index : SketchIndex
        Refreshed in this transaction.
    seen : Sketch
        Of the frame.
    frame_id : str
        The frame, which is not its own copy.
    known : collection of str
        Roles that the frame is known to have something in common with.

    Returns
    -------
    list of Home
        The nearest first.
    """
    settled: set[str] = set(known)
    found: list[Home] = []
    for row in _compare(connection, index, seen, frame_id, settled=settled):
        found.append(_read_home(row))
        settled.add(row.role)
    return found


def _compare(
    connection: Connection, index: SketchIndex, seen: Sketch, frame_id: str, *, settled: Collection[str]
) -> Iterator[Row[Any]]:
    """Give the near copies, the nearest first; `settled` may grow meanwhile, and what it holds is passed."""
    ids = [found for found in index.nearest(seen) if found != frame_id]
    query = _select_homes(MEMBERS.c.frame_id, MEMBERS.c.thumbnail, MEMBERS.c.bits)
    rows = {row.frame_id: row for row in connection.execute(query.where(MEMBERS.c.frame_id.in_(ids)))}
    for row in (rows[near] for near in ids if near in rows):
        if row.role in settled and not row.bridges:
            continue
        correlation = correlate(read_sketch(row.thumbnail, row.bits), seen)[0]
        if correlation >= SURE or (correlation >= ALIKE and _is_related(connection, row, correlation, seen)):
            yield row


def _is_related(connection: Connection, row: Row[Any], correlation: float, seen: Sketch) -> bool:
    others = connection.execute(
        select(MEMBERS.c.thumbnail, MEMBERS.c.bits)
        .where(MEMBERS.c.group_id == row.group_id, MEMBERS.c.frame_id != row.frame_id)
        .where(func.length(MEMBERS.c.bits) > 0)
        .order_by(MEMBERS.c.frame_id)
        .limit(MEMBERS_ASKED - 1)
    )
    asked = [correlation, *(correlate(read_sketch(*other), seen)[0] for other in others)]
    return bool(np.mean(asked) >= RELATED)


def _select_homes(*more: Any) -> Select[Any]:  # noqa: ANN401 - columns of any kind
    return select(MEMBERS.c.group_id, MEMBERS.c.bridges, GROUPS.c.role, *more).join(
        GROUPS, GROUPS.c.id == MEMBERS.c.group_id
    )


def _read_home(row: Row[Any]) -> Home:
    return Home(group_id=row.group_id, role=row.role, bridges=row.bridges)
