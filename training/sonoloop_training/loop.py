"""The training loop, on Lightning Fabric."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.tv_tensors import Image, Mask

from sonoloop.errors import TrainingError
from sonoloop.models.devices import autocast_dtype, choose_device
from sonoloop.models.letterbox import normalise
from sonoloop.models.spec import build_network
from sonoloop.values import CLASSES
from sonoloop_training.augment import build_augmentation
from sonoloop_training.cache import Cache
from sonoloop_training.checkpoint import CHECKPOINT, Fitting, resume, save_checkpoint
from sonoloop_training.events import EpochDone, Event, Started, Step
from sonoloop_training.losses import class_loss, segmentation_loss
from sonoloop_training.pretrained import load_pretrained_encoder
from sonoloop_training.recipe import Recipe

logger = logging.getLogger(__name__)

_PRECISIONS = {None: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}


def fit(
    recipe: Recipe,
    train: Cache,
    validation: Cache,
    *,
    out: Path,
    learns_from: str,
    device: str = "auto",
    test: int = 0,
) -> Iterator[Event]:
    """Train, epoch by epoch, and leave the averaged weights in ``out / "checkpoint.pt"``.

    Parameters
    ----------
    recipe : Recipe
        How to train.
    train, validation : Cache
        The images that teach and those that are watched.
    out : pathlib.Path
        A checkpoint found there is gone on from.
    learns_from : str
        Hash of the split. A checkpoint of another split is refused: its test images may have trained.
    device : str
        See `sonoloop.models.devices.choose_device`.
    test : int
        Size of the test set, only to be told.

    Yields
    ------
    Event
        `Started`, then `Step` and `EpochDone`.

    Raises
    ------
    TrainingError
        If the loss is not finite, or the checkpoint is of another recipe or split.
    """
    out.mkdir(parents=True, exist_ok=True)
    config = recipe.fit
    chosen = choose_device(device)
    fabric = Fabric(accelerator=chosen.type, devices=1, precision=_PRECISIONS[autocast_dtype(chosen)])  # type: ignore[arg-type]
    steps = -(-config.draws // config.batch)
    fitting = _prepare(recipe, steps)
    network, optimizer = fabric.setup(fitting.network, fitting.optimizer)
    fitting.ema.to(fabric.device)
    checkpoint = out / CHECKPOINT
    if checkpoint.is_file():
        # after the set-up, so that the optimiser's state lands on the device
        resume(fitting, checkpoint, recipe, learns_from=learns_from)
    yield Started(
        recipe=recipe.name,
        device=str(fabric.device),
        precision=str(fabric._precision.precision),
        train=len(train),
        validation=len(validation),
        test=test,
        epoch=fitting.epoch,
        epochs=config.epochs,
        steps=steps,
    )
    augmentation = build_augmentation(recipe.augment)
    drawing = draw_weights(train, recipe)
    while fitting.epoch < config.epochs:
        # everything random in an epoch follows from its number, so that a resumed run draws the same
        torch.manual_seed(config.seed * 100_003 + fitting.epoch)
        order = torch.multinomial(drawing, config.draws, replacement=True)
        network.train()
        start, total = time.monotonic(), 0.0
        for step in range(steps):
            chosen_images = order[step * config.batch : (step + 1) * config.batch]
            batch = [tensor.to(fabric.device) for tensor in _augmented(train, chosen_images, augmentation)]
            loss = _loss(network, batch, recipe)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss.item()} in epoch {fitting.epoch + 1}, batch {step + 1} "
                    f"(images {chosen_images.tolist()}); the last checkpoint is kept: lower fit.learning_rate"
                )
            optimizer.zero_grad()
            fabric.backward(loss)
            fabric.clip_gradients(network, optimizer, max_norm=config.clip, error_if_nonfinite=False)
            optimizer.step()
            fitting.schedule.step()
            fitting.ema.update_parameters(fitting.network)
            total += loss.item()
            if step % 10 == 9:
                pace = (time.monotonic() - start) / (step + 1)
                left = pace * (steps * (config.epochs - fitting.epoch) - step - 1)
                yield Step(
                    epoch=fitting.epoch + 1,
                    step=step + 1,
                    steps=steps,
                    loss=total / (step + 1),
                    seconds_left=left,
                )
        fitting.epoch += 1
        watched = watch(fitting.ema.module, validation, fabric)
        save_checkpoint(fitting, checkpoint, recipe, learns_from=learns_from)
        yield EpochDone(
            epoch=fitting.epoch,
            epochs=config.epochs,
            loss=total / steps,
            seconds=time.monotonic() - start,
            **watched,
        )


def draw_weights(cache: Cache, recipe: Recipe) -> torch.Tensor:
    """How often each image is drawn, relative to the others, float64 (N,)."""
    weights = recipe.fit.weights
    classes = [CLASSES[label] for label in cache.labels.tolist()]
    drawn = [
        weights.get(f"{d}/{c}", weights.get(d, 1.0)) for d, c in zip(cache.datasets, classes, strict=True)
    ]
    return torch.tensor(drawn, dtype=torch.float64)


def _prepare(recipe: Recipe, steps: int) -> Fitting:
    config = recipe.fit
    torch.manual_seed(config.seed)
    network = build_network(recipe.model)
    source = load_pretrained_encoder(network, recipe.model.encoder) if config.pretrained else "random"
    if config.freeze_depthwise:
        freeze_depthwise(network.get_submodule("encoder"))
    encoder = list(network.get_submodule("encoder").parameters())
    known = {id(parameter) for parameter in encoder}
    others = [parameter for parameter in network.parameters() if id(parameter) not in known]
    rates = [config.encoder_learning_rate, config.learning_rate]
    optimizer = torch.optim.AdamW(
        [{"params": encoder, "lr": rates[0]}, {"params": others, "lr": rates[1]}],
        weight_decay=config.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=rates, total_steps=steps * config.epochs, pct_start=0.15
    )
    ema = AveragedModel(
        network,
        multi_avg_fn=get_ema_multi_avg_fn(config.ema),  # type: ignore[no-untyped-call]
        use_buffers=True,
    )
    return Fitting(network, optimizer, schedule, ema, weights_source=source)


def freeze_depthwise(encoder: nn.Module) -> None:
    """Leave an encoder's 5 x 5 depthwise kernels as they are; see `FitConfig`."""
    for module in encoder.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.groups == module.in_channels > 1
            and module.kernel_size == (5, 5)
        ):
            module.weight.requires_grad_(False)


def _augmented(cache: Cache, indices: torch.Tensor, augmentation: nn.Module) -> list[torch.Tensor]:
    images, masks = [], []
    for index in indices.tolist():
        image = Image(cache.images[index][None].float() / 255)
        image, mask = augmentation(image, Mask(cache.masks[index][None]))
        images.append(image.as_subclass(torch.Tensor))
        masks.append(mask.as_subclass(torch.Tensor).float())
    stacked = normalise(torch.stack(images)).to(memory_format=torch.channels_last)
    return [stacked, torch.stack(masks), cache.labels[indices]]


def _loss(network: nn.Module, batch: list[torch.Tensor], recipe: Recipe) -> torch.Tensor:
    images, masks, labels = batch
    lesion, classes = network(images)
    config = recipe.fit
    drawn = segmentation_loss(lesion.float(), masks, empty_weight=config.empty_weight)
    named = class_loss(classes.float(), labels, smoothing=config.label_smoothing)
    return (drawn + config.class_weight * named).mean()


@torch.inference_mode()
def watch(network: nn.Module, cache: Cache, fabric: Fabric) -> dict[str, float]:
    """Score on letterboxed images: enough to watch a training, not to report a model."""
    network.eval()
    dices, alarms, hits = [], [], []
    for start in range(0, len(cache), 16):
        images = normalise(cache.images[start : start + 16, None].to(fabric.device).float() / 255)
        with fabric.autocast():
            lesion, classes = network(images.contiguous(memory_format=torch.channels_last))
        got = (lesion[:, 0].float() > 0).cpu()
        want = cache.masks[start : start + 16].bool()
        hits += (classes.argmax(1).cpu() == cache.labels[start : start + 16]).tolist()
        for mask, truth in zip(got, want, strict=True):
            if truth.any():
                dices.append(2 * (mask & truth).sum().item() / (mask.sum() + truth.sum()).item())
            else:
                alarms.append(bool(mask.any()))
    return {
        "dice": sum(dices) / max(1, len(dices)),
        "missed": sum(dice == 0 for dice in dices) / max(1, len(dices)),
        "false_alarms": sum(alarms) / max(1, len(alarms)),
        "accuracy": sum(hits) / max(1, len(hits)),
    }
