"""Backups are whole, or not there; a store that is restored is the one before or the backup, whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from full_store import content_of
from store_writers import make_correction, sha256

from sonoloop.errors import StoreError
from sonoloop.store import CorrectionStore, backup
from sonoloop.store.backup import DamagedError, back_up, check_file, restore
from sonoloop.store.database import VERSION_TABLE
from sonoloop.store.export import export_store
from sonoloop.store.leases import LeaseError, claim_frame, release_frame, take_lease
from sonoloop.store.settings import store_secret
from sonoloop.store.withdrawal import withdraw

posix = pytest.mark.skipif(os.name != "posix", reason="processes are forked, and their room is limited")
KILLER = Path(__file__).with_name("backup_kills.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    """The files of a store with two corrections, and of the same one with a third."""
    folder = tmp_path_factory.mktemp("made")
    with CorrectionStore(folder / "two") as store:
        store_secret(store)
        for frame in ("one", "two"):
            store.accept(make_correction(frame), parent=None)
    shutil.copy(folder / "two", folder / "three")
    with CorrectionStore(folder / "three") as store:
        store.accept(make_correction("three"), parent=None)
    return folder / "two", folder / "three"


@pytest.fixture
def path(made, tmp_path) -> Path:
    """A store in which two corrections were accepted."""
    return Path(shutil.copy(made[0], tmp_path / "store.sqlite"))


@pytest.fixture
def earlier(made, path) -> Path:
    """A backup from before the store's third correction."""
    shutil.copy(made[1], path)
    return Path(shutil.copy(made[0], path.with_name("earlier.sqlite")))


def count(path: Path, *, sound: bool = True) -> int:
    with CorrectionStore(path) as store:
        if sound:
            assert store.verify() == []
        return store.count()


def names(folder: Path) -> list[str]:
    """Name what lies in a folder, without journals that SQLite takes up again."""
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.endswith("-journal"))


def test_a_backup_is_the_store_and_nobodys_else(path, tmp_path):
    with CorrectionStore(path) as store:
        told = []
        made = back_up(store, tmp_path / "backup.sqlite", tell=lambda *step: told.append(step))
        assert (made.path, made.revisions) == (tmp_path / "backup.sqlite", 2)
        assert made.bytes == made.path.stat().st_size
        with CorrectionStore(made.path) as copy:
            assert content_of(copy) == content_of(store)
    assert {stage for stage, _, _ in told} == {"Copying", "Checking"}
    assert names(tmp_path) == ["backup.sqlite", "store.sqlite"]
    if os.name == "posix":
        assert made.path.stat().st_mode & 0o077 == 0


def test_in_a_folder_each_backup_is_named_by_its_time(path, tmp_path):
    (tmp_path / "backups").mkdir()
    with CorrectionStore(path) as store:
        made = [back_up(store, tmp_path / "backups").path for _ in range(2)]
    assert len({*made}) == 2
    assert all(one.name.startswith("store-20") and one.suffix == ".sqlite" for one in made)


def test_others_accept_while_it_is_copied(path, tmp_path, monkeypatch):
    """Each step is one page, and after each somebody accepts: in the end it is copied in one step."""
    monkeypatch.setattr(backup, "_PAGES", 1)
    accepted = []
    with CorrectionStore(path) as store:

        def accept(stage: str, done: int, total: int) -> None:
            if stage == "Copying" and done < total:
                accepted.append(store.accept(make_correction(f"meanwhile {len(accepted)}"), parent=None))

        made = back_up(store, tmp_path / "backup.sqlite", tell=accept)
        assert len(accepted) > backup._RESTARTS
        assert store.verify() == []
        assert store.count() == 2 + len(accepted)
    assert 2 < made.revisions <= 2 + len(accepted)


def test_a_store_that_is_locked_is_said(path, tmp_path, monkeypatch):
    monkeypatch.setattr(backup, "LOCK_TIMEOUT_MS", 50)
    with CorrectionStore(path) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="another program has been writing to it for too long"):
            back_up(store, tmp_path / "backup.sqlite")
        assert names(tmp_path) == ["store.sqlite"]
        other.execute("ROLLBACK")
        back_up(store, tmp_path / "backup.sqlite")


def test_a_store_that_is_not_sound_makes_no_backup(path, tmp_path, earlier):
    before = earlier.read_bytes()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER looks_no_delete")
    with CorrectionStore(path) as store, pytest.raises(DamagedError, match="is not sound") as caught:
        back_up(store, earlier, replace=True)
    assert caught.value.problems == ("the guard against changing looks (delete) was removed",)
    assert earlier.read_bytes() == before
    assert names(tmp_path) == ["earlier.sqlite", "store.sqlite"]


def test_where_a_backup_cannot_go_is_said(path, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "old.sqlite").write_bytes(path.read_bytes())
    with CorrectionStore(path) as store:
        for target, replace, said in (
            (path, True, "is the store itself"),
            (tmp_path / "old.sqlite", False, "there is a file .* already: .*--replace"),
            (tmp_path / "notes.txt", True, "is no backup and stays"),
            (tmp_path / "no" / "backup.sqlite", False, "there is no folder"),
            (tmp_path / "notes.txt" / "backup.sqlite", False, "is no folder"),
        ):
            with pytest.raises(StoreError, match=said):
                back_up(store, target, replace=replace)
        assert back_up(store, tmp_path / "old.sqlite", replace=True).revisions == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_read_only_folder_is_said(path, tmp_path, monkeypatch):
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda place, mode, **how: mode != os.W_OK | os.X_OK and real(place, mode, **how)
    )
    with CorrectionStore(path) as store:
        with pytest.raises(StoreError, match="cannot be written to: choose another place for the backup"):
            back_up(store, tmp_path / "backup.sqlite")
        with pytest.raises(StoreError, match="cannot be written to: choose another place for the export"):
            export_store(store, tmp_path / "export")
    with pytest.raises(StoreError, match="cannot be written to: choose another place for the store"):
        restore(path, tmp_path / "other.sqlite")
    assert names(tmp_path) == ["store.sqlite"]


@pytest.fixture
def own_data(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setattr(backup, "data_folder", lambda: folder)
    return folder


def test_a_backup_is_checked_and_left_as_it_is(path, tmp_path, own_data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check_file(Path(path.name)).problems == ()
    before = path.read_bytes()
    checked = check_file(path)
    assert (checked.revisions, checked.problems) == (2, ())
    assert path.read_bytes() == before
    assert names(own_data) == []
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER revisions_no_update")
        connection.execute("UPDATE revisions SET mask_sha256 = 'x'")
        connection.commit()
    problems = check_file(path).problems
    assert len(problems) == 3
    assert "the mask is not the one that was accepted" in problems[1]


def test_a_backup_of_an_earlier_version_is_checked_too(tmp_path, own_data):
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(Path(__file__).with_name("schema_0001.sql").read_text())
    before = path.read_bytes()
    assert check_file(path).problems == ()
    assert path.read_bytes() == before
    assert count(restore(path, tmp_path / "new.sqlite").path) == check_file(path).revisions


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(b"no database" * 90), "not a SQLite database"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9000]), "breaks off"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.unlink(), "there is no file"),
        (lambda path: change(path, "DROP TABLE heads"), "earlier.sqlite is not whole: it lost heads"),
        (lambda path: change(path, f"UPDATE {VERSION_TABLE} SET version_num = '9999'"), "newer Sonoloop"),
        (lambda path: change(path, "DROP TRIGGER looks_no_delete"), "is not sound and was not restored"),
    ],
)
def test_what_is_no_sound_backup_is_not_restored(path, earlier, tmp_path, spoil, said):
    spoil(earlier)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=said):
        restore(earlier, path)
    assert path.read_bytes() == before
    assert set(names(tmp_path)) <= {"earlier.sqlite", "store.sqlite"}


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


def test_the_store_before_is_set_aside(path, earlier, tmp_path):
    before = path.read_bytes()
    restored = restore(earlier, path)
    assert (restored.path, restored.revisions, count(path)) == (path, 2, 2)
    assert restored.aside.name.startswith("store.before-restore-20")
    assert restored.aside.read_bytes() == before
    assert restored.aside.parent == tmp_path
    again = restore(restored.aside, path)
    assert count(path) == 3
    assert again.aside != restored.aside
    assert count(earlier) == 2


def test_a_store_that_is_not_there_is_made(earlier, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    restored = restore(Path(earlier.name), "new.sqlite")
    assert (restored.path, restored.aside, count(restored.path)) == (tmp_path / "new.sqlite", None, 2)
    with pytest.raises(StoreError, match="there is no folder"):
        restore(earlier, tmp_path / "no" / "new.sqlite")
    with pytest.raises(StoreError, match="is no file"):
        restore(earlier, tmp_path)
    with pytest.raises(StoreError, match="is the store itself"):
        restore(earlier, earlier)
    with pytest.raises(StoreError, match="pg_restore"):
        restore(earlier, "postgresql://somewhere/project")
    (tmp_path / "gone.sqlite-journal").write_bytes(b"what belongs to a store that was moved away")
    with pytest.raises(StoreError, match=r"belongs to a store gone\.sqlite"):
        restore(earlier, tmp_path / "gone.sqlite")


def test_a_link_to_a_store_stays_one(path, earlier, tmp_path):
    link = tmp_path / "link.sqlite"
    link.symlink_to(path)
    assert restore(earlier, link).path == path
    assert link.is_symlink() and count(path) == 2


@pytest.mark.parametrize(
    ("content", "end"),
    [(b"", "-journal"), (b"junk" * 2000, "-wal"), (b"SQLite format 3\0" + b"junk" * 2000, "-journal")],
)
def test_a_damaged_store_is_set_aside_and_what_a_crash_left_harms_nothing(path, earlier, content, end):
    path.write_bytes(content)
    path.with_name(f"store.sqlite{end}").write_bytes(b"left by a crash" * 300)
    restored = restore(earlier, path)
    assert count(path) == 2
    assert restored.aside.read_bytes() == content
    assert not path.with_name(f"store.sqlite{end}").exists()


def test_a_store_on_which_somebody_works_is_not_replaced(path, earlier, monkeypatch):
    monkeypatch.setattr(backup, "_HOLD_MS", 50)
    before = path.read_bytes()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="is open in another program: close napari"):
            restore(earlier, path)
    assert path.read_bytes() == before
    with CorrectionStore(path) as store:
        lease = take_lease(store, "training", what="a training")
        with pytest.raises(LeaseError, match="a training is under way"):
            restore(earlier, path)
        back_up(store, earlier, replace=True)
        lease.give_back()
        claim_frame(store, sha256("one"), annotator="reader-1")
        with pytest.raises(LeaseError, match="reader-1 is working on an image of this store: close napari"):
            restore(earlier, path)
        release_frame(store, sha256("one"), annotator="reader-1")
    restore(earlier, path)
    # who was at work when the backup was made holds nothing up
    with CorrectionStore(path) as store:
        take_lease(store, "training", what="another training")


def test_who_waits_for_the_old_store_does_not_write_to_it(path, earlier, monkeypatch):
    """An Accept during a restore is in the restored store, or it is refused: never lost."""
    started, done = threading.Event(), []
    real = backup._set_aside

    def accept(store: CorrectionStore) -> None:
        started.set()
        try:
            done.append(store.accept(make_correction("four"), parent=None).id)
        except StoreError as error:
            done.append(str(error))

    with CorrectionStore(path) as store:
        thread = threading.Thread(target=accept, args=(store,))

        def set_aside(place: Path) -> Path:
            thread.start()
            started.wait()
            thread.join(0.3)
            return real(place)

        monkeypatch.setattr(backup, "_set_aside", set_aside)
        restore(earlier, path)
        thread.join(20)
        kept = store.head(sha256("four"), "reader-1")
        if kept is None:
            assert "moved or replaced" in done[0]
        else:
            assert kept.id == done[0]
        # it is the same store, and goes on
        store.accept(make_correction("five"), parent=None)


def test_a_store_that_cannot_be_replaced_keeps_its_name(path, earlier, tmp_path, monkeypatch):
    real, before = Path.replace, names(tmp_path)

    def refuse(self: Path, target: Path) -> Path:
        if target == path:
            raise PermissionError(13, "it is in use")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    for links in (True, False):
        if not links:
            monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(1, "no links")))
        with pytest.raises(StoreError, match=r"it is in use.*nothing was changed"):
            restore(earlier, path)
        assert names(tmp_path) == before
    assert count(path) == 3


def test_what_was_withdrawn_since_does_not_come_back(path, earlier):
    with CorrectionStore(path) as store:
        withdraw(store, sha256("one"), why="asked to", who="reader-1")
    restored = restore(earlier, path)
    assert restored.withdrawn == (sha256("one"),)
    with CorrectionStore(path) as store:
        assert store.history(sha256("one"))[0].withdrawn
        assert store.verify() == []


def test_a_server_is_backed_up_by_its_own_tool(store, path, tmp_path):
    if store.url.get_backend_name() == "sqlite":
        pytest.skip("a file is copied")
    with pytest.raises(StoreError, match="pg_dump"):
        back_up(store, tmp_path / "backup.sqlite")


STORES = ("store.sqlite", "backup.sqlite", "empty.sqlite")
TOUCHED = {
    "back up": ("backup.sqlite",),
    "export": (),
    "merge": ("empty.sqlite",),
    "restore": ("store.sqlite",),
}


@pytest.fixture(scope="module")
def killer() -> Iterator[Callable[..., object]]:
    """Has one process, in which all is loaded, fork others that are killed or have no room."""
    with subprocess.Popen(
        [sys.executable, str(KILLER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def ask(*what: object) -> object:
            process.stdin.write(json.dumps(what) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


@pytest.fixture
def place(path, earlier, tmp_path) -> Path:
    """A folder with a store, an earlier backup, a whole export, and a store that is empty."""
    with CorrectionStore(path) as store:
        export_store(store, tmp_path / "whole export")
    CorrectionStore(tmp_path / "empty.sqlite").close()
    shutil.copy(earlier, tmp_path / "backup.sqlite")
    return tmp_path


MOST_LIKELY_HARMED = (
    ("back up", "before-backup-named"),
    ("export", "before-manifest"),
    ("merge", "merge-half-written"),
    ("restore", "after-store-set-aside"),
)
OTHER_POINTS = (
    ("back up", "backup-half-written"),
    ("export", "backup-half-written"),
    ("export", "export-half-written"),
    ("restore", "backup-half-written"),
    ("restore", "restore-half-written"),
    ("restore", "before-store-set-aside"),
)


@posix
@pytest.mark.parametrize("points", [MOST_LIKELY_HARMED, pytest.param(OTHER_POINTS, marks=pytest.mark.slow)])
def test_killed_at_any_point_all_is_before_or_after(place, killer, points):
    before = names(place)
    for work, point in points:
        assert killer("kill", str(place), work, point) == -signal.SIGKILL, (work, point)
        assert not (place / "export").exists()
        assert [count(place / name) for name in ("store.sqlite", "backup.sqlite", "empty.sqlite")] == [
            3,
            2,
            0,
        ]
        seen = [name for name in names(place) if not name.startswith(".")]
        assert seen == before or (point == "after-store-set-aside" and len(seen) == len(before) + 1), point
    assert killer("kill", str(place), "restore", "after-restore") == -signal.SIGKILL
    assert count(place / "store.sqlite") == 2
    asides = [name for name in names(place) if "before-restore" in name]
    assert {count(place / name) for name in asides} == {3}
    # what was left half written goes with the next one, whoever makes it
    assert [killer("kill", str(place), work, "") for work in ("back up", "export", "merge")] == [0, 0, 0]
    assert not [name for name in names(place) if name.startswith(".")]
    assert [count(place / name) for name in ("backup.sqlite", "empty.sqlite")] == [2, 3]


@posix
@pytest.mark.parametrize(
    "work",
    ["back up", "export", *(pytest.param(work, marks=pytest.mark.slow) for work in ("restore", "merge"))],
)
def test_a_full_disk_is_said_and_costs_nothing(place, killer, work):
    before = names(place)
    for room in (0, 100_000):
        said = killer("full", str(place), work, room)
        assert any(told in said for told in ("free some space", "make room", "choose another disk")), said
        assert names(place) == before
    assert [count(place / name, sound=name in TOUCHED[work]) for name in STORES] == [3, 2, 0]
    assert killer("kill", str(place), work, "") == 0
