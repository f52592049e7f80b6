"""`sonoloop train`: a recipe and data to a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonoloop.cli.predict import Device
from sonoloop.errors import SonoloopError

if TYPE_CHECKING:
    from sonoloop.cli.train import TrainingReport


def train(
    *,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Name of a shipped recipe, such as unet (docs/training.md lists them), or a TOML file.",
        ),
    ],
    data: Annotated[
        Path, typer.Option("--data", help="Folder with one dataset or several; see docs/datasets.md.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for checkpoint, figures and the model; runs/RECIPE if not given."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, such as epochs=2; repeatable."),
    ] = None,
    fold: Annotated[
        int | None, typer.Option("--fold", min=1, help="Test this fold; the recipe then splits by folds.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of everything random.")] = None,
    max_minutes: Annotated[
        float | None, typer.Option("--max-minutes", min=0.1, help="Make the epochs that fit into this time.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that broke off; refuse to begin a new one.")
    ] = False,
    leaky: Annotated[
        bool,
        typer.Option("--leaky", help="Split by image, twins on both sides; every result is marked leaked."),
    ] = False,
    show_augment: Annotated[
        bool, typer.Option("--show-augment", help="Only draw 32 augmented pairs, to OUT/augmentation.png.")
    ] = False,
    device: Annotated[
        Device, typer.Option("--device", help="Where to train; auto takes a GPU if there is one.")
    ] = Device.AUTO,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; all cores if not given.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the events, one JSON object a line.")
    ] = False,
) -> None:
    """Train a model on a dataset, and judge it on images that had no part in it.

    A run that broke off, by Ctrl-C or a crash, goes on from its last epoch when the same command is given
    again. Writes OUT/bundle (the model), OUT/results.json, OUT/split.json and OUT/history.jsonl.
    """
    from sonoloop.cli.train import TrainingReport  # noqa: PLC0415
    from sonoloop.jobs.training import training_events  # noqa: PLC0415 - `--help` loads none of these

    folder = out or Path("runs") / Path(recipe).stem
    if resume and not (folder / "checkpoint.pt").is_file():
        raise SonoloopError(f"{folder} holds no checkpoint to go on from; leave --resume out to begin")
    arguments: list[object] = [recipe, "--data", data, "--out", folder, "--device", device.value]
    changes = [*(settings or [])]
    if seed is not None:
        changes.append(f"fit.seed={seed}")
    for change in changes:
        arguments += ["--set", change]
    if fold is not None:
        arguments += ["--fold", fold]
    if leaky:
        arguments.append("--leaky")
    if max_minutes is not None:
        arguments += ["--max-minutes", max_minutes]
    if threads is not None:
        arguments += ["--threads", threads]
    if show_augment:
        arguments += ["--show-augment", folder / "augmentation.png"]
    report = TrainingReport(folder, as_json=as_json)
    try:
        with report:
            for event in training_events("train", arguments):
                _tell(report, event, as_json=as_json)
    except KeyboardInterrupt:
        report.notice("sonoloop: interrupted; the same command goes on from the last epoch")
        raise typer.Exit(130) from None


def _tell(report: TrainingReport, event: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
    else:
        report.tell(event)
