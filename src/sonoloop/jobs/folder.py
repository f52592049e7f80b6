"""A fine-tuning that runs, or ran: found again, read and stopped; no Qt."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from sonoloop.atomic import remove_whole, sweep, write_whole
from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Event

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
    """Ask a job to end at its next batch; one that has no folder yet is ended."""
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


JOB, EVENTS, STOP = "job.json", "events.jsonl", "stop"
BUNDLE, GATE = "bundle", "gate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a fine-tuning was asked for, settled when it began; going on with it asks for the same.

    Parameters
    ----------
    store : str
        Where the corrections are, without a password.
    snapshot : str
        Name of the snapshot that is learned from.
    snapshot_sha256 : str
        Its hash; empty in a plan of before it was kept.
    base : str
        Version of the model that is started from.
    recipe : mapping
        See `sonoloop_training.fit.recipe.Recipe.to_dict`.
    base_data : str
        Folder with the data that trained it; empty if there is none.
    promote : bool
        Whether the new model takes the place of the old one if the gate says so.
    skip_missing : bool
        Whether to go on without the images whose files are gone.
    max_minutes : float, optional
        Time for the training.
    device : str
        See `sonoloop.models.devices.choose_device`.
    threads : int
        Of the CPU: with another number the last digits of the weights are others. 0 where an earlier version
        began it.
    """

    store: str
    snapshot: str
    base: str
    recipe: Mapping[str, Any]
    snapshot_sha256: str = ""
    base_data: str = ""
    promote: bool = False
    skip_missing: bool = False
    max_minutes: float | None = None
    device: str = "auto"
    threads: int = 0


@dataclass(slots=True, eq=False)
class JobFolder:
    """The folder of one fine-tuning.

    Parameters
    ----------
    path : pathlib.Path
        The folder.
    plan : Plan
        What was asked for.
    who : str
        Pseudonym of the person who started it.
    """

    path: Path
    plan: Plan
    who: str

    @property
    def bundle(self) -> Path:
        """Where the model is written before it goes to the library."""
        return self.path / BUNDLE

    def begin(self) -> None:
        """Say that this process works on it now, and take back an earlier order to stop."""
        state = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "who": self.who,
            "what": f"fine-tuning on {self.plan.snapshot}",
            "plan": asdict(self.plan),
        }
        try:
            (self.path / STOP).unlink(missing_ok=True)
            sweep(self.bundle)
            write_whole(self.path / JOB, json.dumps(state, indent=1))
        except OSError as error:
            raise _not_writable(self.path, error) from error

    def log(self, event: Event) -> None:
        """Keep an event, for whoever comes later."""
        try:
            with (self.path / EVENTS).open("a", encoding="utf-8") as file:
                file.write(event.to_json() + "\n")
        except OSError as error:
            raise _not_writable(self.path, error) from error

    def last(self, event: str) -> Mapping[str, Any] | None:
        """Give the last event of this name that was kept."""
        try:
            lines = (self.path / EVENTS).read_text(encoding="utf-8").splitlines()
        except OSError:
            return None
        said = [line for line in lines if line.startswith(f'{{"event": "{event}"')]
        for line in reversed(said):
            # a process that was killed leaves half a line
            with suppress(ValueError):
                return dict(json.loads(line))
        return None

    def drop_bundle(self) -> None:
        """Remove the model, which is in the library: deleted there, it is to be gone."""
        with suppress(OSError):
            remove_whole(self.bundle)

    def heed(self) -> None:
        """End here if told to stop."""
        if (self.path / STOP).exists():
            raise KeyboardInterrupt

    def check_room(self, parameters: int) -> None:
        """Refuse to begin where the disk cannot hold what will be written."""
        needed = parameters * 4 * 4 * 2 + parameters * 2 * 3
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise TrainingError(
                f"there are {free / 1e6:,.0f} MB free at {self.path}, and fine-tuning this model writes up "
                f"to {needed / 1e6:,.0f} MB: make room on the disk"
            )


def name_job() -> str:
    """Name a new fine-tuning by the time."""
    return f"{datetime.now(UTC).astimezone():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def is_free(path: Path) -> bool:
    """Tell whether a fine-tuning can begin in a folder: there is none yet, or nothing in it."""
    # a process that was killed at once leaves a hidden file
    return not path.exists() or (path.is_dir() and all(p.name.startswith(".") for p in path.iterdir()))


def create_job(path: Path, plan: Plan, who: str) -> JobFolder:
    """Make the folder of a new fine-tuning."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(path, error) from error
    return JobFolder(path, plan, who)


def open_job(path: Path, who: str | None = None) -> JobFolder:
    """Open the folder of a fine-tuning that is to be gone on with."""
    try:
        state = json.loads((path / JOB).read_text(encoding="utf-8"))
        plan = state["plan"]
        if not set(plan) <= {f.name for f in fields(Plan)}:
            raise ValueError("it was made by another version of Sonoloop")
        # what an earlier version did not know yet was as it is by default
        return JobFolder(path, Plan(**plan), who or str(state["who"]))
    except OSError as error:
        raise TrainingError(
            f"{path} is no fine-tuning to go on with ({error.strerror}); give the folder that it told of"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"{path / JOB} cannot be used ({error}); begin a new fine-tuning") from error


def _not_writable(path: Path, error: OSError) -> TrainingError:
    return TrainingError(
        f"{path} cannot be written to ({error.strerror}); make room on the disk, or allow writing there"
    )
