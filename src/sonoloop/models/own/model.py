"""A user's network becomes a bundle: an ONNX or safetensors file, and the TOML file beside it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from sonoloop.errors import BundleError, check_installed
from sonoloop.models.card import CARD, GRAPH, Card
from sonoloop.models.own.adapter import adapt, specify
from sonoloop.models.own.description import NCHW, Description
from sonoloop.models.own.onnx_file import OnnxFile
from sonoloop.models.own.own_file import OwnFile, name_of, named_faults
from sonoloop.models.torch_import import before_torch

_PACKAGES = (
    "torch",
    "safetensors",
    "segmentation_models_pytorch",
    "timm",
    "torchvision",
    "onnx",
    "onnxscript",
)


def make_own(own: OwnFile, description: Description, folder: Path) -> Card:
    """Write a bundle of a user's network to a folder that is not there; it was not run yet."""
    name = description.name or name_of(own.path)
    if own.faults:
        raise BundleError(f"{own.path.name} cannot be used: {own.faults[0]}")
    if own.onnx is None:
        return _make_named(own, description, folder, name)
    if description.network is not None:
        raise BundleError(f"{own.beside.name}: [network] is for a safetensors file; leave it out for ONNX")
    return _write_bundle(own, description, own.onnx, folder, name=name, architecture=name)


def _make_named(own: OwnFile, description: Description, folder: Path, name: str) -> Card:
    network = description.network
    if network is None:
        raise BundleError(
            f"{own.beside.name} has no [network]: say which library, architecture and encoder these weights "
            "are of"
        )
    if description.input.layout != NCHW:
        raise BundleError(f"{own.beside.name}: [input] layout is for ONNX; leave it out for safetensors")
    check_installed(_PACKAGES, "train")
    before_torch()
    from sonoloop.models.bundle import save_bundle  # noqa: PLC0415 - imports torch
    from sonoloop.models.own.named_network import load_native, native_spec, write_named  # noqa: PLC0415 - as above

    spec = native_spec(description)
    if spec is not None:
        # ours are as this one is: torch can go on training it
        built, graph = load_native(spec, own.data, own.path.name)
        card = replace(_card(own, description, name), spec=spec)
        return save_bundle(folder, built, card, graph=graph).card
    data, outputs = write_named(description, own.data, own.path.name)
    lesion, classes = description.lesion, description.classes
    written = replace(
        description,
        input=replace(description.input, name=""),
        lesion=None if lesion is None else replace(lesion, output=outputs[0]),
        classes=None if classes is None else replace(classes, output=outputs[-1]),
    )
    architecture = "-".join(filter(None, (network.library, network.architecture, network.encoder)))[:100]
    with named_faults(own.path.name):
        onnx = OnnxFile(data)
    return _write_bundle(own, written, onnx, folder, name=name, architecture=architecture)


def _write_bundle(
    own: OwnFile, description: Description, onnx: OnnxFile, folder: Path, *, name: str, architecture: str
) -> Card:
    spec = specify(description, architecture)
    with named_faults(own.path.name):
        graph = adapt(onnx, description, spec.size)
    card = replace(
        _card(own, description, name), spec=spec, graphs={GRAPH: hashlib.sha256(graph).hexdigest()}
    )
    folder.mkdir(parents=True)
    (folder / GRAPH).write_bytes(graph)
    (folder / CARD).write_bytes(card.to_json().encode())
    return card


def _card(own: OwnFile, description: Description, name: str) -> Card:
    return Card(
        name=name,
        spec=specify(description, name),
        threshold=description.threshold,
        normal_gate=description.normal_gate,
        min_area=description.min_area,
        temperature=description.temperature,
        views=description.views,
        snapshot={
            "brought_in": {
                "sha256": hashlib.sha256(own.data).hexdigest(),
                "described": description.to_dict(),
            }
        },
    )
