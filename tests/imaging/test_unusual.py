"""Images far from ultrasound are told in one line."""

from __future__ import annotations

import numpy as np
import pytest

from sonoloop.imaging.unusual import why_unusual


def grey(*shape):
    return np.repeat(np.random.default_rng(0).integers(0, 256, (*shape, 1)).astype(np.uint8), 3, axis=-1)


def photograph(*shape, dtype=np.uint8):
    high = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    return (np.random.default_rng(0).random((*shape, 3)) * high).astype(dtype)


def doppler(*shape):
    image = grey(*shape)
    image[: shape[0] // 4, : shape[1] // 2] = (255, 0, 0)
    return image


@pytest.mark.parametrize(
    ("shape", "colour", "word"),
    [
        ((500, 600), None, None),
        ((100, 400), None, None),
        ((4000, 3000), None, None),
        ((99, 400), None, "Small"),
        ((3000, 4001), None, "Large"),
        ((100, 401), None, "Long"),
        ((500, 600), grey(500, 600), None),
        ((500, 600), doppler(500, 600), None),
        ((500, 600), photograph(500, 600), "photograph"),
        ((500, 600), photograph(500, 600, dtype=np.uint16), "photograph"),
        ((500, 600), photograph(500, 600, dtype=np.float32), "photograph"),
        ((500, 600), np.zeros((500, 600, 4), np.float32), None),
    ],
)
def test_what_is_far_from_ultrasound_is_told(shape, colour, word):
    told = why_unusual(shape, colour)
    assert (word in told and len(told) <= 50) if word else told is None
