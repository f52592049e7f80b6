"""Where a store is: the default file, a path or a database URL."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from sonoloop.errors import StoreError

_SQLITE_HEADER = 100  # bytes; SQLite takes a file of one byte for an empty database and would overwrite it


def default_url() -> str:
    """Name the store that is used when none is given.

    Returns
    -------
    str
        The URL of ``corrections.sqlite`` in the user's data folder; nothing is created.
    """
    return _sqlite_url(data_folder() / "corrections.sqlite").render_as_string(hide_password=False)


def read_location(location: str | os.PathLike[str] | None) -> URL:
    """Turn what a user gave into a database URL.

    Parameters
    ----------
    location : str or path, optional
        A file, ``sqlite:///file``, or ``postgresql://user@host/database``; `default_url` without one.

    Returns
    -------
    sqlalchemy.URL
        With its driver settled and, for SQLite, an absolute path.

    Raises
    ------
    StoreError
        If it is no URL, names another kind of database, or a database in memory.
    """
    text = default_url() if location is None else os.fspath(location)
    if "://" not in text:
        return _sqlite_url(Path(text).absolute())
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise StoreError(
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
            raise StoreError("a store in memory would keep nothing: give a file's path, as in sqlite:///file")
        case name:
            raise StoreError(f"corrections are kept in SQLite or PostgreSQL, not in {name!r}")


def read_existing(location: str | os.PathLike[str] | None) -> URL:
    """Do what `read_location` does, and make sure that a store that is named is there.

    Raises
    ------
    StoreError
        If there is no such file, too: a slip of the pen must not become a project.
    """
    url = read_location(location)
    if location is not None and is_file(url) and not Path(str(url.database)).exists():
        raise StoreError(f"there is no store {url.database}: check --store")
    return url


def describe(url: URL) -> str:
    """Name a store before a user, without its password.

    Parameters
    ----------
    url : sqlalchemy.URL
        From `read_location`.

    Returns
    -------
    str
        A path for SQLite, else the URL.
    """
    if is_file(url):
        return str(url.database)
    return url.render_as_string(hide_password=True)


def is_file(url: URL) -> bool:
    """Tell whether the store is one SQLite file.

    Parameters
    ----------
    url : sqlalchemy.URL
        From `read_location`.

    Returns
    -------
    bool
        False for a server.
    """
    return url.get_backend_name() == "sqlite"


def prepare_file(url: URL) -> None:
    """Create the folder of a store's file, and make sure that the file can become or be a store.

    Folders above the last one are created for the default store only: a missing drive or share must not
    become a new, empty store.

    Parameters
    ----------
    url : sqlalchemy.URL
        From `read_location`; a server has no folder and is left alone.

    Raises
    ------
    StoreError
        If the folder cannot be created, the folder or the file cannot be written to, or the file is too
        short for a database.
    """
    if not is_file(url):
        return
    path = Path(str(url.database))
    try:
        _create_folder(path.parent, above=path.parent == data_folder())
    except OSError as error:
        raise StoreError(
            f"the folder for {path} cannot be created ({error.strerror}): "
            "connect the drive, create the folder, or choose another place for the store"
        ) from error
    if path.is_dir():
        raise StoreError(f"{path} is a folder: name a file in it for the store")
    if path.exists() and 0 < path.stat().st_size < _SQLITE_HEADER:
        raise StoreError(f"{path} is not a SQLite database: choose another file, it was left as it is")
    effective = os.access in os.supports_effective_ids
    for place in (path.parent, path) if path.exists() else (path.parent,):
        if not os.access(place, os.W_OK, effective_ids=effective):
            raise StoreError(
                f"{place} is read-only: allow writing to it, or choose another place for the store"
            )


def data_folder() -> Path:
    """Name the folder in which this user's stores and what belongs to them are kept; nothing is created."""
    return Path(platformdirs.user_data_path("sonoloop", appauthor=False))


def _sqlite_url(path: Path) -> URL:
    return URL.create("sqlite+pysqlite", database=str(path))


def _create_folder(folder: Path, *, above: bool) -> None:
    if folder.is_dir():
        return
    if above:
        _create_folder(folder.parent, above=True)
    folder.mkdir(mode=0o700, exist_ok=True)  # corrections are nobody else's business
    if os.name == "posix":
        # fsync the folder above: a store that said "saved" must not lose its own folder in a power cut
        descriptor = os.open(folder.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
