"""What ``python -m sonoloop_training`` can do: a function a request, which gives events.

Each imports what it needs when it runs, after its arguments are known to be right: torch takes seconds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Event, Notice
from sonoloop.jobs.request import (
    CalibrateRequest,
    CheckRequest,
    EvaluateRequest,
    FinetuneRequest,
    GateRequest,
    ImportRequest,
    PackRequest,
    Request,
    TrainRequest,
    UnpackRequest,
)

_LESS_URGENT = 10


def train(request: TrainRequest) -> Iterator[Event]:
    """Train; see `sonoloop_training.fit.train.train`."""
    folder = request.folder
    if request.resume and not (folder / "checkpoint.pt").is_file():
        raise TrainingError(f"{folder} holds no checkpoint to go on from; leave --resume out to begin")
    from sonoloop_training.fit import train as training
    from sonoloop_training.fit.recipe import read_recipe

    _set_threads(request.threads)
    recipe = read_recipe(request.recipe, settings_of(request))
    if recipe.split.method == "leaky" and not request.leaky:
        raise TrainingError(
            "a split by image leaks twins into the test; if that is what you mean, add --leaky"
        )
    if recipe.fit.replay:
        # its learning rates would leave a network that starts from nothing where it is
        raise TrainingError(
            f"the recipe {recipe.name} replays images beside corrections, which is for `sonoloop finetune`; "
            "choose another one, or add --set fit.replay=0"
        )
    if request.show_augment:
        yield from training.show_augmentation(recipe, request.data, folder / "augmentation.png")
    else:
        yield from training.train(
            recipe,
            request.data,
            folder,
            device=request.device,
            max_minutes=request.max_minutes,
            workers=request.workers,
            operating_point=request.operating_point,
        )


def settings_of(request: TrainRequest) -> list[str]:
    """Turn the options that change the recipe into settings, as `read_recipe` takes them."""
    from sonoloop_training.fit.recipe import read_recipe

    if request.leaky and request.fold is not None:
        raise TrainingError("--leaky makes no folds; leave --fold out")
    if (left_out := request.left_out) is not None and (request.leaky or request.fold is not None):
        raise TrainingError("--split says who is tested; leave --leaky and --fold out")
    # a last fit on all images would show the model the hospital that it is to be judged on
    settings = [*(["final.epochs=0"] if left_out else []), *request.settings]
    if request.seed is not None:
        settings.append(f"fit.seed={request.seed}")
    if left_out is not None:
        settings += ["split.method=leave-dataset", f"split.left_out={json.dumps(left_out)}"]
    before = tuple(settings)
    if request.leaky:
        settings.append("split.method=leaky")
    if request.fold is not None:
        settings.append(f"split.fold={request.fold}")
        if read_recipe(request.recipe, before).split.method not in ("folds", "file"):
            settings.append("split.method=folds")
    return settings


def finetune(request: FinetuneRequest) -> Iterator[Event]:
    """Fine-tune; see `sonoloop_training.finetune.run.finetune`."""
    # the machine is the annotator's first
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(_LESS_URGENT)
    from sonoloop_training.finetune import run

    _set_threads(request.threads)
    yield from run.finetune(request)


def gate(request: GateRequest) -> Iterator[Event]:
    """Judge; see `sonoloop_training.gate.comparison.judge`."""
    from sonoloop.models.devices import choose_device
    from sonoloop.models.library import Library
    from sonoloop.project import begin_with_shipped
    from sonoloop.store import CorrectionStore
    from sonoloop.store.database import read_existing
    from sonoloop.store.file_index import work_folder
    from sonoloop.store.model_registry import find_model
    from sonoloop.store.promotions import check_lock
    from sonoloop.store.settings import read_settings
    from sonoloop.store.test_sets import freeze_test_set
    from sonoloop_training.fit.devices import device_watched
    from sonoloop_training.gate.comparison import judge, promote_found, promote_if_free
    from sonoloop_training.gate.pictures import check_pictures
    from sonoloop_training.gate.scoring import score_every

    _set_threads(request.threads)
    library, device, who = Library(), request.device, request.who
    read_existing(request.store)
    if request.out is not None:
        # before a look, which counts
        check_pictures(request.out)
    with CorrectionStore(request.store) as store:
        in_use = begin_with_shipped(store, library, who=who)
        if request.model is None:
            with device_watched(choose_device(device), kept="what was scored is kept"):
                test_set = freeze_test_set(store)
                scored = yield from score_every(store, test_set, device=device, library=library)
            yield Notice(
                message=f"{scored} models are scored on test set {test_set.number}: {len(test_set.members)} "
                f"frames of {test_set.groups} groups; `sonoloop models list` shows how they did"
            )
            return
        row = find_model(store, request.model)
        candidate = row.version
        against = find_model(store, request.against).version if request.against else in_use.version
        if request.promote and against != in_use.version:
            raise TrainingError(
                "only a model that was judged against the one in use can take its place: leave out --against "
                "or --promote"
            )
        if request.promote:
            # told before the look, which counts
            with store.reading() as connection:
                check_lock(connection, row)
        own = work_folder(store.url) / "gates" / f"{candidate[:8]}-against-{against[:8]}"
        kept = "the model in use stays, and what was scored is kept"
        with device_watched(choose_device(device), kept=kept):
            judgement = yield from judge(
                store, candidate, against, out=request.out or own, who=who, device=device, library=library
            )
            if judgement.verdict.verdict == "promote":
                if request.promote:
                    yield promote_found(store, library, judgement.evaluation, who=who)
                elif against == in_use.version and read_settings(store).promote == "automatic":
                    yield promote_if_free(store, library, judgement.evaluation, who=who, called="it")
            judged = (candidate, against)
            yield from score_every(store, judgement.test_set, device=device, library=library, judged=judged)


def calibrate(request: CalibrateRequest) -> Iterator[Event]:
    """Calibrate; see `sonoloop_training.recalibration.run.calibrate`."""
    from sonoloop_training.recalibration import run

    _set_threads(request.threads)
    yield from run.calibrate(request)


def evaluate(request: EvaluateRequest) -> Iterator[Event]:
    """Evaluate; see `sonoloop_training.evaluation.evaluate`."""
    from sonoloop_training.evaluation import evaluate as evaluation

    yield from evaluation.evaluate(request)


def import_masks(request: ImportRequest) -> Iterator[Event]:
    """Import; see `sonoloop_training.importing.import_dataset`."""
    from sonoloop_training.importing import import_dataset

    yield from import_dataset(
        request.folder,
        request.layout,
        store=request.store,
        annotator=request.annotator,
        role=None if request.split == "auto" else request.split,
        accept_odd=request.accept_odd,
    )


def check(request: CheckRequest) -> Iterator[Event]:
    """Check; see `sonoloop_training.checking.report.check`."""
    from sonoloop_training.checking import report

    yield from report.check(request.folder, request.out)


def unpack(request: UnpackRequest) -> Iterator[Event]:
    """Unpack; see `sonoloop_training.datasets.unpack.unpack`."""
    from sonoloop_training.datasets import unpack as unpacking

    yield from unpacking.unpack(request.source, request.out)


def pack(request: PackRequest) -> Iterator[Event]:
    """Pack; see `sonoloop_training.datasets.packing.pack`."""
    from sonoloop_training.datasets import packing

    yield from packing.pack(request)


def _set_threads(threads: int | None) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)


COMMANDS: dict[type[Request], Callable[[Any], Iterator[Event]]] = {
    TrainRequest: train,
    FinetuneRequest: finetune,
    GateRequest: gate,
    CalibrateRequest: calibrate,
    EvaluateRequest: evaluate,
    ImportRequest: import_masks,
    UnpackRequest: unpack,
    CheckRequest: check,
    PackRequest: pack,
}
