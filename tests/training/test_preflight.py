"""A network that cannot do what the recipe asks is told before images are read."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sonoloop.errors import SonoloopError, TrainingError
from sonoloop.models.card import ModelSpec
from sonoloop_training.fit.preflight import try_network
from sonoloop_training.fit.train import train

# of one block
VIT = "vit_tiny_patch16_224"


def classifier(recipe, architecture: str, size: int):
    arguments = {"depth": 1} if architecture == VIT else {}
    spec = ModelSpec(library="timm", architecture=architecture, encoder="", size=size, arguments=arguments)
    return dataclasses.replace(recipe, model=spec)


def test_a_network_of_a_fixed_size_says_which(tiny):
    with pytest.raises(
        TrainingError,
        match=r"^vit_tiny_patch16_224 cannot compute images of 64 x 64 pixels \(.*\); it was made for 224: "
        r"--set model\.size=224$",
    ):
        try_network(classifier(tiny(), VIT, 64))
    try_network(classifier(tiny(), VIT, 224))


def test_a_network_of_a_fixed_size_has_no_small_epochs(tiny):
    with pytest.raises(TrainingError, match=r"images of 160 x 160 pixels .*fit\.small_epochs=0$"):
        try_network(classifier(tiny("small_epochs=1"), VIT, 224))
    with pytest.raises(TrainingError, match=r"images of 192 x 192 pixels .*: --set fit\.size=0 "):
        try_network(classifier(tiny("size=192"), VIT, 224))
    try_network(tiny("small_epochs=1"))


def test_an_answer_of_another_shape_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(
        "sonoloop.models.networks.Classifier.forward", lambda self, images: (None, images[:, 0, 0])
    )
    with pytest.raises(TrainingError, match=r"shapes \[None, \(1, 64\)\], not \[None, \(1, 3\)\]"):
        try_network(classifier(tiny(), "test_efficientnet", 64))


def test_nothing_random_is_changed(tiny):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    try_network(tiny())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub cannot be reached, and no image may be read."""

    def unreachable(*_):
        raise OSError("the hub cannot be reached")

    def read(*_):
        raise AssertionError("an image was read")

    monkeypatch.setattr("sonoloop_training.fit.fitting._from_hub", unreachable)
    monkeypatch.setattr("sonoloop_training.fit.train.list_members", read)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["pretrained=true"], "no ImageNet weights for tu-test_efficientnet could be had (the hub cannot be"),
        (["architecture=Unett"], "has no architecture 'Unett'"),
        (["encoder=resnet81"], "resnet81"),
        (["architecture=UnetPlusPlus", "encoder=mit_b0"], "mit_b0"),
    ],
)
@pytest.mark.usefixtures("offline")
def test_a_network_that_cannot_be_had_is_told_before_images_are_read(
    tiny, datasets, tmp_path, settings, message
):
    with pytest.raises(SonoloopError) as refused:
        list(train(tiny(*settings), datasets, tmp_path / "out", device="cpu"))
    assert message in str(refused.value)
    assert not (tmp_path / "out").exists()
