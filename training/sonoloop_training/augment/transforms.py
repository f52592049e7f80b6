"""The single transforms: other gains and speckles, warps, sectors, and what scanners burn in."""

from __future__ import annotations

import math
import string
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, Mask, wrap


class Levels(v2.Transform):  # type: ignore[misc]
    """A change of grey levels, of (1, S, S) in [0, 1]; masks pass untouched."""

    _transformed_types = (Image,)

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.change = change

    def transform(self, inpt: Image, params: dict[str, Any]) -> Image:
        """Clip to [0, 1] and stay an `Image`, or later transforms would pass it by."""
        image: Image = wrap(self.change(inpt.as_subclass(torch.Tensor)).clamp(0, 1), like=inpt)
        return image


def gamma(levels: torch.Tensor) -> torch.Tensor:
    """Raise to a power between 0.6 and 1.6: another log-compression curve."""
    return levels.pow(float(torch.empty(()).uniform_(-0.5, 0.5).exp()))


def contrast(levels: torch.Tensor) -> torch.Tensor:
    """Scale and shift: another dynamic range and gain; black borders stay black."""
    scale = float(torch.empty(()).uniform_(0.7, 1.3))
    shift = float(torch.empty(()).uniform_(-0.12, 0.12))
    return levels * scale + shift * (levels > 0)


def time_gain(levels: torch.Tensor) -> torch.Tensor:
    """Multiply by a ramp along depth: another time-gain compensation."""
    top, bottom = torch.empty(2).uniform_(0.65, 1.35).tolist()
    return levels * torch.linspace(top, bottom, levels.shape[-2])[:, None]


def speckle(levels: torch.Tensor) -> torch.Tensor:
    """Multiply by smooth random noise with a grain of one to three pixels: another speckle pattern."""
    height, width = levels.shape[-2:]
    grain = int(torch.randint(1, 4, ()))
    coarse = torch.randn(1, 1, -(-height // grain), -(-width // grain))
    noise = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0]
    return levels * (1 + noise * float(torch.empty(()).uniform_(0.05, 0.25)))


def resolution(levels: torch.Tensor) -> torch.Tensor:
    """Lose detail: fewer pixels, interpolated back, as on an older scanner or an image from a web page."""
    height, width = levels.shape[-2:]
    factor = float(torch.empty(()).uniform_(1.5, 3.5))
    fewer = (max(8, round(height / factor)), max(8, round(width / factor)))
    coarse = F.interpolate(levels[None], fewer, mode="bilinear", align_corners=False, antialias=True)
    return F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0]


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


_LETTERS = string.ascii_uppercase + string.digits + "  .:=/-"
_SIDES = ("LEFT", "RIGHT", "BREAST", "LT 3", "RT 9")
_WORDS = (*_SIDES, "Dist", "cm", "mm", "Depth", "Gain", "MI", "TIS", "Hz", "FR")


class BurnedIn(v2.Transform):  # type: ignore[misc]
    """Burn in one to three of: a pair of callipers, a few words, a body mark, a depth scale.

    Callipers stand at the ends of a lesion in half the images that have one, elsewhere anywhere. In BUSI they
    and text stand on 40 % of the benign images and on 6 % of the normal ones: a shortcut that a classifier
    takes. Drawn on all classes alike they tell less.
    """

    # masks too: only what is transformed is shown to `make_params`
    _transformed_types = (Image, Mask)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the overlay, float (S, S) in [0, 1]: how much of each pixel it covers; and its brightness."""
        height, width = flat_inputs[0].shape[-2:]
        mask = next((item for item in flat_inputs if isinstance(item, Mask)), None)
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        layer = Picture.new("L", (width, height))
        draw = ImageDraw.Draw(layer)
        drawers = [_callipers, _words, _body_mark, _scale]
        for index in rng.choice(len(drawers), rng.integers(1, 4), replace=False, p=(0.5, 0.3, 0.1, 0.1)):
            drawers[index](draw, rng, (width, height), mask)
        cover = torch.from_numpy(np.asarray(layer, np.float32) / 255)
        return {"cover": cover, "level": float(rng.uniform(0.55, 1.0))}

    def transform(self, inpt: Image | Mask, params: dict[str, Any]) -> Image | Mask:
        """Lay it over (1, S, S); a mask stays as it is."""
        if isinstance(inpt, Mask):
            return inpt
        cover = params["cover"]
        burned: Image = wrap(
            inpt.as_subclass(torch.Tensor) * (1 - cover) + params["level"] * cover, like=inpt
        )
        return burned


def _callipers(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: tuple[int, int], mask: Mask | None
) -> None:
    width, height = size
    ends = [(float(rng.uniform(0.1, 0.9) * width), float(rng.uniform(0.1, 0.9) * height)) for _ in range(2)]
    if mask is not None and mask.any() and rng.random() < 0.5:
        rows, columns = (where.numpy() for where in torch.nonzero(mask[0], as_tuple=True))
        first, last = (
            (columns.argmin(), columns.argmax()) if rng.random() < 0.5 else (rows.argmin(), rows.argmax())
        )
        ends = [(float(columns[i]), float(rows[i])) for i in (first, last)]
    arm = width * float(rng.uniform(0.01, 0.025))
    cross = rng.random() < 0.5
    for x, y in ends:
        if cross:
            draw.line((x - arm, y, x + arm, y), fill=255)
            draw.line((x, y - arm, x, y + arm), fill=255)
        else:
            draw.line((x - arm, y - arm, x + arm, y + arm), fill=255)
            draw.line((x - arm, y + arm, x + arm, y - arm), fill=255)
    if rng.random() < 0.6:
        (x0, y0), (x1, y1) = ends
        dots = max(2, int(np.hypot(x1 - x0, y1 - y0) / (width * 0.02)))
        for share in np.linspace(0, 1, dots):
            draw.point((x0 + share * (x1 - x0), y0 + share * (y1 - y0)), fill=255)


def _words(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: tuple[int, int], mask: Mask | None
) -> None:
    width, height = size
    font = ImageFont.load_default(max(8, int(height * rng.uniform(0.035, 0.06))))
    x = float(rng.uniform(0, 0.7) * width)
    # text stands above or below more often than across
    y = float(rng.choice([rng.uniform(0, 0.12), rng.uniform(0.82, 0.94), rng.uniform(0, 0.9)])) * height
    for line in range(int(rng.integers(1, 4))):
        parts = [
            str(rng.choice(_WORDS))
            if rng.random() < 0.6
            else "".join(rng.choice(list(_LETTERS), rng.integers(2, 7)))
            for _ in range(int(rng.integers(1, 4)))
        ]
        draw.text((x, y + line * height * 0.06), " ".join(parts), fill=255, font=font)


def _body_mark(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: tuple[int, int], mask: Mask | None
) -> None:
    width, height = size
    radius = width * float(rng.uniform(0.04, 0.07))
    x, y = float(rng.uniform(0.05, 0.95) * width), float(rng.uniform(0.75, 0.95) * height)
    for centre in (x - 1.1 * radius, x + 1.1 * radius):
        draw.ellipse((centre - radius, y - radius, centre + radius, y + radius), outline=255)
    angle = float(rng.uniform(0, 2 * np.pi))
    end = (x + radius + radius * np.cos(angle), y + radius * np.sin(angle))
    draw.line((x + radius, y, *end), fill=255, width=2)


def _scale(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: tuple[int, int], mask: Mask | None
) -> None:
    width, height = size
    x = float(rng.choice([0.01, 0.98])) * width
    step = height * float(rng.uniform(0.04, 0.12))
    for number, y in enumerate(np.arange(0, height, step)):
        draw.line((x - 2 - 2 * (number % 5 == 0), y, x + 2, y), fill=255)
