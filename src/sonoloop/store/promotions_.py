"""Moves of the pointer as rows of the store, each step inside the transaction that it is given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import Connection, insert, select

from sonoloop.store.model_rows import now, read_in_use
from sonoloop.store.tables import PROMOTIONS

Kind = Literal["first", "gate", "use", "rollback"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_LAST = select(PROMOTIONS).order_by(PROMOTIONS.c.number.desc()).limit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One move of the pointer.

    Parameters
    ----------
    number : int
        Their order.
    version : str
        The model in use from then on.
    previous : str, optional
        The one that was in use before.
    kind : str
        "first", "gate" (it was found better), "use" (a person decided) or "rollback".
    look : int, optional
        The look at a test set that decided; see `sonoloop.store.test_sets.Look`.
    why, who : str
        The reason, and the pseudonym of the person.
    created : datetime.datetime
        When, in UTC.
    """

    number: int
    version: str
    previous: str | None
    kind: Kind
    look: int | None
    why: str
    who: str
    created: datetime


def move_pointer(
    connection: Connection, version: str, *, kind: Kind, look: int | None, why: str, who: str
) -> Promotion:
    """Put a version into use, inside a writing transaction that holds the moves."""
    row = {
        "version": version,
        "previous": read_in_use(connection),
        "kind": kind,
        "look": look,
        "why": why,
        "who": who,
        "created": now(),
    }
    connection.execute(insert(PROMOTIONS).values(row))
    return _read(connection.execute(_LAST).one())


def last_move(connection: Connection) -> Promotion | None:
    """Read the last move; None before the first."""
    row = connection.execute(_LAST).one_or_none()
    return None if row is None else _read(row)


def all_moves(connection: Connection) -> tuple[Promotion, ...]:
    """Read every move, the first one first."""
    return tuple(_read(row) for row in connection.execute(select(PROMOTIONS).order_by(PROMOTIONS.c.number)))


def _read(row: Any) -> Promotion:  # noqa: ANN401 - a database's row
    values = dict(row._mapping)
    return Promotion(**{**values, "created": datetime.fromisoformat(values["created"])})
