"""Outlines on pictures."""

from __future__ import annotations

import numpy as np

from sonoloop.imaging.grey import to_unit
from sonoloop.imaging.overlay import LESION_COLOURS, draw_overlay, lesion_colour, to_display


def test_the_outline_lies_around_the_lesion_and_nowhere_else():
    pixels = np.full((40, 50), 100, np.uint8)
    mask = np.zeros((40, 50), np.uint8)
    mask[10:20, 15:30] = 1
    picture = draw_overlay(pixels, mask, ["text"])
    drawn = (picture[:40, :50] != 100).any(axis=-1)
    assert not (drawn & (mask > 0)).any()
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (9, 20, 14, 30)
    assert tuple(picture[9, 20]) == lesion_colour(1)


def test_the_text_lies_outside_the_image():
    pixels = np.tile(np.arange(60, dtype=np.uint8), (40, 1))
    picture = draw_overlay(
        pixels, np.zeros((40, 60), np.uint8), ["a long line that needs more room than that"]
    )
    assert np.array_equal(picture[:40, :60, 0], pixels)
    assert picture.shape[1] > 60
    assert (picture[40:] > 200).any()


def test_a_lesion_at_the_border_and_its_neighbour_are_not_painted_over():
    mask = np.zeros((30, 30), np.uint8)
    mask[:10] = 1
    mask[11:, :5] = 2
    picture = draw_overlay(np.full((30, 30), 7, np.uint8), mask, [])
    assert (picture[:30, :30][mask > 0] == 7).all()


def test_lesions_next_to_each_other_differ_in_colour():
    assert lesion_colour(1) == (0, 255, 255)
    assert len({lesion_colour(n) for n in range(1, 5)}) == len(LESION_COLOURS)


def test_deep_images_are_stretched_and_8_bit_ones_left():
    deep = np.array([[1000, 2000], [3000, 5000]], np.uint16)
    assert to_display(deep).tolist() == [[0, 64], [128, 255]]
    assert to_display(np.full((2, 2), 3.5)).tolist() == [[0, 0], [0, 0]]
    flat = np.array([[3, 9]], np.uint8)
    assert to_display(flat) is flat


def test_a_display_shows_what_a_network_sees():
    deep = np.random.default_rng(5).integers(300, 4096, (20, 30), dtype=np.uint16)
    np.testing.assert_array_equal(to_display(deep), np.rint(to_unit(deep) * 255))
