"""Prompts as values, and how a network is shown them."""

from __future__ import annotations

import numpy as np
import pytest

from sonoloop.models.prompts import Prompts, Stroke, draw_prompts


def test_prompts_are_values_that_grow_and_are_taken_back() -> None:
    none = Prompts()
    one = none.click(3, 4)
    two = one.click(5, 6, inside=False).enclose(0, 0, 9, 9)
    assert not none
    assert one == Prompts((Stroke(((3.0, 4.0),)),))
    assert [stroke.inside for stroke in two.strokes] == [True, False]
    assert two.undo() == one.enclose(0, 0, 9, 9)
    assert two.undo().undo().undo() == none


def test_a_click_is_a_disc_and_a_line_is_drawn_through() -> None:
    maps = draw_prompts(64, Prompts().click(20, 30).scribble([(40, 10), (40, 50)], inside=False))
    assert maps.shape == (4, 64, 64)
    rows, columns = np.nonzero(maps[1])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (15, 25, 25, 35)
    assert maps[1].sum() == 81
    assert maps[2, 40, 5:56].all()
    assert maps[2].sum() == 81 + 40 * 11
    assert not maps[[0, 3]].any()


def test_a_box_is_filled_and_the_mask_comes_first() -> None:
    mask = np.zeros((64, 64), np.bool_)
    mask[3, 3] = True
    maps = draw_prompts(64, Prompts().enclose(10, 20, 19, 39), mask)
    assert maps[3].sum() == 200
    assert maps[3, 10:20, 20:40].all()
    assert np.array_equal(maps[0] > 0, mask)


def test_what_lies_beside_the_square_is_cut_off() -> None:
    maps = draw_prompts(64, Prompts().click(-2, 66).click(900, 900).enclose(-50, 50, 20, 200))
    assert 0 < maps[1].sum() < 81
    assert maps[3, :21, 50:].all()
    assert maps[3].sum() == 21 * 14


def test_prompts_move_to_another_grid_with_the_middles_of_pixels() -> None:
    moved = Prompts().click(0, 9).enclose(0, 0, 9, 9).moved((2.0, 0.5), (10, 20))
    assert moved.strokes[0].points == ((10.5, 24.25),)
    assert moved.box == (10.5, 19.75, 28.5, 24.25)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Prompts().scribble([]), "at least one point"),
        (lambda: Prompts().click(float("nan"), 1), "pairs of numbers"),
        (lambda: Prompts().enclose(5, 0, 5, 9), "top, left, bottom, right, in order"),
        (lambda: Prompts().enclose(0, 0, float("inf"), 9), "in order"),
    ],
)
def test_what_is_no_prompt_is_named(make, told) -> None:
    with pytest.raises(ValueError, match=told):
        make()
