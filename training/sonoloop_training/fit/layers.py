"""Which layers learn when a trained network is tuned."""

from __future__ import annotations

from torch import nn

from sonoloop_training.fit.recipe import Layers

# what networks call the parts that lead from features to an answer
_HEADS = ("segmentation_head", "classification_head", "head", "last")


def choose_layers(network: nn.Module, layers: Layers) -> None:
    """Leave all but the chosen layers as they are; both heads learn in any case.

    Parameters
    ----------
    network : torch.nn.Module
        With an ``encoder``; see `sonoloop.models.networks.build_network`.
    layers : str
        "all"; the "encoder"; the "decoder", which is all but the encoder; or "shallow": the first half of the
        encoder's layers, by their number.
    """
    if layers == "all":
        return
    encoder = network.get_submodule("encoder")
    chosen: list[nn.Module] = [module for name, module in network.named_children() if name in _HEADS]
    if layers == "decoder":
        chosen = [module for name, module in network.named_children() if name != "encoder"]
    elif layers == "encoder":
        chosen.append(encoder)
    else:
        chosen += shallow_half(encoder)
    learns = {id(parameter) for module in chosen for parameter in module.parameters()}
    for parameter in network.parameters():
        if id(parameter) not in learns:
            parameter.requires_grad_(False)


def shallow_half(encoder: nn.Module) -> list[nn.Module]:
    """Return the first half of an encoder's layers that hold weights of their own, in the network's order."""
    own = [module for module in encoder.modules() if next(module.parameters(recurse=False), None) is not None]
    return own[: -(-len(own) // 2)]
