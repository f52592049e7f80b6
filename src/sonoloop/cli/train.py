"""What `sonoloop train` tells: bars while it runs, a line an epoch, the figures at the end."""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import TextColumn
from rich.table import Table

from sonoloop.cli.console import ProgressConsole, result_console
from sonoloop.cli.predict import Device
from sonoloop.errors import SonoloopError

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


class TrainingReport(ProgressConsole):
    """Tells the user of a training as it goes; the result alone goes to standard output.

    Parameters
    ----------
    out : pathlib.Path
        Where the training writes.
    as_json : bool
        Nothing is told: the events themselves are printed.
    """

    def __init__(self, out: Path, *, as_json: bool) -> None:
        self._out = out
        self._metrics: dict[str, dict[str, Any]] = {}
        # when the training would end by what was told of it, and in which epoch that was
        self._ends: float | None = None
        self._told_in = 0
        super().__init__(TextColumn("{task.fields[note]}"), quiet=as_json)

    def tell(self, event: dict[str, Any]) -> None:
        """Tell of an event; see `sonoloop.jobs.events`."""
        match event["event"]:
            case "progress":
                done, total = event["done"], event["total"]
                self.advance(event["stage"], done, total, note=f"{done} of {total}")
            case "notice":
                self.notice(str(event["message"]))
            case "unreadable":
                self.notice(f"{event['image']} is left out of the figures: {event['error']}")
            case "started":
                self._started(event)
            case "step":
                self._step(event)
            case "epoch_done":
                self._epoch(event)
            case "evaluated":
                self._metrics[event["part"]] = event["metrics"]
            case "finished":
                self._finished(event)

    def _started(self, event: dict[str, Any]) -> None:
        self._ends = None
        resumed = f", going on after epoch {event['epoch']}" if event["epoch"] else ""
        many = f" on {event['processes']} processes" if event["processes"] > 1 else ""
        self.notice(
            f"{event['recipe']}: {event['train']} images train, {event['validation']} validate, "
            f"{event['test']} test; {event['epochs']} epochs{resumed}; "
            f"{event['device']} in {event['precision']}{many}"
        )

    def _step(self, event: dict[str, Any]) -> None:
        done = (event["epoch"] - 1) * event["steps"] + event["step"]
        told = f"epoch {event['epoch']}/{event['epochs']}, loss {event['loss']:.3f}"
        if event["step"] >= min(_STEADY, event["steps"]):
            self._estimate(event["epoch"], event["seconds_left"])
        if self._ends is not None:
            told += f", {_about(event['seconds_left'])} left"
        self.advance("Training", done, event["epochs"] * event["steps"], note=told)

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

    def _epoch(self, event: dict[str, Any]) -> None:
        figures = [
            f"{title} {event[name]:.3f}"
            for name, title in (("dice", "Dice"), ("false_alarms", "false alarms"), ("accuracy", "accuracy"))
            if event[name] is not None
        ]
        # where all images train nothing is watched
        watched = f" on validation {', '.join(figures)};" if figures else ""
        self.notice(
            f"epoch {event['epoch']}/{event['epochs']}: loss {event['loss']:.3f};{watched} "
            f"{event['seconds']:.0f} s"
        )

    def _finished(self, event: dict[str, Any]) -> None:
        console = result_console()
        if not event["model"]:
            console.print(f"wrote {event['path']}", soft_wrap=True)
            return
        # the name says it, before the version's digits
        mark = " (leaked)" if event["model"].rpartition("-")[0].endswith("-leaked") else ""
        for name, figures in self._metrics.get("test", {}).items():
            if name != "all" or len(self._metrics["test"]) > 2:
                console.print(_table(f"{name}: {figures['images']} test images{mark}", figures))
        console.print(
            f"{event['model']} is in {event['path']}, made in {event['minutes']:.0f} min; all figures are in "
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


def train(
    *,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Name of a shipped recipe, such as unet (docs/training.md lists them), or a TOML file.",
        ),
    ],
    data: Annotated[
        Path, typer.Option("--data", help="Folder with one dataset or several; see docs/datasets.md.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for checkpoint, figures and the model; runs/RECIPE if not given."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, such as epochs=2; repeatable."),
    ] = None,
    fold: Annotated[
        int | None, typer.Option("--fold", min=1, help="Test this fold; the recipe then splits by folds.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of everything random.")] = None,
    max_minutes: Annotated[
        float | None, typer.Option("--max-minutes", min=0.1, help="Make the epochs that fit into this time.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that broke off; refuse to begin a new one.")
    ] = False,
    leaky: Annotated[
        bool,
        typer.Option("--leaky", help="Split by image, twins on both sides; every result is marked leaked."),
    ] = False,
    show_augment: Annotated[
        bool, typer.Option("--show-augment", help="Only draw 32 augmented pairs, to OUT/augmentation.png.")
    ] = False,
    device: Annotated[
        Device, typer.Option("--device", help="Where to train; auto takes a GPU if there is one.")
    ] = Device.AUTO,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; all cores if not given.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the events, one JSON object a line.")
    ] = False,
) -> None:
    """Train a model on a dataset, and judge it on images that had no part in it.

    A run that broke off, by Ctrl-C or a crash, goes on from its last epoch when the same command is given
    again. Writes OUT/bundle (the model), OUT/results.json, OUT/split.json and OUT/history.jsonl.
    """
    from sonoloop.jobs.process import training_events  # noqa: PLC0415 - `--help` loads none of these

    folder = out or Path("runs") / Path(recipe).stem
    if resume and not (folder / "checkpoint.pt").is_file():
        raise SonoloopError(f"{folder} holds no checkpoint to go on from; leave --resume out to begin")
    arguments: list[object] = [recipe, "--data", data, "--out", folder, "--device", device.value]
    changes = [*(settings or [])]
    if seed is not None:
        changes.append(f"fit.seed={seed}")
    for change in changes:
        arguments += ["--set", change]
    if fold is not None:
        arguments += ["--fold", fold]
    if leaky:
        arguments.append("--leaky")
    if max_minutes is not None:
        arguments += ["--max-minutes", max_minutes]
    if threads is not None:
        arguments += ["--threads", threads]
    if show_augment:
        arguments += ["--show-augment", folder / "augmentation.png"]
    report = TrainingReport(folder, as_json=as_json)
    try:
        with report:
            for event in training_events("train", arguments):
                _tell(report, event, as_json=as_json)
    except KeyboardInterrupt:
        report.notice("sonoloop: interrupted; the same command goes on from the last epoch")
        raise typer.Exit(130) from None


def _tell(report: TrainingReport, event: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
    else:
        report.tell(event)
