"""What a network is taught: the lesion's pixels, and the class."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation

from sonoloop_training.batches import Batch
from sonoloop_training.fit_config import FitConfig


def joint_loss(
    lesion: torch.Tensor | None, classes: torch.Tensor, batch: Batch, config: FitConfig
) -> torch.Tensor:
    """Both heads' losses by their weights, (B,), one an image; `lesion` is None without that head.

    Where the batch has weights, each image's mask and class count by their own.
    """
    named = class_loss(classes.float(), batch.labels, smoothing=config.label_smoothing)
    if batch.weights is not None:
        named = named * batch.weights[:, 1]
    if lesion is None:
        return named
    dice = config.loss == "cross-entropy + dice"
    drawn = segmentation_loss(lesion.float(), batch.masks, empty_weight=config.empty_weight, dice=dice)
    if batch.weights is not None:
        drawn = drawn * batch.weights[:, 0]
    return config.lesion_weight * drawn + config.class_weight * named


def segmentation_loss(
    logits: torch.Tensor, masks: torch.Tensor, *, empty_weight: float, dice: bool = True
) -> torch.Tensor:
    """Cross-entropy plus soft Dice; on an image without a lesion a penalty on every pixel claimed.

    The soft Dice of an empty mask is undefined. There, ``p / (p + s)`` with `p` the predicted area and `s` a
    five-hundredth of the image rises steeply with the first false pixels and then levels off.

    Parameters
    ----------
    logits, masks : torch.Tensor
        (B, 1, S, S); masks in {0, 1}.
    empty_weight : float
        Weight of the penalty against the Dice term.
    dice : bool
        Whether there is more than cross-entropy.

    Returns
    -------
    torch.Tensor
        (B,), one loss an image.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2, 3))
    if not dice:
        return entropy
    probability = logits.sigmoid()
    area, truth = probability.sum((1, 2, 3)), masks.sum((1, 2, 3))
    overlap = (probability * masks).sum((1, 2, 3))
    dice_loss = 1 - (2 * overlap + 1) / (area + truth + 1)
    small = logits[0].numel() / 500
    empty_loss = empty_weight * area / (area + small)
    return entropy + torch.where(truth > 0, dice_loss, empty_loss)


def class_loss(logits: torch.Tensor, labels: torch.Tensor, *, smoothing: float) -> torch.Tensor:
    """Cross-entropy with label smoothing, (B,), one loss an image."""
    return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
