"""What `sonoloop evaluate` tells: a bar or plain lines while it runs, tables or JSON as its result."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.table import Table

from sonoloop.cli.console import ProgressConsole, result_console
from sonoloop.cli.predict import Device


class EvaluationReport(ProgressConsole):
    """Follows the events of an evaluation; standard output carries the result alone.

    Parameters
    ----------
    as_json : bool
        The results as one JSON object on standard output, and no table.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.failures: list[tuple[str, str]] = []
        self._stage = ""
        self._done: dict[str, Any] | None = None
        self._as_json = as_json
        super().__init__(MofNCompleteColumn(), TimeRemainingColumn(), quiet=as_json)

    def tell(self, event: Mapping[str, Any]) -> None:
        """Take the next event."""
        match event["event"]:
            case "progress":
                stage = event["stage"]
                self.advance(stage, event["done"], event["total"], begins=stage != self._stage)
                self._stage = stage
            case "unreadable":
                self.failures.append((event["image"], event["error"]))
                self.notice(f"{event['image']}: {event['error']}")
            case "notice":
                self.notice(f"note: {event['message']}")
            case "evaluation_done":
                self._done = dict(event)

    def finish(self) -> None:
        """Give the result, and name what failed."""
        if self._done is None:
            return
        results = self._done["results"]
        if self._as_json:
            sys.stdout.write(json.dumps(results) + "\n")
        else:
            console = result_console(140)
            console.print(_figures(results))
            if results["comparison"]:
                console.print(_comparison(results["comparison"], results["titles"]))
            console.print(
                f"{results['images']} images of {results['groups']} groups from "
                f"{', '.join(results['datasets'])}; report.html, results.json and cases.csv are in "
                f"{self._done['out']}",
                soft_wrap=True,
            )
        if self.failures:
            total = results["images"] + len(self.failures)
            self.notice(f"sonoloop: {len(self.failures)} of {total} images could not be judged:")
        for image, error in self.failures:
            self.notice(f"  {image}: {error}")


def _figures(results: Mapping[str, Any]) -> Table:
    columns: list[Mapping[str, Any]] = []
    table = Table("figure, with its 95 % interval", box=None)
    for entry in results["models"]:
        table.add_column(entry["model"] + (" (leaked)" if entry["leaked"] else ""), justify="right")
        columns.append(entry["figures"])
        if entry["figures_without_leaks"]:
            table.add_column("without leaked images", justify="right")
            columns.append(entry["figures_without_leaks"])
    table.add_column("images", justify="right")
    for key, title in results["titles"].items():
        if any(column.get(key) for column in columns):
            count = next((str(column[key]["n"]) for column in columns if column.get(key)), "")
            table.add_row(title, *(_write(column.get(key)) for column in columns), count)
    return table


def _comparison(comparison: Mapping[str, Any], titles: Mapping[str, str]) -> Table:
    mark = " (leaked)" * comparison["leaked"]
    left_out = f", {comparison['left_out']} that trained left out" if comparison["left_out"] else ""
    table = Table(
        f"{comparison['other']} less {comparison['one']}{mark} ({comparison['images']} images{left_out})",
        "difference",
        f"{comparison['other']} is",
        box=None,
    )
    table.columns[1].justify = "right"
    for key, found in comparison["differences"].items():
        if found:
            table.add_row(titles[key], _write(found, sign="+"), found["verdict"])
    return table


def _write(figure: Mapping[str, Any] | None, *, sign: str = "") -> str:
    if figure is None:
        return "-"
    digits = 1 if abs(figure["value"]) >= 10 else 3
    text = f"{figure['value']:{sign}.{digits}f}"
    if figure["ci95"] is None:
        return text
    low, high = figure["ci95"]
    return f"{text} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


class Part(StrEnum):
    """Which images judge."""

    ALL = "all"
    VALIDATION = "validation"
    TEST = "test"


class Views(StrEnum):
    """How many views are averaged."""

    ONE = "1"
    TWO = "2"
    FOUR = "4"


def evaluate(
    *,
    data: Annotated[
        Path, typer.Option("--data", help="Folder with one dataset or several; see docs/datasets.md.")
    ],
    model: Annotated[
        str | None, typer.Option("--model", help="Name or folder of a model; the shipped one if not given.")
    ] = None,
    versus: Annotated[
        str | None, typer.Option("--versus", help="Another model, compared with it on the same images.")
    ] = None,
    part: Annotated[Part, typer.Option("--part", help="Which part of the split judges.")] = Part.ALL,
    split: Annotated[
        Path | None, typer.Option("--split", help="split.json that says the parts, if the model's does not.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write to; evaluation/MODEL-PART if not given.")
    ] = None,
    device: Annotated[
        Device, typer.Option("--device", help="Where to run; auto takes a GPU if there is one.")
    ] = Device.AUTO,
    views: Annotated[
        Views | None,
        typer.Option("--views", help="Views of each image to average."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, max=256, help="Images at a time.")] = 8,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as one JSON object, and no table.")
    ] = False,
) -> None:
    """Judge a model on images with known masks and classes, or compare two.

    Writes OUT/results.json (all figures with 95 % intervals over patients), OUT/cases.csv (a row an image)
    and OUT/report.html. An earlier evaluation there is replaced, other files are not.

    The exit code is 1 where images could not be judged and others were.
    """
    from sonoloop.jobs.process import training_events  # noqa: PLC0415

    arguments: list[object] = ["--data", data, "--part", part.value]
    arguments += ["--device", device.value, "--batch", batch]
    for option, value in (
        ("--model", model),
        ("--versus", versus),
        ("--split", split),
        ("--out", out),
        ("--views", views and views.value),
    ):
        if value is not None:
            arguments += [option, value]
    report = EvaluationReport(as_json=as_json)
    try:
        with report:
            for event in training_events("evaluate", arguments):
                report.tell(event)
    except KeyboardInterrupt:
        report.notice("sonoloop: interrupted; nothing was written")
        raise typer.Exit(130) from None
    report.finish()
    if report.failures:
        raise typer.Exit(1)
