"""Augmentation that knows ultrasound, joint on image and mask (torchvision v2).

Only horizontal flips: a vertical one would put shadows above what casts them.
"""

from sonoloop_training.augment.build import build_augmentation
from sonoloop_training.augment.config import AugmentConfig

__all__ = ["AugmentConfig", "build_augmentation"]
