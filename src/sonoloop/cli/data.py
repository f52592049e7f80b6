"""What `sonoloop data` tells: a bar or plain lines while it runs, tables or JSON as its result."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sonoloop.cli.console import ProgressConsole, result_console
from sonoloop.values import CLASSES

_NAMES = 4
_STYLES = {"mend": "bold red", "heed": "yellow", "note": "dim"}


class CheckReport(ProgressConsole):
    """Follows the events of a check or of unpacking; standard output carries the result alone.

    Parameters
    ----------
    as_json : bool
        The result as one JSON object on standard output, and no table.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._checked: dict[str, Any] | None = None
        self._as_json = as_json
        super().__init__(MofNCompleteColumn(), TimeRemainingColumn(), quiet=as_json)

    def tell(self, event: Mapping[str, Any]) -> None:
        """Take the next event; see `sonoloop.jobs.events`."""
        match event["event"]:
            case "progress":
                self.advance(event["stage"], event["done"], event["total"])
            case "notice":
                self.notice(str(event["message"]))
            case "checked":
                self._checked = {name: value for name, value in event.items() if name != "event"}
            case "unpacked":
                result_console().print(
                    f"{event['images']} images and {event['masks']} masks of {event['dataset']} are in "
                    f"{event['path']}",
                    soft_wrap=True,
                )

    def finish(self) -> int:
        """Give the result; return how many findings must be mended."""
        if self._checked is None:
            return 0
        mend = int(self._checked["mend"])
        if self._as_json:
            sys.stdout.write(json.dumps(self._checked) + "\n")
            return mend
        console = result_console()
        for dataset in self._checked["datasets"]:
            console.print(_summary(dataset))
            console.print()
        if self._checked["findings"]:
            console.print(_findings(self._checked["findings"]))
            console.print()
        verdict = f"{mend} findings must be mended" if mend else "nothing must be mended"
        console.print(f"{verdict}; pictures and figures are in {self._checked['report']}", soft_wrap=True)
        if self._checked["groups"]:
            files = ", ".join(self._checked["groups"])
            console.print(f"near-duplicates: {files}", soft_wrap=True)
        return mend


def _summary(dataset: Mapping[str, Any]) -> Table:
    table = Table("", *CLASSES, "all", title=str(dataset["dataset"]), title_justify="left", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in dataset["table"]:
        table.add_row(*map(Text, row))
    return table


def _findings(findings: list[dict[str, Any]]) -> Table:
    table = Table("", "dataset", "count", "finding", title="findings", title_justify="left", box=None)
    table.columns[2].justify = "right"
    for finding in findings:
        names = finding["names"]
        told = Text(finding["what"])
        if names:
            more = f"; and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
            told.append(f": {'; '.join(names[:_NAMES])}{more}", style="dim")
        if finding["advice"]:
            told.append(f"\n{finding['advice']}", style="italic")
        severity = finding["severity"]
        count = str(len(names)) if names else ""
        table.add_row(Text(severity, style=_STYLES[severity]), Text(finding["dataset"]), count, told)
    return table


data = typer.Typer(help="Look at datasets before training on them.", no_args_is_help=True)


@data.command()
def check(
    *,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder with one dataset or several; see docs/datasets.md.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for report.html and groups.json; DIR-check here if not given."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object, and no table.")
    ] = False,
) -> None:
    """Say what a dataset holds, and what must be mended before a model learns from it.

    Nothing in DIR is changed. Writes OUT/report.html, and the near-duplicates as OUT/groups.json.

    The exit code is 1 where something must be mended.
    """
    from sonoloop.jobs.process import training_events  # noqa: PLC0415

    report = CheckReport(as_json=as_json)
    try:
        with report:
            for event in training_events("check", [folder, *(["--out", out] if out else [])]):
                report.tell(event)
    except KeyboardInterrupt:
        report.notice("sonoloop: interrupted; nothing was written")
        raise typer.Exit(130) from None
    if report.finish():
        raise typer.Exit(1)


@data.command()
def unpack(
    *,
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A zip file, a Parquet file, or a folder with these.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to make.")],
) -> None:
    """Unpack a dataset as downloaded, BUSI's zip file or Hugging Face's Parquet files, to a plain folder."""
    from sonoloop.jobs.process import training_events  # noqa: PLC0415

    report = CheckReport(as_json=False)
    try:
        with report:
            for event in training_events("unpack", [source, "--out", out]):
                report.tell(event)
    except KeyboardInterrupt:
        report.notice("sonoloop: interrupted")
        raise typer.Exit(130) from None
