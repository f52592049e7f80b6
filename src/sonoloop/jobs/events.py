"""What a training says while it runs: frozen values, one JSON object a line."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of every event."""

    def to_json(self) -> str:
        """Return one line: the event's name in snake case, and its values."""
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()
        return json.dumps({"event": name, **asdict(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Event):
    """So much of a stage is done; sent every few."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """Something the user should know and need not act on."""

    message: str


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
    processes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Event):
    """A step is done; sent every few."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    seconds_left: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWatched(Event):
    """How the weights that are started from do on the images that are watched; None without a lesion."""

    dice: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochDone(Event):
    """An epoch is done, validated and checkpointed; figures: `sonoloop_training.fit.validation`."""

    epoch: int
    epochs: int
    loss: float
    dice: float | None
    missed: float | None
    false_alarms: float | None
    accuracy: float | None
    score: float | None
    best_epoch: int
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
class Job(Event):
    """A fine-tuning has its folder: what it tells is kept there, and it is gone on with from there."""

    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected(Event):
    """It is known what a fine-tuning learns from.

    `train` corrections teach or are watched, counted in `by_class` by what the class head is taught ("unsure"
    teaches it nothing); `replay` images of those that trained the model `base` go with them. `left_out` names
    each frame that is not learned from, as ``frame`` (its id) and ``why``. `test_groups` only judge.
    """

    snapshot: str
    sha256: str
    base: str
    train: int
    by_class: dict[str, int]
    test_groups: int
    left_out: list[dict[str, str]]
    replay: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate(Event):
    """Two models were compared on a test set; see `sonoloop_training.gate.decision.Verdict`.

    `difference` (with its `interval`), `missed_malignant`, `false_alarms` and `auc` are candidate less
    incumbent; `sides` has all that is known of the last three. `look` is the number of the comparison in the
    store, the `looks`-th at this test set. `pictures` are PNG files, by "scatter", "improved" and "harmed".
    """

    verdict: str
    reason: str
    difference: float | None
    interval: tuple[float, float] | None
    missed_malignant: float | None
    false_alarms: float | None
    auc: float | None
    sides: dict[str, dict[str, Any]]
    groups: int
    frames: int
    groups_needed: int | None
    test_set: int
    look: int
    looks: int
    candidate: str
    incumbent: str
    pictures: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted(Event):
    """Another model is in use."""

    model: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported(Event):
    """Existing masks are in the store as corrections.

    Of `images` there are `new` ones; `known` had the same correction before, `kept` another one by a person,
    which stays, and `unreadable` could not be used. `roles` counts the frames by role, `groups`
    the groups.
    """

    dataset: str
    annotator: str
    images: int
    new: int
    known: int
    kept: int
    unreadable: int
    by_class: dict[str, int]
    roles: dict[str, int]
    groups: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked(Event):
    """A dataset is on disk, in a folder that can be trained on."""

    path: str
    dataset: str
    images: int
    masks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked(Event):
    """Datasets were checked; `mend` findings speak against training on them, and the report is written."""

    report: str
    groups: list[str]
    datasets: list[dict[str, Any]]
    findings: list[dict[str, Any]]
    mend: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """Training ended without a model."""

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable(Event):
    """An image could not be used; the others go on."""

    image: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationDone(Event):
    """The figures are known, and the report is in the folder `out`."""

    out: str
    results: dict[str, Any]


def drain(events: Generator[Event, None, T]) -> T:
    """Run a job to its end and give its result, its events unheard."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            result: T = end.value
            return result
