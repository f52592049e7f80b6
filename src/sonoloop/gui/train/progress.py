"""What a job's events add up to, as one frozen value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from sonoloop.gui.widgets import device_name
from sonoloop.jobs import events

_NAMED = 3  # of those that do not train
_INTERRUPTED = 130  # the exit code of a process that was told to stop

Points = tuple[tuple[float, float], ...]


class Stage(Enum):
    """How far a job is."""

    NONE = "none"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    DONE = "done"

    @property
    def alive(self) -> bool:
        """Whether a process runs."""
        return self in (Stage.STARTING, Stage.RUNNING, Stage.STOPPING)

    @property
    def can_go_on(self) -> bool:
        """Whether the job broke off and may be gone on with."""
        return self in (Stage.STOPPED, Stage.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """A job as the panel shows it.

    `doing` is what it does at present, where it does not learn yet; `seconds_left` its own estimate. `losses`
    and `dices` are the training loss and the validation Dice over epochs, at epoch 0 of the model that it
    starts from; `unwatched`: no image is kept apart to measure that Dice on. `left_out` are the frames that
    do not train; `notices`, each once, what else the process told. `promoted` is the version that it brought
    into use itself.
    """

    stage: Stage = Stage.NONE
    doing: str = ""
    epoch: int = 0
    epochs: int = 0
    seconds_left: float | None = None
    device: str | None = None
    losses: Points = ()
    dices: Points = ()
    unwatched: bool = False
    left_out: tuple[events.LeftOut, ...] = ()
    notices: tuple[str, ...] = ()
    model: str | None = None
    promoted: str | None = None
    gate: events.Gate | None = None
    failed: events.Failed | None = None

    @property
    def misses_files(self) -> bool:
        """Whether it failed since files of corrected images are gone, and can do without them."""
        return self.failed is not None and self.failed.kind == "missing_files"


def advance(progress: JobProgress, told: Iterable[events.Event]) -> JobProgress:
    """Add what came."""
    losses, dices = list(progress.losses), list(progress.dices)
    for event in told:
        progress = replace(progress, **{"stage": Stage.RUNNING, **_read(progress, event, losses, dices)})
    return replace(progress, losses=tuple(losses), dices=tuple(dices))


def end(
    progress: JobProgress,
    last_words: events.Failed | None,
    *,
    stopped: bool = False,
    exit_code: int | None = None,
) -> JobProgress:
    """Take note that the process is gone."""
    failed_now = exit_code not in (None, 0, _INTERRUPTED)
    if progress.stage is Stage.DONE:
        return progress
    if progress.stage in (Stage.FAILED, Stage.STOPPED) and (stopped or not (failed_now and last_words)):
        return progress
    if stopped or exit_code == _INTERRUPTED:
        return replace(progress, stage=Stage.STOPPED, failed=None)
    silent = events.Failed(error="it ended without a word; the computer may have been out of memory")
    return replace(progress, stage=Stage.FAILED, failed=last_words or silent)


def _read(  # noqa: PLR0911, PLR0912 - a case an event
    progress: JobProgress,
    event: events.Event,
    losses: list[tuple[float, float]],
    dices: list[tuple[float, float]],
) -> dict[str, Any]:
    """Turn an event into what it changes."""
    match event:
        case events.Progress():
            return {"doing": f"{event.stage}: {event.done} of {event.total}"}
        case events.Selected():
            return {"left_out": tuple(event.left_out)}
        case events.Started():
            # after a resumption the epochs from here on come again
            losses[:] = [point for point in losses if point[0] <= event.epoch]
            dices[:] = [point for point in dices if point[0] <= event.epoch]
            began = {"epoch": event.epoch, "epochs": event.epochs, "device": event.device}
            return {**began, "doing": "", "failed": None}
        case events.Step():
            losses.append((event.epoch - 1 + event.step / event.steps, event.loss))
            place = {"epoch": event.epoch, "epochs": event.epochs, "doing": ""}
            return {**place, "seconds_left": event.seconds_left}
        case events.StartWatched():
            # once, unless it broke off before its first epoch began
            dices[:] = [] if event.dice is None else [(0, event.dice)]
            return {"unwatched": event.dice is None}
        case events.EpochDone():
            if event.dice is not None:
                dices.append((event.epoch, event.dice))
            place = {"epoch": event.epoch, "epochs": event.epochs, "doing": ""}
            return {**place, "unwatched": event.dice is None}
        case events.Notice():
            # after a resumption some come again
            return {"notices": tuple(dict.fromkeys((*progress.notices, event.message)))}
        case events.Finished():
            return {"model": event.model, "doing": "", "stage": Stage.DONE}
        case events.Gate():
            return {"gate": event, "doing": ""}
        case events.Promoted():
            return {"promoted": event.version}
        case events.Failed(kind="interrupted"):
            return {"stage": Stage.STOPPED, "failed": None}
        case events.Failed():
            return {"stage": Stage.FAILED, "failed": event}
    return {}


def describe_progress(progress: JobProgress) -> str:
    """Say how far a job is, in a line."""
    if progress.stage is Stage.STARTING and not progress.doing:
        return "Starting"
    if progress.stage is Stage.STOPPING:
        return "Stopping"
    parts = []
    if progress.stage is Stage.DONE and progress.model is not None:
        parts.append(f"Made {progress.model}" + (" and put it into use" if progress.promoted else ""))
    elif progress.doing:
        parts.append(progress.doing)
    elif progress.epochs:
        parts.append(f"Epoch {progress.epoch} of {progress.epochs}")
    if progress.stage.alive and progress.seconds_left is not None and not progress.doing:
        parts.append(f"{describe_time(progress.seconds_left)} left")
    if progress.device is not None:
        parts.append(device_name(progress.device))
    return " · ".join(parts)


def describe_failure(failed: events.Failed, details: Path | None) -> str:
    """Say what went wrong: of an error that Sonoloop did not foresee, where its details are."""
    if failed.kind != "unforeseen":
        return f"It failed: {failed.error}"
    if details is None:
        return f"It failed: an error in Sonoloop ({failed.error})"
    return f"It failed: an error in Sonoloop; details in {details}"


def describe_left_out(rows: Sequence[str]) -> str:
    """Say which corrections do not train, the first of them by name."""
    count = "1 correction does" if len(rows) == 1 else f"{len(rows)} corrections do"
    more = f"\nand {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return f"{count} not train:\n" + "\n".join(rows[:_NAMED]) + more


def describe_time(seconds: float) -> str:
    """Say how long something takes, as coarsely as an estimate deserves."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 55:
        return f"{10 * round(seconds / 10)} s"
    minutes, rest = divmod(10 * round(seconds / 10), 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
