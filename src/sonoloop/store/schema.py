"""Whether a store has this version's schema: bring it there, or refuse it untouched."""

from __future__ import annotations

from sqlalchemy import URL, Connection, inspect, text

from sonoloop.errors import StoreError
from sonoloop.store.database import describe
from sonoloop.store.engine import create_store_engine
from sonoloop.store.tables import VERSION_TABLE

HEAD = "0002"
OLDER: frozenset[str | None] = frozenset({None, "0001"})


def ensure_schema(url: URL) -> None:
    """Migrate a new or older store to `HEAD`; leave one that is there already alone.

    Parameters
    ----------
    url : sqlalchemy.URL
        From `sonoloop.store.database.read_location`.

    Raises
    ------
    StoreError
        If the store was made by a newer version, or holds another program's tables; nothing was written.
    """
    engine = create_store_engine(url, known=False)
    try:
        with engine.connect() as connection:
            version = read_version(connection, describe(url))
    finally:
        engine.dispose()
    if version == HEAD:
        return
    # Alembic takes a fifth of a second to import and is needed once in a store's life.
    from sonoloop.store.migrate import migrate  # noqa: PLC0415

    migrate(url)


def read_version(connection: Connection, store: str) -> str | None:
    """Read which schema a store has.

    Parameters
    ----------
    connection : sqlalchemy.Connection
        Open on the store.
    store : str
        What to call the store before a user.

    Returns
    -------
    str or None
        `HEAD`, one of `OLDER`, and None for an empty database.

    Raises
    ------
    StoreError
        If the schema is newer than `HEAD` or another program's.
    """
    tables = inspect(connection).get_table_names()
    if VERSION_TABLE not in tables:
        if tables:
            raise StoreError(
                f"{store} holds another program's tables: choose a database of its own for Sonoloop; "
                "it was left as it is"
            )
        return None
    version: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    if version != HEAD and version not in OLDER:
        raise StoreError(
            f"{store} was made by a newer Sonoloop (its schema is {version}, this one knows up to {HEAD}): "
            "update with pip install -U napari-sonoloop, or choose another store; it was left as it is"
        )
    return version
