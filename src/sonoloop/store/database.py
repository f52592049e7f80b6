"""The database of a store: where it is, its engine, its transactions, its schema, and its faults in words."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import platformdirs
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    NullPool,
    Row,
    Table,
    create_engine,
    event,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from sonoloop.errors import StoreError, StoreUnavailableError
from sonoloop.store.sqlite_file import (
    file_uri,
    identify,
    is_there,
    make_file,
    prepare_file,
    replaced_file,
)
from sonoloop.store.tables import METADATA, SETTINGS, VERSION_TABLE

HEAD = "0003"
OLDER: frozenset[str | None] = frozenset({None, "0001", "0002"})
# those of the oldest schema
_OLDEST_TABLES = frozenset({"frames", "heads", "predictions", "revisions"})
MIGRATIONS = Path(__file__).parent / "migrations"

LOCK_TIMEOUT_MS = 10_000
# the setting by which a store hashes patients and draws roles
SECRET = "secret"

# a URL without its slashes would become a file of that name
_URL_LIKE = re.compile(r"(sqlite|postgres\w*)(\+\w+)?:(?!//)", re.IGNORECASE)
_PARAMETERS = 500  # SQLite takes 999 a statement in its older versions
_TEXT = 10_000
_ADVISORY_LOCK = 0x534F4E4F  # "SONO": any number that other programs on a server are unlikely to take
_migrating = threading.Lock()  # Alembic keeps the migration that runs in a global

# told the stage of a long work, how much of it is done, and of how much; an exception of its stops the work
Tell = Callable[[str, int, int], None]

_log = logging.getLogger(__name__)


class Database:
    """A project's database: a SQLite file, or a PostgreSQL database by its URL.

    Opening creates what is missing and brings an older schema up to date. May be used from several threads;
    after a fork, open it anew.

    Parameters
    ----------
    url : str or path, optional
        A file, a URL of SQLite or PostgreSQL, or nothing for `sonoloop.store.default_url`.
    """

    def __init__(self, url: str | os.PathLike[str] | None = None) -> None:
        self.url = read_location(url)
        self._name = describe(self.url)
        self._path = Path(str(self.url.database)) if is_file(self.url) else None
        there = self._path is None or prepare_file(self._path, above=self._path.parent == data_folder())
        with explained(self._name):
            if self._path is not None and not there:
                make_file(self._path, lambda path: _migrate(_sqlite_url(path), new=True))
            _ensure_schema(self.url)
            self._engine: Engine | None = _create_engine(self.url)
            self._identity = None if self._path is None else identify(self._path)
            self._secret = None if self._path is None else _read_secret(self._engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database; closing twice is no error."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction in which all reads agree."""
        with explained(self._name), self._open().begin() as connection:
            yield connection

    @contextmanager
    def reading_still(self) -> Iterator[Connection]:
        """Open a long transaction in which all reads agree; for a server, where it holds nobody up."""
        still = self._open().execution_options(isolation_level="REPEATABLE READ")
        with explained(self._name), still.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that writes, all of it or nothing; on SQLite no other writes meanwhile."""
        with explained(self._name), _for_writing(self._open()).begin() as connection:
            yield connection
        # what was written to a file that lost its name meanwhile is lost
        self._check_identity()

    def _open(self) -> Engine:
        if self._engine is None:
            raise StoreError(f"{self._name} was closed: open it again")
        self._check_identity()
        return self._engine

    def _check_identity(self) -> None:
        """Refuse a file that is not the one that was opened; a backup of the same store is."""
        if self._path is None or self._engine is None:
            return
        found = identify(self._path)
        if found == self._identity:
            return
        with explained(self._name):
            same = self._secret is not None and _read_secret(self._engine) == self._secret
        if not same:
            raise replaced_file(self._path)
        self._identity = found


def tell_nobody(stage: str, done: int, total: int) -> None:
    """Tell nobody how far a long work is."""


def hold(connection: Connection, table: Table) -> None:
    """Keep others from adding to a table until this writing transaction ends."""
    if connection.dialect.name == "postgresql":
        # SQLite has one writer at a time; here two could read the same last row and both add theirs
        connection.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))


def add_if_new(connection: Connection, table: Table, row: dict[str, Any]) -> bool:
    """Add a row unless its key is there, in one statement: two that find none must not both add it.

    Not for tables that are append-only: their guards refuse the attempt.
    """
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    add = dialect.insert(table).values(row).on_conflict_do_nothing().returning(*table.primary_key)
    return connection.execute(add).first() is not None


def in_batches(ids: Iterable[str]) -> Iterator[list[str]]:
    """Cut a list of ids into as many as one statement takes."""
    every = list(ids)
    return (every[start : start + _PARAMETERS] for start in range(0, len(every), _PARAMETERS))


def now() -> str:
    """Return the time as the store keeps it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def values_of(row: Row[Any]) -> dict[str, Any]:
    """Give a row's values by column, with the time that `now` wrote read back."""
    return {**row._mapping, "created": datetime.fromisoformat(row.created)}


class WhoError(StoreError, ValueError):
    """What is given names nobody."""


def check_who(who: str) -> str:
    """Return a pseudonym as it is kept, one however it was typed; refuse what names nobody."""
    name = " ".join(unicodedata.normalize("NFC", who).split())
    if not name:
        raise WhoError("say who: the pseudonym of the person")
    if not name.isprintable():
        raise WhoError(
            f"the pseudonym {who!r} holds characters that cannot be seen: write it with letters and digits"
        )
    return name


def check_why(why: str) -> None:
    """Refuse a change without its reason."""
    if not why.strip():
        raise StoreError("say why: the reason is kept beside the change")


def check_text(text: str, what: str) -> str:
    """Return what somebody wrote without the blanks around it; refuse what no database keeps."""
    written = text.strip()
    if len(written) > _TEXT:
        raise StoreError(f"{what} has {len(written)} characters; {_TEXT} are kept at most: shorten it")
    if "\0" in written or any("\ud800" <= character <= "\udfff" for character in written):
        raise StoreError(f"{what} holds characters that are no text: write it with letters and digits")
    return written


def default_url() -> str:
    """Name the store that is used when none is given."""
    return _sqlite_url(data_folder() / "corrections.sqlite").render_as_string(hide_password=False)


def read_location(location: str | os.PathLike[str] | None) -> URL:
    """Turn what a user gave into a database URL."""
    text = default_url() if location is None else os.fspath(location)
    if _URL_LIKE.match(text):
        raise StoreUnavailableError(
            f"{text!r} is neither a file nor a URL: give a file's path or postgresql://user@host/database"
        )
    if "://" not in text:
        return _sqlite_url(Path(text).absolute())
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise StoreUnavailableError(
            "the store's URL cannot be read: give a file's path or postgresql://user@host/database"
        ) from error
    match url.drivername:
        case "postgresql":
            return url.set(drivername="postgresql+psycopg")
        case name if name.startswith("postgresql+"):
            return url
        case "sqlite" | "sqlite+pysqlite" if url.database and not url.database.startswith(
            (":memory:", "file:")
        ):
            return _sqlite_url(Path(url.database).absolute())
        case "sqlite" | "sqlite+pysqlite":
            raise StoreUnavailableError(
                "a store in memory would keep nothing: give a file's path, as in sqlite:///file"
            )
        case name:
            raise StoreUnavailableError(f"corrections are kept in SQLite or PostgreSQL, not in {name!r}")


def read_existing(location: str | os.PathLike[str] | None) -> URL:
    """Do what `read_location` does, and make sure that a store that is named is there."""
    url = read_location(location)
    if location is not None and is_file(url) and not is_there(Path(str(url.database))):
        raise StoreUnavailableError(f"there is no store {url.database}: check --store")
    return url


def describe(url: URL) -> str:
    """Name a store before a user, without its password."""
    if is_file(url):
        return str(url.database)
    return url.render_as_string(hide_password=True)


def is_file(url: URL) -> bool:
    """Tell whether the store is one SQLite file."""
    return url.get_backend_name() == "sqlite"


def data_folder() -> Path:
    """Name the folder in which this user's stores and what belongs to them are kept; nothing is created."""
    return Path(platformdirs.user_data_path("sonoloop", appauthor=False))


def _sqlite_url(path: Path) -> URL:
    return URL.create("sqlite+pysqlite", database=str(path))


# EXTRA also syncs the folder after the journal is deleted, which is the commit; memory maps hide I/O errors.
_PRAGMAS = (f"PRAGMA busy_timeout={LOCK_TIMEOUT_MS}", "PRAGMA mmap_size=0", "PRAGMA synchronous=EXTRA")
_BOUND_WAITING = [
    f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}",
    # A server may be set to answer before the disk has it; an Accept that returned is on disk.
    "SET LOCAL synchronous_commit = on",
]
# WAL can corrupt a database in SQLite 3.7.0 to 3.51.2 (https://sqlite.org/wal.html, the WAL-reset bug).
_JOURNAL = "PRAGMA journal_mode=DELETE"


def _create_engine(url: URL, *, known: bool = True, foreign_keys: bool = True, new: bool = False) -> Engine:
    """Make the engine for reading; `_for_writing` makes its twin."""
    if is_file(url):
        # No pool: an open costs less than a commit, and no connection outlives a fork or keeps a file open.
        engine = create_engine(url, creator=_connect(url, new=new), poolclass=NullPool, hide_parameters=True)
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


def _connect(url: URL, *, new: bool) -> Callable[[], sqlite3.Connection]:
    """Open a file that is there, or make a `new` one: in place of a lost one SQLite would make another."""
    if new:
        return lambda: sqlite3.connect(str(url.database))
    return lambda: sqlite3.connect(file_uri(Path(str(url.database))), uri=True)


def _read_secret(engine: Engine) -> str | None:
    """Read what tells one store from another; None where it was not drawn yet."""
    with engine.begin() as connection:
        secret: str | None = connection.scalar(select(SETTINGS.c.value).where(SETTINGS.c.key == SECRET))
    return secret


def _for_writing(engine: Engine) -> Engine:
    """Make the twin of an engine whose transactions are ready to write from their beginning.

    On SQLite they take the write lock at once: one that reads first and writes later fails as soon as
    another has written in between. On PostgreSQL rows are locked instead, and waiting for them is bounded.
    """
    return engine.execution_options(writing=True)


def _configure_sqlite(engine: Engine, pragmas: list[str]) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:  # noqa: ANN401 - a driver's own connection
        connection.isolation_level = None  # SQLAlchemy's recipe: the driver must not begin by itself
        for pragma in pragmas:
            connection.execute(pragma)


def _ensure_schema(url: URL) -> None:
    """Migrate a new or older store to `HEAD`; leave one that is there already alone."""
    engine = _create_engine(url, known=False)
    try:
        with engine.connect() as connection:
            version = _read_version(connection, describe(url))
    finally:
        engine.dispose()
    if version != HEAD:
        _migrate(url)


def _migrate(url: URL, *, new: bool = False) -> None:
    """Bring a store to `HEAD` in one transaction; whoever comes second finds it done."""
    engine = _create_engine(url, foreign_keys=False, new=new)
    try:
        with _migrating, _for_writing(engine).begin() as connection:
            if not is_file(url):
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
            version = _read_version(connection, describe(url), new=new)
            if version == HEAD:
                return
            _upgrade(connection)
            if is_file(url) and connection.execute(text("PRAGMA foreign_key_check")).first():
                raise StoreError(
                    f"{describe(url)} has rows that belong to nothing and was not updated: restore a backup"
                )
    finally:
        engine.dispose()
    _log.info("the store's schema went from %s to %s", version, HEAD)


def _upgrade(connection: Connection) -> None:
    # Alembic takes a fifth of a second to import and is needed once in a store's life.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})  # `migrations/env.py` takes it from there
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, HEAD)


def _read_version(connection: Connection, store: str, *, new: bool = False) -> str | None:
    """Read which schema a store has; refuse what is none, or not whole."""
    tables = set(inspect(connection).get_table_names())
    if not tables and (new or connection.dialect.name != "sqlite"):
        return None
    if not tables:
        raise StoreUnavailableError(
            f"{store} is a database without a table, and no store: put the store or its backup back there, "
            "or delete that file to begin a new store"
        )
    version: str | None = None
    if VERSION_TABLE in tables:
        version = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    elif not tables >= _OLDEST_TABLES:
        raise StoreUnavailableError(
            f"{store} holds another program's tables: choose a database of its own for Sonoloop; "
            "it was left as it is"
        )
    missing = (set(METADATA.tables) if version == HEAD else _OLDEST_TABLES) - tables
    known = version == HEAD or version in OLDER
    if version is None or (known and missing):
        lost = ", ".join(sorted(missing)) or "which schema it has"
        raise StoreUnavailableError(
            f"{store} is not whole: it lost {lost}; keep a copy of it and restore a backup; it was left as "
            "it is"
        )
    if not known:
        raise StoreUnavailableError(
            f"{store} was made by a newer Sonoloop (its schema is {version}, this one knows up to {HEAD}): "
            "update with pip install -U napari-sonoloop, or choose another store; it was left as it is"
        )
    return version


_LOCKED = "another program has been writing to it for too long: try again, or close the other program"
_FULL = "there is no room left on its disk: free some space and try again"
_READ_ONLY = "it is read-only: allow writing to it, or choose another place for the store"
_UNREACHABLE = "it cannot be reached: check the drive or the connection and try again"
_DAMAGED = "it is damaged: keep a copy of it and restore a backup"
_REFUSED = "it refused a change that its own rules forbid"
_MOVED = "its file was moved or replaced while it was open: put it back, or open the store where it is now"
_NOT_WHOLE = "a part of it is missing, so that it is no whole store: keep a copy of it and restore a backup"
_FOREIGN = "it is not a SQLite database: choose another file, it was left as it is"
_TROUBLE = "its disk reported an error or is full: free some space, check the disk and try again"

# Primary codes of https://sqlite.org/rescode.html; extended ones begin with them, as SQLITE_IOERR_WRITE does.
_SQLITE = {
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_FULL": _FULL,
    "SQLITE_READONLY_DBMOVED": _MOVED,
    "SQLITE_READONLY": _READ_ONLY,
    "SQLITE_PERM": _READ_ONLY,
    "SQLITE_CANTOPEN": _UNREACHABLE,
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_NOTADB": _FOREIGN,
    "SQLITE_IOERR": _TROUBLE,
    "SQLITE_CONSTRAINT": _REFUSED,
}

# Codes and classes of https://www.postgresql.org/docs/current/errcodes-appendix.html, the longest match wins.
_POSTGRESQL = {
    "55P03": _LOCKED,
    "40": _LOCKED,
    "53100": _FULL,
    "53": _UNREACHABLE,
    "25006": _READ_ONLY,
    "42501": _READ_ONLY,
    "08": _UNREACHABLE,
    "57P": _UNREACHABLE,
    "28": "it refused the user or the password: check the store's URL",
    "3D": "there is no such database: create it, or check the store's URL",
    "42P01": _NOT_WHOLE,
    "42703": _NOT_WHOLE,
    "58": _TROUBLE,
    "XX": _DAMAGED,
    "23": _REFUSED,
    "P0001": _REFUSED,
}


@contextmanager
def explained(store: str) -> Iterator[None]:
    """Raise a database's errors as a `StoreError` that says what to do."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError, sqlite3.Error) as error:
        meaning = _explain(error)
        kind = StoreError if meaning in (_LOCKED, _REFUSED) else StoreUnavailableError
        raise kind(f"the corrections in {store} could not be used: {meaning}") from error
    except UnicodeDecodeError as error:  # of a damaged file, SQLite's own message may not be text
        raise StoreUnavailableError(f"the corrections in {store} could not be used: {_DAMAGED}") from error
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise StoreUnavailableError(
            f"{store} needs a database driver that is missing: pip install 'psycopg[binary]'"
        ) from error


def _explain(error: DBAPIError | PoolTimeoutError | sqlite3.Error) -> str:
    if isinstance(error, PoolTimeoutError):
        return _LOCKED
    told = error.orig if isinstance(error, DBAPIError) else error
    name = str(getattr(told, "sqlite_errorname", ""))
    state = str(getattr(told, "sqlstate", None) or "")
    for code, meaning in _SQLITE.items():
        if name.startswith(code):
            return meaning
    for code in sorted(_POSTGRESQL, key=len, reverse=True):
        if state.startswith(code):
            return _POSTGRESQL[code]
    if str(told).startswith(("no such table", "no such column")):
        return _NOT_WHOLE
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if lost or (hasattr(told, "sqlstate") and not state):
        return _UNREACHABLE  # a lost connection carries no code
    return str(told)
