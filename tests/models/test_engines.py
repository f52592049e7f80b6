"""What runs a network: torch by default, and room for others."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import ndimage

from sonoloop.errors import ModelError
from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.phantom import phantom
from sonoloop.models.engines import ENGINES, load_engine
from sonoloop.models.predictor import Predictor
from sonoloop.models.preprocess import Letterbox, resize
from sonoloop.models.tta import agreement, average_classes, make_views, undo_views

BRIGHT = """
import numpy as np
from sonoloop.models.card import read_card
from sonoloop.models.engines import Engine

class Bright(Engine):
    @classmethod
    def load(cls, folder, device="auto"):
        return cls(read_card(folder))

    def run(self, images):
        return (images + 1) / 2, np.tile(np.float32([0, 3, 0]), (len(images), 1))
"""


def test_torch_is_found_by_its_name(tmp_path, bundle):
    frame = frame_from_array(phantom("benign", seed=1, shape=(90, 120)).image, name="a.png")
    engine = load_engine("torch", tmp_path / "tiny", "cpu")
    one, other = Predictor(engine).predict(frame), Predictor(bundle, device="cpu").predict(frame)
    assert np.array_equal(one.lesion, other.lesion)
    assert (engine.device, one.model) == ("cpu", bundle.model)


def test_an_unknown_engine_is_named_with_those_there_are(tmp_path):
    with pytest.raises(ModelError, match=r"no engine 'steam'; use one of torch"):
        load_engine("steam", tmp_path)


@pytest.mark.parametrize("views", [1, 2, 4])
def test_an_engine_is_one_file_and_one_line(tmp_path, bundle, monkeypatch, views):
    (tmp_path / "bright_engine.py").write_text(BRIGHT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ENGINES, "bright", "bright_engine:Bright")
    pixels = np.zeros((90, 150), np.uint8)
    pixels[30:60, 40:90] = 255
    predictor = Predictor(load_engine("bright", tmp_path / "tiny"), views=views)
    prediction = predictor.predict(frame_from_array(pixels, name="a"))
    assert (prediction.label, prediction.lesions, predictor.device) == ("benign", 1, "cpu")
    assert np.mean((prediction.mask > 0) == (pixels > 0)) > 0.99


def test_an_engine_without_torch_predicts_without_it(tmp_path, bundle):
    (tmp_path / "bright_engine.py").write_text(BRIGHT)
    code = """
import sys
from pathlib import Path
import numpy as np
from bright_engine import Bright
from sonoloop.imaging.grey import frame_from_array
from sonoloop.models.predictor import Predictor
pixels = np.zeros((90, 150), np.uint8)
pixels[30:60, 40:90] = 255
print(Predictor(Bright.load(Path("tiny"))).predict(frame_from_array(pixels, name="a")).lesions)
print("torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "False"], done.stderr


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(
    ("before", "after"),
    [((471, 562), (215, 256)), ((256, 256), (683, 916)), ((64, 300), (300, 64)), ((1, 7), (7, 1))],
)
def test_numpy_resizes_as_torch_does(before, after, antialias):
    # torch places pixels in float32, which tells where neighbours are as different as in noise
    maps = ndimage.gaussian_filter(np.random.default_rng(0).random((2, 3, *before), np.float32), (0, 0, 1, 1))
    mine = resize(maps, *after, antialias=antialias)
    theirs = resize(torch.from_numpy(maps), *after, antialias=antialias).numpy()
    assert mine.dtype == np.float32
    np.testing.assert_allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize("views", [1, 2, 4])
def test_numpy_prepares_and_averages_as_torch_does(views):
    rng = np.random.default_rng(1)
    square = Letterbox(120, 170, 64).apply(rng.random((120, 170), np.float32))
    images = np.stack([square, square.T])[:, None]
    stacked = make_views(images, views)
    np.testing.assert_allclose(stacked, make_views(torch.from_numpy(images), views).numpy(), atol=1e-5)
    mine, theirs = undo_views(stacked, views), undo_views(torch.from_numpy(stacked), views)
    np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-5)
    np.testing.assert_allclose(agreement(mine, 0.5), agreement(torch.from_numpy(mine), 0.5), atol=1e-5)
    logits = rng.normal(size=(views, 2, 3)).astype(np.float32)
    mine, theirs = average_classes(logits, 1.3), average_classes(torch.from_numpy(logits), 1.3)
    np.testing.assert_allclose(mine, theirs, atol=1e-6)
