"""Where a class is decided, on networks that look at one place alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sonoloop.errors import ConstantImageError, ModelError
from sonoloop.imaging.grey import frame_from_array
from sonoloop.models.bundle import Bundle
from sonoloop.models.occlusion import make_covers
from sonoloop.models.predictor import Predictor
from sonoloop.models.preprocess import Letterbox
from sonoloop.values import CLASSES


class Looking(torch.nn.Module):
    """Says malignant as far as the square is bright at one place."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.place = slice(row - 3, row + 3), slice(column - 3, column + 3)
        self.sizes: list[int] = []

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.sizes.append(len(images))
        bright = images[:, 0, self.place[0], self.place[1]].mean((1, 2))
        return images * 20, torch.stack([0 * bright, 0 * bright, 5 * bright], 1)


def looking(bundle: Bundle, network: torch.nn.Module) -> Bundle:
    return Bundle(dataclasses.replace(bundle.card, temperature=1.0), network)


def spot(shape: tuple[int, int], row: int, column: int) -> np.ndarray:
    pixels = np.full(shape, 20, np.uint8)
    pixels[row - 8 : row + 8, column - 8 : column + 8] = 250
    return pixels


def test_the_place_that_decides_is_the_brightest(bundle):
    # a frame of 64 x 128 fills rows 16 to 47 of the network's 64 x 64
    frame = frame_from_array(spot((64, 128), 40, 32), name="a")
    predictor = Predictor(looking(bundle, Looking(16 + 20, 16)), device="cpu")
    heat = predictor.explain(frame, "malignant")
    assert (heat.shape, heat.dtype) == ((64, 128), np.float32)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert abs(row - 40) <= 8
    assert abs(column - 32) <= 8
    assert heat.max() > 1
    assert np.abs(heat[:, 64:]).max() < 0.01, "what the network does not look at decides nothing"
    assert predictor.explain(frame, "benign").min() < -0.5, "and speaks against another class"


@pytest.mark.parametrize("shape", [(64, 64), (40, 300), (300, 40), (7, 7), (1, 400)])
def test_covers_hide_every_pixel_of_the_frame_once_and_nothing_else(shape):
    box = Letterbox(*shape, 64)
    covers = make_covers(box)
    top, left, height, width = box.content
    whole = covers.sum(0)
    np.testing.assert_allclose(whole[top : top + height, left : left + width], 1, atol=1e-5)
    assert whole.sum() == pytest.approx(height * width, rel=1e-5)
    assert 1 <= len(covers) <= 50


def test_covers_go_through_the_network_in_batches(bundle):
    network = Looking(32, 32)
    frame = frame_from_array(spot((64, 64), 32, 32), name="a")
    Predictor(looking(bundle, network), device="cpu", batch=5).explain(frame, "malignant")
    assert max(network.sizes) == 5
    assert sum(network.sizes) == 1 + len(make_covers(Letterbox(64, 64, 64)))


def test_a_frame_without_anything_to_see_is_refused(bundle):
    with pytest.raises(ConstantImageError):
        Predictor(bundle, device="cpu").explain(frame_from_array(np.zeros((9, 9)), name="a"), "benign")


def test_an_answer_that_is_no_number_is_refused(bundle):
    class Broken(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return images, torch.full((len(images), len(CLASSES)), torch.nan)

    frame = frame_from_array(spot((64, 64), 32, 32), name="case-7")
    with pytest.raises(ModelError, match=r"to case-7 holds what is no number"):
        Predictor(looking(bundle, Broken()), device="cpu").explain(frame, "benign")


def test_a_certain_answer_is_explained_too(bundle):
    class Sure(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return images, torch.tensor([[0.0, 0.0, 1e6]]).repeat(len(images), 1)

    frame = frame_from_array(spot((64, 64), 32, 32), name="a")
    heat = Predictor(looking(bundle, Sure()), device="cpu").explain(frame, "malignant")
    assert np.isfinite(heat).all()
    assert not heat.any()
