"""`sonoloop finetune`: corrections to a better model, or to none."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sonoloop.cli.predict import Device
from sonoloop.cli.project import not_blank


def finetune(
    *,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", help="The corrections; the default store if not given."),
    ] = None,
    snapshot: Annotated[
        str | None,
        typer.Option("--snapshot", metavar="NAME", help="Learn from this one; one is taken if not given."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Start from this model (an id, a version or a folder); from the one in use if not given.",
        ),
    ] = None,
    base_data: Annotated[
        Path | None,
        typer.Option(
            "--base-data", metavar="DIR", help="The data that trained the model; some of it is shown again."
        ),
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option("--max-minutes", min=0.1, help="Make the epochs that fit into this time.")
    ] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Use the new model if the gate finds it better.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, such as replay=0.5; repeatable."),
    ] = None,
    job: Annotated[
        Path | None,
        typer.Option(
            "--job", metavar="DIR", help="Work in this folder, and go on with what broke off there."
        ),
    ] = None,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Go on without the images whose files are gone.")
    ] = False,
    gate: Annotated[
        bool, typer.Option("--gate/--no-gate", help="Whether the new model is judged against the one in use.")
    ] = True,
    who: Annotated[
        str | None,
        typer.Option("--who", metavar="NAME", help="Pseudonym of whoever starts it.", callback=not_blank),
    ] = None,
    device: Annotated[
        Device | None, typer.Option("--device", help="Where to train; auto if not given.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; all cores if not given.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the events, one JSON object a line.")
    ] = False,
) -> None:
    """Learn from the corrections in a store, and let the gate say whether the new model is better.

    Images that judge never train. A fine-tuning that broke off, by Ctrl-C or a crash, goes on from its last
    epoch with --job and the folder that it told of. The model in use stays in use unless the new one passes
    and --promote is given, or the project's setting says promote = automatic.
    """
    from sonoloop.cli.finetune_report import FinetuneReport  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.jobs.training import training_events  # noqa: PLC0415

    arguments: list[object] = []
    for name, value in (
        ("--store", store),
        ("--snapshot", snapshot),
        ("--from", start),
        ("--base-data", base_data),
        ("--max-minutes", max_minutes),
        ("--job", job),
        ("--who", who),
        ("--device", None if device is None else device.value),
        ("--threads", threads),
    ):
        if value is not None:
            arguments += [name, value]
    for change in settings or []:
        arguments += ["--set", change]
    for name, wanted in (("--promote", promote), ("--skip-missing", skip_missing), ("--no-gate", not gate)):
        if wanted:
            arguments.append(name)
    report = FinetuneReport(as_json=as_json)
    try:
        with report:
            for event in training_events("finetune", arguments):
                if as_json:
                    sys.stdout.write(json.dumps(event) + "\n")
                    sys.stdout.flush()
                if not as_json or event["event"] == "job":
                    report.tell(event)
    except KeyboardInterrupt:
        report.notice(f"sonoloop: interrupted{report.how_to_go_on}")
        raise typer.Exit(130) from None
