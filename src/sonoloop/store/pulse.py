"""A cheap look at a store: whether it can be used, and whether it is as it was at the last look."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, func, select, text

from sonoloop.errors import StoreUnavailableError
from sonoloop.store.database import SECRET, Database, describe, is_file
from sonoloop.store.sqlite_file import check_rights, identify
from sonoloop.store.tables import (
    ASSIGNMENTS,
    FRAME_MARKS,
    LOOKS,
    MARKS,
    MODELS,
    NOTES,
    PROMOTIONS,
    REFERENCES,
    REVISIONS,
    SCORES,
    SETTINGS,
    SNAPSHOTS,
    TEST_SETS,
    TOMBSTONES,
)

_NUMBERED = (
    REVISIONS,
    TOMBSTONES,
    PROMOTIONS,
    MARKS,
    LOOKS,
    TEST_SETS,
    REFERENCES,
    FRAME_MARKS,
    NOTES,
    ASSIGNMENTS,
)
_COUNTED = (MODELS, SNAPSHOTS, SCORES)


def read_pulse(store: Database, *, thorough: bool = False) -> Hashable:
    """Give a value that is another one as soon as anybody decided something; refuse a store that is broken.

    Leases and what is merely placed do not count. Takes about a millisecond of a local file; a `thorough`
    look reads all of a file, and finds damage within it.
    """
    file = None
    if is_file(store.url):
        path = Path(str(store.url.database))
        # the file may be another one that holds the same, as after a backup was restored
        file = identify(path)
        check_rights(path)
    name = describe(store.url)
    columns: list[ColumnElement[Any]] = [func.max(table.c.number) for table in _NUMBERED]
    columns += [func.count(next(iter(table.primary_key))) for table in _COUNTED]
    with store.reading() as connection:
        if file is None and connection.scalar(text("SHOW transaction_read_only")) == "on":
            raise StoreUnavailableError(f"{name} is read-only: allow writing to it, or choose another store")
        if file is not None and thorough and connection.scalar(text("PRAGMA quick_check(1)")) != "ok":
            raise StoreUnavailableError(f"{name} is damaged: keep a copy of it and restore a backup")
        values = connection.execute(select(*(select(each).scalar_subquery() for each in columns))).one()
        # an image that is merely looked at changes the others
        kept = SETTINGS.c.key.not_like("sketches%") & (SETTINGS.c.key != SECRET)
        settings = connection.execute(select(SETTINGS).where(kept).order_by(SETTINGS.c.key)).all()
    return file, tuple(values), tuple(map(tuple, settings))
