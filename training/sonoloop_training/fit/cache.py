"""Every training image decoded and letterboxed once, kept in memory."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from numpy.typing import NDArray

from sonoloop.imaging.grey import to_unit
from sonoloop.imaging.phantom import phantom
from sonoloop.jobs.events import Progress
from sonoloop.models.preprocess import Letterbox
from sonoloop.values import CLASSES
from sonoloop_training.datasets import Sample

PHANTOM = "phantom"
_EVERY = 50


@dataclass(frozen=True, slots=True, eq=False)
class Cache:
    """Letterboxed images and masks.

    Parameters
    ----------
    images, masks : torch.Tensor
        uint8 (N, S, S); grey levels, and 1 in a lesion.
    labels : torch.Tensor
        Index into `CLASSES`, int64 (N,).
    names, datasets : tuple of str
        What each is called, and where it came from.
    weights : torch.Tensor, optional
        How much each image's mask and class teach, float32 (N, 2); 1 where nothing is given.
    replayed : int
        So many of the last images are replayed: an epoch draws `FitConfig.replay` times as many of them as of
        the others, by turns.
    """

    images: torch.Tensor
    masks: torch.Tensor
    labels: torch.Tensor
    names: tuple[str, ...]
    datasets: tuple[str, ...]
    weights: torch.Tensor | None = None
    replayed: int = 0

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.images.shape[-1]

    def shrink(self, size: int) -> Cache:
        """Return the same images at a smaller size."""
        images = _resize(self.images, size)
        masks = (_resize(self.masks * 255, size) >= 128).to(torch.uint8)
        return replace(self, images=images, masks=masks)


def small_size(size: int) -> int:
    """Side of the images of the small epochs: three quarters, as a multiple of 32."""
    return max(32, size * 3 // 4 // 32 * 32)


def cache_samples(
    samples: Sequence[Sample], *, phantoms: int, size: int, stage: str
) -> Generator[Progress, None, Cache]:
    """Read samples, and simulate `phantoms` images of each class beside them.

    Parameters
    ----------
    samples : sequence of Sample
        What to read.
    phantoms : int
        Simulated images of each class.
    size : int
        Side of the square in pixels.
    stage : str
        What the progress is called.

    Yields
    ------
    Progress
        Every fifty images.

    Returns
    -------
    Cache
        In the order of `samples`, phantoms last.
    """
    images, masks, labels, names, datasets = [], [], [], [], []
    for done, sample in enumerate(samples):
        if done % _EVERY == 0:
            yield Progress(stage=stage, done=done, total=len(samples))
        frame, mask = sample.read()
        image, small = letterbox_pair(frame.pixels, mask, size)
        images.append(image)
        masks.append(small)
        labels.append(CLASSES.index(sample.label))
        names.append(f"{sample.dataset}/{sample.name}")
        datasets.append(sample.dataset)
    yield Progress(stage=stage, done=len(samples), total=len(samples))
    for index, label in enumerate(CLASSES):
        for number in range(phantoms):
            # the seeds below 10,000 stay free for samples and tests
            simulated = phantom(label, seed=10_000 + number)
            image, small = letterbox_pair(simulated.image, simulated.mask > 0, size)
            images.append(image)
            masks.append(small)
            labels.append(index)
            names.append(f"{PHANTOM}/{label} {number}")
            datasets.append(PHANTOM)
    return Cache(torch.stack(images), torch.stack(masks), torch.tensor(labels), tuple(names), tuple(datasets))


def letterbox_pair(
    pixels: NDArray[np.generic], mask: NDArray[np.bool_], size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Letterbox an image and its mask to uint8 (S, S)."""
    height, width = pixels.shape
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
