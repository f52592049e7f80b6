"""What an earlier Sonoloop stored is still there after an update, whenever that is interrupted."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from store_writers import make_correction, sha256

from sonoloop.store import CorrectionStore
from sonoloop.store.tables import VERSION_TABLE

# four revisions of two frames by two readers, one with a prediction, as Sonoloop wrote them at first
WRITTEN = Path(__file__).with_name("schema_0001.sql")


@pytest.fixture
def written(path) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(WRITTEN.read_text())
    return path


def read_rows(path: Path) -> dict[str, list[tuple]]:
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in ("frames", "predictions", "revisions", "heads")
        }


def test_update_keeps_every_row(written):
    before = read_rows(written)
    assert [len(rows) for rows in before.values()] == [2, 1, 4, 3]
    with CorrectionStore(written) as store:
        assert store.verify() == []
        newest = store.newest(sha256("frame"))
        assert (newest.correction.annotator, newest.correction.label) == ("reader-2", "malignant")
        first, second, _ = store.history(sha256("frame"))
        assert (first.correction.seconds, first.model) == (12.5, "unet-0123abcd")
        assert second.parent == first.id
    assert read_rows(written) == before


def test_updated_store_goes_on(written):
    with CorrectionStore(written) as store:
        head = store.head(sha256("frame"), "reader-1")
        mine = store.accept(make_correction(seed=9, shape=(6, 8)), parent=head.id)
        assert store.head(sha256("frame"), "reader-1").id == mine.id
        assert store.verify() == []


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
@pytest.mark.parametrize("statements", [3, 17, 40, 52])
def test_killed_update_leaves_the_old_store(written, statements):
    before = read_rows(written)
    # a cache of one page: what is half done is in the file, not in memory, when the process dies
    code = f"""
import os, signal, sys
from sqlalchemy import Engine, event
import sonoloop.store.database as engine
from sonoloop.store import CorrectionStore
engine._PRAGMAS += ("PRAGMA cache_size=1",)
seen = 0
@event.listens_for(Engine, "after_cursor_execute")
def count(connection, cursor, statement, *rest):
    global seen
    seen += statement.startswith(("CREATE", "DROP", "UPDATE", "\\nCREATE", "\\nDROP"))
    if seen == {statements}:
        os.kill(os.getpid(), signal.SIGKILL)
CorrectionStore(sys.argv[1])
"""
    run = subprocess.run([sys.executable, "-c", code, str(written)], timeout=60, check=False)
    assert run.returncode == -signal.SIGKILL, "the update was over before it was killed"
    assert read_rows(written) == before
    with closing(sqlite3.connect(written)) as connection:
        assert connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall() == [("0001",)]
        tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()
        assert tables == (5,)
    with CorrectionStore(written) as store:
        assert store.verify() == []
    assert read_rows(written) == before
