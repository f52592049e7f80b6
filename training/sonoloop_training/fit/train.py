"""A training from the data to the bundle, as a generator of events."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Picture

from sonoloop import __version__
from sonoloop.atomic import find_obstacle, write_whole
from sonoloop.errors import ImageError, ModelError, TrainingError
from sonoloop.formats.folder_lock import FolderLock
from sonoloop.formats.mask_png import refuse_others, write_png
from sonoloop.imaging.fingerprints import fingerprint
from sonoloop.imaging.grey import check_frame
from sonoloop.imaging.overlay import draw_overlay
from sonoloop.jobs.events import Evaluated, Event, Finished, Notice, Progress
from sonoloop.models.bundle import Bundle, save_bundle, seal
from sonoloop.models.card import PARITY, Card
from sonoloop.models.devices import choose_device
from sonoloop.models.engines.parity import MOST_CASES, check_graph_answers
from sonoloop.models.manifest import SPLIT, Manifest, Member, hash_listing
from sonoloop.models.networks import build_network, outline_network
from sonoloop.models.predictor import Predictor
from sonoloop.models.tta import SMALLER
from sonoloop.regular_files import read_regular
from sonoloop_training.augment import build_augmentation
from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.datasets.pack import packed_size
from sonoloop_training.evaluation.scores import Case, assess, confusion, read_case
from sonoloop_training.evaluation.summary import mark_hospital, summarise
from sonoloop_training.fit.batches import cache_samples, make_batch
from sonoloop_training.fit.calibration import calibrate
from sonoloop_training.fit.checkpoint import read_checkpoint
from sonoloop_training.fit.devices import count_workers
from sonoloop_training.fit.fitting import Fitting, Weights, fit_channels
from sonoloop_training.fit.loop import CHECKPOINT, HISTORY, fit
from sonoloop_training.fit.operating_point import (
    OPERATING_POINT,
    LeftOutRun,
    find_runs,
    fit_operating_point,
)
from sonoloop_training.fit.preflight import check_recipe
from sonoloop_training.fit.recipe import FitConfig, Recipe
from sonoloop_training.leakage import inherit, leave_out_copies
from sonoloop_training.splits import LEFT_OUT, PARTS, Part, apply_split, describe_folds, write_folds

T = TypeVar("T")

FINAL, FOLDS, RESULTS = "final.pt", "folds.json", "results.json"
FINAL_HISTORY, _BUNDLE = "final.jsonl", "bundle"
# of a list or of figures that are looked at before they are replaced
_MOST_BYTES = 1 << 30
_LIBRARIES = ("torch", "torchvision", "segmentation-models-pytorch", "timm", "lightning", "numpy")
_MADE_BY = "sonoloop train --show-augment"
_EVERY = 16
# of an augmentation that is drawn: so many images before and after, and tiles a row
PAIRS, _COLUMNS = 32, 8
_LISTED_EVERY = 50


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    device: str = "auto",
    max_minutes: float | None = None,
    workers: int | None = None,
    operating_point: Sequence[Path] = (),
) -> Iterator[Event]:
    """Make a model: read, split, fit, calibrate, evaluate, fit once more on all if asked to, write.

    Its numbers are fitted on validation, or on the hospitals that the runs in `operating_point` left out.
    """
    many = count_workers(choose_device(device)) if workers is None else workers
    with ExitStack() as held:
        yield from _train(
            recipe,
            data,
            out,
            held,
            device=device,
            max_minutes=max_minutes,
            workers=many,
            operating_point=operating_point,
        )


def _train(
    recipe: Recipe,
    data: Path,
    out: Path,
    held: ExitStack,
    *,
    device: str,
    max_minutes: float | None,
    workers: int,
    operating_point: Sequence[Path],
) -> Iterator[Event]:
    """Make a model, and hold the lock of its folder from the first byte that is written."""
    check_out(out)
    recipe.fit.check_device(choose_device(device).type)
    _blank_card(recipe, leaked=False)
    samples = find_datasets(data)
    runs = yield from find_runs(operating_point, samples, recipe)
    parts = apply_split(recipe.split, samples)
    yield from check_recipe(recipe, parts)
    # every image is read once before anything is written or learned: what cannot be used is told now
    members = yield from list_members(parts)
    parts, members = yield from leave_out_copies(recipe, parts, members)
    listing = describe_split(parts, samples)
    inherited: tuple[Member, ...] = ()
    leaked = recipe.split.method == "leaky"
    if recipe.fit.start:
        inherited, spoilt = yield from inherit(recipe.fit.start, members, split_sha256=hash_listing(listing))
        leaked = leaked or spoilt
    card = _blank_card(recipe, leaked=leaked)
    size, phantoms = recipe.fit.size or recipe.model.size, recipe.fit.phantoms
    training = yield from cache_samples(parts["train"], phantoms=phantoms, size=size)
    validation = yield from cache_samples(parts["validation"], size=recipe.model.size)
    # under torchrun the others only learn
    speaks = int(os.environ.get("RANK", "0")) == 0

    def write_split() -> None:
        _write(out / SPLIT, listing, "make room, or give another --out")
        if (folds := describe_folds(recipe.split, samples)) is not None:
            write_folds(out / FOLDS, folds)

    fitting = fit(
        recipe,
        training,
        validation,
        out=out,
        learns_from=hash_listing(listing),
        device=device,
        test=len(parts["test"]),
        max_minutes=_share(recipe, max_minutes),
        follows=_final_epochs(recipe, parts),
        workers=workers,
        on_begun=write_split if speaks else lambda: None,
    )
    started = next(fitting)
    if speaks:
        held.callback(_lock(out).release)
    yield started
    fitted = yield from fitting
    if speaks:
        card, metrics = yield from _evaluate_parts(card, fitted.kept, parts, runs, device=device)

    weights, final, minutes = fitted.kept, None, fitted.minutes
    if recipe.final.epochs:
        everyone = [sample for part in PARTS for sample in parts[part]]
        members = Manifest(train=tuple(m for part in PARTS for m in members[part]))
        cached = yield from cache_samples(everyone, phantoms=phantoms, size=size)
        last = yield from fit(
            dataclasses.replace(recipe, fit=_final_fit(recipe)),
            cached,
            # all images train, so that none is left to validate on
            None,
            out=out,
            learns_from=hash_listing({"train": listing}),
            device=device,
            checkpoint=FINAL,
            start=weights,
            max_minutes=None if max_minutes is None else max_minutes - fitted.minutes,
            workers=workers,
        )
        weights, final = last.kept, {"images": len(everyone), "epochs": last.epoch}
        minutes += last.minutes
    if not speaks:
        return
    members = dataclasses.replace(members, train=members.train + inherited)
    snapshot = _snapshot(recipe, parts, fitted) | {
        "leaked": leaked,
        "split_sha256": hash_listing(listing),
        "members_sha256": members.sha256,
        "final": final,
        "minutes": round(minutes, 1),
        **({OPERATING_POINT: [run.describe() for run in runs]} if runs else {}),
    }
    network = as_shipped(card, weights)
    graph, parity = yield from write_graph(
        recipe.fit, card, network, _read_usable(pick_evenly([*parts["test"], *parts["validation"]]))
    )
    card = dataclasses.replace(
        seal(card, network, graph),
        snapshot=snapshot,
        metrics={part: figures["all"] for part, figures in metrics.items()} | parity,
    )
    # before the bundle, which ends the run: a run without results could not be gone on with
    _write(
        out / RESULTS,
        {
            "model": card.model,
            "version": card.version,
            **snapshot,
            "metrics": metrics,
            **parity,
            "history": fitted.entries,
        },
        "what was learned is kept: make room on the disk, then the same command again",
    )
    save_bundle(
        out / _BUNDLE,
        network,
        card,
        graph=graph,
        beside={
            SPLIT: members.to_json(),
            "history.json": json.dumps(fitted.entries, indent=1).encode(),
        },
    )
    yield Finished(model=card.model, path=str(out / _BUNDLE), minutes=round(minutes, 1))


def check_out(out: Path) -> None:
    """Refuse a folder in which what a training writes would take the place of what it did not write.

    Its checkpoint, which it writes first, tells that the rest is its own.
    """
    if obstacle := find_obstacle(out):
        raise TrainingError(f"{obstacle}; give a folder with --out")
    if os.path.lexists(out / _BUNDLE):
        raise TrainingError(f"{out / _BUNDLE} holds a finished model; give another --out")
    names = (CHECKPOINT, FINAL, HISTORY, FINAL_HISTORY, SPLIT, FOLDS, RESULTS)
    there = [out / name for name in names if os.path.lexists(out / name)]
    pipes = [path for path in there if not path.is_file()]
    held = {
        path.name: read_checkpoint(path, mapped=True)
        for path in there
        if path.name in (CHECKPOINT, FINAL) and path not in pipes
    }
    others = pipes or [
        path
        for path in there
        if path.name not in held and not (CHECKPOINT in held and _is_of(path, held[CHECKPOINT]))
    ]
    if others:
        raise TrainingError(
            f"{', '.join(map(str, others))} would be replaced, and nothing in {out} shows that a training "
            "wrote it; move it away, or give another --out"
        )


def _lock(out: Path) -> FolderLock:
    try:
        out.mkdir(parents=True, exist_ok=True)
        return FolderLock(out, "train")
    except OSError as error:
        raise TrainingError(
            f"{out} cannot be written to ({error.strerror}); make room, or give another --out"
        ) from error


def _is_of(path: Path, checkpoint: Mapping[str, Any]) -> bool:
    """Whether a file is what the training with this checkpoint wrote, or half of it after a power cut."""
    try:
        text = read_regular(path, most=_MOST_BYTES)
        if path.name in (HISTORY, FINAL_HISTORY):
            return all({"epoch", "loss"} <= json.loads(line).keys() for line in text.splitlines())
        values = json.loads(text)
        if path.name == FOLDS:
            return bool(values.keys() == {"folds"})
        learned_from = hash_listing(values) if path.name == SPLIT else values["split_sha256"]
        return bool(learned_from == checkpoint["learns_from"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def describe_split(
    parts: Mapping[Part, Sequence[Sample]], samples: Sequence[Sample] = ()
) -> dict[str, list[str]]:
    """List who is where, and who of `samples` is nowhere if there are any, as "dataset/name"."""
    listing: dict[str, list[str]] = {
        part: sorted(f"{s.dataset}/{s.name}" for s in parts[part]) for part in PARTS
    }
    placed = {name for names in listing.values() for name in names}
    left_out = sorted({f"{s.dataset}/{s.name}" for s in samples} - placed)
    return listing | {LEFT_OUT: left_out} if left_out else listing


def list_members(parts: Mapping[Part, Sequence[Sample]]) -> Generator[Progress, None, Manifest]:
    """List every image so that it, and a near copy of it, is known again wherever it lies."""
    total, done = sum(len(samples) for samples in parts.values()), 0
    members: dict[Part, list[Member]] = {part: [] for part in PARTS}
    for part in PARTS:
        for sample in parts[part]:
            if done % _LISTED_EVERY == 0:
                yield Progress(stage="Listing", done=done, total=total)
            frame, _ = sample.read()
            member = Member(
                name=f"{sample.dataset}/{sample.name}",
                group=sample.group,
                id=frame.id,
                pixels_hash=frame.pixels_hash,
                fingerprint=sample.fingerprint or fingerprint(frame.pixels),
            )
            members[part].append(member)
            done += 1
    return Manifest(**{part: tuple(listed) for part, listed in members.items()})


def evaluate(
    predictor: Predictor, samples: Sequence[Sample], *, known: Collection[str], stage: str = "Evaluating"
) -> Generator[Event, None, dict[str, Any]]:
    """Score a model on samples, all together and each dataset apart, on the images' own grids.

    `known` are the datasets that had a say in it.
    """
    heads = predictor.card.spec.heads
    assessed = yield from assess(samples, [predictor], identified=False, stage=stage)
    scores = assessed.scores[0]
    summary = {"all": summarise(scores, heads=heads) | {"confusion": confusion(scores)}}
    for dataset in sorted({s.dataset for s in scores}):
        own = summarise([s for s in scores if s.dataset == dataset], heads=heads)
        summary[dataset] = own | {"hospital": mark_hospital(dataset, known)}
    return summary


def _evaluate_parts(
    card: Card,
    weights: Weights,
    parts: Mapping[Part, Sequence[Sample]],
    runs: Sequence[LeftOutRun],
    *,
    device: str,
) -> Generator[Event, None, tuple[Card, dict[str, Any]]]:
    """Fit the card's numbers on validation, or on what the runs left out, and score validation and test."""
    spec = card.spec
    if spec.takes_prompts:
        # its numbers and figures are those without prompts
        card = dataclasses.replace(card, spec=spec.without_prompts)
        weights = fit_channels(weights, outline_network(card.spec).state_dict())
    network = as_shipped(card, weights)
    if runs:
        card = yield from fit_operating_point(card, runs, device=device)
    else:
        cases = yield from _read_cases(parts["validation"])
        card = calibrate(card, network, cases, device=device)
    predictor = Predictor(Bundle(card, network), device=device)
    known = {sample.dataset for part in PARTS[:2] for sample in parts[part]}
    metrics: dict[str, Any] = {}
    for part in PARTS[1:]:
        stage = f"Evaluating on {part}"
        metrics[part] = yield from evaluate(predictor, parts[part], known=known, stage=stage)
        yield Evaluated(part=part, metrics=metrics[part])
    return dataclasses.replace(card, spec=spec), metrics


def _blank_card(recipe: Recipe, *, leaked: bool) -> Card:
    # the mark goes wherever the model's name goes
    name = f"{recipe.name}-leaked" if leaked else recipe.name
    try:
        return Card(name=name, spec=recipe.model, mirror_scale=SMALLER, libraries=library_versions())
    except ValueError as error:
        raise TrainingError(f"no model can have the recipe's name: {error}") from error


def _share(recipe: Recipe, minutes: float | None) -> float | None:
    """Of the time allowed, what the first fit may take; the last one takes the rest."""
    epochs = recipe.fit.epochs
    return None if minutes is None else minutes * epochs / (epochs + recipe.final.epochs)


def _final_epochs(recipe: Recipe, parts: Mapping[Part, Sequence[Sample]]) -> float:
    """Count the last fit's epochs, as so many of the first one's: all images may take more steps."""
    more = 1.0 if recipe.fit.draws else sum(map(len, parts.values())) / len(parts["train"])
    return recipe.final.epochs * more


def _final_fit(recipe: Recipe) -> FitConfig:
    final = recipe.final
    return dataclasses.replace(
        recipe.fit,
        epochs=final.epochs,
        small_epochs=0,
        patience=0,
        learning_rate=final.learning_rate,
        encoder_learning_rate=final.encoder_learning_rate,
        blend=final.blend,
    )


def as_shipped(card: Card, weights: Weights) -> torch.nn.Module:
    """Build a network of weights in half precision: that is what is stored, and so what is tested."""
    network = build_network(card.spec)
    network.load_state_dict(weights)
    return network.half().float().eval()


def write_graph(
    config: FitConfig, card: Card, network: torch.nn.Module, cases: Iterable[Case]
) -> Generator[Event, None, tuple[bytes | None, dict[str, Any]]]:
    """Write a network as a graph that answers as it does; gives it, and what a card's metrics say of it.

    Where that cannot be, a notice says why, and the model does without. The `cases` are what it is tried on,
    simulated ones where there are none; they are read when it is there.
    """
    if not config.graph:
        return None, {}
    from sonoloop.models.graph import make_graph, prove_graph  # noqa: PLC0415 - takes seconds, at the end

    yield Progress(stage="Writing the graph", done=0, total=2)
    try:
        # where a GPU trained or validated it is there still
        graph = make_graph(network.cpu(), card.spec)
        prove_graph(graph, network, card)
        yield Progress(stage="Writing the graph", done=1, total=2)
        known = [(case.frame, case.mask.astype(np.uint8)) for case in cases]
        parity = check_graph_answers(graph, Bundle(card, network), known)
    except ModelError as error:
        yield Notice(message=f"the new model has no graph, and runs with torch only: {error}")
        return None, {}
    return graph, {PARITY: parity.figures()}


def pick_evenly(some: Sequence[T], most: int = MOST_CASES) -> list[T]:
    """Pick a few from the whole length, so that every dataset has its part."""
    return [some[place] for place in np.linspace(0, len(some) - 1, min(len(some), most)).round().astype(int)]


def _read_usable(samples: Sequence[Sample]) -> Iterator[Case]:
    for sample in samples:
        # they were told of when the model was judged
        with suppress(ImageError, TrainingError):
            case = read_case(sample)
            check_frame(case.frame)
            yield case


def _read_cases(samples: Sequence[Sample]) -> Generator[Progress, None, list[Case]]:
    cases = []
    for done, sample in enumerate(samples):
        if done % _EVERY == 0:
            yield Progress(stage="Calibrating", done=done, total=len(samples))
        cases.append(read_case(sample))
    return cases


def _snapshot(recipe: Recipe, parts: Mapping[Part, Sequence[Sample]], fitted: Fitting) -> dict[str, Any]:
    return {
        "images": {part: len(parts[part]) for part in PARTS},
        "groups": {part: len({s.group for s in parts[part]}) for part in PARTS},
        "datasets": sorted({s.dataset for samples in parts.values() for s in samples}),
        # the size at which a pack held them, None where they are the files themselves
        "packed": packed_size(s for samples in parts.values() for s in samples),
        "phantoms": 3 * recipe.fit.phantoms,
        "epochs": fitted.epoch,
        "start": fitted.source,
        "recipe": recipe.to_dict(),
    }


def _write(path: Path, values: object, what_to_do: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(values, indent=1))
    except OSError as error:
        raise TrainingError(f"{path} cannot be written ({error.strerror}); {what_to_do}") from error


def library_versions() -> dict[str, str]:
    """Tell which versions a model is made with."""
    return {"sonoloop": __version__} | {name: metadata.version(name) for name in _LIBRARIES}


def show_augmentation(recipe: Recipe, data: Path, path: Path) -> Iterator[Event]:
    """Draw 32 pairs: each image as it is and, to its right, augmented; lesions outlined."""
    refuse_others([path], _MADE_BY)
    samples = find_datasets(data)
    chosen = np.random.default_rng(recipe.fit.seed).permutation(len(samples))[:PAIRS]
    cache = yield from cache_samples([samples[index] for index in chosen], size=recipe.model.size)
    order = torch.arange(len(cache))
    batch = make_batch(cache, order, build_augmentation(recipe.augment), recipe.fit, epoch=0, first=0)
    tiles = []
    for index in order.tolist():
        augmented = ((batch.images[index, 0] + 1) * 127.5).round().to(torch.uint8)
        before = _tile(cache.images[index].numpy(), cache.masks[index].numpy())
        after = _tile(augmented.numpy(), batch.masks[index, 0].to(torch.uint8).numpy())
        tiles.append(np.concatenate([before, after], axis=1))
    while len(tiles) % (_COLUMNS // 2):
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.concatenate(tiles[i : i + _COLUMNS // 2], axis=1) for i in range(0, len(tiles), _COLUMNS // 2)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, Picture.fromarray(np.concatenate(rows)), maker=_MADE_BY)
    except OSError as error:
        raise TrainingError(f"{path} cannot be written ({error.strerror}); give another file") from error
    yield Finished(model="", path=str(path), minutes=0.0)


def _tile(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = image.shape[0]
    return draw_overlay(image, mask, [])[:side, :side]
