"""Every frame of a stack is predicted in the background, and shown when the slider comes to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from desk import box, picture
from napari.layers import Image
from qtpy.QtWidgets import QLabel, QPushButton

from sonoloop.errors import DeviceError
from sonoloop.gui.widgets import BROKEN, show_notice
from sonoloop.imaging.grey import hash_pixels
from sonoloop.store.settings import change_settings

ROWS = (0, 10, 20, 30)


def stack():
    return np.stack([picture(row, seed=row) for row in ROWS])


@pytest.fixture
def cine(desk):
    desk.open(Image(stack(), name="cine"))
    go_to(desk, 0)
    return desk


def go_to(desk, number):
    desk.viewer.dims.set_current_step(0, number)
    desk.ready()
    desk.idle()


def predict_all(desk):
    desk.panel.predicting.predict_all()
    desk.qtbot.waitUntil(lambda: not desk.panel.predicting.predicts_all)
    desk.idle()


def test_moving_the_slider_shows_what_was_predicted_and_nothing_is_accepted(cine, predictor, store):
    predict_all(cine)
    assert len(predictor.frames) == 4
    for number, row in enumerate(ROWS):
        go_to(cine, number)
        cine.qtbot.waitUntil(lambda: cine.view.probabilities is not None)
        np.testing.assert_array_equal(cine.lesions.data[number], box(row))
        assert cine.view.label is None
    assert len(predictor.frames) == 4
    assert store.count() == 0


def test_only_what_was_looked_at_was_seen(cine, store):
    predict_all(cine)
    assert not cine.lesions.data[1:].any()
    go_to(cine, 2)
    cine.qtbot.waitUntil(lambda: cine.view.probabilities is not None)
    cine.panel.run("choose_benign")
    cine.accept()
    correction = store.newest(hash_pixels(stack()[2])).correction
    assert (correction.prediction_seen, correction.mask_decision) == (True, "kept")


def test_it_is_off_while_the_store_is_broken(cine, predictor):
    button = next(b for b in cine.panel.findChildren(QPushButton) if b.text() == "Predict all")
    url, cine.preferences = cine.preferences, replace(cine.preferences, store="/nowhere/at/all.db")
    cine.panel.news.follow()
    cine.qtbot.waitUntil(lambda: cine.panel.news.trouble is not None)
    assert not button.isEnabled()
    assert button.toolTip() == BROKEN
    cine.preferences = url
    cine.panel.news.follow()
    cine.qtbot.waitUntil(button.isEnabled)
    assert button.toolTip() != BROKEN


def test_what_was_drawn_or_decided_is_left_alone(cine, predictor):
    go_to(cine, 1)
    cine.predict()
    cine.lesions.paint((1, 30, 30), 2)
    drawn = cine.lesions.data[1].copy()
    go_to(cine, 3)
    cine.panel.run("choose_normal")
    go_to(cine, 0)
    predict_all(cine)
    assert len(predictor.frames) == 3
    go_to(cine, 1)
    np.testing.assert_array_equal(cine.lesions.data[1], drawn)


def test_what_is_drawn_meanwhile_or_stored_by_another_stays(make_desk, predictor):
    other = make_desk(annotator="bela")
    other.open(Image(stack()[2], name="one"))
    other.panel.run("choose_normal")
    other.accept()
    desk = make_desk()
    desk.open(Image(stack(), name="cine"))
    go_to(desk, 0)
    predict_all(desk)
    desk.lesions.data_setitem((np.array([1]), np.array([3]), np.array([3])), 1)
    go_to(desk, 1)
    assert desk.lesions.data[1].sum() == 1
    go_to(desk, 2)
    assert not desk.lesions.data[2].any()
    assert desk.view.status.endswith("by bela")


def test_progress_is_told_and_cancel_keeps_what_is_there(cine, predictor):
    predictor.gate.clear()
    cine.panel.predicting.predict_all()
    labels = [label.text() for label in cine.panel.findChildren(QLabel)]
    assert "Predicting frame 1 of 4" in labels
    cine.qtbot.waitUntil(lambda: len(predictor.frames) == 1)
    cancel = next(b for b in cine.panel.findChildren(QPushButton) if b.text() == "Cancel")
    cine.qtbot.waitUntil(lambda: cancel.isVisibleTo(cine.panel))
    cancel.click()
    predictor.gate.set()
    cine.idle()
    assert len(predictor.frames) == 1
    assert not cine.panel.predicting.predicts_all


def test_predict_goes_first_and_the_others_follow(cine, predictor):
    go_to(cine, 3)
    predictor.gate.clear()
    cine.panel.predicting.predict_all()
    cine.qtbot.waitUntil(lambda: len(predictor.frames) == 1)
    go = cine.viewer.dims.set_current_step
    go(0, 1)
    cine.panel.run("predict")
    predictor.gate.set()
    cine.qtbot.waitUntil(lambda: not cine.panel.predicting.predicts_all)
    cine.idle()
    np.testing.assert_array_equal(cine.lesions.data[1], box(10))
    for number in (0, 2, 3):
        go_to(cine, number)
        cine.qtbot.waitUntil(lambda: cine.view.probabilities is not None)


def test_a_frame_that_cannot_be_predicted_does_not_end_the_run(desk, predictor, notices, qtbot):
    frames = stack()
    frames[1] = 7
    desk.open(Image(frames, name="cine"))
    go_to(desk, 0)
    predict_all(desk)
    assert len(predictor.frames) == 3
    assert notices[-1] == "1 of 4 frames not predicted\N{HORIZONTAL ELLIPSIS}"
    with qtbot.waitExposed(desk.panel):
        desk.panel.show()
    show_notice("1 of 4 frames not predicted: " + "word " * 40)
    told = [label.text() for label in desk.panel.problem.findChildren(QLabel)]
    assert any("word word" in each for each in told), "what is cut off stays in the panel"


def test_a_model_that_does_not_load_ends_the_run_with_one_notice(make_desk, notices):
    def load(*_):
        raise DeviceError("this machine has no usable cuda; use auto")

    desk = make_desk(load_predictor=load)
    desk.open(Image(stack(), name="cine"))
    go_to(desk, 0)
    predict_all(desk)
    assert notices == ["this machine has no usable cuda; use auto"]


def test_removing_the_stack_ends_the_run(cine, predictor):
    predictor.gate.clear()
    cine.panel.predicting.predict_all()
    cine.viewer.layers.clear()
    predictor.gate.set()
    cine.qtbot.waitUntil(lambda: not cine.panel.predicting.predicts_all)
    cine.idle()
    assert list(cine.viewer.layers) == []


def test_frames_that_are_drawn_first_are_predicted_and_not_shown(make_desk, store, predictor):
    change_settings(store, test_cap=0, draw_first_share=1.0)
    desk = make_desk()
    desk.open(Image(stack(), name="cine"))
    predict_all(desk)
    assert len(predictor.frames) == 4
    go_to(desk, 1)
    assert desk.view.probabilities is None
    assert desk.view.lesions == 0
    desk.lesions.paint((1, 30, 30), 2)
    desk.panel.run("choose_benign")
    desk.accept()
    desk.qtbot.waitUntil(lambda: desk.view.probabilities is not None)
    assert "cine proposal" in desk.viewer.layers


def test_the_button_is_there_for_stacks_alone(desk):
    desk.open(Image(picture(), name="case"))
    button = next(b for b in desk.panel.findChildren(QPushButton) if b.text() == "Predict all")
    assert not button.isVisibleTo(desk.panel)
    desk.open(Image(stack(), name="cine"))
    assert button.isVisibleTo(desk.panel)
