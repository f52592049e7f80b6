"""Every training image decoded and letterboxed once, kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sonoloop.imaging.grey import to_unit
from sonoloop.imaging.phantom import phantom
from sonoloop.models.letterbox import Letterbox
from sonoloop.values import CLASSES
from sonoloop_training.datasets import Sample


@dataclass(frozen=True, slots=True, eq=False)
class Cache:
    """Letterboxed images and masks.

    Parameters
    ----------
    images, masks : torch.Tensor
        uint8 (N, S, S); grey levels, and 1 in a lesion.
    labels : torch.Tensor
        Index into `CLASSES`, int64 (N,).
    datasets : tuple of str
        Where each came from.
    """

    images: torch.Tensor
    masks: torch.Tensor
    labels: torch.Tensor
    datasets: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.datasets)


def cache_samples(samples: Sequence[Sample], *, phantoms: int, size: int) -> Cache:
    """Read samples, and simulate `phantoms` images of each class beside them."""
    images, masks, labels, datasets = [], [], [], []
    for sample in samples:
        frame, mask = sample.read()
        image, small = letterbox_pair(frame.pixels, mask, size)
        images.append(image)
        masks.append(small)
        labels.append(CLASSES.index(sample.label))
        datasets.append(sample.dataset)
    for index, label in enumerate(CLASSES):
        for number in range(phantoms):
            # the seeds below 10,000 stay free for samples and tests
            simulated = phantom(label, seed=10_000 + number)
            image, small = letterbox_pair(simulated.image, simulated.mask > 0, size)
            images.append(image)
            masks.append(small)
            labels.append(index)
            datasets.append("phantom")
    return Cache(torch.stack(images), torch.stack(masks), torch.tensor(labels), tuple(datasets))


def letterbox_pair(
    pixels: NDArray[np.generic], mask: NDArray[np.bool_], size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Letterbox an image and its mask to uint8 (S, S)."""
    height, width = pixels.shape
    box = Letterbox(height, width, size)
    image = box.apply(torch.from_numpy(to_unit(pixels)))
    small = box.apply(torch.from_numpy(mask.astype(np.float32))) >= 0.5
    return (image * 255).round().to(torch.uint8), small.to(torch.uint8)
