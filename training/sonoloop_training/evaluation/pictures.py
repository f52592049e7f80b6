"""Images of a report: cases with the outlines of truth and prediction, and where a classifier looked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sonoloop.imaging.grey import to_unit
from sonoloop.imaging.overlay import LESION_COLOURS, outline, to_display
from sonoloop.models.bundle import Bundle
from sonoloop.models.preprocess import Letterbox, normalise
from sonoloop.values import CLASSES
from sonoloop_training.evaluation.cases_ import Case
from sonoloop_training.evaluation.gradcam import grad_cam
from sonoloop_training.evaluation.scores_ import Score

# cyan and orange, the one solid and the other dashed: told apart with any colour vision and in grey
TRUTH, PREDICTION = LESION_COLOURS[0], LESION_COLOURS[3]
LEGEND = "Cyan, solid: the truth. Orange, dashed: the prediction."


def worst_cases(scores: Sequence[Score], count: int = 12) -> list[Score]:
    """Pick the images with the lowest Dice; of equal ones, those of which the model was surest."""
    return sorted(scores, key=lambda score: (score.dice, -score.expected_dice))[:count]


def telling_cases(scores: Sequence[Score]) -> list[Score]:
    """Pick, of each class, the image that was right and the one that was wrong with most confidence."""
    picked = []
    for label in CLASSES:
        own = sorted((s for s in scores if s.label == label), key=lambda score: -max(score.probabilities))
        for right in (True, False):
            picked += [s for s in own if (s.predicted == s.label) is right][:1]
    return picked


def outlined(case: Case, predicted: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw a case with both outlines, uint8 (H, W, 3); see `LEGEND`.

    Parameters
    ----------
    case : Case
        With its truth.
    predicted : numpy.ndarray
        bool (H, W).
    """
    picture = np.repeat(to_display(case.frame.pixels)[..., None], 3, axis=-1)
    thickness = max(1, round(max(case.frame.shape) / 200))
    if case.mask.any():
        rows, columns, ring = outline(case.mask, thickness)
        picture[rows, columns][ring] = TRUTH
    if predicted.any():
        rows, columns, ring = outline(predicted, thickness)
        down, across = np.indices(ring.shape)
        dashes = (down + across) // (5 * thickness) % 2 == 0
        picture[rows, columns][ring & dashes] = PREDICTION
    return picture


def looked_at(bundle: Bundle, case: Case, target: int) -> NDArray[np.uint8]:
    """Draw what spoke for a class over an image, uint8 (H, W, 3): the brighter and yellower, the more.

    Parameters
    ----------
    bundle : Bundle
        Its network names classes.
    case : Case
        What it looked at.
    target : int
        Index of the class.
    """
    box = Letterbox(*case.frame.shape, bundle.card.spec.size)
    square = box.apply(torch.from_numpy(to_unit(case.frame.pixels)))
    device = next(bundle.network.parameters()).device
    heat = grad_cam(bundle.network, normalise(square[None, None]).to(device), target).cpu()
    share = box.invert(heat[None])[0].clamp(0, 1).numpy()[..., None]
    grey = np.repeat(to_display(case.frame.pixels)[..., None], 3, axis=-1).astype(np.float32)
    from matplotlib import colormaps  # noqa: PLC0415 - only where there is a classifier

    colours = colormaps["inferno"](share[..., 0])[..., :3] * 255
    blended = np.asarray((1 - 0.6 * share) * grey + 0.6 * share * colours)
    if case.mask.any():
        rows, columns, ring = outline(case.mask, max(1, round(max(case.frame.shape) / 300)))
        blended[rows, columns][ring] = TRUTH
    picture: NDArray[np.uint8] = np.rint(blended).astype(np.uint8)
    return picture
