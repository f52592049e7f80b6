"""The `sonoloop` command: its subcommands, and where their errors become messages and exit codes."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pkgutil import resolve_name
from typing import Annotated

import typer

from sonoloop import __version__
from sonoloop.cli.console import let_go_of, print_error
from sonoloop.errors import SonoloopError, describe_system_error
from sonoloop.library_noise import only_ours_told

# a new one is a file with its function (or a Typer of several), and a line here
COMMANDS = {
    "predict": "sonoloop.cli.predict:predict",
    "open": "sonoloop.cli.open:open_images",
    "annotate": "sonoloop.cli.annotate:annotate",
    "samples": "sonoloop.cli.samples:samples",
    "train": "sonoloop.cli.train:train",
    "evaluate": "sonoloop.cli.evaluate:evaluate",
    "import": "sonoloop.cli.import_:import_masks",
    "finetune": "sonoloop.cli.finetune:finetune",
    "gate": "sonoloop.cli.gate:gate",
    "calibrate": "sonoloop.cli.calibrate:calibrate",
    "data": "sonoloop.cli.data:data",
    "models": "sonoloop.cli.models:models",
    "store": "sonoloop.cli.store:store",
}


def make_app(names: Iterable[str] = ()) -> typer.Typer:
    """Put commands together, all of them unless named; each takes time to load."""
    app = typer.Typer(
        name="sonoloop",
        help="Breast ultrasound: propose a lesion mask and a class. "
        "For research use only, not for diagnosis.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for name in names or COMMANDS:
        command = resolve_name(COMMANDS[name])
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def main() -> int:
    """Run the command line; what a user can meet becomes a message and an exit code here."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a file's name may hold what the terminal's encoding does not
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:  # it was closed by whoever started us: printing fails, as it should
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    code = 0
    try:
        _refuse_blanks(sys.argv[1:])
        with only_ours_told():
            named = [name for name in sys.argv[1:2] if name in COMMANDS]
            make_app(named)()
    except SystemExit as ended:
        code = _code_of(ended)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = 1
    except SonoloopError as error:
        print_error(str(error))
        code = 2
    except (OSError, MemoryError) as error:
        print_error(describe_system_error(error))
        code = 2
    printed = let_go_of(sys.stdout)
    let_go_of(sys.stderr)
    return code or int(not printed)


def _refuse_blanks(arguments: Sequence[str]) -> None:
    """Refuse what a shell makes of a variable that is not set: as a path it would be the folder one is in."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if not argument or re.fullmatch(r"--[a-z-]+=", argument):
            what = argument or before
            after = f" ({what.rstrip('=')})" if what.startswith("--") else ""
            raise SonoloopError(f"an argument is empty{after}; give a value, or leave it out")


def _code_of(ended: SystemExit) -> int:
    if ended.code is None or isinstance(ended.code, int):
        return ended.code or 0
    print_error(str(ended.code))
    return 1


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
