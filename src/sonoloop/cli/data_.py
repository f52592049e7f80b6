"""`sonoloop data`: what a dataset holds, and how to unpack one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    from sonoloop.cli.data import CheckReport  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.jobs.training import training_events  # noqa: PLC0415

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
    from sonoloop.cli.data import CheckReport  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.jobs.training import training_events  # noqa: PLC0415

    report = CheckReport(as_json=False)
    try:
        with report:
            for event in training_events("unpack", [source, "--out", out]):
                report.tell(event)
    except KeyboardInterrupt:
        report.notice("sonoloop: interrupted")
        raise typer.Exit(130) from None
