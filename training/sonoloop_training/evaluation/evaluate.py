"""An evaluation from the data to the report, as a generator of events."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sonoloop.jobs.events import EvaluationDone, Event, Notice, Progress
from sonoloop.models.predictor import Predictor
from sonoloop.models.spec import Head
from sonoloop.store.bootstrap import RESAMPLES
from sonoloop_training.datasets import find_datasets
from sonoloop_training.evaluation.cases import assess
from sonoloop_training.evaluation.model import Judged, load_judged
from sonoloop_training.evaluation.output import check_out, write_out
from sonoloop_training.evaluation.report import write_report
from sonoloop_training.evaluation.scores import MIN_LESION_IOU, NSD_TOLERANCE_MM, NSD_TOLERANCE_PX
from sonoloop_training.evaluation.scores_ import Score, confusion
from sonoloop_training.evaluation.split_list import Listed, choose_part, list_part, read_split_list
from sonoloop_training.evaluation.summary import SIZES, compare, stratify, summarise
from sonoloop_training.evaluation.wording import TITLES, describe_differences, describe_leaks, describe_part
from sonoloop_training.leaks import Leak, find_leaks_in_steps
from sonoloop_training.splits import Part

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
    """Judge a model, or two against each other, and write the report; nothing is written before the end.

    Yields
    ------
    Event
        `Progress`, `Unreadable` and `Notice`, then `EvaluationDone`.

    Raises
    ------
    TrainingError
        If the data, the split or the output folder cannot be used.
    ModelError
        If a model cannot be loaded or run.
    """
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
