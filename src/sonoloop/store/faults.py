"""The one place where a database's errors become words for a user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from sonoloop.errors import StoreError

_LOCKED = "another program has been writing to it for too long: try again, or close the other program"
_FULL = "there is no room left on its disk: free some space and try again"
_READ_ONLY = "it is read-only: allow writing to it, or choose another place for the store"
_UNREACHABLE = "it cannot be reached: check the drive or the connection and try again"
_DAMAGED = "it is damaged: keep a copy of it and restore a backup"
_REFUSED = "it refused a change that its own rules forbid"
_FOREIGN = "it is not a SQLite database: choose another file, it was left as it is"
_TROUBLE = "its disk reported an error or is full: free some space, check the disk and try again"

# Primary codes of https://sqlite.org/rescode.html; extended ones begin with them, as SQLITE_IOERR_WRITE does.
_SQLITE = {
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_FULL": _FULL,
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
    "58": _TROUBLE,
    "XX": _DAMAGED,
    "23": _REFUSED,
    "P0001": _REFUSED,
}


@contextmanager
def explained(store: str) -> Iterator[None]:
    """Raise a database's errors as a `StoreError` that says what to do.

    Parameters
    ----------
    store : str
        What to call the store before a user.

    Raises
    ------
    StoreError
        From the original, for every error of the database, of its driver or of waiting for a connection.
    """
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        raise StoreError(f"the corrections in {store} could not be used: {_explain(error)}") from error
    except UnicodeDecodeError as error:  # of a damaged file, SQLite's own message may not be text
        raise StoreError(f"the corrections in {store} could not be used: {_DAMAGED}") from error
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise StoreError(
            f"{store} needs a database driver that is missing: pip install 'psycopg[binary]'"
        ) from error


def _explain(error: DBAPIError | PoolTimeoutError) -> str:
    if isinstance(error, PoolTimeoutError):
        return _LOCKED
    name = str(getattr(error.orig, "sqlite_errorname", ""))
    state = str(getattr(error.orig, "sqlstate", None) or "")
    for code, meaning in _SQLITE.items():
        if name.startswith(code):
            return meaning
    for code in sorted(_POSTGRESQL, key=len, reverse=True):
        if state.startswith(code):
            return _POSTGRESQL[code]
    if error.connection_invalidated or (hasattr(error.orig, "sqlstate") and not state):
        return _UNREACHABLE  # a lost connection carries no code
    return str(error.orig)
