"""Augmentation that knows ultrasound, joint on image and mask (torchvision v2).

Only horizontal flips: a vertical one would put shadows above what casts them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from torchvision.transforms import v2

from sonoloop_training.augment.transforms import (
    BurnedIn,
    Elastic,
    Levels,
    Sector,
    contrast,
    gamma,
    resolution,
    speckle,
    time_gain,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """How strongly to augment; zero switches a part off."""

    # largest rotation in degrees, in [0, 180]
    rotation: float = 12.0
    # largest shift as a share of the side, in [0, 1]
    translation: float = 0.1
    # smallest and largest zoom
    scale: tuple[float, float] = (0.75, 1.3)
    # largest shear in degrees, in [0, 90)
    shear: float = 6.0
    # the probability of each, in [0, 1]: left and right exchanged, a smooth warp, another log compression,
    # another time-gain ramp, another speckle, a soft focus, another dynamic range, fewer pixels, a sector's
    # black surroundings, and callipers or text burned in
    flip: float = 0.5
    elastic: float = 0.25
    gamma: float = 0.5
    gain: float = 0.5
    speckle: float = 0.4
    blur: float = 0.2
    contrast: float = 0.5
    resolution: float = 0.2
    sector: float = 0.1
    overlay: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation must be in [0, 180], got {self.rotation}")
        if not 0 <= self.shear < 90:
            raise ValueError(f"shear must be in [0, 90), got {self.shear}")
        for name in ("translation", *PROBABILITIES):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        if not (len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1] < math.inf):
            raise ValueError(f"scale must be two positive numbers in order, got {self.scale}")


# all but the first four, which say how far
PROBABILITIES = tuple(field.name for field in fields(AugmentConfig))[4:]


def build_augmentation(config: AugmentConfig) -> v2.Transform:
    """Build the transform of a float `Image` (1, S, S) in [0, 1] and its `Mask` (1, S, S).

    The order is that of the image's making: tissue, beam, gain and speckle, then what the scanner draws.
    """
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(config.flip),
            v2.RandomAffine(
                config.rotation,
                translate=(config.translation, config.translation),
                scale=config.scale,
                shear=config.shear,
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
            v2.RandomApply([Elastic()], p=config.elastic),
            v2.RandomApply([Sector()], p=config.sector),
            v2.RandomApply([Levels(gamma)], p=config.gamma),
            v2.RandomApply([Levels(contrast)], p=config.contrast),
            v2.RandomApply([Levels(time_gain)], p=config.gain),
            v2.RandomApply([Levels(speckle)], p=config.speckle),
            v2.RandomApply([v2.GaussianBlur(5, (0.3, 1.5))], p=config.blur),
            v2.RandomApply([BurnedIn()], p=config.overlay),
            v2.RandomApply([Levels(resolution)], p=config.resolution),
        ]
    )
