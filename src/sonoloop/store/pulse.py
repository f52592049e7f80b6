"""A cheap look at a store: whether it can be used, and whether it is as it was at the last look."""

from __future__ import annotations

import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, func, select, text

from sonoloop.errors import StoreError
from sonoloop.store.database import Database, describe, is_file
from sonoloop.store.tables import (
    LOOKS,
    MARKS,
    MODELS,
    PROMOTIONS,
    REFERENCES,
    REVISIONS,
    SCORES,
    SETTINGS,
    SNAPSHOTS,
    TEST_SETS,
    TOMBSTONES,
)

_NUMBERED = (REVISIONS, TOMBSTONES, PROMOTIONS, MARKS, LOOKS, TEST_SETS, REFERENCES)
_COUNTED = (MODELS, SNAPSHOTS, SCORES)


class GoneError(StoreError):
    """The file of a store that was open is gone, or empty: nothing is to be opened in its place."""


def read_pulse(store: Database, *, thorough: bool = False) -> Hashable:
    """Give a value that is another one as soon as anybody decided something; refuse a store that is broken.

    Leases and what is merely placed do not count. Takes about a millisecond of a local file; a `thorough`
    look reads all of a file, and finds damage within it.
    """
    file = _check_file(store) if is_file(store.url) else None
    columns: list[ColumnElement[Any]] = [func.max(table.c.number) for table in _NUMBERED]
    columns += [func.count(next(iter(table.primary_key))) for table in _COUNTED]
    with store.reading() as connection:
        if file is None and connection.scalar(text("SHOW transaction_read_only")) == "on":
            raise StoreError(
                f"{describe(store.url)} is read-only: allow writing to it, or choose another store in the "
                "preferences"
            )
        if file is not None and thorough and connection.scalar(text("PRAGMA quick_check(1)")) != "ok":
            raise StoreError(f"{describe(store.url)} is damaged: keep a copy of it and restore a backup")
        values = connection.execute(select(*(select(each).scalar_subquery() for each in columns))).one()
        # an image that is merely looked at changes the others
        kept = SETTINGS.c.key.not_like("sketches%") & (SETTINGS.c.key != "secret")
        settings = connection.execute(select(SETTINGS).where(kept).order_by(SETTINGS.c.key)).all()
    return file, tuple(values), tuple(map(tuple, settings))


def _check_file(store: Database) -> Hashable:
    """Tell which file it is; SQLite would make an empty one in the place of one that is gone."""
    path = Path(str(store.url.database))
    try:
        status = path.stat()
    except OSError as error:
        raise GoneError(
            f"{path} is gone ({error.strerror}): put it back, connect its drive, or choose another store in "
            "the preferences"
        ) from error
    if not status.st_size:
        raise GoneError(f"{path} is empty: restore a backup, or choose another store in the preferences")
    effective = os.access in os.supports_effective_ids
    for place in (path.parent, path):
        if not os.access(place, os.W_OK, effective_ids=effective):
            raise StoreError(
                f"{place} is read-only: allow writing to it, or choose another store in the preferences"
            )
    return status.st_dev, status.st_ino
