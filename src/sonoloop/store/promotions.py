"""Which model is in use: a row that only promotions and rollbacks add, each in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, delete, insert, select

from sonoloop.crash_points import crash_here
from sonoloop.errors import ConflictError, StoreError
from sonoloop.store.database import Database, check_who, check_why, hold, now, values_of
from sonoloop.store.model_registry import (
    LOCKED,
    UNLOCKED,
    ModelRow,
    add_mark,
    add_model,
    known_model,
    read_in_use,
    select_models,
)
from sonoloop.store.settings import read_value, write_value
from sonoloop.store.tables import LOOKS, PROMOTIONS, SETTINGS

Kind = Literal["first", "gate", "use", "rollback"]

_LOCK = "locked_model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One move of the pointer."""

    number: int
    # in use from then on
    version: str
    previous: str | None
    # "gate": it was found better, "use": a person decided
    kind: Kind
    # the number of the evaluation that decided
    look: int | None
    why: str
    who: str
    created: datetime


def incumbent(store: Database) -> Promotion | None:
    """Tell which model is in use, and since when."""
    with store.reading() as connection:
        return _last_move(connection)


def history(store: Database) -> tuple[Promotion, ...]:
    """List every move of the pointer, the first one first."""
    with store.reading() as connection:
        return _all_moves(connection)


def ensure_incumbent(store: Database, *, version: str, model: str, who: str) -> Promotion:
    """Tell which model is in use; in a project that has none, that is the shipped one from now on."""
    last = incumbent(store)
    if last is not None:
        return last
    with store.writing() as connection:
        hold(connection, PROMOTIONS)
        last = _last_move(connection)
        if last is not None:
            return last
        add_model(connection, version=version, model=model, origin="shipped", who=who)
        return move_pointer(connection, version, kind="first", look=None, why="ships with Sonoloop", who=who)


def promote(
    store: Database,
    version: str,
    *,
    kind: Kind,
    who: str,
    why: str,
    look: int | None = None,
    expected: str | None,
) -> Promotion:
    """Put a model into use. Verify its bundle first: the store cannot."""
    if kind not in ("first", "gate", "use"):
        raise ValueError(f"kind must be first, gate or use, got {kind!r}")
    who = check_who(who)
    check_why(why)
    with store.writing() as connection:
        hold(connection, PROMOTIONS)
        known = known_model(connection, version)
        _check_unmoved(connection, expected)
        if known.is_deleted:
            raise StoreError(f"{known.model} was deleted: import it again, then use it")
        if version == expected:
            raise StoreError(f"{known.model} is in use already")
        check_lock(connection, known)
        _check_look(connection, look, kind=kind, version=version, incumbent=expected)
        moved = move_pointer(connection, version, kind=kind, look=look, why=why, who=who)
        # written, and not committed
        crash_here("before-promote")
    crash_here("after-promote")
    return moved


def _check_unmoved(connection: Connection, expected: str | None) -> None:
    present = read_in_use(connection)
    if present != expected:
        name = "none" if present is None else known_model(connection, present).model
        raise ConflictError(
            f"the model in use was changed meanwhile, it is {name} now: look at it, and decide again"
        )


def _check_look(
    connection: Connection, look: int | None, *, kind: Kind, version: str, incumbent: str | None
) -> None:
    if look is None:
        if kind == "gate":
            raise StoreError("the gate promotes by a look at a test set: name the look")
        return
    row = connection.execute(select(LOOKS).where(LOOKS.c.number == look)).one_or_none()
    if row is None or (row.candidate, row.incumbent) != (version, incumbent):
        raise StoreError(f"look {look} did not compare this model with the one in use: judge it again")
    if kind != "gate":
        return
    last = connection.execute(
        select(LOOKS)
        .where(LOOKS.c.candidate == version, LOOKS.c.incumbent == incumbent)
        .order_by(LOOKS.c.number.desc())
        .limit(1)
    ).one()
    if last.verdict != "promote":
        raise StoreError(f"look {last.number} said {last.verdict}, not promote: {last.reason}")
    if last.number != look:
        raise StoreError(f"the two were compared again since look {look}: go by look {last.number}")


def rollback_target(store: Database) -> ModelRow | None:
    """Tell which model `rollback` would put back into use; None where there is none before."""
    with store.reading() as connection:
        return _before(connection)


def rollback(store: Database, *, who: str, why: str, to: str | None = None) -> Promotion:
    """Put the model back into use that was before the present one; again for the one before that.

    Verify its bundle first, as for `promote`.
    """
    who = check_who(who)
    check_why(why)
    with store.writing() as connection:
        hold(connection, PROMOTIONS)
        target = _before(connection)
        if target is None:
            raise StoreError("no model was in use before this one that is still there: nothing to go back to")
        if to is not None and target.version != to:
            raise ConflictError("the model in use was changed meanwhile: look which one it is, and try again")
        check_lock(connection, target)
        return move_pointer(connection, target.version, kind="rollback", look=None, why=why, who=who)


def _before(connection: Connection) -> ModelRow | None:
    models = {row.version: row for row in select_models(connection)}
    way = _unwind(_all_moves(connection))
    for version in reversed(way[:-1]):
        if version != way[-1] and not models[version].is_deleted:
            return models[version]
    return None


def _unwind(moves: Sequence[Promotion]) -> list[str]:
    """List the versions that lead to the one in use; what was rolled back is off the way."""
    way: list[str] = []
    for move in moves:
        if move.kind == "rollback" and move.version in way[:-1]:
            way.pop()
            while way[-1] != move.version:
                way.pop()
        else:
            way.append(move.version)
    return way


def locked_version(store: Database) -> str | None:
    """Tell to which version the project is locked; None if it is not."""
    with store.reading() as connection:
        return _read_lock(connection)


def lock(store: Database, version: str, *, who: str, why: str) -> ModelRow:
    """Keep the model in use for a study: until `unlock`, nothing else is promoted, by nobody."""
    who = check_who(who)
    check_why(why)
    with store.writing() as connection:
        hold(connection, PROMOTIONS)
        known = known_model(connection, version)
        if read_in_use(connection) != version:
            raise StoreError(f"{known.model} is not in use: use it first, then lock the project to it")
        locked = _read_lock(connection)
        if locked is not None:
            raise StoreError(f"the project is locked to {known_model(connection, locked).model} already")
        write_value(connection, _LOCK, version)
        add_mark(connection, version, LOCKED, why=why, who=who)
        return known_model(connection, version)


def unlock(store: Database, *, who: str, why: str) -> ModelRow:
    """Let models be promoted again."""
    who = check_who(who)
    check_why(why)
    with store.writing() as connection:
        hold(connection, PROMOTIONS)
        locked = _read_lock(connection)
        if locked is None:
            raise StoreError("the project is not locked to a model")
        connection.execute(delete(SETTINGS).where(SETTINGS.c.key == _LOCK))
        add_mark(connection, locked, UNLOCKED, why=why, who=who)
        return known_model(connection, locked)


def check_lock(connection: Connection, wanted: ModelRow) -> None:
    """Refuse another model than the one that the project is locked to."""
    locked = _read_lock(connection)
    if locked is not None and locked != wanted.version:
        name = known_model(connection, locked).model
        raise StoreError(
            f"the project is locked to {name}: {wanted.model} cannot be used until it is unlocked, as with: "
            "sonoloop models unlock --why REASON"
        )


def _read_lock(connection: Connection) -> str | None:
    version: str | None = read_value(connection, _LOCK)
    return version


def move_pointer(
    connection: Connection, version: str, *, kind: Kind, look: int | None, why: str, who: str
) -> Promotion:
    """Put a version into use, inside a writing transaction that holds the moves."""
    row = {"version": version, "previous": read_in_use(connection), "kind": kind, "look": look}
    query = insert(PROMOTIONS).values(**row, why=why, who=who, created=now()).returning(*PROMOTIONS.c)
    return Promotion(**values_of(connection.execute(query).one()))


def _last_move(connection: Connection) -> Promotion | None:
    query = select(PROMOTIONS).order_by(PROMOTIONS.c.number.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else Promotion(**values_of(row))


def _all_moves(connection: Connection) -> tuple[Promotion, ...]:
    rows = connection.execute(select(PROMOTIONS).order_by(PROMOTIONS.c.number))
    return tuple(Promotion(**values_of(row)) for row in rows)
