"""Where a class is decided: how much less likely it gets when a part of the frame is covered.

After Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014. It asks a network
nothing but its answer, so that it is the same for every engine and architecture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sonoloop.models.preprocess import Letterbox, resize

# so many covers at most, about, and their least distance as a share of the square's side
_COVERS, _CLOSEST = 32, 1 / 16
# what lies under a cover: the square seen by so many pixels a side, which keeps its shading and nothing else
_COARSE = 8


def make_covers(box: Letterbox) -> NDArray[np.float32]:
    """Weigh what each cover hides, float32 (N, S, S) in [0, 1]; over the frame they sum to 1."""
    top, left, height, width = box.content
    apart = max(box.size * _CLOSEST, (height * width / _COVERS) ** 0.5)
    down, across = (_bumps(before, side, apart, box.size) for before, side in ((top, height), (left, width)))
    return (down[:, None, :, None] * across[None, :, None, :]).reshape(-1, box.size, box.size)


def _bumps(before: int, side: int, apart: float, size: int) -> NDArray[np.float32]:
    """Weigh the pixels of a side for each of the places along it, in overlapping bumps."""
    count = max(1, round(side / apart))
    places = (np.arange(size) - before + 0.5) / side * count - 0.5
    away = np.abs(np.clip(places, 0, count - 1) - np.arange(count)[:, None])
    bumps = np.cos(np.minimum(away, 1) * np.pi / 2) ** 2
    bumps[:, :before] = bumps[:, before + side :] = 0
    return np.asarray(bumps, np.float32)


def cover(square: NDArray[np.float32], covers: NDArray[np.float32], box: Letterbox) -> NDArray[np.float32]:
    """Cover a square (S, S) at each place: (N, S, S)."""
    top, left, height, width = box.content
    inside = square[None, None, top : top + height, left : left + width]
    coarse = resize(inside, min(_COARSE, height), min(_COARSE, width), antialias=True)
    beneath = square.copy()
    beneath[top : top + height, left : left + width] = resize(coarse, height, width)[0, 0]
    return square + covers * (beneath - square)


def log_odds(probabilities: NDArray[np.float32], label: int) -> NDArray[np.float64]:
    """Turn probabilities (N, 3) to the log odds of one class against the others: (N,)."""
    tiny = np.finfo(np.float32).tiny
    yes = np.asarray(probabilities[:, label], np.float64)
    no = np.delete(probabilities, label, axis=1).sum(1, dtype=np.float64)
    return np.asarray(np.log(np.maximum(yes, tiny)) - np.log(np.maximum(no, tiny)))
