"""The training loop, on Lightning Fabric: a fit, the steps of its epochs, and the time they take."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from lightning.fabric import Fabric
from torch import nn
from torchvision.transforms import v2

from sonoloop.crash_points import crash_here
from sonoloop.errors import TrainingError
from sonoloop.jobs.events import EpochDone, Event, Notice, Started, StartWatched, Step
from sonoloop.models.preprocess import normalise
from sonoloop.values import CLASSES
from sonoloop_training.augment import build_augmentation
from sonoloop_training.fit.batches import (
    Batch,
    Cache,
    EpochBatches,
    count_draws,
    count_steps,
    draw_epoch,
    draw_weights,
    small_size,
)
from sonoloop_training.fit.checkpoint import Checkpoint, held_precision
from sonoloop_training.fit.devices import device_watched, make_fabric
from sonoloop_training.fit.fitting import TESTED, Fitting, Weights, begin, draw_back, set_rate, set_training
from sonoloop_training.fit.prompting import ZoomIn, blank, prompt, score_clicks
from sonoloop_training.fit.recipe import FitConfig, Recipe, SegmentationLoss

# of the focal Tversky loss, as Abraham and Khan (ISBI 2019) chose them on breast ultrasound: what a pixel
# claimed and one missed cost, and how much images that are nearly right still count
_CLAIMED, _MISSED, _FOCUS = 0.3, 0.7, 0.75


def joint_loss(
    lesion: torch.Tensor | None, classes: torch.Tensor, batch: Batch, config: FitConfig
) -> torch.Tensor:
    """Both heads' losses by their weights and each image's, (B,); `lesion` is None without that head."""
    smoothing = config.label_smoothing
    # cross-entropy, one an image
    named = F.cross_entropy(classes.float(), batch.labels, label_smoothing=smoothing, reduction="none")
    named = named * batch.weights[:, 1]
    if lesion is None:
        return named
    drawn = segmentation_loss(lesion.float(), batch.masks, loss=config.loss, empty_weight=config.empty_weight)
    if config.miss_weight:
        drawn = drawn + config.miss_weight * miss_loss(lesion.float(), batch.masks)
    return config.lesion_weight * (drawn * batch.weights[:, 0]) + config.class_weight * named


def segmentation_loss(
    logits: torch.Tensor, masks: torch.Tensor, *, loss: SegmentationLoss, empty_weight: float
) -> torch.Tensor:
    """Cross-entropy plus an overlap loss; on an image without a lesion a penalty on every pixel claimed.

    The overlap with an empty mask is undefined. There, ``p / (p + s)`` with `p` the predicted area and `s` a
    five-hundredth of the image rises steeply with the first false pixels and then levels off.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2, 3))
    if loss == "cross-entropy":
        return entropy
    probability = logits.sigmoid()
    area, truth = probability.sum((1, 2, 3)), masks.sum((1, 2, 3))
    overlap = (probability * masks).sum((1, 2, 3))
    if loss == "cross-entropy + dice":
        apart = 1 - (2 * overlap + 1) / (area + truth + 1)
    else:
        # the floor: the root is infinitely steep at nothing
        weighted = overlap + _CLAIMED * (area - overlap) + _MISSED * (truth - overlap)
        apart = (1 - (overlap + 1) / (weighted + 1)).clamp_min(1e-6) ** _FOCUS
    small = logits[0].numel() / 500
    empty_loss = empty_weight * area / (area + small)
    return entropy + torch.where(truth > 0, apart, empty_loss)


def miss_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Minus the logarithm of the mean probability in each image's lesions, (B,); 0 where there is none.

    It hardly minds an outline that is a little off, and much a lesion of which nothing is found, however
    small: cross-entropy sums over pixels, in which small lesions are few.
    """
    truth = masks.sum((1, 2, 3))
    found = (logits.sigmoid() * masks).sum((1, 2, 3)) / truth.clamp_min(1)
    return torch.where(truth > 0, -found.clamp_min(1e-4).log(), 0.0)


_BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationScores:
    """Means over images; None where no image tells."""

    # of the images with a lesion
    dice: float | None = None
    # the share of these whose lesion is not touched
    missed: float | None = None
    # the share of the others on which something is claimed
    false_alarms: float | None = None
    accuracy: float | None = None
    # which epoch is best: Dice, an empty mask that stays empty being 1; of a classifier the mean recall; of a
    # network that takes prompts the mean Dice of lesions after three clicks
    score: float | None = None


@torch.inference_mode()
def validate(
    network: nn.Module,
    cache: Cache,
    device: torch.device,
    autocast: Callable[[], Any],
    on_batch: Callable[[], None] = lambda: None,
    *,
    channels: int = 1,
) -> ValidationScores:
    """Score a network: enough to follow a training, not to report a model."""
    network.eval()
    dices: list[float] = []
    clicked: list[float] = []
    empties: list[float] = []
    hits: dict[int, list[bool]] = {index: [] for index in range(len(CLASSES))}
    segments = True
    for start in range(0, len(cache), _BATCH):
        on_batch()
        some = slice(start, start + _BATCH)
        images = normalise(cache.images[some, None].to(device).float() / 255)
        with autocast():
            lesion, classes = network(blank(images, channels).contiguous(memory_format=torch.channels_last))
        guesses, known = classes.argmax(1).tolist(), (cache.weights[some, 1] > 0).tolist()
        for truth, guess, is_known in zip(cache.labels[some].tolist(), guesses, known, strict=True):
            if is_known:
                hits[truth].append(truth == guess)
        segments = lesion is not None
        if not segments:
            continue
        got = (lesion[:, 0].float() > 0).cpu()
        for mask, wanted in zip(got, cache.masks[some].bool(), strict=True):
            if wanted.any():
                dices.append(2 * (mask & wanted).sum().item() / (mask.sum() + wanted.sum()).item())
            else:
                empties.append(float(not mask.any()))
        drawn = cache.masks[some].bool()
        if channels > 1 and (there := drawn.any((1, 2))).any():
            with autocast():
                scores = score_clicks(network, images[there.to(device)], drawn[there], channels)
            clicked += [after[-1] for after in scores]
    recalls = [sum(right) / len(right) for right in hits.values() if right]
    return ValidationScores(
        dice=_mean(dices),
        missed=_mean([dice == 0 for dice in dices]),
        false_alarms=None if not empties else 1 - sum(empties) / len(empties),
        accuracy=_mean([hit for right in hits.values() for hit in right]),
        score=_mean(clicked) if clicked else _mean(dices + empties) if segments else _mean(recalls),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


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
    start_name: str = TESTED,
    max_minutes: float | None = None,
    follows: float = 0.0,
    validate_start: bool = False,
    workers: int = 0,
    on_begun: Callable[[], None] = lambda: None,
    on_batch: Callable[[], None] = lambda: None,
) -> Generator[Event, None, Fitting]:
    """Train, epoch by epoch, with a checkpoint before the first and after each.

    `workers` processes augment images while the network learns, to the same numbers as without them.
    `on_begun` is called once there is a checkpoint on the disk; `on_batch` may end it.
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
    augmentation = _build_augmentation(recipe)
    if resumed and fabric.is_global_zero:
        # the run that broke off may have come no further than the checkpoint
        on_disk.write_history(fitting)
    small = train.shrink(small_size(train.size)) if fitting.epoch < config.small_epochs else train
    pace = Pace(
        config=config,
        steps=steps,
        small=(small_size(train.size) / train.size) ** 2,
        validation=0 if validation is None else len(validation),
        follows=follows,
    )
    if validate_start and validation is not None and not resumed:
        with device_watched(fabric.device):
            scores = _validate(fabric, fitting, validation, on_batch, recipe.model.channels)
        yield StartWatched(dice=scores.dice)
    if not resumed and fabric.is_global_zero:
        # whoever stops in the first epoch goes on from its beginning
        on_disk.save(fitting)
    on_begun()
    learning = Learning(fabric, network, optimizer, fitting, recipe, pace, on_batch, workers=workers)
    while fitting.epoch < fitting.epochs and not fitting.has_waited(config.patience):
        started = time.monotonic()
        left = None if max_minutes is None else (max_minutes * (1 - _RESERVE) - fitting.minutes) * 60
        images = small if fitting.epoch < config.small_epochs else train
        drawn = draw_epoch(weights, config, fitting.epoch, draws=draws, replayed=train.replayed)
        with device_watched(fabric.device):
            loss = yield from learning.epoch(images, drawn, augmentation, seconds=left)
            fitting.epoch += 1
            learned = time.monotonic()
            scores = _validate(fabric, fitting, validation, on_batch, recipe.model.channels)
        fitting.note(scores.score, keep=config.patience > 0)
        done = EpochDone(
            epoch=fitting.epoch,
            epochs=fitting.epochs,
            loss=loss,
            best_epoch=fitting.best_epoch,
            seconds=time.monotonic() - started,
            **dataclasses.asdict(scores),
        )
        fitting.history.append(done)
        if fabric.is_global_zero:
            with device_watched(fabric.device):
                on_disk.save(fitting)
            crash_here("after-checkpoint")
        fabric.barrier()
        pace.end(time.monotonic() - learned)
        yield done
    return fitting


def _build_augmentation(recipe: Recipe) -> v2.Transform:
    augmentation = build_augmentation(recipe.augment)
    if not recipe.model.takes_prompts:
        return augmentation
    return v2.Compose([ZoomIn(recipe.prompts.size or recipe.model.size, recipe.prompts.zoom), augmentation])


def _validate(
    fabric: Fabric,
    fitting: Fitting,
    validation: Cache | None,
    on_batch: Callable[[], None],
    channels: int,
) -> ValidationScores:
    """Score the averaged weights of the first process: statistics differ, and all have to stop together."""
    scores = ValidationScores()
    if fabric.is_global_zero and validation is not None:
        network = fitting.average.module
        scores = validate(network, validation, fabric.device, fabric.autocast, on_batch, channels=channels)
    return fabric.broadcast(scores)


_TELL_EVERY = 10
# of the steps of an epoch, so many tell how long all take
_STEADY = 30


@dataclass(slots=True, eq=False)
class Learning:
    """What learns, and how: the steps of an epoch."""

    # device, precision and the other processes
    fabric: Fabric
    # as Fabric wraps them
    network: nn.Module
    optimizer: torch.optim.Optimizer
    # the training they belong to
    fitting: Fitting
    recipe: Recipe
    pace: Pace
    # called before each batch
    on_batch: Callable[[], None]
    # in so many parts a batch goes through the network, their gradients summed; more when memory runs out
    micro_batches: int = 1
    # processes that augment images
    workers: int = 0
    # whether it was told that there is not even time for one epoch
    hurried: bool = False

    def epoch(
        self, images: Cache, drawn: torch.Tensor, augmentation: nn.Module, *, seconds: float | None
    ) -> Generator[Event, None, float]:
        """Learn from an epoch's images; gives the mean loss.

        With `seconds`, the training is shortened to the epochs that fit into them at the pace seen.
        """
        config, fitting, pace, epoch = self.recipe.fit, self.fitting, self.pace, self.fitting.epoch
        total = 0.0
        batches = EpochBatches(
            images,
            drawn,
            augmentation,
            config,
            epoch,
            pace.steps,
            rank=self.fabric.global_rank,
            processes=self.fabric.world_size,
        )
        made = batches.make(self.workers, self.fabric.device)
        pace.begin()
        set_training(self.network, config)
        crash_here("before-first-step")
        for step in range(pace.steps):
            self.on_batch()
            if step == pace.steps // 2:
                crash_here("mid-epoch")
            batch = next(made)
            set_rate(fitting.optimizer, config, epoch * pace.steps + step, pace.steps * fitting.epochs)
            try:
                loss = yield from self._step(batch.to(self.fabric.device))
            except _NotFiniteError as error:
                shares = batches.shares(step)
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
            self.network, self.optimizer, max_norm=self.recipe.fit.clip, error_if_nonfinite=False
        )
        # in float16 the scaler leaves such a step out by itself, and scales less from then on
        scales = getattr(self.fabric._precision, "scaler", None) is not None
        if not scales and not torch.as_tensor(norm).isfinite():
            # the processes' gradients are summed by now
            raise _NotFiniteError("the gradient is not finite", range(self.fabric.world_size))
        self.optimizer.step()
        draw_back(self.fitting, self.recipe.fit, self.fabric.device)
        self.fitting.average.update_parameters(self.fitting.network)
        return mean

    def _backward(self, batch: Batch) -> torch.Tensor:
        """Compute the gradients of a batch's mean loss, and give that loss."""
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.fabric.device)
        for part in batch.split(self.micro_batches):
            shown = self._prompted(part)
            lesion, classes = self.network(shown.images)
            loss = joint_loss(lesion, classes, shown, self.recipe.fit).sum() / len(batch)
            self.fabric.backward(loss)
            total += loss.detach()
        return total

    def _prompted(self, batch: Batch) -> Batch:
        """Have a network that takes prompts answer first, and point at what is wrong."""
        if not self.recipe.model.takes_prompts:
            return batch

        @torch.no_grad()
        def answer(images: torch.Tensor) -> torch.Tensor:
            self.network.eval()
            lesion: torch.Tensor = self.network(images)[0]
            set_training(self.network, self.recipe.fit)
            return lesion

        return prompt(batch, answer, self.recipe.prompts, self.recipe.model.channels)

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


# the first steps of a process are slower than the rest, and do not count once there are others
_SLOW = 10
# of a training step, the way to an answer without the way back takes about this much
_FORWARD = 1 / 3


@dataclass(slots=True, kw_only=True)
class Pace:
    """The time that steps and epochs take."""

    # for its batch and its small epochs
    config: FitConfig
    # in an epoch
    steps: int
    # pixels of an image of the small epochs, as a share of the others'
    small: float = 1.0
    # images that are validated on after each epoch
    validation: int = 0
    # epochs that another fit will make afterwards
    follows: float = 0.0
    # seconds that one step takes, as last measured
    step: float = 0.0
    _validating: float | None = None
    _since: float = 0.0
    _counted: int = 0

    @property
    def is_guessed(self) -> bool:
        """Whether no epoch came to its end yet, so that what validating takes is not known."""
        return self._validating is None

    def begin(self) -> None:
        """Start the clock of an epoch's steps."""
        self._since, self._counted = time.monotonic(), 0

    def measure(self, done: int) -> None:
        """Take the time after so many steps of the epoch, more than at the last call."""
        now = time.monotonic()
        self.step = (now - self._since) / (done - self._counted)
        if self.is_guessed and done == _SLOW:
            self._since, self._counted = now, done

    def end(self, seconds: float) -> None:
        """Take note of how long all took that came after an epoch's last step."""
        self._validating = seconds

    def epoch(self, epoch: int, *, now: int) -> float:
        """Seconds that an epoch will take, at the pace of epoch `now`; both from 0."""
        return self.step * self.steps * self._pixels(epoch) / self._pixels(now) + self._after(now)

    def left(self, done: int, *, now: int, epochs: int) -> float:
        """Seconds that are left after so many steps of epoch `now`, until another fit is through too."""
        whole = sum(self.epoch(epoch, now=now) for epoch in range(now + 1, epochs))
        return (
            self.step * (self.steps - done)
            + self._after(now)
            + whole
            + self.follows * self.epoch(epochs, now=now)
        )

    def count_fitting(self, seconds: float, *, now: int, epochs: int) -> int:
        """Count the epochs, `now` the first of them, that fit into a time."""
        for epoch in range(now, epochs):
            seconds -= self.epoch(epoch, now=now)
            if seconds < 0:
                return epoch - now
        return epochs - now

    def _pixels(self, epoch: int) -> float:
        return self.small if epoch < self.config.small_epochs else 1.0

    def _after(self, now: int) -> float:
        if self._validating is not None:
            return self._validating
        return self.step / self._pixels(now) * _FORWARD * self.validation / self.config.batch
