"""Specifications of networks, and the networks that are built of them."""

from __future__ import annotations

import pytest
import torch

from sonoloop.errors import ModelError
from sonoloop.models.card import LIBRARIES, ModelSpec, NetworkLibrary
from sonoloop.models.networks import build_network, outline_network

SMALL = {
    "smp": ModelSpec(encoder="tu-test_efficientnet", size=64),
    "timm": ModelSpec(library="timm", architecture="test_efficientnet", encoder="", size=64),
    "plain": ModelSpec(library="plain", encoder="", size=64, arguments={"channels": [4, 8, 16]}),
}


@pytest.mark.parametrize("library", SMALL)
def test_every_library_gives_a_mask_if_it_has_one_and_three_classes(library):
    torch.manual_seed(0)
    spec = SMALL[library]
    network = build_network(spec).eval()
    images = torch.rand(2, 1, 64, 64) * 2 - 1
    with torch.inference_mode():
        lesion, classes = network(images)
        again = network(images[1:])[1]
    assert classes.shape == (2, 3)
    assert (lesion is None) == ("lesion" not in spec.heads)
    if lesion is not None:
        assert lesion.shape == (2, 1, 64, 64)
        assert lesion.std() > 0
    torch.testing.assert_close(classes[1:], again, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("library", SMALL)
def test_the_encoder_and_the_rest_both_learn(library):
    network = build_network(SMALL[library])
    lesion, classes = network(torch.rand(2, 1, 64, 64))
    (classes.sum() + (0 if lesion is None else lesion.sum())).backward()
    inside = {id(parameter) for parameter in network.get_submodule("encoder").parameters()}
    for parameters in (
        [p for p in network.parameters() if id(p) in inside],
        [p for p in network.parameters() if id(p) not in inside],
    ):
        assert parameters
        assert all(parameter.grad is not None for parameter in parameters)


@pytest.mark.parametrize(
    ("architecture", "features"),
    [
        ("mobilenetv3_small_050", 1024),
        ("mobilenetv4_conv_small", 1280),
        ("ghostnet_100", 1280),
        ("lcnet_050", 1280),
        ("hgnet_tiny", 2048),
        ("efficientvit_b0", 1280),
        ("vgg11", 4096),
        # as before, so that models made of them are still read
        ("resnet18", 512),
        ("resnet50", 2048),
        ("densenet121", 1024),
        ("efficientnet_b0", 1280),
        ("tf_efficientnet_lite2", 1280),
    ],
)
def test_a_classifiers_head_takes_what_its_network_gives(architecture, features):
    network = outline_network(
        ModelSpec(library="timm", architecture=architecture, encoder="", size=64)
    ).eval()
    assert network.head.in_features == features
    with torch.device("meta"):
        assert network(torch.zeros(2, 1, 64, 64))[1].shape == (2, 3)


def test_a_network_is_outlined_without_memory():
    computes = ModelSpec(architecture="Segformer", encoder="mit_b0", size=64)
    for spec in (*SMALL.values(), computes, ModelSpec(encoder="resnet18", size=64)):
        assert all(tensor.is_meta for tensor in outline_network(spec).state_dict().values())
    with pytest.raises(ModelError, match="no architecture 'Nonet'"):
        outline_network(ModelSpec(architecture="Nonet"))


def test_torchvisions_fcn_is_for_one_channel():
    spec = ModelSpec(library="torchvision", architecture="fcn_resnet50", encoder="", size=64)
    with torch.device("meta"):
        network = build_network(spec)
        lesion, classes = network(torch.zeros(2, 1, 64, 64))
    assert lesion.shape == (2, 1, 64, 64)
    assert classes.shape == (2, 3)
    assert network.encoder.conv1.in_channels == 1


def test_the_plain_unet_is_the_published_one():
    with torch.device("meta"):
        network = build_network(ModelSpec(library="plain", encoder="", size=128))
    widths = [level[0].out_channels for level in network.encoder.levels]
    assert widths == [64, 128, 256, 512, 1024]
    # 31.0 million in the mask's part, as the U-Net with 64 to 1024 channels has
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(31.0e6, rel=0.01)


def test_dropout_is_before_the_class_head_only():
    for library, spec in SMALL.items():
        network = build_network(ModelSpec.from_dict(spec.to_dict() | {"dropout": 0.5})).train()
        for module in network.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        images = torch.rand(2, 1, 64, 64)
        (lesion, classes), (same, other) = network(images), network(images)
        assert not torch.equal(classes, other), library
        if lesion is not None:
            assert torch.equal(lesion, same), library


def test_a_specification_survives_json():
    import json

    spec = SMALL["plain"]
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with pytest.raises(ModelError, match="unknown in the model's specification: depth; update Sonoloop"):
        ModelSpec.from_dict({"depth": 3})
    with pytest.raises(ModelError, match=r"specification is wrong: dropout must be in \[0, 1\), got 1"):
        ModelSpec.from_dict({"dropout": 1})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"library": "keras"}, "library must be one of smp, timm, torchvision, plain, onnx, got 'keras'"),
        ({"library": "timm", "architecture": "resnet18"}, "only networks of smp have an encoder to choose"),
        ({"encoder": "hf-hub:somebody/weights"}, "encoder must be a plain name of letters"),
        ({"architecture": "../Unet"}, "architecture must be a plain name of letters"),
        (
            {"library": "timm", "architecture": "local-dir:/etc", "encoder": ""},
            "architecture must be a plain",
        ),
        ({"encoder": ""}, "encoder must be a plain name"),
        ({"size": 33}, "size must be a multiple of 32 from 32 to 2048, got 33"),
        ({"size": 0}, "size must be a multiple of 32 from 32 to 2048, got 0"),
        ({"size": 4096}, "size must be a multiple of 32 from 32 to 2048, got 4096"),
        ({"size": 64.0}, "size must be a whole number, got 64.0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1"),
        (
            {"arguments": {"decoder_chanels": [4]}},
            "arguments.decoder_chanels is none that Unet is given; there",
        ),
        (
            {"library": "plain", "encoder": "", "arguments": {"depth": 3}},
            "arguments.depth is none that Unet is given; there are: channels",
        ),
    ],
)
def test_a_wrong_specification_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        ModelSpec(**values)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ModelSpec(architecture="Unett"), "has no architecture 'Unett'; it has Unet, UnetPlusPlus"),
        (ModelSpec(architecture="encoders"), "has no architecture 'encoders'"),
        (ModelSpec(encoder="resnet19"), "cannot build Unet on resnet19 of smp: "),
        (ModelSpec(encoder="tu-resnet19x"), "cannot build Unet on tu-resnet19x of smp: "),
        (ModelSpec(library="timm", architecture="resnet19", encoder=""), "cannot build resnet19 of timm: "),
        (
            ModelSpec(library="torchvision", architecture="fcn_resnet18", encoder=""),
            "of torchvision there are fcn_resnet50 and fcn_resnet101, not 'fcn_resnet18'",
        ),
        (
            ModelSpec(library="plain", architecture="Vnet", encoder=""),
            "the only plain network is Unet, not 'V",
        ),
    ],
)
def test_what_a_library_does_not_know_is_named(spec, message):
    with pytest.raises(ModelError, match=message):
        build_network(spec)


def test_an_architecture_is_one_builder_and_one_line(tmp_path, monkeypatch):
    (tmp_path / "brought_networks.py").write_text(
        "import torch\n"
        "def build_linear(spec):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(spec.size**2, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    line = NetworkLibrary(builder="brought_networks:build_linear", heads=("classes",))
    monkeypatch.setitem(LIBRARIES, "own", line)
    spec = ModelSpec.from_dict({"library": "own", "architecture": "linear", "encoder": "", "size": 32})
    assert spec.heads == ("classes",)
    assert build_network(spec)(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
