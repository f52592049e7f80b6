"""What is fitted on validation frames, on a network that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sonoloop.errors import TrainingError
from sonoloop.imaging.grey import frame_from_array
from sonoloop.models.bundle import Card
from sonoloop.models.card import ModelSpec
from sonoloop_training.fit.calibration import Case, calibrate

# grey levels that `Bright` calls lesion with a probability near 0.56, and for certain
HALO, CORE = 129, 255


class Bright(torch.nn.Module):
    """Sees a lesion where the image is bright; undecided between the classes."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images * 20, torch.zeros(len(images), 3)


def case(number: int, *, halo_is_lesion: bool) -> Case:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[10:50, 10:50] = HALO
    pixels[20:40, 20:40] = CORE
    pixels[0, 0] = number  # another frame, the same picture
    truth = pixels >= (HALO if halo_is_lesion else CORE)
    frame = frame_from_array(pixels, name=str(number))
    return Case(frame=frame, mask=truth, label="benign", dataset="busi", group=str(number))


@pytest.mark.parametrize(("halo_is_lesion", "thresholds"), [(True, (0.3, 0.55)), (False, (0.6, 0.65))])
def test_the_threshold_is_the_one_that_fits_the_masks(halo_is_lesion, thresholds):
    cases = [case(n, halo_is_lesion=halo_is_lesion) for n in range(6)]
    card = calibrate(Card(name="a", spec=ModelSpec(size=64)), Bright(), cases, device="cpu")
    assert thresholds[0] <= card.threshold <= thresholds[1]
    # undecided is a third each: no lesion is lost to the lowest gate
    assert card.normal_gate == 0.5
    assert set(card.foreground) == {"1", "2", "4"}
    assert min(card.foreground["1"]["y"]) > 0.9


def test_a_model_that_finds_nothing_gets_no_line():
    dark = [case(n, halo_is_lesion=True) for n in range(4)]

    class Blind(Bright):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.full_like(images, -9.0), torch.zeros(len(images), 3)

    assert calibrate(Card(name="a", spec=ModelSpec(size=64)), Blind(), dark, device="cpu").foreground == {}


def test_frames_without_a_lesion_fit_nothing():
    frame = frame_from_array(np.eye(64, dtype=np.uint8), name="a")
    normal = Case(frame=frame, mask=np.zeros((64, 64), bool), label="normal", dataset="busi", group="a")
    with pytest.raises(TrainingError, match="no validation frame has a lesion"):
        calibrate(Card(name="a", spec=ModelSpec(size=64)), Bright(), [normal], device="cpu")
