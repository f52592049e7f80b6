"""What `sonoloop gate` tells: progress while it runs, then the figures and the verdict."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.table import Table

from sonoloop.cli.console import ProgressConsole, result_console
from sonoloop.cli.predict import Device
from sonoloop.errors import SonoloopError

_SIDES = {
    "missed_malignant": "missed malignant lesions",
    "false_alarms": "false alarms on normals",
    "auc": "AUC, malignant against benign",
}


class GateReport(ProgressConsole):
    """Follows the events of a comparison; standard output carries the result alone.

    Parameters
    ----------
    as_json : bool
        The event `Gate` as one JSON object on standard output, and no table.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._stage = ""
        self._gate: dict[str, Any] | None = None
        self._promoted = ""
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
                self.notice(f"{event['image']} does not judge: {event['error']}")
            case "notice":
                self.notice(str(event["message"]))
            case "gate":
                self._gate = dict(event)
            case "promoted":
                self._promoted = event["model"]

    def finish(self) -> None:
        """Give the result."""
        found = self._gate
        if found is None:
            return
        if self._as_json:
            del found["event"]
            sys.stdout.write(json.dumps(found | {"promoted": bool(self._promoted)}) + "\n")
            return
        console = result_console()
        if found["difference"] is not None:
            console.print(_table(found))
        console.print(f"{found['verdict']}: {found['reason']}", soft_wrap=True)
        console.print(
            f"Look {found['looks']} at test set {found['test_set']}"
            + (f"; pictures: {', '.join(found['pictures'].values())}" if found["pictures"] else ""),
            soft_wrap=True,
        )
        if self._promoted:
            console.print(f"{self._promoted} is in use now")


def _table(found: Mapping[str, Any]) -> Table:
    table = Table("candidate less model in use", "", "95 % interval", "margin", "frames", "groups", box=None)
    table.add_row(
        "mean Dice, frames with a lesion",
        f"{found['difference']:+.3f}",
        _interval(found["interval"]),
        "",
        str(found["frames"]),
        str(found["groups"]),
    )
    for name, title in _SIDES.items():
        side = found["sides"][name]
        if side["difference"] is not None:
            table.add_row(
                title,
                f"{side['difference']:+.3f}",
                _interval(side["interval"]),
                f"{side['margin']:g}",
                str(side["frames"]),
                str(side["groups"]),
            )
    return table


def _interval(bounds: list[float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:+.3f} to {bounds[1]:+.3f}"


def gate(
    *,
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="The candidate, as `sonoloop models list` names it."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", help="The corrections; the default store if not given."),
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="MODEL", help="The model in use if not given.")
    ] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Use the candidate if it is found better.")
    ] = False,
    every_model: Annotated[
        bool,
        typer.Option(
            "--every-model",
            help="Compare nothing: score all models on today's test set, for `sonoloop models list`.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for the pictures; beside the store if not given."),
    ] = None,
    who: Annotated[
        str, typer.Option("--who", metavar="NAME", help="Your pseudonym, for the record.")
    ] = "command line",
    device: Annotated[
        Device, typer.Option("--device", help="Where to run; auto takes a GPU if there is one.")
    ] = Device.AUTO,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; all cores if not given.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the verdict as one JSON object, and nothing else.")
    ] = False,
) -> None:
    """Say whether a model is better than the one in use, on the frames that judge.

    These are the frames of the store's test groups that were drawn before a prediction was seen. Every look
    at them is put on record and counted: who looks often will find something. Nothing is promoted without
    --promote, unless the project's setting says promote = automatic.
    """
    from sonoloop.jobs.process import training_events  # noqa: PLC0415

    if (model is None) is not every_model:
        raise SonoloopError("name the MODEL to judge, or give --every-model, and not both")
    if not who.strip():
        raise SonoloopError("--who is empty; give your pseudonym, or leave it out")
    if every_model and as_json:
        raise SonoloopError("--every-model has no verdict to print: leave out --json")
    arguments: list[object] = ["--every-model"] if model is None else ["--candidate", model]
    for name, value in (
        ("--store", store),
        ("--against", against),
        ("--out", out),
        ("--who", who),
        ("--device", device.value),
        ("--threads", threads),
    ):
        if value is not None:
            arguments += [name, value]
    if promote:
        arguments.append("--promote")
    report = GateReport(as_json=as_json)
    try:
        with report:
            for event in training_events("gate", arguments):
                report.tell(event)
    except KeyboardInterrupt:
        report.notice("sonoloop: interrupted; the model in use stays")
        raise typer.Exit(130) from None
    report.finish()
