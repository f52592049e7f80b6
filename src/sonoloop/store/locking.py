"""A project locked to the model in use, for a study."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, insert, select

from sonoloop.errors import StoreError
from sonoloop.store.model_rows import (
    LOCKED,
    UNLOCKED,
    ModelRow,
    add_mark,
    check_who,
    check_why,
    hold,
    known_model,
    read_in_use,
)
from sonoloop.store.tables import PROMOTIONS, SETTINGS

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore

_LOCK = "locked_model"


def locked_version(store: CorrectionStore) -> str | None:
    """Tell to which version the project is locked; None if it is not.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    with store.reading() as connection:
        return read_lock(connection)


def lock(store: CorrectionStore, version: str, *, who: str, why: str) -> ModelRow:
    """Keep the model in use for a study: until `unlock`, nothing else is promoted, by nobody.

    Raises
    ------
    StoreError
        If it is not the model in use, the project is locked already, or no reason is given.
    ValueError
        If nobody is named.
    """
    check_who(who)
    check_why(why)
    with store.writing() as connection:
        hold(connection, PROMOTIONS)
        known = known_model(connection, version)
        if read_in_use(connection) != version:
            raise StoreError(f"{known.model} is not in use: use it first, then lock the project to it")
        locked = read_lock(connection)
        if locked is not None:
            raise StoreError(f"the project is locked to {known_model(connection, locked).model} already")
        # a row of null may stand there, where settings were written as a whole
        connection.execute(delete(SETTINGS).where(SETTINGS.c.key == _LOCK))
        connection.execute(insert(SETTINGS).values(key=_LOCK, value=json.dumps(version)))
        add_mark(connection, version, LOCKED, why=why, who=who)
        return known_model(connection, version)


def unlock(store: CorrectionStore, *, who: str, why: str) -> ModelRow:
    """Let models be promoted again.

    Returns
    -------
    ModelRow
        The one that the project was locked to.

    Raises
    ------
    StoreError
        If the project is not locked, or no reason is given.
    ValueError
        If nobody is named.
    """
    check_who(who)
    check_why(why)
    with store.writing() as connection:
        hold(connection, PROMOTIONS)
        locked = read_lock(connection)
        if locked is None:
            raise StoreError("the project is not locked to a model")
        connection.execute(delete(SETTINGS).where(SETTINGS.c.key == _LOCK))
        add_mark(connection, locked, UNLOCKED, why=why, who=who)
        return known_model(connection, locked)


def read_lock(connection: Connection) -> str | None:
    """Read to which version the project is locked, inside a transaction."""
    value = connection.scalar(select(SETTINGS.c.value).where(SETTINGS.c.key == _LOCK))
    version: str | None = None if value is None else json.loads(value)
    return version


def check_lock(connection: Connection, wanted: ModelRow) -> None:
    """Refuse another model than the one that the project is locked to.

    Raises
    ------
    StoreError
        If it is locked to another one.
    """
    locked = read_lock(connection)
    if locked is not None and locked != wanted.version:
        name = known_model(connection, locked).model
        raise StoreError(
            f"the project is locked to {name}: {wanted.model} cannot be used until it is unlocked, as with: "
            "sonoloop models unlock --why REASON"
        )
