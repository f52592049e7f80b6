"""Networks by specification: one builder a library, named in `sonoloop.models.card.LIBRARIES`."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torch import nn
from torch.overrides import TorchFunctionMode

from sonoloop.errors import ModelError
from sonoloop.models.arguments import PROMPTS, SEGMENTERS
from sonoloop.models.card import LIBRARIES, MAX_WEIGHTS_BYTES, ModelSpec
from sonoloop.values import CLASSES

# in half precision they fill the largest weights file that is read
MAX_PARAMETERS = MAX_WEIGHTS_BYTES // 2


def build_network(spec: ModelSpec) -> nn.Module:
    """Build the network of a specification, with random weights.

    It takes (B, C, S, S), the image in [-1, 1] first, and prompts where it takes any. It gives lesion logits
    (B, 1, S, S), or None where it only classifies, and class logits (B, 3). One that is too large is refused
    before memory is taken.
    """
    _outline(_told(spec))
    return _build(spec).to(memory_format=torch.channels_last)


def outline_network(spec: ModelSpec) -> nn.Module:
    """Build a network for its names and shapes, on the meta device: without memory, and in a second.

    What was outlined before is copied, which takes a fifth of the time.
    """
    return copy.deepcopy(_outline(_told(spec)))


def _told(spec: ModelSpec) -> str:
    return json.dumps(spec.to_dict())


# of networks that were seen to answer as they should, by what their specifications tell
_ANSWERING: set[str] = set()


@lru_cache(maxsize=16)
def _outline(told: str) -> nn.Module:
    spec = ModelSpec.from_dict(json.loads(told))
    network = outlined(lambda: _build(spec))
    tensors = [*network.parameters(), *network.buffers()]
    if (count := sum(tensor.numel() for tensor in tensors)) > MAX_PARAMETERS:
        raise ModelError(
            f"{_name(spec)} has {count:,} weights, more than {MAX_PARAMETERS:,}; take a smaller one"
        )
    return network


def outlined(build: Callable[[], nn.Module]) -> nn.Module:
    """Have a network built on the meta device."""
    # without gradients: what a network computes of its weights could not be copied with them
    with torch.no_grad(), torch.device("meta"), _KeepingNumbers():
        return build().to("meta")


def try_shapes(network: nn.Module, spec: ModelSpec) -> None:
    """Refuse an outlined network whose answers to an image have other shapes than those of a prediction."""
    if (told := _told(spec)) in _ANSWERING:
        return
    if any(isinstance(module, nn.RNNBase) for module in network.modules()):
        return  # minutes, since the meta device unrolls them; what is wrong is told for each image
    try:
        with torch.device("meta"), torch.inference_mode():
            lesion, classes = network.eval()(torch.zeros(1, spec.channels, spec.size, spec.size))
        shapes = [None if lesion is None else tuple(lesion.shape), tuple(classes.shape)]
    except Exception as error:  # networks raise whatever they come upon
        fault = str(error).partition("\n")[0] or type(error).__name__
        raise ModelError(f"{_name(spec)} cannot compute images of {spec.size} pixels: {fault}") from error
    wanted = [(1, 1, spec.size, spec.size) if "lesion" in spec.heads else None, (1, len(CLASSES))]
    if shapes != wanted:
        raise ModelError(f"the answers of {_name(spec)} have the shapes {shapes}, not {wanted}")
    _ANSWERING.add(told)


class _KeepingNumbers(TorchFunctionMode):
    """Computes numbers that shape a network on the CPU, as smp's MixTransformer does its drop rates."""

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        if function is torch.linspace:
            kwargs = {**(kwargs or {}), "device": "cpu"}
        return function(*args, **(kwargs or {}))


def _build(spec: ModelSpec) -> nn.Module:
    if not spec.has_weights:
        raise ModelError(
            f"{_name(spec)} was brought in as a graph, which torch neither runs nor trains; "
            "take another model"
        )
    build: Callable[[ModelSpec], nn.Module] = resolve_name(LIBRARIES[spec.library].builder)
    try:
        return build(spec)
    except ModelError:
        raise
    except Exception as error:  # the libraries raise whatever they come upon
        fault = str(error).partition("\n")[0] or type(error).__name__
        raise ModelError(f"cannot build {_name(spec)} of {spec.library}: {fault}") from error


def _name(spec: ModelSpec) -> str:
    return f"{spec.architecture} on {spec.encoder}" if spec.encoder else spec.architecture


def build_segmenter(spec: ModelSpec) -> nn.Module:
    """Build a network of segmentation-models-pytorch."""
    import segmentation_models_pytorch as smp  # noqa: PLC0415 - seconds to import

    network: nn.Module = find_segmenter(smp, spec)(
        encoder_name=spec.encoder,
        encoder_weights=None,
        in_channels=spec.channels,
        classes=1,
        aux_params={"classes": len(CLASSES), "pooling": "avg", "dropout": spec.dropout or None},
        **{name: _plain(value) for name, value in spec.arguments.items() if name != PROMPTS},
    )
    return network


def find_segmenter(smp: ModuleType, spec: ModelSpec) -> Callable[..., nn.Module]:
    """Find the architecture of segmentation-models-pytorch, whose encoder is one that is there."""
    import timm  # noqa: PLC0415 - a second to import

    architecture: Callable[..., nn.Module] | None
    architecture = getattr(smp, spec.architecture, None) if spec.architecture in SEGMENTERS else None
    if architecture is None:
        raise ModelError(
            f"segmentation_models_pytorch has no architecture {spec.architecture!r}; "
            "it has Unet, UnetPlusPlus, FPN, DeepLabV3Plus, Segformer and others"
        )
    theirs = spec.encoder.removeprefix("tu-")
    if spec.encoder not in smp.encoders.encoders and (theirs == spec.encoder or not timm.is_model(theirs)):
        raise ValueError(f"neither it nor timm has an encoder {spec.encoder!r}")
    return architecture  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    return tuple(value) if isinstance(value, list) else value


class Classifier(nn.Module):
    """A timm network without its own head, whose pooled features (B, F) go into a linear one."""

    def __init__(self, encoder: nn.Module, *, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        # some have a layer between their last features and their head, so that `num_features` is another
        self.head = nn.Linear(int(encoder.head_hidden_size), len(CLASSES))  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor) -> tuple[None, torch.Tensor]:
        """Classify (B, 1, S, S); there is no lesion map."""
        return None, self.head(self.dropout(self.encoder(images)))


def build_classifier(spec: ModelSpec) -> nn.Module:
    """Build a classifier of timm."""
    import timm  # noqa: PLC0415 - a second to import

    if not timm.is_model(spec.architecture):
        raise ValueError(f"it has no model {spec.architecture!r}")
    encoder = timm.create_model(
        spec.architecture, pretrained=False, in_chans=1, num_classes=0, **dict(spec.arguments)
    )
    return Classifier(encoder, dropout=spec.dropout)


_KINDS = ("fcn_resnet50", "fcn_resnet101")
_FEATURES = 2048


class FCN(nn.Module):
    """Dilated ResNet features, a small head at an eighth of the resolution, bilinear back."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(_FEATURES, len(CLASSES))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Segment and classify (B, 1, S, S)."""
        features = self.encoder(images)["out"]
        lesion = F.interpolate(
            self.decoder(features), images.shape[-2:], mode="bilinear", align_corners=False
        )
        return lesion, self.head(self.dropout(features.mean((2, 3))))


def build_fcn(spec: ModelSpec) -> nn.Module:
    """Build an FCN of torchvision."""
    from torchvision.models import segmentation  # noqa: PLC0415 - a second to import

    if spec.architecture not in _KINDS:
        raise ModelError(f"of torchvision there are {' and '.join(_KINDS)}, not {spec.architecture!r}")
    whole = getattr(segmentation, spec.architecture)(
        weights=None, weights_backbone=None, num_classes=1, aux_loss=False, **dict(spec.arguments)
    )
    whole.backbone.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    return FCN(whole.backbone, whole.classifier, dropout=spec.dropout)


_CHANNELS = (64, 128, 256, 512, 1024)


class Contracting(nn.Module):
    """The way down: two convolutions a level, halved in between; gives the features of each level."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            _twice(before, after) for before, after in zip((1, *channels), channels, strict=False)
        )
        self.halve = nn.MaxPool2d(2)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Give the features, finest first."""
        features = [self.levels[0](images)]
        for level in self.levels[1:]:
            features.append(level(self.halve(features[-1])))
        return features


class PlainUnet(nn.Module):
    """The U-Net (Ronneberger et al. 2015) with batch normalisation; channels of each level, finest first."""

    def __init__(self, channels: Sequence[int], *, dropout: float) -> None:
        super().__init__()
        self.encoder = Contracting(channels)
        pairs = list(pairwise(channels))[::-1]
        self.grow = nn.ModuleList(nn.ConvTranspose2d(deep, fine, 2, stride=2) for fine, deep in pairs)
        self.merge = nn.ModuleList(_twice(2 * fine, fine) for fine, _ in pairs)
        self.last = nn.Conv2d(channels[0], 1, 1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels[-1], len(CLASSES))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Segment and classify (B, 1, S, S)."""
        *finer, deepest = self.encoder(images)
        features = deepest
        for grow, merge, beside in zip(self.grow, self.merge, reversed(finer), strict=True):
            features = merge(torch.cat([beside, grow(features)], dim=1))
        return self.last(features), self.head(self.dropout(deepest.mean((2, 3))))


def build_plain_unet(spec: ModelSpec) -> nn.Module:
    """Build the plain U-Net, from 64 to 1024 channels unless told otherwise."""
    if spec.architecture != "Unet":
        raise ModelError(f"the only plain network is Unet, not {spec.architecture!r}")
    return PlainUnet(tuple(spec.arguments.get("channels", _CHANNELS)), dropout=spec.dropout)


def _twice(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        # the normalisation that follows has a bias of its own
        layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)
