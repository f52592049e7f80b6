"""How Alembic runs the steps in `versions/`, oldest first by name; a store that is opened calls it.

A step never changes once released. On SQLite a step that rebuilds `revisions` or `predictions` (Alembic's
batch mode) drops their append-only triggers with the old table and must create them again.
"""

from __future__ import annotations

from alembic import context

from sonoloop.store.tables import METADATA, VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],  # its transaction is the caller's
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
context.run_migrations()
