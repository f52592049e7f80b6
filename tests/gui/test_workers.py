"""The queue of jobs: order, dropping, errors, warnings; and the projects that jobs ask."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings

import pytest
from qtpy.QtCore import QEventLoop, QThreadPool, QTimer

from sonoloop.errors import StoreError
from sonoloop.gui.workers import JobQueue, Projects


class Answers(list):
    """Collects answers and errors."""

    def ask(self, queue: JobQueue, body) -> None:
        queue.submit(body, done=self.append, failed=self.append)


def test_answers_come_in_order_in_the_gui_thread(qtbot):
    queue, answers = JobQueue(), Answers()
    threads = []
    for number in range(4):
        queue.submit(
            lambda number=number: time.sleep(0.01 * (4 - number)) or number,
            done=lambda answer: (answers.append(answer), threads.append(threading.current_thread())),
            failed=answers.append,
        )
    assert queue.busy
    qtbot.waitUntil(lambda: not queue.busy)
    assert answers == [0, 1, 2, 3]
    assert set(threads) == {threading.main_thread()}


def test_jobs_run_one_after_another(qtbot):
    queue, answers = JobQueue(), Answers()
    running = []

    def body():
        running.append(1)
        time.sleep(0.02)
        count = len(running)
        running.pop()
        return count

    for _ in range(3):
        answers.ask(queue, body)
    qtbot.waitUntil(lambda: len(answers) == 3)
    assert answers == [1, 1, 1]


def test_an_error_does_not_stop_the_queue(qtbot):
    queue, answers = JobQueue(), Answers()
    answers.ask(queue, lambda: 1 / 0)
    answers.ask(queue, lambda: "next")
    qtbot.waitUntil(lambda: len(answers) == 2)
    assert isinstance(answers[0], ZeroDivisionError)
    assert answers[1] == "next"


def test_of_many_requests_only_the_latest_is_answered(qtbot):
    queue, answers, ran = JobQueue(latest_only=True), Answers(), []
    gate = threading.Event()
    answers.ask(queue, lambda: gate.wait(10) and "first")
    for number in range(5):
        answers.ask(queue, lambda number=number: ran.append(number) or number)
    gate.set()
    qtbot.waitUntil(lambda: not queue.busy)
    assert answers == [4]
    assert ran == [4], "what was superseded before it started never runs"


def test_a_dropped_queue_is_idle_at_once_and_can_go_on(qtbot):
    queue, answers = JobQueue(), Answers()
    gate = threading.Event()
    answers.ask(queue, lambda: gate.wait(10) and "dropped")
    queue.drop()
    assert not queue.busy
    answers.ask(queue, lambda: "next")
    gate.set()
    qtbot.waitUntil(lambda: not queue.busy)
    assert answers == ["next"]


def test_a_muted_queue_still_does_its_work(qtbot):
    queue, answers, done = JobQueue(), Answers(), []
    for number in range(3):
        answers.ask(queue, lambda number=number: done.append(number))
    queue.mute()
    qtbot.waitUntil(lambda: done == [0, 1, 2])
    assert answers == []


def test_what_was_queued_runs_though_the_event_loop_ends(qtbot):
    queue, answers, done, loop = JobQueue(), Answers(), [], QEventLoop()

    def ask_and_close():
        for number in range(3):
            answers.ask(queue, lambda number=number: time.sleep(0.02) or done.append(number))
        queue.mute()
        loop.quit()

    QTimer.singleShot(0, ask_and_close)
    loop.exec()
    assert QThreadPool.globalInstance().waitForDone(10_000)
    assert done == [0, 1, 2]


def warn(text):
    warnings.warn_explicit(text, RuntimeWarning, "library.py", 12)


@pytest.fixture
def shown(monkeypatch):
    """What napari's own hook is told."""
    texts = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: texts.append(str(message)))
    monkeypatch.setattr(warnings, "filters", [("always", None, Warning, None, 0)])
    return texts


def test_what_libraries_warn_of_in_a_worker_is_logged_and_in_the_gui_thread_shown(qtbot, caplog, shown):
    queue, answers = JobQueue(), Answers()
    gate, begun = threading.Event(), threading.Event()
    with caplog.at_level("INFO", logger="sonoloop.gui.workers"):
        answers.ask(queue, lambda: warn("in the worker") or begun.set() or gate.wait(10))
        assert begun.wait(10)
        warn("in the GUI thread")
        gate.set()
        qtbot.waitUntil(lambda: not queue.busy)
    assert "library.py:12: RuntimeWarning: in the worker" in caplog.text
    assert shown == ["in the GUI thread"]


def test_workers_that_overlap_leave_filters_and_hook_as_they_were(qtbot, shown):
    filters = list(warnings.filters)
    queues = JobQueue(), JobQueue()
    gates, answers = (threading.Event(), threading.Event()), Answers()
    for queue, gate in zip(queues, gates, strict=True):
        answers.ask(queue, lambda gate=gate: gate.wait(10))
        qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() > 0)
    for gate, queue in zip(gates, queues, strict=True):  # the first one to come is the first to go
        gate.set()
        qtbot.waitUntil(lambda queue=queue: not queue.busy)
    assert QThreadPool.globalInstance().waitForDone(10_000)
    assert warnings.filters == filters
    warn("afterwards")
    assert shown == ["afterwards"]


class FakeProject:
    def __init__(self, url):
        self.url, self.closed = url, False

    def by(self, _annotator):
        return self

    def close(self):
        self.closed = True


def test_a_project_is_not_closed_under_a_worker_that_uses_it():
    projects = Projects(FakeProject)
    with projects.use("a", "anna") as first:
        with projects.use("b") as second:
            assert not first.closed, "another URL was set while something is stored here"
        assert not first.closed
    assert first.closed
    assert not second.closed
    assert projects.ask("b", lambda project: project) is second
    with projects.use("b"):
        projects.close()
        assert not second.closed
    assert second.closed
    with pytest.raises(StoreError, match="panel was closed"):
        projects.ask("b", lambda project: project)


_ENDS_AT_ONCE = """
import sys, time
from pathlib import Path
from qtpy.QtCore import QCoreApplication, QObject, Signal
from sonoloop.gui.workers import JobQueue, ignore

class Reports(QObject):
    told = Signal(int)

def store(tell):
    for number in range(10):
        time.sleep(0.05)
        tell(number)
    Path(sys.argv[1]).write_text("stored")

application, reports, queue = QCoreApplication([]), Reports(), JobQueue()
queue.submit(lambda tell=reports.told.emit: store(tell), done=ignore, failed=ignore)
"""


def test_what_was_begun_is_stored_although_napari_ends(tmp_path):
    path = tmp_path / "stored.txt"
    ended = subprocess.run(
        [sys.executable, "-c", _ENDS_AT_ONCE, path],
        env=os.environ | {"QT_QPA_PLATFORM": "offscreen"},
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0
    assert path.read_text() == "stored"
