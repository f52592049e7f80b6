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

from sonoloop.store.leases import EXPIRY, LeaseError, lease
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


@pytest.mark.parametrize(("age", "gone"), [(EXPIRY - timedelta(seconds=20), False), (EXPIRY * 1.2, True)])
def test_a_holder_on_another_machine_is_gone_when_it_was_not_heard_of(store, age, gone):
    renewed = (datetime.now(UTC) - age).isoformat()
    with lease(store, "finetune", what="far away") as first:
        change(store, host="another", renewed=renewed)
        if not gone:
            with pytest.raises(LeaseError, match="on another"), lease(store, "finetune", what="mine"):
                pass
            return
        with lease(store, "finetune", what="mine") as second:
            with pytest.raises(LeaseError, match="another program took it"):
                first.renew()
            first.give_back()
            second.renew()


def test_a_machine_of_the_same_name_is_another_one(store, monkeypatch):
    with lease(store, "finetune", what="far away"):
        # a process of that number runs there, and here none does
        monkeypatch.setattr("sonoloop.store.leases._is_running", lambda _pid: False)
        monkeypatch.setattr("sonoloop.store.leases.getnode", lambda: 0x02_42_AC_11_00_02)
        told = pytest.raises(LeaseError, match=rf"on {re.escape(socket.gethostname())} has held")
        with told, lease(store, "finetune", what="mine"):
            pytest.fail("both hold it")
        monkeypatch.undo()
        monkeypatch.setattr("sonoloop.store.leases._is_running", lambda _pid: False)
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
