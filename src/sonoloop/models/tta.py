"""Several views of one image, averaged; where they disagree, the mask is doubtful.

Arrays are numpy's or torch's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy import special

from sonoloop.models.engines import Array
from sonoloop.models.preprocess import namespace, resize

VIEWS = (1, 2, 4)
SMALLER = 0.8


# of each view: whether it is mirrored, and its share of the image's size
View = tuple[bool, float]


def list_views(views: int, mirror_scale: float = 1.0) -> tuple[View, ...]:
    """List the views by their number.

    One is the image as it is; two are it and its mirror image, at a share `mirror_scale` of the size; four
    are both at the whole size and at four fifths.
    """
    if views == 4:
        return (False, 1.0), (True, 1.0), (False, SMALLER), (True, SMALLER)
    return ((False, 1.0), (True, mirror_scale))[:views]


def make_views(images: Array, views: Sequence[View]) -> Array:
    """Stack views of a batch (B, 1, S, S), view by view: (views * B, 1, S, S)."""
    xp = namespace(images)
    stack = []
    for mirrored, scale in views:
        view = xp.flip(images, (-1,)) if mirrored else images
        stack.append(view if scale == 1 else _shrink(view, scale))
    return xp.concatenate(stack)


def undo_views(maps: Array, views: Sequence[View]) -> Array:
    """Bring maps (views * B, 1, S, S) of stacked views back to the image's geometry: (views, B, S, S)."""
    xp = namespace(maps)
    stack = []
    for (mirrored, scale), seen in zip(
        views, maps[:, 0].reshape(len(views), -1, *maps.shape[-2:]), strict=True
    ):
        whole = seen if scale == 1 else _grow(seen, scale)
        stack.append(xp.flip(whole, (-1,)) if mirrored else whole)
    return xp.stack(stack)


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


def _shrink(images: Array, scale: float) -> Array:
    inner, middle = _middle(images.shape[-1], scale)
    # black as the letterbox's border, which is -1 after normalisation
    small = namespace(images).full_like(images, -1.0)
    small[..., middle, middle] = resize(images, inner, inner, antialias=True)
    return small


def _grow(maps: Array, scale: float) -> Array:
    side = maps.shape[-1]
    _, middle = _middle(side, scale)
    return resize(maps[:, None, middle, middle], side, side)[:, 0]


def _middle(side: int, scale: float) -> tuple[int, slice]:
    inner = round(side * scale)
    before = (side - inner) // 2
    return inner, slice(before, before + inner)
