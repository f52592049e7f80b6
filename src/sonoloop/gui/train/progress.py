"""What a job's events add up to, as one frozen value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from sonoloop.gui.widgets import device_name

_NAMED = 3  # of those that do not train
_INTERRUPTED = 130  # the exit code of a process that was told to stop

# Python's own way to write an exception: Sonoloop's are sentences
_UNFORESEEN = re.compile(r"[A-Za-z_][\w.]*(Error|Exception)(:|$)")

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
class GateResult:
    """The comparison of a candidate with the model in use; see the event `Gate` of the training package.

    Parameters
    ----------
    verdict : str
        "promote", "refuse" or "inconclusive".
    reason : str
        In words.
    difference, interval : float and pair of float, optional
        Of mean Dice, candidate less incumbent, with the paired 95 % interval.
    missed_malignant, false_alarms, auc : float, optional
        Changes of the share of missed malignant lesions, of false alarms on normals, and of the AUC.
    groups, groups_needed : int, optional
        Test groups with a lesion that were compared, and how many more would tell.
    test_set, looks : int, optional
        Number of the test set, and how often it was looked at.
    look : int, optional
        Number of the comparison in the store.
    candidate, incumbent : str
        Versions.
    pictures : mapping
        Their files by name.
    """

    verdict: str
    reason: str
    difference: float | None = None
    interval: tuple[float, float] | None = None
    missed_malignant: float | None = None
    false_alarms: float | None = None
    auc: float | None = None
    groups: int | None = None
    groups_needed: int | None = None
    test_set: int | None = None
    looks: int | None = None
    look: int | None = None
    candidate: str = ""
    incumbent: str = ""
    pictures: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """A job as the panel shows it.

    Parameters
    ----------
    stage : Stage
        How far it is.
    doing : str
        What it does at present, where it does not learn yet.
    epoch, epochs : int
        The epoch it is in, and how many there are to be.
    seconds_left : float, optional
        By its own estimate.
    device : str, optional
        As torch writes it.
    losses, dices : tuple of pairs
        Training loss and validation Dice over epochs; at epoch 0 of the model that it starts from.
    unwatched : bool
        Whether no image is kept apart to measure that Dice on.
    left_out : tuple of pairs
        Ids of the frames that do not train, each with the reason.
    notices : tuple of str
        What else the process told, each once.
    model : str, optional
        What the model it made is called.
    promoted : str, optional
        The version that it brought into use itself.
    gate : GateResult, optional
        How the comparison ended.
    error : str, optional
        The process's own words.
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
    left_out: tuple[tuple[str, str], ...] = ()
    notices: tuple[str, ...] = ()
    model: str | None = None
    promoted: str | None = None
    gate: GateResult | None = None
    error: str | None = None

    @property
    def misses_files(self) -> bool:
        """Whether it failed since files of corrected images are gone, and can do without them."""
        return self.stage is Stage.FAILED and "--skip-missing" in (self.error or "")


def advance(progress: JobProgress, events: Iterable[Mapping[str, Any]]) -> JobProgress:
    """Add what came; an event that is not known, or lacks what it should hold, changes nothing."""
    losses, dices = list(progress.losses), list(progress.dices)
    for event in events:
        try:
            progress = replace(progress, **_read(progress, event, losses, dices))
        except (KeyError, TypeError, ValueError):
            continue
    return replace(progress, losses=tuple(losses), dices=tuple(dices))


def end(
    progress: JobProgress, last_words: str | None, *, stopped: bool = False, exit_code: int | None = None
) -> JobProgress:
    """Take note that the process is gone."""
    failed_now = exit_code not in (None, 0, _INTERRUPTED)
    if progress.stage is Stage.DONE:
        return progress
    if progress.stage in (Stage.FAILED, Stage.STOPPED) and (stopped or not (failed_now and last_words)):
        return progress
    if stopped or exit_code == _INTERRUPTED:
        return replace(progress, stage=Stage.STOPPED, error=None)
    words = last_words or "it ended without a word; the computer may have been out of memory"
    return replace(progress, stage=Stage.FAILED, error=words)


def _read(
    progress: JobProgress,
    event: Mapping[str, Any],
    losses: list[tuple[float, float]],
    dices: list[tuple[float, float]],
) -> dict[str, Any]:
    """Turn an event into what it changes."""
    changes: dict[str, Any] = {}
    match event["event"]:
        case "progress":
            changes["doing"] = f"{event['stage']}: {event['done']} of {event['total']}"
        case "selected":
            rows = event["left_out"]
            changes["left_out"] = tuple((str(row["frame"]), str(row["why"])) for row in rows)
        case "started":
            # after a resumption the epochs from here on come again
            epoch = int(event["epoch"])
            losses[:] = [point for point in losses if point[0] <= epoch]
            dices[:] = [point for point in dices if point[0] <= epoch]
            changes.update(epoch=epoch, epochs=int(event["epochs"]), device=str(event["device"]))
            changes.update(doing="", error=None)
        case "step":
            losses.append((event["epoch"] - 1 + event["step"] / event["steps"], float(event["loss"])))
            changes.update(epoch=int(event["epoch"]), epochs=int(event["epochs"]), doing="")
            changes["seconds_left"] = float(event["seconds_left"])
        case "start_watched":
            # once, unless it broke off before its first epoch began
            dices[:] = [] if event["dice"] is None else [(0, float(event["dice"]))]
        case "epoch_done":
            changes.update(epoch=int(event["epoch"]), epochs=int(event["epochs"]), doing="")
            changes["unwatched"] = event["dice"] is None
            if event["dice"] is not None:
                dices.append((int(event["epoch"]), float(event["dice"])))
        case "notice":
            # after a resumption some come again
            changes["notices"] = tuple(dict.fromkeys((*progress.notices, str(event["message"]))))
        case "finished":
            changes.update(model=str(event["model"]), doing="", stage=Stage.DONE)
        case "gate":
            changes.update(gate=_read_gate(event), doing="")
        case "promoted":
            changes["promoted"] = str(event["version"])
        case "failed":
            stopped = event["error"] == "interrupted"
            changes["stage"] = Stage.STOPPED if stopped else Stage.FAILED
            changes["error"] = None if stopped else str(event["error"])
    return {"stage": Stage.RUNNING, **changes}


def _read_gate(event: Mapping[str, Any]) -> GateResult:
    known = {name: event[name] for name in GateResult.__dataclass_fields__ if name in event}
    if known.get("interval") is not None:
        low, high = known["interval"]
        known["interval"] = (float(low), float(high))
    known["pictures"] = {name: Path(path) for name, path in event.get("pictures", {}).items()}
    return GateResult(**known)


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


def describe_error(error: str, details: Path | None) -> str:
    """Say what went wrong: of an error that Sonoloop did not foresee, where its details are."""
    if _UNFORESEEN.match(error) is None:
        return f"It failed: {error}"
    if details is None:
        return f"It failed: an error in Sonoloop ({error})"
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
