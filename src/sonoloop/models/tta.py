"""Several views of one image, averaged; where they disagree, the mask is doubtful."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation

VIEWS = (1, 2, 4)
_SMALLER = 0.8


def make_views(images: torch.Tensor, views: int) -> torch.Tensor:
    """Stack views of a batch.

    Parameters
    ----------
    images : torch.Tensor
        (B, 1, S, S).
    views : int
        1: as it is; 2: mirrored too; 4: both at four fifths of the size too.

    Returns
    -------
    torch.Tensor
        (views * B, 1, S, S), view by view.
    """
    stack = [images]
    if views >= 2:
        stack.append(images.flip(-1))
    if views == 4:
        stack += [_shrink(view) for view in list(stack)]
    return torch.cat(stack)


def undo_views(maps: torch.Tensor, views: int) -> torch.Tensor:
    """Bring maps of stacked views back to the image's geometry.

    Parameters
    ----------
    maps : torch.Tensor
        (views * B, 1, S, S), as `make_views` orders them.
    views : int
        How many.

    Returns
    -------
    torch.Tensor
        (views, B, S, S).
    """
    stacked = list(maps[:, 0].reshape(views, -1, *maps.shape[-2:]))
    if views == 4:
        stacked[2], stacked[3] = _grow(stacked[2]), _grow(stacked[3])
    for place in range(1, views, 2):
        stacked[place] = stacked[place].flip(-1)
    return torch.stack(stacked)


def agreement(maps: torch.Tensor, threshold: float) -> torch.Tensor:
    """How far the views agree on the mask, in [0, 1].

    The mean of the soft Dice of their mean with itself binarised, and of the Dice of each pair of binarised
    views (the pairwise agreement of an ensemble; Zenk et al. 2025 found it the best simple predictor of
    failure).

    Parameters
    ----------
    maps : torch.Tensor
        Lesion probability, (views, B, S, S).
    threshold : float
        At which they are binarised.

    Returns
    -------
    torch.Tensor
        (B,); 0 where no view sees a lesion.
    """
    mean = maps.mean(0)
    own = (mean >= threshold).float()
    scores = [2 * (mean * own).sum((1, 2)) / (mean + own).sum((1, 2)).clamp(min=1e-6)]
    binary = (maps >= threshold).float()
    for one, other in combinations(binary, 2):
        total = (one + other).sum((1, 2))
        scores.append(torch.where(total > 0, 2 * (one * other).sum((1, 2)) / total.clamp(min=1), 0.0))
    return scores[0] if len(scores) == 1 else (scores[0] + torch.stack(scores[1:]).mean(0)) / 2


def expected_dice(score: float, curves: Mapping[str, Mapping[str, list[float]]], views: int) -> float:
    """Turn an agreement into an expected Dice by the card's line; uncalibrated where it has none."""
    curve = curves.get(str(views))
    return float(np.interp(score, curve["x"], curve["y"])) if curve else score


def _shrink(images: torch.Tensor) -> torch.Tensor:
    side, inner, before = _inner(images.shape[-1])
    small = F.interpolate(images, (inner, inner), mode="bilinear", align_corners=False, antialias=True)
    # black as the letterbox's border, which is -1 after normalisation
    after = side - inner - before
    return F.pad(small, (before, after, before, after), value=-1.0)


def _grow(maps: torch.Tensor) -> torch.Tensor:
    side, inner, before = _inner(maps.shape[-1])
    middle = maps[:, None, before : before + inner, before : before + inner]
    return F.interpolate(middle, (side, side), mode="bilinear", align_corners=False)[:, 0]


def _inner(side: int) -> tuple[int, int, int]:
    inner = round(side * _SMALLER)
    return side, inner, (side - inner) // 2
