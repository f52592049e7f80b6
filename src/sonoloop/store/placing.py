"""The steps of placing a frame, each inside the transaction that it is given."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, exists, func, insert, or_, select, update

from sonoloop.imaging.fingerprints import Sketch
from sonoloop.store.accepting import add_frame
from sonoloop.store.drawing import GroupRole, draw_role, hash_alone
from sonoloop.store.lineage import models_from, snapshots_with
from sonoloop.store.model_rows import LEAKED, add_mark, now
from sonoloop.store.near_copies import Home, find_near, find_near_ids, find_patient, find_twin_ids, find_twins
from sonoloop.store.near_duplicates import SketchIndex, write_sketch
from sonoloop.store.revisions import has_withdrawn_pixels
from sonoloop.store.settings import secret_in, settings_in
from sonoloop.store.tables import FRAMES, GROUPS, MEMBERS, REVISIONS
from sonoloop.values import Frame

_log = logging.getLogger(__name__)
_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Homes:
    """The groups that a frame has something in common with.

    Parameters
    ----------
    patient : list of Home
        Where its patient's frames are.
    copies : list of Home
        Where its near copies are, the same pixels first.
    """

    patient: list[Home]
    copies: list[Home]

    @classmethod
    def of(
        cls,
        connection: Connection,
        index: SketchIndex,
        frame: Frame,
        *,
        seen: Sketch | None,
        hashed: str | None,
        member: Row[Any] | None,
    ) -> Homes:
        """Look in a writing transaction, with an index that was refreshed in it."""
        patient = [] if hashed is None else find_patient(connection, hashed)
        twins = find_twins(connection, frame.id, frame.pixels_hash)
        known = {home.role for home in (*patient, *twins)} | ({member.role} if member else set())
        near = [] if seen is None else find_near(connection, index, seen, frame.id, known=known)
        return cls(patient=patient, copies=[*twins, *near])

    @property
    def roles(self) -> set[GroupRole]:
        """What those groups are for."""
        return {home.role for home in (*self.patient, *self.copies)}

    def bridges(self, own: GroupRole) -> bool:
        """Whether a frame in a group with this role would belong to both sides."""
        return len({own, *self.roles}) > 1 or any(home.bridges for home in self.copies)


def add_member(
    connection: Connection,
    index: SketchIndex,
    frame: Frame,
    homes: Homes,
    hashed: str | None,
    *,
    forced: GroupRole | None,
    seen: Sketch | None,
) -> None:
    """Place a frame that has no group yet, and draw what the group is for if that is new too.

    An image that an earlier Sonoloop stored may have trained: it never comes to judge.
    """
    _enter(connection, frame)
    corrected = bool(connection.scalar(select(exists().where(REVISIONS.c.frame_id == frame.id))))
    secret = secret_in(connection)
    if homes.patient:
        group_id = homes.patient[0].group_id
    elif hashed is not None:
        group_id = hashed
    else:
        group_id = homes.copies[0].group_id if homes.copies else hash_alone(secret, frame.id)
    role: GroupRole | None = connection.scalar(select(GROUPS.c.role).where(GROUPS.c.id == group_id))
    if role is None:
        # a patient's new group inherits from its near copies too
        inherited = next(iter(homes.roles)) if len(homes.roles) == 1 else None
        drawn = draw_role(connection, settings_in(connection), secret=secret, group_id=group_id)
        role = "train" if corrected else forced or inherited or drawn
        _found(connection, group_id, role)
    bridges = homes.bridges("train" if corrected else role)
    _insert(connection, frame.id, group_id, hashed, bridges=bridges, seen=seen)
    if bridges:
        spread_bridge(connection, index, frame, group_id, seen=seen)


def add_outsider(connection: Connection, frame: Frame) -> None:
    """Place a frame that is new to the store in a group of its own, to take no part."""
    _enter(connection, frame)
    group_id = hash_alone(secret_in(connection), frame.id)
    _found(connection, group_id, "train")
    _insert(connection, frame.id, group_id, None, bridges=True, seen=None)


def revise_member(
    connection: Connection,
    index: SketchIndex,
    frame: Frame,
    member: Row[Any],
    homes: Homes,
    *,
    hashed: str | None,
    seen: Sketch | None,
) -> None:
    """Take up what was not known of a frame when it was placed."""
    changes: dict[str, Any] = {}
    if hashed is not None and member.patient is None:
        changes["patient"] = hashed
    elif hashed not in (None, member.patient):
        _log.warning("image %s was given under two patient numbers; the first is kept", member.frame_id[:12])
    if seen is not None and not member.seen:
        changes["thumbnail"], changes["bits"] = write_sketch(seen)
    if homes.bridges(member.role) and not member.bridges:
        changes["bridges"] = True
    if changes:
        own = MEMBERS.c.frame_id == member.frame_id
        connection.execute(update(MEMBERS).where(own).values(changes))
    if "bridges" in changes:
        spread_bridge(connection, index, frame, member.group_id, seen=seen)


def spread_bridge(
    connection: Connection, index: SketchIndex, frame: Frame, group_id: str, *, seen: Sketch | None
) -> None:
    """Have what looks like a frame that belongs to both sides take no part either, and mark its models.

    Those are the frames of the same pixels, its near copies, and the groups that such make up. The other
    frames of a patient stay where they are.
    """
    alike = {frame.id, *find_twin_ids(connection, frame.id, frame.pixels_hash)}
    if seen is not None:
        alike |= find_near_ids(connection, index, seen, frame.id)
    theirs = select(MEMBERS.c.group_id).where(MEMBERS.c.frame_id.in_(alike))
    groups = {group_id, *connection.scalars(theirs)}
    # the group of a patient is called by the patient's hash
    patients = select(MEMBERS.c.patient).where(MEMBERS.c.patient.in_(groups))
    groups -= set(connection.scalars(patients))
    members = select(MEMBERS.c.frame_id).where(
        or_(MEMBERS.c.frame_id.in_(alike), MEMBERS.c.group_id.in_(groups)),
        or_(MEMBERS.c.bridges.is_(False), MEMBERS.c.frame_id == frame.id),
    )
    changed = sorted(connection.scalars(members))
    for start in range(0, len(changed), _BATCH):
        some = MEMBERS.c.frame_id.in_(changed[start : start + _BATCH])
        connection.execute(update(MEMBERS).where(some).values(bridges=True))
    _mark_models(connection, changed)


def _mark_models(connection: Connection, frame_ids: Sequence[str]) -> None:
    """Mark the models that trained on frames which turned out to belong to the test side too."""
    marked: set[str] = set()
    for frame_id in frame_ids:
        for version in models_from(connection, snapshots_with(connection, [frame_id], role="train")):
            if version not in marked:
                marked.add(version)
                why = f"it trained on image {frame_id[:12]}, which belongs to the test side too"
                add_mark(connection, version, LEAKED, why=why, who="sonoloop")


def _enter(connection: Connection, frame: Frame) -> None:
    height, width = frame.shape
    row = {"id": frame.id, "pixels_hash": frame.pixels_hash, "height": height, "width": width}
    add_frame(connection, row)


def _found(connection: Connection, group_id: str, role: GroupRole) -> None:
    connection.execute(insert(GROUPS).values(id=group_id, role=role, created=now()))


def _insert(
    connection: Connection,
    frame_id: str,
    group_id: str,
    patient: str | None,
    *,
    bridges: bool,
    seen: Sketch | None,
) -> None:
    thumbnail, bits = (b"", b"") if seen is None else write_sketch(seen)
    row = {"frame_id": frame_id, "group_id": group_id, "patient": patient, "bridges": bridges}
    connection.execute(insert(MEMBERS).values(**row, thumbnail=thumbnail, bits=bits))


def place_unseen(connection: Connection, frame_id: str) -> None:
    """Place a frame of which there are no pixels: an earlier Sonoloop stored it, so it may have trained.

    It joins the group of the frames of the same pixels, or trains in one of its own.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        In a writing transaction that holds the groups.
    frame_id : str
        A frame that the store has, and has not placed.
    """
    pixels_hash = connection.scalar(select(FRAMES.c.pixels_hash).where(FRAMES.c.id == frame_id))
    twins = find_twins(connection, frame_id, str(pixels_hash))
    group_id = twins[0].group_id if twins else hash_alone(secret_in(connection), frame_id)
    if not twins:
        _found(connection, group_id, "train")
    _insert(connection, frame_id, group_id, None, bridges=len({twin.role for twin in twins}) > 1, seen=None)


def read_member(connection: Connection, frame_id: str) -> Row[Any] | None:
    """Read where a frame is, with ``seen``, ``withdrawn`` and its group's ``role``; None if nowhere."""
    query = (
        select(
            MEMBERS.c.frame_id,
            MEMBERS.c.group_id,
            MEMBERS.c.patient,
            MEMBERS.c.bridges,
            (func.length(MEMBERS.c.bits) > 0).label("seen"),
            has_withdrawn_pixels(FRAMES.c.pixels_hash).label("withdrawn"),
            GROUPS.c.role,
        )
        .join(FRAMES, FRAMES.c.id == MEMBERS.c.frame_id)
        .join(GROUPS, GROUPS.c.id == MEMBERS.c.group_id)
        .where(MEMBERS.c.frame_id == frame_id)
    )
    return connection.execute(query).one_or_none()
