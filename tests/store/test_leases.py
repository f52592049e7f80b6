from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update
from store_writers import make_correction, sha256

from sonoloop.errors import StoreError
from sonoloop.store.leases import (
    CLAIM_EXPIRY,
    EXPIRY,
    ClaimedError,
    LeaseError,
    claim_frame,
    lease,
    release_frame,
)
from sonoloop.store.tables import LEASES


def change(store, **values: object) -> None:
    with store.writing() as connection:
        connection.execute(update(LEASES).values(values))


def test_the_second_is_refused_and_told_who_holds_it(store):
    with lease(store, "finetune", what="fine-tuning on snapshot-3"):
        told = pytest.raises(LeaseError, match=rf"fine-tuning on snapshot-3 .* process {os.getpid()} on ")
        with told, lease(store, "finetune", what="another"):
            pytest.fail("both hold it")
        with lease(store, "import", what="something else"):
            pass
    with lease(store, "finetune", what="the next"):
        pass


def test_it_is_given_back_when_the_block_fails(store):
    with pytest.raises(OSError, match="no room"), lease(store, "finetune", what="one"):
        raise OSError("no room")
    with store.reading() as connection:
        assert connection.scalar(select(func.count()).select_from(LEASES)) == 0


def test_a_holder_whose_process_is_gone_is_taken_over(store, url):
    code = (
        "import os, sys; from sonoloop.store import CorrectionStore;"
        "from sonoloop.store.leases import take_lease;"
        "take_lease(CorrectionStore(sys.argv[1]), 'finetune', what='killed'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, url], timeout=60, check=False).returncode == 9
    with store.reading() as connection:
        assert connection.scalar(select(LEASES.c.what)) == "killed"
    with lease(store, "finetune", what="the next") as held:
        held.renew()


def skew(monkeypatch, by: timedelta) -> None:
    """Have this machine's clock go wrong from here on."""

    class Skewed(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + by

    monkeypatch.setattr("sonoloop.store.leases.datetime", Skewed)


@pytest.fixture
def brief(monkeypatch) -> None:
    """A lease runs out after a second."""
    monkeypatch.setattr("sonoloop.store.leases.EXPIRY", timedelta(seconds=1))
    monkeypatch.setattr("sonoloop.store.leases._WATCH_SECONDS", 0.05)


@pytest.mark.parametrize("by", [timedelta(hours=1), -timedelta(hours=1)])
def test_a_holder_that_renews_keeps_its_lease_from_a_machine_with_another_clock(store, monkeypatch, by):
    with lease(store, "finetune", what="far away") as first:
        change(store, host="another")
        skew(monkeypatch, by)
        monkeypatch.setattr("sonoloop.store.leases.time.sleep", lambda _seconds: renew_truly(store))
        with pytest.raises(LeaseError, match="on another"), lease(store, "finetune", what="mine"):
            pytest.fail("a live lease was stolen")
        monkeypatch.undo()
        first.renew()


def renew_truly(store) -> None:
    change(store, renewed=datetime.now(UTC).isoformat(timespec="microseconds"))


def test_a_holder_on_another_machine_that_was_heard_of_is_not_waited_for(store, monkeypatch):
    monkeypatch.setattr("sonoloop.store.leases.time.sleep", lambda _seconds: pytest.fail("it waits"))
    with lease(store, "finetune", what="far away"):
        change(store, host="another", renewed=(datetime.now(UTC) - EXPIRY * 0.8).isoformat())
        with pytest.raises(LeaseError, match="on another"), lease(store, "finetune", what="mine"):
            pass


@pytest.mark.parametrize("ahead", [False, True])
def test_a_holder_on_another_machine_is_gone_when_it_was_not_heard_of(store, brief, ahead):
    age = timedelta(seconds=-60 if ahead else 60)
    with lease(store, "finetune", what="far away") as first:
        change(store, host="another", renewed=(datetime.now(UTC) - age).isoformat())
        with lease(store, "finetune", what="mine") as second:
            with pytest.raises(LeaseError, match="another program took it"):
                first.renew()
            first.give_back()
            second.renew()


def test_a_lease_that_is_given_back_while_it_is_watched_is_taken(store, brief, monkeypatch):
    with lease(store, "finetune", what="far away") as first:
        change(store, host="another", renewed="2020-01-01T00:00:00+00:00")
        monkeypatch.setattr("sonoloop.store.leases.time.sleep", lambda _seconds: first.give_back())
        with lease(store, "finetune", what="mine"):
            pass


def test_a_machine_of_the_same_name_is_another_one(store, monkeypatch):
    with lease(store, "finetune", what="far away"):
        # a process of that number runs there, and here none does
        monkeypatch.setattr("psutil.pid_exists", lambda _pid: False)
        monkeypatch.setattr("sonoloop.store.leases.getnode", lambda: 0x02_42_AC_11_00_02)
        told = pytest.raises(LeaseError, match=rf"on {re.escape(socket.gethostname())} has held")
        with told, lease(store, "finetune", what="mine"):
            pytest.fail("both hold it")
        monkeypatch.undo()
        monkeypatch.setattr("psutil.pid_exists", lambda _pid: False)
        with lease(store, "finetune", what="on the same machine"):
            pass


def test_renewing_keeps_it(store):
    with lease(store, "finetune", what="far away") as held:
        change(store, host="another", renewed="2020-01-01T00:00:00+00:00")
        held.renew()
        with pytest.raises(LeaseError), lease(store, "finetune", what="mine"):
            pass


def test_of_many_at_once_one_gets_it(store):
    start, done = threading.Barrier(6), threading.Barrier(6)

    def take(_number: int) -> bool:
        start.wait()
        try:
            with lease(store, "finetune", what="a race"):
                done.wait()
                return True
        except LeaseError:
            done.wait()
            return False

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(take, range(6))) == 1


FRAME = sha256("frame")


@pytest.fixture
def framed(store):
    """An image that can be claimed."""
    store.accept(make_correction(), parent=None)


def test_a_claimed_frame_says_by_whom_and_until_when(store, framed):
    mine = claim_frame(store, FRAME, annotator="r1")
    again = claim_frame(store, FRAME, annotator=" r1")
    assert again.until >= mine.until
    assert abs(mine.until - datetime.now(UTC) - CLAIM_EXPIRY) < timedelta(seconds=20)
    with pytest.raises(ClaimedError, match="r1 is working on this image, and has it until ") as caught:
        claim_frame(store, FRAME, annotator="r2")
    assert (caught.value.by, caught.value.until) == ("r1", again.until)
    release_frame(store, FRAME, annotator="r2")
    with pytest.raises(ClaimedError):
        claim_frame(store, FRAME, annotator="r2")
    release_frame(store, FRAME, annotator="r1")
    assert claim_frame(store, FRAME, annotator="r2").by == "r2"


@pytest.mark.parametrize("gone", ["long ago", "in the future", "process"])
def test_a_claim_that_ran_out_is_taken_over(store, framed, monkeypatch, gone):
    claim_frame(store, FRAME, annotator="r1")
    if gone == "process":
        monkeypatch.setattr("psutil.pid_exists", lambda _pid: False)
    else:
        age = CLAIM_EXPIRY * (1.1 if gone == "long ago" else -1.1)
        change(store, host="another", renewed=(datetime.now(UTC) - age).isoformat())
    assert claim_frame(store, FRAME, annotator="r2").by == "r2"


def test_of_two_that_claim_at_once_one_gets_it(store, framed):
    start = threading.Barrier(6)

    def claim(number: int) -> bool:
        start.wait()
        try:
            claim_frame(store, FRAME, annotator=f"r{number}")
        except ClaimedError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(claim, range(6))) == 1


def test_what_is_no_image_is_not_claimed(store):
    for name in ("finetune", FRAME):
        with pytest.raises(StoreError, match="the store has no image"):
            claim_frame(store, name, annotator="r1")
