"""Follows a fine-tuning from the panel: starts it, finds it again, reads what it says, stops it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from sonoloop.errors import StoreError
from sonoloop.gui.train.progress import JobProgress, Stage, advance, end
from sonoloop.gui.widgets import show_problem, single_shot
from sonoloop.gui.workers import JobQueue
from sonoloop.jobs.folder import (
    Job,
    JobReader,
    Reading,
    ask_to_stop,
    find_job,
    find_running,
    planned_snapshot,
    read_plan,
    terminate,
)
from sonoloop.jobs.process import start_job
from sonoloop.jobs.request import FinetuneRequest

_POLL_MS = 500
_PATIENCE_MS = 10_000
# one that was started elsewhere, or in a window that was closed since, is known once it has its folder
_IDLE_MS = 3_000


class TrainWatch(QObject):
    """The job of one store, running or the last one.

    `find_jobs` gives the folder of a store's jobs, and is called in the worker; `start` starts a job there,
    or goes on with one (see `sonoloop.jobs.process.start_job`).
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
        self._store: str | None = None
        self._started: list[Job] = []  # Python complains of a process that is let go of while it runs
        self._reader: JobReader | None = None
        self.progress = JobProgress()
        self._told = JobProgress()  # by its events alone
        self._stopping = False
        self._kept = False
        self.plan: Mapping[str, Any] = {}  # what the job was asked for
        self.details: Path | None = None  # where all is that a process wrote that is gone
        self._jobs = JobQueue(parent=self)
        self._poll = QTimer(self)
        self._poll.setInterval(_POLL_MS)
        self._poll.timeout.connect(self._look)
        self._patience = single_shot(self, _PATIENCE_MS, self._terminate)
        self._idle = QTimer(self)
        self._idle.setInterval(_IDLE_MS)
        self._idle.timeout.connect(self._look_again)

    @property
    def can_go_on(self) -> bool:
        """Whether the job broke off and has a folder to go on from; one that failed, with what it learned."""
        stage = self.progress.stage
        return stage.can_go_on and self._folder is not None and (self._kept or stage is Stage.STOPPED)

    def look_for(self, store: str | None) -> None:
        """Find the job that runs on a store, or the last one there was; let go of another store's."""
        self._store = store
        self._poll.stop()
        self._patience.stop()
        self._reader = None
        self._set(JobProgress())
        find = self._find_jobs
        self._jobs.submit(
            lambda: find_job(find(store)), done=partial(self._on_found, store), failed=_show_unless_store
        )
        self._idle.start()

    def start(self, request: FinetuneRequest) -> None:
        """Start a fine-tuning."""
        self._begin(request)

    def go_on(self, request: FinetuneRequest) -> None:
        """Go on with the job that broke off, as it began; on another store than its own it is not."""
        if self.can_go_on:
            self._begin(FinetuneRequest(store=request.store, who=request.who, job=self._folder))

    def start_without_missing(self, request: FinetuneRequest) -> None:
        """Start anew on the same snapshot, without the images whose files are gone."""
        # not the same job: its checkpoint, if there is one, learned from other images
        self._begin(replace(request, skip_missing=True), as_before=self._folder)

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
        self._idle.stop()
        self._jobs.mute()

    @property
    def _folder(self) -> Path | None:
        return None if self._reader is None else self._reader.job.folder

    def _begin(self, request: FinetuneRequest, *, as_before: Path | None = None) -> None:
        earlier, reader, store = self.progress, self._reader, request.store
        if earlier.stage.alive:
            return
        if store != self._store:
            # what is shown is of another store, as is the folder
            self.look_for(store)
            return
        self._reader = None
        self._set(JobProgress(stage=Stage.STARTING))
        find = self._find_jobs

        def body() -> Job:
            asked = request
            if as_before is not None:
                asked = replace(request, snapshot=planned_snapshot(as_before) or request.snapshot)
            return self._start(find(store), asked)

        def failed(error: Exception) -> None:
            show_problem(error)
            if store == self._store:
                self._reader = reader
                self._set(earlier)

        self._jobs.submit(body, done=partial(self._on_found, store), failed=failed)

    def _look_again(self) -> None:
        if self.progress.stage.alive or self._jobs.busy:
            return
        find, store = self._find_jobs, self._store
        self._jobs.submit(
            lambda: find_running(find(store)), done=partial(self._on_found, store), failed=_ignore
        )

    def _on_found(self, store: str | None, job: Job | None) -> None:
        if job is not None and job.process is not None:
            self._started.append(job)
        if job is None or store != self._store:
            return  # one that runs on another store goes on, and is found when that is worked on again
        reader = self._reader = JobReader(job)
        self._stopping = False
        self.plan = {}
        if job.folder is not None:
            self._jobs.submit(
                partial(read_plan, job.folder), done=partial(self._on_plan, reader), failed=show_problem
            )
        self._told = JobProgress(stage=Stage.STARTING)
        self._set(self._told)
        self._poll.start()
        self._look()

    def _on_plan(self, reader: JobReader, plan: Mapping[str, Any]) -> None:
        if reader is self._reader:
            self.plan = plan
            self.changed.emit()

    def _look(self) -> None:
        if self._reader is not None and not self._jobs.busy:
            self._jobs.submit(
                self._reader.read, done=partial(self._on_read, self._reader), failed=show_problem
            )

    def _on_read(self, reader: JobReader, reading: Reading) -> None:
        if reader is not self._reader:
            return  # of a job that another one followed
        before = self.progress
        self._kept, self.details = reading.kept, reading.details
        self._told = advance(self._told, reading.events)
        if reading.alive:
            # a word that sounds like the last may be of an earlier try: the process decides
            stage = Stage.STARTING if self._told.stage is Stage.STARTING else Stage.RUNNING
            progress = replace(self._told, stage=Stage.STOPPING if self._stopping else stage)
        else:
            self._poll.stop()
            self._patience.stop()
            code = reading.exit_code
            # of a process that was started here its own words count: the order may be of an earlier try
            told_to = reading.stopped and (code is None or reading.last_words is None)
            progress = end(self._told, reading.last_words, stopped=told_to or self._stopping, exit_code=code)
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


def _show_unless_store(error: Exception) -> None:
    """Show what the panel does not say anyway: that its store is broken."""
    if not isinstance(error, StoreError):
        show_problem(error)


def _ignore(_answer: object) -> None:
    """Nobody is left to be told."""
