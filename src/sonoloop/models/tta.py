"""Several views of one image, averaged; where they disagree, the mask is doubtful.

Arrays are numpy's or torch's.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from scipy import special

from sonoloop.models.engines import Array
from sonoloop.models.preprocess import namespace, resize

VIEWS = (1, 2, 4)
_SMALLER = 0.8


def make_views(images: Array, views: int) -> Array:
    """Stack views of a batch (B, 1, S, S), view by view: (views * B, 1, S, S).

    One is the image as it is; two are it and its mirror image; four are both at four fifths of the size too.
    """
    xp = namespace(images)
    stack = [images]
    if views >= 2:
        stack.append(xp.flip(images, (-1,)))
    if views == 4:
        stack += [_shrink(view) for view in list(stack)]
    return xp.concatenate(stack)


def undo_views(maps: Array, views: int) -> Array:
    """Bring maps (views * B, 1, S, S) of stacked views back to the image's geometry: (views, B, S, S)."""
    xp = namespace(maps)
    stacked = list(maps[:, 0].reshape(views, -1, *maps.shape[-2:]))
    if views == 4:
        stacked[2], stacked[3] = _grow(stacked[2]), _grow(stacked[3])
    for place in range(1, views, 2):
        stacked[place] = xp.flip(stacked[place], (-1,))
    return xp.stack(stacked)


def agreement(maps: Array, threshold: float) -> Array:
    """How far the views (views, B, S, S) agree on the mask, in [0, 1]: (B,); 0 where no view sees a lesion.

    The mean of the soft Dice of their mean with itself binarised, and of the Dice of each pair of binarised
    views (the pairwise agreement of an ensemble; Zenk et al. 2025 found it the best simple predictor of
    failure).
    """
    xp = namespace(maps)
    mean = maps.mean(0)
    own = xp.asarray(mean >= threshold, dtype=maps.dtype)
    scores = [2 * (mean * own).sum((1, 2)) / (mean + own).sum((1, 2)).clip(min=1e-6)]
    binary = xp.asarray(maps >= threshold, dtype=maps.dtype)
    for one, other in combinations(binary, 2):
        total = (one + other).sum((1, 2))
        scores.append(xp.where(total > 0, 2 * (one * other).sum((1, 2)) / total.clip(min=1), 0.0))
    return scores[0] if len(scores) == 1 else (scores[0] + xp.stack(scores[1:]).mean(0)) / 2


def average_classes(logits: Array, temperature: float) -> Array:
    """Average the class probabilities of the views, of finite logits (views, B, 3): (B, 3), summing to 1."""
    xp = namespace(logits)
    with np.errstate(over="ignore", invalid="ignore"):
        # where a division makes one infinite, the largest is made zero first: it has probability zero then
        scaled = logits / temperature
        from_largest = (logits - xp.amax(logits, -1, keepdims=True)) / temperature
        scaled = xp.where(xp.isfinite(scaled).all(-1)[..., None], scaled, from_largest)
        return (special.softmax(scaled, -1) if isinstance(scaled, np.ndarray) else scaled.softmax(-1)).mean(0)


def expected_dice(score: float, curves: Mapping[str, Mapping[str, list[float]]], views: int) -> float:
    """Turn what tells of a mask's quality into an expected Dice by a card's line; as it is without one."""
    curve = curves.get(str(views))
    return float(np.interp(score, curve["x"], curve["y"])) if curve else score


def _shrink(images: Array) -> Array:
    inner, middle = _middle(images.shape[-1])
    # black as the letterbox's border, which is -1 after normalisation
    small = namespace(images).full_like(images, -1.0)
    small[..., middle, middle] = resize(images, inner, inner, antialias=True)
    return small


def _grow(maps: Array) -> Array:
    side = maps.shape[-1]
    _, middle = _middle(side)
    return resize(maps[:, None, middle, middle], side, side)[:, 0]


def _middle(side: int) -> tuple[int, slice]:
    inner = round(side * _SMALLER)
    before = (side - inner) // 2
    return inner, slice(before, before + inner)
