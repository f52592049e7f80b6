"""A frame into the network's square and back, aspect ratio kept; arrays are numpy's or torch's."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from scipy import sparse

from sonoloop.models.engines import Array


def normalise(images: Array) -> Array:
    """Bring grey levels from [0, 1] to the [-1, 1] that networks are trained on."""
    return images * 2 - 1


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The geometry that fits (height, width) into a square of `size`, centred, with black borders.

    Some networks saw images stretched to the square.
    """

    height: int
    width: int
    size: int
    is_stretched: bool = False

    @property
    def content(self) -> tuple[int, int, int, int]:
        """Top, left, height and width of the frame inside the square."""
        if self.is_stretched:
            return 0, 0, self.size, self.size
        scale = self.size / max(self.height, self.width)
        height = max(1, round(self.height * scale))
        width = max(1, round(self.width * scale))
        return (self.size - height) // 2, (self.size - width) // 2, height, width

    def apply(self, image: Array) -> Array:
        """Bring (H, W) in [0, 1] to (S, S) in [0, 1], antialiased."""
        top, left, height, width = self.content
        square = namespace(image).zeros((self.size, self.size), dtype=image.dtype)
        square[top : top + height, left : left + width] = resize(
            image[None, None], height, width, antialias=True
        )[0, 0]
        return square

    def invert(self, maps: Array) -> Array:
        """Bring maps (C, S, S) back to (C, H, W): the border cropped, the rest resized bilinearly."""
        top, left, height, width = self.content
        inner = maps[None, :, top : top + height, left : left + width]
        return resize(inner, self.height, self.width)[0]


def namespace(array: Array) -> ModuleType:
    """Return the library that an array is of: numpy or torch, which name what both can do alike."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def resize(maps: Array, height: int, width: int, *, antialias: bool = False) -> Array:
    """Resize maps (B, C, H, W) bilinearly, pixels taken as areas.

    With `antialias` the triangle widens where an image shrinks. numpy's result is torch's to within rounding.
    """
    if not isinstance(maps, np.ndarray):
        from sonoloop.models.engines import torch  # noqa: PLC0415 - only where torch is loaded already

        return torch.resize(maps, height, width, antialias=antialias)
    down = _triangles(maps.shape[-2], height, antialias=antialias)
    across = _triangles(maps.shape[-1], width, antialias=antialias)
    planes = [(across @ (down @ plane).T).T for plane in maps.reshape(-1, *maps.shape[-2:])]
    return np.stack(planes).reshape(*maps.shape[:-2], height, width)


@functools.lru_cache(maxsize=16)
def _triangles(before: int, after: int, *, antialias: bool) -> sparse.csr_array:
    """Weigh the pixels of a side for each of those that it is resized to, float32 (after, before)."""
    scale = before / after
    centres = (np.arange(after)[:, None] + 0.5) * scale
    apart = np.abs(np.arange(before) + 0.5 - centres)
    weights = np.maximum(1 - apart / max(scale if antialias else 1.0, 1.0), 0)
    # most of them are 0: a product with all would take five times as long
    return sparse.csr_array(np.asarray(weights / weights.sum(1, keepdims=True), np.float32))
