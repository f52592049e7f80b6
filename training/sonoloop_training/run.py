"""A training from the data to the bundle, as a generator of events."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from sonoloop import __version__
from sonoloop.errors import TrainingError
from sonoloop.models.bundle import Bundle, Card, save_bundle
from sonoloop.models.predictor import Predictor
from sonoloop_training.cache import cache_samples
from sonoloop_training.calibrate import Case, calibrate
from sonoloop_training.checkpoint import CHECKPOINT, load_averaged
from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.events import Evaluated, Event, Finished
from sonoloop_training.loop import fit
from sonoloop_training.metrics import Score, confusion, score, summarise
from sonoloop_training.recipe import Recipe
from sonoloop_training.splits import PARTS, Part, split

_LIBRARIES = ("torch", "torchvision", "segmentation-models-pytorch", "timm", "lightning", "numpy")


def train(recipe: Recipe, data: Path, out: Path, *, device: str = "auto") -> Iterator[Event]:
    """Make a model: read, split, fit, calibrate, evaluate, write.

    Parameters
    ----------
    recipe : Recipe
        How.
    data : pathlib.Path
        Folder with the datasets; see `sonoloop_training.datasets.find_datasets`.
    out : pathlib.Path
        Takes the checkpoint, ``split.json``, ``results.json`` and the bundle in ``bundle``. A run that broke
        off is gone on with.
    device : str
        See `sonoloop.models.devices.choose_device`.

    Yields
    ------
    Event
        Those of `sonoloop_training.loop.fit`, then `Evaluated` for each part that did not train, then
        `Finished`.

    Raises
    ------
    TrainingError
        If the data are wrong, or `out` holds a finished bundle.
    """
    start = time.monotonic()
    bundle_folder = out / "bundle"
    if bundle_folder.exists():
        raise TrainingError(f"{bundle_folder} holds a finished model; give another --out")
    parts = split(
        find_datasets(data), validation=recipe.split.validation, test=recipe.split.test, key=recipe.split.key
    )
    for part in PARTS:
        if not parts[part]:
            raise TrainingError(f"the data leave nothing for {part}; give more, or change the recipe's split")
    listing = describe_split(parts)
    split_sha256 = hash_split(listing)
    out.mkdir(parents=True, exist_ok=True)
    (out / "split.json").write_text(json.dumps(listing, indent=1), encoding="utf-8")
    size = recipe.model.size
    training = cache_samples(parts["train"], phantoms=recipe.fit.phantoms, size=size)
    validation = cache_samples(parts["validation"], phantoms=0, size=size)
    yield from fit(
        recipe,
        training,
        validation,
        out=out,
        learns_from=split_sha256,
        device=device,
        test=len(parts["test"]),
    )

    network, source = load_averaged(recipe, out / CHECKPOINT)
    # what ships is stored in half precision: that is what is fitted and scored
    network = network.half().float()
    snapshot = {
        "split_sha256": split_sha256,
        "images": {part: len(parts[part]) for part in PARTS},
        "groups": {part: len({s.group for s in parts[part]}) for part in PARTS},
        "datasets": sorted({s.dataset for samples in parts.values() for s in samples}),
        "phantoms": 3 * recipe.fit.phantoms,
        "encoder": source,
        "recipe": json.loads(json.dumps(recipe.to_dict())),
    }
    card = Card(name=recipe.name, spec=recipe.model, snapshot=snapshot, libraries=_versions())
    card = calibrate(card, network, _cases(parts["validation"]), device=device)
    metrics: dict[str, Any] = {}
    for part in PARTS[1:]:
        metrics[part] = evaluate(Predictor(Bundle(card, network), device=device), parts[part])
        yield Evaluated(part=part, metrics=metrics[part])
    card = dataclasses.replace(card, metrics={part: figures["all"] for part, figures in metrics.items()})
    bundle = save_bundle(bundle_folder, network, card)
    results = {"model": bundle.model, "version": bundle.version, **snapshot, "metrics": metrics}
    (out / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    yield Finished(
        model=bundle.model, path=str(bundle_folder), minutes=round((time.monotonic() - start) / 60, 1)
    )


def evaluate(predictor: Predictor, samples: Sequence[Sample]) -> dict[str, Any]:
    """Score a model on samples, all together and each dataset apart, on the images' own grids."""
    scores: list[Score] = []
    for first in range(0, len(samples), predictor.batch):
        cases = _cases(samples[first : first + predictor.batch])
        for case, prediction in zip(cases, predictor.predict_batch([c.frame for c in cases]), strict=True):
            scores.append(
                score(prediction, case.mask, label=case.label, dataset=case.dataset, group=case.group)
            )
    summary = {"all": summarise(scores) | {"confusion": confusion(scores)}}
    for dataset in sorted({s.dataset for s in scores}):
        summary[dataset] = summarise([s for s in scores if s.dataset == dataset])
    return summary


def describe_split(parts: dict[Part, list[Sample]]) -> dict[str, list[str]]:
    """List who is where, as "dataset/name"."""
    return {part: sorted(f"{s.dataset}/{s.name}" for s in parts[part]) for part in PARTS}


def hash_split(listing: dict[str, list[str]]) -> str:
    """SHA-256 of who is where; 64 hex digits."""
    return hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()


def _cases(samples: Sequence[Sample]) -> list[Case]:
    cases = []
    for sample in samples:
        frame, mask = sample.read()
        cases.append(
            Case(frame=frame, mask=mask, label=sample.label, dataset=sample.dataset, group=sample.group)
        )
    return cases


def _versions() -> dict[str, str]:
    return {"sonoloop": __version__} | {name: metadata.version(name) for name in _LIBRARIES}
