"""Grad-CAM lights up where a network that is known looks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sonoloop.models.card import ModelSpec
from sonoloop.models.networks import build_network
from sonoloop_training.evaluation.report import grad_cam


class Toy(nn.Module):
    """Calls an image malignant by its bright pixels, benign by its dark ones; the decoder plays no part."""

    def __init__(self) -> None:
        super().__init__()
        self.sees = nn.Conv2d(1, 2, 1, bias=False)
        self.sees.weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
        self.relu = nn.ReLU(inplace=True)
        self.shrink = nn.AvgPool2d(4)
        self.decoder = nn.Upsample(scale_factor=4)
        self.names = nn.Linear(2, 3, bias=False)
        self.names.weight.data = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.shrink(self.relu(self.sees(images)))
        return self.decoder(features), self.names(features.mean((2, 3)))


@pytest.fixture
def image() -> torch.Tensor:
    image = torch.zeros(1, 1, 32, 32)
    image[..., 4:12, 20:28] = 1
    image[..., 20:28, 4:12] = -1
    return image


@pytest.mark.parametrize(("target", "place"), [(2, (8, 24)), (1, (24, 8))])
def test_the_map_is_bright_where_the_class_comes_from(image, target, place):
    heat = grad_cam(Toy().eval(), image, target)
    assert heat.shape == (32, 32)
    assert heat.max() == 1
    assert heat[place] > 0.9
    inside = heat[place[0] - 6 : place[0] + 6, place[1] - 6 : place[1] + 6].sum()
    assert float(inside) == pytest.approx(float(heat.sum()), rel=1e-4)


def test_nothing_speaks_for_a_class_without_weights(image):
    assert grad_cam(Toy().eval(), image, 0).max() == 0


def test_no_hook_and_no_gradient_is_left_behind(image):
    toy = Toy().eval()
    grad_cam(toy, image, 2)
    assert not any(module._forward_hooks for module in toy.modules())
    assert toy.names.weight.grad is None


def test_a_network_without_feature_maps_is_refused(image):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(1024, 3))
    with pytest.raises(ValueError, match="no feature map"):
        grad_cam(flat.eval(), image, 1)


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec(encoder="tu-test_efficientnet", size=64, arguments={"decoder_channels": [32, 16, 8, 8, 4]}),
        ModelSpec(library="timm", architecture="test_resnet", encoder="", size=64),
    ],
    ids=["segmenter with a class head", "classifier"],
)
def test_the_map_is_found_in_the_networks_that_models_are_made_of(spec):
    torch.manual_seed(0)
    network = build_network(spec).eval()
    with torch.inference_mode():
        network(torch.zeros(1, 1, 64, 64))
    heat = grad_cam(network, torch.randn(1, 1, 64, 64), 1)
    assert heat.shape == (64, 64)
    assert 0 <= heat.min() <= heat.max() <= 1
