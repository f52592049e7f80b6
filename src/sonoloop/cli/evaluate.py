"""`sonoloop evaluate`: a bar or plain lines while it runs, tables or JSON as its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sonoloop.cli.console import EventReport, print_json, result_console
from sonoloop.cli.options import takes
from sonoloop.cli.train import FIGURES
from sonoloop.jobs.events import EvaluationDone, Event, Notice, Unreadable
from sonoloop.jobs.request import EvaluateRequest


class EvaluationReport(EventReport):
    """Tells the user of an evaluation; as JSON, its results are one object."""

    def __init__(self, *, as_json: bool) -> None:
        columns = MofNCompleteColumn(), TimeRemainingColumn()
        super().__init__(*columns, as_json=as_json, stays="; nothing was written")
        self._done: EvaluationDone | None = None

    def tell(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case Unreadable():
                self.notice(f"{event.image}: {event.error}")
            case Notice():
                self.notice(f"note: {event.message}")
            case EvaluationDone():
                self._done = event
            case _:
                super().tell(event)

    def finish(self) -> None:
        """Give the result, and name what failed."""
        if self._done is None:
            return
        results = self._done.results
        if self._as_json:
            print_json(results)
        else:
            console = result_console(140)
            console.print(_figures(results))
            for entry in results["models"]:
                console.print()
                console.print(_hospitals(entry))
            if results["comparison"]:
                console.print(_comparison(results["comparison"], results["titles"]))
            console.print(
                f"{results['images']} images of {results['groups']} groups from "
                f"{', '.join(results['datasets'])}; report.html, results.json and cases.csv are in "
                f"{self._done.out}",
                soft_wrap=True,
            )
        total = results["images"] + len(self.failures)
        self.name_failures(f"{len(self.failures)} of {total} images could not be judged")


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


def _hospitals(entry: Mapping[str, Any]) -> Table:
    """Show the main figures of each dataset, and whether the model had images of it."""
    mark = " (leaked)" * entry["leaked"]
    datasets = entry["strata"]["dataset"]
    shown = {key: title for key, title in FIGURES.items() if any(part.get(key) for part in datasets.values())}
    table = Table(f"{entry['model']}{mark}, by hospital", "", "images", *shown.values(), box=None)
    rows = [(name, part["hospital"], part) for name, part in datasets.items()]
    rows += [("together", mark, part) for mark, part in entry["strata"].get("hospital", {}).items()]
    for name, mark_of, part in rows:
        figures = [_write(part.get(key)) for key in shown]
        table.add_row(Text(name), mark_of, str(part["images"]), *figures)
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


@takes(EvaluateRequest)
def evaluate(
    request: EvaluateRequest,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as one JSON object, and no table.")
    ] = False,
) -> None:
    """Judge a model on images with known masks and classes, or compare two.

    Writes OUT/results.json (all figures with 95 % intervals over patients), OUT/cases.csv (a row an image)
    and OUT/report.html. An earlier evaluation there is replaced, other files are not.

    The exit code is 1 where images could not be judged and others were.
    """
    report = EvaluationReport(as_json=as_json)
    report.follow(request)
    report.finish()
