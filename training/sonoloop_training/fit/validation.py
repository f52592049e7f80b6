"""How a network does while it learns, on letterboxed validation images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sonoloop.models.preprocess import normalise
from sonoloop.values import CLASSES
from sonoloop_training.fit.batches import Cache

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
    # which epoch is best: Dice, an empty mask that stays empty being 1; of a classifier the mean recall
    score: float | None = None


@torch.inference_mode()
def validate(
    network: nn.Module,
    cache: Cache,
    device: torch.device,
    autocast: Callable[[], Any],
    on_batch: Callable[[], None] = lambda: None,
) -> ValidationScores:
    """Score a network: enough to follow a training, not to report a model."""
    network.eval()
    dices: list[float] = []
    empties: list[float] = []
    hits: dict[int, list[bool]] = {index: [] for index in range(len(CLASSES))}
    segments = True
    for start in range(0, len(cache), _BATCH):
        on_batch()
        some = slice(start, start + _BATCH)
        images = normalise(cache.images[some, None].to(device).float() / 255)
        with autocast():
            lesion, classes = network(images.contiguous(memory_format=torch.channels_last))
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
    recalls = [sum(right) / len(right) for right in hits.values() if right]
    return ValidationScores(
        dice=_mean(dices),
        missed=_mean([dice == 0 for dice in dices]),
        false_alarms=None if not empties else 1 - sum(empties) / len(empties),
        accuracy=_mean([hit for right in hits.values() for hit in right]),
        score=_mean(dices + empties) if segments else _mean(recalls),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
