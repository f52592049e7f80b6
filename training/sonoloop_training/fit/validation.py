"""The figures that are watched while a training runs, on letterboxed validation images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sonoloop.models.preprocess import normalise
from sonoloop.values import CLASSES
from sonoloop_training.fit.batches import Cache

FIGURES = ("dice", "missed", "false_alarms", "accuracy", "score")
_BATCH = 16


@torch.inference_mode()
def watch(
    network: nn.Module,
    cache: Cache,
    device: torch.device,
    autocast: Callable[[], Any],
    on_batch: Callable[[], None] | None = None,
) -> dict[str, float | None]:
    """Score a network: enough to watch a training, not to report a model."""
    network.eval()
    dices, empties = [], []
    hits: dict[int, list[bool]] = {index: [] for index in range(len(CLASSES))}
    segments = True
    known = torch.ones(len(cache), dtype=torch.bool) if cache.weights is None else cache.weights[:, 1] > 0
    for start in range(0, len(cache), _BATCH):
        if on_batch is not None:
            on_batch()
        images = normalise(cache.images[start : start + _BATCH, None].to(device).float() / 255)
        with autocast():
            lesion, classes = network(images.contiguous(memory_format=torch.channels_last))
        truths = cache.labels[start : start + _BATCH].tolist()
        told = known[start : start + _BATCH].tolist()
        for truth, guess, is_known in zip(truths, classes.argmax(1).tolist(), told, strict=True):
            if is_known:
                hits[truth].append(truth == guess)
        segments = lesion is not None
        if not segments:
            continue
        got = (lesion[:, 0].float() > 0).cpu()
        for mask, wanted in zip(got, cache.masks[start : start + _BATCH].bool(), strict=True):
            if wanted.any():
                dices.append(2 * (mask & wanted).sum().item() / (mask.sum() + wanted.sum()).item())
            else:
                empties.append(float(not mask.any()))
    recalls = [_mean([float(hit) for hit in some]) for some in hits.values() if some]
    alarms = _mean(empties)
    return {
        "dice": _mean(dices),
        "missed": _mean([float(dice == 0) for dice in dices]),
        "false_alarms": None if alarms is None else 1 - alarms,
        "accuracy": _mean([float(hit) for some in hits.values() for hit in some]),
        "score": _mean(dices + empties) if segments else _mean([r for r in recalls if r is not None]),
    }


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
