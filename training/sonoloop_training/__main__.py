"""``python -m sonoloop_training COMMAND ...``: one JSON event a line on standard output.

The command line and the panels start this with ``--request JSON`` and read the events; so can any other
runner. Whoever types it gives each of a request's fields as a flag; see `sonoloop.jobs.request`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from sonoloop.jobs.events import failure
from sonoloop.jobs.request import FinetuneRequest, Request, asked_of, read_request
from sonoloop.library_noise import only_ours_told
from sonoloop_training.commands import COMMANDS


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 when it is done, 1 when it failed, 130 when it was interrupted."""
    with only_ours_told():
        return _run(arguments)


def _run(arguments: list[str] | None) -> int:
    # under torchrun every process runs this, and the first speaks for all
    speaks = os.environ.get("RANK", "0") == "0"
    try:
        request = read_arguments(sys.argv[1:] if arguments is None else arguments)
        end = _end_once()
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, end)
        for event in COMMANDS[type(request)](request):
            if speaks:
                try:
                    _say(event.to_json())
                except BrokenPipeError:
                    # what a fine-tuning tells is in its folder too
                    if not isinstance(request, FinetuneRequest):
                        raise
                    speaks = False
                    _let_go_of_reader()
    except (Exception, KeyboardInterrupt) as error:
        failed = failure(error)
        if speaks:
            try:
                _say(failed.to_json())
            except BrokenPipeError:
                _let_go_of_reader()
        else:
            sys.stderr.write(f"process {os.environ.get('RANK', '0')}: {failed.error}\n")
        if failed.kind == "unforeseen":
            # whoever reads the events learns of it, the traceback goes to standard error
            raise
        return 130 if failed.kind == "interrupted" else 1
    return 0


def read_arguments(arguments: Sequence[str]) -> Request:
    """Read a command and its request, as JSON or as flags that are made from its fields."""
    kinds = {kind.command: kind for kind in COMMANDS}
    match arguments:
        case [command, "--request", text] if command in kinds:
            return read_request(kinds[command], text)
    parser = argparse.ArgumentParser(prog="python -m sonoloop_training", description="Make Sonoloop models.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, kind in kinds.items():
        about, nothing = kind.about, argparse.SUPPRESS
        parser_of = commands.add_parser(command, help=about, description=about, argument_default=nothing)
        _add_options(parser_of, kind)
    given = vars(parser.parse_args(arguments))
    kind = kinds[given.pop("command")]
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def _add_options(parser: argparse.ArgumentParser, kind: type[Request]) -> None:
    for asked in asked_of(kind):
        option = asked.option
        if option.argument:
            count = "*" if asked.repeated else None if asked.required else "?"
            parser.add_argument(
                asked.name, type=asked.kind, nargs=count, metavar=option.metavar, help=option.help
            )
        elif asked.kind is bool:
            on, _, off = option.flag.partition("/")
            action = argparse.BooleanOptionalAction if off else "store_true"
            parser.add_argument(on, dest=asked.name, action=action, help=option.help)
        else:
            parser.add_argument(
                option.flag,
                dest=asked.name,
                type=asked.kind,
                action="append" if asked.repeated else "store",
                choices=asked.choices or None,
                required=asked.required,
                metavar=option.metavar,
                help=option.help,
            )


def _end_once() -> Callable[[int, FrameType | None], None]:
    """Make what ends the process as Ctrl-C does: at once, and what is done stays."""
    told = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal told
        # the terminal and whoever started this may both tell it: the second must not disturb the ending
        if not told:
            told = True
            raise KeyboardInterrupt

    return end


def _let_go_of_reader() -> None:
    # what is still in the buffer would be written when the process ends, and fail again
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
