"""A network of smp, timm or torchvision, by its name, with a user's weights in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from sonoloop.errors import BundleError, ModelError
from sonoloop.models.card import ModelSpec
from sonoloop.models.graph import make_graph, write_onnx
from sonoloop.models.networks import MAX_PARAMETERS, build_network, outlined
from sonoloop.models.own.description import SIGMOID, SOFTMAX, Description, Network
from sonoloop.models.schema import show
from sonoloop.models.tensor_list import read_header
from sonoloop.models.weights import check_weights, compare_tensor, load_tensors
from sonoloop.values import CLASSES

LESION, CLASSES_OUTPUT = "lesion", "classes"
_FIRST_FEW = 5
# what wrappers and Lightning put before every name
_WRAPPERS = ("module.", "model.", "net.", "network.", "_orig_mod.")
_COUNTER = "num_batches_tracked"


def write_named(description: Description, data: bytes, name: str) -> tuple[bytes, tuple[str, ...]]:
    """Build the network with its weights and write it as ONNX; gives that and the names of its outputs."""
    network = load_named(description, data, name)
    outputs = tuple(
        output
        for output, head in ((LESION, description.lesion), (CLASSES_OUTPUT, description.classes))
        if head is not None
    )
    return write_onnx(network, description.input.size, description.input.channels, outputs), outputs


def load_named(description: Description, data: bytes, name: str) -> nn.Module:
    """Build the network with the weights of the file `name`; it answers with lesion, classes, or both."""
    build = _BUILDERS[_told(description).library]
    aux = any("aux_classifier." in key for key in read_header(data))
    # its names and shapes first, without memory
    outline = outlined(lambda: _build(build, description, aux=aux))
    count = sum(tensor.numel() for tensor in outline.parameters())
    if count > MAX_PARAMETERS:
        raise ModelError(
            f"the network has {count:,} weights, more than {MAX_PARAMETERS:,}; take a smaller one"
        )
    state = _fit_weights(data, outline.state_dict(), name)
    network = _build(build, description, aux=aux)
    # counters may be left out
    network.load_state_dict(state, strict=False)
    return _Answering(network, description).eval()


def native_spec(description: Description) -> ModelSpec | None:
    """Give the specification of a network that is as ours are, which torch can train; None for others."""
    network, taken, lesion, classes = (
        description.network,
        description.input,
        description.lesion,
        description.classes,
    )
    if network is None or network.library != "smp" or lesion is None or classes is None:
        return None
    is_ours = (
        (taken.channels, taken.range, taken.mean, taken.std) == (1, (-1.0, 1.0), (), ())
        and taken.resize == "letterbox"
        and taken.size % 32 == 0
        and (lesion.activation, lesion.channels) == (SIGMOID, 1)
        and (classes.activation, classes.order) == (SOFTMAX, CLASSES)
    )
    return _spec(description, taken.size) if is_ours else None


def load_native(spec: ModelSpec, data: bytes, name: str) -> tuple[nn.Module, bytes]:
    """Build one of ours with the weights of the file `name`; gives it and its graph."""
    network = build_network(spec)
    network.load_state_dict(_fit_weights(data, network.state_dict(), name), strict=False)
    # as it is stored
    network = network.half().float().eval()
    return network, make_graph(network, spec)


class _Answering(nn.Module):
    """Answers with tensors alone, those that are described."""

    def __init__(self, network: nn.Module, description: Description) -> None:
        super().__init__()
        self.network = network
        self._wanted = (description.lesion is not None, description.classes is not None)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        answer = self.network(images)
        if isinstance(answer, Mapping):
            # torchvision's segmenters, with a head that only trains
            answer = answer["out"]
        answers = answer if isinstance(answer, tuple) else (answer,)
        return tuple(answers)


def _told(description: Description) -> Network:
    assert description.network is not None
    return description.network


def _spec(description: Description, size: int = 256) -> ModelSpec:
    """Have a specification look the names and arguments through."""
    network = _told(description)
    try:
        return ModelSpec(
            library=network.library,
            architecture=network.architecture,
            encoder=network.encoder,
            size=size,
            arguments=network.arguments,
        )
    except ValueError as error:
        raise ModelError(f"[network]: {error}") from error


def _build(build: Callable[..., nn.Module], description: Description, *, aux: bool) -> nn.Module:
    spec = _spec(description)
    try:
        return build(description, spec, aux=aux)
    except ModelError:
        raise
    except Exception as error:  # the libraries raise whatever they come upon
        fault = str(error).partition("\n")[0] or type(error).__name__
        raise ModelError(f"{spec.library} cannot build {spec.architecture}: {fault}") from error


def _build_smp(description: Description, spec: ModelSpec, *, aux: bool) -> nn.Module:
    import segmentation_models_pytorch as smp  # noqa: PLC0415 - seconds to import

    from sonoloop.models.networks import find_segmenter  # noqa: PLC0415

    if description.lesion is None:
        raise ModelError("[network]: networks of smp give a mask; say which with [lesion]")
    classes = description.classes
    network: nn.Module = find_segmenter(smp, spec)(
        encoder_name=spec.encoder,
        encoder_weights=None,
        in_channels=description.input.channels,
        classes=description.lesion.channels,
        aux_params=None if classes is None else {"classes": classes.channels, "pooling": "avg"},
        **{key: tuple(value) if isinstance(value, list) else value for key, value in spec.arguments.items()},
    )
    return network


def _build_timm(description: Description, spec: ModelSpec, *, aux: bool) -> nn.Module:
    import timm  # noqa: PLC0415 - a second to import

    if description.classes is None or description.lesion is not None:
        raise ModelError("[network]: networks of timm tell classes and no mask; give [classes] alone")
    if not timm.is_model(spec.architecture):
        raise ModelError(f"timm has no model {spec.architecture!r}")
    return timm.create_model(
        spec.architecture,
        pretrained=False,
        in_chans=description.input.channels,
        num_classes=description.classes.channels,
        **dict(spec.arguments),
    )


def _build_torchvision(description: Description, spec: ModelSpec, *, aux: bool) -> nn.Module:
    from torchvision import models  # noqa: PLC0415 - a second to import

    if spec.architecture not in models.list_models():
        raise ModelError(f"torchvision has no model {spec.architecture!r}")
    if description.input.channels != 3:
        raise ModelError("[input]: networks of torchvision take 3 channels")
    if spec.architecture in models.list_models(module=models.segmentation):
        if description.lesion is None or description.classes is not None:
            raise ModelError(
                f"[network]: {spec.architecture} gives a mask and no classes; give [lesion] alone"
            )
        return models.get_model(  # type: ignore[no-any-return]
            spec.architecture,
            weights=None,
            weights_backbone=None,
            num_classes=description.lesion.channels,
            aux_loss=aux,
        )
    if spec.architecture not in models.list_models(module=models):
        raise ModelError(f"[network]: {spec.architecture} neither segments nor classifies images")
    if description.classes is None or description.lesion is not None:
        raise ModelError(f"[network]: {spec.architecture} tells classes and no mask; give [classes] alone")
    return models.get_model(  # type: ignore[no-any-return]
        spec.architecture, weights=None, num_classes=description.classes.channels
    )


_BUILDERS: Mapping[str, Callable[..., nn.Module]] = {
    "smp": _build_smp,
    "timm": _build_timm,
    "torchvision": _build_torchvision,
}


def _fit_weights(data: bytes, like: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Read the weights, which have to be those of the network, tensor by tensor."""
    # it was read once before: see `read_own`
    header = read_header(data)
    prefix = _find_prefix(header, like)
    told = {key.removeprefix(prefix): value for key, value in header.items()}
    faults = {
        key: fault
        for key in (*like, *(key for key in told if key not in like))
        if (fault := compare_tensor(told.get(key), like.get(key)))
        and not (key.endswith(_COUNTER) and key not in told)
    }
    if faults:
        first = "; ".join(f"{show(key)} {fault}" for key, fault in [*faults.items()][:_FIRST_FEW])
        more = f"; and {len(faults) - _FIRST_FEW} more" if len(faults) > _FIRST_FEW else ""
        fitting = len(like) - sum(key in like for key in faults)
        raise BundleError(
            f"the weights in {name} are not those of the network that its TOML file names ({fitting} of "
            f"{len(like)} tensors fit): {first}{more}. Check library, architecture, encoder, "
            "arguments and channels"
        )
    state = {key.removeprefix(prefix): value for key, value in load_tensors(data, name).items()}
    check_weights(state, name)
    return state


def _find_prefix(told: Mapping[str, Any], like: Mapping[str, torch.Tensor]) -> str:
    """Find what stands before every name of a network that was wrapped when it was saved."""
    for prefix in _WRAPPERS:
        if told and all(key.startswith(prefix) for key in told) and not any(key in like for key in told):
            return prefix
    return ""
