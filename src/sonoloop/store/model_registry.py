"""The models that a project knows: where each comes from, and what became of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import Connection, insert, select

from sonoloop.errors import StoreError
from sonoloop.store.database import Database, check_who, hold, in_batches, now, values_of
from sonoloop.store.tables import MARKS, MODELS, PROMOTIONS, REVISIONS, SNAPSHOT_MEMBERS

Origin = Literal["shipped", "tuned", "trained", "imported"]

REFUSED, PASSED = "refused", "passed"  # by the gate; the second only after the first
LEAKED = "leaked"  # it trained on a frame that tests
DELETED, RESTORED = "deleted", "restored"  # its bundle, on purpose
LOCKED, UNLOCKED = "locked", "unlocked"  # the project, to it
CALIBRATED = "calibrated"  # its numbers were fitted on frames that test

_MARK = re.compile(r"[a-z][a-z -]{0,15}")
_VERSION = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that became of a model: one of this module's words or another, why, who and when (UTC)."""

    version: str
    mark: str
    why: str
    who: str
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A model as the store knows it; the bundle itself lies in `sonoloop.models.library.Library`."""

    # 64 hex digits
    version: str
    # the id that users see: the name and the version's first digits
    model: str
    # the version it was tuned from, and the snapshot it learned from
    parent: str | None
    snapshot: str | None
    origin: Origin
    who: str
    created: datetime
    marks: tuple[Mark, ...] = ()

    @property
    def is_deleted(self) -> bool:
        """Whether its bundle was deleted, and not brought back since."""
        return self._last_of(DELETED, RESTORED) == DELETED

    @property
    def standing(self) -> tuple[str, ...]:
        """Its marks that hold today, each once.

        A model that was brought back is not deleted, and one that was found better later is not refused.
        """
        words = dict.fromkeys(mark.mark for mark in self.marks)
        for made, undone in ((REFUSED, PASSED), (DELETED, RESTORED), (LOCKED, UNLOCKED)):
            words.pop(undone, None)
            if self._last_of(made, undone) == undone:
                words.pop(made, None)
        return tuple(words)

    def _last_of(self, *words: str) -> str | None:
        return next((mark.mark for mark in reversed(self.marks) if mark.mark in words), None)


def register(
    store: Database,
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
    """
    with store.writing() as connection:
        return add_model(
            connection, version=version, model=model, origin=origin, who=who, parent=parent, snapshot=snapshot
        )


def list_models(store: Database) -> tuple[ModelRow, ...]:
    """List all models that the project ever knew, in the order in which they came."""
    with store.reading() as connection:
        return select_models(connection)


def find_model(store: Database, name: str) -> ModelRow:
    """Find a model by what a person calls it."""
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


def mark(store: Database, version: str, word: str, *, why: str, who: str) -> ModelRow:
    """Put on record what became of a model; marks are never taken away."""
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


# What follows works inside a transaction.


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
    """Do what `register` does."""
    for digits in (version, parent):
        if digits is not None and not _VERSION.fullmatch(digits):
            raise ValueError(f"a version has 64 hex digits, got {digits!r}")
    if origin not in get_args(Origin):
        raise ValueError(f"origin must be one of {', '.join(get_args(Origin))}, got {origin!r}")
    who = check_who(who)
    hold(connection, MODELS)
    known = select_models(connection, version)
    if not known:
        row = {"version": version, "model": model, "parent": parent, "snapshot": snapshot}
        connection.execute(insert(MODELS).values(**row, origin=origin, who=who, created=now()))
    elif known[0].is_deleted:
        add_mark(connection, version, RESTORED, why="added again", who=who)
    return known_model(connection, version)


def add_mark(connection: Connection, version: str, word: str, *, why: str, who: str) -> None:
    """Add a mark."""
    if not _MARK.fullmatch(word):
        raise ValueError(f"a mark is a word of at most 16 small letters, got {word!r}")
    who = check_who(who)
    connection.execute(insert(MARKS).values(version=version, mark=word, why=why, who=who, created=now()))


def known_model(connection: Connection, version: str) -> ModelRow:
    """Read a model that must be there."""
    rows = select_models(connection, version)
    if not rows:
        raise StoreError(f"the project knows no model of version {version[:8]}: register it first")
    return rows[0]


def select_models(connection: Connection, version: str | None = None) -> tuple[ModelRow, ...]:
    """Read all models in the order in which they came, or the one of a version."""
    models = select(MODELS).order_by(MODELS.c.created, MODELS.c.version)
    words = select(*(MARKS.c[name] for name in Mark.__slots__)).order_by(MARKS.c.number)
    if version is not None:
        models, words = models.where(MODELS.c.version == version), words.where(MARKS.c.version == version)
    marks: dict[str, list[Mark]] = {}
    for row in connection.execute(words):
        marks.setdefault(row.version, []).append(Mark(**values_of(row)))
    return tuple(
        ModelRow(**values_of(row), marks=tuple(marks.get(row.version, ())))
        for row in connection.execute(models)
    )


def read_in_use(connection: Connection) -> str | None:
    """Read the version in use; None before the first promotion."""
    last = select(PROMOTIONS.c.version).order_by(PROMOTIONS.c.number.desc()).limit(1)
    version: str | None = connection.scalar(last)
    return version


def snapshots_with(
    connection: Connection, frame_ids: Iterable[str], *, role: Literal["train", "test"] | None = None
) -> list[str]:
    """Name the snapshots that hold a revision of any of these frames."""
    found: set[str] = set()
    for batch in in_batches(frame_ids):
        query = (
            select(SNAPSHOT_MEMBERS.c.snapshot)
            .distinct()
            .join(REVISIONS, REVISIONS.c.id == SNAPSHOT_MEMBERS.c.revision_id)
            .where(REVISIONS.c.frame_id.in_(batch))
        )
        if role is not None:
            query = query.where(SNAPSHOT_MEMBERS.c.role == role)
        found.update(connection.scalars(query))
    return sorted(found)


def models_from(connection: Connection, snapshots: Iterable[str]) -> list[str]:
    """Name the models that learned from any of these snapshots, and those tuned from such a model."""
    rows, wanted = select_models(connection), set(snapshots)
    found = {row.version for row in rows if row.snapshot in wanted}
    # a clock set back may put a child before its parent
    while grown := {row.version for row in rows if row.parent in found} - found:
        found |= grown
    return [row.version for row in rows if row.version in found]
