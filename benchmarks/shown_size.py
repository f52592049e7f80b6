"""What it is worth to show a network larger images than it learned from, and its mirror image smaller.

    python benchmarks/shown_size.py run MODEL --data FOLDER --hospital NAME --work FOLDER
    python benchmarks/shown_size.py summarise --work FOLDER

A model is judged on all images of a hospital that did not train it, in two views: as it is, then with the
mirror image at four fifths of the size, and with both at nine eighths and at five quarters of the size that
it learned from. Threshold, temperature and gate stay the model's own. The differences are paired, image by
image, and their intervals are over groups.

Figures go to WORK/MODEL-HOSPITAL.json; `summarise` puts them into benchmarks/results/shown_size.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from left_out import check_left_out

from sonoloop.jobs.events import drain
from sonoloop.models.bundle import Bundle
from sonoloop.models.library import load_bundle
from sonoloop.models.predictor import Predictor
from sonoloop.models.tta import SMALLER
from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.evaluation.scores import assess
from sonoloop_training.evaluation.summary import compare, summarise

RESULTS = Path(__file__).parent / "results" / "shown_size.json"
KEYS = ("lesion_dice", "missed", "false_alarms", "auc", "accuracy")
LARGER = (9 / 8, 5 / 4)


def main() -> None:
    """Judge a model, or write down what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("run", "summarise"))
    parser.add_argument("model", nargs="?", help="a bundle's folder")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--hospital", help="the dataset that did not train it")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.what == "summarise":
        rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(options.work.glob("*.json"))]
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        return
    torch.set_num_threads(options.threads)
    images = [s for s in find_datasets(options.data) if s.dataset == options.hospital]
    check_left_out(Path(options.model), images)
    bundle = load_bundle(options.model)
    measured = measure(bundle, images) | {"model": bundle.card.model, "hospital": options.hospital}
    options.work.mkdir(parents=True, exist_ok=True)
    path = options.work / f"{bundle.card.model}-{options.hospital}.json"
    path.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


def measure(bundle: Bundle, images: Sequence[Sample]) -> dict[str, Any]:
    """Give the model's figures as it is, and by how much each change moves them."""
    size = bundle.card.spec.size
    sides = [size, *(round(size * share / 32) * 32 for share in LARGER)]
    tried = [(side, scale) for side in sides for scale in (1.0, SMALLER)]
    predictors = [Predictor(show(bundle, *one), device="cpu", views=2) for one in tried]
    before, *others = drain(assess(images, predictors, identified=False, stage="Judging")).scores
    rows = []
    for (side, scale), scores in zip(tried, (before, *others), strict=True):
        figures, differences = summarise(scores, keys=KEYS), compare(before, scores)
        rows.append(
            {"size": side, "mirror_scale": scale}
            | {"figures": {key: figures[key] for key in KEYS}}
            | {"difference": {key: differences[key] for key in KEYS}}
        )
    return {"learned_at": size, "images": len(images), "rows": rows}


def show(bundle: Bundle, size: int, mirror_scale: float) -> Bundle:
    """Give the same network, shown images of another size."""
    spec = dataclasses.replace(bundle.card.spec, size=size)
    return Bundle(dataclasses.replace(bundle.card, spec=spec, mirror_scale=mirror_scale), bundle.network)


if __name__ == "__main__":
    main()
