"""Connections to the store: durable, and locking only where they write."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event

from sonoloop.store.database import is_file

LOCK_TIMEOUT_MS = 10_000

# EXTRA also syncs the folder after the journal is deleted, which is the commit; memory maps hide I/O errors.
_PRAGMAS = (f"PRAGMA busy_timeout={LOCK_TIMEOUT_MS}", "PRAGMA mmap_size=0", "PRAGMA synchronous=EXTRA")
_BOUND_WAITING = [
    f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}",
    # A server may be set to answer before the disk has it; an Accept that returned is on disk.
    "SET LOCAL synchronous_commit = on",
]
# WAL can corrupt a database in SQLite 3.7.0 to 3.51.2 (https://sqlite.org/wal.html, the WAL-reset bug).
_JOURNAL = "PRAGMA journal_mode=DELETE"


def create_store_engine(url: URL, *, known: bool = True, foreign_keys: bool = True) -> Engine:
    """Make the engine for reading; `for_writing` makes its twin.

    Parameters
    ----------
    url : sqlalchemy.URL
        From `sonoloop.store.database.read_location`.
    known : bool
        Whether the file is known to be a store of ours: only then its journal mode, which is kept in the
        file, may be changed.
    foreign_keys : bool
        False for migrations on SQLite, which rebuild tables; they check the keys before they commit.

    Returns
    -------
    sqlalchemy.Engine
        Nothing is opened yet. Values never appear in its errors: they may say who wrote what.
    """
    if is_file(url):
        # No pool: an open costs less than a commit, and no connection outlives a fork or keeps a file open.
        engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
        pragmas = [*_PRAGMAS, f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}"]
        _configure_sqlite(engine, [*pragmas, _JOURNAL] if known else pragmas)
        reading, writing = ["BEGIN"], ["BEGIN IMMEDIATE"]
    else:
        engine = create_engine(
            url, pool_pre_ping=True, hide_parameters=True, connect_args={"connect_timeout": 10}
        )
        reading, writing = [], _BOUND_WAITING

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        for statement in writing if connection.get_execution_options().get("writing") else reading:
            connection.exec_driver_sql(statement)

    return engine


def for_writing(engine: Engine) -> Engine:
    """Make the twin of an engine whose transactions are ready to write from their beginning.

    On SQLite they take the write lock at once: one that reads first and writes later fails as soon as
    another has written in between. On PostgreSQL rows are locked instead, and waiting for them is bounded.

    Parameters
    ----------
    engine : sqlalchemy.Engine
        From `create_store_engine`.

    Returns
    -------
    sqlalchemy.Engine
        Shares the connections of the first.
    """
    return engine.execution_options(writing=True)


def _configure_sqlite(engine: Engine, pragmas: list[str]) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:  # noqa: ANN401 - a driver's own connection
        connection.isolation_level = None  # SQLAlchemy's recipe: the driver must not begin by itself
        for pragma in pragmas:
            connection.execute(pragma)
