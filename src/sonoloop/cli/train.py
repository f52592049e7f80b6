"""`sonoloop train`: bars while it runs, a line an epoch, the figures at the end."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.progress import TextColumn
from rich.table import Table

from sonoloop.cli.console import AsLines, EventReport, result_console
from sonoloop.cli.options import takes
from sonoloop.jobs.events import EpochDone, Evaluated, Event, Finished, Progress, Started, Step, Unreadable
from sonoloop.jobs.request import TrainRequest

FIGURES = {
    "lesion_dice": "Dice over images with a lesion",
    "missed": "lesions missed (Dice 0)",
    "false_alarms": "normals with a mask",
    "auc": "AUC, malignant against benign",
    "accuracy": "accuracy, three classes",
}
# the first steps are slower than the rest, so that the time left is told from this one on
_STEADY = 30
# told once more after an epoch, if by then it differs by more than this share
_OTHERWISE = 0.25


class TrainingReport(EventReport):
    """Tells the user of a training as it goes, which writes to the folder `out`."""

    def __init__(
        self, out: Path, *, as_json: bool, stays: str = "; the same command goes on from the last epoch"
    ) -> None:
        super().__init__(
            TextColumn("{task.fields[note]}", markup=False), as_json=as_json, lines=True, stays=stays
        )
        self._out = out
        self._metrics: dict[str, dict[str, Any]] = {}
        # when the training would end by what was told of it, and in which epoch that was
        self._ends: float | None = None
        self._told_in = 0

    def tell(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case Progress():
                note = f"{event.done} of {event.total}"
                self.advance(event.stage, event.done, event.total, note=note)
            case Unreadable():
                self.notice(f"{event.image} is left out of the figures: {event.error}")
            case Started():
                self._started(event)
            case Step():
                self._step(event)
            case EpochDone():
                self._epoch(event)
            case Evaluated():
                self._metrics[event.part] = event.metrics
            case Finished():
                self._finished(event)
            case _:
                super().tell(event)

    def _started(self, event: Started) -> None:
        self._ends = None
        resumed = f", going on after epoch {event.epoch}" if event.epoch else ""
        many = f" on {event.processes} processes" if event.processes > 1 else ""
        self.notice(
            f"{event.recipe}: {event.train} images train, {event.validation} validate, {event.test} test; "
            f"{event.epochs} epochs{resumed}; {event.device} in {event.precision}{many}"
        )

    def _step(self, event: Step) -> None:
        done = (event.epoch - 1) * event.steps + event.step
        told = f"epoch {event.epoch}/{event.epochs}, loss {event.loss:.3f}"
        if event.step >= min(_STEADY, event.steps):
            self._estimate(event.epoch, event.seconds_left)
        if self._ends is not None:
            told += f", {_about(event.seconds_left)} left"
        self.advance("Training", done, event.epochs * event.steps, note=told)

    def _estimate(self, epoch: int, seconds: float) -> None:
        ends = time.monotonic() + seconds
        if self._ends is None:
            self._ends, self._told_in = ends, epoch
            self.notice(f"{_about(seconds)} left")
        elif epoch == self._told_in + 1:
            # nothing more is told after this
            self._told_in = 0
            if abs(ends - self._ends) > _OTHERWISE * seconds:
                self.notice(f"after a whole epoch: {_about(seconds)} left")

    def _epoch(self, event: EpochDone) -> None:
        known = (("Dice", event.dice), ("false alarms", event.false_alarms), ("accuracy", event.accuracy))
        figures = [f"{title} {value:.3f}" for title, value in known if value is not None]
        # where all images train nothing is watched
        watched = f" on validation {', '.join(figures)};" if figures else ""
        self.notice(
            f"epoch {event.epoch}/{event.epochs}: loss {event.loss:.3f};{watched} {event.seconds:.0f} s"
        )

    def _finished(self, event: Finished) -> None:
        console = result_console()
        if not event.model:
            console.print(f"wrote {event.path}", soft_wrap=True)
            return
        # the name says it, before the version's digits
        mark = " (leaked)" if event.model.rpartition("-")[0].endswith("-leaked") else ""
        for name, figures in self._metrics.get("test", {}).items():
            if name != "all" or len(self._metrics["test"]) > 2:
                left_out = " (left out)" if figures.get("hospital") == "left out" else ""
                console.print(_table(f"{name}{left_out}: {figures['images']} test images{mark}", figures))
        console.print(
            f"{event.model} is in {event.path}, made in {event.minutes:.0f} min; all figures are in "
            f"{self._out / 'results.json'}",
            soft_wrap=True,
        )


def _about(seconds: float) -> str:
    return f"about {timedelta(seconds=round(seconds))}"


def _table(title: str, figures: dict[str, Any]) -> Table:
    table = Table("", "value", "95 % interval", title=title, title_justify="left", box=None)
    for name, what in FIGURES.items():
        figure = figures.get(name)
        if figure is not None:
            # there is none for a single group
            interval = " to ".join(f"{bound:.3f}" for bound in figure["ci95"] or ())
            table.add_row(what, f"{figure['value']:.3f}", interval)
    return table


@takes(TrainRequest)
def train(request: TrainRequest, *, as_json: AsLines = False) -> None:
    """Train a model on a dataset, and judge it on images that had no part in it.

    A run that broke off, by Ctrl-C or a crash, goes on from its last epoch when the same command is given
    again. Writes OUT/bundle (the model), OUT/results.json, OUT/split.json and OUT/history.jsonl.

    The exit code is 1 where images could not be judged; the model is made all the same.
    """
    report = TrainingReport(request.folder, as_json=as_json)
    report.follow(request)
    report.name_failures(f"{len(report.failures)} images are left out of the figures")
