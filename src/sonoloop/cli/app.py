"""The `sonoloop` command: its subcommands, and where their errors become messages and exit codes."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from sonoloop import __version__
from sonoloop.cli.data import data
from sonoloop.cli.evaluate import evaluate
from sonoloop.cli.finetune import finetune
from sonoloop.cli.gate import gate
from sonoloop.cli.import_ import import_masks
from sonoloop.cli.models import models
from sonoloop.cli.open import open_images
from sonoloop.cli.predict import predict
from sonoloop.cli.samples import samples
from sonoloop.cli.store import store
from sonoloop.cli.train import train
from sonoloop.errors import SonoloopError

app = typer.Typer(
    name="sonoloop",
    help="Breast ultrasound: propose a lesion mask and a class. For research use only, not for diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("predict")(predict)
app.command("open")(open_images)
app.command("samples")(samples)
app.command("train")(train)
app.command("evaluate")(evaluate)
app.command("import")(import_masks)
app.command("finetune")(finetune)
app.command("gate")(gate)
app.add_typer(data, name="data")
app.add_typer(models, name="models")
app.add_typer(store, name="store")


def main() -> int:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a file's name may hold what the terminal's encoding does not
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except SonoloopError as error:
        print(f"sonoloop: {error}", file=sys.stderr)  # noqa: T201 - the command's answer
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sonoloop {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Take what holds for every subcommand."""
