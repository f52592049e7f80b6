from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from store_writers import make_correction, sha256, write_history

import sonoloop.store.database
from sonoloop.errors import ConflictError, StoreError
from sonoloop.store import CorrectionStore

WRITERS = Path(__file__).with_name("store_writers.py")


def run_writer(*arguments: object) -> dict:
    run = subprocess.run(
        [sys.executable, str(WRITERS), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_two_processes_open_and_write_at_once_and_lose_nothing(url):
    spawn = multiprocessing.get_context("spawn")
    readers = ("reader-1", "reader-2")
    processes = [spawn.Process(target=write_history, args=(url, reader, 20)) for reader in readers]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    with CorrectionStore(url) as store:
        assert store.count() == 40
        for frame in ("one", "two"):
            for reader in readers:
                chain = [r for r in store.history(sha256(frame)) if r.correction.annotator == reader]
                assert [r.parent for r in chain] == [None, *(r.id for r in chain[:-1])]
                assert len(chain) == 10
        assert store.verify() == []


def test_threads_opening_a_new_store_at_once_all_succeed(url):
    def open_and_accept(number: int) -> None:
        with CorrectionStore(url) as store:
            store.accept(make_correction(annotator=f"reader-{number}"), parent=None)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(open_and_accept, range(6)))
    with CorrectionStore(url) as store:
        assert store.count() == 6


@pytest.mark.parametrize("visit", ["first", "later"])
def test_of_several_accepts_at_once_one_wins_and_all_are_kept(store, visit):
    begun = None if visit == "first" else store.accept(make_correction(), parent=None).id
    before = store.count()
    start = threading.Barrier(6)

    def accept(seed: int) -> str:
        store.history(sha256("frame"))  # connected before the race begins
        start.wait()
        try:
            return store.accept(make_correction(seed=seed), parent=begun).id
        except ConflictError:
            return "conflict"

    with ThreadPoolExecutor(6) as pool:
        # none of them says what is said already, which would write nothing
        results = list(pool.map(accept, range(1, 7)))
    assert results.count("conflict") == 5
    assert store.count() == before + 6
    winner = next(result for result in results if result != "conflict")
    assert store.head(sha256("frame"), "reader-1").id == winner


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace shows what was synced before what")
def test_accept_returns_after_the_disk_has_it(path, tmp_path):
    """A killed process proves nothing about a power cut; the order of the syncs does."""
    CorrectionStore(path).close()
    trace = tmp_path / "trace"
    calls = "fsync,fdatasync,unlink,unlinkat,write"
    strace = ["strace", "-f", "-y", "-e", f"trace={calls}", "-o", str(trace)]
    run = subprocess.run(
        [*strace, sys.executable, str(WRITERS), "accept", str(path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if "PTRACE" in run.stderr:
        pytest.skip("strace may not look here")
    assert run.returncode == 0, run.stderr
    seen = []
    for line in trace.read_text().splitlines():
        if "sync(" in line:
            seen.append("sync " + line.split("<")[1].split(">")[0].removeprefix(str(tmp_path)))
        elif "unlink" in line and "-journal" in line:
            seen.append("unlink journal")
        elif "write(1<" in line and "accepted" in line:
            seen.append("told")
    assert seen == [
        "sync /corrections.sqlite-journal",
        "sync ",
        "sync /corrections.sqlite-journal",
        "sync /corrections.sqlite",
        "unlink journal",
        "sync ",
        "told",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writers are forked")
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "rounds", [25, pytest.param(50, marks=pytest.mark.slow), pytest.param(1000, marks=pytest.mark.nightly)]
)
def test_what_was_accepted_survives_sigkill(path, rounds):
    CorrectionStore(path).close()
    result = run_writer("kill", path, rounds, 20)
    told = [line.split() for line in result["told"]]
    assert len(told) >= rounds
    with CorrectionStore(path) as store:
        kept = {
            revision.id: revision.mask_sha256
            for round_ in range(rounds)
            for revision in store.history(sha256(f"frame {round_}"))
        }
        assert store.verify() == []
        assert store.count() == len(kept)
    assert [line for line in told if kept.get(line[0]) != line[1]] == []
    assert len(told) <= len(kept) <= len(told) + rounds  # at most the one that was under way


@pytest.mark.skipif(os.name != "posix", reason="the room is limited by RLIMIT_FSIZE")
def test_full_disk_is_shown_and_costs_nothing(path):
    result = run_writer("fill", path)
    assert "free some space" in result["said"]
    assert result["left"] == 1
    with CorrectionStore(path) as store:
        assert store.verify() == []
        assert store.head(sha256("frame"), "reader-1").id == result["first"]
        assert store.head(sha256("big"), "reader-1").id == result["retried"]


def test_lock_held_for_too_long_is_explained(path, monkeypatch):
    monkeypatch.setattr(sonoloop.store.database, "_PRAGMAS", ("PRAGMA busy_timeout=50",))
    with CorrectionStore(path) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="another program has been writing") as caught:
            store.accept(make_correction(), parent=None)
        assert caught.value.__cause__ is not None
        other.execute("ROLLBACK")
        store.accept(make_correction(), parent=None)


@pytest.mark.parametrize("seed", range(20))
def test_damaged_file_is_never_read_as_sound(path, seed):
    """Flips in free space may go unseen; what is read must then still be what was accepted."""
    with CorrectionStore(path) as store:
        accepted = store.accept(make_correction(shape=(120, 120)), parent=None)
    content = bytearray(path.read_bytes())
    at = random.Random(seed).randrange(len(content))
    content[at] ^= 0xFF
    path.write_bytes(content)
    try:
        with CorrectionStore(path) as store:
            if store.verify():
                return
            found = store.head(sha256("frame"), "reader-1")
    except StoreError:
        return
    assert found.mask_sha256 == accepted.mask_sha256


def test_a_message_of_the_database_that_is_no_text_is_told_as_damage(path):
    CorrectionStore(path).close()
    content = path.read_bytes()
    assert content.count(b"CREATE TABLE frames") == 1
    path.write_bytes(content.replace(b"CREATE TABLE frames", b"CREATE \xdfABLE frames"))
    with pytest.raises(StoreError, match="damaged"):
        CorrectionStore(path)
