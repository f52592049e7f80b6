"""The folder of an evaluation: ``results.json``, ``cases.csv`` and ``report.html``, all or none."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from sonoloop.errors import TrainingError
from sonoloop.values import CLASSES
from sonoloop_training.evaluation.scores_ import Score

RESULTS, CASES, REPORT = "results.json", "cases.csv", "report.html"
MADE_BY = "sonoloop evaluate"


def check_out(out: Path) -> None:
    """Refuse a folder whose files of these names are somebody else's; earlier evaluations are replaced.

    Raises
    ------
    TrainingError
        If `out` is a file, or holds such a file.
    """
    if out.exists() and not out.is_dir():
        raise TrainingError(f"{out} is a file; give a folder with --out")
    taken = [name for name in (RESULTS, CASES, REPORT) if (out / name).exists()]
    if taken and not _is_ours(out / RESULTS):
        raise TrainingError(
            f"{out / taken[0]} was not written by `{MADE_BY}` and would be lost; give another --out"
        )


# id and scores of a model, and which images had trained it, as far as that is known
Scored = tuple[str, Sequence[Score], Collection[str] | None]


def write_out(out: Path, results: dict[str, Any], models: Sequence[Scored], page: str) -> None:
    """Write the three files beside their places and move them there together.

    Parameters
    ----------
    out : pathlib.Path
        Made where it is not there.
    results : dict
        What JSON can hold.
    models : sequence of tuple
        Of each its id and scores, and the images that are leaked; None where that is not known.
    page : str
        The report.

    Raises
    ------
    TrainingError
        If the folder cannot be written to; what was in it is still there.
    """
    files = {
        CASES: cases_table(models),
        REPORT: page,
        # last: it says that the others are ours
        RESULTS: json.dumps({"made_by": MADE_BY, **results}, indent=1, allow_nan=False) + "\n",
    }
    partial = {name: out / f".{name}.part" for name in files}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            partial[name].write_text(text, encoding="utf-8", newline="")
        for name in files:
            partial[name].replace(out / name)
    except OSError as error:
        raise TrainingError(f"cannot write into {out} ({error.strerror}); give another --out") from error
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)


def cases_table(models: Sequence[Scored]) -> str:
    """Return the scores as CSV, a row an image and model; what does not exist is empty."""
    text = io.StringIO()
    rows = [_row(model, score, leaked) for model, scores, leaked in models for score in scores]
    table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _row(model: str, score: Score, leaked: Collection[str] | None) -> dict[str, object]:
    pixels, millimetres = score.pixels, score.millimetres
    values: dict[str, object] = {
        "image": score.key,
        "model": model,
        "leaked": "" if leaked is None else int(score.key in leaked),
        "dataset": score.dataset,
        "group": score.group,
        "scanner": score.scanner,
        "overlay": "" if score.overlay is None else int(score.overlay),
        "class": score.label,
        "area": score.area,
        "predicted_area": score.predicted_area,
        "dice": score.dice,
        "iou": score.iou,
        "hd95_px": pixels and pixels.hd95,
        "assd_px": pixels and pixels.assd,
        "nsd": pixels and pixels.nsd,
        "hd95_mm": millimetres and millimetres.hd95,
        "assd_mm": millimetres and millimetres.assd,
        "nsd_mm": millimetres and millimetres.nsd,
        "lesions": score.counts.lesions,
        "found": score.counts.found,
        "false_positives": score.counts.false_positives,
        "expected_dice": score.expected_dice,
        "foreground": score.foreground,
        "predicted_class": score.predicted,
        **{f"p_{name}": p for name, p in zip(CLASSES, score.probabilities, strict=True)},
    }
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()}


def _is_ours(path: Path) -> bool:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and values.get("made_by") == MADE_BY
