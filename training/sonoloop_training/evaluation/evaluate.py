"""An evaluation from the data to its three files, as a generator of events."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sonoloop.atomic import find_obstacle, write_together
from sonoloop.errors import TrainingError
from sonoloop.jobs.events import EvaluationDone, Event, Notice, Progress
from sonoloop.jobs.request import EvaluateRequest
from sonoloop.leakage import Leak
from sonoloop.models.card import Head
from sonoloop.models.engines.auto import open_engine
from sonoloop.models.library import bundle_folder
from sonoloop.models.manifest import SPLIT, Manifest, Member, read_manifest
from sonoloop.models.predictor import Predictor
from sonoloop.plain_text import to_cells
from sonoloop.regular_files import read_regular
from sonoloop.store.metrics import RESAMPLES
from sonoloop.values import CLASSES
from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.datasets.pack import describe_packed
from sonoloop_training.evaluation.report import write_report
from sonoloop_training.evaluation.scores import (
    MIN_LESION_IOU,
    NSD_TOLERANCE_MM,
    NSD_TOLERANCE_PX,
    Score,
    assess,
    confusion,
)
from sonoloop_training.evaluation.summary import (
    SIZES,
    STRATUM,
    TITLES,
    EvaluatedModel,
    compare,
    describe_differences,
    describe_leaks,
    describe_part,
    load_model,
    mark_hospital,
    stratify,
    summarise,
)
from sonoloop_training.leakage import find_leaks_in_steps
from sonoloop_training.splits import Part

RESULTS, CASES, REPORT = "results.json", "cases.csv", "report.html"
MADE_BY = "sonoloop evaluate"
FORMAT = 1
_MOST_BYTES = 1 << 30
_EVERY = 100


def evaluate(wanted: EvaluateRequest) -> Iterator[Event]:
    """Evaluate a model, or two and compare them; nothing is written before the end."""
    names = [wanted.model] if wanted.versus is None else [wanted.model, wanted.versus]
    given = read_manifest(wanted.split) if wanted.split else None
    models = [load_model(name, split=given) for name in names]
    out = wanted.out or Path("evaluation") / "-".join(
        ["-versus-".join(model.bundle.model for model in models), wanted.part]
    )
    check_out(out)
    samples = find_datasets(wanted.data)
    listed: dict[str, Member] = {}
    if wanted.part != "all":
        listed = _list_part(wanted.part, given or models[0].split)
        samples = _choose_part(samples, wanted.part, listed)
    shown = max(model.bundle.card.spec.size for model in models)
    notices = describe_packed(samples, shown=shown)
    predictors = [
        Predictor(
            # it is loaded in torch already, which draws the report
            model.bundle
            if wanted.engine == "torch"
            else open_engine(
                bundle_folder(name), wanted.device, engine=wanted.engine, on_notice=notices.append
            ),
            device=wanted.device,
            batch=wanted.batch,
            views=wanted.views,
            on_notice=notices.append,
        )
        for name, model in zip(names, models, strict=True)
    ]
    found = yield from assess(
        samples,
        predictors,
        identified=any(model.split is not None for model in models),
        stage="Evaluating",
        wanted=listed,
    )
    if wanted.part != "all":
        notices += describe_part(
            wanted.part, here=len(samples) - len(found.others), listed=len(listed), others=found.others
        )
    entries, tables = [], []
    for model, predictor, scores in zip(models, predictors, found.scores, strict=True):
        leaks = yield from _find_leaks(model, found.listed)
        notices += describe_leaks(model, leaks, found.listed)
        entries.append(_summarise(model, predictor, scores, leaks))
        tables.append((model.bundle.model, scores, _leaked_images(model, scores, leaks)))
        yield Progress(stage="Computing figures", done=len(entries), total=len(models))
    results: dict[str, Any] = {
        "format": FORMAT,
        "part": wanted.part,
        "images": len(found.scores[0]),
        "groups": len({score.group for score in found.scores[0]}),
        "datasets": sorted({score.dataset for score in found.scores[0]}),
        "failures": [{"image": image, "error": error} for image, error in found.failures],
        "rules": _rules(),
        "titles": TITLES,
        "notices": notices,
        "models": entries,
        "comparison": _compare(models, found.scores, entries) if wanted.versus is not None else None,
    }
    for text in notices:
        yield Notice(message=text)
    page = yield from write_report(results, models, predictors, found.scores, samples)
    write_out(out, results, tables, page)
    yield EvaluationDone(out=str(out), results=results)


def _list_part(part: Part, split: Manifest | None) -> dict[str, Member]:
    """List by name the images that a split calls `part`."""
    if split is None:
        raise TrainingError(
            f"the model does not say which images are its {part} part; give the training's {SPLIT} "
            "with --split"
        )
    if not split[part]:
        raise TrainingError(
            f"the split lists no image for {part}, as where all trained in the end; give the split of the "
            "training's first stage with --split, or other images with --part all"
        )
    return {listed.name: listed for listed in split[part]}


def _choose_part(samples: Sequence[Sample], part: Part, listed: Mapping[str, Member]) -> list[Sample]:
    """Keep the samples of the names that `_list_part` gave."""
    chosen = [sample for sample in samples if sample.key in listed]
    if not chosen:
        raise TrainingError(
            f"none of the {len(samples)} images in the data is in the {part} part of the split, which has "
            f"{len(listed)}; give the data that the model was trained on, or --part all"
        )
    return chosen


def _find_leaks(model: EvaluatedModel, listed: Sequence[Member]) -> Generator[Event, None, list[Leak]]:
    """Compare with the model's training images, if they are known."""
    if model.split is None:
        return []
    stage = "Looking for training images"
    return (yield from find_leaks_in_steps(listed, model.split.train, stage=stage, every=_EVERY))


def _summarise(
    model: EvaluatedModel, predictor: Predictor, scores: Sequence[Score], leaks: Sequence[Leak]
) -> dict[str, Any]:
    heads = model.bundle.card.spec.heads
    leaked = {leak.image for leak in leaks}
    clean = [score for score in scores if score.key not in leaked]
    strata = stratify(scores, heads=heads)
    known = model.hospitals
    if known is not None:
        # of images without a name, such as corrections, a copy tells
        known |= {leak.image.partition("/")[0] for leak in leaks}
    marks = {dataset: mark_hospital(dataset, known) for dataset in strata["dataset"]}
    for dataset, part in strata["dataset"].items():
        part["hospital"] = marks[dataset]
    if len(together := set(marks.values())) > 1:
        # those that are known, and those that are not, together
        strata["hospital"] = {
            mark: summarise([s for s in scores if marks[s.dataset] == mark], heads=heads, keys=STRATUM)
            for mark in sorted(together)
        }
    return {
        "model": model.bundle.model,
        "version": model.bundle.version,
        "heads": list(heads),
        "device": predictor.device,
        "engine": predictor.engine_name,
        "precision": predictor.precision,
        "views": predictor.views,
        "threshold": predictor.threshold,
        "leaked": bool(leaks) or model.leaky_by_design,
        "training_known": model.split is not None,
        "leaks": [asdict(leak) for leak in leaks],
        "figures": _figures(scores, heads),
        "figures_without_leaks": _figures(clean, heads) if leaks and clean else None,
        "strata": strata,
    }


def _leaked_images(
    model: EvaluatedModel, scores: Sequence[Score], leaks: Sequence[Leak]
) -> frozenset[str] | None:
    """Name the images that say nothing of the model; None where that cannot be known."""
    if model.leaky_by_design:
        return frozenset(score.key for score in scores)
    return None if model.split is None else frozenset(leak.image for leak in leaks)


def _figures(scores: Sequence[Score], heads: Sequence[Head]) -> dict[str, Any]:
    figures = summarise(scores, heads=heads)
    return figures | {"confusion": confusion(scores)} if "classes" in heads else figures


def _compare(
    models: Sequence[EvaluatedModel], scores: Sequence[Sequence[Score]], entries: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Compare on all images, or without those that trained either model."""
    one, other = models
    heads = [head for head in one.bundle.card.spec.heads if head in other.bundle.card.spec.heads]
    leaked = {leak["image"] for entry in entries for leak in entry["leaks"]}
    kept = [[score for score in own if score.key not in leaked] for own in scores]
    left_out = len(scores[0]) - len(kept[0])
    differences = compare(*kept, heads=heads) if kept[0] else {}
    return {
        "one": one.bundle.model,
        "other": other.bundle.model,
        "images": len(kept[0]),
        "left_out": left_out,
        # nothing can be left out that would make such a model's figures honest
        "leaked": any(model.leaky_by_design for model in models),
        "differences": differences,
        "in_words": describe_differences(one.bundle.model, other.bundle.model, differences),
    }


def _rules() -> dict[str, Any]:
    return {
        "resamples": RESAMPLES,
        "nsd_tolerance_px": NSD_TOLERANCE_PX,
        "nsd_tolerance_mm": NSD_TOLERANCE_MM,
        "lesion_iou": MIN_LESION_IOU,
        "sizes": {name: list(bounds) for name, bounds in SIZES.items()},
    }


def check_out(out: Path) -> None:
    """Refuse a folder whose files of these names are somebody else's; earlier evaluations are replaced."""
    if obstacle := find_obstacle(out):
        raise TrainingError(f"{obstacle}; give a folder with --out")
    taken = [name for name in (RESULTS, CASES, REPORT) if os.path.lexists(out / name)]
    if taken and not _is_ours(out / RESULTS):
        raise TrainingError(
            f"{out / taken[0]} was not written by `{MADE_BY}` and would be lost; give another --out"
        )


# id and scores of a model, and which images had trained it, as far as that is known
Scored = tuple[str, Sequence[Score], Collection[str] | None]


def write_out(out: Path, results: dict[str, Any], models: Sequence[Scored], page: str) -> None:
    """Write the three files beside their places and move them there together."""
    files = {
        CASES: cases_table(models),
        REPORT: page,
        # last: it says that the others are ours
        RESULTS: json.dumps({"made_by": MADE_BY, **results}, indent=1, allow_nan=False) + "\n",
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_together({out / name: text for name, text in files.items()})
    except OSError as error:
        raise TrainingError(f"cannot write into {out} ({error.strerror}); give another --out") from error


def cases_table(models: Sequence[Scored]) -> str:
    """Return the scores as CSV, a row an image and model; what does not exist is empty."""
    text = io.StringIO()
    rows = [_row(model, score, leaked) for model, scores, leaked in models for score in scores]
    table = csv.writer(text, lineterminator="\n")
    table.writerow(rows[0])
    table.writerows(to_cells(row.values()) for row in rows)
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
        values = json.loads(read_regular(path, most=_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and values.get("made_by") == MADE_BY
