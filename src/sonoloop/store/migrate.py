"""Running the migrations that ship with the package, in one transaction, one process at a time."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, text

from sonoloop.errors import StoreError
from sonoloop.store.database import describe, is_file
from sonoloop.store.engine import create_store_engine, for_writing
from sonoloop.store.schema import HEAD, read_version
from sonoloop.store.tables import METADATA, VERSION_TABLE

SCRIPTS = ScriptDirectory(Path(__file__).parent / "migrations")

_log = logging.getLogger(__name__)

_ADVISORY_LOCK = 0x534F4E4F  # "SONO": any number that other programs on a server are unlikely to take
_migrating = threading.Lock()  # Alembic keeps the migration that runs in a global


def migrate(url: URL) -> None:
    """Bring a store to `sonoloop.store.schema.HEAD`; whoever comes second finds it done.

    Parameters
    ----------
    url : sqlalchemy.URL
        From `sonoloop.store.database.read_location`.

    Raises
    ------
    StoreError
        If the store turned out newer, or its foreign keys do not hold afterwards; nothing was written.
    """
    engine = create_store_engine(url, foreign_keys=False)
    try:
        with _migrating, for_writing(engine).begin() as connection:
            if not is_file(url):
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
            version = read_version(connection, describe(url))
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
    def steps(version: Any, _context: Any) -> Any:  # noqa: ANN401 - Alembic's own types
        return SCRIPTS._upgrade_revs(HEAD, version)

    with EnvironmentContext(Config(), SCRIPTS, fn=steps, destination_rev=HEAD) as environment:
        environment.configure(
            connection=connection,
            target_metadata=METADATA,
            version_table=VERSION_TABLE,
            render_as_batch=True,
        )
        environment.run_migrations()
