"""Undo and redo are one history of mask, class and lesions."""

from __future__ import annotations

import numpy as np
import pytest
from desk import box, picture
from napari.layers import Image


@pytest.fixture
def case(desk):
    """A predicted picture, called malignant."""
    desk.open(Image(picture(), name="case"))
    desk.predict()
    desk.panel.run("choose_malignant")
    return desk


def answer(desk, text):
    next(button for button in desk.panel.unfinished.buttons() if button.text() == text).click()


def holds(desk, label, mask):
    assert desk.view.label == label
    np.testing.assert_array_equal(desk.lesions.data, mask)


def test_undo_after_normal_brings_back_mask_and_class_and_redo_sets_them_again(case):
    case.panel.run("choose_normal")
    for _ in range(2):
        case.lesions.undo()
        holds(case, "malignant", box())
        case.lesions.redo()
        holds(case, "normal", 0 * box())
    case.panel.run("choose_benign")
    holds(case, "benign", box())


def test_where_no_class_was_chosen_none_comes_back(desk):
    desk.open(Image(picture(), name="case"))
    desk.predict()
    desk.panel.run("choose_normal")
    desk.lesions.undo()
    holds(desk, None, box())


def test_normal_twice_is_undone_once(case):
    case.panel.run("choose_normal")
    case.panel.run("choose_normal")
    case.lesions.undo()
    holds(case, "malignant", box())


def test_every_class_is_undone_in_its_order(case):
    case.panel.run("choose_normal")
    case.panel.run("choose_benign")
    holds(case, "benign", box())
    case.lesions.undo()
    holds(case, "normal", 0 * box())
    case.lesions.undo()
    holds(case, "malignant", box())
    case.lesions.redo()
    case.lesions.redo()
    holds(case, "benign", box())


def test_strokes_after_normal_are_undone_first(case):
    case.panel.run("choose_normal")
    case.lesions.paint((30, 30), 1)
    assert case.view.label == "normal"
    case.lesions.undo()
    holds(case, "normal", 0 * box())
    case.lesions.undo()
    holds(case, "malignant", box())


def test_erasing_everything_by_hand_is_not_taken_for_redo(case):
    case.panel.run("choose_normal")
    case.lesions.undo()
    case.lesions.fill((12, 25), 0)
    case.lesions.refresh()
    holds(case, "malignant", 0 * box())


def test_the_same_prediction_over_normal_is_not_taken_for_undo(case):
    case.panel.run("choose_normal")
    case.predict()
    case.lesions.refresh()
    holds(case, "normal", box())
    case.lesions.undo()
    case.lesions.undo()
    holds(case, "malignant", box())


def test_a_class_chosen_after_undo_takes_the_place_of_what_could_be_redone(case):
    case.panel.run("choose_normal")
    case.lesions.undo()
    case.panel.run("choose_benign")
    case.lesions.redo()
    holds(case, "benign", box())
    case.lesions.undo()
    holds(case, "malignant", box())


def test_a_class_that_changes_no_pixel_is_a_step_of_its_own(case):
    case.lesions.paint((30, 30), 1)
    painted = case.lesions.data.copy()
    case.panel.run("choose_benign")
    case.panel.run("choose_benign")
    case.lesions.undo()
    holds(case, "malignant", painted)
    case.lesions.undo()
    holds(case, "malignant", box())
    case.lesions.undo()
    holds(case, None, box())
    for _ in range(3):
        case.lesions.redo()
    holds(case, "benign", painted)


def test_undo_after_a_new_prediction_brings_back_what_was_drawn_before(case):
    case.lesions.paint((30, 30), 1)
    painted = case.lesions.data.copy()
    case.predict()
    answer(case, "Take the new one")
    holds(case, "malignant", box())
    case.panel.run("choose_benign")
    case.lesions.undo()
    case.lesions.undo()
    holds(case, "malignant", painted)
    case.lesions.undo()
    holds(case, "malignant", box())
    for _ in range(3):
        case.lesions.redo()
    holds(case, "benign", box())


def test_more_steps_than_napari_keeps_leave_no_class_behind(case):
    for number in range(104):
        case.panel.run(("choose_benign", "choose_malignant")[number % 2])
    for _ in range(104):
        case.lesions.undo()
    assert case.view.label == "malignant"
    for _ in range(104):
        case.lesions.redo()
    assert case.view.label == "malignant"


def test_undo_reaches_the_frame_that_it_changes_and_no_other(desk):
    desk.open(Image(np.stack([picture(row, seed=row) for row in (0, 10)]), name="cine"))
    desk.predict()
    desk.panel.run("choose_benign")
    desk.panel.run("choose_normal")
    first = desk.view.label
    at = desk.viewer.dims.current_step[0]
    desk.viewer.dims.set_current_step(0, 1 - at)
    desk.ready()
    desk.panel.run("choose_malignant")
    desk.lesions.undo()
    assert (first, desk.view.label) == ("normal", None)
    desk.lesions.undo()
    assert desk.view.label is None
    desk.viewer.dims.set_current_step(0, at)
    desk.ready()
    assert desk.view.label == "benign"


def test_undo_on_another_image_leaves_the_first_ones_class(case):
    case.panel.run("choose_normal")
    first = case.viewer.layers["case"]
    case.open(Image(picture(20), name="other"))
    case.predict()
    case.viewer.layers["other lesions"].undo()
    case.viewer.layers.selection.active = first
    case.ready()
    assert case.view.label == "normal"
    case.viewer.layers["case lesions"].undo()
    assert case.view.label == "malignant"
