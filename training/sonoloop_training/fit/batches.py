"""Which images an epoch draws, and the batches made of them."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.tv_tensors import Image, Mask

from sonoloop.errors import TrainingError
from sonoloop.imaging.grey import to_unit
from sonoloop.imaging.phantom import phantom
from sonoloop.jobs.events import Notice, Progress
from sonoloop.models.preprocess import Letterbox, normalise
from sonoloop.values import CLASSES, ClassName
from sonoloop_training.augment.transplant import exchange_look, paint_out, put_in
from sonoloop_training.datasets import DATASETS, Sample
from sonoloop_training.fit.recipe import FitConfig

PHANTOM = "phantom"
_EVERY = 50
# odd masks that are named
_NAMED = 5


class CachedImage(NamedTuple):
    """A letterboxed image, uint8 (S, S), with its mask, and how much its mask and its class teach."""

    image: torch.Tensor
    mask: torch.Tensor
    label: ClassName
    name: str
    dataset: str
    weights: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Cache:
    """Letterboxed images and masks, in memory."""

    # uint8 (N, S, S); grey levels, and 1 in a lesion
    images: torch.Tensor
    masks: torch.Tensor
    # index into `CLASSES`, int64 (N,)
    labels: torch.Tensor
    # what each is called, and where it came from
    names: tuple[str, ...]
    datasets: tuple[str, ...]
    # how much each image's mask and class teach, float32 (N, 2)
    weights: torch.Tensor
    # so many of the last images are replayed: an epoch draws `FitConfig.replay` times as many of them as of
    # the others, by turns
    replayed: int = 0

    @classmethod
    def of(cls, images: Sequence[CachedImage]) -> Cache:
        """Put images together."""
        return cls(
            torch.stack([one.image for one in images]),
            torch.stack([one.mask for one in images]),
            torch.tensor([CLASSES.index(one.label) for one in images]),
            tuple(one.name for one in images),
            tuple(one.dataset for one in images),
            torch.tensor([one.weights for one in images]),
        )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.images.shape[-1]

    def pair(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return an image, float (1, S, S) in [0, 1], and its mask, uint8 (1, S, S)."""
        return self.images[index][None].float() / 255, self.masks[index][None]

    def shrink(self, size: int) -> Cache:
        """Return the same images at a smaller size."""
        images = _resize(self.images, size)
        masks = (_resize(self.masks * 255, size) >= 128).to(torch.uint8)
        return replace(self, images=images, masks=masks)


def small_size(size: int) -> int:
    """Side of the images of the small epochs: three quarters, as a multiple of 32."""
    return max(32, size * 3 // 4 // 32 * 32)


def cache_samples(
    samples: Sequence[Sample], *, size: int, phantoms: int = 0
) -> Generator[Progress | Notice, None, Cache]:
    """Read samples, and simulate `phantoms` images of each class beside them."""
    cached: list[CachedImage] = []
    odd: list[str] = []
    for done, sample in enumerate(samples):
        if done % _EVERY == 0:
            yield Progress(stage="Reading", done=done, total=len(samples))
        frame, masks = sample.look()
        sample.check(masks)
        if masks.faults:
            odd.append(sample.key)
        pair = letterbox_pair(frame.pixels, masks.union, size, original=sample.original)
        cached.append(CachedImage(*pair, sample.label, f"{sample.dataset}/{sample.name}", sample.dataset))
    yield Progress(stage="Reading", done=len(samples), total=len(samples))
    if odd:
        more = f" and {len(odd) - _NAMED} more" if len(odd) > _NAMED else ""
        yield Notice(
            message=f"{len(odd)} masks look odd and are taken as they are ({', '.join(odd[:_NAMED])}{more}); "
            "sonoloop data check says why"
        )
    for label in CLASSES:
        for number in range(phantoms):
            # the seeds below 10,000 stay free for samples and tests
            simulated = phantom(label, seed=10_000 + number)
            pair = letterbox_pair(simulated.image, simulated.mask > 0, size)
            cached.append(CachedImage(*pair, label, f"{PHANTOM}/{label} {number}", PHANTOM))
    return Cache.of(cached)


def letterbox_pair(
    pixels: NDArray[np.generic],
    mask: NDArray[np.bool_],
    size: int,
    *,
    original: tuple[int, int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Letterbox an image and its mask to uint8 (S, S), to where the original would come to lie."""
    height, width = original or pixels.shape
    box = Letterbox(height, width, size)
    image = box.apply(torch.from_numpy(to_unit(pixels)))
    small = box.apply(torch.from_numpy(mask.astype(np.float32))) >= 0.5
    return (image * 255).round().to(torch.uint8), small.to(torch.uint8)


def _resize(levels: torch.Tensor, size: int) -> torch.Tensor:
    # a few at a time: in float32 all would take four times their memory
    parts = [
        F.interpolate(
            part[:, None].float(), (size, size), mode="bilinear", align_corners=False, antialias=True
        )[:, 0]
        .round()
        .to(torch.uint8)
        for part in torch.split(levels, 64)
    ]
    return torch.cat(parts)


def draw_weights(cache: Cache, config: FitConfig) -> torch.Tensor:
    """How often each image is drawn, relative to the others, float64 (N,)."""
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
    weights = _balance(torch.tensor(drawn, dtype=torch.float64), cache.datasets, config)
    if weights.sum() == 0:
        raise TrainingError("fit.weights leave no image to draw; give one of them a weight above 0")
    return weights


def _balance(weights: torch.Tensor, datasets: Sequence[str], config: FitConfig) -> torch.Tensor:
    """Share what is drawn of the hospitals among them as the recipe says; phantoms are of none."""
    if config.balance == "none":
        return weights
    places: dict[str, list[int]] = {}
    for place, dataset in enumerate(datasets):
        # a hospital of which nothing is drawn has no share
        if dataset != PHANTOM and weights[place] > 0:
            places.setdefault(dataset, []).append(place)
    shares = {name: len(own) ** 0.5 if config.balance == "root" else 1.0 for name, own in places.items()}
    together = weights[[place for own in places.values() for place in own]].sum()
    balanced = weights.clone()
    for name, own in places.items():
        balanced[own] *= together * shares[name] / sum(shares.values()) / weights[own].sum()
    return balanced


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
    """Count the steps of an epoch."""
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


def _seed(seed: int, epoch: int, place: int) -> int:
    return ((seed * 100_003 + epoch) * 10_000_019 + place) % 2**63


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Augmented images with what is known of them."""

    # float32 (B, 1, S, S) in [-1, 1], channels last
    images: torch.Tensor
    # float32 (B, 1, S, S), 0 or 1
    masks: torch.Tensor
    # int64 (B,)
    labels: torch.Tensor
    # how much each mask and class teach, float32 (B, 2)
    weights: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, parts: int) -> list[Batch]:
        """Return the batch in parts of about the same size."""
        pieces = (torch.chunk(tensor, parts) for tensor in self._tensors)
        return [Batch(*piece) for piece in zip(*pieces, strict=True)]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self._tensors))

    def pin_memory(self) -> Batch:
        """Return the batch where a GPU fetches it from without being waited for."""
        return Batch(*(tensor.pin_memory() for tensor in self._tensors))

    @property
    def _tensors(self) -> tuple[torch.Tensor, ...]:
        return self.images, self.masks, self.labels, self.weights


def make_batch(
    cache: Cache, drawn: torch.Tensor, augmentation: nn.Module, config: FitConfig, *, epoch: int, first: int
) -> Batch:
    """Augment some of an epoch's images."""
    images, masks, labels, weights = [], [], [], cache.weights[drawn]
    for place, index in enumerate(drawn.tolist(), first):
        torch.manual_seed(_seed(config.seed, epoch, 1 + place))
        image, mask = cache.pair(index)
        label = int(cache.labels[index])
        image, mask, whole = transplant(image, mask, cache, config)
        if not whole:
            weights[place - first, 1] = 0
        if config.strips and torch.rand(()) < config.strips:
            image, mask, label = cut_strip(image, mask, label)
        image, mask = augmentation(Image(image), Mask(mask))
        images.append(image.as_subclass(torch.Tensor))
        masks.append(mask.as_subclass(torch.Tensor).float())
        labels.append(label)
    stacked = normalise(torch.stack(images)).to(memory_format=torch.channels_last)
    return Batch(stacked, torch.stack(masks), torch.tensor(labels), weights)


@dataclass(frozen=True, slots=True, eq=False)
class EpochBatches(Dataset[tuple[Batch, torch.Tensor]]):
    """The batches that one process makes of an epoch's images, by their steps.

    What is random about a batch follows from its step alone, so that it is the same whichever process makes
    it; beside it stands the state that random numbers are in then, since a network's dropout goes on from it.
    """

    cache: Cache
    # index of every image of the epoch, int64
    drawn: torch.Tensor
    augmentation: nn.Module
    config: FitConfig
    epoch: int
    steps: int
    # of how many processes that learn together this is which one
    rank: int = 0
    processes: int = 1

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Batch, torch.Tensor]:
        """Make the batch of a step."""
        own = self.shares(step)[self.rank]
        batch = make_batch(
            self.cache, own, self.augmentation, self.config, epoch=self.epoch, first=self._first(step)
        )
        return batch, torch.get_rng_state()

    def shares(self, step: int) -> tuple[torch.Tensor, ...]:
        """Give the images of a step, one share a process that learns."""
        batch = self.config.batch
        return torch.split(self.drawn[step * batch : (step + 1) * batch], batch // self.processes)

    def make(self, workers: int, device: torch.device) -> Iterator[Batch]:
        """Make one after the other; with `workers`, so many processes make them while the network learns."""
        if not workers:
            yield from (self[step][0] for step in range(self.steps))
            return
        loader = DataLoader(
            self,
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=device.type == "cuda",
            # without it the cache would be copied for each of them
            multiprocessing_context="fork" if sys.platform == "linux" else None,
            generator=torch.Generator(),
        )
        try:
            for step, (batch, state) in enumerate(loader):
                # a GPU's own random numbers too are as if the batch had been made here
                last = self._first(step) + len(batch) - 1
                torch.manual_seed(_seed(self.config.seed, self.epoch, 1 + last))
                torch.set_rng_state(state)
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise TrainingError(
                f"a process that augments images ended ({str(error).partition(chr(10))[0]}); the last "
                "checkpoint is kept: see that there is memory, or go on with --workers 0"
            ) from error

    def _first(self, step: int) -> int:
        return step * self.config.batch + self.rank * (self.config.batch // self.processes)


def _as_it_is(made: Any) -> Any:  # noqa: ANN401 - as torch declares it
    return made


def transplant(
    image: torch.Tensor, mask: torch.Tensor, cache: Cache, config: FitConfig
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Move tissue within an image and from others, and say whether its own lesions alone are still there."""
    own = mask
    if config.paint_out and torch.rand(()) < config.paint_out:
        image, mask = paint_out(image, mask)
    if config.put_in and torch.rand(()) < config.put_in:
        image, mask = put_in(image, mask, *cache.pair(int(torch.randint(len(cache), ()))))
    if config.look and torch.rand(()) < config.look:
        image = exchange_look(image, cache.pair(int(torch.randint(len(cache), ())))[0])
    return image, mask, torch.equal(own, mask)


_NARROWEST, _WIDEST = 0.4, 0.75
# next to a lesion lie its margin and its shadow
_MARGIN = 0.05


def cut_strip(image: torch.Tensor, mask: torch.Tensor, label: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Cut a random strip that holds the whole lesion or none of it."""
    side = image.shape[-1]
    lit = torch.nonzero(image[0].amax(0) > 0)[:, 0]
    if len(lit) < side // 4:
        return image, mask, label
    first, last = int(lit[0]), int(lit[-1]) + 1
    width = int((last - first) * torch.empty(()).uniform_(_NARROWEST, _WIDEST))
    start = int(torch.randint(first, max(first, last - width) + 1, ()))
    stop = start + width
    rows = torch.nonzero(image[0, :, start:stop].amax(1) > 0)[:, 0]
    if len(rows) == 0:
        return image, mask, label
    lesion = torch.nonzero(mask[0].amax(0))[:, 0]
    if len(lesion):
        left, right = int(lesion[0]), int(lesion[-1]) + 1
        margin = int(_MARGIN * (last - first))
        if stop <= left - margin or start >= right + margin:
            label = CLASSES.index("normal")
        elif not (start <= left and right <= stop):
            return image, mask, label
    image, mask = image[..., start:stop], mask[..., start:stop]
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return _fit(image[:, top:bottom], side, "bilinear"), _fit(mask[:, top:bottom], side, "nearest"), label


def _fit(part: torch.Tensor, side: int, mode: str) -> torch.Tensor:
    height, width = part.shape[-2:]
    scale = side / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    smooth = {"align_corners": False} if mode == "bilinear" else {}
    grown = F.interpolate(part[None].float(), size, mode=mode, **smooth)[0].to(part.dtype)
    above, before = (side - size[0]) // 2, (side - size[1]) // 2
    return F.pad(grown, (before, side - size[1] - before, above, side - size[0] - above))
