"""Numbers of a card fitted on hospitals that were left out: what a new hospital will meet, and home does not.

At the hospitals that train a model it is surer than elsewhere: a threshold, a gate and a temperature that
are fitted there fit nowhere else. Models of the same network that some hospitals had no part in, such as runs
of the recipe with a hospital left out, or the model that it goes on from, tell how sure such a model is of
images from elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Notice, Progress
from sonoloop.models.bundle import Bundle, read_bundle
from sonoloop.models.card import CARD, Card, ModelSpec, read_card
from sonoloop.models.manifest import bundle_manifest
from sonoloop.models.predictor import Predictor
from sonoloop.models.tta import VIEWS
from sonoloop_training.datasets import Sample
from sonoloop_training.evaluation.scores import Case, read_case
from sonoloop_training.fit.calibration import (
    Answers,
    ask,
    fit_line,
    fit_numbers,
    fit_temperature,
    see_foregrounds,
)
from sonoloop_training.fit.recipe import Recipe

OPERATING_POINT = "operating_point"
_EVERY = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOutRun:
    """A finished training, and the images of the hospitals that had no part in it."""

    folder: Path
    card: Card
    sites: tuple[str, ...]
    samples: tuple[Sample, ...]

    def describe(self) -> dict[str, Any]:
        """Tell of it as a card does."""
        return {
            "model": self.card.model,
            "left_out": ", ".join(self.sites),
            "images": len(self.samples),
            "groups": len({sample.group for sample in self.samples}),
        }


def find_runs(
    runs: Sequence[Path], samples: Sequence[Sample], recipe: Recipe
) -> Generator[Notice, None, tuple[LeftOutRun, ...]]:
    """Find in the data what each run left out, and refuse a run whose images say nothing of new hospitals."""
    found = tuple(_find_run(run, samples) for run in runs)
    for place, one in enumerate(found):
        # each counts the same, so that one would count twice
        if any(one.card.version == other.card.version for other in found[:place]):
            raise TrainingError(f"{one.card.model} is given twice with --operating-point; give it once")
        if one.card.spec.heads != recipe.model.heads:
            raise TrainingError(
                f"{one.card.model} tells {' and '.join(one.card.spec.heads)}, the recipe's model does not; "
                "give runs of the same recipe with --operating-point"
            )
        if not _is_shown_alike(one.card, recipe.model):
            yield Notice(message=f"{one.card.model} has another network than the recipe: it may not fit")
    return found


def _find_run(run: Path, samples: Sequence[Sample]) -> LeftOutRun:
    folder = run if (run / CARD).exists() else run / "bundle"
    if not (folder / CARD).exists():
        raise TrainingError(
            f"{run} holds no finished training; give the folders of runs, as written by sonoloop train --out"
        )
    card, listed = read_card(folder), bundle_manifest(folder)
    if listed is None:
        raise TrainingError(f"{run} does not say who trained it; give a run that was made by sonoloop train")
    known = {key for member in listed.known for key in (member.name, member.group)} - {""}
    here = {sample.dataset for sample in samples}
    trained = {sample.dataset for sample in samples if known & {sample.key, sample.group}}
    sites = tuple(sorted(here - trained))
    if not sites:
        raise TrainingError(
            f"every hospital in the data had a part in {run}; give a run that left one out, as by --split "
            f"leave-out:{min(here)}, with final.epochs=0"
        )
    chosen = tuple(sample for sample in samples if sample.dataset in sites)
    return LeftOutRun(folder=folder, card=card, sites=sites, samples=chosen)


def _is_shown_alike(card: Card, spec: ModelSpec) -> bool:
    """Whether a model's network is the one of a specification, at whatever size."""
    return dataclasses.replace(card.spec, size=spec.size) == spec


def _show(bundle: Bundle, card: Card) -> Bundle:
    """Show a network images as large as a card does, where it is of the same kind, and the views likewise."""
    spec = card.spec if _is_shown_alike(bundle.card, card.spec) else bundle.card.spec
    shown = dataclasses.replace(bundle.card, spec=spec, mirror_scale=card.mirror_scale)
    return Bundle(shown, bundle.network)


def fit_operating_point(
    card: Card, runs: Sequence[LeftOutRun], *, device: str = "auto"
) -> Generator[Progress, None, Card]:
    """Fit a card's numbers on what the runs answer to the hospitals they left out, each counting the same."""
    bundles = [_show(read_bundle(run.folder), card) for run in runs]
    sites = []
    for run, bundle in zip(runs, bundles, strict=True):
        predictor = Predictor(bundle, device=device, views=card.views)
        parts: list[Answers] = []
        for cases in _read(run):
            if isinstance(cases, Progress):
                yield cases
            else:
                parts.append(ask(predictor, cases))
        sites.append(Answers.join(parts))
    if "lesion" not in card.spec.heads:
        return dataclasses.replace(card, temperature=fit_temperature(sites))
    if not any(site.lesion.any() for site in sites):
        raise TrainingError("no image that was left out has a lesion, so that nothing can be fitted")
    numbers = dataclasses.asdict(fit_numbers(sites))
    pairs: dict[str, list[tuple[float, float]]] = {str(views): [] for views in VIEWS}
    for run, bundle in zip(runs, bundles, strict=True):
        fitted = Bundle(dataclasses.replace(bundle.card, **numbers), bundle.network)
        predictors = [Predictor(fitted, device=device, views=views) for views in VIEWS]
        for cases in _read(run):
            if isinstance(cases, Progress):
                yield cases
                continue
            for predictor in predictors:
                pairs[str(predictor.views)] += see_foregrounds(predictor, cases)
    lines = {views: fit_line(np.array(told)) for views, told in pairs.items() if told}
    return dataclasses.replace(card, **numbers, agreement={}, foreground=lines)


def _read(run: LeftOutRun) -> Iterator[Progress | list[Case]]:
    """Read what a run left out, a few images at a time."""
    total, sites = len(run.samples), ", ".join(run.sites)
    for first in range(0, total, _EVERY):
        yield Progress(stage=f"Fitting the operating point on {sites}", done=first, total=total)
        yield [read_case(sample) for sample in run.samples[first : first + _EVERY]]
