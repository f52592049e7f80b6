"""Which frames train and which judge: decided once, by group, when a frame enters the store.

A group is a patient, or else the near copies of a frame. Its role is drawn by a keyed hash, so that it
follows from nothing that can be seen, and stored; whoever joins inherits it. A frame that has something in
common with groups on both sides trains nowhere and judges nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from sqlalchemy import Connection, Row, Select, exists, func, insert, not_, or_, select, update

from sonoloop.errors import StoreError, UnsupportedImageError
from sonoloop.imaging.fingerprints import Sketch, sketch
from sonoloop.imaging.grey import check_frame
from sonoloop.store.corrections import add_frame
from sonoloop.store.database import hold, now
from sonoloop.store.model_registry import LEAKED, add_mark, models_from, snapshots_with
from sonoloop.store.near_duplicates import (
    Home,
    SketchIndex,
    count_change,
    find_near,
    find_near_ids,
    find_patient,
    find_twin_ids,
    find_twins,
    write_sketch,
)
from sonoloop.store.revisions import (
    find_withdrawal,
    has_withdrawn_pixels,
    is_refused,
    is_withdrawn,
    set_apart,
)
from sonoloop.store.settings import StoreSettings, secret_in, settings_in, store_secret
from sonoloop.store.tables import FRAMES, GROUPS, HEADS, MEMBERS, REVISIONS, GroupRole, Role
from sonoloop.values import Frame

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore


def hash_patient(secret: bytes, patient: str) -> str:
    """Hash a patient's number with the store's secret; 64 hex digits."""
    return _hash(secret, "patient", patient.strip())


def hash_alone(secret: bytes, frame_id: str) -> str:
    """Name the group of a frame that begins one of its own; 64 hex digits."""
    return _hash(secret, "frame", frame_id)


def draw_role(connection: Connection, settings: StoreSettings, *, secret: bytes, group_id: str) -> GroupRole:
    """Draw what a new group is for."""
    tests = select(func.count()).select_from(GROUPS).where(GROUPS.c.role == "test")
    if (connection.scalar(tests) or 0) >= settings.test_cap:
        return "train"
    wanted = settings.first_lesion_groups
    first = len(connection.execute(_select_lesion_tests().limit(wanted)).all()) < wanted
    share = settings.first_test_share if first else settings.test_share
    return "test" if _fraction(secret, "role", group_id) < share else "train"


def draws_first(settings: StoreSettings, *, secret: bytes, frame_id: str, role: Role) -> bool:
    """Say whether a frame is drawn before its prediction is shown."""
    return role == "test" or _fraction(secret, "draw first", frame_id) < settings.draw_first_share


def count_lesion_tests(connection: Connection) -> int:
    """Count the groups kept for testing in which somebody marked a lesion."""
    return len(connection.execute(_select_lesion_tests()).all())


def _select_lesion_tests() -> Select[tuple[str]]:
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


def _fraction(secret: bytes, what: str, value: str) -> float:
    return int(_hash(secret, what, value)[:16], 16) / 2**64


def _hash(secret: bytes, what: str, value: str) -> str:
    return hmac.new(secret, f"{what}\0{value}".encode(), hashlib.sha256).hexdigest()


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a frame belongs.

    Parameters
    ----------
    frame_id : str
        See `sonoloop.values.Frame`.
    group_id : str
        64 hex digits.
    role : str
        "train", "test", or "neither" for a frame that belongs to both sides, or that was withdrawn or its
        patient.
    patient : str, optional
        Keyed hash of the patient's number, where that is known.
    draw_first : bool
        Whether the annotator draws before the prediction is shown: every test frame, and some others so
        that those cannot be told.
    """

    frame_id: str
    group_id: str
    role: Role
    patient: str | None
    draw_first: bool


def place_frame(
    store: CorrectionStore, frame: Frame, *, patient: str | None = None, role: GroupRole | None = None
) -> Placement:
    """Give a frame its group, and with it its role; asked again, the answer is the same.

    Only news changes it: a patient that was not known before, or pixels that were not seen, may show that
    the frame belongs to both sides, and its near copies with it; models that had trained on them are then
    marked.
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
    index = store.sketches
    with index.lock:
        with store.writing() as connection:
            hold(connection, GROUPS)
            index.refresh(connection)
            member = read_member(connection, frame.id)
            hashed = None if patient is None else hash_patient(secret_in(connection), patient)
            if is_refused(connection, member, frame.pixels_hash, hashed):
                return _turn_away(store, connection, frame, hashed)
            news = seen is not None and (member is None or not member.seen)
            homes = Homes.of(connection, index, frame, seen=seen, hashed=hashed, member=member)
            if member is None:
                add_member(connection, index, frame, homes, hashed, forced=role, seen=seen)
            else:
                revise_member(connection, index, frame, member, homes, hashed=hashed, seen=seen)
            changes = count_change(connection) if news else None
            placed = _read_placement(connection, _known_member(connection, frame.id))
        if seen is not None and changes is not None:
            index.add(frame.id, write_sketch(seen)[1], changes)
    return placed


def was_withdrawn(store: CorrectionStore, frame: Frame, *, patient: str | None = None) -> bool:
    """Tell whether nothing is stored of a frame, since it was withdrawn or its patient was."""
    secret = store_secret(store)
    with store.reading() as connection:
        member = read_member(connection, frame.id)
        hashed = hash_patient(secret, patient) if patient else None
        return frame.pixels_hash in store.turned_away or is_refused(
            connection, member, frame.pixels_hash, hashed
        )


def set_aside(store: CorrectionStore, frame: Frame) -> None:
    """Place a frame so that it takes no part: it trains nothing and judges nothing.

    So it is with simulated samples, which people try the program on. A frame that was placed stays as it is.
    """
    with store.writing() as connection:
        hold(connection, GROUPS)
        if read_member(connection, frame.id) is None and not _is_gone(store, connection, frame):
            add_outsider(connection, frame)


def placement(store: CorrectionStore, frame_id: str) -> Placement | None:
    """Give where a frame belongs, if it was placed."""
    with store.reading() as connection:
        member = read_member(connection, frame_id)
        return None if member is None else _read_placement(connection, member)


def _try_sketch(frame: Frame) -> Sketch | None:
    try:
        return sketch(check_frame(frame).pixels)
    except UnsupportedImageError:
        return None


def _is_gone(store: CorrectionStore, connection: Connection, frame: Frame) -> bool:
    return frame.pixels_hash in store.turned_away or is_refused(connection, None, frame.pixels_hash, None)


def _turn_away(store: CorrectionStore, connection: Connection, frame: Frame, hashed: str | None) -> Placement:
    """Place nothing, and have what is stored of a withdrawn patient's pixels already take no part."""
    created = None if hashed is None else find_withdrawal(connection, hashed)
    if hashed is not None and created is not None:
        set_apart(connection, frame.pixels_hash, hashed)
        store.turned_away[frame.pixels_hash] = created
    member = read_member(connection, frame.id)
    return _refuse(connection, frame) if member is None else _read_placement(connection, member)


def _refuse(connection: Connection, frame: Frame) -> Placement:
    secret = secret_in(connection)
    first = draws_first(settings_in(connection), secret=secret, frame_id=frame.id, role="neither")
    return Placement(
        frame_id=frame.id,
        group_id=hash_alone(secret, frame.id),
        role="neither",
        patient=None,
        draw_first=first,
    )


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
    return Placement(
        frame_id=member.frame_id,
        group_id=member.group_id,
        role=role,
        patient=member.patient,
        draw_first=draws_first(
            settings_in(connection), secret=secret_in(connection), frame_id=member.frame_id, role=role
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCounts:
    """How the frames of a store are divided.

    Parameters
    ----------
    train_groups, test_groups : int
        Groups by role.
    test_groups_with_lesion : int
        Those kept for testing in which somebody marked a lesion.
    train_frames, test_frames, neither_frames : int
        Frames by role, without those that were withdrawn.
    withdrawn_frames : int
        Those.
    unplaced_frames : int
        Frames that an earlier Sonoloop stored; the next snapshot places them.
    """

    train_groups: int
    test_groups: int
    test_groups_with_lesion: int
    train_frames: int
    test_frames: int
    neither_frames: int
    withdrawn_frames: int
    unplaced_frames: int


def count_groups(store: CorrectionStore) -> GroupCounts:
    """Count groups and frames by what they are for."""
    with store.reading() as connection:
        by_role = select(GROUPS.c.role, func.count().label("number")).group_by(GROUPS.c.role)
        groups = {row.role: row.number for row in connection.execute(by_role)}
        withdrawn = is_withdrawn(MEMBERS.c.frame_id)
        frames = {
            (row.role, row.bridges): row.number
            for row in connection.execute(
                select(GROUPS.c.role, MEMBERS.c.bridges, func.count().label("number"))
                .join(MEMBERS, MEMBERS.c.group_id == GROUPS.c.id)
                .where(not_(withdrawn))
                .group_by(GROUPS.c.role, MEMBERS.c.bridges)
            )
        }
        unplaced = FRAMES.outerjoin(MEMBERS, MEMBERS.c.frame_id == FRAMES.c.id)
        counts = {
            "withdrawn_frames": select(func.count()).select_from(FRAMES).where(is_withdrawn(FRAMES.c.id)),
            "unplaced_frames": select(func.count())
            .select_from(unplaced)
            .where(MEMBERS.c.frame_id.is_(None), not_(is_withdrawn(FRAMES.c.id))),
        }
        return GroupCounts(
            train_groups=groups.get("train", 0),
            test_groups=groups.get("test", 0),
            test_groups_with_lesion=count_lesion_tests(connection),
            train_frames=frames.get(("train", False), 0),
            test_frames=frames.get(("test", False), 0),
            neither_frames=frames.get(("train", True), 0) + frames.get(("test", True), 0),
            **{name: connection.scalar(query) or 0 for name, query in counts.items()},
        )
