"""Frames of phantoms, their near copies, and processes that place them."""

from __future__ import annotations

import numpy as np

from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.phantom import phantom
from sonoloop.store import CorrectionStore
from sonoloop.store.groups import place_frame
from sonoloop.values import Correction, Frame

SHAPE = (120, 160)


def make_frame(seed: int) -> Frame:
    """An image of a scene of its own."""
    return frame_from_array(phantom("benign", seed=seed, shape=SHAPE).image, name=f"scene {seed}")


def make_copy(seed: int, *, brighter: int = 12) -> Frame:
    """The same scene from another recording: brighter, cropped and mirrored."""
    pixels = phantom("benign", seed=seed, shape=SHAPE).image.astype(int) + brighter
    pixels = pixels.clip(0, 255).astype(np.uint8)[4:, 6:][:, ::-1]
    return frame_from_array(np.ascontiguousarray(pixels), name=f"scene {seed} again")


def correct(frame: Frame, *, label: str = "benign", lesion: bool = True, **more: object) -> Correction:
    mask = np.zeros(frame.shape, np.uint8)
    if lesion:
        mask[20:40, 30:50] = 1
    values = {"label": label, "annotator": "reader-1", **more}
    return Correction(frame_id=frame.id, pixels_hash=frame.pixels_hash, mask=mask, **values)


def place_scenes(url: str, copies: bool, seeds: range) -> None:
    with CorrectionStore(url) as store:
        for seed in seeds:
            place_frame(store, make_copy(seed) if copies else make_frame(seed))
