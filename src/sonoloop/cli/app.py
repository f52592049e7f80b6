"""The `sonoloop` command: its subcommands, and where their errors become messages and exit codes."""

from __future__ import annotations

import io
import sys
from pkgutil import resolve_name
from typing import Annotated

import typer

from sonoloop import __version__
from sonoloop.errors import SonoloopError

# a new one is a file with its function (or a Typer of several), and a line here
COMMANDS = {
    "predict": "sonoloop.cli.predict:predict",
    "open": "sonoloop.cli.open:open_images",
    "samples": "sonoloop.cli.samples:samples",
    "train": "sonoloop.cli.train:train",
    "evaluate": "sonoloop.cli.evaluate:evaluate",
    "import": "sonoloop.cli.import_:import_masks",
    "finetune": "sonoloop.cli.finetune:finetune",
    "gate": "sonoloop.cli.gate:gate",
    "data": "sonoloop.cli.data:data",
    "models": "sonoloop.cli.models:models",
    "store": "sonoloop.cli.store:store",
}


def make_app() -> typer.Typer:
    """Put the commands together."""
    app = typer.Typer(
        name="sonoloop",
        help="Breast ultrasound: propose a lesion mask and a class. "
        "For research use only, not for diagnosis.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for name, place in COMMANDS.items():
        command = resolve_name(place)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def main() -> int:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a file's name may hold what the terminal's encoding does not
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        make_app()()
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


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Take what holds for every subcommand."""
