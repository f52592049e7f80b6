"""``finetune``: a store's corrections to a better model, or to none."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sonoloop.jobs.events import Event

HELP = "learn from a store's corrections, and have the new model judged"
# whoever reads the events may leave: they are in the job's folder too
OUTLIVES_READER = True

_LESS_URGENT = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("--store", metavar="URL", help="the corrections; the default store unless given")
    parser.add_argument("--snapshot", metavar="NAME", help="learn from it; one is taken unless given")
    parser.add_argument(
        "--from", dest="start", metavar="MODEL", help="start from it; the model in use unless given"
    )
    parser.add_argument(
        "--job", type=Path, metavar="DIR", help="work in this folder; goes on with what broke off there"
    )
    parser.add_argument("--base-data", type=Path, metavar="DIR", help="the data that trained the model")
    parser.add_argument("--recipe", help="a shipped recipe's name, or a TOML file; finetune unless given")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--max-minutes", type=float, help="make fewer epochs where time does not suffice")
    parser.add_argument("--promote", action="store_true", help="use the new model if the gate says so")
    parser.add_argument("--no-gate", action="store_true", help="only make the model; nobody judges it")
    parser.add_argument("--who", metavar="NAME", help="pseudonym of whoever starts it")
    parser.add_argument("--skip-missing", action="store_true", help="go on without images that are gone")
    parser.add_argument("--device", help="auto, cpu, cuda or mps; auto unless given")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores unless given")


def run(options: argparse.Namespace) -> Iterator[Event]:
    """Fine-tune; see `sonoloop_training.finetune.run.finetune`."""
    # the machine is the annotator's first
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(_LESS_URGENT)
    import torch  # noqa: PLC0415 - after the arguments are known to be right

    from sonoloop_training.finetune.request import Request  # noqa: PLC0415
    from sonoloop_training.finetune.run import finetune  # noqa: PLC0415

    if options.threads:
        torch.set_num_threads(options.threads)
    request = Request(
        store=options.store,
        job=options.job,
        snapshot=options.snapshot,
        start=options.start,
        base_data=options.base_data,
        recipe=options.recipe,
        settings=tuple(options.settings),
        max_minutes=options.max_minutes,
        promote=options.promote,
        skip_missing=options.skip_missing,
        device=options.device,
        threads=options.threads,
        judged=not options.no_gate,
        who=options.who,
    )
    yield from finetune(request)
