"""What a training says while it runs: frozen values, one JSON object a line."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of every event."""

    def to_json(self) -> str:
        """Return one line: the event's name in snake case, and its values."""
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()
        return json.dumps({"event": name, **asdict(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Event):
    """Data are read; training begins at `epoch` (0 unless resumed)."""

    recipe: str
    device: str
    precision: str
    train: int
    validation: int
    test: int
    epoch: int
    epochs: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Event):
    """A step is done; sent every few."""

    epoch: int
    step: int
    steps: int
    loss: float
    seconds_left: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochDone(Event):
    """An epoch is done, validated and checkpointed."""

    epoch: int
    epochs: int
    loss: float
    dice: float
    missed: float
    false_alarms: float
    accuracy: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated(Event):
    """The finished model was scored on frames that never trained."""

    part: str
    metrics: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Event):
    """The bundle is on disk."""

    model: str
    path: str
    minutes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """Training ended without a model."""

    error: str
