"""A segmenter of segmentation-models-pytorch with a class head on its encoder's deepest features."""

from __future__ import annotations

from typing import Any

from torch import nn

from sonoloop.errors import ModelError
from sonoloop.models.spec import ModelSpec
from sonoloop.values import CLASSES


def build_segmenter(spec: ModelSpec) -> nn.Module:
    """Build it; see `sonoloop.models.networks.build_network`."""
    import segmentation_models_pytorch as smp  # noqa: PLC0415 - seconds to import

    architecture = getattr(smp, spec.architecture, None)
    if not (isinstance(architecture, type) and issubclass(architecture, nn.Module)):
        raise ModelError(
            f"segmentation_models_pytorch has no architecture {spec.architecture!r}; "
            "it has Unet, UnetPlusPlus, FPN, DeepLabV3Plus, Segformer and others"
        )
    network: nn.Module = architecture(
        encoder_name=spec.encoder,
        encoder_weights=None,
        in_channels=1,
        classes=1,
        aux_params={"classes": len(CLASSES), "pooling": "avg", "dropout": spec.dropout or None},
        **{name: _plain(value) for name, value in spec.arguments.items()},
    )
    return network


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    return tuple(value) if isinstance(value, list) else value
