"""`sonoloop data`: a bar or plain lines while it runs, tables or JSON as its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sonoloop.cli.console import EventReport, print_json, result_console
from sonoloop.cli.options import takes
from sonoloop.jobs.events import Checked, Event, Finding, Packed, Progress, Unpacked
from sonoloop.jobs.request import CheckRequest, PackRequest, UnpackRequest

_NAMES = 4
_STYLES = {"mend": "bold red", "heed": "yellow", "note": "dim"}


class CheckReport(EventReport):
    """Tells the user of a check or of unpacking; as JSON, its result is the event `Checked` as one object."""

    def __init__(self, *, as_json: bool, stays: str = "") -> None:
        super().__init__(MofNCompleteColumn(), TimeRemainingColumn(), as_json=as_json, stays=stays)
        self._checked: Checked | None = None

    def tell(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case Progress():
                self.advance(event.stage, event.done, event.total)
            case Checked():
                self._checked = event
            case Unpacked():
                result_console().print(
                    f"{event.images} images and {event.masks} masks of {event.dataset} are in {event.path}",
                    soft_wrap=True,
                )
            case Packed():
                told = ", ".join(f"{count} of {name}" for name, count in event.datasets.items())
                result_console().print(
                    f"{event.images} images ({told}; {event.resized} of them resized) are in {event.path}: "
                    f"{event.bytes / 1e6:.1f} MB, {event.bytes / event.images / 1000:.1f} KB an image",
                    soft_wrap=True,
                )
            case _:
                super().tell(event)

    def finish(self) -> int:
        """Give the result; return how many findings must be mended."""
        checked = self._checked
        if checked is None:
            return 0
        if self._as_json:
            print_json(asdict(checked))
            return checked.mend
        console = result_console()
        for dataset in checked.datasets:
            console.print(_summary(dataset))
            console.print()
        if checked.findings:
            console.print(_findings(checked.findings))
            console.print()
        verdict = f"{checked.mend} findings must be mended" if checked.mend else "nothing must be mended"
        console.print(f"{verdict}; pictures and figures are in {checked.report}", soft_wrap=True)
        if checked.groups:
            console.print(f"near-duplicates: {', '.join(checked.groups)}", soft_wrap=True)
        return checked.mend


def _summary(dataset: Mapping[str, Any]) -> Table:
    from sonoloop.values import CLASSES  # noqa: PLC0415 - imports numpy

    table = Table("", *CLASSES, "all", title=str(dataset["dataset"]), title_justify="left", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in dataset["table"]:
        table.add_row(*map(Text, row))
    return table


def _findings(findings: Sequence[Finding]) -> Table:
    table = Table("", "dataset", "count", "finding", title="findings", title_justify="left", box=None)
    table.columns[2].justify = "right"
    for finding in findings:
        names = finding.names
        told = Text(finding.what)
        if names:
            more = f"; and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
            told.append(f": {'; '.join(names[:_NAMES])}{more}", style="dim")
        if finding.advice:
            told.append(f"\n{finding.advice}", style="italic")
        severity = Text(finding.severity, style=_STYLES[finding.severity])
        table.add_row(severity, Text(finding.dataset), str(len(names)) if names else "", told)
    return table


data = typer.Typer(help="Look at datasets before training on them.", no_args_is_help=True)


@data.command()
@takes(CheckRequest)
def check(
    request: CheckRequest,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object, and no table.")
    ] = False,
) -> None:
    """Say what a dataset holds, and what must be mended before a model learns from it.

    Nothing in DIR is changed. Writes OUT/report.html, and the near-duplicates as OUT/groups.json.

    The exit code is 1 where something must be mended.
    """
    report = CheckReport(as_json=as_json, stays="; nothing was written")
    report.follow(request)
    if report.finish():
        raise typer.Exit(1)


@data.command()
@takes(UnpackRequest)
def unpack(request: UnpackRequest) -> None:
    """Unpack a dataset as downloaded, BUSI's zip file or Hugging Face's Parquet files, to a plain folder."""
    CheckReport(as_json=False).follow(request)


@data.command()
@takes(PackRequest)
def pack(request: PackRequest) -> None:
    """Write datasets, resized, to one file, which trains and judges as the folders do.

    Splits come out as from the folders. Ctrl-C leaves nothing; an earlier pack stays until the new one is
    whole.
    """
    CheckReport(as_json=False, stays="; nothing was written").follow(request)
