from __future__ import annotations

import logging
import sqlite3

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from store_writers import make_correction, make_mask, make_prediction, sha256

from sonoloop.store import CorrectionStore
from sonoloop.store.database import LOCK_TIMEOUT_MS
from sonoloop.store.revisions import encode_png
from sonoloop.store.tables import APPEND_ONLY, METADATA

CHANGES = [
    "UPDATE revisions SET label = 'malignant'",
    "UPDATE revisions SET mask = mask",
    "DELETE FROM revisions",
    "UPDATE predictions SET expected_dice = 1",
    "DELETE FROM predictions",
]
REPLACES = [
    "REPLACE INTO revisions SELECT * FROM revisions",
    "REPLACE INTO predictions SELECT * FROM predictions",
    "INSERT OR REPLACE INTO revisions SELECT number + 7, {} FROM revisions",
]
COLUMNS = (
    "id, frame_id, annotator, parent, mask, mask_sha256, label, mask_decision, class_decision, "
    "prediction_id, prediction_seen, model, created, seconds, software, lesions, effort"
)


@pytest.fixture
def accepted(store):
    return store.accept(make_correction(prediction=make_prediction()), parent=None)


@pytest.mark.parametrize("statement", CHANGES)
def test_history_cannot_be_changed(store, accepted, shell, statement):
    with pytest.raises(DBAPIError, match="append-only"):
        shell.execute(text(statement))
    shell.rollback()
    assert store.head(sha256("frame"), "reader-1").correction.label == "benign"
    assert store.verify() == []


@pytest.mark.parametrize("statement", REPLACES)
def test_history_cannot_be_replaced(store, accepted, shell, statement):
    if shell.dialect.name != "sqlite":
        pytest.skip("REPLACE is SQLite's")
    with pytest.raises(DBAPIError, match="append-only"):
        shell.execute(text(statement.format(COLUMNS)))


def test_history_cannot_be_truncated(store, accepted, shell):
    if shell.dialect.name != "postgresql":
        pytest.skip("TRUNCATE is PostgreSQL's")
    with pytest.raises(DBAPIError, match="append-only"):
        shell.execute(text("TRUNCATE frames CASCADE"))


@pytest.fixture
def filled(store, accepted):
    """A row in every table that only grows."""
    at = {"who": "reader-1", "created": "2026"}
    frame = {"frame_id": accepted.correction.frame_id}
    rows = {
        "groups": {"id": "g", "role": "test", "created": "2026"},
        "snapshots": {"name": "first", "sha256": "s", **at},
        "snapshot_members": {"snapshot": "first", "revision_id": accepted.id, "role": "test"},
        "models": {"version": "v", "model": "unet-v", "origin": "tuned", **at},
        "marks": {"version": "v", "mark": "refused", "why": "worse", **at},
        "test_sets": {"sha256": "s", "created": "2026"},
        "test_set_members": {"test_set": 1, "revision_id": accepted.id, "group_id": "g", **frame},
        "looks": {
            "test_set": 1,
            "candidate": "v",
            "incumbent": "v",
            "verdict": "refuse",
            "reason": "worse",
            "figures": "{}",
            **at,
        },
        "promotions": {"version": "v", "kind": "first", "why": "the first", **at},
        "tombstones": {"why": "asked to", **frame, **at},
        "frame_marks": {"annotator": "r", "status": "flagged", "reason": "dark", "created": "2026", **frame},
        "notes": {"annotator": "r", "text": "a scar", "created": "2026", **frame},
        "assignments": {"reader": "r", "round": 1, "created": "2026", **frame},
        "adjudications": {"revision_id": accepted.id, "original": accepted.id, **at},
    }
    with store.writing() as connection:
        for table, row in rows.items():
            connection.execute(insert(METADATA.tables[table]).values(row))


@pytest.mark.parametrize("table", sorted(set(APPEND_ONLY) - {"predictions", "revisions"}))
def test_no_row_of_the_loop_can_be_changed_or_replaced(store, filled, shell, table):
    column = next(iter(METADATA.tables[table].primary_key)).name
    statements = [f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"]
    if shell.dialect.name == "sqlite":
        statements += [f"REPLACE INTO {table} SELECT * FROM {table}"]
    else:
        statements += [f"TRUNCATE {table} CASCADE"]
    for statement in statements:
        with pytest.raises(DBAPIError, match="append-only"):
            shell.execute(text(statement))
        shell.rollback()
    assert shell.scalar(text(f"SELECT count(*) FROM {table}")) == 1


def test_a_test_set_cannot_be_replaced_by_its_hash(store, filled, shell):
    if shell.dialect.name != "sqlite":
        pytest.skip("REPLACE is SQLite's")
    with pytest.raises(DBAPIError, match="append-only"):
        shell.execute(text("REPLACE INTO test_sets SELECT number + 1, sha256, created FROM test_sets"))


def test_head_of_another_annotator_or_frame_is_refused(store, accepted):
    statement = text("INSERT INTO heads VALUES (:frame, :annotator, :revision)")
    for frame, annotator in ((sha256("frame"), "reader-2"), (sha256("another"), "reader-1")):
        with pytest.raises(IntegrityError), store._engine.begin() as connection:
            connection.execute(statement, {"frame": frame, "annotator": annotator, "revision": accepted.id})


def test_foreign_keys_are_enforced(store, accepted):
    with pytest.raises(IntegrityError), store._engine.begin() as connection:
        connection.execute(text("DELETE FROM frames"))


def test_pragmas_are_set(path):
    with CorrectionStore(path) as store, store._engine.connect() as connection:
        found = {
            name: connection.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "mmap_size")
        }
    assert found == {
        "journal_mode": "delete",
        "synchronous": 3,
        "foreign_keys": 1,
        "busy_timeout": LOCK_TIMEOUT_MS,
        "mmap_size": 0,
    }


def test_only_writing_takes_the_write_lock(path):
    CorrectionStore(path).close()
    other = sqlite3.connect(path, timeout=0, isolation_level=None)
    with CorrectionStore(path) as store:
        with store.reading() as connection:
            connection.execute(text("SELECT 1 FROM frames")).all()
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
        with store.writing(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.close()


def test_reads_in_one_transaction_agree(path):
    """The driver's own habit of not beginning for SELECT would let a writer in between them."""
    CorrectionStore(path).close()
    other = sqlite3.connect(path, timeout=0, isolation_level=None)
    with CorrectionStore(path) as store, store.reading() as connection:
        connection.execute(text("SELECT count(*) FROM frames")).all()
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO frames VALUES ('id', 'pixels', 1, 1)")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("COMMIT")
        assert connection.scalar(text("SELECT count(*) FROM frames")) == 0
        other.execute("ROLLBACK")
    other.close()


def test_removed_guard_is_found(store, accepted, shell):
    table = "" if shell.dialect.name == "sqlite" else " ON revisions"
    shell.execute(text(f"DROP TRIGGER revisions_no_update{table}"))
    shell.commit()
    assert store.verify() == ["the guard against changing revisions (update) was removed"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE revisions SET mask = :png", "not the one that was accepted"),
        ("UPDATE revisions SET mask = :junk", "is no PNG"),
        ("UPDATE revisions SET label = 'bfnign'", "the row is damaged"),
        ("UPDATE revisions SET label = 'malignant'", "decisions do not follow"),
        ("UPDATE predictions SET expected_dice = 0.123", "not the one that was stored"),
        ("UPDATE predictions SET lesion = :junk", "is no PNG"),
        ("DELETE FROM heads", "has no head"),
    ],
)
def test_verify_finds_what_was_changed_past_the_guards(store, shell, change, said):
    prediction = make_prediction()
    prediction.classes[:] = (0.1, 0.8, 0.1)
    store.accept(make_correction(prediction=prediction), parent=None)
    assert store.verify() == []
    if shell.dialect.name == "sqlite":
        for table in ("revisions", "predictions"):
            shell.execute(text(f"DROP TRIGGER {table}_no_update"))
    else:
        shell.execute(text("SET session_replication_role = replica"))
    values = {"png": encode_png(make_mask(99)), "junk": b"junk"}
    shell.execute(text(change), {k: v for k, v in values.items() if f":{k}" in change})
    shell.commit()
    assert any(said in problem for problem in store.verify())


def test_log_names_nobody(url, caplog):
    caplog.set_level(logging.DEBUG, "sonoloop")
    with CorrectionStore(url) as store:
        store.accept(make_correction(annotator="anna-muster"), parent=None)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("sonoloop")]
    assert len(ours) == 2
    assert not any("anna-muster" in line or "corrections.sqlite" in line for line in ours)
