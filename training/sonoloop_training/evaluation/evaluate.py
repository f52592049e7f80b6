"""An evaluation from the data to the report, as a generator of events."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sonoloop.atomic import write_together
from sonoloop.errors import ImageError, ModelError, TrainingError
from sonoloop.imaging.grey import check_frame
from sonoloop.jobs.events import EvaluationDone, Event, Notice, Progress, Unreadable
from sonoloop.models.card import Head
from sonoloop.models.predictor import Predictor
from sonoloop.store.metrics import RESAMPLES
from sonoloop.values import CLASSES, Prediction
from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.evaluation.report import write_report
from sonoloop_training.evaluation.scores import (
    MIN_LESION_IOU,
    NSD_TOLERANCE_MM,
    NSD_TOLERANCE_PX,
    Case,
    Score,
    confusion,
    read_case,
    score_case,
)
from sonoloop_training.evaluation.split_list import Listed, choose_part, is_other, list_part, read_split_list
from sonoloop_training.evaluation.summary import (
    SIZES,
    TITLES,
    Judged,
    compare,
    describe_differences,
    describe_leaks,
    describe_part,
    load_judged,
    stratify,
    summarise,
)
from sonoloop_training.leakage import Leak, find_leaks_in_steps, identify
from sonoloop_training.splits import Part


@dataclass(slots=True, kw_only=True)
class Assessment:
    """What came out, filled image by image.

    Parameters
    ----------
    scores : list of list of Score
        One list a model, over the same images in the same order.
    listed : list of Listed
        Those images as a split lists them; empty where nobody asked.
    failures : list of tuple
        Name and reason of each image that could not be judged.
    others : list of str
        Images that were left out since a split lists another one by their name.
    """

    scores: list[list[Score]]
    listed: list[Listed] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def assess(
    samples: Sequence[Sample],
    predictors: Sequence[Predictor],
    *,
    identified: bool,
    stage: str,
    wanted: Mapping[str, Listed] | None = None,
) -> Generator[Event, None, Assessment]:
    """Score every image by every model; one that cannot be read is told and the others go on."""
    found = Assessment(scores=[[] for _ in predictors])
    batch = max(predictor.batch for predictor in predictors)
    for first in range(0, len(samples), batch):
        cases: list[Case] = []
        for sample in samples[first : first + batch]:
            try:
                case = read_case(sample)
                name = f"{case.dataset}/{case.name}"
                if wanted is not None and is_other(case.frame, wanted.get(name)):
                    found.others.append(name)
                    continue
                check_frame(case.frame)
                cases.append(case)
            except (ImageError, TrainingError) as error:
                yield _refuse(found, f"{sample.dataset}/{sample.name}", error)
        for case, predictions in _predict(cases, predictors):
            if isinstance(predictions, ModelError):
                yield _refuse(found, f"{case.dataset}/{case.name}", predictions)
                continue
            for scores, prediction in zip(found.scores, predictions, strict=True):
                scores.append(score_case(prediction, case))
            if identified:
                found.listed.append(identify(case))
        yield Progress(stage=stage, done=min(first + batch, len(samples)), total=len(samples))
    if len(found.others) == len(samples):
        raise TrainingError(
            f"all {len(samples)} images have the names of others that the split lists, as {found.others[0]}; "
            "give the data that the split was made of, or --part all"
        )
    if not found.scores[0]:
        raise TrainingError(
            f"none of the {len(samples)} images could be judged; the first, {found.failures[0][0]}: "
            f"{found.failures[0][1]}"
        )
    return found


def _predict(
    cases: Sequence[Case], predictors: Sequence[Predictor]
) -> Iterator[tuple[Case, tuple[Prediction, ...] | ModelError]]:
    try:
        frames = [case.frame for case in cases]
        # first, so that nothing is given before all models have answered
        answers = [predictor.predict_batch(frames) for predictor in predictors]
    except ModelError as error:  # too little memory, even for one image
        if len(cases) == 1:
            yield cases[0], error
            return
        for case in cases:
            yield from _predict([case], predictors)
        return
    yield from zip(cases, zip(*answers, strict=True), strict=True)


def _refuse(found: Assessment, name: str, error: Exception) -> Unreadable:
    found.failures.append((name, str(error)))
    return Unreadable(image=name, error=str(error))


RESULTS, CASES, REPORT = "results.json", "cases.csv", "report.html"
MADE_BY = "sonoloop evaluate"


def check_out(out: Path) -> None:
    """Refuse a folder whose files of these names are somebody else's; earlier evaluations are replaced."""
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


FORMAT = 1
_EVERY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What to evaluate, and on what.

    Parameters
    ----------
    data : pathlib.Path
        Folder with the datasets; see `sonoloop_training.datasets.find_datasets`.
    model, versus : str, optional
        Name or folder of a model; the shipped one unless given. With `versus` both are judged and compared.
    part : str
        "all", or the part of the split that judges.
    split : pathlib.Path, optional
        Says which images the parts are, in place of the first model's own; and who trained a model that does
        not say so itself.
    out : pathlib.Path, optional
        ``evaluation/MODEL-PART`` below the working folder unless given.
    device : str
        See `sonoloop.models.devices.choose_device`.
    views : int, optional
        See `sonoloop.models.predictor.Predictor`.
    batch : int
        Images at a time.
    """

    data: Path
    model: str | None = None
    versus: str | None = None
    part: Literal["all"] | Part = "all"
    split: Path | None = None
    out: Path | None = None
    device: str = "auto"
    views: int | None = None
    batch: int = 8


def evaluate(wanted: Evaluation) -> Iterator[Event]:
    """Judge a model, or two against each other, and write the report; nothing is written before the end."""
    names = [wanted.model] if wanted.versus is None else [wanted.model, wanted.versus]
    given = read_split_list(wanted.split) if wanted.split else None
    models = [load_judged(name, split=given) for name in names]
    out = wanted.out or Path("evaluation") / "-".join(
        ["-versus-".join(model.bundle.model for model in models), wanted.part]
    )
    check_out(out)
    samples = find_datasets(wanted.data)
    listed: dict[str, Listed] = {}
    if wanted.part != "all":
        listed = list_part(wanted.part, given or models[0].split)
        samples = choose_part(samples, wanted.part, listed)
    notices: list[str] = []
    predictors = [
        Predictor(
            model.bundle,
            device=wanted.device,
            batch=wanted.batch,
            views=wanted.views,
            on_notice=notices.append,
        )
        for model in models
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
    judged = []
    for model, predictor, scores in zip(models, predictors, found.scores, strict=True):
        leaks = yield from _look_for_leaks(model, found.listed)
        notices += describe_leaks(model, leaks, found.listed)
        judged.append(_judge(model, predictor, scores, leaks))
        yield Progress(stage="Computing figures", done=len(judged), total=len(models))
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
        "models": judged,
        "comparison": _compare(models, found.scores, judged) if wanted.versus is not None else None,
    }
    for text in notices:
        yield Notice(message=text)
    page = yield from write_report(results, models, predictors, found.scores, samples)
    write_out(
        out,
        results,
        [
            (model.bundle.model, scores, _leaked_images(model, scores, entry))
            for model, scores, entry in zip(models, found.scores, judged, strict=True)
        ],
        page,
    )
    yield EvaluationDone(out=str(out), results=results)


def _look_for_leaks(model: Judged, listed: Sequence[Listed]) -> Generator[Event, None, list[Leak]]:
    """Compare with the model's training images, if they are known."""
    if model.split is None:
        return []
    stage = "Looking for training images"
    return (yield from find_leaks_in_steps(listed, model.split["train"], stage=stage, every=_EVERY))


def _judge(
    model: Judged, predictor: Predictor, scores: Sequence[Score], leaks: Sequence[Leak]
) -> dict[str, Any]:
    heads = model.bundle.card.spec.heads
    leaked = {leak.image for leak in leaks}
    clean = [score for score in scores if score.key not in leaked]
    return {
        "model": model.bundle.model,
        "version": model.bundle.version,
        "heads": list(heads),
        "device": predictor.device,
        "precision": predictor.precision,
        "views": predictor.views,
        "threshold": predictor.threshold,
        "leaked": bool(leaks) or model.leaky_by_design,
        "training_known": model.split is not None,
        "leaks": [asdict(leak) for leak in leaks],
        "figures": _figures(scores, heads),
        "figures_without_leaks": _figures(clean, heads) if leaks and clean else None,
        "strata": stratify(scores, heads=heads),
    }


def _leaked_images(model: Judged, scores: Sequence[Score], entry: dict[str, Any]) -> frozenset[str] | None:
    """Name the images that say nothing of the model; None where that cannot be known."""
    if model.leaky_by_design:
        return frozenset(score.key for score in scores)
    return None if model.split is None else frozenset(leak["image"] for leak in entry["leaks"])


def _figures(scores: Sequence[Score], heads: Sequence[Head]) -> dict[str, Any]:
    figures = summarise(scores, heads=heads)
    return figures | {"confusion": confusion(scores)} if "classes" in heads else figures


def _compare(
    models: Sequence[Judged], scores: Sequence[Sequence[Score]], judged: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Compare on all images, or without those that trained either model."""
    one, other = models
    heads = [head for head in one.bundle.card.spec.heads if head in other.bundle.card.spec.heads]
    leaked = {leak["image"] for model in judged for leak in model["leaks"]}
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
