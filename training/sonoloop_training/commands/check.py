"""``check``: what a dataset holds, and what must be mended before it trains."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from sonoloop.jobs.events import Event

HELP = "say what a dataset holds and what must be mended before it trains"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("data", type=Path, help="folder with one dataset or several")
    parser.add_argument("--out", type=Path, help="takes report.html and groups.json; DATA-check if not given")


def run(options: argparse.Namespace) -> Iterator[Event]:
    """Check; see `sonoloop_training.checking.report.check`."""
    from sonoloop_training.checking.report import check  # noqa: PLC0415 - as the other commands

    yield from check(options.data, options.out)
