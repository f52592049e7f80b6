"""Score models image by image, for `gate_error_rates.py`.

    python benchmarks/score_models.py --data FOLDER --out FOLDER --model NAME=BUNDLE [--model ...]
        [--groups N] [--truth as-is|shifted|eroded|swapped] [--share 0.2] [--seed 0] [--threads N]

Writes OUT/NAME.jsonl, a line an image: frame, group, label, lesion, dice, claimed, malignant. Images that
trained one of the models, near copies of them and their patients are left out for all. With --truth a share
of the images with a lesion, drawn once for all models, is judged by a wrong mask: moved by a fifth of its
size, shrunk to about half its area, or another image's; the files are then called NAME.TRUTH.jsonl.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from sonoloop.jobs.events import Progress, Unreadable
from sonoloop.leakage import find_leaks
from sonoloop.models.predictor import Predictor
from sonoloop.store.metrics import FrameScore
from sonoloop.values import Frame
from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.evaluation.scores import Score, assess
from sonoloop_training.evaluation.summary import load_model

TRUTHS = ("as-is", "shifted", "eroded", "swapped")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mislabelled(Sample):
    """A sample that is read with a wrong mask; `other` is where a swapped one comes from."""

    how: str
    other: Sample

    def read(self) -> tuple[Frame, NDArray[np.bool_]]:
        """Read the frame, and a mask that is not its own or not where it was."""
        frame, mask = Sample.read(self)
        return frame, spoil(mask, self.how, self.other)


def spoil(mask: NDArray[np.bool_], how: str, other: Sample) -> NDArray[np.bool_]:
    """Make a wrong mask (H, W) of a right one."""
    rows, columns = (s.stop - s.start for s in ndimage.find_objects(mask.astype(np.uint8))[0])
    if how == "shifted":
        return np.asarray(ndimage.shift(mask.astype(np.uint8), (rows / 5, columns / 5), order=0) > 0)
    if how == "eroded":
        # a margin of a seventh of the shorter side leaves about half of an ellipse
        eroded = ndimage.binary_erosion(mask, iterations=max(1, round(min(rows, columns) / 7)))
        return np.asarray(eroded if eroded.any() else mask)
    _, foreign = Sample.read(other)
    scale = [here / there for here, there in zip(mask.shape, foreign.shape, strict=True)]
    swapped = ndimage.zoom(foreign.astype(np.uint8), scale, order=0)[: mask.shape[0], : mask.shape[1]]
    padded = np.zeros(mask.shape, np.bool_)
    padded[: swapped.shape[0], : swapped.shape[1]] = swapped > 0
    return padded


def mislabel(samples: list[Sample], how: str, share: float, seed: int) -> list[Sample]:
    """Give a share of the samples with a lesion a wrong mask."""
    rng = np.random.default_rng(seed)
    places = rng.permutation([place for place, sample in enumerate(samples) if sample.label != "normal"])
    chosen = places[: round(share * len(places))]
    spoiled = list(samples)
    for place, other in zip(chosen, np.roll(chosen, 1), strict=True):
        values = {field.name: getattr(samples[place], field.name) for field in dataclasses.fields(Sample)}
        spoiled[place] = Mislabelled(**values, how=how, other=samples[other])
    return spoiled


def choose_groups(samples: list[Sample], count: int, seed: int) -> list[Sample]:
    """Keep whole groups, `count` of them at random; all where it is 0."""
    groups = sorted({sample.group for sample in samples})
    if count:
        groups = np.random.default_rng(seed).permutation(groups)[:count].tolist()
    kept = set(groups)
    return [sample for sample in samples if sample.group in kept]


def main() -> None:
    """Score, and write a file a model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", action="append", required=True, metavar="NAME=BUNDLE")
    parser.add_argument("--groups", type=int, default=0)
    parser.add_argument("--truth", choices=TRUTHS, default="as-is")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--views", type=int, choices=(1, 2, 4))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    named = dict(text.split("=", 1) for text in options.model)
    models = {name: load_model(folder) for name, folder in named.items()}
    samples = choose_groups(find_datasets(options.data), options.groups, options.seed)
    if options.truth != "as-is":
        samples = mislabel(samples, options.truth, options.share, options.seed)
    predictors = [
        Predictor(model.bundle, device=options.device, views=options.views) for model in models.values()
    ]
    found = watch(assess(samples, predictors, identified=True, stage="Scoring"))
    trained = {
        leak.image
        for model in models.values()
        if model.split is not None
        for leak in find_leaks(found.listed, model.split.train)
    }
    unknown = [name for name, model in models.items() if model.split is None]
    if unknown:
        sys.stderr.write(f"these do not say who trained them: {', '.join(unknown)}\n")
    options.out.mkdir(parents=True, exist_ok=True)
    for name, scores in zip(models, found.scores, strict=True):
        kept = [score for score in scores if score.key not in trained]
        lines = [json.dumps(dataclasses.asdict(frame_score(score))) for score in kept]
        ending = "" if options.truth == "as-is" else f".{options.truth}"
        (options.out / f"{name}{ending}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(found.listed) - len(trained)} images by {len(models)} models, {len(trained)} left out")


def frame_score(score: Score) -> FrameScore:
    """Keep of a score what the gate asks."""
    return FrameScore(
        frame=score.key,
        group=score.group,
        label=score.label,
        lesion=score.lesion,
        dice=score.dice,
        claimed=score.claimed,
        malignant=score.malignant,
    )


def watch(events: Any) -> Any:  # noqa: ANN401 - whatever the job gives
    """Run a job, its progress on standard error, and give its result."""
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        if isinstance(event, Unreadable):
            sys.stderr.write(f"\n{event.image}: {event.error}\n")
        elif isinstance(event, Progress):
            sys.stderr.write(f"\r{event.stage}: {event.done} of {event.total} ")


if __name__ == "__main__":
    main()
