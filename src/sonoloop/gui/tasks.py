"""Jobs in a worker thread, one after another, their answers back on the GUI thread."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal

# superqt's own, not napari's: errors are shown here, and must not be shown twice
from superqt.utils import create_worker


@dataclass(frozen=True, slots=True)
class _Job:
    number: int
    body: Callable[[], Any]
    done: Callable[[Any], None]
    failed: Callable[[Exception], None]


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
        self._waiting: deque[_Job] = deque()
        self._running: _Job | None = None
        self._worker: Any = None
        self._next_number = 0
        self._first_valid = 0
        self._busy = False

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
        self._waiting.append(_Job(self._next_number, body, done, failed))
        self._next_number += 1
        self._start_next()
        self._tell_busy()

    def drop(self) -> None:
        """Forget every job: those that wait do not start, the answer of the running one is ignored."""
        self._forget()
        self._tell_busy()

    def mute(self) -> None:
        """Run what is queued to its end, and tell nobody."""
        self._first_valid = self._next_number
        self._tell_busy()

    def _forget(self) -> None:
        self._waiting.clear()
        self._first_valid = self._next_number

    def _start_next(self) -> None:
        if self._running is not None or not self._waiting:
            return
        job = self._running = self._waiting.popleft()
        worker = self._worker = create_worker(job.body, _start_thread=False, _ignore_errors=True)
        worker.returned.connect(self._on_returned)
        worker.errored.connect(self._on_errored)
        worker.warned.connect(_on_warned)
        worker.start()

    def _on_returned(self, answer: object) -> None:
        job = self._finish()
        if job is not None:
            job.done(answer)

    def _on_errored(self, error: Exception) -> None:
        job = self._finish()
        if job is not None:
            job.failed(error)

    def _finish(self) -> _Job | None:
        """Close the running job and start the next; the job, if its answer is still wanted."""
        job, self._running, self._worker = self._running, None, None
        self._start_next()
        self._tell_busy()
        return job if job is not None and job.number >= self._first_valid else None

    def _tell_busy(self) -> None:
        running = self._running is not None and self._running.number >= self._first_valid
        busy = running or bool(self._waiting)
        if busy != self._busy:
            self._busy = busy
            self.busy_changed.emit(busy)


def _on_warned(warning: tuple[Any, ...]) -> None:
    """Show what our own code warns of; leave the libraries' warnings to the log."""
    message, category, filename, line = warning[:4]
    if issubclass(category, UserWarning) and "sonoloop" in str(filename):
        show_warning(str(message))
    else:
        warnings.warn_explicit(message, category, filename, line)
