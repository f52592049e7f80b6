"""The models that a project knows: where each comes from, and what became of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert

from sonoloop.errors import StoreError
from sonoloop.store.model_rows import (
    DELETED,
    LEAKED,
    LOCKED,
    ORIGINS,
    PASSED,
    REFUSED,
    RESTORED,
    UNLOCKED,
    Mark,
    ModelRow,
    Origin,
    add_mark,
    check_who,
    hold,
    known_model,
    now,
    read_in_use,
    select_model,
    select_models,
)
from sonoloop.store.tables import MODELS, PROMOTIONS

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore

__all__ = [
    "DELETED",
    "LEAKED",
    "LOCKED",
    "ORIGINS",
    "PASSED",
    "REFUSED",
    "RESTORED",
    "UNLOCKED",
    "Mark",
    "ModelRow",
    "Origin",
    "add_model",
    "find_model",
    "list_models",
    "mark",
    "register",
]

_VERSION = re.compile(r"[0-9a-f]{64}")


def register(
    store: CorrectionStore,
    *,
    version: str,
    model: str,
    origin: Origin,
    who: str,
    parent: str | None = None,
    snapshot: str | None = None,
) -> ModelRow:
    """Make a model known; one that is known already stays as it is, and one that was deleted is back.

    Its bundle is added to the library first: what the store names can be loaded.

    Parameters
    ----------
    store : CorrectionStore
        Where.
    version, model, origin, who, parent, snapshot
        See `ModelRow`.

    Returns
    -------
    ModelRow
        As it is stored.

    Raises
    ------
    StoreError
        If the store cannot be written to, or has no such snapshot.
    ValueError
        If a version is no SHA-256, the origin is unknown, or nobody is named.
    """
    with store.writing() as connection:
        return add_model(
            connection,
            version=version,
            model=model,
            origin=origin,
            who=who,
            parent=parent,
            snapshot=snapshot,
        )


def add_model(
    connection: Connection,
    *,
    version: str,
    model: str,
    origin: Origin,
    who: str,
    parent: str | None = None,
    snapshot: str | None = None,
) -> ModelRow:
    """Do what `register` does, inside a writing transaction."""
    for digits in (version, parent):
        if digits is not None and not _VERSION.fullmatch(digits):
            raise ValueError(f"a version has 64 hex digits, got {digits!r}")
    if origin not in ORIGINS:
        raise ValueError(f"origin must be one of {', '.join(ORIGINS)}, got {origin!r}")
    check_who(who)
    hold(connection, MODELS)
    known = select_model(connection, version)
    if known is None:
        row = {
            "version": version,
            "model": model,
            "parent": parent,
            "snapshot": snapshot,
            "origin": origin,
            "who": who,
            "created": now(),
        }
        connection.execute(insert(MODELS).values(row))
        return known_model(connection, version)
    if known.is_deleted:
        add_mark(connection, version, RESTORED, why="added again", who=who)
        return known_model(connection, version)
    return known


def list_models(store: CorrectionStore) -> tuple[ModelRow, ...]:
    """List all models that the project ever knew, in the order in which they came.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    with store.reading() as connection:
        return select_models(connection)


def find_model(store: CorrectionStore, name: str) -> ModelRow:
    """Find a model by what a person calls it.

    Parameters
    ----------
    store : CorrectionStore
        Where.
    name : str
        The model's id or its beginning, or the first digits of its version.

    Returns
    -------
    ModelRow
        The one that is meant.

    Raises
    ------
    StoreError
        If there is none, or several; they are named.
    """
    rows = list_models(store)
    exact = [row for row in rows if name in (row.version, row.model)]
    if len(exact) == 1:
        return exact[0]
    found = [row for row in rows if name and (row.version.startswith(name) or row.model.startswith(name))]
    if len(found) == 1:
        return found[0]
    if found:
        raise StoreError(f"{name!r} is the beginning of several models: {_name_all(found)}; give more of it")
    raise StoreError(
        f"the project knows no model {name!r}; it knows {_name_all(rows)}; bring in another one with: "
        "sonoloop models import FILE"
    )


def mark(store: CorrectionStore, version: str, word: str, *, why: str, who: str) -> ModelRow:
    """Put on record what became of a model; marks are never taken away.

    Parameters
    ----------
    store : CorrectionStore
        Where.
    version : str
        Of a registered model.
    word : str
        Such as `REFUSED`; at most 16 small letters.
    why, who : str
        The reason, and the pseudonym of the person.

    Returns
    -------
    ModelRow
        With its marks.

    Raises
    ------
    StoreError
        If there is no such model, or it is to be marked as deleted and is the one in use.
    ValueError
        If the word is none, or nobody is named.
    """
    with store.writing() as connection:
        known = known_model(connection, version)
        hold(connection, PROMOTIONS)
        if word == DELETED and read_in_use(connection) == version:
            raise StoreError(f"{known.model} is in use: use another model first, then delete it")
        if word == DELETED and known.origin == "shipped":
            raise StoreError(f"{known.model} comes with Sonoloop and cannot be deleted")
        add_mark(connection, version, word, why=why, who=who)
        return known_model(connection, version)


def _name_all(rows: Sequence[ModelRow]) -> str:
    return ", ".join(row.model for row in rows) or "none"
