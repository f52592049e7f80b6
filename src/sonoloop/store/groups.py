"""Which frames train and which test: decided once, by group, when a frame enters the store.

A group is a patient, or else the near copies of a frame. Its role is drawn by a keyed hash, so that it
follows from nothing that can be seen, and stored; whoever joins inherits it. A frame that has something in
common with groups on both sides crosses the split: it trains nowhere and tests nothing.
"""

from __future__ import annotations

import hmac
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from sqlalchemy import Connection, Row, Select, exists, func, insert, not_, or_, select, update

from sonoloop.errors import StoreError, UnsupportedImageError
from sonoloop.imaging.fingerprints import Sketch, sketch
from sonoloop.imaging.grey import check_frame
from sonoloop.store.corrections import add_frame
from sonoloop.store.database import in_batches, now
from sonoloop.store.model_registry import LEAKED, add_mark, models_from, snapshots_with
from sonoloop.store.near_duplicates import (
    Match,
    SketchIndex,
    find_copies,
    hold_sketches,
    match_copies,
    match_patient,
    match_pixels,
    note_sketches,
    write_sketch,
)
from sonoloop.store.revisions import (
    find_withdrawal,
    has_withdrawn_pixels,
    is_refused,
    is_withdrawn,
    set_apart,
)
from sonoloop.store.settings import (
    StoreSettings,
    read_value,
    secret_in,
    settings_in,
    store_secret,
    write_value,
)
from sonoloop.store.tables import FRAMES, GROUPS, HEADS, MEMBERS, REVISIONS, GroupRole, Role
from sonoloop.values import Frame

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore

_log = logging.getLogger(__name__)
_ROLES = "roles"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a frame belongs."""

    frame_id: str
    group_id: str
    # "neither" for a frame that crosses the split, or that was withdrawn or its patient
    role: Role
    # keyed hash of the patient's number, where that is known
    patient: str | None
    # before the prediction is shown: every test frame, and some others so that those cannot be told
    draw_first: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrival:
    """A frame that is placed, how it looks, and the hash of its patient, as far as these are known."""

    frame: Frame
    seen: Sketch | None
    patient: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Matches:
    """Where a frame's patient is, and where its near copies are, those of the same pixels first."""

    patient: list[Match]
    copies: list[Match]

    @property
    def roles(self) -> set[GroupRole]:
        return {match.role for match in (*self.patient, *self.copies)}

    def cross_split(self, own: GroupRole) -> bool:
        """Tell whether a frame in a group with this role would belong to both sides."""
        return len({own, *self.roles}) > 1 or any(match.crosses_split for match in self.copies)


def place_frame(
    store: CorrectionStore,
    frame: Frame,
    *,
    patient: str | None = None,
    role: GroupRole | None = None,
    index: SketchIndex | None = None,
) -> Placement:
    """Give a frame its group, and with it its role; asked again, the answer is the same.

    Only news changes it: a patient that was not known before, or pixels that were not seen, may show that
    the frame belongs to both sides, and its near copies with it; models that had trained on them are then
    marked. Who places many frames keeps one index for all; without one every sketch is read each time.
    """
    if role is not None and role not in get_args(GroupRole):
        raise ValueError(f"a new group's role must be train or test, got {role!r}")
    patient = (patient or "").strip() or None
    with store.reading() as connection:
        member = read_member(connection, frame.id)
        if member is not None and (member.withdrawn or _knows_all(connection, member, patient)):
            return _read_placement(connection, member)
        if member is None and _is_gone(store, connection, frame):
            return _refuse(connection, frame)
    seen = _try_sketch(frame)
    index = index or SketchIndex()
    with index.lock:
        with store.writing() as connection:
            hold_sketches(connection)
            index.refresh(connection)
            member = read_member(connection, frame.id)
            hashed = None if patient is None else hash_patient(secret_in(connection), patient)
            if is_refused(connection, member, frame.pixels_hash, hashed):
                return _turn_away(store, connection, frame, hashed)
            arrival = _Arrival(frame=frame, seen=seen, patient=hashed)
            is_news = seen is not None and (member is None or not member.seen)
            matches = _find_matches(connection, index, arrival, member)
            if member is None:
                _enter(connection, index, arrival, matches, forced=role)
            else:
                _revise(connection, index, arrival, matches, member)
            changes = note_sketches(connection, [frame.id]) if is_news else None
            placed = _read_placement(connection, _known_member(connection, frame.id))
        if seen is not None and changes is not None:
            index.add(frame.id, write_sketch(seen)[1], changes)
    return placed


def set_aside(store: CorrectionStore, frame: Frame) -> None:
    """Place a frame so that it takes no part: it trains nothing and tests nothing.

    So it is with simulated samples, which people try the program on. A frame that was placed stays as it is.
    """
    with store.writing() as connection:
        hold_sketches(connection)
        if read_member(connection, frame.id) is None and not _is_gone(store, connection, frame):
            _add_frame(connection, frame)
            group_id = _hash_alone(secret_in(connection), frame.id)
            _add_group(connection, group_id, "train")
            _add_member(connection, frame.id, group_id, crosses_split=True)


def place_unseen(connection: Connection, frame_id: str) -> None:
    """Place a frame of which there are no pixels: an earlier Sonoloop stored it, so it may have trained.

    It joins the group of the frames of the same pixels, or trains in one of its own.
    """
    pixels_hash = connection.scalar(select(FRAMES.c.pixels_hash).where(FRAMES.c.id == frame_id))
    twins = match_pixels(connection, frame_id, str(pixels_hash))
    group_id = twins[0].group_id if twins else _hash_alone(secret_in(connection), frame_id)
    if not twins:
        _add_group(connection, group_id, "train")
    _add_member(connection, frame_id, group_id, crosses_split=len({twin.role for twin in twins}) > 1)


def placement(store: CorrectionStore, frame_id: str) -> Placement | None:
    """Give where a frame belongs, if it was placed."""
    with store.reading() as connection:
        member = read_member(connection, frame_id)
        return None if member is None else _read_placement(connection, member)


def was_withdrawn(store: CorrectionStore, frame: Frame, *, patient: str | None = None) -> bool:
    """Tell whether nothing is stored of a frame, since it was withdrawn or its patient was."""
    secret = store_secret(store)
    with store.reading() as connection:
        hashed = hash_patient(secret, patient) if patient else None
        member = read_member(connection, frame.id)
        return _is_gone(store, connection, frame, member=member, hashed=hashed)


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


def hash_patient(secret: bytes, patient: str) -> str:
    """Hash a patient's number with the store's secret; 64 hex digits."""
    return _hash(secret, "patient", patient.strip())


def read_role_changes(connection: Connection) -> int:
    """Count how often the role of a frame that has a correction may have changed."""
    return int(read_value(connection, _ROLES) or 0)


def _find_matches(
    connection: Connection, index: SketchIndex, arrival: _Arrival, member: Row[Any] | None
) -> _Matches:
    frame, seen = arrival.frame, arrival.seen
    patient = [] if arrival.patient is None else match_patient(connection, arrival.patient)
    twins = match_pixels(connection, frame.id, frame.pixels_hash)
    known = {match.role for match in (*patient, *twins)} | ({member.role} if member else set())
    near = [] if seen is None else match_copies(connection, index, seen, frame.id, known=known)
    return _Matches(patient=patient, copies=[*twins, *near])


def _enter(
    connection: Connection,
    index: SketchIndex,
    arrival: _Arrival,
    matches: _Matches,
    *,
    forced: GroupRole | None,
) -> None:
    """Place a frame that has no group yet, and draw what the group is for if that is new too.

    An image that an earlier Sonoloop stored may have trained: it never comes to test.
    """
    frame = arrival.frame
    _add_frame(connection, frame)
    corrected = _is_corrected(connection, frame.id)
    secret = secret_in(connection)
    if matches.patient:
        group_id = matches.patient[0].group_id
    elif arrival.patient is not None:
        group_id = arrival.patient
    else:
        group_id = matches.copies[0].group_id if matches.copies else _hash_alone(secret, frame.id)
    role: GroupRole | None = connection.scalar(select(GROUPS.c.role).where(GROUPS.c.id == group_id))
    if role is None:
        # a patient's new group inherits from its near copies too
        inherited = next(iter(matches.roles)) if len(matches.roles) == 1 else None
        role = "train" if corrected else forced or inherited
        role = role or draw_role(connection, settings_in(connection), secret=secret, group_id=group_id)
        _add_group(connection, group_id, role)
    crosses = matches.cross_split("train" if corrected else role)
    _add_member(connection, frame.id, group_id, arrival.patient, crosses_split=crosses, seen=arrival.seen)
    if crosses:
        _spread_crossing(connection, index, arrival, group_id)


def _revise(
    connection: Connection, index: SketchIndex, arrival: _Arrival, matches: _Matches, member: Row[Any]
) -> None:
    """Take up what was not known of a frame when it was placed."""
    changes: dict[str, Any] = {}
    if arrival.patient is not None and member.patient is None:
        changes["patient"] = arrival.patient
    elif arrival.patient not in (None, member.patient):
        _log.warning("image %s was given under two patient numbers; the first is kept", member.frame_id[:12])
    if arrival.seen is not None and not member.seen:
        changes["thumbnail"], changes["bits"] = write_sketch(arrival.seen)
    if matches.cross_split(member.role) and not member.bridges:
        changes["bridges"] = True
    if changes:
        own = MEMBERS.c.frame_id == member.frame_id
        connection.execute(update(MEMBERS).where(own).values(changes))
    if "bridges" in changes:
        _spread_crossing(connection, index, arrival, member.group_id)


def _spread_crossing(connection: Connection, index: SketchIndex, arrival: _Arrival, group_id: str) -> None:
    """Have what looks like a frame that belongs to both sides take no part either, and mark its models.

    Those are the frames of the same pixels, its near copies, and the groups that such make up. The other
    frames of a patient stay where they are.
    """
    frame = arrival.frame
    same = select(FRAMES.c.id).where(FRAMES.c.pixels_hash == frame.pixels_hash)
    alike = {frame.id, *connection.scalars(same)}
    if arrival.seen is not None:
        alike |= find_copies(connection, index, arrival.seen, frame.id)
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
    for batch in in_batches(changed):
        connection.execute(update(MEMBERS).where(MEMBERS.c.frame_id.in_(batch)).values(bridges=True))
    note_roles(connection)
    marked: set[str] = set()
    for frame_id in changed:
        why = f"it trained on image {frame_id[:12]}, which belongs to the test side too"
        for version in models_from(connection, snapshots_with(connection, [frame_id], role="train")):
            if version not in marked:
                marked.add(version)
                add_mark(connection, version, LEAKED, why=why, who="sonoloop")


def _add_frame(connection: Connection, frame: Frame) -> None:
    height, width = frame.shape
    row = {"id": frame.id, "pixels_hash": frame.pixels_hash, "height": height, "width": width}
    add_frame(connection, row)


def _add_group(connection: Connection, group_id: str, role: GroupRole) -> None:
    connection.execute(insert(GROUPS).values(id=group_id, role=role, created=now()))


def _add_member(
    connection: Connection,
    frame_id: str,
    group_id: str,
    patient: str | None = None,
    *,
    crosses_split: bool,
    seen: Sketch | None = None,
) -> None:
    thumbnail, bits = (b"", b"") if seen is None else write_sketch(seen)
    row = {"frame_id": frame_id, "group_id": group_id, "patient": patient, "bridges": crosses_split}
    connection.execute(insert(MEMBERS).values(**row, thumbnail=thumbnail, bits=bits))
    if _is_corrected(connection, frame_id):
        note_roles(connection)


def _is_corrected(connection: Connection, frame_id: str) -> bool:
    return bool(connection.scalar(select(exists().where(REVISIONS.c.frame_id == frame_id))))


def note_roles(connection: Connection) -> None:
    """Note that the role of a frame that has a correction may have changed."""
    write_value(connection, _ROLES, read_role_changes(connection) + 1)


def _try_sketch(frame: Frame) -> Sketch | None:
    try:
        return sketch(check_frame(frame).pixels)
    except UnsupportedImageError:
        return None


def _is_gone(
    store: CorrectionStore,
    connection: Connection,
    frame: Frame,
    *,
    member: Row[Any] | None = None,
    hashed: str | None = None,
) -> bool:
    pixels = frame.pixels_hash
    return pixels in store.turned_away or is_refused(connection, member, pixels, hashed)


def _turn_away(store: CorrectionStore, connection: Connection, frame: Frame, hashed: str | None) -> Placement:
    """Place nothing, and have what is stored of a withdrawn patient's pixels already take no part."""
    created = None if hashed is None else find_withdrawal(connection, hashed)
    if hashed is not None and created is not None:
        set_apart(connection, frame.pixels_hash, hashed)
        note_roles(connection)
        store.turned_away[frame.pixels_hash] = created
    member = read_member(connection, frame.id)
    return _refuse(connection, frame) if member is None else _read_placement(connection, member)


def _refuse(connection: Connection, frame: Frame) -> Placement:
    group_id = _hash_alone(secret_in(connection), frame.id)
    return _describe(connection, frame.id, group_id, role="neither", patient=None)


def _knows_all(connection: Connection, member: Row[Any], patient: str | None) -> bool:
    if not member.seen:
        return False
    return patient is None or member.patient == hash_patient(secret_in(connection), patient)


def _known_member(connection: Connection, frame_id: str) -> Row[Any]:
    member = read_member(connection, frame_id)
    if member is None:
        raise StoreError(f"image {frame_id[:12]} was placed and is gone: restore a backup of the store")
    return member


def _read_placement(connection: Connection, member: Row[Any]) -> Placement:
    role: Role = "neither" if member.bridges or member.withdrawn else member.role
    return _describe(connection, member.frame_id, member.group_id, role=role, patient=member.patient)


def _describe(
    connection: Connection, frame_id: str, group_id: str, *, role: Role, patient: str | None
) -> Placement:
    share, secret = settings_in(connection).draw_first_share, secret_in(connection)
    first = draws_first(secret, frame_id, role, share)
    return Placement(frame_id=frame_id, group_id=group_id, role=role, patient=patient, draw_first=first)


def draws_first(secret: bytes, frame_id: str, role: Role, share: float) -> bool:
    """Tell whether a frame is drawn before its prediction is shown; `share` of the training frames are."""
    return role == "test" or fraction(secret, "draw first", frame_id) < share


def draw_role(connection: Connection, settings: StoreSettings, *, secret: bytes, group_id: str) -> GroupRole:
    """Draw what a new group is for."""
    drawn = fraction(secret, "role", group_id)
    if drawn >= max(settings.test_share, settings.first_test_share):
        return "train"
    # no more are read than the cap: in a large store they are among its first
    tests = select(GROUPS.c.id).where(GROUPS.c.role == "test").limit(settings.test_cap)
    if len(connection.execute(tests).all()) >= settings.test_cap:
        return "train"
    wanted = settings.first_lesion_groups
    first = len(connection.execute(_select_lesion_tests().limit(wanted)).all()) < wanted
    return "test" if drawn < (settings.first_test_share if first else settings.test_share) else "train"


def _select_lesion_tests() -> Select[tuple[str]]:
    """Select the groups kept for testing in which somebody marked a lesion."""
    has_lesion = or_(
        REVISIONS.c.mask_decision != "none",  # that is what an empty mask is called
        REVISIONS.c.label.in_(("benign", "malignant")),
    )
    marked = (
        exists()
        .where(
            MEMBERS.c.group_id == GROUPS.c.id,
            not_(MEMBERS.c.bridges),
            HEADS.c.frame_id == MEMBERS.c.frame_id,
            REVISIONS.c.id == HEADS.c.revision_id,
            has_lesion,
            not_(is_withdrawn(MEMBERS.c.frame_id)),
        )
        .correlate(GROUPS)
    )
    return select(GROUPS.c.id).where(GROUPS.c.role == "test", marked)


def _hash_alone(secret: bytes, frame_id: str) -> str:
    """Name the group of a frame that begins one of its own; 64 hex digits."""
    return _hash(secret, "frame", frame_id)


def fraction(secret: bytes, what: str, value: str) -> float:
    """Draw a number from 0 to 1 by a keyed hash: the same for the same value, and for no one to guess."""
    return int(_hash(secret, what, value)[:16], 16) / 2**64


def _hash(secret: bytes, what: str, value: str) -> str:
    return hmac.digest(secret, f"{what}\0{value}".encode(), "sha256").hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCounts:
    """How the frames of a store are divided."""

    train_groups: int
    test_groups: int
    test_groups_with_lesion: int
    # without those that were withdrawn
    train_frames: int
    test_frames: int
    neither_frames: int
    withdrawn_frames: int
    # an earlier Sonoloop stored them; the next snapshot places them
    unplaced_frames: int


def count_groups(store: CorrectionStore) -> GroupCounts:
    """Count groups and frames by what they are for."""
    groups_by_role = select(GROUPS.c.role, func.count().label("number")).group_by(GROUPS.c.role)
    frames_by_role = (
        select(GROUPS.c.role, MEMBERS.c.bridges, func.count())
        .join(MEMBERS, MEMBERS.c.group_id == GROUPS.c.id)
        .where(not_(is_withdrawn(MEMBERS.c.frame_id)))
        .group_by(GROUPS.c.role, MEMBERS.c.bridges)
    )
    frames = select(func.count()).select_from(FRAMES.outerjoin(MEMBERS, MEMBERS.c.frame_id == FRAMES.c.id))
    withdrawn = is_withdrawn(FRAMES.c.id)
    with store.reading() as connection:
        groups = {row.role: row.number for row in connection.execute(groups_by_role)}
        placed = {(role, crosses): n for role, crosses, n in connection.execute(frames_by_role)}
        return GroupCounts(
            train_groups=groups.get("train", 0),
            test_groups=groups.get("test", 0),
            test_groups_with_lesion=len(connection.execute(_select_lesion_tests()).all()),
            train_frames=placed.get(("train", False), 0),
            test_frames=placed.get(("test", False), 0),
            neither_frames=placed.get(("train", True), 0) + placed.get(("test", True), 0),
            withdrawn_frames=connection.scalar(frames.where(withdrawn)) or 0,
            unplaced_frames=connection.scalar(frames.where(MEMBERS.c.frame_id.is_(None), not_(withdrawn)))
            or 0,
        )
