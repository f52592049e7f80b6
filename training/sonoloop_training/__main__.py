"""``python -m sonoloop_training COMMAND ...``: one JSON event a line on standard output.

The command line and the panels start this as a process and read the events; so can any other runner.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from keyword import iskeyword
from types import FrameType, ModuleType

from sonoloop.errors import SonoloopError
from sonoloop.jobs.events import Failed

COMMANDS = ("train", "finetune", "gate", "evaluate", "import", "unpack", "check")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 when it is done, 1 when it failed, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m sonoloop_training", description="Make Sonoloop models.")
    choices = parser.add_subparsers(dest="command", required=True)
    modules: dict[str, ModuleType] = {}
    for name in COMMANDS:
        module = import_module(f"sonoloop_training.commands.{name}{'_' * iskeyword(name)}")
        module.add_arguments(choices.add_parser(name, help=module.HELP, description=module.HELP))
        modules[name] = module
    options = parser.parse_args(arguments)

    end = _end_once()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
    # under torchrun every process runs this, and the first speaks for all
    speaks = os.environ.get("RANK", "0") == "0"
    outlives = getattr(modules[options.command], "OUTLIVES_READER", False)
    try:
        for event in modules[options.command].run(options):
            if speaks:
                try:
                    _say(event.to_json())
                except BrokenPipeError:
                    if not outlives:
                        raise
                    speaks = False
                    _let_go_of_reader()
    except SonoloopError as error:
        _fail(str(error), speaks=speaks)
        return 1
    except ImportError as error:
        _fail(f'{error}; training needs: pip install "napari-sonoloop[train]"', speaks=speaks)
        return 1
    except Exception as error:
        # whoever reads the events learns of it, the traceback goes to standard error
        _fail(f"{type(error).__name__}: {error}", speaks=speaks)
        raise
    except KeyboardInterrupt:
        _fail("interrupted", speaks=speaks)
        return 130
    return 0


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


def _fail(message: str, *, speaks: bool) -> None:
    if speaks:
        _say(Failed(error=message).to_json())
    else:
        sys.stderr.write(f"process {os.environ.get('RANK', '0')}: {message}\n")


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
