"""torchvision's fully convolutional network (Long et al. 2015), for one channel, with a class head."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torch import nn

from sonoloop.errors import ModelError
from sonoloop.models.spec import ModelSpec
from sonoloop.values import CLASSES

_KINDS = ("fcn_resnet50", "fcn_resnet101")
_FEATURES = 2048


class FCN(nn.Module):
    """Dilated ResNet features, a small head at an eighth of the resolution, bilinear back.

    Parameters
    ----------
    encoder, decoder : torch.nn.Module
        torchvision's backbone and head.
    dropout : float
        Before the class head, in [0, 1).
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(_FEATURES, len(CLASSES))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Segment and classify (B, 1, S, S)."""
        features = self.encoder(images)["out"]
        lesion = F.interpolate(
            self.decoder(features), images.shape[-2:], mode="bilinear", align_corners=False
        )
        return lesion, self.head(self.dropout(features.mean((2, 3))))


def build_fcn(spec: ModelSpec) -> nn.Module:
    """Build it; see `sonoloop.models.networks.build_network`."""
    from torchvision.models import segmentation  # noqa: PLC0415 - a second to import

    if spec.architecture not in _KINDS:
        raise ModelError(f"of torchvision there are {' and '.join(_KINDS)}, not {spec.architecture!r}")
    whole = getattr(segmentation, spec.architecture)(
        weights=None, weights_backbone=None, num_classes=1, aux_loss=False, **dict(spec.arguments)
    )
    whole.backbone.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    return FCN(whole.backbone, whole.classifier, dropout=spec.dropout)
