"""``evaluate``: a model and data to figures and a report."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from sonoloop.jobs.events import Event

HELP = "judge a model, or compare two, on images with known masks and classes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("--data", type=Path, required=True, help="folder with one dataset or several")
    parser.add_argument("--model", help="name or folder of a model; the shipped one unless given")
    parser.add_argument("--versus", help="another model, to compare with the first")
    parser.add_argument("--part", choices=("all", "validation", "test"), default="all")
    parser.add_argument(
        "--split", type=Path, help="split.json that says the parts, where the model's does not"
    )
    parser.add_argument("--out", type=Path, help="folder to write to; evaluation/MODEL-PART unless given")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--views", type=int, choices=(1, 2, 4), help="the model's own unless given")
    parser.add_argument("--batch", type=int, default=8, help="images at a time")


def run(options: argparse.Namespace) -> Iterator[Event]:
    """Evaluate; see `sonoloop_training.evaluation.evaluate`."""
    from sonoloop_training.evaluation.evaluate import EvaluationRequest, evaluate  # noqa: PLC0415 - seconds to import

    yield from evaluate(
        EvaluationRequest(
            data=options.data,
            model=options.model,
            versus=options.versus,
            part=options.part,
            split=options.split,
            out=options.out,
            device=options.device,
            views=options.views,
            batch=options.batch,
        )
    )
