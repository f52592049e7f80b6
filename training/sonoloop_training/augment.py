"""Augmentation that knows ultrasound, joint on image and mask (torchvision v2).

Only horizontal flips: a vertical one would put shadows above what casts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, wrap


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """How strongly to augment; zero switches a part off.

    Parameters
    ----------
    rotation : float
        Largest rotation in degrees.
    translation : float
        Largest shift as a share of the side.
    scale : tuple of float
        Smallest and largest zoom.
    shear : float
        Largest shear in degrees.
    elastic, gamma, gain, speckle, blur, contrast : float
        Probability of each, in [0, 1].
    """

    rotation: float = 12.0
    translation: float = 0.1
    scale: tuple[float, float] = (0.75, 1.3)
    shear: float = 6.0
    elastic: float = 0.25
    gamma: float = 0.5
    gain: float = 0.5
    speckle: float = 0.4
    blur: float = 0.2
    contrast: float = 0.5

    def __post_init__(self) -> None:
        for name in ("elastic", "gamma", "gain", "speckle", "blur", "contrast"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")


def build_augmentation(config: AugmentConfig) -> v2.Transform:
    """Build the transform of a float `Image` (1, S, S) in [0, 1] and its `Mask` (1, S, S)."""
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(
                config.rotation,
                translate=(config.translation, config.translation),
                scale=config.scale,
                shear=config.shear,
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.RandomApply([v2.ElasticTransform(alpha=40.0, sigma=8.0)], p=config.elastic),
            v2.RandomApply([Gamma()], p=config.gamma),
            v2.RandomApply([Contrast()], p=config.contrast),
            v2.RandomApply([TimeGain()], p=config.gain),
            v2.RandomApply([Speckle()], p=config.speckle),
            v2.RandomApply([v2.GaussianBlur(5, (0.3, 1.5))], p=config.blur),
        ]
    )


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
        noise = torch.nn.functional.interpolate(coarse, tuple(side), mode="bilinear", align_corners=False)[0]
        return {"noise": noise * float(torch.empty(()).uniform_(0.05, 0.25))}

    def transform(self, inpt: Image, params: dict[str, Any]) -> Image:
        """Apply it."""
        return _image(inpt * (1 + params["noise"]), inpt)
