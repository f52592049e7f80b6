"""What a few corrections teach at another hospital, and what they cost at home.

python benchmarks/learning_curve.py run --data FOLDER --base BUNDLE --both BUNDLE --work FOLDER
python benchmarks/learning_curve.py summarise --work FOLDER

FOLDER of `run` holds BUSI and BUS-BRA. The base was trained on BUSI alone, the other model on both sets, each
by the same split, so that BUS-BRA's validation and test patients and BUSI's test groups are new to both.
BUS-BRA's masks of training patients stand for an annotator's corrections: they go into a store, one image a
patient, and `sonoloop finetune` runs on it as it does for a user. The patients come in random order, or as a
review lists them: of a random pool those first of which the base expects the lowest Dice.

A run is a line in WORK/runs.jsonl, with the Dice of every image; what is there is not made again.
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

from sonoloop.labels.bootstrap import draw_groups, percentile_interval
from sonoloop.labels.groups import place_frame
from sonoloop.labels.places import Places
from sonoloop.labels.store import CorrectionStore
from sonoloop.models.bundle import read_bundle
from sonoloop.models.lesions import number_lesions
from sonoloop.models.predictor import Predictor
from sonoloop.values import ClassName, Correction
from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.evaluation.assess import assess
from sonoloop_training.events import drain
from sonoloop_training.splits import Part, SplitConfig, apply_split

COUNTS = (5, 10, 20, 40, 80)
ORDERS = ("random", "review")
POOL = 200
RESULTS = Path(__file__).parent / "results" / "learning_curve.json"
PLOT = Path(__file__).parents[1] / "docs" / "images" / "learning-curve.png"
SPLIT = SplitConfig(validation=0.08, test=0.1, key="sonoloop")


def main() -> None:
    """Run what is missing, or sum up what is there."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--data", type=Path, required=True)
    run.add_argument("--base-data", type=Path, required=True, help="BUSI alone")
    run.add_argument("--base", type=Path, required=True)
    run.add_argument("--both", type=Path, required=True)
    run.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    run.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    run.add_argument("--orders", nargs="+", default=ORDERS, choices=ORDERS)
    run.add_argument("--arm", default="default", help="what to call these settings")
    run.add_argument("--set", action="append", default=[], dest="settings")
    run.add_argument("--no-replay", action="store_true", help="as where the base's data are not at hand")
    run.add_argument("--threads", type=int, default=1)
    run.add_argument("--work", type=Path, required=True)
    summary = commands.add_parser("summarise")
    summary.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "run":
        torch.set_num_threads(options.threads)
        make_runs(options)
    else:
        results = summarise(read_runs(options.work))
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(table(results))
        plot(results)


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


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Give each point of each curve with its interval over patients, seeds averaged."""
    ends = {run["name"]: run for run in runs if run["arm"] in ("base", "both")}
    floor, ceiling = (lesion_dice([ends[name]], "away")[0] for name in ("base", "both"))
    points = []
    for key in sorted({_point(run) for run in runs}):
        same = [run for run in runs if _point(run) == key]
        arm, order, count = key
        point: dict[str, Any] = {"arm": arm, "order": order, "count": count, "seeds": len(same)}
        for place in ("away", "home"):
            value, interval = lesion_dice(same, place)
            point[place] = {"dice": round(value, 4), "ci95": interval}
        point["home_change"] = change(same, ends["base"], "home")
        point["gap_closed"] = round((point["away"]["dice"] - floor) / (ceiling - floor), 3)
        if seconds := [run["seconds"] for run in same if "seconds" in run]:
            point["seconds"] = round(float(np.mean(seconds)), 1)
        points.append(point)
    return {"points": points}


def lesion_dice(runs: Sequence[Mapping[str, Any]], place: str) -> tuple[float, list[float] | None]:
    """Mean Dice over images with a lesion, seeds averaged, and its interval over groups."""
    groups, dices = _matrix(runs, place)
    return _mean_and_interval(groups, dices.mean(0))


def change(runs: Sequence[Mapping[str, Any]], base: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Mean change of Dice against the base on the same images, and its interval over groups."""
    groups, dices = _matrix(runs, place)
    _, before = _matrix([base], place)
    value, interval = _mean_and_interval(groups, dices.mean(0) - before[0])
    return {"dice": round(value, 4), "ci95": interval}


def table(results: Mapping[str, Any]) -> str:
    """Write the points as a Markdown table."""
    head = "| settings | order | corrections | seeds | Dice there | gap closed | change at home | seconds |"
    rows = [head, "|" + "---|" * head.count(" | ") + "---|"]
    for p in results["points"]:
        low, high = p["away"]["ci95"]
        cells = [p["arm"], p["order"], p["count"], p["seeds"]]
        cells.append(f"{p['away']['dice']:.3f} [{low:.3f}, {high:.3f}]")
        cells.append(f"{p['gap_closed']:.0%}")
        low, high = p["home_change"]["ci95"]
        cells.append(f"{p['home_change']['dice']:+.3f} [{low:+.3f}, {high:+.3f}]")
        cells.append(p.get("seconds", "-"))
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def plot(results: Mapping[str, Any]) -> None:
    """Draw Dice at the other hospital and at home over the number of corrections."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    points = results["points"]
    ends = {p["arm"]: p for p in points if p["arm"] in ("base", "both")}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharex=True, layout="constrained")
    styles = {"random": ("#0072b2", "o", "-"), "review": ("#d55e00", "s", "--")}
    for axis, place, title in zip(axes, ("away", "home"), ("the other hospital", "home"), strict=True):
        for name, words in (("base", "no correction"), ("both", "trained on both")):
            height = ends[name][place]["dice"]
            axis.axhline(height, color="0.5", lw=1, ls=":" if name == "base" else "-.")
            beside = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
            axis.annotate(words, (1, height), fontsize=8, color="0.35", **beside)
        for shift, (order, (colour, marker, line)) in enumerate(styles.items()):
            curve = [p for p in points if p["arm"] == "default" and p["order"] == order]
            if not curve:
                continue
            x = np.array([p["count"] for p in curve]) * (1 + 0.02 * shift)
            y = np.array([p[place]["dice"] for p in curve])
            spread = np.abs(np.array([p[place]["ci95"] for p in curve]).T - y)
            axis.errorbar(
                x, y, spread, color=colour, marker=marker, ls=line, capsize=2, label=f"{order} order"
            )
        axis.set(xscale="log", xlabel="corrections (patients)", title=f"Dice at {title}")
        axis.set_xticks(COUNTS, [str(count) for count in COUNTS])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("mean Dice over images with a lesion")
    axes[0].legend(loc="lower right", fontsize=8)
    figure.savefig(PLOT, dpi=150)


def _point(run: Mapping[str, Any]) -> tuple[str, str, int]:
    return run["arm"], run.get("order", ""), run["count"]


def _matrix(runs: Sequence[Mapping[str, Any]], place: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [[s for s in run[place] if s["lesion"]] for run in runs]
    names = [[s["frame"] for s in row] for row in rows]
    assert all(name == names[0] for name in names), "the runs were scored on different images"
    return np.array([s["group"] for s in rows[0]]), np.array([[s["dice"] for s in row] for row in rows])


def _mean_and_interval(groups: np.ndarray, values: np.ndarray) -> tuple[float, list[float] | None]:
    counts = draw_groups(groups)
    return float(values.mean()), percentile_interval(counts @ values / counts.sum(1))


if __name__ == "__main__":
    main()
