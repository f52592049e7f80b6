"""What is refused of those who were withdrawn: their frames, from whatever file, and new ones of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Row, func, not_, or_, select, update

from sonoloop.errors import StoreError
from sonoloop.store.revisions import has_withdrawn_pixels, is_withdrawn
from sonoloop.store.tables import FRAMES, MEMBERS, TOMBSTONES

_KIN = MEMBERS.alias("kin")
_NOBODY: Mapping[str, str] = MappingProxyType({})


def check_not_withdrawn(
    connection: Connection, frame: Mapping[str, Any], turned_away: Mapping[str, str] = _NOBODY
) -> None:
    """Refuse to store anything of a frame that was withdrawn, or turned away as one of a withdrawn patient.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        In a writing transaction that has entered the frame: nobody withdraws it meanwhile.
    frame : mapping
        The frame's row.
    turned_away : mapping, optional
        See `sonoloop.store.corrections.CorrectionStore.turned_away`.

    Raises
    ------
    StoreError
        If so; the error says since when.
    """
    query = (
        select(TOMBSTONES.c.created)
        .join(FRAMES, FRAMES.c.id == TOMBSTONES.c.frame_id)
        .where(or_(FRAMES.c.id == frame["id"], FRAMES.c.pixels_hash == frame["pixels_hash"]))
        .order_by(TOMBSTONES.c.number)
        .limit(1)
    )
    created = connection.scalar(query)
    if created is not None:
        raise StoreError(
            f"this image was withdrawn on {created[:10]}: nothing more is stored of it; open another"
        )
    created = turned_away.get(frame["pixels_hash"]) or _find_set_apart(connection, frame["id"])
    if created is not None:
        raise StoreError(
            f"an image of this patient was withdrawn on {created[:10]}: nothing new is stored of them; "
            "open another"
        )


def find_withdrawal(connection: Connection, patient: str) -> str | None:
    """Tell when a frame of a patient was withdrawn, the first of them; None if none was.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        In a transaction.
    patient : str
        From `sonoloop.store.drawing.hash_patient`.
    """
    query = (
        select(TOMBSTONES.c.created)
        .join(_KIN, _KIN.c.frame_id == TOMBSTONES.c.frame_id)
        .where(_KIN.c.patient == patient)
        .order_by(TOMBSTONES.c.number)
        .limit(1)
    )
    created: str | None = connection.scalar(query)
    return created


def is_refused(
    connection: Connection, member: Row[Any] | None, pixels_hash: str, patient: str | None
) -> bool:
    """Tell whether nothing is stored of a frame: it was withdrawn, or is news of a withdrawn patient.

    A frame that was known as the patient's when another one of theirs was withdrawn, by its id alone, is no
    news, and stays.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        In a transaction.
    member : sqlalchemy.Row, optional
        From `sonoloop.store.placing.read_member`.
    pixels_hash : str
        Of the frame.
    patient : str, optional
        The patient's hash, where it is told.
    """
    if connection.scalar(select(has_withdrawn_pixels(pixels_hash))):
        return True
    if member is not None and member.patient is not None:
        return bool(member.bridges) and find_withdrawal(connection, member.patient) is not None
    return patient is not None and find_withdrawal(connection, patient) is not None


def set_apart(connection: Connection, pixels_hash: str, patient: str) -> None:
    """Have the frames of these pixels take no part: they turned out to be a withdrawn patient's.

    Their masks stay, since the number that was told may be wrong; withdrawing the patient again erases them.
    """
    same = select(FRAMES.c.id).where(FRAMES.c.pixels_hash == pixels_hash)
    own = (MEMBERS.c.frame_id.in_(same), not_(is_withdrawn(MEMBERS.c.frame_id)))
    known = func.coalesce(MEMBERS.c.patient, patient)
    connection.execute(update(MEMBERS).where(*own).values(bridges=True, patient=known))


def _find_set_apart(connection: Connection, frame_id: str) -> str | None:
    query = select(MEMBERS.c.patient).where(MEMBERS.c.frame_id == frame_id, MEMBERS.c.bridges)
    patient = connection.scalar(query)
    return None if patient is None else find_withdrawal(connection, patient)
