"""The queue of jobs: order, dropping, errors."""

from __future__ import annotations

import threading
import time
import warnings

from qtpy.QtCore import QEventLoop, QThreadPool, QTimer

from sonoloop.gui.workers import JobQueue


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


def test_a_warning_of_a_library_is_logged_while_a_worker_runs(qtbot, caplog):
    queue, answers = JobQueue(), Answers()
    gate, begun = threading.Event(), threading.Event()
    answers.ask(queue, lambda: begun.set() or gate.wait(10))
    assert begun.wait(10)
    with caplog.at_level("INFO", logger="sonoloop.gui.workers"):
        # in the GUI thread: it would be told, and warned of, without end
        warnings.warn_explicit("a socket was left open", ResourceWarning, "library.py", 12)
    gate.set()
    qtbot.waitUntil(lambda: not queue.busy)
    assert "library.py:12: ResourceWarning: a socket was left open" in caplog.text
