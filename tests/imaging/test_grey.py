"""Grey levels of every real type lie in [0, 1] once scaled, in their order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sonoloop.errors import NotFiniteImageError
from sonoloop.imaging.grey import check_frame, frame_from_array, to_grey, to_unit

TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", ">u2", ">f4", ">f8", ">i8")


def every_level(kind: str) -> st.SearchStrategy:
    dtype = np.dtype(kind)
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    return arrays.arrays(dtype, (2, 3), elements=arrays.from_dtype(dtype, **finite))


@settings(deadline=None)
@given(levels=st.sampled_from(TYPES).flatmap(every_level))
def test_finite_levels_of_every_type_are_scaled_in_their_order(levels):
    unit = to_unit(levels)
    assert unit.dtype == np.float32
    assert np.isfinite(unit).all() and unit.min() >= 0 and unit.max() <= 1
    order = np.argsort(levels, axis=None, kind="stable")
    assert (np.diff(unit.ravel()[order]) >= 0).all()
    if levels.dtype != np.uint8 and levels.min() != levels.max():
        assert (unit.min(), unit.max()) == (0, 1)


@settings(deadline=None)
@given(
    levels=st.sampled_from(TYPES).flatmap(lambda kind: st.lists(every_level(kind), min_size=3, max_size=3))
)
def test_grey_of_colour_lies_among_its_channels(levels):
    colour = np.stack(levels, axis=-1)
    grey = to_grey(colour)
    assert grey.dtype == colour.dtype
    # 64-bit numbers are rounded as float64, and sums as floats are
    slack = 1 if colour.dtype.kind != "f" else 0
    low, high = (edge.astype(np.longdouble) for edge in (colour.min(axis=-1), colour.max(axis=-1)))
    reach = slack + np.maximum(abs(low), abs(high)) * np.longdouble(
        4e-16 if grey.dtype.itemsize == 8 else 2e-3
    )
    assert ((grey >= low - reach - 1e-7) & (grey <= high + reach + 1e-7)).all()


EXTREMES = {
    "the widest float64": np.array([[-1.7e308, 0, 1.7e308]]),
    "wider than float64": np.array([[-np.finfo(np.longdouble).max, 0, np.finfo(np.longdouble).max]]),
    "subnormal": np.array([[0, 1, 2]]) * 5e-324,
    "float16": np.array([[-65504, 0, 65504]], np.float16),
    "int64": np.array([[-(2**63) + 1, 0, 2**63 - 1]], np.int64),
    "far from 0": np.array([[2**62, 2**62 + 1, 2**62 + 2]], np.int64),
    "uint64 far from 0": np.array([[2**64 - 3, 2**64 - 2, 2**64 - 1]], np.uint64),
    "float far from 0": np.array([[1e15, 1e15 + 1, 1e15 + 2]]),
}


@pytest.mark.parametrize("kind", EXTREMES)
def test_the_middle_of_extremes_is_the_middle(kind):
    np.testing.assert_allclose(to_unit(EXTREMES[kind]), [[0, 0.5, 1]], atol=1e-6)
    frame = frame_from_array(EXTREMES[kind], name="a")
    if kind == "wider than float64":
        with pytest.raises(NotFiniteImageError):
            check_frame(frame)
    else:
        check_frame(frame)


def test_the_brightest_64_bits_do_not_wrap():
    for dtype in (np.int64, np.uint64):
        top = np.iinfo(dtype).max
        colour = np.array([[[top, top, top - 1]]], dtype)
        assert int(to_grey(colour)[0, 0]) > top // 2
