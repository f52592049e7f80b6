"""Models as rows of the store, each step inside the transaction that it is given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Table, insert, select, text

from sonoloop.errors import StoreError
from sonoloop.store.tables import MARKS, MODELS, PROMOTIONS

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


def check_who(who: str) -> None:
    """Refuse what names nobody.

    Raises
    ------
    ValueError
        If it is blank.
    """
    if not who.strip():
        raise ValueError("say who: the pseudonym of the person")


def check_why(why: str) -> None:
    """Refuse a change without its reason.

    Raises
    ------
    StoreError
        If it is blank.
    """
    if not why.strip():
        raise StoreError("say why: the reason is kept beside the change")


def now() -> str:
    """Return the time as the store keeps it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def known_model(connection: Connection, version: str) -> ModelRow:
    """Read a model, inside a transaction.

    Raises
    ------
    StoreError
        If it is not known.
    """
    row = select_model(connection, version)
    if row is None:
        raise StoreError(f"the project knows no model of version {version[:8]}: register it first")
    return row


def read_in_use(connection: Connection) -> str | None:
    """Read the version in use, inside a transaction; None before the first promotion."""
    last = select(PROMOTIONS.c.version).order_by(PROMOTIONS.c.number.desc()).limit(1)
    version: str | None = connection.scalar(last)
    return version


def hold(connection: Connection, table: Table) -> None:
    """Keep others from adding to a table until this writing transaction ends."""
    if connection.dialect.name == "postgresql":
        # SQLite has one writer at a time; here two could read the same last row and both add theirs
        connection.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))


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
