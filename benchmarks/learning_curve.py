"""What a few corrections teach at another hospital, and what they cost at home.

python benchmarks/learning_curve.py --data FOLDER --base-data FOLDER --base BUNDLE --both BUNDLE --work FOLDER

--data holds BUSI and BUS-BRA. The base was trained on BUSI alone, the other model on both sets, each
by the same split, so that BUS-BRA's validation and test patients and BUSI's test groups are new to both.
BUS-BRA's masks of training patients stand for an annotator's corrections: they go into a store, one image a
patient, and `sonoloop finetune` runs on it as it does for a user. The patients come in random order, or as a
review lists them: of a random pool those first of which the base expects the lowest Dice.

A run is a line in WORK/runs.jsonl, with the Dice of every image; what is there is not made again.
`learning_curve_results.py` sums them up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sonoloop.jobs.events import drain
from sonoloop.models.bundle import read_bundle
from sonoloop.models.postprocess import number_lesions
from sonoloop.models.predictor import Predictor
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.file_index import Places
from sonoloop.store.groups import place_frame
from sonoloop.values import ClassName, Correction
from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.evaluation.scores import assess
from sonoloop_training.splits import Part, SplitConfig, apply_split

COUNTS = (5, 10, 20, 40, 80)
ORDERS = ("random", "review")
POOL = 200
SPLIT = SplitConfig(validation=0.08, test=0.1, key="sonoloop")


def main() -> None:
    """Make the runs that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base-data", type=Path, required=True, help="BUSI alone")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--both", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--orders", nargs="+", default=ORDERS, choices=ORDERS)
    parser.add_argument("--arm", default="default", help="what to call these settings")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--no-replay", action="store_true", help="as where the base's data are not at hand")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    make_runs(options)


def make_runs(options: argparse.Namespace) -> None:
    """Make the runs that are not there yet."""
    away, home, patients = divide(apply_split(SPLIT, find_datasets(options.data)))
    done = {run["name"] for run in read_runs(options.work)}
    options.work.mkdir(parents=True, exist_ok=True)
    for name, bundle in (("base", options.base), ("both", options.both)):
        if name not in done:
            keep(options.work, {"name": name, "arm": name, "count": 0} | score(bundle, away, home))
    for seed in options.seeds:
        for order in options.orders:
            queue: list[Sample] | None = None
            for count in options.counts:
                name = f"{options.arm}-{order}-{seed}-{count}"
                if name in done:
                    continue
                queue = queue or ordered(patients, order, seed, options.base)
                started = time.monotonic()
                bundle, seconds = tune(name, queue[:count], seed, options)
                figures = score(bundle, away, home)
                facts = {"name": name, "arm": options.arm, "order": order, "seed": seed, "count": count}
                keep(options.work, facts | {"seconds": seconds, "settings": options.settings} | figures)
                print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


def divide(parts: Mapping[Part, Sequence[Sample]]) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """Give those that judge at the other hospital and at home, and the first image of each new patient."""
    away = [s for part in ("validation", "test") for s in parts[part] if s.dataset == "busbra"]
    home = [s for s in parts["test"] if s.dataset == "busi"]
    first: dict[str, Sample] = {}
    for sample in sorted(parts["train"], key=lambda s: s.name):
        if sample.dataset == "busbra":
            first.setdefault(sample.group, sample)
    return away, home, list(first.values())


def ordered(samples: Sequence[Sample], order: str, seed: int, base: Path) -> list[Sample]:
    """Put the patients in the order in which they are corrected."""
    pool = [samples[i] for i in np.random.default_rng(seed).permutation(len(samples))[:POOL]]
    if order == "random":
        return pool
    predictor = Predictor(read_bundle(base), device="cpu")
    frames = [sample.read()[0] for sample in pool]
    expected = [prediction.expected_dice for prediction in predictor.predict_batch(frames)]
    return [pool[i] for i in np.argsort(expected, kind="stable")]


def tune(
    name: str,
    samples: Sequence[Sample],
    seed: int,
    options: argparse.Namespace,
    *,
    correct: Callable[[int, np.ndarray, ClassName], tuple[np.ndarray, ClassName]] = lambda _, *said: said,
) -> tuple[Path, float]:
    """Put the corrections into a store, fine-tune as a user does, and give the bundle and the seconds.

    `correct` may say something else than the reference, by the image's number, its mask and its class.
    """
    folder = options.work / name
    folder.mkdir(parents=True, exist_ok=True)
    url = folder / "corrections.sqlite"
    with CorrectionStore(url) as store:
        places = Places(store.url)
        for number, sample in enumerate(samples):
            frame, mask = sample.read()
            mask, label = correct(number, mask, sample.label)
            if store.head(frame.id, "reference") is not None:
                continue
            place_frame(store, frame, patient=sample.patient, role="train")
            places.remember(frame.id, sample.image, pixels_hash=frame.pixels_hash)
            correction = Correction(
                frame_id=frame.id,
                pixels_hash=frame.pixels_hash,
                mask=number_lesions(mask.astype(np.float32), threshold=0.5, min_area=0.0),
                label=label,
                annotator="reference",
            )
            store.accept(correction, parent=None)
    job = folder / "job"
    command = [sys.executable, "-m", "sonoloop_training", "finetune", "--store", str(url), "--job", str(job)]
    command += ["--from", str(options.base), "--threads", str(options.threads), "--who", "benchmark"]
    if not options.no_replay:
        command += ["--base-data", str(options.base_data)]
    for setting in (f"fit.seed={seed}", *options.settings):
        command += ["--set", setting]
    # models that a benchmark makes do not belong among a user's own
    environment = os.environ | {"XDG_DATA_HOME": str((folder / "data").absolute())}
    started = time.monotonic()
    with (folder / "events.jsonl").open("w") as log:
        subprocess.run(command, check=True, stdout=log, env=environment)
    told = [json.loads(line) for line in (folder / "events.jsonl").read_text("utf-8").splitlines()]
    return Path(told[-1]["path"]), round(time.monotonic() - started, 1)


def score(bundle: Path, away: Sequence[Sample], home: Sequence[Sample]) -> dict[str, Any]:
    """Score a model at both hospitals: each image's group, whether it has a lesion, and its Dice."""
    predictor = Predictor(read_bundle(bundle), device="cpu")
    figures = {}
    for place, samples in (("away", away), ("home", home)):
        scores = drain(assess(samples, [predictor], identified=False, stage=place)).scores[0]
        figures[place] = [
            {"frame": s.key, "group": s.group, "label": s.label, "lesion": s.lesion, "dice": round(s.dice, 4)}
            | {"claimed": s.claimed, "malignant": round(s.malignant, 4)}
            for s in scores
        ]
    return figures


def keep(work: Path, run: Mapping[str, Any]) -> None:
    """Add a run to those that are done."""
    with (work / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(run) + "\n")


def read_runs(work: Path) -> list[dict[str, Any]]:
    """Read the runs that are done."""
    path = work / "runs.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
