"""A classifier of timm: no lesion mask, only the class."""

from __future__ import annotations

import torch
from torch import nn

from sonoloop.models.spec import ModelSpec
from sonoloop.values import CLASSES


class Classifier(nn.Module):
    """A timm network without its own head, and a linear one for our classes.

    Parameters
    ----------
    encoder : torch.nn.Module
        Gives pooled features (B, F) with ``head_hidden_size`` = F.
    dropout : float
        Before the head, in [0, 1).
    """

    def __init__(self, encoder: nn.Module, *, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        # some have a layer between their last features and their head, so that `num_features` is another
        self.head = nn.Linear(int(encoder.head_hidden_size), len(CLASSES))  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor) -> tuple[None, torch.Tensor]:
        """Classify (B, 1, S, S); there is no lesion map."""
        return None, self.head(self.dropout(self.encoder(images)))


def build_classifier(spec: ModelSpec) -> nn.Module:
    """Build it; see `sonoloop.models.networks.build_network`."""
    import timm  # noqa: PLC0415 - a second to import

    encoder = timm.create_model(
        spec.architecture, pretrained=False, in_chans=1, num_classes=0, **dict(spec.arguments)
    )
    return Classifier(encoder, dropout=spec.dropout)
