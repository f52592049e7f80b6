"""``unpack``: a dataset as downloaded to a plain folder."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from sonoloop.jobs.events import Event

HELP = "unpack a dataset as downloaded: BUSI's zip file, or Hugging Face's Parquet files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument(
        "source", type=Path, help="a zip file, a Parquet file, or a folder with Parquet files"
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")


def run(options: argparse.Namespace) -> Iterator[Event]:
    """Unpack; see `sonoloop_training.datasets.unpack.unpack`."""
    from sonoloop_training.datasets.unpack import unpack  # noqa: PLC0415 - as the other commands

    yield from unpack(options.source, options.out)
