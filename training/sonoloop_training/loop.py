"""The training loop, on Lightning Fabric."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import nn

from sonoloop.crash_points import crash_here
from sonoloop.errors import TrainingError
from sonoloop_training.augment import build_augmentation
from sonoloop_training.batches import Batch, count_draws, draw_epoch, draw_weights, make_batch
from sonoloop_training.cache import Cache
from sonoloop_training.checkpoint import Checkpoint
from sonoloop_training.device_faults import device_watched
from sonoloop_training.events import EpochDone, Event, Notice, Started, Step
from sonoloop_training.fabric import make_fabric
from sonoloop_training.fit_config import FitConfig
from sonoloop_training.fitting import JUDGED, Fitting, Weights, begin, draw_back, set_rate, set_training
from sonoloop_training.losses import joint_loss
from sonoloop_training.recipe import Recipe
from sonoloop_training.watching import FIGURES, watch

CHECKPOINT, HISTORY = "checkpoint.pt", "history.jsonl"
_TELL_EVERY = 10
# of the time allowed, this much is left for validating, calibrating and writing the model
_RESERVE = 0.1
# the first steps of an epoch are slower than the rest
_STEADY = 30


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
    on_batch: Callable[[], None] | None = None,
) -> Generator[Event, None, Fitting]:
    """Train, epoch by epoch, with a checkpoint after each.

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
    on_batch : callable, optional
        Called before each batch; what it raises ends the training there, its last checkpoint kept.

    Yields
    ------
    Event
        `Started`, then `Step` and `EpochDone`.

    Returns
    -------
    Fitting
        The trained network, with its averaged weights.

    Raises
    ------
    TrainingError
        If the loss is not finite, the device fails, or the checkpoint is of another recipe or split, or
        cannot be written.
    """
    config = recipe.fit
    fabric = make_fabric(config, device)
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
    steps = _steps(config, draws, fabric.world_size)
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
    small = train.shrink(_small_size(train.size)) if fitting.epoch < config.small_epochs else train
    learning = Learning(fabric, network, optimizer, fitting, config, steps, on_batch)
    while fitting.epoch < fitting.epochs and not fitting.has_waited(config.patience):
        started = time.monotonic()
        left = None if max_minutes is None else (max_minutes * (1 - _RESERVE) - fitting.minutes) * 60
        images = small if fitting.epoch < config.small_epochs else train
        drawn = draw_epoch(weights, config, fitting.epoch, draws=draws, replayed=train.replayed)
        with device_watched(fabric.device):
            loss = yield from learning.epoch(images, drawn, augmentation, seconds=left)
            fitting.epoch += 1
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
        yield done
    return fitting


@dataclass(slots=True, eq=False)
class Learning:
    """What learns, and how: the steps of an epoch.

    Parameters
    ----------
    fabric : lightning.fabric.Fabric
        Device, precision and the other processes.
    network, optimizer
        As Fabric wraps them.
    fitting : Fitting
        The training they belong to.
    config : FitConfig
        How.
    steps : int
        In an epoch.
    on_batch : callable, optional
        Called before each batch; see `fit`.
    micro_batches : int
        In so many parts a batch goes through the network, their gradients summed; more when memory runs out.
    """

    fabric: Fabric
    network: nn.Module
    optimizer: torch.optim.Optimizer
    fitting: Fitting
    config: FitConfig
    steps: int
    on_batch: Callable[[], None] | None = None
    micro_batches: int = 1

    def epoch(
        self, images: Cache, drawn: torch.Tensor, augmentation: nn.Module, *, seconds: float | None
    ) -> Generator[Event, None, float]:
        """Learn from an epoch's images; gives the mean loss.

        With `seconds`, the training is shortened to the epochs that fit into them at the pace seen.
        """
        config, fitting, epoch = self.config, self.fitting, self.fitting.epoch
        share = config.batch // self.fabric.world_size
        started, total = time.monotonic(), 0.0
        set_training(self.network, config)
        crash_here("before-first-step")
        for step in range(self.steps):
            if self.on_batch is not None:
                self.on_batch()
            if step == self.steps // 2:
                crash_here("mid-epoch")
            first = step * config.batch + self.fabric.global_rank * share
            chosen = drawn[first : min(first + share, (step + 1) * config.batch)]
            batch = make_batch(images, chosen, augmentation, config, epoch=epoch, first=first)
            set_rate(fitting.optimizer, config, epoch * self.steps + step, self.steps * fitting.epochs)
            loss = yield from self._step(batch.to(self.fabric.device))
            if not torch.isfinite(loss):
                names = ", ".join(images.names[index] for index in chosen.tolist())
                raise TrainingError(
                    f"the loss is {loss.item()} in epoch {epoch + 1}, batch {step + 1} ({names}); the last "
                    "checkpoint is kept: look at these images, or lower fit.learning_rate"
                )
            total += loss.item()
            if step % _TELL_EVERY == _TELL_EVERY - 1 or step == self.steps - 1:
                pace = (time.monotonic() - started) / (step + 1)
                if seconds is not None and step + 1 >= min(self.steps, _STEADY):
                    yield from self._shorten(seconds, pace)
                yield Step(
                    epoch=epoch + 1,
                    epochs=fitting.epochs,
                    step=step + 1,
                    steps=self.steps,
                    loss=total / (step + 1),
                    seconds_left=pace * (self.steps * (fitting.epochs - epoch) - step - 1),
                )
        return total / self.steps

    def _step(self, batch: Batch) -> Generator[Notice, None, torch.Tensor]:
        """Learn from a batch and give its mean loss over all processes; nothing is learned from NaN."""
        while True:
            try:
                loss = self._backward(batch)
                break
            except torch.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                # the other processes would wait for gradients that come in another number of parts
                if self.micro_batches >= len(batch) or self.fabric.world_size > 1:
                    at_once = -(-len(batch) // self.micro_batches)
                    raise TrainingError(
                        f"there is not enough memory for {at_once} images at once; set a smaller fit.batch "
                        "or model.size, or train on the CPU with --device cpu"
                    ) from error
                self.micro_batches *= 2
            yield Notice(message=f"out of memory; going on with batches in {self.micro_batches} parts")
        mean = self.fabric.all_reduce(loss, reduce_op="mean")
        if not isinstance(mean, torch.Tensor) or not torch.isfinite(mean):
            return loss
        self.fabric.clip_gradients(
            self.network, self.optimizer, max_norm=self.config.clip, error_if_nonfinite=False
        )
        self.optimizer.step()
        draw_back(self.fitting, self.config, self.fabric.device)
        self.fitting.average.update_parameters(self.fitting.network)
        return mean

    def _backward(self, batch: Batch) -> torch.Tensor:
        """Compute the gradients of a batch's mean loss, and give that loss."""
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.fabric.device)
        for part in batch.split(self.micro_batches):
            lesion, classes = self.network(part.images)
            loss = joint_loss(lesion, classes, part, self.config).sum() / len(batch)
            self.fabric.backward(loss)
            total += loss.detach()
        return total

    def _shorten(self, seconds: float, pace: float) -> Iterator[Notice]:
        fits = self.fitting.epoch + max(1, int(seconds / (pace * self.steps)))
        fits = self.fabric.broadcast(fits)
        if fits < self.fitting.epochs:
            yield Notice(message=f"only {fits} of {self.fitting.epochs} epochs fit into the time allowed")
            self.fitting.epochs = fits


def _steps(config: FitConfig, draws: int, processes: int) -> int:
    # the last batch may be smaller, unless it has to be shared; one image has no batch statistics
    rest = processes == 1 and draws % config.batch > 1
    steps = draws // config.batch + rest
    if steps == 0:
        raise TrainingError(f"{draws} images an epoch are less than a batch of {config.batch}; set fit.batch")
    return steps


def _small_size(size: int) -> int:
    """Three quarters, as a multiple of 32."""
    return max(32, size * 3 // 4 // 32 * 32)
