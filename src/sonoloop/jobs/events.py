"""What a job says while it runs: frozen values, one JSON object a line."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from sonoloop.errors import MissingFilesError, NotInstalledError, SonoloopError, describe_system_error
from sonoloop.jobs.wire import build, to_json

T = TypeVar("T")
State = Literal["held", "worse", "open", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of every event."""

    def to_json(self) -> str:
        """Return one line: the event's name in snake case, and its values."""
        return to_json({"event": name_event(type(self)), **asdict(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown(Event):
    """An event of a newer version; nobody heeds it."""


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
    """An epoch is done, validated and checkpointed; figures: `sonoloop_training.fit.loop`."""

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
class LeftOut:
    """A corrected frame that is not learned from."""

    frame: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected(Event):
    """It is known what a fine-tuning learns from.

    `train` corrections teach or are watched, counted in `by_class` by what the class head is taught ("unsure"
    teaches it nothing); `replay` images of those that trained the model `base` go with them. `test_groups`
    only judge.
    """

    snapshot: str
    sha256: str
    base: str
    train: int
    by_class: dict[str, int]
    test_groups: int
    left_out: list[LeftOut]
    replay: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A figure that must not get worse.

    `candidate`, `incumbent` and `difference` (candidate less incumbent, with its 95 % `interval`) are None
    where no frame is about it; it may be worse by `margin`. The `state` is "held" (not worse by more),
    "worse" (it is, and not by chance, for the interval leaves out zero), "open" (it is, and that may be
    chance, as `needed` further groups would tell) or "unknown" (no frame is about it).
    """

    candidate: float | None = None
    incumbent: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    frames: int = 0
    groups: int = 0
    margin: float
    state: State = "unknown"
    needed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate(Event):
    """Two models were compared on a test set; see `sonoloop_training.gate.decision.Verdict`.

    `difference` (with its `interval`), `missed_malignant`, `false_alarms` and `auc` are candidate less
    incumbent; `sides` has all that is known of the last three. `look` is the number of the comparison in the
    store, the `looks`-th at this test set. `pictures` are PNG files, by "scatter", "improved" and "harmed";
    `changed` has the ids of the frames in the last two, from the top.
    """

    verdict: str
    reason: str
    difference: float | None = None
    interval: tuple[float, float] | None = None
    missed_malignant: float | None = None
    false_alarms: float | None = None
    auc: float | None = None
    sides: dict[str, Side] = field(default_factory=dict)
    groups: int
    frames: int = 0
    groups_needed: int | None = None
    test_set: int
    look: int
    looks: int
    candidate: str
    incumbent: str
    pictures: dict[str, str] = field(default_factory=dict)
    changed: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted(Event):
    """Another model is in use."""

    model: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refitted:
    """A number of a model's card, as it was and as it is; `left` says why it was left as it was."""

    name: str
    before: float
    after: float
    left: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A figure with the numbers of before and, out of fold, those of after.

    `difference` is after less before, with its 95 % `interval`; of so many `frames`.
    """

    name: str
    title: str
    before: float
    after: float
    difference: float
    interval: tuple[float, float] | None
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated(Event):
    """The numbers of a model were fitted on a project's own test frames.

    `model` and `version` are those of the new one, None where no number is better another; `base` and
    `base_version` of the one that it was made from, whose weights it has; `in_use` is the version in use.
    """

    model: str | None
    version: str | None
    base: str
    base_version: str
    in_use: str
    numbers: list[Refitted]
    figures: list[Compared]
    frames: int
    groups: int
    test_set: int


def why_calibrated(found: Calibrated) -> str:
    """Say for the record why the model that a calibration made comes into use."""
    figures = {one.name: one for one in found.figures}
    told = [
        f"{one.title} {one.before:.3f} to {one.after:.3f}"
        for name in ("lesion_dice", "missed", "false_alarms", "ece")
        if (one := figures.get(name)) is not None
    ]
    return (
        f"calibrated on {found.frames} frames of {found.groups} groups, test set {found.test_set}; out of "
        f"fold: {', '.join(told)}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported(Event):
    """Existing masks are in the store as corrections.

    Of `images` there are `new` ones; `known` had the same correction before, `kept` another one by a person,
    which stays, and `unreadable` could not be used. `odd` ones were stored as they are. `roles` counts the
    frames by role, `groups` the groups.
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
    odd: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OddMask(Event):
    """A mask looks odd; whether it is stored all the same is the user's word."""

    image: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked(Event):
    """A dataset is on disk, in a folder that can be trained on."""

    path: str
    dataset: str
    images: int
    masks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed(Event):
    """Datasets are in one file; `resized` of the images are smaller than they were."""

    path: str
    datasets: dict[str, int]
    images: int
    resized: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing about a dataset that its owner should know.

    `severity` is "mend" (training would learn or measure something wrong), "heed" or "note". `what` was
    found, without its count; `advice` is empty where nothing is to be done; `names` of the images, with
    details, are empty if it is about all.
    """

    severity: Literal["mend", "heed", "note"]
    dataset: str
    what: str
    advice: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked(Event):
    """Datasets were checked; `mend` findings speak against training on them, and the report is written."""

    report: str
    groups: list[str]
    datasets: list[dict[str, Any]]
    findings: list[Finding]
    mend: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """A job ended without its result.

    `kind` says what can be done: the error says it itself ("refused"), it can go on without the files that
    are gone ("missing_files"), it was told to end ("interrupted"), or it is a fault of Sonoloop's
    ("unforeseen").
    """

    error: str
    kind: Literal["refused", "missing_files", "interrupted", "unforeseen"] = "refused"


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


def name_event(kind: type[Event]) -> str:
    """Give the name of an event as it stands in its line: in snake case."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


EVENTS: dict[str, type[Event]] = {
    name_event(kind): kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Event) and kind not in (Event, Unknown)
}


def parse_event(line: str | bytes) -> Event | None:
    """Read a line of a job; None where it is no event, but something that a library printed."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not isinstance(name := values.pop("event", None), str):
        return None
    if name == "failed" and values.get("error") == "interrupted":
        values.setdefault("kind", "interrupted")  # earlier versions had no kind
    try:
        return build(EVENTS.get(name, Unknown), values)
    except (TypeError, ValueError):
        return Unknown()


def failure(error: BaseException) -> Failed:
    """Say how a job failed."""
    match error:
        case KeyboardInterrupt() | GeneratorExit():
            return Failed(error="interrupted", kind="interrupted")
        case MissingFilesError():
            return Failed(error=str(error), kind="missing_files")
        case SonoloopError():
            return Failed(error=str(error))
        case ImportError():
            missing = isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0]
            told = f'{error}; this needs: pip install "napari-sonoloop[train]"'
            return Failed(error=str(NotInstalledError([missing], "train")) if missing else told)
        case OSError() | MemoryError():
            return Failed(error=describe_system_error(error))
        case _:
            return Failed(error=f"{type(error).__name__}: {error}", kind="unforeseen")


def drain(events: Generator[Event, None, T]) -> T:
    """Run a job to its end and give its result, its events unheard."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            result: T = end.value
            return result
