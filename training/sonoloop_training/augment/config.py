"""How strongly to augment, as a recipe says it."""

from __future__ import annotations

import math
from dataclasses import dataclass

PROBABILITIES = (
    "flip",
    "elastic",
    "gamma",
    "gain",
    "speckle",
    "blur",
    "contrast",
    "resolution",
    "sector",
    "overlay",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentConfig:
    """How strongly to augment; zero switches a part off.

    Parameters
    ----------
    rotation : float
        Largest rotation in degrees, in [0, 180].
    translation : float
        Largest shift as a share of the side, in [0, 1].
    scale : tuple of float
        Smallest and largest zoom.
    shear : float
        Largest shear in degrees, in [0, 90).
    flip, elastic, gamma, gain, speckle, blur, contrast, resolution, sector, overlay : float
        Probability of each, in [0, 1]: left and right exchanged, a smooth warp, another log compression,
        another time-gain ramp, another speckle, a soft focus, another dynamic range, fewer pixels, a sector's
        black surroundings, and callipers or text burned in.
    """

    rotation: float = 12.0
    translation: float = 0.1
    scale: tuple[float, float] = (0.75, 1.3)
    shear: float = 6.0
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
