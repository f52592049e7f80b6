"""What a training refuses before images are read: data that teach nothing, networks that cannot be had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Notice, Progress
from sonoloop.models.card import Head, ModelSpec
from sonoloop_training.datasets import Sample
from sonoloop_training.datasets.pack import describe_packed, packed_size
from sonoloop_training.fit.batches import small_size
from sonoloop_training.fit.fitting import begin
from sonoloop_training.fit.recipe import Recipe
from sonoloop_training.splits import Part
from sonoloop_training.splits.parts import check_filled


def check_recipe(recipe: Recipe, parts: Mapping[Part, Sequence[Sample]]) -> Iterator[Progress | Notice]:
    """Refuse data and networks that nothing can come of; see `check_parts` and `try_network`."""
    check_parts(parts, heads=recipe.model.heads)
    yield from check_packed(recipe, [sample for samples in parts.values() for sample in samples])
    yield Progress(stage="Trying the network", done=0, total=1)
    try_network(recipe)


def check_packed(recipe: Recipe, samples: Sequence[Sample]) -> Iterator[Notice]:
    """Refuse a pack of images that are smaller than those that the network is shown; tell of any other."""
    packed, size = packed_size(samples), recipe.model.size
    if packed is not None and packed < size:
        raise TrainingError(
            f"the pack holds images of {packed} pixels, and {recipe.name} learns from {size}: pack them "
            f"again with --size {size}, or add --set model.size={packed}"
        )
    for told in describe_packed(samples):
        yield Notice(message=told)


def check_parts(parts: Mapping[Part, Sequence[Sample]], *, heads: Sequence[Head]) -> None:
    """Refuse data that teach nothing."""
    check_filled(parts)
    training = parts["train"]
    labels = {sample.label for sample in training}
    if len(labels) == 1:
        raise TrainingError(
            f"all {len(training)} images that train are {labels.pop()}: a class cannot be learned from one; "
            "give images of another class too"
        )
    if "lesion" not in heads:
        return
    if all(sample.label == "normal" for sample in parts["validation"]):
        raise TrainingError(
            "no validation image has a lesion, so that no threshold can be fitted; give more data, or change "
            "the recipe's split"
        )
    if not any(sample.masks for sample in training):
        raise TrainingError(
            "none of the images that train has a mask file; put them beside the images as NAME_mask.png"
        )


def try_network(recipe: Recipe) -> None:
    """Build the network with its first weights and show it an image of each size it will see.

    What is random afterwards is as if this had not been.
    """
    spec = recipe.model
    with torch.random.fork_rng(devices=[]):
        network = begin(recipe).network.eval()
        _show(network, spec, spec.size)
        size = recipe.fit.size or spec.size
        for other in {size, small_size(size)} if recipe.fit.small_epochs else {size}:
            _show(network, spec, other)


def _show(network: nn.Module, spec: ModelSpec, size: int) -> None:
    try:
        with torch.inference_mode():
            lesion, classes = network(torch.zeros(1, spec.channels, size, size))
        shapes = [None if lesion is None else tuple(lesion.shape), tuple(classes.shape)]
    except Exception as error:  # networks raise whatever they come upon
        fault = str(error).partition("\n")[0] or type(error).__name__
        raise _refuse(spec, size, fault) from error
    wanted = [(1, 1, size, size) if "lesion" in spec.heads else None, (1, 3)]
    if shapes != wanted:
        raise _refuse(spec, size, f"its answers have the shapes {shapes}, not {wanted}")


def _refuse(spec: ModelSpec, size: int, fault: str) -> TrainingError:
    on = f" on {spec.encoder}" if spec.encoder else ""
    advice = "it learns from these: --set fit.size=0 --set fit.small_epochs=0"
    if size == spec.size:
        advice = "choose another model.size or another network"
        if (made_for := _fixed_size(spec)) not in (None, spec.size):
            advice = f"it was made for {made_for}: --set model.size={made_for}"
    return TrainingError(
        f"{spec.architecture}{on} cannot compute images of {size} x {size} pixels ({fault}); {advice}"
    )


def _fixed_size(spec: ModelSpec) -> int | None:
    """Give the one size that a network of timm computes, where that is one a recipe may set."""
    import timm  # noqa: PLC0415 - a second to import

    config = timm.get_pretrained_cfg((spec.encoder or spec.architecture).removeprefix("tu-"))
    if config is None or not config.fixed_input_size:
        return None
    size = int(config.input_size[-1])
    return None if size % 32 else size
