"""Write the README's table of accuracy from ``training/results`` and ``benchmarks/results``.

python docs/accuracy.py [--check]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DEFAULT = ROOT / "training" / "results" / "default.json"
# the model that it goes on from
START = ROOT / "training" / "results" / "default-two-hospitals.json"
SHOWN = ROOT / "benchmarks" / "results" / "shown_size.json"
BLOCK = re.compile(r"(<!-- accuracy -->\n).*?(<!-- /accuracy -->)", re.DOTALL)
FIGURES = {
    "lesion_dice": "Dice over images with a lesion",
    "missed": "lesions missed (Dice 0)",
    "false_alarms": "normals with a mask",
    "auc": "AUC, malignant against benign",
    "accuracy": "accuracy, three classes",
    "rank_correlation": "rank correlation of expected and real Dice",
}
# a share of so few normals says nothing
FEWEST_NORMALS = 5


@dataclass(frozen=True, slots=True)
class Column:
    """What a model reached on images of a hospital that had no part in training it."""

    hospital: str
    known: bool
    model: str
    images: int
    figures: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Give the hospital, and whether it was known."""
        return f"{self.hospital}, {'known' if self.known else '**never seen**'}"


def read_columns() -> list[Column]:
    """Read what the table shows, the model that ships first."""
    ships, start = (json.loads(path.read_text(encoding="utf-8")) for path in (DEFAULT, START))
    seen = next(
        row
        for row in json.loads(SHOWN.read_text(encoding="utf-8"))
        if row["model"] == start["model"] and row["hospital"] == "breast-usg"
    )
    size = ships["recipe"]["model"]["size"]
    (alike,) = (row for row in seen["rows"] if row["size"] == size and row["mirror_scale"] < 1)
    test = ships["metrics"]["test"]["breast-usg"]
    earlier = {key: start["metrics"]["test"][key] for key in ("busi", "busbra")}
    return [
        Column("BrEaST", True, ships["model"], test["images"], test),
        Column("BrEaST", False, start["model"], seen["images"], alike["figures"]),
        Column("BUSI", True, start["model"], earlier["busi"]["images"], earlier["busi"]),
        Column("BUS-BRA", True, start["model"], earlier["busbra"]["images"], earlier["busbra"]),
    ]


def accuracy(columns: list[Column]) -> str:
    """Return the README's section."""
    ships, start = columns[0].model, columns[1].model
    lines = [
        f"The default model, `{ships}`, goes on from `{start}`, which BUSI and BUS-BRA had trained, with",
        "BrEaST, a third hospital. No image below had a part in training the model that is named above it.",
        "A hospital is *known* where images of other patients there trained the model; *never seen* is what",
        "yours is. In brackets the 95 % interval over groups (patients, or near-duplicates).",
        "",
        f"| | {' | '.join(one.title for one in columns)} |",
        f"|---|{'---|' * len(columns)}",
        f"| model | {' | '.join(f'`{one.model}`' for one in columns)} |",
        f"| images | {' | '.join(str(one.images) for one in columns)} |",
    ]
    lines += [
        f"| {title} | {' | '.join(cell(one.figures.get(figure), figure) for one in columns)} |"
        for figure, title in FIGURES.items()
    ]
    lines += [
        "",
        f"On BrEaST, never seen, `{start}` is shown images as the default model is, larger than those it",
        "learned from and the mirror image smaller, at its own threshold",
        "([`benchmarks/shown_size.py`](benchmarks/shown_size.py)). Once a model was judged it was fitted a",
        "little longer on all images, these among them, so that they cannot judge it any more",
        "([why](docs/decisions/0005-a-last-fit-on-everything.md)): BUSI and BUS-BRA judge the model before,",
        "and not the one that ships.",
        "",
        "All figures are in [`training/results`](training/results); how the model is made is in",
        "[docs/training.md](docs/training.md#the-model-that-ships).",
    ]
    return "\n".join(lines) + "\n"


def cell(figure: dict[str, Any] | None, name: str = "") -> str:
    """Write a figure with its interval, which a single group does not have."""
    if figure is None or (name == "false_alarms" and figure["n"] < FEWEST_NORMALS):
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
    section = accuracy(read_columns())
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
