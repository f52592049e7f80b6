"""The models that a project knows: where each comes from, and what became of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlalchemy import Connection, insert, select

from sonoloop.errors import StoreError
from sonoloop.store.database import check_who, hold, now
from sonoloop.store.tables import MARKS, MODELS, PROMOTIONS, REVISIONS, SNAPSHOT_MEMBERS

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore


Origin = Literal["shipped", "tuned", "trained", "imported"]
ORIGINS: tuple[Origin, ...] = get_args(Origin)

REFUSED, PASSED = "refused", "passed"  # by the gate; the second only after the first
LEAKED = "leaked"  # it trained on a frame that judges
DELETED, RESTORED = "deleted", "restored"  # its bundle, on purpose
LOCKED, UNLOCKED = "locked", "unlocked"  # the project, to it

_MARK = re.compile(r"[a-z][a-z -]{0,15}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that became of a model.

    Parameters
    ----------
    version : str
        Of the model.
    mark : str
        One of this module's words, such as "refused" or "deleted", or another.
    why, who : str
        The reason, and the pseudonym of the person.
    created : datetime.datetime
        When, in UTC.
    """

    version: str
    mark: str
    why: str
    who: str
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A model as the store knows it; the bundle itself lies in `sonoloop.models.library.Library`.

    Parameters
    ----------
    version : str
        64 hex digits; see `sonoloop.models.card.Card.version`.
    model : str
        The id that users see: the name and the version's first digits.
    parent : str, optional
        Version of the model it was tuned from.
    snapshot : str, optional
        Name of the snapshot it learned from.
    origin : str
        One of `ORIGINS`.
    who : str
        Pseudonym of the person who made or brought it.
    created : datetime.datetime
        When it was registered, in UTC.
    marks : tuple of Mark
        In their order.
    """

    version: str
    model: str
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


def add_mark(connection: Connection, version: str, word: str, *, why: str, who: str) -> None:
    """Add a mark, inside a writing transaction."""
    if not _MARK.fullmatch(word):
        raise ValueError(f"a mark is a word of at most 16 small letters, got {word!r}")
    check_who(who)
    connection.execute(insert(MARKS).values(version=version, mark=word, why=why, who=who, created=now()))


def select_model(connection: Connection, version: str) -> ModelRow | None:
    """Read a model, inside a transaction; None if it is not known."""
    row = connection.execute(select(MODELS).where(MODELS.c.version == version)).one_or_none()
    if row is None:
        return None
    marks = connection.execute(select(MARKS).where(MARKS.c.version == version).order_by(MARKS.c.number))
    return _read(dict(row._mapping), [_read_mark(mark) for mark in marks])


def select_models(connection: Connection) -> tuple[ModelRow, ...]:
    """Read all models, inside a transaction."""
    marks: dict[str, list[Mark]] = {}
    for row in connection.execute(select(MARKS).order_by(MARKS.c.number)):
        marks.setdefault(row.version, []).append(_read_mark(row))
    rows = connection.execute(select(MODELS).order_by(MODELS.c.created, MODELS.c.version))
    return tuple(_read(dict(row._mapping), marks.get(row.version, ())) for row in rows)


def known_model(connection: Connection, version: str) -> ModelRow:
    """Read a model, inside a transaction."""
    row = select_model(connection, version)
    if row is None:
        raise StoreError(f"the project knows no model of version {version[:8]}: register it first")
    return row


def read_in_use(connection: Connection) -> str | None:
    """Read the version in use, inside a transaction; None before the first promotion."""
    last = select(PROMOTIONS.c.version).order_by(PROMOTIONS.c.number.desc()).limit(1)
    version: str | None = connection.scalar(last)
    return version


def _read(row: dict[str, Any], marks: Sequence[Mark]) -> ModelRow:
    return ModelRow(**{**row, "created": datetime.fromisoformat(row["created"])}, marks=tuple(marks))


def _read_mark(row: Any) -> Mark:  # noqa: ANN401 - a database's row
    return Mark(
        version=row.version,
        mark=row.mark,
        why=row.why,
        who=row.who,
        created=datetime.fromisoformat(row.created),
    )


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
    """List all models that the project ever knew, in the order in which they came."""
    with store.reading() as connection:
        return select_models(connection)


def find_model(store: CorrectionStore, name: str) -> ModelRow:
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


def mark(store: CorrectionStore, version: str, word: str, *, why: str, who: str) -> ModelRow:
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


_BATCH = 500


def snapshots_with(
    connection: Connection, frame_ids: Iterable[str], *, role: Literal["train", "test"] | None = None
) -> list[str]:
    """Name the snapshots that hold a revision of any of these frames."""
    ids = list(frame_ids)
    found: set[str] = set()
    for start in range(0, len(ids), _BATCH):
        query = (
            select(SNAPSHOT_MEMBERS.c.snapshot)
            .distinct()
            .join(REVISIONS, REVISIONS.c.id == SNAPSHOT_MEMBERS.c.revision_id)
            .where(REVISIONS.c.frame_id.in_(ids[start : start + _BATCH]))
        )
        if role is not None:
            query = query.where(SNAPSHOT_MEMBERS.c.role == role)
        found.update(connection.scalars(query))
    return sorted(found)


def models_from(connection: Connection, snapshots: Iterable[str]) -> list[str]:
    """Name the models that learned from any of these snapshots, and those tuned from such a model."""
    wanted = set(snapshots)
    rows = connection.execute(
        select(MODELS.c.version, MODELS.c.parent, MODELS.c.snapshot).order_by(
            MODELS.c.created, MODELS.c.version
        )
    ).all()
    found = {row.version for row in rows if row.snapshot in wanted}
    # a clock set back may put a child before its parent
    while grown := {row.version for row in rows if row.parent in found} - found:
        found |= grown
    return [row.version for row in rows if row.version in found]
