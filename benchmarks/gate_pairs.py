"""Really trained pairs of models for the gate: better, equal, worse, and taught by spoilt corrections.

python benchmarks/gate_pairs.py --data FOLDER --base-data FOLDER --base BUNDLE --work FOLDER [--curve FOLDER]

Each model but the base is the base fine-tuned on the same 80 corrections of BUS-BRA patients, as
`learning_curve.py` does it. With --curve, the folder of its runs, the models that it tuned on 80 corrections
each, of other patients by another seed, are pairs too, both ways. Writes WORK/scores/MODEL.jsonl, a line an
image of patients that trained none of them, and WORK/scores/pairs.json, which `gate_error_rates.py` reads.
What is there is not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learning_curve import SPLIT, divide, ordered, read_runs, score, tune
from scipy import ndimage
from score_models import mislabel

from sonoloop.values import ClassName
from sonoloop_training.datasets import find_datasets
from sonoloop_training.splits import apply_split

COUNT = 80
Said = tuple[np.ndarray, ClassName]
Correct = Callable[[int, np.ndarray, ClassName], Said]

PAIRS = [
    {"incumbent": "base", "candidate": "clean", "kind": "better"},
    {"incumbent": "clean", "candidate": "seed", "kind": "another seed"},
    {"incumbent": "seed", "candidate": "clean", "kind": "another seed"},
    {"incumbent": "clean", "candidate": "base", "kind": "worse"},
    {
        "incumbent": "clean",
        "candidate": "fifth-spoilt",
        "kind": "a fifth shifted, eroded or swapped",
    },
    {"incumbent": "clean", "candidate": "dilated", "kind": "every mask two pixels too large"},
    {"incumbent": "clean", "candidate": "bad-reader", "kind": "half by a reader who draws boxes"},
    {"incumbent": "clean", "candidate": "flipped", "kind": "benign and malignant exchanged"},
    # judged by test labels a fifth of which are another image's
    {"incumbent": "base", "candidate": "clean", "kind": "better", "labels": "swapped"},
    {"incumbent": "clean", "candidate": "seed", "kind": "another seed", "labels": "swapped"},
    {"incumbent": "clean", "candidate": "base", "kind": "worse", "labels": "swapped"},
]
SHARE = 0.2


def main() -> None:
    """Train and score what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base-data", type=Path, required=True, help="BUSI alone")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--curve", type=Path, help="where learning_curve.py worked")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    options = parser.parse_args()
    options.no_replay = False
    torch.set_num_threads(options.threads)
    judges, home, patients = divide(apply_split(SPLIT, find_datasets(options.data)))
    chosen = ordered(patients, "random", 0, options.base)[:COUNT]
    spoilers: dict[str, tuple[int, Correct]] = {
        "clean": (0, lambda _, mask, label: (mask, label)),
        "seed": (1, lambda _, mask, label: (mask, label)),
        "fifth-spoilt": (0, a_fifth_spoilt([sample.read()[1] for sample in chosen])),
        "dilated": (0, lambda _, mask, label: (ndimage.binary_dilation(mask, iterations=2), label)),
        "bad-reader": (0, bad_reader),
        "flipped": (0, flipped),
    }
    scores = options.work / "scores"
    scores.mkdir(parents=True, exist_ok=True)
    pairs = PAIRS if options.curve is None else PAIRS + pair_curve(scores, read_runs(options.curve))
    (scores / "pairs.json").write_text(json.dumps(pairs, indent=1) + "\n", encoding="utf-8")
    for name in ("base", *spoilers):
        endings = {""} | {pair["labels"] for pair in PAIRS if name in pair.values() and "labels" in pair}
        paths = {ending: scores / f"{name}{ending and '.'}{ending}.jsonl" for ending in sorted(endings)}
        if all(path.is_file() for path in paths.values()):
            continue
        bundle = options.base
        if name in spoilers:
            seed, correct = spoilers[name]
            bundle, _ = tune(name, chosen, seed, options, correct=correct)
        for ending, path in paths.items():
            places = [mislabel(some, ending, SHARE, 0) if ending else some for some in (judges, home)]
            write_scores(path, score(bundle, *places))
        print(name, flush=True)


def write_scores(path: Path, figures: Mapping[str, Any]) -> None:
    """Write what a model did, an image a line."""
    lines = [json.dumps(row) for place in ("away", "home") for row in figures[place]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def pair_curve(scores: Path, runs: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Write the scores of the curve's models, and pair them both ways."""
    wanted = ("default", "random", COUNT)
    found = [run for run in runs if (run["arm"], run.get("order"), run["count"]) == wanted]
    for run in found:
        write_scores(scores / f"{run['name']}.jsonl", run)
    names = sorted(run["name"] for run in found)
    kind = "other patients, another seed"
    return [{"incumbent": a, "candidate": b, "kind": kind} for a, b in permutations(names, 2)]


def a_fifth_spoilt(masks: list[np.ndarray]) -> Correct:
    """Spoil every fifth mask: shifted by a quarter of its width, eroded to half, or another image's."""

    def correct(number: int, mask: np.ndarray, label: ClassName) -> Said:
        if number % 5:
            return mask, label
        way = number // 5 % 3
        if way == 0:
            return ndimage.shift(mask, (0, np.ptp(np.flatnonzero(mask.any(0))) // 4 + 1), order=0), label
        if way == 1:
            depth = ndimage.distance_transform_edt(mask)
            return depth > np.median(depth[mask]), label
        other = masks[(number + 1) % len(masks)]
        zoom = [n / m for n, m in zip(mask.shape, other.shape, strict=True)]
        return ndimage.zoom(other, zoom, order=0), label

    return correct


def bad_reader(number: int, mask: np.ndarray, label: ClassName) -> Said:
    """Draw a box around every other lesion, a fifth too wide and too high."""
    if number % 2:
        return mask, label
    box = np.zeros_like(mask)
    (top, bottom), (left, right) = (np.flatnonzero(mask.any(axis))[[0, -1]] for axis in (1, 0))
    down, across = (bottom - top) // 10 + 1, (right - left) // 10 + 1
    box[max(0, top - down) : bottom + down, max(0, left - across) : right + across] = True
    return box, label


def flipped(_: int, mask: np.ndarray, label: ClassName) -> Said:
    """Take benign for malignant, and malignant for benign."""
    other: dict[ClassName, ClassName] = {"benign": "malignant", "malignant": "benign", "normal": "normal"}
    return mask, other[label]


if __name__ == "__main__":
    main()
