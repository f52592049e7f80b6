"""A picture of what augmentation does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Picture

from sonoloop.errors import TrainingError
from sonoloop.imaging.overlay import draw_overlay
from sonoloop.jobs.events import Event, Finished
from sonoloop_training.augment import build_augmentation
from sonoloop_training.datasets import find_datasets
from sonoloop_training.fit.batches import make_batch
from sonoloop_training.fit.cache import cache_samples
from sonoloop_training.fit.recipe_ import Recipe

PAIRS = 32
_COLUMNS = 8


def show_augmentation(recipe: Recipe, data: Path, path: Path) -> Iterator[Event]:
    """Draw 32 pairs: each image as it is and, to its right, augmented; lesions outlined.

    Raises
    ------
    TrainingError
        If the picture cannot be written.
    """
    samples = find_datasets(data)
    chosen = np.random.default_rng(recipe.fit.seed).permutation(len(samples))[:PAIRS]
    cache = yield from cache_samples(
        [samples[index] for index in chosen], phantoms=0, size=recipe.model.size, stage="Reading"
    )
    order = torch.arange(len(cache))
    batch = make_batch(cache, order, build_augmentation(recipe.augment), recipe.fit, epoch=0, first=0)
    tiles = []
    for index in order.tolist():
        augmented = ((batch.images[index, 0] + 1) * 127.5).round().to(torch.uint8)
        before = _tile(cache.images[index].numpy(), cache.masks[index].numpy())
        after = _tile(augmented.numpy(), batch.masks[index, 0].to(torch.uint8).numpy())
        tiles.append(np.concatenate([before, after], axis=1))
    while len(tiles) % (_COLUMNS // 2):
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.concatenate(tiles[i : i + _COLUMNS // 2], axis=1) for i in range(0, len(tiles), _COLUMNS // 2)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Picture.fromarray(np.concatenate(rows)).save(path, format="PNG")
    except OSError as error:
        raise TrainingError(f"{path} cannot be written ({error.strerror}); give another file") from error
    yield Finished(model="", path=str(path), minutes=0.0)


def _tile(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = image.shape[0]
    return draw_overlay(image, mask, [])[:side, :side]
