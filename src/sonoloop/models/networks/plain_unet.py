"""The plain U-Net (Ronneberger et al. 2015) with batch normalisation, from 64 to 1024 channels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from sonoloop.errors import ModelError
from sonoloop.models.spec import ModelSpec
from sonoloop.values import CLASSES

_CHANNELS = (64, 128, 256, 512, 1024)


class Contracting(nn.Module):
    """The way down: two convolutions a level, halved in between; gives the features of each level."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            _twice(before, after) for before, after in zip((1, *channels), channels, strict=False)
        )
        self.halve = nn.MaxPool2d(2)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Give the features, finest first."""
        features = [self.levels[0](images)]
        for level in self.levels[1:]:
            features.append(level(self.halve(features[-1])))
        return features


class PlainUnet(nn.Module):
    """The U-Net that is trained from scratch.

    Parameters
    ----------
    channels : sequence of int
        Of each level, finest first.
    dropout : float
        Before the class head, in [0, 1).
    """

    def __init__(self, channels: Sequence[int], *, dropout: float) -> None:
        super().__init__()
        self.encoder = Contracting(channels)
        pairs = list(pairwise(channels))[::-1]
        self.grow = nn.ModuleList(nn.ConvTranspose2d(deep, fine, 2, stride=2) for fine, deep in pairs)
        self.merge = nn.ModuleList(_twice(2 * fine, fine) for fine, _ in pairs)
        self.last = nn.Conv2d(channels[0], 1, 1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels[-1], len(CLASSES))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Segment and classify (B, 1, S, S)."""
        *finer, deepest = self.encoder(images)
        features = deepest
        for grow, merge, beside in zip(self.grow, self.merge, reversed(finer), strict=True):
            features = merge(torch.cat([beside, grow(features)], dim=1))
        return self.last(features), self.head(self.dropout(deepest.mean((2, 3))))


def build_plain_unet(spec: ModelSpec) -> nn.Module:
    """Build it; see `sonoloop.models.networks.build_network`."""
    if spec.architecture != "Unet":
        raise ModelError(f"the only plain network is Unet, not {spec.architecture!r}")
    arguments = dict(spec.arguments)
    channels = tuple(arguments.pop("channels", _CHANNELS))
    if arguments:
        raise ModelError(f"the plain U-Net takes no {', '.join(arguments)}; it takes channels")
    return PlainUnet(channels, dropout=spec.dropout)


def _twice(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        # the normalisation that follows has a bias of its own
        layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)
