"""`sonoloop evaluate`: a model and images with known masks to figures and a report."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sonoloop.cli.predict import Device


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
    from sonoloop.cli.evaluate import EvaluationReport  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.jobs.training import training_events  # noqa: PLC0415

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
