"""The whole augmentation, from its settings."""

from __future__ import annotations

from torchvision.transforms import v2

from sonoloop_training.augment.config import AugmentConfig
from sonoloop_training.augment.transforms import (
    BurnedIn,
    Contrast,
    Elastic,
    Gamma,
    Resolution,
    Sector,
    Speckle,
    TimeGain,
)


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
            v2.RandomApply([Gamma()], p=config.gamma),
            v2.RandomApply([Contrast()], p=config.contrast),
            v2.RandomApply([TimeGain()], p=config.gain),
            v2.RandomApply([Speckle()], p=config.speckle),
            v2.RandomApply([v2.GaussianBlur(5, (0.3, 1.5))], p=config.blur),
            v2.RandomApply([BurnedIn()], p=config.overlay),
            v2.RandomApply([Resolution()], p=config.resolution),
        ]
    )
