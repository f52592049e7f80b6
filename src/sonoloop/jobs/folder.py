"""A fine-tuning that runs, or ran: found again, read and stopped; no Qt."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from sonoloop.errors import TrainingError

JOBS = "jobs"
PACKAGE = "sonoloop_training"
_JOB, _EVENTS, _STOP, OUTPUT = "job.json", "events.jsonl", "stop", "output.log"
# where one of them is, something was learned
_KEPT = ("history.jsonl", "bundle")

# of a long training a panel that is opened late reads the rest at the next look
_MOST_BYTES = 1 << 20
# a process on another machine cannot be asked: one that said nothing for so many seconds is gone
_SILENCE = 120.0
_LAST_WORDS = 4096  # bytes
_OLD = 24 * 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class Reading:
    """What a job said since it was last read.

    Parameters
    ----------
    events : tuple of dict
        In their order.
    alive : bool
        Whether its process runs.
    stopped : bool
        Whether it was told to stop, and not gone on with since.
    last_words : str, optional
        What a process that is gone wrote last, apart from its events.
    exit_code : int, optional
        Of a process that was started here, once it is gone.
    kept : bool
        Whether something that was learned is kept of a job whose process is gone.
    details : pathlib.Path, optional
        The file of all that a process wrote that is gone, where there is one.
    """

    events: tuple[Mapping[str, Any], ...]
    alive: bool
    stopped: bool = False
    last_words: str | None = None
    exit_code: int | None = None
    kept: bool = False
    details: Path | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Where a job is: its folder, once it has one, and what the process that was started here writes."""

    folder: Path | None = None
    output: Path | None = None
    process: subprocess.Popen[bytes] | None = None


def find_job(jobs: Path) -> Job | None:
    """Find the job that runs, else the last one; None if there never was one."""
    try:
        folders = sorted((path.parent for path in jobs.glob(f"*/{_JOB}")), reverse=True)
    except OSError:
        return None
    found = next((folder for folder in folders if is_running(Job(folder))), next(iter(folders), None))
    return None if found is None else Job(found, found / OUTPUT)


def find_running(jobs: Path) -> Job | None:
    """Find the job that runs; None if none does."""
    job = find_job(jobs)
    return job if job is not None and is_running(job) else None


def forget_old_output(jobs: Path) -> None:
    """Delete what processes wrote that nobody read until they had a folder."""
    for output in jobs.glob(".*.log"):
        with suppress(OSError):
            if time.time() - output.stat().st_mtime > _OLD:
                output.unlink()


def planned_snapshot(folder: Path) -> str | None:
    """Name the snapshot that a job learns from; None where it does not say."""
    plan = _read_state(Job(folder)).get("plan")
    return str(plan["snapshot"]) if isinstance(plan, dict) and plan.get("snapshot") else None


def is_running(job: Job) -> bool:
    """Whether the process of a job runs, here or, as far as can be told, elsewhere."""
    if _find_process(job) is not None:
        return True
    state = _read_state(job)
    if job.folder is None or state.get("host") in (None, socket.gethostname()):
        return False
    try:
        silence = time.time() - (job.folder / _EVENTS).stat().st_mtime
    except OSError:
        return False
    return silence < _SILENCE


def ask_to_stop(job: Job) -> None:
    """Ask a job to end at its next batch; one that has no folder yet is ended.

    Raises
    ------
    TrainingError
        If its folder cannot be written.
    """
    if job.folder is None:
        terminate(job)
        return
    try:
        (job.folder / _STOP).touch()
    except OSError as error:
        raise TrainingError(
            f"the fine-tuning in {job.folder} could not be told to stop ({error.strerror}): end its process "
            "by hand"
        ) from error


def terminate(job: Job) -> None:
    """End the process of a job that does not stop by itself; its last checkpoint stays."""
    process = _find_process(job)
    if process is not None:
        process.terminate()


class JobReader:
    """Reads what a job says, from where it left off.

    Parameters
    ----------
    job : Job
        From `start_job` or `find_job`.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._offset = 0

    def read(self) -> Reading:
        """Read the events that came since the last look, at most a megabyte of them."""
        # asked first: what it says until its end is in the file by then
        alive = is_running(self.job)
        source = self.job.output if self.job.folder is None else self.job.folder / _EVENTS
        events, more = self._read_events(source)
        if self.job.folder is None and self._find_folder(events):
            # all of it is in the folder too
            return Reading((), alive=True)
        if alive or more:
            return Reading(events, alive=True)
        words, folder = _read_last_words(self.job.output), self.job.folder
        if folder is None and self.job.output is not None:
            # nobody else would ever look for it
            with suppress(OSError):
                self.job.output.unlink()
        stopped = folder is not None and (folder / _STOP).exists()
        code = None if self.job.process is None else self.job.process.poll()
        kept = folder is not None and any((folder / name).exists() for name in _KEPT)
        output = self.job.output
        details = output if output is not None and output.exists() else None
        return Reading(
            events,
            alive=False,
            stopped=stopped,
            last_words=words,
            exit_code=code,
            kept=kept,
            details=details,
        )

    def _read_events(self, source: Path | None) -> tuple[tuple[Mapping[str, Any], ...], bool]:
        if source is None:
            return (), False
        try:
            with source.open("rb") as file:
                file.seek(self._offset)
                data = file.read(_MOST_BYTES)
        except OSError:
            return (), False
        # a line that is still being written is read when it is whole
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        more = bool(whole) and len(data) == _MOST_BYTES
        return tuple(filter(None, map(_parse, whole.splitlines()))), more

    def _find_folder(self, events: Sequence[Mapping[str, Any]]) -> bool:
        """Go over to the job's own folder as soon as it tells of it, and read there from the beginning."""
        told = next((event["folder"] for event in events if event.get("event") == "job"), None)
        if told is None:
            return False
        folder, output = Path(told), self.job.output
        if output is not None:
            # Windows does not move a file that a process writes to
            with suppress(OSError):
                output = output.rename(folder / OUTPUT)
        self.job = replace(self.job, folder=folder, output=output)
        self._offset = 0
        return True


def _find_process(job: Job) -> psutil.Process | None:
    """Find the process of a job on this machine, and make sure that it is no other of the same number."""
    if job.process is not None and job.process.poll() is None:
        with suppress(psutil.Error):
            return psutil.Process(job.process.pid)
    state = _read_state(job)
    if state.get("host") != socket.gethostname() or not isinstance(state.get("pid"), int):
        return None
    with suppress(psutil.Error):
        process = psutil.Process(state["pid"])
        if process.status() != psutil.STATUS_ZOMBIE and PACKAGE in process.cmdline():
            return process
    return None


def _read_state(job: Job) -> Mapping[str, Any]:
    if job.folder is None:
        return {}
    try:
        return _parse((job.folder / _JOB).read_bytes()) or {}
    except OSError:
        return {}


def _read_last_words(output: Path | None) -> str | None:
    """Return the error that a process wrote where it had no events yet, else its last line."""
    if output is None:
        return None
    try:
        with output.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_WORDS))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        event = _parse(line)
        if event is not None and event.get("event") == "failed":
            return str(event.get("error"))
    plain = [line.decode(errors="replace").strip() for line in lines if _parse(line) is None]
    return next((line for line in reversed(plain) if line), None)


def _parse(line: bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
