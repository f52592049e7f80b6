"""`sonoloop finetune`: corrections to a better model, or to none."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from sonoloop.cli.console import not_blank, result_console
from sonoloop.cli.predict import Device
from sonoloop.cli.train import TrainingReport

_LISTED = 10


class FinetuneReport(TrainingReport):
    """Tells the user of a fine-tuning as it goes; the result alone goes to standard output.

    Parameters
    ----------
    as_json : bool
        Nothing is told: the events themselves are printed.
    """

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(Path(), as_json=as_json)
        self._folder = ""
        self._verdict: dict[str, Any] = {}
        self._promoted = False

    @property
    def how_to_go_on(self) -> str:
        """What to type to go on with what was interrupted; empty where nothing had begun."""
        return f"; sonoloop finetune --job {self._folder} goes on from the last epoch" if self._folder else ""

    def tell(self, event: dict[str, Any]) -> None:
        """Tell of an event; see `sonoloop.jobs.events`."""
        match event["event"]:
            case "job":
                self._folder = event["folder"]
            case "selected":
                self._selected(event)
            case "gate":
                self._verdict = event
            case "promoted":
                self._promoted = True
            case "finished":
                self._ended(event)
            case _:
                super().tell(event)

    def _selected(self, event: dict[str, Any]) -> None:
        classes = ", ".join(f"{count} {label}" for label, count in event["by_class"].items() if count)
        replayed = f", with {event['replay']} images of those that trained it" if event["replay"] else ""
        self.notice(
            f"{event['base']} learns from {event['train']} corrections ({classes}) in {event['snapshot']}"
            f"{replayed}; {event['test_groups']} groups only judge"
        )
        left_out = event["left_out"]
        if not left_out:
            return
        self.notice(f"{len(left_out)} corrections are not learned from:")
        for one in left_out[:_LISTED]:
            self.notice(f"  {one['frame'][:12]}: {one['why']}")
        if len(left_out) > _LISTED:
            reasons = Counter(one["why"] for one in left_out[_LISTED:])
            told = "; ".join(f"{count} because {why}" for why, count in reasons.most_common())
            self.notice(f"  and {len(left_out) - _LISTED} more: {told}")

    def _ended(self, event: dict[str, Any]) -> None:
        console = result_console()
        console.print(
            f"{event['model']} is in {event['path']}, made in {event['minutes']:.0f} min", soft_wrap=True
        )
        if self._verdict:
            console.print(f"{self._verdict['verdict']}: {self._verdict['reason']}", soft_wrap=True)
        if self._promoted:
            console.print(f"{event['model']} is in use now")
        elif self._verdict:
            word = event["model"]
            console.print(f"the model in use stays; `sonoloop models use {word} --why ...` uses the new one")


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
    from sonoloop.jobs.process import training_events  # noqa: PLC0415

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
