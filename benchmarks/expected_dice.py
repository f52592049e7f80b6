"""What tells best of a mask how good it is: the expected Dice, and other ways to come by one.

    python benchmarks/expected_dice.py --data FOLDER --model NAME=BUNDLE [--model ...] [--out FILE]

Each model is asked of images that did not train it: those of hospitals of which none did (*left out*), and
those that validated it (*at home*), on which the line from a way to a Dice is fitted; a model that all images
of a hospital trained is not asked of that, and one that nothing validated takes the line of the first that
has one. Figures are rank correlations (Spearman) with the real Dice, with 95 % intervals over groups: over
all lesions, an empty mask counting with what stands for it, and over the masks that are not empty.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sonoloop.models.manifest import SPLIT, read_manifest
from sonoloop.models.predictor import Predictor
from sonoloop.models.tta import agreement
from sonoloop.store.metrics import Floats, auc, draw_groups, percentile_interval
from sonoloop.values import CLASSES
from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.evaluation.measures import spearman
from sonoloop_training.evaluation.scores import dice, read_case
from sonoloop_training.evaluation.summary import load_model
from sonoloop_training.fit.calibration import fit_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a model's answer to an image tells, and how good its mask is."""

    group: str
    dice: float
    lesion: bool
    claimed: bool
    # of the views
    agreement: float
    # mean lesion probability inside the mask, its highest in the image, and of the class normal
    foreground: float
    highest: float
    normal: float
    # share of the mask that is its largest lesion
    largest: float


# of a mask that is not empty: from what a Dice is read, by a line that is fitted at home
MASKS: dict[str, Callable[[Seen], float]] = {
    "agreement": lambda s: s.agreement,
    "foreground": lambda s: s.foreground,
    "agreement x foreground": lambda s: s.agreement * s.foreground,
    "foreground x largest": lambda s: s.foreground * s.largest,
    "foreground x highest": lambda s: s.foreground * s.highest,
    "foreground x (1 - normal)": lambda s: s.foreground * (1 - s.normal),
    "agreement x (1 - normal) x highest": lambda s: s.agreement * (1 - s.normal) * s.highest,
}
# of an empty one: the probability that there is no lesion
EMPTY: dict[str, Callable[[Seen], float]] = {
    "normal": lambda s: s.normal,
    "normal x (1 - highest)": lambda s: s.normal * (1 - s.highest),
}


def main() -> None:
    """Ask the models, and write what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", action="append", required=True, metavar="NAME=BUNDLE")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    samples = find_datasets(options.data)
    asked = {
        name: ask(folder, samples) for name, _, folder in (text.partition("=") for text in options.model)
    }
    first = next((parts["at home"] for parts in asked.values() if parts["at home"]), None)
    if first is None:
        parser.error("nothing validated any of the models: no line can be fitted")
    results = {
        name: judge(parts, lines_of(parts["at home"] or first)) | {"own line": bool(parts["at home"])}
        for name, parts in asked.items()
    }
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    if options.out is None:
        print(text, end="")
    else:
        options.out.write_text(text, encoding="utf-8")
        print_table(results)


def ask(folder: str, samples: Sequence[Sample]) -> dict[str, list[Seen]]:
    """Predict the images that did not train a model."""
    model = load_model(folder or None)
    predictor = Predictor(model.bundle)
    listed = read_manifest(model.folder / SPLIT)
    validated = {member.name for member in listed.validation}
    # a dataset may have been called by the first word of its name
    trained = {member.name.partition("/")[0] for member in listed.known}
    home = [sample for sample in samples if f"{sample.dataset}/{sample.name}" in validated]
    away = [sample for sample in samples if not {sample.dataset, sample.dataset.partition("-")[0]} & trained]
    return {
        "at home": [see(predictor, sample) for sample in home],
        "left out": [see(predictor, sample) for sample in away],
    }


def see(predictor: Predictor, sample: Sample) -> Seen:
    """Predict an image, and compare with its mask."""
    sys.stderr.write(f"\r{predictor.model} {sample.key:<40}")
    case = read_case(sample)
    prediction = predictor.predict(case.frame)
    maps, _ = predictor.see([case.frame])
    mask = prediction.mask > 0
    return Seen(
        group=case.group,
        dice=dice(mask, case.mask),
        lesion=bool(case.mask.any()),
        claimed=bool(mask.any()),
        agreement=float(agreement(maps, predictor.threshold)[0]),
        foreground=float(prediction.lesion[mask].mean()) if mask.any() else 0.0,
        highest=float(prediction.lesion.max()),
        normal=float(prediction.classes[CLASSES.index("normal")]),
        largest=float((prediction.mask == 1).sum() / mask.sum()) if mask.any() else 0.0,
    )


Line = Callable[[float], float]


def lines_of(home: Sequence[Seen]) -> dict[str, Line]:
    """Fit for each way the line from what it tells to a Dice."""
    lines: dict[str, Line] = {}
    for name, tells in MASKS.items():
        points = fit_line(np.array([(tells(one), one.dice) for one in home if one.claimed]))
        lines[name] = lambda value, points=points: float(np.interp(value, points["x"], points["y"]))  # type: ignore[misc]
    return lines


def judge(parts: dict[str, list[Seen]], lines: dict[str, Line]) -> dict[str, Any]:
    """Compare what is expected with what came, on each part."""
    return {part: judge_part(seen, lines) for part, seen in parts.items() if seen}


def judge_part(seen: Sequence[Seen], lines: dict[str, Line]) -> dict[str, Any]:
    """Give the rank correlation of each way, and how well it is told that there is no lesion."""
    lesions = [one for one in seen if one.lesion]
    claimed = [one for one in lesions if one.claimed]
    ways: dict[str, Any] = {}
    for name, tells in MASKS.items():
        plain = rank([tells(one) for one in claimed], claimed)
        for empty, stands in EMPTY.items():
            expected = [lines[name](tells(one)) if one.claimed else stands(one) for one in lesions]
            ways[f"{name}; {empty}"] = {"all lesions": rank(expected, lesions), "with a mask": plain}
    empties = [one for one in seen if not one.claimed]
    truth = np.array([one.lesion for one in seen])
    return {
        "images": len(seen),
        "lesions": len(lesions),
        "missed": sum(one.dice == 0 for one in lesions),
        "empty": len(empties),
        "empty without a lesion": sum(not one.lesion for one in empties),
        "ways": ways,
        "squared error of the probability that there is none, over empty masks": {
            empty: round(float(np.mean([(stands(one) - (not one.lesion)) ** 2 for one in empties])), 4)
            for empty, stands in EMPTY.items()
            if empties
        },
        "AUC of a lesion being there": {
            name: round(float(auc(np.array(values), truth, np.ones((1, len(seen))))[0]), 4)
            for name, values in (
                ("1 - normal", [1 - one.normal for one in seen]),
                ("highest", [one.highest for one in seen]),
                ("their product", [(1 - one.normal) * one.highest for one in seen]),
            )
            if not truth.all()
        },
    }


def rank(expected: Sequence[float], seen: Sequence[Seen]) -> dict[str, Any]:
    """Correlate the ranks of what was expected and what came, with an interval over groups."""
    came: Floats = np.array([one.dice for one in seen])
    told: Floats = np.array(expected)
    groups: NDArray[np.str_] = np.array([one.group for one in seen])
    value = float(spearman(came, told, np.ones((1, len(seen))))[0])
    interval = percentile_interval(spearman(came, told, draw_groups(groups)))
    return {"value": round(value, 4), "ci95": interval, "n": len(seen)}


def print_table(results: dict[str, Any]) -> None:
    """Print the rank correlations over all lesions, a line a way."""
    columns = [(name, part) for name, found in results.items() for part in found if part != "own line"]
    print(f"\n{'':60}" + "".join(f"{name + ', ' + part:>24}" for name, part in columns))
    for way in results[columns[0][0]][columns[0][1]]["ways"]:
        cells = (results[name][part]["ways"][way]["all lesions"]["value"] for name, part in columns)
        print(f"{way:60}" + "".join(f"{value:24.3f}" for value in cells))


if __name__ == "__main__":
    main()
