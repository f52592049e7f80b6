from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import platformdirs
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from store_writers import make_correction

from sonoloop.errors import StoreError, StoreUnavailableError
from sonoloop.store import CorrectionStore, database, default_url, sqlite_file
from sonoloop.store.database import HEAD, OLDER, read_location
from sonoloop.store.settings import store_secret
from sonoloop.store.tables import METADATA, VERSION_TABLE

posix = pytest.mark.skipif(os.name != "posix", reason="there are no pipes and sparse files there")


def test_default_store_is_in_the_users_data_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_data_path", lambda *_a, **_k: tmp_path / "not" / "yet")
    assert default_url() == f"sqlite+pysqlite:///{tmp_path / 'not' / 'yet' / 'corrections.sqlite'}"
    assert not (tmp_path / "not").exists()
    with CorrectionStore() as store:
        store.accept(make_correction(), parent=None)
    assert (tmp_path / "not" / "yet" / "corrections.sqlite").is_file()
    if os.name == "posix":
        assert (tmp_path / "not" / "yet").stat().st_mode & 0o777 == 0o700


def test_path_and_url_name_the_same_store(path, monkeypatch):
    with CorrectionStore(path) as store:
        store.accept(make_correction(), parent=None)
    monkeypatch.chdir(path.parent)
    for place in (str(path), f"sqlite:///{path}", path.name, f"sqlite:///{path.name}"):
        with CorrectionStore(place) as store:
            assert store.count() == 1


def test_migrations_lead_to_the_tables(url, store):
    engine = create_engine(read_location(url))
    with engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), METADATA) == []
    engine.dispose()


def test_known_schemas_are_the_migrations():
    scripts = ScriptDirectory(database.MIGRATIONS)
    steps = list(scripts.walk_revisions())
    assert scripts.get_current_head() == HEAD
    assert frozenset({None, *(step.revision for step in steps)} - {HEAD}) == OLDER


def test_failed_migration_leaves_nothing(path, monkeypatch):
    upgrade = database._upgrade

    def break_down(connection):
        upgrade(connection)
        raise OSError("power cut")

    monkeypatch.setattr(database, "_upgrade", break_down)
    with pytest.raises(OSError, match="power cut"):
        CorrectionStore(path)
    assert list(path.parent.iterdir()) == []
    monkeypatch.undo()
    with CorrectionStore(path) as store:
        assert store.verify() == []


def test_newer_schema_is_refused_untouched(path):
    CorrectionStore(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
        connection.execute("CREATE TABLE invented_later (id INTEGER)")
        connection.commit()
        connection.execute("PRAGMA journal_mode=WAL")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"newer Sonoloop.*9999.*pip install -U napari-sonoloop"):
        CorrectionStore(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"no database at all" * 500, b"x", b"SQLite format 3\0" + b"junk" * 2000, b"\x89PNG\r\n\x1a\n"],
)
def test_file_that_is_no_database_is_refused_untouched(path, content):
    path.write_bytes(content)
    with pytest.raises(StoreError, match=path.name):
        CorrectionStore(path)
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_another_programs_database_is_refused_untouched(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program's tables"):
        CorrectionStore(path)
    assert path.read_bytes() == before


def sqlite(path, script):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def cut(path):
    CorrectionStore(path).close()
    path.write_bytes(path.read_bytes()[:-9000])


def drop(table):
    def spoil(path):
        CorrectionStore(path).close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"DROP TABLE {table}")
            connection.commit()

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (Path.touch, r"is empty \(0 bytes\), and an empty file is no store.*backup.*delete the empty file"),
        (lambda path: sqlite(path, "CREATE TABLE a (b); DROP TABLE a"), "without a table"),
        (drop("heads"), "is not whole: it lost heads.*restore a backup"),
        (drop(VERSION_TABLE), "is not whole: it lost which schema"),
        (lambda path: sqlite(path, f"CREATE TABLE {VERSION_TABLE} (version_num)"), "is not whole"),
        (cut, "breaks off: .* are there; copy it again"),
        pytest.param(getattr(os, "mkfifo", None), "is a pipe, not a file", marks=posix),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), "is a device, not a file", marks=posix),
        (lambda path: path.symlink_to(path.parent / "gone"), "is a link to .*gone, which is not there"),
        (lambda path: path.symlink_to(path), "cannot be a store"),
        pytest.param(
            lambda path: os.truncate(path, 40 << 30) if path.touch() is None else None,
            "not a SQLite database",
            marks=posix,
        ),
        (lambda path: path.with_name(f"{path.name}-journal").write_bytes(b"x"), "put that store back"),
        (lambda path: path.with_name(f"{path.name}-journal").mkdir(), "is no file"),
    ],
)
def test_what_is_no_whole_store_is_refused_untouched(path, spoil, said):
    spoil(path)
    before = {entry.name: entry.lstat().st_size for entry in path.parent.iterdir()}
    with pytest.raises(StoreUnavailableError, match=said) as caught:
        CorrectionStore(path)
    assert str(path) in str(caught.value)
    assert {entry.name: entry.lstat().st_size for entry in path.parent.iterdir()} == before


def test_where_there_are_no_links_a_store_begins_too_and_replaces_nothing(path, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with CorrectionStore(path) as store:
        secret = store_secret(store)
    other = path.with_name("other")
    other.write_bytes(b"x")
    sqlite_file._place(other, path)
    with CorrectionStore(path) as store:
        assert store_secret(store) == secret


def test_two_that_begin_a_store_at_once_have_one(path):
    code = (
        "import sys; from sonoloop.store import CorrectionStore; from sonoloop.store.settings import "
        "store_secret; print(store_secret(CorrectionStore(sys.argv[1])).hex())"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert len({run.communicate(timeout=120)[0] for run in runs}) == 1
    assert [run.returncode for run in runs] == [0] * 4
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def delete(path):
    path.unlink()


def put_empty(path):
    path.unlink()
    path.touch()


def put_other_store(path):
    path.rename(path.with_name("moved.sqlite"))
    CorrectionStore(path).close()


def put_other_database(path):
    path.rename(path.with_name("moved.sqlite"))
    sqlite(path, "CREATE TABLE bookmarks (url TEXT)")


def empty_in_place(path):
    os.truncate(path, 0)


def drop_in_place(path):
    sqlite(path, "DROP TABLE settings; DROP TABLE heads")


@pytest.mark.parametrize(
    ("lose", "said"),
    [
        (delete, "is not there any more .*moved, renamed or deleted while it was open"),
        (put_empty, "is empty"),
        (put_other_store, "another file than the one that was opened"),
        (put_other_database, "no whole store"),
        (empty_in_place, "is empty"),
        (drop_in_place, "no whole store"),
    ],
)
def test_a_store_that_is_lost_while_open_is_named_and_nothing_is_stored(path, lose, said):
    with CorrectionStore(path) as store:
        store_secret(store)
    with CorrectionStore(path) as store:
        lose(path)
        for attempt in (store.count, lambda: store.accept(make_correction(), parent=None)):
            if (lose, attempt) == (drop_in_place, store.count):
                continue
            with pytest.raises(StoreUnavailableError, match=said) as caught:
                attempt()
            assert "no such table" not in str(caught.value)
    if lose is delete:
        assert not path.exists()


def test_the_same_store_from_a_backup_goes_on(path):
    with CorrectionStore(path) as store:
        store_secret(store)
    with CorrectionStore(path) as store:
        backup = shutil.copy(path, path.with_name("backup"))
        path.unlink()
        Path(backup).rename(path)
        store.accept(make_correction(), parent=None)
        assert store.count() == 1


@pytest.mark.parametrize("left", [b"", b"no journal at all"])
def test_a_journal_that_says_nothing_is_no_hindrance(path, left):
    CorrectionStore(path).close()
    path.with_name(f"{path.name}-journal").write_bytes(left)
    with CorrectionStore(path) as store:
        store.accept(make_correction(), parent=None)


def test_missing_drive_does_not_become_a_new_store(tmp_path):
    with pytest.raises(StoreError, match="connect the drive"):
        CorrectionStore(tmp_path / "drive" / "project" / "corrections.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be created"):
        CorrectionStore(tmp_path / "file" / "corrections.sqlite")
    with pytest.raises(StoreError, match="is a folder"):
        CorrectionStore(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps rights otherwise")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_read_only_place_is_refused(what):
    folder = Path(tempfile.mkdtemp())
    path = folder / "corrections.sqlite"
    try:
        CorrectionStore(path).close()
        path.chmod(0o444 if what == "file" else 0o666)
        folder.chmod(0o555 if what == "folder" else 0o777)
        if os.geteuid() == 0:  # nothing is read-only to root
            os.seteuid(65534)
        try:
            with pytest.raises(StoreError, match="is read-only: allow writing"):
                CorrectionStore(path)
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
    finally:
        folder.chmod(0o700)
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("mysql://root@localhost/corrections", "SQLite or PostgreSQL, not in 'mysql'"),
        ("sqlite+aiosqlite:///x.sqlite", "SQLite or PostgreSQL"),
        ("://nonsense", "cannot be read"),
        ("postgresql://host:port/corrections", "cannot be read"),
        ("sqlite:study.sqlite", "neither a file nor a URL"),
        ("ftp://host/corrections.sqlite", "SQLite or PostgreSQL, not in 'ftp'"),
        ("x" * 300, "File name too long"),
        ("nul\0.sqlite", "null"),
    ],
)
def test_place_that_keeps_nothing_is_refused(place, said):
    with pytest.raises(StoreError, match=said):
        CorrectionStore(place)


def test_unreachable_server_is_named_without_its_password():
    place = "postgresql://reader:secret@127.0.0.1:9/corrections"
    with pytest.raises(
        StoreError, match=r"127\.0\.0\.1.*(cannot be reached|driver that is missing)"
    ) as caught:
        CorrectionStore(place)
    assert "secret" not in str(caught.value)


def test_wal_store_of_ours_is_set_back(path):
    CorrectionStore(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    with CorrectionStore(path) as store, store._engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "delete"


def test_opening_again_needs_no_alembic(path):
    CorrectionStore(path).close()
    code = (
        "import sys; from sonoloop.store import CorrectionStore; CorrectionStore(sys.argv[1]).close();"
        "print(sorted({'alembic', 'torch', 'qtpy', 'sonoloop.models'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.strip() == "[]"
