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

from sonoloop.store import CorrectionStore, database
from sonoloop.store.settings import read_settings
from sonoloop.store.tables import VERSION_TABLE

# four revisions of two frames by two readers, one with a prediction, as Sonoloop wrote them at first
WRITTEN = Path(__file__).with_name("schema_0001.sql")
# the columns of a revision then
FIRST = (
    "number, id, frame_id, annotator, parent, mask, mask_sha256, label, mask_decision, class_decision, "
    "prediction_id, prediction_seen, model, created, seconds, software"
)


@pytest.fixture
def written(path) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(WRITTEN.read_text())
    return path


def read_rows(path: Path) -> dict[str, list[tuple]]:
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            for table in ("frames", "predictions", "heads")
        } | {"revisions": connection.execute(f"SELECT {FIRST} FROM revisions ORDER BY 1").fetchall()}


def test_update_keeps_every_row(written):
    before = read_rows(written)
    assert [len(rows) for rows in before.values()] == [2, 1, 3, 4]
    with CorrectionStore(written) as store:
        assert store.verify() == []
        newest = store.newest(sha256("frame"))
        assert (newest.correction.annotator, newest.correction.label) == ("reader-2", "malignant")
        first, second, _ = store.history(sha256("frame"))
        assert (first.correction.seconds, first.model) == (12.5, "unet-0123abcd")
        assert second.parent == first.id
        assert (second.correction.lesions, second.correction.effort) == ({}, None)
    assert read_rows(written) == before


def test_updated_store_goes_on(written):
    with CorrectionStore(written) as store:
        head = store.head(sha256("frame"), "reader-1")
        mine = store.accept(make_correction(seed=9, shape=(6, 8)), parent=head.id)
        assert store.head(sha256("frame"), "reader-1").id == mine.id
        assert store.verify() == []


def test_a_store_of_the_second_schema_keeps_its_snapshots_and_what_was_withdrawn(written, monkeypatch):
    migrate = database._migrate
    with monkeypatch.context() as then:
        then.setattr(database, "HEAD", "0002")
        migrate(database.read_location(written))
    with closing(sqlite3.connect(written)) as connection:
        (frame,) = connection.execute("SELECT frame_id FROM predictions").fetchone()
        connection.executescript(
            f"INSERT INTO tombstones VALUES (1, '{frame}', 'asked to', 'reader-1', '2026-01-01');"
            f"UPDATE revisions SET mask = x'' WHERE frame_id = '{frame}';"
            f"UPDATE predictions SET lesion = x'', mask = x'' WHERE frame_id = '{frame}';"
            "INSERT INTO settings VALUES ('test_cap', '7')"
        )
    before = read_rows(written)
    with CorrectionStore(written) as store:
        assert store.verify() == []
        assert read_settings(store).test_cap == 7
        assert [revision.withdrawn for revision in store.history(frame)] == [True] * 3
    assert read_rows(written) == before


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
@pytest.mark.parametrize("statements", [3, 17, 52, 70])
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
    seen += statement.startswith(("CREATE", "DROP", "UPDATE", "ALTER", "\\nCREATE", "\\nDROP"))
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
