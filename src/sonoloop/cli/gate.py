"""`sonoloop gate`: progress while it compares, then the figures and the verdict."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.table import Table

from sonoloop.cli.console import EventReport, print_json, result_console
from sonoloop.cli.options import takes
from sonoloop.errors import SonoloopError
from sonoloop.jobs.events import Event, Gate, Promoted, Unreadable
from sonoloop.jobs.request import GateRequest

_SIDES = {
    "missed_malignant": "missed malignant lesions",
    "false_alarms": "false alarms on normals",
    "auc": "AUC, malignant against benign",
}


class GateReport(EventReport):
    """Tells the user of a comparison; as JSON, its result is the event `Gate` as one object."""

    def __init__(self, *, as_json: bool) -> None:
        columns = MofNCompleteColumn(), TimeRemainingColumn()
        super().__init__(*columns, as_json=as_json, stays="; the model in use stays")
        self._gate: Gate | None = None
        self._promoted = ""

    def tell(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case Unreadable():
                self.notice(f"{event.image} does not judge: {event.error}")
            case Gate():
                self._gate = event
            case Promoted():
                self._promoted = event.model
            case _:
                super().tell(event)

    def finish(self) -> None:
        """Give the result."""
        found = self._gate
        if found is None:
            return
        if self._as_json:
            print_json(asdict(found) | {"promoted": bool(self._promoted)})
            return
        console = result_console()
        if found.difference is not None:
            console.print(_table(found, found.difference))
        console.print(f"{found.verdict}: {found.reason}", soft_wrap=True)
        console.print(
            f"Look {found.looks} at test set {found.test_set}"
            + (f"; pictures: {', '.join(found.pictures.values())}" if found.pictures else ""),
            soft_wrap=True,
        )
        if self._promoted:
            console.print(f"{self._promoted} is in use now")


def _table(found: Gate, difference: float) -> Table:
    table = Table("candidate less model in use", "", "95 % interval", "margin", "frames", "groups", box=None)
    table.add_row(
        "mean Dice, frames with a lesion",
        f"{difference:+.3f}",
        _interval(found.interval),
        "",
        str(found.frames),
        str(found.groups),
    )
    for name, title in _SIDES.items():
        side = found.sides[name]
        if side.difference is not None:
            table.add_row(
                title,
                f"{side.difference:+.3f}",
                _interval(side.interval),
                f"{side.margin:g}",
                str(side.frames),
                str(side.groups),
            )
    return table


def _interval(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:+.3f} to {bounds[1]:+.3f}"


@takes(GateRequest)
def gate(
    request: GateRequest,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the verdict as one JSON object, and nothing else.")
    ] = False,
) -> None:
    """Say whether a model is better than the one in use, on the frames that judge.

    These are the frames of the store's test groups that were drawn before a prediction was seen. Every look
    at them is put on record and counted: who looks often will find something. Nothing is promoted without
    --promote, unless the project's setting says promote = automatic.
    """
    if request.every_model and as_json:
        raise SonoloopError("--every-model has no verdict to print: leave out --json")
    report = GateReport(as_json=as_json)
    report.follow(request)
    report.finish()
