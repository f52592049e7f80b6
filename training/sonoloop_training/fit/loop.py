"""The training loop, on Lightning Fabric."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator
from pathlib import Path

from sonoloop.crash_points import crash_here
from sonoloop.jobs.events import EpochDone, Event, Started, StartWatched
from sonoloop_training.augment import build_augmentation
from sonoloop_training.fit.batches import count_draws, count_steps, draw_epoch, draw_weights
from sonoloop_training.fit.cache import Cache, small_size
from sonoloop_training.fit.checkpoint import Checkpoint, held_precision
from sonoloop_training.fit.device_faults import device_watched
from sonoloop_training.fit.devices import make_fabric
from sonoloop_training.fit.fitting import JUDGED, Fitting, Weights, begin
from sonoloop_training.fit.pace import Pace
from sonoloop_training.fit.recipe_ import Recipe
from sonoloop_training.fit.steps import Learning
from sonoloop_training.fit.validation import FIGURES, watch

CHECKPOINT, HISTORY = "checkpoint.pt", "history.jsonl"
# of the time allowed, this much is left for validating, calibrating and writing the model
_RESERVE = 0.1


def fit(
    recipe: Recipe,
    train: Cache,
    validation: Cache | None,
    *,
    out: Path,
    learns_from: str,
    device: str = "auto",
    test: int = 0,
    checkpoint: str = CHECKPOINT,
    start: Weights | None = None,
    start_name: str = JUDGED,
    max_minutes: float | None = None,
    follows: float = 0.0,
    watch_start: bool = False,
    on_batch: Callable[[], None] | None = None,
) -> Generator[Event, None, Fitting]:
    """Train, epoch by epoch, with a checkpoint before the first and after each.

    Parameters
    ----------
    recipe : Recipe
        How to train.
    train, validation : Cache
        The images that teach, and those that are watched, if any.
    out : pathlib.Path
        Takes the checkpoint and ``history.jsonl``. A checkpoint found there is gone on from.
    learns_from : str
        Hash of the images that train. A checkpoint of others is refused: its test images may have trained.
    device : str
        See `sonoloop.models.devices.choose_device`.
    test : int
        Size of the test set, only to be told.
    checkpoint : str
        Name of the checkpoint's file.
    start : mapping, optional
        Weights to start from; the recipe's own start unless given.
    start_name : str
        What has these weights.
    max_minutes : float, optional
        Time for all; from the pace of the first steps follows how many epochs fit into it.
    follows : float
        Epochs that another fit will make afterwards; only for the time that is told.
    watch_start : bool
        Whether to tell how the weights that are started from do, to compare the epochs with.
    on_batch : callable, optional
        Called before each batch; what it raises ends the training there, its last checkpoint kept.

    Yields
    ------
    Event
        `Started`, `StartWatched` where it is asked for, then `Step` and `EpochDone`.

    Returns
    -------
    Fitting
        The trained network, with its averaged weights.

    Raises
    ------
    TrainingError
        If the loss or its gradient is not finite, the device fails, or the checkpoint is of another recipe or
        split, or cannot be written.
    """
    config = recipe.fit
    held = held_precision(out / checkpoint) if config.precision == "auto" else None
    fabric = make_fabric(config, device, held=held)
    fitting = begin(recipe, start, start_name)
    network, optimizer = fabric.setup(fitting.network, fitting.optimizer)
    fitting.average.to(fabric.device)
    on_disk = Checkpoint(
        path=out / checkpoint,
        recipe=recipe,
        learns_from=learns_from,
        plugin=fabric._precision,
        # the last fit, on all images, has a history of its own
        history=out / (HISTORY if checkpoint == CHECKPOINT else f"{Path(checkpoint).stem}.jsonl"),
    )
    # after the set-up, so that the optimiser's state lands on the device
    resumed = on_disk.resume(fitting)
    draws = count_draws(train, config)
    steps = count_steps(config, draws, processes=fabric.world_size)
    if max_minutes is None or not resumed:
        # an earlier sitting may have had less time
        fitting.epochs = max(config.epochs, round(config.steps / steps))
    weights = draw_weights(train, config)
    # nothing is written before all is known to fit together
    yield Started(
        recipe=recipe.name,
        device=str(fabric.device),
        precision=on_disk.precision,
        train=len(train),
        validation=0 if validation is None else len(validation),
        test=test,
        epoch=fitting.epoch,
        epochs=fitting.epochs,
        steps=steps,
        processes=fabric.world_size,
    )
    out.mkdir(parents=True, exist_ok=True)
    augmentation = build_augmentation(recipe.augment)
    if resumed and fabric.is_global_zero:
        # the run that broke off may have come no further than the checkpoint
        on_disk.write_history(fitting)
    small = train.shrink(small_size(train.size)) if fitting.epoch < config.small_epochs else train
    pace = Pace(
        config=config,
        steps=steps,
        small=(small_size(train.size) / train.size) ** 2,
        watched=0 if validation is None else len(validation),
        follows=follows,
    )
    if watch_start and validation is not None and not resumed:
        with device_watched(fabric.device):
            figures = watch(fitting.average.module, validation, fabric.device, fabric.autocast, on_batch)
        yield StartWatched(dice=figures["dice"])
    if not resumed and fabric.is_global_zero:
        # whoever stops in the first epoch goes on from its beginning
        on_disk.save(fitting)
    learning = Learning(fabric, network, optimizer, fitting, config, pace, on_batch)
    while fitting.epoch < fitting.epochs and not fitting.has_waited(config.patience):
        started = time.monotonic()
        left = None if max_minutes is None else (max_minutes * (1 - _RESERVE) - fitting.minutes) * 60
        images = small if fitting.epoch < config.small_epochs else train
        drawn = draw_epoch(weights, config, fitting.epoch, draws=draws, replayed=train.replayed)
        with device_watched(fabric.device):
            loss = yield from learning.epoch(images, drawn, augmentation, seconds=left)
            fitting.epoch += 1
            learned = time.monotonic()
            # of the first process for all: batch normalisation's statistics differ, and all have to stop
            # together
            watched = fabric.broadcast(
                watch(fitting.average.module, validation, fabric.device, fabric.autocast, on_batch)
                if fabric.is_global_zero and validation is not None
                else dict.fromkeys(FIGURES)
            )
        fitting.watch(watched["score"], keep=config.patience > 0)
        done = EpochDone(
            epoch=fitting.epoch,
            epochs=fitting.epochs,
            loss=loss,
            best_epoch=fitting.best_epoch,
            seconds=time.monotonic() - started,
            **watched,
        )
        fitting.history.append(dataclasses.asdict(done))
        if fabric.is_global_zero:
            with device_watched(fabric.device):
                on_disk.save(fitting)
            crash_here("after-checkpoint")
        fabric.barrier()
        pace.end(time.monotonic() - learned)
        yield done
    return fitting
