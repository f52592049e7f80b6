"""From a specification to a network."""

from __future__ import annotations

import torch
from torch import nn

from sonoloop.errors import ModelError
from sonoloop.models.networks.classifier import build_classifier
from sonoloop.models.networks.fcn import build_fcn
from sonoloop.models.networks.plain_unet import build_plain_unet
from sonoloop.models.networks.segmenter import build_segmenter
from sonoloop.models.spec import ModelSpec

_BUILDERS = {
    "smp": build_segmenter,
    "timm": build_classifier,
    "torchvision": build_fcn,
    "plain": build_plain_unet,
}


def build_network(spec: ModelSpec) -> nn.Module:
    """Build the network of a specification, with random weights.

    Returns
    -------
    torch.nn.Module
        Takes (B, 1, S, S) in [-1, 1]; gives lesion logits (B, 1, S, S), or None where it only classifies, and
        class logits (B, 3).

    Raises
    ------
    ModelError
        If the library knows no such architecture or encoder.
    """
    try:
        network: nn.Module = _BUILDERS[spec.library](spec)
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, AssertionError) as error:
        on = f" on {spec.encoder}" if spec.encoder else ""
        raise ModelError(f"cannot build {spec.architecture}{on} of {spec.library}: {error}") from error
    return network.to(memory_format=torch.channels_last)


def outline_network(spec: ModelSpec) -> nn.Module:
    """Build a network for its names and shapes: without memory, on the meta device, where it can be.

    Raises
    ------
    ModelError
        If the library knows no such architecture or encoder.
    """
    try:
        with torch.device("meta"):
            return build_network(spec)
    except ModelError as error:
        # some compute with numbers while they are built, as smp's MixTransformer does: there it has none
        if not isinstance(error.__cause__, RuntimeError):
            raise
    return build_network(spec)
