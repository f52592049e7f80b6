"""Write docs/results.md from the files in ``training/results``.

python docs/results.py [--check]
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from accuracy import ROOT, SHOWN, cell

RESULTS, PAGE = ROOT / "training" / "results", ROOT / "docs" / "results.md"
CURVE = ROOT / "benchmarks" / "results" / "learning_curve.json"
IDEAS = ROOT / "benchmarks" / "results" / "ideas.json"
PRESENCE = ROOT / "benchmarks" / "results" / "presence.json"
DEFAULT = ("default-base", "default-unblended", "default-two-hospitals", "default-lite2", "default")
LEAK = ("unet", "unet-leaky")
FIGURES = {
    "lesion_dice": "lesion Dice",
    "missed": "missed",
    "false_alarms": "normals with a mask",
    "auc": "AUC",
    "accuracy": "accuracy",
}
DATASETS = {"busi": "BUSI", "busbra": "BUS-BRA", "breast-usg": "BrEaST"}
PARTS = {"test": "test", "validation": "validation (but for `default`, thresholds were fitted on these)"}

HEAD = """# Results

What each recipe reached, made from the files in [`training/results`](../training/results) by `python
docs/results.py`. Figures are on test groups (near-duplicates or patients) that had no part in making the
model that was judged, with their 95 % bootstrap intervals over groups, but for two kinds that are marked:
the tables headed *validation*, and the row *leaked*. Validation groups did not train, but the threshold, the
smallest area, the temperature and the gate for normals were fitted on them, and where a recipe has patience
its best epoch was chosen by them: those figures flatter.

Dice is the mean over images with a lesion, on the image's own pixels; *missed* the share of them with Dice 0;
*normals with a mask* the share of normal images with any predicted pixel; AUC is malignant against benign;
accuracy is of three classes. How each is computed: [evaluation.md](evaluation.md).

Published figures on BUSI are seldom comparable: most split by image, which leaves a twin of every third
test image in training (see [the leak](#the-leak)), and most give no interval.
"""
RECIPES = """
## The recipes of the field, on BUSI

The same groups (fold 1 of 5, stratified) and the same budget for all, so that they can be compared with
each other and not with their best: few epochs and small images, on a CPU. *Start* says whether the encoder
had ImageNet weights; where these were out of reach, the network began at random, and its figures say little
about the architecture. `tools/train_recipes.sh` makes them.
"""
LEAK_TEXT = """
## The leak

One recipe, the same budget, once split by group and once by image (`--leaky`), where twins of test images
train. The two test sets are different draws from the same images, and each model was trained once, with one
seed: the difference holds the luck of the draw too.
{overlaps}: two runs do not measure how much the leak is worth.
"""
DEFAULT_TEXT = """
## The model that ships

BUSI and BUS-BRA first; a tenth of the groups of each is the test. `default-base` learned with light
augmentation. `default-unblended` goes on from it for eight epochs with the whole augmentation and strips: on
new images of the same hospitals it is no better. `default-two-hospitals` is the mean of the two (WiSE-FT;
Wortsman et al., CVPR 2022). After it was judged, it was fitted once more on all images; it shipped as
`default-9e4dc4aa`. `default-lite2` (`benchmarks/default-lite2.toml`) is a larger encoder that learned for 25
epochs with augmentation between the two: fewer lesions missed on BUSI, worse classes on both sets, all with
intervals that overlap; it does not ship.

`default` goes on from `default-9e4dc4aa` with BrEaST, a third hospital, and with lesions painted out of some
images of all three; 52 of its patients are the test. It learns at 256 pixels and is shown images at 288, the
mirror image at four fifths. Threshold, temperature and gate were fitted on what `default-9e4dc4aa` says of
all of BrEaST, which it had never seen. All of BUSI and BUS-BRA trained its start, so that they cannot judge
it. It, too, was fitted once more on all images after it was judged; that last fit is what ships. Minutes are
those of the epochs, on one CPU thread beside other work, pauses among them.
"""

IDEAS_TEXT = """
## Ideas

One change at a time, on a small budget that is the same for all: `default-base` at 192 pixels for eight
epochs of 1,040 images (`benchmarks/ideas.py`). The row *unchanged* is its figures, the others are
differences from it, image by image, on the groups that train neither, validation and test, with paired
bootstrap intervals over groups. Threshold, temperature and gate were fitted on the validation half, each
model's own; ideas without minutes needed no training and keep those of the unchanged recipe. Bold: the
interval leaves out zero. Each was trained once; *another seed* says how much of a difference is chance, and a
bold figure may be chance too. The averaged weights of two seeds draw nothing, since their decoders began at
random each; `default-two-hospitals` averages a model with its own start.

"""
IDEAS_HEAD = "| idea | BUSI Dice | BUSI missed | BUSI AUC | BUS-BRA Dice | BUS-BRA AUC | minutes |"
IDEAS_FIGURES = (
    ("busi", "lesion_dice"),
    ("busi", "missed"),
    ("busi", "auc"),
    ("busbra", "lesion_dice"),
    ("busbra", "auc"),
)
SCANNERS = """
Trained without one of BUS-BRA's scanners, on the small budget of the ideas below, and judged on those images
of that scanner that train the unchanged recipe neither (near half of them are its validation):

| scanner left out | images | Dice, unchanged | Dice, left out | difference | AUC, unchanged | AUC, left out |
|---|---|---|---|---|---|---|
"""

LEFT_OUT = """
## A hospital that nobody trained on

Each idea trained on the same small budget on all hospitals but one, and judged on all images of that one
(`benchmarks/ideas.py left-out`). The rows *unchanged* are its figures, the others differences from the
unchanged recipe of the same seed, image by image, with paired intervals; bold leaves out zero. Threshold,
temperature and gate were fitted on validation images of the hospitals that trained.

| left out | idea | seed | images | Dice | missed | normals with a mask | AUC | minutes |
|---|---|---|---|---|---|---|---|---|
"""
LEFT_OUT_FIGURES = ("lesion_dice", "missed", "false_alarms", "auc")
PRESENCE_TEXT = """
Which images have a lesion, as a curve and not as a point (`benchmarks/presence.py`): models of the table
above on the hospital that they never saw, at the threshold of each. The areas are under the curve of lesions
found against normals with a mask, by the probability of not normal, by the mean lesion probability inside
the mask, and by the product of both odds. The last columns are the share of normals with a mask where a gate
on the first of these lets so many lesions be missed in all.

| never seen | model | Dice | missed | normals masked | area, class | mask | both | at 8 % | 10 % | 12 % |
|---|---|---|---|---|---|---|---|---|---|---|
"""
PRESENCE_AT = ("8 %", "10 %", "12 %")

SHOWN_TEXT = """
The size that a network is shown, and its mirror image's (`benchmarks/shown_size.py`): two views of each
image, the second mirrored. The first row of each hospital is its figures, the others differences, image by
image. Threshold and gate are the model's own, fitted at home at the first row's size.

| never seen | model | shown at | mirror image | images | Dice | missed | normals with a mask | AUC |
|---|---|---|---|---|---|---|---|---|
"""

ELSEWHERE = """
## Another hospital

| trained on | Dice on BUS-BRA's validation and test patients |
|---|---|
| BUSI alone (`benchmarks/busi-only.toml`) | {base} |
| both (`default-base`) | {both} |

What a few corrections there are worth: [the learning curve](learning-curve.md).
"""


def page(results: dict[str, dict[str, Any]]) -> str:
    """Return the page for all results, by name."""
    parts = [HEAD]
    field = {n: r for n, r in results.items() if n not in DEFAULT and n not in LEAK[1:]}
    if field:
        parts += [RECIPES, table(field, "busi")]
    if all(name in results for name in LEAK):
        parts += [
            LEAK_TEXT.format(overlaps=overlaps(*(results[name]["metrics"]["test"]["busi"] for name in LEAK))),
            table({name: results[name] for name in LEAK}, "busi"),
        ]
    ours = {name: results[name] for name in DEFAULT if name in results}
    parts.append(DEFAULT_TEXT)
    for part, heading in PARTS.items():
        for dataset, title in DATASETS.items():
            judged = {name: result for name, result in ours.items() if dataset in result["metrics"][part]}
            parts += [f"\n{title}, {heading}:\n\n", table(judged, dataset, part=part)]
    if CURVE.is_file():
        points = json.loads(CURVE.read_text(encoding="utf-8"))["points"]
        there = {point["arm"]: point["away"] for point in points}
        dice = {arm: cell({"value": there[arm]["dice"], **there[arm]}) for arm in ("base", "both")}
        parts.append(ELSEWHERE.format(**dice))
    if IDEAS.is_file():
        measured = json.loads(IDEAS.read_text(encoding="utf-8"))
        if left_out := measured.get("left_out"):
            parts += [LEFT_OUT, *map(left_out_row, left_out)]
        if SHOWN.is_file():
            parts.append(SHOWN_TEXT)
            for judged in json.loads(SHOWN.read_text(encoding="utf-8")):
                parts += [shown_row(judged, row) for row in judged["rows"]]
        if PRESENCE.is_file():
            parts.append(PRESENCE_TEXT)
            for hospital, models in json.loads(PRESENCE.read_text(encoding="utf-8")).items():
                parts += [presence_row(hospital, name, told) for name, told in models.items()]
        tried = measured["ideas"]
        scanners = {name: idea for name, idea in tried.items() if idea.get("left_out")}
        if scanners:
            parts += [SCANNERS, *map(scanner_row, scanners.values())]
        parts += [IDEAS_TEXT, IDEAS_HEAD + "\n", "|---" * (IDEAS_HEAD.count("|") - 1) + "|\n"]
        parts += [idea_row(idea) for name, idea in tried.items() if name not in scanners]
    return "".join(parts)


def idea_row(idea: dict[str, Any]) -> str:
    """Return the row of one idea: what it differs by, or the figures of the recipe that is not changed."""
    unchanged = idea["trained"] and not idea["settings"]
    cells = [
        cell(idea[dataset]["reference"][figure])
        if unchanged
        else difference(idea[dataset]["difference"][figure])
        for dataset, figure in IDEAS_FIGURES
    ]
    minutes = f"{idea['minutes']:.0f}" if idea["trained"] else "-"
    return "| " + " | ".join([idea["what"], *cells, minutes]) + " |\n"


def left_out_row(idea: dict[str, Any]) -> str:
    """Return the row of an idea on a hospital that was left out."""
    found = idea[idea["hospital"]]
    cells = [
        cell(found["reference"][figure]) if not idea["settings"] else difference(found["difference"][figure])
        for figure in LEFT_OUT_FIGURES
    ]
    told = [DATASETS[idea["hospital"]], idea["what"], str(idea["seed"]), str(found["images"])]
    return "| " + " | ".join([*told, *cells, f"{idea['minutes']:.0f}"]) + " |\n"


def shown_row(judged: dict[str, Any], row: dict[str, Any]) -> str:
    """Return the row of a model that is shown images of a size."""
    first = row is judged["rows"][0]
    cells = [
        cell(row["figures"][figure], figure) if first else difference(row["difference"][figure], figure)
        for figure in LEFT_OUT_FIGURES
    ]
    told = [DATASETS[judged["hospital"]], f"`{judged['model']}`", f"{row['size']} px"]
    return "| " + " | ".join([*told, f"{row['mirror_scale']:g}", str(judged["images"]), *cells]) + " |\n"


def presence_row(hospital: str, name: str, told: dict[str, Any]) -> str:
    """Return the row of a model's curve."""
    scores = [told[score] for score in ("not normal", "inside the mask", "both")]
    gated = scores[0]["false_alarms_at_missed"]
    cells = [
        *(f"{told[figure]:.3f}" for figure in ("lesion_dice", "missed", "false_alarms")),
        *(f"{score['auc']:.3f}" for score in scores),
        *(f"{gated[at]:.2f}" if at in gated else "-" for at in PRESENCE_AT),
    ]
    return "| " + " | ".join([DATASETS[hospital], name, *cells]) + " |\n"


def scanner_row(idea: dict[str, Any]) -> str:
    """Return the row of a scanner that was left out."""
    found = idea["busbra"]
    cells = [
        idea["what"],
        str(found["images"]),
        cell(found["reference"]["lesion_dice"]),
        cell(found["idea"]["lesion_dice"]),
        difference(found["difference"]["lesion_dice"]),
        cell(found["reference"]["auc"]),
        cell(found["idea"]["auc"]),
    ]
    return "| " + " | ".join(cells) + " |\n"


def difference(figure: dict[str, Any] | None, name: str = "") -> str:
    """Write a difference with its sign, bold where its interval leaves out zero."""
    if figure is None or figure["ci95"] is None or cell(figure, name) == "-":
        return "-"
    low, high = figure["ci95"]
    text = f"{figure['value']:+.3f} [{low:+.3f}, {high:+.3f}]"
    return text if low <= 0 <= high else f"**{text}**"


def table(results: dict[str, dict[str, Any]], dataset: str, *, part: str = "test") -> str:
    """Return a table with a row for each result."""
    head = ["recipe", "network", "start", "px", "epochs", "minutes", "images", *FIGURES.values()]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, result in results.items():
        metrics = result["metrics"][part].get(dataset)
        if metrics is None:
            continue
        model, fit = result["recipe"]["model"], result["recipe"]["fit"]
        network = " on ".join(filter(None, (model["architecture"], model["encoder"].removeprefix("tu-"))))
        history = result.get("history")
        cells = [
            f"`{name}`" + (" **(leaked)**" if result.get("leaked") else ""),
            network,
            start(result),
            str(model["size"]),
            str(result.get("epochs", fit["epochs"])),
            f"{sum(entry['seconds'] for entry in history) / 60:.0f}" if history else "-",
            str(metrics["images"]),
            *(cell(metrics.get(figure)) for figure in FIGURES),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n" + "\n".join(rows) + "\n"


def overlaps(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Say in how many of the figures the intervals of two results overlap."""
    intervals = [(one[figure]["ci95"], other[figure]["ci95"]) for figure in FIGURES]
    shared = sum(a[0] <= b[1] and b[0] <= a[1] for a, b in intervals)
    return f"The intervals overlap in {shared} of the {len(FIGURES)} figures"


def start(result: dict[str, Any]) -> str:
    """Say in a word what the weights began with."""
    source = str(result.get("start", result.get("encoder")))
    if source == "random":
        return "random"
    return "ImageNet" if "efficientnet" in source or "ImageNet" in source else source


def main() -> int:
    """Write the page, or with ``--check`` say whether it is current."""
    parser = argparse.ArgumentParser(description="Write docs/results.md.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if not current")
    options = parser.parse_args()
    results = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(RESULTS.glob("*.json"))
        if not path.stem.endswith("-split")
    }
    after = page(results)
    if options.check:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != after:
            print("docs/results.md is not current; run: python docs/results.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
