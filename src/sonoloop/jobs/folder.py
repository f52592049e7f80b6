"""The folder of a fine-tuning: the process that works in it, and whoever finds, reads and stops it; no Qt."""

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
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psutil

from sonoloop.atomic import remove_whole, sweep, write_whole
from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Event, Failed, name_event, parse_event
from sonoloop.jobs.events import Job as JobEvent
from sonoloop.jobs.request import FinetuneRequest
from sonoloop.jobs.wire import build, to_json
from sonoloop.regular_files import open_regular, read_regular

E = TypeVar("E", bound=Event)

PACKAGE = "sonoloop_training"
JOBS = "jobs"  # of a store, beside it
# in the folder of each
JOB, EVENTS, STOP, OUTPUT = "job.json", "events.jsonl", "stop", "output.log"
BUNDLE, GATE = "bundle", "gate"
# where one of them is, something was learned
_KEPT = ("history.jsonl", BUNDLE)

# of a long training a panel that is opened late reads the rest at the next look
_MOST_BYTES = 1 << 20
# of a job.json, and of what a job said
_MOST_STATE, _MOST_EVENTS = 64 << 20, 4 << 30
# a process on another machine cannot be asked: one that said nothing for so many seconds is gone
_SILENCE = 120.0
_LAST_WORDS = 4096  # bytes
_OLD = 24 * 3600.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(FinetuneRequest):
    """What a fine-tuning was asked for, settled when it began; going on with it asks for the same.

    Beside what was asked: `base`, the version of the model that is started from, the `recipe` (see
    `sonoloop_training.fit.recipe.Recipe.to_dict`) and the snapshot's hash, empty in a plan of before it was
    kept. The `store` has no password. With another number of `threads` the last digits of the weights are
    others; None or 0 where an earlier version began it.
    """

    store: str
    snapshot: str
    device: str = "auto"
    base: str
    recipe: Mapping[str, Any]
    snapshot_sha256: str = ""


@dataclass(slots=True, eq=False)
class JobFolder:
    """The folder of one fine-tuning, for the process that works in it."""

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
            write_whole(self.path / JOB, to_json(state, indent=1))
        except OSError as error:
            raise _not_writable(self.path, error) from error

    def log(self, event: Event) -> None:
        """Keep an event, for whoever comes later."""
        try:
            with (self.path / EVENTS).open("a", encoding="utf-8") as file:
                file.write(event.to_json() + "\n")
        except OSError as error:
            raise _not_writable(self.path, error) from error

    def last(self, kind: type[E]) -> E | None:
        """Give the last event of a kind that was kept."""
        try:
            lines = read_regular(self.path / EVENTS, most=_MOST_EVENTS).decode(errors="replace").splitlines()
        except OSError:
            return None
        said = [line for line in lines if line.startswith(f'{{"event": "{name_event(kind)}"')]
        # a process that was killed leaves half a line
        found = (event for event in map(parse_event, reversed(said)) if isinstance(event, kind))
        return next(found, None)

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
        state = json.loads(read_regular(path / JOB, most=_MOST_STATE))
        # an earlier version wrote "" for none; what it did not know yet was as it is by default
        told = {**state["plan"], "base_data": state["plan"].get("base_data") or None}
        return JobFolder(path, build(Plan, told, strict=True), who or str(state["who"]))
    except OSError as error:
        raise TrainingError(
            f"{path} is no fine-tuning to go on with ({error.strerror}); give the folder that it told of"
        ) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise TrainingError(f"{path / JOB} cannot be used ({error}); begin a new fine-tuning") from error


def _not_writable(path: Path, error: OSError) -> TrainingError:
    return TrainingError(
        f"{path} cannot be written to ({error.strerror}); make room on the disk, or allow writing there"
    )


@dataclass(frozen=True, slots=True)
class Job:
    """Where a job is: its folder, once it has one, and what the process that was started here writes."""

    folder: Path | None = None
    output: Path | None = None
    process: subprocess.Popen[bytes] | None = None


def find_job(jobs: Path) -> Job | None:
    """Find the job that runs, else the last one; None if there never was one."""
    try:
        folders = sorted((path.parent for path in jobs.glob(f"*/{JOB}")), reverse=True)
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


def read_plan(folder: Path) -> Mapping[str, Any]:
    """Read what a job was asked for, by the names of a `Plan`'s fields; empty where it does not say."""
    plan = _read_state(Job(folder)).get("plan")
    return plan if isinstance(plan, dict) else {}


def planned_snapshot(folder: Path) -> str | None:
    """Name the snapshot that a job learns from; None where it does not say."""
    name = read_plan(folder).get("snapshot")
    return str(name) if name else None


def is_running(job: Job) -> bool:
    """Whether the process of a job runs, here or, as far as can be told, elsewhere."""
    if _find_process(job) is not None:
        return True
    state = _read_state(job)
    if job.folder is None or state.get("host") in (None, socket.gethostname()):
        return False
    try:
        silence = time.time() - (job.folder / EVENTS).stat().st_mtime
    except OSError:
        return False
    return silence < _SILENCE


def ask_to_stop(job: Job) -> None:
    """Ask a job to end at its next batch; one that has no folder yet is ended."""
    if job.folder is None:
        terminate(job)
        return
    try:
        (job.folder / STOP).touch()
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
        state = json.loads(read_regular(job.folder / JOB, most=_MOST_STATE))
    except (OSError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a job said since it was last read, its `events` in their order, and whether its process runs.

    `stopped`: it was told to stop, and not gone on with since. Of a process that is gone: `last_words`, how
    it said that it failed, or what it wrote last apart from events; `exit_code`, where it was started here;
    `kept`, whether something that was learned is kept; `details`, the file of all that it wrote, if any.
    """

    events: tuple[Event, ...]
    alive: bool
    stopped: bool = False
    last_words: Failed | None = None
    exit_code: int | None = None
    kept: bool = False
    details: Path | None = None


class JobReader:
    """Reads what a job says, from where it left off."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._offset = 0

    def read(self) -> Reading:
        """Read the events that came since the last look, at most a megabyte of them."""
        # asked first: what it says until its end is in the file by then
        alive = is_running(self.job)
        source = self.job.output if self.job.folder is None else self.job.folder / EVENTS
        events, more = self._read_events(source)
        if self.job.folder is None and self._find_folder(events):
            # all of it is in the folder too
            return Reading((), alive=True)
        if alive or more:
            return Reading(events, alive=True)
        folder, output, process = self.job.folder, self.job.output, self.job.process
        words = _read_last_words(output)
        if folder is None and output is not None:
            # nobody else would ever look for it
            with suppress(OSError):
                output.unlink()
        return Reading(
            events,
            alive=False,
            stopped=folder is not None and (folder / STOP).exists(),
            last_words=words,
            exit_code=None if process is None else process.poll(),
            kept=folder is not None and any((folder / name).exists() for name in _KEPT),
            details=output if output is not None and output.exists() else None,
        )

    def _read_events(self, source: Path | None) -> tuple[tuple[Event, ...], bool]:
        if source is None:
            return (), False
        try:
            with open_regular(source, most=_MOST_EVENTS) as file:
                file.seek(self._offset)
                data = file.read(_MOST_BYTES)
                full = len(data) == _MOST_BYTES
                if full and b"\n" not in data:
                    # one line may be longer: of a selection that leaves out thousands of frames
                    data += file.readline()
        except OSError:
            return (), False
        # a line that is still being written is read when it is whole
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        more = bool(whole) and full
        return tuple(filter(None, map(parse_event, whole.splitlines()))), more

    def _find_folder(self, events: Sequence[Event]) -> bool:
        """Go over to the job's own folder as soon as it tells of it, and read there from the beginning."""
        told = next((event.folder for event in events if isinstance(event, JobEvent)), None)
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


def _read_last_words(output: Path | None) -> Failed | None:
    """Return how a process said that it failed, else its last line, which nobody foresaw."""
    if output is None:
        return None
    try:
        with open_regular(output, most=_MOST_EVENTS) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_WORDS))
            lines = file.read().splitlines()
    except OSError:
        return None
    events = [(line, parse_event(line)) for line in reversed(lines)]
    failed = next((event for _, event in events if isinstance(event, Failed)), None)
    plain = (line.decode(errors="replace").strip() for line, event in events if event is None)
    words = next((line for line in plain if line), None)
    return failed if failed or words is None else Failed(error=words, kind="unforeseen")
