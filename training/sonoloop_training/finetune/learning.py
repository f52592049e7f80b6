"""From a snapshot of corrections to a tuned model, as a generator of events."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch

from sonoloop.crash_points import crash_here
from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Event, Notice
from sonoloop.jobs.jobs import JobFolder
from sonoloop.models.bundle import Bundle, Card, read_bundle, save_bundle
from sonoloop.models.devices import choose_device
from sonoloop.models.library import Library
from sonoloop.store import CorrectionStore
from sonoloop_training.finetune.learn import Gathered, gather, held
from sonoloop_training.finetune.reading import read_cases
from sonoloop_training.finetune.replay import count_by_dataset
from sonoloop_training.finetune.samples import Lesson
from sonoloop_training.fit.calibration import calibrate
from sonoloop_training.fit.checkpoint import OtherTrainingError
from sonoloop_training.fit.device_faults import device_watched
from sonoloop_training.fit.fitting import Fitting
from sonoloop_training.fit.loop import fit
from sonoloop_training.fit.recipe_ import Recipe, parse_recipe
from sonoloop_training.fit.train import as_shipped, library_versions
from sonoloop_training.membership import SPLIT, hash_split

# below this many lesions the numbers of the model started from are the better guess
LESIONS_TO_CALIBRATE = 40
HISTORY = "history.json"


def learn(
    job: JobFolder,
    store: CorrectionStore,
    library: Library,
    *,
    on_batch: Callable[[], None] | None = None,
) -> Generator[Event, None, Bundle]:
    """Tune a model on a snapshot; the bundle is in the job's folder.

    Where the folder holds a bundle already, that is given; where it holds a checkpoint, it is gone on from.

    Parameters
    ----------
    job : JobFolder
        What was asked for, and where to write.
    store : CorrectionStore
        Holds the snapshot.
    library : Library
        Holds the model to start from.
    on_batch : callable, optional
        See `sonoloop_training.fit.loop.fit`.

    Yields
    ------
    Event
        `Selected`, then those of `sonoloop_training.fit.loop.fit`.

    Raises
    ------
    TrainingError
        If there is too little to learn from, files are gone or changed, the disk is full, or the device
        fails; the message says which, and what to do.
    BundleError
        If the model to start from is damaged, or has other classes.
    """
    if job.bundle.exists():
        yield Notice(message="the model is made already; going on with what was left to do")
        return read_bundle(job.bundle)
    plan, began = job.plan, time.monotonic()
    base = library.load(plan.base)
    job.check_room(sum(tensor.numel() for tensor in base.network.state_dict().values()))
    recipe = parse_recipe(plan.recipe)
    gathered = yield from gather(plan, recipe, base, library.find(plan.base), store)
    config = held(recipe.fit, replays=bool(gathered.replayed))
    recipe = dataclasses.replace(
        recipe, model=base.card.spec, fit=dataclasses.replace(config, draws=gathered.draws)
    )
    try:
        fitted = yield from fit(
            recipe,
            gathered.training,
            gathered.watched,
            out=job.path,
            learns_from=hash_split({"base": plan.base, "gathered": gathered.sha256}),
            device=plan.device,
            test=gathered.selection.test_groups,
            start=base.network.state_dict(),
            start_name=base.model,
            max_minutes=_time_left(plan.max_minutes, began, job),
            watch_start=True,
            on_batch=on_batch,
        )
    except OtherTrainingError as error:
        raise OtherTrainingError(
            "this fine-tuning cannot be gone on with: what may be learned from is not what it was when it "
            "began, since images were withdrawn, are gone or back, or belong to those that judge by now; "
            "begin a new fine-tuning, without --job",
            what=error.what,
        ) from error
    card = _describe(recipe, base, gathered, fitted)
    network = as_shipped(card, fitted.kept)
    watched = gathered.selection.validation
    if count_to_calibrate(watched) >= LESIONS_TO_CALIBRATE:
        cases = yield from read_cases(watched, gathered.find)
        with device_watched(choose_device(plan.device)):
            card = calibrate(card, network, cases, device=plan.device, on_batch=on_batch)
    beside = {
        SPLIT: json.dumps(gathered.members, indent=1).encode(),
        HISTORY: json.dumps(fitted.history, indent=1).encode(),
    }
    bundle = save_bundle(job.bundle, network, card, beside=beside)
    crash_here("after-bundle")
    return bundle


def count_to_calibrate(lessons: Sequence[Lesson]) -> int:
    """Count the lesions that the model's numbers can be fitted on: those whose class is known."""
    return sum(lesson.label is not None and bool(lesson.mask.any()) for lesson in lessons)


def _describe(recipe: Recipe, base: Bundle, gathered: Gathered, fitted: Fitting) -> Card:
    """Write the new model's card: the base's numbers, and where it comes from.

    No times are in it: the same run gives the same model, by its version too.
    """
    selection, replay = gathered.selection, count_by_dataset(gathered.replayed)
    leaked = bool(base.card.snapshot.get("leaked"))
    learned: dict[str, Any] = {
        "name": gathered.snapshot.name,
        "sha256": gathered.snapshot.sha256,
        "start": base.model,
        "images": {
            "train": len(selection.train),
            "validation": len(selection.validation),
            "test": 0,
            "replay": sum(replay.values()),
        },
        "by_class": selection.by_class,
        "left_out": len(selection.left_out),
        "replay": replay,
        "epochs": fitted.epoch,
        "recipe": json.loads(json.dumps(recipe.to_dict())),
        "members_sha256": hash_split(gathered.members),
        "threads": torch.get_num_threads(),
        "leaked": leaked,
    }
    try:
        return dataclasses.replace(
            base.card,
            name=f"{recipe.name}-leaked" if leaked else recipe.name,
            parent=base.version,
            snapshot=learned,
            # those of the model started from are not this one's
            metrics={},
            libraries=library_versions(),
        )
    except ValueError as error:
        raise TrainingError(f"no model can have the recipe's name: {error}") from error


def _time_left(minutes: float | None, began: float, job: JobFolder) -> float | None:
    """Say what is left of the time allowed; when going on, the epochs of earlier count by themselves."""
    if minutes is None:
        return None
    spent = 0.0 if job.last("epoch_done") is not None else (time.monotonic() - began) / 60
    return max(0.05, minutes - spent)
