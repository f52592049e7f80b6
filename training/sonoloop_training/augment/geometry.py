"""Changes of shape, the same on image and mask."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, Mask, wrap

# corners of the grid whose displacements are interpolated, and their size as a share of the side
_GRID = (4, 9)
_AMOUNT = 0.02


class Elastic(v2.Transform):  # type: ignore[misc]
    """Warp smoothly: displacements drawn on a coarse grid, bicubic between.

    torchvision's own elastic transform draws them at every pixel and blurs with a kernel of 65 pixels, which
    takes longer than all the rest of the augmentation.
    """

    _transformed_types = (Image, Mask)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the displacement field, (1, S, S, 2) in units of half a side."""
        side = flat_inputs[0].shape[-2:]
        corners = int(torch.randint(*_GRID, ()))
        coarse = torch.randn(1, 2, corners, corners) * _AMOUNT * 4 / corners
        field = F.interpolate(coarse, tuple(side), mode="bicubic", align_corners=True)
        return {"displacement": field.permute(0, 2, 3, 1)}

    def transform(self, inpt: Image | Mask, params: dict[str, Any]) -> Image | Mask:
        """Apply it: bilinear on grey levels, nearest on masks."""
        mode = v2.InterpolationMode.NEAREST if isinstance(inpt, Mask) else v2.InterpolationMode.BILINEAR
        warped: Image | Mask = v2.functional.elastic(inpt, params["displacement"], interpolation=mode)
        return warped


class Sector(v2.Transform):  # type: ignore[misc]
    """Black out what a curved array does not see: all but a ring segment with its apex above the image.

    The part of a lesion that is blacked out leaves the mask; where that is more than half, nothing is done.
    """

    _transformed_types = (Image, Mask)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the segment, boolean (S, S)."""
        height, width = flat_inputs[0].shape[-2:]
        draw = torch.empty(5).uniform_(0, 1).tolist()
        apex_above = height * (0.2 + 0.6 * draw[0])
        apex_column = width * (0.4 + 0.2 * draw[1])
        half_angle = math.radians(25 + 25 * draw[2])
        near, far = apex_above * (1 + 0.15 * draw[3]), apex_above + height * (0.85 + 0.25 * draw[4])
        row = torch.arange(height)[:, None] + apex_above
        column = torch.arange(width)[None, :] - apex_column
        radius, angle = torch.hypot(row, column), torch.atan2(column, row)
        seen = (radius >= near) & (radius <= far) & (angle.abs() <= half_angle)
        for mask in (item for item in flat_inputs if isinstance(item, Mask)):
            if (mask * seen).sum() * 2 < mask.sum():
                seen = torch.ones_like(seen)
        return {"seen": seen}

    def transform(self, inpt: Image | Mask, params: dict[str, Any]) -> Image | Mask:
        """Apply it."""
        shown: Image | Mask = wrap(inpt.as_subclass(torch.Tensor) * params["seen"].to(inpt.dtype), like=inpt)
        return shown
