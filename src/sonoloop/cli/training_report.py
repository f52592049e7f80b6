"""What `sonoloop train` tells: bars while it runs, a line an epoch, the figures at the end."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.progress import TextColumn
from rich.table import Table

from sonoloop.cli.console import ProgressConsole, result_console

FIGURES = {
    "lesion_dice": "Dice over images with a lesion",
    "missed": "lesions missed (Dice 0)",
    "false_alarms": "normals with a mask",
    "auc": "AUC, malignant against benign",
    "accuracy": "accuracy, three classes",
}


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
        self._estimated = False
        super().__init__(TextColumn("{task.fields[note]}"), quiet=as_json)

    def tell(self, event: dict[str, Any]) -> None:
        """Tell of an event; see `sonoloop_training.events`."""
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
        self._estimated = False
        resumed = f", going on after epoch {event['epoch']}" if event["epoch"] else ""
        many = f" on {event['processes']} processes" if event["processes"] > 1 else ""
        self.notice(
            f"{event['recipe']}: {event['train']} images train, {event['validation']} validate, "
            f"{event['test']} test; {event['epochs']} epochs{resumed}; "
            f"{event['device']} in {event['precision']}{many}"
        )

    def _step(self, event: dict[str, Any]) -> None:
        done = (event["epoch"] - 1) * event["steps"] + event["step"]
        left = f"about {timedelta(seconds=round(event['seconds_left']))} left"
        if not self._estimated:
            self._estimated = True
            self.notice(left)
        told = f"epoch {event['epoch']}/{event['epochs']}, loss {event['loss']:.3f}, {left}"
        self.advance("Training", done, event["epochs"] * event["steps"], note=told)

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
        for name, figures in self._metrics.get("test", {}).items():
            if name != "all" or len(self._metrics["test"]) > 2:
                console.print(_table(f"{name}: {figures['images']} test images", figures))
        console.print(
            f"{event['model']} is in {event['path']}, made in {event['minutes']:.0f} min; all figures are in "
            f"{self._out / 'results.json'}",
            soft_wrap=True,
        )


def _table(title: str, figures: dict[str, Any]) -> Table:
    table = Table("", "value", "95 % interval", title=title, title_justify="left", box=None)
    for name, what in FIGURES.items():
        figure = figures.get(name)
        if figure is not None:
            # there is none for a single group
            interval = " to ".join(f"{bound:.3f}" for bound in figure["ci95"] or ())
            table.add_row(what, f"{figure['value']:.3f}", interval)
    return table
