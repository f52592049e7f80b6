"""A fine-tuning's own folder: what was asked for, what it tells, and how it is told to stop."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sonoloop.atomic import write_whole
from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Event

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
        See `sonoloop_training.fit.recipe_.Recipe.to_dict`.
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
        """Say that this process works on it now, and take back an earlier order to stop.

        Raises
        ------
        TrainingError
            If the folder cannot be written to.
        """
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
            # what a process that was killed left half written
            for left in self.path.glob(f".{BUNDLE}.*.tmp"):
                shutil.rmtree(left, ignore_errors=True)
            write_whole(self.path / JOB, json.dumps(state, indent=1))
        except OSError as error:
            raise _not_writable(self.path, error) from error

    def log(self, event: Event) -> None:
        """Keep an event, for whoever comes later.

        Raises
        ------
        TrainingError
            If the folder cannot be written to.
        """
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
        # renamed first, so that half a bundle is never taken for one
        with suppress(OSError):
            gone = self.bundle.replace(self.path / f".{BUNDLE}.{os.getpid()}.tmp")
            shutil.rmtree(gone, ignore_errors=True)

    def heed(self) -> None:
        """End here if told to stop.

        Raises
        ------
        KeyboardInterrupt
            If there is a file ``stop``, as Ctrl-C would.
        """
        if (self.path / STOP).exists():
            raise KeyboardInterrupt

    def check_room(self, parameters: int) -> None:
        """Refuse to begin where the disk cannot hold what will be written.

        Parameters
        ----------
        parameters : int
            Of the network. A checkpoint holds them four times in four bytes, and the old one stays until the
            new one is whole.

        Raises
        ------
        TrainingError
            If there is too little room.
        """
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
    """Make the folder of a new fine-tuning.

    Raises
    ------
    TrainingError
        If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(path, error) from error
    return JobFolder(path, plan, who)


def open_job(path: Path, who: str | None = None) -> JobFolder:
    """Open the folder of a fine-tuning that is to be gone on with.

    Raises
    ------
    TrainingError
        If it is none, or was made by another version.
    """
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
