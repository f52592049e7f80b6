"""A frame into the network's square and back, aspect ratio kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from numpy.typing import NDArray


def to_unit(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Scale grey levels to [0, 1]: 8-bit by its range, anything else by its own minimum and maximum.

    Sixteen-bit files mostly hold 10 or 12 bits of signal, so that their dtype's range says nothing.
    """
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    low, high = float(pixels.min()), float(pixels.max())
    if low == high:
        return np.zeros(pixels.shape, np.float32)
    return ((pixels.astype(np.float64) - low) / (high - low)).astype(np.float32)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Bring grey levels from [0, 1] to the [-1, 1] that networks are trained on."""
    return images * 2 - 1


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The geometry that fits (height, width) into a square of `size`, centred, with black borders.

    Parameters
    ----------
    height, width : int
        The frame's size in pixels.
    size : int
        The square's side in pixels.
    """

    height: int
    width: int
    size: int

    @property
    def content(self) -> tuple[int, int, int, int]:
        """Top, left, height and width of the frame inside the square."""
        scale = self.size / max(self.height, self.width)
        height = max(1, round(self.height * scale))
        width = max(1, round(self.width * scale))
        return (self.size - height) // 2, (self.size - width) // 2, height, width

    def apply(self, image: torch.Tensor) -> torch.Tensor:
        """Bring (H, W) in [0, 1] to (S, S) in [0, 1], antialiased."""
        top, left, height, width = self.content
        resized = F.interpolate(
            image[None, None], (height, width), mode="bilinear", align_corners=False, antialias=True
        )
        bottom, right = self.size - height - top, self.size - width - left
        return F.pad(resized[0, 0], (left, right, top, bottom))

    def invert(self, maps: torch.Tensor) -> torch.Tensor:
        """Bring maps (C, S, S) back to (C, H, W): the border cropped, the rest resized bilinearly."""
        top, left, height, width = self.content
        inner = maps[None, :, top : top + height, left : left + width]
        return F.interpolate(inner, (self.height, self.width), mode="bilinear", align_corners=False)[0]
