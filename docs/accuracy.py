"""Write the README's table of accuracy from ``training/results/default.json``.

python docs/accuracy.py [--check]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README, RESULTS = ROOT / "README.md", ROOT / "training" / "results" / "default.json"
BLOCK = re.compile(r"(<!-- accuracy -->\n).*?(<!-- /accuracy -->)", re.DOTALL)
FIGURES = {
    "lesion_dice": "Dice over images with a lesion",
    "missed": "lesions missed (Dice 0)",
    "false_alarms": "normals with a mask",
    "auc": "AUC, malignant against benign",
    "accuracy": "accuracy, three classes",
    "rank_correlation": "rank correlation of expected and real Dice",
}
LAST_FIT = (
    "These were measured before its last fit: what ships was then fitted a little longer on all images,",
    "these among them, so that they cannot judge it any more",
    "([why](docs/decisions/0005-a-last-fit-on-everything.md)).",
)
COLUMNS = {"busi": "BUSI", "busbra": "BUS-BRA"}


def accuracy(results: dict[str, Any]) -> str:
    """Return the README's section for a training's results."""
    test = results["metrics"]["test"]
    counts = {name: (test[key]["images"], test[key]["groups"]) for key, name in COLUMNS.items()}
    sizes = " and ".join(f"{n} of {name} ({groups} groups)" for name, (n, groups) in counts.items())
    lines = [
        f"Of the default model, `{results['model']}`, on images that had no part in training it:",
        f"{sizes}, split by the published list of near-duplicates and by",
        "patient. In brackets the 95 % interval over groups.",
        *(LAST_FIT if results.get("final") else ()),
        "",
        f"| | {' | '.join(COLUMNS.values())} |",
        f"|---|{'---|' * len(COLUMNS)}",
    ]
    lines += [
        f"| {title} | {' | '.join(cell(test[key].get(figure)) for key in COLUMNS)} |"
        for figure, title in FIGURES.items()
    ]
    lines += [
        "",
        "All figures, those of the validation part too, are in",
        "[`training/results/default.json`](training/results/default.json). To make the model again:",
        "`sonoloop train default-base`, then `sonoloop train default`, each with `--data FOLDER` that holds",
        "both sets.",
    ]
    return "\n".join(lines) + "\n"


def cell(figure: dict[str, Any] | None) -> str:
    """Write a figure with its interval, which a single group does not have."""
    if figure is None:
        return "-"
    if figure["ci95"] is None:
        return f"{figure['value']:.3f}"
    low, high = figure["ci95"]
    return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"


def main() -> int:
    """Write the section, or with ``--check`` say whether it is current."""
    parser = argparse.ArgumentParser(description="Write the README's table of accuracy.")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit code 1 if it is not current"
    )
    options = parser.parse_args()
    before = README.read_text(encoding="utf-8")
    section = accuracy(json.loads(RESULTS.read_text(encoding="utf-8")))
    after = BLOCK.sub(lambda found: found[1] + section + found[2], before)
    if options.check:
        if before != after:
            print(
                "the README's table of accuracy is not current; run: python docs/accuracy.py", file=sys.stderr
            )
        return int(before != after)
    README.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
