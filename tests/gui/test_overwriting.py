"""A prediction never replaces what a person drew without asking, once a frame."""

from __future__ import annotations

import numpy as np
import pytest
from desk import SHAPE, box, picture
from napari.layers import Image

from sonoloop.gui.annotate.overwriting import merge_masks


def press(desk, text):
    next(button for button in desk.panel.unfinished.buttons() if button.text().startswith(text)).click()


@pytest.fixture
def edited(desk):
    """A picture on which a lesion was drawn by hand beside the bright one, which was erased."""
    desk.open(Image(picture(), name="case"))
    desk.predict()
    desk.panel.session.write(desk.panel.session.target, 2 * box(30), by_hand=True)
    return desk


@pytest.mark.parametrize(
    ("answer", "mask"),
    [
        ("Keep mine", 2 * box(30)),
        ("Take the new one", box()),
        ("Merge", 2 * box(30) + box()),
    ],
)
def test_each_answer_holds_and_is_one_undo_away_and_is_not_asked_for_again(edited, notices, answer, mask):
    edited.predict()
    np.testing.assert_array_equal(edited.lesions.data, 2 * box(30))
    press(edited, answer)
    np.testing.assert_array_equal(edited.lesions.data, mask)
    assert edited.panel.unfinished.buttons() == []
    if answer != "Keep mine":
        edited.lesions.undo()
        np.testing.assert_array_equal(edited.lesions.data, 2 * box(30))
        edited.predict()
        np.testing.assert_array_equal(edited.lesions.data, mask)
    assert edited.panel.unfinished.buttons() == []
    assert notices == []


def test_the_question_waits_with_its_frame_and_accept_settles_it(edited):
    edited.predict()
    edited.open(Image(picture(20), name="other"))
    assert edited.panel.unfinished.buttons() == []
    edited.viewer.layers.selection.active = edited.viewer.layers["case lesions"]
    edited.ready()
    assert len(edited.panel.unfinished.buttons()) == 3
    edited.panel.run("choose_benign")
    edited.accept()
    assert edited.panel.unfinished.buttons() == []


def test_what_was_drawn_on_is_still_asked_about_after_undo_brought_it_back(edited):
    edited.lesions.undo()
    np.testing.assert_array_equal(edited.lesions.data, box())
    edited.predict()
    assert edited.panel.unfinished.buttons() == []  # it is the proposal again
    edited.lesions.redo()
    edited.predict()
    assert len(edited.panel.unfinished.buttons()) == 3


def test_merging_adds_what_only_the_proposal_has_under_free_numbers():
    mine, theirs = box(10), np.zeros(SHAPE, np.uint8)
    theirs[11:20, 22:40] = 1  # over mine: mine stays as it is
    theirs[30:34, 1:5] = 2
    theirs[36:39, 1:5] = 7
    merged = merge_masks(mine, theirs)
    expected = box(10)
    expected[30:34, 1:5], expected[36:39, 1:5] = 2, 3
    np.testing.assert_array_equal(merged, expected)
    np.testing.assert_array_equal(merge_masks(np.zeros(SHAPE, np.uint8), theirs) > 0, theirs > 0)
    full = np.arange(1, 256, dtype=np.uint8).repeat(2).reshape(2, 255)
    np.testing.assert_array_equal(merge_masks(full, full[::-1]), full)
