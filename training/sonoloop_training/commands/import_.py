"""``import``: existing masks into a store, as corrections."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from sonoloop.jobs.events import Event

HELP = "bring a dataset's masks into a store as corrections"
FORMATS = ("busi", "busbra")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("folder", type=Path, help="the dataset's folder")
    parser.add_argument("--format", choices=FORMATS, required=True, help="how the dataset is laid out")
    parser.add_argument("--annotator", metavar="NAME", help="who drew the masks; the dataset unless given")
    parser.add_argument(
        "--split", choices=("auto", "train", "test"), default="auto", help="the role of new groups"
    )
    parser.add_argument("--store", metavar="URL", help="the corrections; the default store unless given")


def run(options: argparse.Namespace) -> Iterator[Event]:
    """Import; see `sonoloop_training.importing.import_dataset`."""
    from sonoloop_training.importing import import_dataset  # noqa: PLC0415 - as the other commands

    yield from import_dataset(
        options.folder,
        options.format,
        store=options.store,
        annotator=options.annotator,
        role=None if options.split == "auto" else options.split,
    )
