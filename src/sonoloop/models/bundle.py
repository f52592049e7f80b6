"""A model on disk: ``card.json`` and ``weights.safetensors``, data and never code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from sonoloop.atomic import whole
from sonoloop.crash_points import crash_here
from sonoloop.errors import BundleError, ModelError
from sonoloop.models.card import (
    CARD,
    GRAPH,
    MAX_WEIGHTS_BYTES,
    WEIGHTS,
    Card,
    read_bundle_file,
    read_card,
    written_format,
)
from sonoloop.models.networks import build_network, outline_network, try_shapes
from sonoloop.models.weights import check_weights, has_computed, read_weights


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A card and its network, in evaluation mode on the CPU, in float32."""

    card: Card
    network: nn.Module

    @property
    def version(self) -> str:
        """SHA-256 of the card, which holds that of the weights: 64 hex digits."""
        return self.card.version

    @property
    def model(self) -> str:
        """The id a user sees: the name and the version's first eight digits."""
        return self.card.model


def save_bundle(
    folder: Path,
    network: nn.Module,
    card: Card,
    *,
    graph: bytes | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> Bundle:
    """Write a bundle: complete and read back, or not at all.

    The weights are stored in half precision, and their hash is filled into the card, as that of the
    `graph` is; `beside` are further files by name, such as who trained, without which a model works.
    """
    if folder.exists():
        raise BundleError(f"{folder} exists; a bundle is never overwritten: give another folder")
    data = _pack(network)
    card = _seal(card, data, graph)
    files = {
        **(beside or {}),
        WEIGHTS: data,
        **({} if graph is None else {GRAPH: graph}),
        CARD: card.to_json().encode(),
    }
    try:
        with whole(folder) as temporary:
            temporary.mkdir(parents=True)
            for name, content in files.items():
                (temporary / name).write_bytes(content)
                crash_here("bundle-half-written")
            # before it is in its place, which a bundle that cannot be read would block
            bundle = read_bundle(temporary)
    except OSError as error:
        raise BundleError(
            f"{folder} cannot be written ({error.strerror}); make room, or give another folder"
        ) from error
    except BundleError as error:
        told = str(error).replace(temporary.name, folder.name)
        raise BundleError(f"{folder} is not written, since it could not be read back: {told}") from error
    return bundle


def seal(card: Card, network: nn.Module, graph: bytes | None = None) -> Card:
    """Return the card with the hashes of the network's weights as they are stored, and of its graph."""
    return _seal(card, _pack(network), graph)


def _seal(card: Card, data: bytes, graph: bytes | None) -> Card:
    check_weights(safetensors.torch.load(data), card.name)
    return replace(
        card,
        weights_sha256=hashlib.sha256(data).hexdigest(),
        # those of a model that it was made of are of other weights
        graphs={} if graph is None else {GRAPH: hashlib.sha256(graph).hexdigest()},
        format=written_format(card),
    )


def _pack(network: nn.Module) -> bytes:
    return safetensors.torch.save(
        {
            name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous().cpu()
            for name, tensor in network.state_dict().items()
        }
    )


def read_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle; nothing in it is executed."""
    name = folder.name
    card = read_card(folder)
    if not card.spec.has_weights:
        raise BundleError(
            f"the model {card.model} was brought in as a graph, which torch neither runs nor trains: predict "
            "with --engine onnx or openvino, and train another model, as with --from default"
        )
    data = read_bundle_file(folder / WEIGHTS, MAX_WEIGHTS_BYTES)
    if hashlib.sha256(data).hexdigest() != card.weights_sha256:
        raise BundleError(
            f"the weights of the model {name} are not those its card names; copy or install it again"
        )
    try:
        # no memory is taken before all is known to fit
        network = outline_network(card.spec)
        state = read_weights(data, network.state_dict(), name)
        try_shapes(network, card.spec)
        if has_computed(network):
            network = build_network(card.spec)
            _check_computed(network, state, name)
        network.load_state_dict(state, assign=True)
    except BundleError:
        raise
    except (RuntimeError, ModelError) as error:
        raise BundleError(f"the model {name} cannot be used: {error}") from error
    return Bundle(card, network.to(memory_format=torch.channels_last).eval())


def _check_computed(network: nn.Module, state: Mapping[str, torch.Tensor], name: str) -> None:
    """Refuse stored indices that are not those of the network: others would point beside its tensors."""
    for key, buffer in network.named_buffers():
        told = state.get(key, buffer)
        if not (buffer.is_floating_point() or key.endswith("num_batches_tracked")) and not told.equal(buffer):
            raise BundleError(f"the model {name} has other indices in {key} than its network: it is damaged")
