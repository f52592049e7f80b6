"""Looking for damage: the database's own check, its guards, and every mask against its hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from sqlalchemy import Row, Select, func, or_, select, text

from sonoloop.errors import StoreError
from sonoloop.store.database import Database, Tell, tell_nobody
from sonoloop.store.revisions import (
    hash_prediction,
    is_withdrawn,
    read_prediction,
    read_revision,
    select_revisions,
)
from sonoloop.store.tables import APPEND_ONLY, FRAME_MARKS, HEADS, MEMBERS, NOTES, PREDICTIONS, REVISIONS

_BATCH = 64
_GUARDED = ", ".join(f"to_regclass('{table}')" for table in APPEND_ONLY)
_GUARDS = {
    "sqlite": ("SELECT name FROM sqlite_master WHERE type = 'trigger'", ("update", "delete", "replace")),
    "postgresql": (
        f"SELECT tgname FROM pg_trigger WHERE tgenabled <> 'D' AND tgrelid IN ({_GUARDED})",
        ("update", "delete", "truncate"),
    ),
}


def find_problems(database: Database, *, tell: Tell = tell_nobody) -> list[str]:
    """Check a whole store."""
    problems: list[str] = []
    done = total = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        tell("Checking", done, total)

    checks: tuple[Callable[[Database], Iterator[str]], ...] = (
        _check_database,
        _check_guards,
        partial(_check_predictions, count=count),
        partial(_check_revisions, count=count),
        _check_members,
        _check_heads,
    )
    for check in checks:
        try:
            total = total or _count(database)
            count(0)
            problems.extend(check(database))
        except StoreError as error:  # damage that the database itself trips over
            problems.append(str(error))
    return problems


def _count(database: Database) -> int:
    with database.reading() as connection:
        tables = (PREDICTIONS, REVISIONS)
        return sum(connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables)


def _check_database(database: Database) -> Iterator[str]:
    with database.reading() as connection:
        if connection.dialect.name != "sqlite":
            return  # PostgreSQL checks its own pages; constraints cannot be bypassed there
        for row in connection.execute(text("PRAGMA integrity_check")):
            if row[0] != "ok":
                yield f"the database file is damaged: {row[0]}"
        for row in connection.execute(text("PRAGMA foreign_key_check")):
            yield f"row {row[1]} of {row[0]} belongs to a row of {row[2]} that is missing"


def _check_guards(database: Database) -> Iterator[str]:
    with database.reading() as connection:
        query, events = _GUARDS[connection.dialect.name]
        present = set(connection.scalars(text(query)))
    for table in APPEND_ONLY:
        for event in events:
            if f"{table}_no_{event}" not in present:
                yield f"the guard against changing {table} ({event}) was removed"


def _check_predictions(database: Database, *, count: Callable[[int], None]) -> Iterator[str]:
    query = (
        select(PREDICTIONS, is_withdrawn(PREDICTIONS.c.frame_id).label("withdrawn"))
        .order_by(PREDICTIONS.c.id)
        .limit(_BATCH)
    )
    last = ""
    while rows := _fetch(database, query.where(PREDICTIONS.c.id > last)):
        last = rows[-1].id
        count(len(rows))
        for row in rows:
            if row.withdrawn:
                if row.lesion or row.mask:
                    yield f"prediction {row.id}: its image was withdrawn, its maps are still there"
                continue
            try:
                found = hash_prediction(read_prediction(dict(row._mapping)))
            except StoreError as error:
                yield f"prediction {row.id}: {error}"
                continue
            if found != row.id:
                yield f"prediction {row.id}: its content is not the one that was stored"


def _check_revisions(database: Database, *, count: Callable[[int], None]) -> Iterator[str]:
    query = select_revisions().limit(_BATCH)
    last = 0
    while rows := _fetch(database, query.where(REVISIONS.c.number > last)):
        last = rows[-1].number
        count(len(rows))
        for row in rows:
            try:
                revision = read_revision(row)
            except StoreError as error:
                yield str(error)
                continue
            if revision.withdrawn:
                continue  # what its decisions followed from is erased
            decisions = (revision.correction.mask_decision, revision.correction.class_decision)
            if decisions != (row.mask_decision, row.class_decision):
                yield f"revision {row.id}: its decisions do not follow from its mask and class"


def _check_members(database: Database) -> Iterator[str]:
    """Look for what is kept of frames that were withdrawn."""
    kept = or_(func.length(MEMBERS.c.thumbnail) > 0, func.length(MEMBERS.c.bits) > 0)
    for row in _fetch(database, select(MEMBERS.c.frame_id).where(is_withdrawn(MEMBERS.c.frame_id), kept)):
        yield f"image {row.frame_id}: it was withdrawn, what knows it again is still there"
    for table, said, what in (
        (FRAME_MARKS, FRAME_MARKS.c.reason, "why it was marked"),
        (NOTES, NOTES.c.text, "a note on it"),
    ):
        left = select(table.c.frame_id).distinct().where(is_withdrawn(table.c.frame_id), said != "")
        for row in _fetch(database, left):
            yield f"image {row.frame_id}: it was withdrawn, {what} is still there"


def _check_heads(database: Database) -> Iterator[str]:
    """Look for histories that lost their head."""
    own = (HEADS.c.frame_id == REVISIONS.c.frame_id) & (HEADS.c.annotator == REVISIONS.c.annotator)
    orphans = (
        select(REVISIONS.c.id)
        .outerjoin(HEADS, own)
        .where(REVISIONS.c.parent.is_(None), HEADS.c.revision_id.is_(None))
    )
    for row in _fetch(database, orphans):
        yield f"revision {row.id} began a history that has no head"


def _fetch(database: Database, query: Select[Any]) -> list[Row[Any]]:
    with database.reading() as connection:
        return list(connection.execute(query))
