"""Changes of grey levels: masks pass untouched."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, wrap


class _OnImage(v2.Transform):  # type: ignore[misc]
    """A transform of grey levels: masks pass untouched."""

    _transformed_types = (Image,)


def _image(levels: torch.Tensor, like: Image) -> Image:
    """Clip to [0, 1] and stay an `Image`, or later transforms would pass it by."""
    image: Image = wrap(levels.as_subclass(torch.Tensor).clamp(0, 1), like=like)
    return image


class Gamma(_OnImage):
    """Raise grey levels to a power between 0.6 and 1.6: another log-compression curve."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the exponent."""
        return {"gamma": float(torch.empty(()).uniform_(-0.5, 0.5).exp())}

    def transform(self, inpt: Image, params: dict[str, Any]) -> Image:
        """Apply it to (1, S, S) in [0, 1]."""
        return _image(inpt.pow(params["gamma"]), inpt)


class Contrast(_OnImage):
    """Scale and shift grey levels: another dynamic range and gain."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw scale and shift."""
        return {
            "scale": float(torch.empty(()).uniform_(0.7, 1.3)),
            "shift": float(torch.empty(()).uniform_(-0.12, 0.12)),
        }

    def transform(self, inpt: Image, params: dict[str, Any]) -> Image:
        """Apply them; black borders stay black."""
        return _image(inpt * params["scale"] + params["shift"] * (inpt > 0), inpt)


class TimeGain(_OnImage):
    """Multiply by a ramp along depth: another time-gain compensation."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the gain at the top and at the bottom."""
        top, bottom = torch.empty(2).uniform_(0.65, 1.35).tolist()
        return {"top": top, "bottom": bottom}

    def transform(self, inpt: Image, params: dict[str, Any]) -> Image:
        """Apply the ramp down the rows."""
        ramp = torch.linspace(params["top"], params["bottom"], inpt.shape[-2])
        return _image(inpt * ramp[:, None], inpt)


class Speckle(_OnImage):
    """Multiply by smooth random noise: another speckle pattern."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the noise, its grain between one and three pixels."""
        side = flat_inputs[0].shape[-2:]
        grain = int(torch.randint(1, 4, ()))
        coarse = torch.randn(1, 1, -(-side[0] // grain), -(-side[1] // grain))
        noise = F.interpolate(coarse, tuple(side), mode="bilinear", align_corners=False)[0]
        return {"noise": noise * float(torch.empty(()).uniform_(0.05, 0.25))}

    def transform(self, inpt: Image, params: dict[str, Any]) -> Image:
        """Apply it."""
        return _image(inpt * (1 + params["noise"]), inpt)


class Resolution(_OnImage):
    """Lose detail: fewer pixels, interpolated back, as on an older scanner or an image from a web page."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the factor."""
        return {"factor": float(torch.empty(()).uniform_(1.5, 3.5))}

    def transform(self, inpt: Image, params: dict[str, Any]) -> Image:
        """Apply it to (1, S, S)."""
        height, width = inpt.shape[-2:]
        fewer = (max(8, round(height / params["factor"])), max(8, round(width / params["factor"])))
        levels = inpt.as_subclass(torch.Tensor)[None]
        coarse = F.interpolate(levels, fewer, mode="bilinear", align_corners=False, antialias=True)
        return _image(F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0], inpt)
