"""A bundle's weights: safetensors whose names, types, shapes and values are those that its network takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from sonoloop.errors import BundleError
from sonoloop.models.schema import show
from sonoloop.models.tensor_list import read_header

# no trained network comes near; from there on half a forward pass overflows
MAX_WEIGHT = 1e6
_MAX_BATCHES = 1 << 53
_COUNTER = "num_batches_tracked"
_FLOATS = {"F16", "BF16", "F32"}
_OTHERS = {torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}


def read_weights(data: bytes, like: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Read the weights of the model `name`, as float32, for a network whose own are `like` these.

    Nothing of a tensor is read before all are known to fit.
    """
    try:
        header = read_header(data)
    except ValueError as error:
        raise BundleError(f"the weights of the model {name} are no safetensors: {error}") from error
    for tensor in like.keys() | header.keys():
        if fault := compare_tensor(header.get(tensor), like.get(tensor)):
            raise BundleError(
                f"the weights of the model {name} do not fit its network: the tensor {show(tensor)} {fault}"
            )
    state = load_tensors(data, name)
    check_weights(state, name)
    return state


def load_tensors(data: bytes, name: str) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors file, numbers as float32."""
    try:
        state = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise BundleError(f"the weights of the model {name} are no safetensors: {error}") from error
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def check_weights(state: Mapping[str, torch.Tensor], name: str) -> None:
    """Refuse weights of the model `name` that no training gives, by the tensor that they are in."""
    for key, tensor in state.items():
        if not tensor.numel():
            continue
        low, high = (end.item() for end in torch.aminmax(tensor))
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise BundleError(f"weights of the model {name} are NaN or infinite, the first in {key}")
        if tensor.is_floating_point() and max(-low, high) > MAX_WEIGHT:
            raise BundleError(
                f"weights of the model {name} are beyond {MAX_WEIGHT:,.0f}, the first in {key}: it is damaged"
            )
        if key.endswith("running_var") and low < 0:
            raise BundleError(f"the model {name} has a negative variance, {low:g}, in {key}: it is damaged")
        if key.endswith(_COUNTER) and not 0 <= low <= high <= _MAX_BATCHES:
            raise BundleError(f"the model {name} has counted {low:g} batches in {key}: it is damaged")


def has_computed(network: torch.nn.Module) -> bool:
    """Whether a network has buffers that are computed when it is built: not stored, or indices."""
    stored = network.state_dict()
    return any(
        name not in stored or not (buffer.is_floating_point() or name.endswith(_COUNTER))
        for name, buffer in network.named_buffers()
    )


def compare_tensor(told: Mapping[str, Any] | None, like: torch.Tensor | None) -> str | None:
    """Say how a tensor of a file differs from the network's own; None where it fits."""
    if told is None:
        return "is missing"
    if like is None:
        return "is none of it"
    wanted = _FLOATS if like.is_floating_point() else {_OTHERS.get(like.dtype, str(like.dtype))}
    if told["dtype"] not in wanted:
        return f"must be {' or '.join(sorted(wanted))}, got {show(told['dtype'])}"
    if told["shape"] != [*like.shape]:
        return f"must have the shape {[*like.shape]}, got {show(told['shape'])}"
    return None
