"""Follows a fine-tuning from the panel: starts it, finds it again, reads what it says, stops it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from qtpy.QtCore import QObject, QTimer, Signal

from sonoloop.gui.messages import show_problem
from sonoloop.gui.session import single_shot
from sonoloop.gui.tasks import JobQueue
from sonoloop.gui.train_job import (
    Job,
    JobReader,
    Reading,
    ask_to_stop,
    find_job,
    terminate,
)
from sonoloop.gui.train_progress import JobProgress, Stage, advance, end
from sonoloop.gui.train_start import Request, start_job

_POLL_MS = 500
_PATIENCE_MS = 10_000


class TrainWatch(QObject):
    """The job of one store, running or the last one.

    Parameters
    ----------
    find_jobs : callable
        Gives the folder of a store's jobs; called in the worker.
    start : callable
        Starts a job in that folder, or goes on with one; see `sonoloop.gui.train_start.start_job`.
    parent : QObject, optional
        The owner.
    """

    changed = Signal()
    ended = Signal()

    def __init__(
        self,
        find_jobs: Callable[[str | None], Path],
        *,
        start: Callable[..., Job] = start_job,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._find_jobs = find_jobs
        self._start = start
        self._reader: JobReader | None = None
        self.progress = JobProgress()
        self._told = JobProgress()  # by its events alone
        self._stopping = False
        self._jobs = JobQueue(parent=self)
        self._poll = QTimer(self)
        self._poll.setInterval(_POLL_MS)
        self._poll.timeout.connect(self._look)
        self._patience = single_shot(self, _PATIENCE_MS, self._terminate)

    def look_for(self, store: str | None) -> None:
        """Find the job that runs on a store, or the last one there was."""
        self._jobs.submit(lambda: find_job(self._find_jobs(store)), done=self._on_found, failed=show_problem)

    def start(self, request: Request) -> None:
        """Start a fine-tuning."""
        self._begin(request, None)

    def go_on(self, request: Request) -> None:
        """Go on with the job that broke off."""
        if self._reader is not None and self._reader.job.folder is not None:
            self._begin(request, self._reader.job.folder)

    def stop(self) -> None:
        """Ask the job to end; it is ended if it has not after ten seconds."""
        if self._reader is None or not self.progress.stage.alive:
            return
        self._stopping = True
        self._set(replace(self.progress, stage=Stage.STOPPING))
        self._jobs.submit(partial(ask_to_stop, self._reader.job), done=_ignore, failed=show_problem)
        self._patience.start()

    def close(self) -> None:
        """Stop reading; the job itself goes on."""
        self._poll.stop()
        self._patience.stop()
        self._jobs.mute()

    def _begin(self, request: Request, folder: Path | None) -> None:
        earlier = self.progress
        if earlier.stage.alive:
            return
        self._reader = None
        self._set(JobProgress(stage=Stage.STARTING))
        find = self._find_jobs

        def body() -> Job:
            return self._start(find(request.store), request, folder=folder)

        def failed(error: Exception) -> None:
            show_problem(error)
            self._set(earlier)

        self._jobs.submit(body, done=self._on_found, failed=failed)

    def _on_found(self, job: Job | None) -> None:
        if job is None:
            return
        self._reader = JobReader(job)
        self._stopping = False
        self._told = JobProgress(stage=Stage.STARTING)
        self._set(self._told)
        self._poll.start()
        self._look()

    def _look(self) -> None:
        if self._reader is not None and not self._jobs.busy:
            self._jobs.submit(
                self._reader.read, done=partial(self._on_read, self._reader), failed=show_problem
            )

    def _on_read(self, reader: JobReader, reading: Reading) -> None:
        if reader is not self._reader:
            return  # of a job that another one followed
        before = self.progress
        self._told = advance(self._told, reading.events)
        if reading.alive:
            # a word that sounds like the last may be of an earlier try: the process decides
            stage = Stage.STARTING if self._told.stage is Stage.STARTING else Stage.RUNNING
            progress = replace(self._told, stage=Stage.STOPPING if self._stopping else stage)
        else:
            self._poll.stop()
            self._patience.stop()
            progress = end(self._told, reading.last_words, stopped=reading.stopped or self._stopping)
        if progress != before:
            self._set(progress)
        if before.stage.alive and not progress.stage.alive:
            self.ended.emit()

    def _terminate(self) -> None:
        if self._reader is not None and self.progress.stage is Stage.STOPPING:
            self._jobs.submit(partial(terminate, self._reader.job), done=_ignore, failed=show_problem)

    def _set(self, progress: JobProgress) -> None:
        self.progress = progress
        self.changed.emit()


def _ignore(_answer: object) -> None:
    """Nobody is left to be told."""
