"""The steps of an epoch, on Lightning Fabric."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import torch
from lightning.fabric import Fabric
from torch import nn

from sonoloop.crash_points import crash_here
from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Event, Notice, Step
from sonoloop_training.fit.batches import Batch, make_batch
from sonoloop_training.fit.cache import Cache
from sonoloop_training.fit.fitting import Fitting, draw_back, set_rate, set_training
from sonoloop_training.fit.losses import joint_loss
from sonoloop_training.fit.pace import Pace
from sonoloop_training.fit.recipe import FitConfig

_TELL_EVERY = 10
# of the steps of an epoch, so many tell how long all take
_STEADY = 30


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
    pace : Pace
        How many steps an epoch has, and how long they take.
    on_batch : callable, optional
        Called before each batch; see `sonoloop_training.fit.loop.fit`.
    micro_batches : int
        In so many parts a batch goes through the network, their gradients summed; more when memory runs out.
    hurried : bool
        Whether it was told that there is not even time for one epoch.
    """

    fabric: Fabric
    network: nn.Module
    optimizer: torch.optim.Optimizer
    fitting: Fitting
    config: FitConfig
    pace: Pace
    on_batch: Callable[[], None] | None = None
    micro_batches: int = 1
    hurried: bool = False

    def epoch(
        self, images: Cache, drawn: torch.Tensor, augmentation: nn.Module, *, seconds: float | None
    ) -> Generator[Event, None, float]:
        """Learn from an epoch's images; gives the mean loss.

        With `seconds`, the training is shortened to the epochs that fit into them at the pace seen.
        """
        config, fitting, pace, epoch = self.config, self.fitting, self.pace, self.fitting.epoch
        share, total = config.batch // self.fabric.world_size, 0.0
        pace.begin()
        set_training(self.network, config)
        crash_here("before-first-step")
        for step in range(pace.steps):
            if self.on_batch is not None:
                self.on_batch()
            if step == pace.steps // 2:
                crash_here("mid-epoch")
            shares = torch.split(drawn[step * config.batch : (step + 1) * config.batch], share)
            rank = self.fabric.global_rank
            first = step * config.batch + rank * share
            batch = make_batch(images, shares[rank], augmentation, config, epoch=epoch, first=first)
            set_rate(fitting.optimizer, config, epoch * pace.steps + step, pace.steps * fitting.epochs)
            try:
                loss = yield from self._step(batch.to(self.fabric.device))
            except _NotFiniteError as error:
                guilty = torch.cat([shares[rank] for rank in error.ranks]).tolist()
                names = ", ".join(images.names[index] for index in guilty)
                some = len(error.ranks) < len(shares)
                where = f" on process {', '.join(map(str, error.ranks))}" if some else ""
                raise TrainingError(
                    f"{error} in epoch {epoch + 1}, batch {step + 1}{where} ({names}); the last checkpoint "
                    "is kept: look at these images, or lower fit.learning_rate"
                ) from None
            total += loss
            if step % _TELL_EVERY == _TELL_EVERY - 1 or step == pace.steps - 1:
                pace.measure(step + 1)
                if seconds is not None and step + 1 >= min(pace.steps, _STEADY):
                    yield from self._shorten(seconds)
                yield Step(
                    epoch=epoch + 1,
                    epochs=fitting.epochs,
                    step=step + 1,
                    steps=pace.steps,
                    loss=total / (step + 1),
                    seconds_left=pace.left(step + 1, now=epoch, epochs=fitting.epochs),
                )
        return total / pace.steps

    def _step(self, batch: Batch) -> Generator[Notice, None, float]:
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
        # of a copy: it is summed in its place
        mean = float(self.fabric.all_reduce(loss.clone(), reduce_op="mean"))  # type: ignore[arg-type]
        if not math.isfinite(mean):
            # all processes have to stop, and the first, which speaks, knows its own loss only
            losses = torch.as_tensor(self.fabric.all_gather(loss)).reshape(-1).tolist()
            ranks = [rank for rank, one in enumerate(losses) if not math.isfinite(one)] or [0]
            raise _NotFiniteError(f"the loss is {losses[ranks[0]]}", ranks)
        norm = self.fabric.clip_gradients(
            self.network, self.optimizer, max_norm=self.config.clip, error_if_nonfinite=False
        )
        # in float16 the scaler leaves such a step out by itself, and scales less from then on
        scales = getattr(self.fabric._precision, "scaler", None) is not None
        if not scales and not torch.as_tensor(norm).isfinite():
            # the processes' gradients are summed by now
            raise _NotFiniteError("the gradient is not finite", range(self.fabric.world_size))
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

    def _shorten(self, seconds: float) -> Iterator[Notice]:
        epoch, epochs = self.fitting.epoch, self.fitting.epochs
        whole = self.fabric.broadcast(self.pace.count_fitting(seconds, now=epoch, epochs=epochs))
        fits = epoch + max(1, whole)
        if not whole and self.pace.is_guessed and not self.hurried:
            self.hurried = True
            minutes = self.pace.epoch(epoch, now=epoch) / 60
            yield Notice(
                message="the time allowed does not suffice for one epoch, which takes about "
                f"{minutes:.1f} min: it is made to its end, and no other"
            )
        elif fits < epochs:
            yield Notice(message=f"only {fits} of {epochs} epochs fit into the time allowed")
        self.fitting.epochs = min(fits, epochs)


class _NotFiniteError(Exception):
    """Nothing can be learned from a batch, because of what these processes computed."""

    def __init__(self, what: str, ranks: Sequence[int]) -> None:
        super().__init__(what)
        self.ranks = ranks
