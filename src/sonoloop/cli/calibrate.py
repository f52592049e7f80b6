"""`sonoloop calibrate`: the numbers and the figures before and after, and whether to use the new model."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.table import Table

from sonoloop.cli.console import EventReport, not_blank, open_store, print_error, print_json, result_console
from sonoloop.cli.options import takes
from sonoloop.errors import SonoloopError
from sonoloop.jobs.events import Calibrated, Event, Unreadable, why_calibrated
from sonoloop.jobs.request import CalibrateRequest

_NUMBERS = {
    "temperature": "temperature",
    "normal_gate": "gate for normals",
    "threshold": "threshold",
    "min_area": "smallest lesion, share of the frame",
}


class CalibrationReport(EventReport):
    """Tells the user of a calibration; as JSON, its result is the event `Calibrated` as one object."""

    def __init__(self, *, as_json: bool) -> None:
        columns = MofNCompleteColumn(), TimeRemainingColumn()
        super().__init__(*columns, as_json=as_json, stays="; the model in use stays")
        self.found: Calibrated | None = None

    def tell(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case Unreadable():
                self.notice(f"{event.image} is left out: {event.error}")
            case Calibrated():
                self.found = event
            case _:
                super().tell(event)

    def finish(self, *, used: bool) -> None:
        """Give the result as JSON."""
        if self._as_json and self.found is not None:
            print_json(asdict(self.found) | {"used": used})


def _print(found: Calibrated) -> None:
    console = result_console()
    numbers = Table("number", "before", "after", "", box=None)
    for one in found.numbers:
        numbers.add_row(
            _NUMBERS.get(one.name, one.name),
            f"{one.before:g}",
            f"{one.after:g}",
            f"left as it was: {one.left}" if one.left else "",
        )
    console.print(numbers)
    if found.version is None:
        console.print("nothing changes: no number does better on these frames, out of fold", soft_wrap=True)
        return
    figures = Table("figure", "before", "after", "difference", "95 % interval", "frames", box=None)
    for figure in found.figures:
        interval = figure.interval
        figures.add_row(
            figure.title,
            f"{figure.before:.3f}",
            f"{figure.after:.3f}",
            f"{figure.difference:+.3f}",
            "" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}",
            str(figure.frames),
        )
    console.print(figures)
    console.print(
        f"{found.base} on {found.frames} frames of {found.groups} groups, test set {found.test_set}. The "
        "figures of after are out of fold: each frame is judged with numbers fitted on other groups. "
        "The numbers that are kept were fitted on all of them: their own figures on these frames flatter.",
        soft_wrap=True,
    )


def _check_free(store: str | None) -> None:
    """Refuse before the work what would be refused after it."""
    from sonoloop.store.promotions import locked_version  # noqa: PLC0415 - `--help` loads none of these

    with open_store(store) as opened:
        if locked_version(opened) is not None:
            raise SonoloopError(
                "the project is locked to the model in use: leave out --use, or unlock it first with: "
                "sonoloop models unlock --why REASON"
            )


def _use(found: Calibrated, store: str | None, who: str, why: str | None) -> None:
    from sonoloop.project import Project  # noqa: PLC0415 - `--help` loads none of these

    with Project(open_store(store), annotator=who, on_notice=print_error) as project:
        project.promote(str(found.version), why=why or why_calibrated(found), expected=found.in_use)


@takes(CalibrateRequest)
def calibrate(
    request: CalibrateRequest,
    *,
    use: Annotated[
        bool, typer.Option("--use", help="Use the model with the new numbers, without being asked.")
    ] = False,
    why: Annotated[
        str | None, typer.Option("--why", callback=not_blank, help="The reason, for the record.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object, and ask nothing.")
    ] = False,
) -> None:
    """Fit a model's threshold, gate and temperature on the frames that judge; its weights stay.

    What it changes is shown before and after, out of fold. A number whose fit would miss a lesion more, or
    that too few frames are there to fit, is left as it was. The result is a new model with the same weights.
    It comes into use with --use, or when you say so; `sonoloop models rollback` undoes it.
    """
    if why is not None and not use:
        raise SonoloopError("--why is the reason to use the new model: add --use, or leave it out")
    if use:
        _check_free(request.store)
    report = CalibrationReport(as_json=as_json)
    report.follow(request)
    found = report.found
    if found is None:
        return
    if not as_json:
        _print(found)
    model = found.model
    wanted = use and model is not None
    if model is not None and not use and not as_json:
        if sys.stdin.isatty():
            wanted = typer.confirm(f"Use {model}?", err=True)
        if not wanted:
            console = result_console()
            console.print(
                f"{model} is kept and not used; to use it: sonoloop models use {model} --why REASON",
                soft_wrap=True,
            )
    if wanted:
        try:
            _use(found, request.store, request.who, why)
        except SonoloopError as error:
            # what was made is there whatever became of its use
            report.finish(used=False)
            raise SonoloopError(f"{model} is kept and not used: {error}") from error
        if not as_json:
            told = f"{model} is in use now; to go back: sonoloop models rollback --why REASON"
            result_console().print(told, soft_wrap=True)
    report.finish(used=wanted)
