"""What a network is taught: the lesion's pixels, and the class."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation

from sonoloop_training.fit.batches import Batch
from sonoloop_training.fit.recipe import FitConfig, SegmentationLoss

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
