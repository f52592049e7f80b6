"""How well a model tells images with a lesion from those without, and by what: a curve, not a point.

    python benchmarks/presence.py --data FOLDER --hospital NAME --model NAME=BUNDLE [--model ...]
        [--threads N]

A threshold and a gate only choose a point on a curve of lesions missed against normals with a mask. This
draws the curve on a hospital that trained none of the models, for each and for all of them averaged, by three
scores of an image: the probability that it is not normal (what the gate goes by), the mean lesion probability
inside its mask, and the product of the odds of the two. A lesion counts as found where the mask touches it;
an image without a mask has the lowest score. Threshold and smallest area are those of each card, of the first
where models are averaged.

Figures go to benchmarks/results/presence.json, beside those of other hospitals.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from left_out import check_left_out
from numpy.typing import NDArray

from sonoloop.models.card import Card
from sonoloop.models.library import load_bundle
from sonoloop.models.postprocess import number_lesions
from sonoloop.models.predictor import Predictor
from sonoloop.models.tta import average_classes
from sonoloop.store.metrics import auc
from sonoloop.values import CLASSES
from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.evaluation.scores import dice, read_case

RESULTS = Path(__file__).parent / "results" / "presence.json"
ALL = "all averaged"
# in percent: at so many lesions missed, how many normals have a mask
MISSED = (6, 8, 10, 12)
_BATCH = 8
_NORMAL = CLASSES.index("normal")
_HAIR = 1e-6

Floats = NDArray[np.float64]


def main() -> None:
    """Judge models on a hospital that none of them saw, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--hospital", required=True, help="the dataset that trained none of the models")
    parser.add_argument("--model", action="append", required=True, metavar="NAME=BUNDLE")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    places = dict(told.split("=", 1) for told in options.model)
    images = [s for s in find_datasets(options.data) if s.dataset == options.hospital]
    for place in places.values():
        check_left_out(Path(place), images)
    predictors = {name: Predictor(load_bundle(place), device="cpu") for name, place in places.items()}
    told = {name: describe(rows) for name, rows in see(predictors, images).items()}
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    results[options.hospital] = told
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=1))


def see(predictors: dict[str, Predictor], images: Sequence[Sample]) -> dict[str, Floats]:
    """Give a row an image for each model: is there a lesion, Dice, mean inside the mask, P(normal)."""
    cards = {name: predictor.card for name, predictor in predictors.items()}
    if len(predictors) > 1:
        cards[ALL] = next(iter(cards.values()))
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in cards}
    for first in range(0, len(images), _BATCH):
        cases = [read_case(sample) for sample in images[first : first + _BATCH]]
        maps: dict[str, list[NDArray[Any]]] = {}
        normal: dict[str, NDArray[Any]] = {}
        for name, predictor in predictors.items():
            seen, logits = predictor.see([case.frame for case in cases])
            classes = predictor.engine.fetch(average_classes(logits, predictor.card.temperature))
            means = predictor.engine.fetch(seen.mean(0))
            maps[name] = [predictor.on_grid(c.frame, m) for c, m in zip(cases, means, strict=True)]
            normal[name] = classes[:, _NORMAL]
        if len(predictors) > 1:
            maps[ALL] = [np.mean(same, 0) for same in zip(*maps.values(), strict=True)]
            normal[ALL] = np.mean([*normal.values()], 0)
        for name, card in cards.items():
            for case, lesion, told in zip(cases, maps[name], normal[name], strict=True):
                rows[name].append((float(case.mask.any()), *_judge(card, lesion, case.mask), float(told)))
    return {name: np.array(told) for name, told in rows.items()}


def _judge(card: Card, lesion: NDArray[Any], truth: NDArray[Any]) -> tuple[float, float]:
    """Give Dice and the mean lesion probability inside the mask, 0 where there is none; nothing is gated."""
    mask = number_lesions(lesion, threshold=card.threshold, min_area=card.min_area) > 0
    return dice(mask, truth), float(lesion[mask].mean()) if mask.any() else 0.0


def describe(rows: Floats) -> dict[str, Any]:
    """Tell of a model's rows what it draws ungated, and its curve by each score."""
    lesion, overlap, inside, normal = rows[:, 0] > 0, *rows[:, 1:].T
    drawn, found = inside > 0, lesion & (overlap > 0)
    scores = {
        "not normal": -_log_odds(normal),
        "inside the mask": _log_odds(inside),
        "both": _log_odds(inside) - _log_odds(normal),
    }
    told: dict[str, Any] = {
        "lesions": int(lesion.sum()),
        "normals": int((~lesion).sum()),
        "lesion_dice": round(float(overlap[lesion].mean()), 4),
        "missed": round(float((~found)[lesion].mean()), 4),
        "false_alarms": round(float(drawn[~lesion].mean()), 4),
    }
    for name, score in scores.items():
        shown = np.where(drawn & (found | ~lesion), score, -np.inf)
        area = auc(shown, lesion, np.ones((1, len(rows))))[0]
        curve = {}
        for percent in MISSED:
            if percent / 100 >= told["missed"]:
                gate = np.sort(shown[lesion])[int(percent / 100 * lesion.sum())]
                curve[f"{percent} %"] = round(float((shown[~lesion] >= gate).mean()), 4)
        told[name] = {"auc": round(float(area), 4), "false_alarms_at_missed": curve}
    return told


def _log_odds(probabilities: Floats) -> Floats:
    sure = probabilities.clip(_HAIR, 1 - _HAIR)
    return np.asarray(np.log(sure / (1 - sure)))


if __name__ == "__main__":
    main()
