"""Jobs in a worker thread, one after another, their answers back on the GUI thread."""

from __future__ import annotations

import logging
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, QRunnable, QThreadPool, Signal

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    body: Callable[[], Any]
    done: Callable[[Any], None]
    failed: Callable[[Exception], None]


class _Backlog:
    """The jobs that wait for the worker, which may outlive the queue."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: deque[_Job] = deque()
        self._has_worker = False

    def add(self, job: _Job) -> bool:
        """Add a job; whether a worker must be started for it."""
        with self._lock:
            self._waiting.append(job)
            had_worker, self._has_worker = self._has_worker, True
            return not had_worker

    def take(self) -> _Job | None:
        """Take the next job; where there is none, the worker ends."""
        with self._lock:
            self._has_worker = bool(self._waiting)
            return self._waiting.popleft() if self._waiting else None

    def clear(self) -> None:
        """Forget the jobs that wait."""
        with self._lock:
            self._waiting.clear()


class _Reports(QObject):
    """Carries what the worker says to the GUI thread."""

    answered = Signal(object, object, object)  # the job, its answer, its error
    warned = Signal(object)  # the arguments of `warnings.showwarning`


class _Worker(QRunnable):
    """Runs all jobs of a backlog: the next one starts without an event loop, which ends with the window."""

    def __init__(self, backlog: _Backlog, reports: _Reports) -> None:
        super().__init__()
        self._backlog = backlog
        self._reports = reports

    def run(self) -> None:
        """Run jobs until none waits."""
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda *warning: self._reports.warned.emit(warning)
            while (job := self._backlog.take()) is not None:
                try:
                    answer = job.body()
                except Exception as error:
                    self._reports.answered.emit(job, None, error)
                else:
                    self._reports.answered.emit(job, answer, None)


class JobQueue(QObject):
    """Runs jobs one after another in a worker thread.

    A body may not touch Qt or a layer: all it needs is captured when it is submitted. Answers come in the
    GUI thread, in order; those of jobs that were dropped do not come.

    Parameters
    ----------
    latest_only : bool
        A new job supersedes all older ones, the one that is running included.
    parent : QObject, optional
        The owner.
    """

    busy_changed = Signal(bool)

    def __init__(self, *, latest_only: bool = False, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._latest_only = latest_only
        self._backlog = _Backlog()
        self._asked: set[_Job] = set()
        self._busy = False
        self._reports = _Reports()
        self._reports.answered.connect(self._on_answered)
        self._reports.warned.connect(_on_warned)

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return self._busy

    def submit(
        self,
        body: Callable[[], Any],
        *,
        done: Callable[[Any], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Queue a job; `done` or `failed` is called with its answer."""
        if self._latest_only:
            self._forget()
        job = _Job(body, done, failed)
        self._asked.add(job)
        if self._backlog.add(job):
            pool = QThreadPool.globalInstance()
            assert pool is not None
            pool.start(_Worker(self._backlog, self._reports))
        self._tell_busy()

    def drop(self) -> None:
        """Forget every job: those that wait do not start, the answer of the running one is ignored."""
        self._forget()
        self._tell_busy()

    def mute(self) -> None:
        """Run what is queued to its end, and tell nobody."""
        self._asked.clear()
        self._tell_busy()

    def _forget(self) -> None:
        self._backlog.clear()
        self._asked.clear()

    def _on_answered(self, job: _Job, answer: object, error: Exception | None) -> None:
        if job not in self._asked:
            return
        self._asked.discard(job)
        self._tell_busy()
        if error is None:
            job.done(answer)
        else:
            job.failed(error)

    def _tell_busy(self) -> None:
        busy = bool(self._asked)
        if busy != self._busy:
            self._busy = busy
            self.busy_changed.emit(busy)


def _on_warned(warning: tuple[Any, ...]) -> None:
    """Show what our own code warns of; leave the libraries' warnings to the log."""
    message, category, filename, line = warning[:4]
    if issubclass(category, UserWarning) and "sonoloop" in str(filename):
        show_warning(str(message))
    else:
        # warned of again it would come back here while another worker listens
        logger.info("%s:%s: %s: %s", filename, line, category.__name__, message)
