"""`sonoloop gate`: a model against the one in use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sonoloop.cli.predict import Device
from sonoloop.errors import SonoloopError


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
    from sonoloop.cli.gate import GateReport  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.jobs.training import training_events  # noqa: PLC0415

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
