"""A frame into the network's square and back, aspect ratio kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation


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
