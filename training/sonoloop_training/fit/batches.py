"""Which images an epoch draws, and the batches made of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torchvision.tv_tensors import Image, Mask

from sonoloop.errors import TrainingError
from sonoloop.models.preprocess import normalise
from sonoloop.values import CLASSES
from sonoloop_training.datasets import DATASETS
from sonoloop_training.fit.cache import PHANTOM, Cache
from sonoloop_training.fit.recipe import FitConfig
from sonoloop_training.fit.strips import cut_strip


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Augmented images with what is known of them.

    Parameters
    ----------
    images : torch.Tensor
        float32 (B, 1, S, S) in [-1, 1], channels last.
    masks : torch.Tensor
        float32 (B, 1, S, S), 0 or 1.
    labels : torch.Tensor
        int64 (B,).
    weights : torch.Tensor, optional
        How much each mask and class teach, float32 (B, 2); 1 where nothing is given.
    """

    images: torch.Tensor
    masks: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, parts: int) -> list[Batch]:
        """Return the batch in parts of about the same size."""
        pieces = (torch.chunk(tensor, parts) for tensor in self._tensors())
        return [Batch(*piece) for piece in zip(*pieces, strict=True)]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(*(tensor.to(device) for tensor in self._tensors()))

    def _tensors(self) -> list[torch.Tensor]:
        held = [self.images, self.masks, self.labels]
        return held if self.weights is None else [*held, self.weights]


def draw_weights(cache: Cache, config: FitConfig) -> torch.Tensor:
    """How often each image is drawn, relative to the others, float64 (N,).

    Raises
    ------
    TrainingError
        If a weight is given for a dataset that is neither known nor there.
    """
    known = {*DATASETS, PHANTOM, *cache.datasets, ""}
    for key in config.weights:
        if key.partition("/")[0] not in known:
            raise TrainingError(
                f"fit.weights names {key!r}; the datasets are {', '.join(sorted(known - {''}))}"
            )
    drawn = [
        image_weight(config, dataset, CLASSES[label])
        for dataset, label in zip(cache.datasets, cache.labels.tolist(), strict=True)
    ]
    weights = torch.tensor(drawn, dtype=torch.float64)
    if weights.sum() == 0:
        raise TrainingError("fit.weights leave no image to draw; give one of them a weight above 0")
    return weights


def image_weight(config: FitConfig, dataset: str, label: str) -> float:
    """How often an image of a dataset and class is drawn, relative to the others."""
    keys = (f"{dataset}/{label}", dataset, f"/{label}")
    return float(next((config.weights[key] for key in keys if key in config.weights), 1.0))


def count_draws(cache: Cache, config: FitConfig) -> int:
    """Count the images that an epoch draws."""
    if config.draws or not cache.replayed:
        return config.draws or len(cache)
    fresh = len(cache) - cache.replayed
    return fresh + round(config.replay * fresh)


def count_steps(config: FitConfig, draws: int, *, processes: int = 1) -> int:
    """Count the steps of an epoch.

    Raises
    ------
    TrainingError
        If not even one batch is drawn.
    """
    # the last batch may be smaller, unless it has to be shared; one image has no batch statistics
    rest = processes == 1 and draws % config.batch > 1
    steps = draws // config.batch + rest
    if steps == 0:
        raise TrainingError(f"{draws} images an epoch are less than a batch of {config.batch}; set fit.batch")
    return steps


def draw_epoch(
    weights: torch.Tensor, config: FitConfig, epoch: int, *, draws: int = 0, replayed: int = 0
) -> torch.Tensor:
    """Draw an epoch's images, int64 (draws,); the same for the same seed and epoch.

    Without weights that differ and as many draws as images, each is drawn once.

    Parameters
    ----------
    weights : torch.Tensor
        See `draw_weights`.
    config : FitConfig
        For its seed, and the share that is replayed.
    epoch : int
        From 0.
    draws : int
        How many; as `config` says unless given.
    replayed : int
        So many of the last images are replayed. The others are then drawn equally often, whatever their
        weights, and the replayed ones by turns over the epochs.
    """
    torch.manual_seed(_seed(config.seed, epoch, 0))
    draws = draws or config.draws or len(weights)
    if replayed:
        return _draw_by_turns(len(weights) - replayed, replayed, draws, config.replay, epoch)
    if draws == len(weights) and bool((weights == weights[0]).all()):
        return torch.randperm(len(weights))
    return torch.multinomial(weights, draws, replacement=True)


def count_replayed(draws: int, share: float) -> int:
    """Count the replayed images among the draws of an epoch, where there are `share` for each new one."""
    return min(draws - 1, round(draws * share / (1 + share)))


def _draw_by_turns(fresh: int, replayed: int, draws: int, share: float, epoch: int) -> torch.Tensor:
    old = count_replayed(draws, share)
    rounds = -(-(draws - old) // fresh)
    new = torch.cat([torch.randperm(fresh) for _ in range(rounds)])[: draws - old]
    turn = fresh + (epoch * old + torch.arange(old)) % replayed
    drawn = torch.cat([new, turn])
    return drawn[torch.randperm(draws)]


def make_batch(
    cache: Cache, drawn: torch.Tensor, augmentation: nn.Module, config: FitConfig, *, epoch: int, first: int
) -> Batch:
    """Augment some of an epoch's images.

    Parameters
    ----------
    cache : Cache
        All images.
    drawn : torch.Tensor
        Which of them, int64 (B,).
    augmentation : torch.nn.Module
        See `sonoloop_training.augment.build_augmentation`.
    config : FitConfig
        For its seed and strips.
    epoch : int
        From 0.
    first : int
        Place of the first in the epoch. What is random about an image follows from its place alone, so that
        a resumed run, and one on several processes, sees the same.
    """
    images, masks, labels = [], [], []
    for place, index in enumerate(drawn.tolist(), first):
        torch.manual_seed(_seed(config.seed, epoch, 1 + place))
        image, mask = cache.images[index][None].float() / 255, cache.masks[index][None]
        label = int(cache.labels[index])
        if config.strips and torch.rand(()) < config.strips:
            image, mask, label = cut_strip(image, mask, label)
        image, mask = augmentation(Image(image), Mask(mask))
        images.append(image.as_subclass(torch.Tensor))
        masks.append(mask.as_subclass(torch.Tensor).float())
        labels.append(label)
    stacked = normalise(torch.stack(images)).to(memory_format=torch.channels_last)
    weights = None if cache.weights is None else cache.weights[drawn]
    return Batch(stacked, torch.stack(masks), torch.tensor(labels), weights)


def _seed(seed: int, epoch: int, place: int) -> int:
    return ((seed * 100_003 + epoch) * 10_000_019 + place) % 2**63
