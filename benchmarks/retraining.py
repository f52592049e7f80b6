"""Train anew on everything: the slow way that `learning_curve.py` compares fine-tuning with.

python benchmarks/retraining.py --data FOLDER --base-data FOLDER --base BUNDLE --recipe RECIPE --work FOLDER

Trains the base's recipe from its start on the base's own images and on the corrections that fine-tuning in
random order learns from, and adds a line to WORK/runs.jsonl, which `learning_curve.py summarise` reads. A
training that was broken off goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from learning_curve import SPLIT, divide, keep, ordered, read_runs, score

from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.splits import apply_split

TABLE = "bus_data.csv"


def main() -> None:
    """Train and score what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="BUSI and BUS-BRA")
    parser.add_argument("--base-data", type=Path, required=True, help="BUSI alone")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--recipe", required=True, help="of the base")
    parser.add_argument("--counts", type=int, nargs="+", default=(80,))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts = apply_split(SPLIT, find_datasets(options.data))
    away, home, patients = divide(parts)
    chosen = ordered(patients, "random", options.seed, options.base)
    done = {run["name"] for run in read_runs(options.work)}
    for count in options.counts:
        name = f"retrained-random-{options.seed}-{count}"
        if name in done:
            continue
        folder = options.work / name
        gather(folder / "data", options.base_data, chosen[:count])
        split = {part: [f"busi/{s.name}" for s in parts[part] if s.dataset == "busi"] for part in parts}
        split["train"] += [f"busbra/{s.name}" for s in chosen[:count]]
        (folder / "parts.json").write_text(json.dumps(split), encoding="utf-8")
        seconds = train(folder, options)
        figures = score(folder / "job" / "bundle", away, home)
        facts = {"name": name, "arm": "retrained", "order": "random", "seed": options.seed, "count": count}
        keep(options.work, facts | {"seconds": seconds} | figures)
        print(name, flush=True)


def gather(folder: Path, base_data: Path, corrections: Sequence[Sample]) -> None:
    """Lay the base's images and the corrected ones side by side, as links."""
    more = folder / "busbra"
    for name in ("Images", "Masks"):
        (more / name).mkdir(parents=True, exist_ok=True)
    if not (folder / "busi").exists():
        (folder / "busi").symlink_to(base_data.resolve(), target_is_directory=True)
    for sample in corrections:
        for there, file in (("Images", sample.image), ("Masks", sample.masks[0])):
            if not (more / there / file.name).exists():
                (more / there / file.name).symlink_to(file.resolve())
    wanted = {sample.name for sample in corrections}
    table = corrections[0].image.parents[1] / TABLE
    with table.open(encoding="utf-8", newline="") as old, (more / TABLE).open("w", newline="") as new:
        rows = csv.DictReader(old)
        writer = csv.DictWriter(new, rows.fieldnames or ())
        writer.writeheader()
        writer.writerows(row for row in rows if row["ID"] in wanted)


def train(folder: Path, options: argparse.Namespace) -> float:
    """Train, and give the seconds; those of a training that was gone on with are of its last part."""
    command = [sys.executable, "-m", "sonoloop_training", "train", options.recipe]
    command += ["--data", str(folder / "data"), "--out", str(folder / "job")]
    command += ["--set", f"split.file={folder / 'parts.json'}", "--set", "split.method=file"]
    command += ["--threads", str(options.threads)]
    started = time.monotonic()
    with (folder / "events.jsonl").open("a") as log:
        subprocess.run(command, check=True, stdout=log)
    return round(time.monotonic() - started, 1)


if __name__ == "__main__":
    main()
