"""Which frames train and which judge: decided once, by group, when a frame enters the store.

A group is a patient, or else the near copies of a frame. Its role is drawn by a keyed hash, so that it
follows from nothing that can be seen, and stored; whoever joins inherits it. A frame that has something in
common with groups on both sides trains nowhere and judges nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from sqlalchemy import Connection, Row

from sonoloop.errors import StoreError, UnsupportedImageError
from sonoloop.imaging.fingerprints import Sketch, sketch
from sonoloop.imaging.grey import check_frame
from sonoloop.store.drawing import GroupRole, Role, draws_first, hash_alone, hash_patient
from sonoloop.store.model_rows import hold
from sonoloop.store.near_duplicates import count_change, write_sketch
from sonoloop.store.placing import Homes, add_member, add_outsider, read_member, revise_member
from sonoloop.store.settings import secret_in, settings_in, store_secret
from sonoloop.store.tables import GROUPS
from sonoloop.store.tombstones import find_withdrawal, is_refused, set_apart
from sonoloop.values import Frame

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore

__all__ = [
    "GroupRole",
    "Placement",
    "Role",
    "place_frame",
    "placement",
    "set_aside",
    "was_withdrawn",
]


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

    Parameters
    ----------
    store : CorrectionStore
        Open. The frame's row is entered.
    frame : Frame
        With its pixels, to know its near copies; an image of which no model could say anything has none.
    patient : str, optional
        The patient's number; a keyed hash of it is stored, the number is not.
    role : str, optional
        "train" or "test": what a new group becomes in place of a draw. A group that is there keeps its own.

    Returns
    -------
    Placement
        As stored, on disk. Nothing is stored of a new file that has the pixels of a frame that was withdrawn,
        nor of a new frame of a patient of whom one was; and a frame that turns out to be of such a patient
        takes no part.

    Raises
    ------
    StoreError
        If the store cannot be read or written; nothing was stored.
    ValueError
        If the role is neither of the two.
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
    """Tell whether nothing is stored of a frame, since it was withdrawn or its patient was.

    Parameters
    ----------
    store : CorrectionStore
        Open.
    frame : Frame
        The frame.
    patient : str, optional
        The patient's number, as for `place_frame`.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
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

    Parameters
    ----------
    store : CorrectionStore
        Open. The frame's row is entered.
    frame : Frame
        The frame.

    Raises
    ------
    StoreError
        If the store cannot be read or written; nothing was stored.
    """
    with store.writing() as connection:
        hold(connection, GROUPS)
        if read_member(connection, frame.id) is None and not _is_gone(store, connection, frame):
            add_outsider(connection, frame)


def placement(store: CorrectionStore, frame_id: str) -> Placement | None:
    """Give where a frame belongs, if it was placed.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
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
