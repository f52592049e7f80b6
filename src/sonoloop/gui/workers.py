"""Jobs in a worker thread, one after another, their answers on the GUI thread; and the projects they ask."""

from __future__ import annotations

import atexit
import logging
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, QRunnable, QThreadPool, Signal

from sonoloop.errors import StoreError
from sonoloop.gui.words import fit_toast

if TYPE_CHECKING:
    from sonoloop.project import Project

T = TypeVar("T")
logger = logging.getLogger(__name__)


def open_project(store: str | None) -> Project:
    """Open a project whose notices are shown; called in a worker."""
    from sonoloop.project import open_project  # noqa: PLC0415 - loads the database

    path = None if store is None else store.removeprefix("sqlite:///")
    if path is not None and "://" not in path and not Path(path).is_absolute():
        # taken from where napari happens to be started, it would be another store each time
        raise StoreError(f"{store} is not a whole path: choose the store with Browse in Settings")
    # safe to call in a worker
    return open_project(store, on_notice=lambda text: show_warning(fit_toast(text)))


class Projects:
    """The projects that a panel's workers ask, one a store.

    Each is opened by the worker that asks first, and closed when another one is asked and no worker uses it.

    Parameters
    ----------
    open_one : callable
        Opens the project of a store's URL, None for the default one.
    """

    def __init__(self, open_one: Callable[[str | None], Project] = open_project) -> None:
        self._open = open_one
        self._projects: dict[str | None, _Opened] = {}
        self._forgotten: list[_Opened] = []
        self._last: str | None = None
        self._closed = False
        self._lock = Lock()

    @contextmanager
    def use(self, store: str | None, annotator: str | None = None) -> Iterator[Project]:
        """Give the project of a store, in which the annotator works; it stays open for the context."""
        with self._lock:
            if self._closed:
                raise StoreError("the panel was closed: open it again from Plugins > Sonoloop")
            if store not in self._projects:
                self._projects[store] = _Opened(self._open(store))
            opened, self._last = self._projects[store], store
            opened.users += 1
        try:
            yield opened.project if annotator is None else opened.project.by(annotator)
        finally:
            with self._lock:
                opened.users -= 1
                self._close_unused()

    def ask(self, store: str | None, question: Callable[[Project], T], *, annotator: str | None = None) -> T:
        """Give the answer of a project to a question."""
        with self.use(store, annotator) as project:
            return question(project)

    def forget(self, store: str | None) -> None:
        """Open the project of a store anew when it is asked next; closed once no worker uses it."""
        with self._lock:
            if store in self._projects:
                self._forgotten.append(self._projects.pop(store))

    def close(self) -> None:
        """Close every project, for good, as soon as no worker uses it."""
        with self._lock:
            self._closed = True
            self._close_unused()

    def _close_unused(self) -> None:
        for store, opened in list(self._projects.items()):
            if not opened.users and (self._closed or store != self._last):
                self._projects.pop(store).project.close()
        for opened in list(self._forgotten):
            if not opened.users:
                self._forgotten.remove(opened)
                opened.project.close()


@dataclass(slots=True, eq=False)
class _Opened:
    """A project, and how many workers use it."""

    project: Project
    users: int = 0


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


class _Worker(QRunnable):
    """Runs all jobs of a backlog: the next one starts without an event loop, which ends with the window."""

    def __init__(self, backlog: _Backlog, reports: _Reports) -> None:
        super().__init__()
        self._backlog = backlog
        self._reports = reports

    def run(self) -> None:
        """Run jobs until none waits."""
        _hook.install()
        _hook.thread.works = True
        try:
            while (job := self._backlog.take()) is not None:
                try:
                    answer = job.body()
                except Exception as error:
                    self._reports.answered.emit(job, None, error)
                else:
                    self._reports.answered.emit(job, answer, None)
        finally:
            _hook.thread.works = False


@cache
def _prompt_pool() -> QThreadPool:
    """Give the thread of jobs that no prediction may keep waiting; it lives as long as Python."""
    pool = QThreadPool()
    pool.setMaxThreadCount(1)
    return pool


@atexit.register
def _await_workers() -> None:
    """Let what was begun end before Python does: a worker that is cut off loses work, and crashes."""
    for pool in (QThreadPool.globalInstance(), _prompt_pool()):
        if pool is not None:
            pool.waitForDone()


class JobQueue(QObject):
    """Runs jobs one after another in a worker thread.

    A body may not touch Qt or a layer: all it needs is captured when it is submitted. Answers come in the
    GUI thread, in order; those of jobs that were dropped do not come.

    Parameters
    ----------
    latest_only : bool
        A new job supersedes all older ones, the one that is running included.
    prompt : bool
        Its jobs wait for no others but those of prompt queues.
    parent : QObject, optional
        The owner.
    """

    busy_changed = Signal(bool)

    def __init__(
        self, *, latest_only: bool = False, prompt: bool = False, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._latest_only = latest_only
        self._pool = _prompt_pool() if prompt else QThreadPool.globalInstance()
        self._backlog = _Backlog()
        self._asked: set[_Job] = set()
        self._busy = False
        self._reports = _Reports()
        self._reports.answered.connect(self._on_answered)

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
            assert self._pool is not None
            self._pool.start(_Worker(self._backlog, self._reports))
        self._tell_busy()

    def drop(self) -> None:
        """Forget every job: those that wait do not start, the answer of the running one is ignored."""
        self._forget()
        self._tell_busy()

    def mute(self) -> None:
        """Run what is queued to its end, and tell nobody."""
        self._asked.clear()
        self._tell_busy()

    def wait(self, milliseconds: int) -> None:
        """Wait until everything that its thread runs has ended; answers come after that."""
        if self._pool is not None:
            self._pool.waitForDone(milliseconds)

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


def ignore(_answer: object) -> None:
    """Take an answer of which nobody is left to be told."""


class _WarningHook:
    """Logs what libraries warn of in our workers; the rest goes on to the hook that was there, napari's.

    `warnings.catch_warnings` would not do: it is not made for threads.
    """

    def __init__(self) -> None:
        self.thread = threading.local()
        self._before = warnings.showwarning

    def install(self) -> None:
        """Stand before whatever hook there is; napari sets its own when it starts."""
        if warnings.showwarning != self._show:
            self._before, warnings.showwarning = warnings.showwarning, self._show

    def _show(  # noqa: PLR0917 - as `warnings.showwarning`
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if getattr(self.thread, "works", False):
            logger.info("%s:%s: %s: %s", filename, lineno, category.__name__, message)
        else:
            self._before(message, category, filename, lineno, file, line)


_hook = _WarningHook()
