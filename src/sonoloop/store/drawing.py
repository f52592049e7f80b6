"""Chance that can be repeated: keyed hashes name groups without naming anybody, and draw their roles."""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal

from sqlalchemy import Connection, Select, exists, func, not_, or_, select

from sonoloop.store.revisions import is_withdrawn
from sonoloop.store.settings import StoreSettings
from sonoloop.store.tables import GROUPS, HEADS, MEMBERS, REVISIONS

GroupRole = Literal["train", "test"]
Role = Literal["train", "test", "neither"]


def hash_patient(secret: bytes, patient: str) -> str:
    """Hash a patient's number with the store's secret; 64 hex digits."""
    return _hash(secret, "patient", patient.strip())


def hash_alone(secret: bytes, frame_id: str) -> str:
    """Name the group of a frame that begins one of its own; 64 hex digits."""
    return _hash(secret, "frame", frame_id)


def draw_role(connection: Connection, settings: StoreSettings, *, secret: bytes, group_id: str) -> GroupRole:
    """Draw what a new group is for.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        In a writing transaction in which nobody else adds groups.
    settings : StoreSettings
        The shares and the cap.
    secret : bytes
        The store's.
    group_id : str
        The group.
    """
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
