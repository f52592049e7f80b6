"""Where a network looked when it named a class: Grad-CAM."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torch import nn


def grad_cam(network: nn.Module, image: torch.Tensor, target: int) -> torch.Tensor:
    """Weigh the last feature map by what it does to a class (Selvaraju et al., ICCV 2017).

    The map is found, not named: of all outputs of modules with more than one position, the last that the
    class logits depend on. In a segmenter with a class head that is the encoder's last, in a classifier the
    one before the pooling.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode; gives class logits (B, 3), or a tuple with them last.
    image : torch.Tensor
        (1, 1, S, S) in [-1, 1].
    target : int
        Index of the class.

    Returns
    -------
    torch.Tensor
        float32 (S, S) in [0, 1]; zero everywhere where nothing speaks for the class.

    Raises
    ------
    ValueError
        If the class logits depend on no feature map.
    """
    maps: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ANN401 - whatever modules give
        if isinstance(output, torch.Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
            maps.append(output)

    handles = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        with torch.enable_grad():
            # a gradient flows whether or not the weights want one
            logits = _class_logits(network(image.detach().clone().requires_grad_()))
            gradients = torch.autograd.grad(logits[0, target], maps, allow_unused=True) if maps else ()
    finally:
        for handle in handles:
            handle.remove()
    seen = [(one, gradient) for one, gradient in zip(maps, gradients, strict=True) if gradient is not None]
    if not seen:
        raise ValueError("the class logits depend on no feature map")
    features, gradient = (tensor.detach().float() for tensor in seen[-1])
    heat = (gradient.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).relu()
    heat = F.interpolate(heat, image.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    return heat / heat.max().clamp(min=1e-12)


def _class_logits(output: Any) -> torch.Tensor:  # noqa: ANN401 - whatever networks give
    logits = output[-1] if isinstance(output, tuple) else output
    return torch.as_tensor(logits)
