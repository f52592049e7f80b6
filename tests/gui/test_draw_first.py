"""Frames that are drawn before the model's proposal is shown: what is held back, stored and shown after."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from desk import box, picture
from napari.layers import Image
from PIL import Image as Pillow
from qtpy.QtWidgets import QLabel, QPushButton

from sonoloop.gui import reader as samples
from sonoloop.gui.annotate.session import DRAW_FIRST
from sonoloop.gui.reader import read
from sonoloop.imaging.grey import hash_pixels
from sonoloop.store.file_index import Places
from sonoloop.store.groups import placement
from sonoloop.store.settings import change_settings
from sonoloop.store.snapshots import LearnableCounter
from sonoloop.values import Prediction

ALL_TEST = {"test_cap": 300, "first_test_share": 1.0, "test_share": 1.0, "draw_first_share": 0.0}
ALL_DRAWN_FIRST = {"test_cap": 0, "draw_first_share": 1.0}


@pytest.fixture
def all_test(store):
    change_settings(store, **ALL_TEST)


@pytest.fixture
def case(all_test, desk):
    """A desk with a picture open that is kept for testing."""
    desk.open(Image(picture(), name="case"))
    return desk


def hint(desk) -> str | None:
    shown = [label for label in desk.panel.findChildren(QLabel) if label.text() == DRAW_FIRST]
    return shown[0].text() if shown and shown[0].isVisibleTo(desk.panel) else None


def draw(desk) -> None:
    """Draw a lesion by hand, elsewhere than the model would."""
    desk.lesions.data_setitem(np.nonzero(np.roll(box(), 3, axis=1)), 1)


def test_a_frame_that_is_drawn_first_opens_with_a_canvas_and_the_brush_in_hand(case, store):
    lesions = case.lesions
    assert case.viewer.layers.selection.active == lesions
    assert (lesions.mode, lesions.contour, lesions.data.any()) == ("paint", 2, False)
    lesions.undo()
    lesions.paint((12, 25), 1)
    drawn = lesions.data.copy()
    assert drawn.any()
    case.panel.run("choose_benign")
    case.accept()
    np.testing.assert_array_equal(store.newest(hash_pixels(picture())).correction.mask, drawn)


def test_an_image_gone_back_to_has_its_canvas_too(all_test, desk):
    desk.open(Image(picture(), name="passed"), wait=False)
    desk.panel.session.follow()
    desk.panel.deciding._look_up()
    desk.open(Image(picture(seed=1), name="case"))
    desk.idle()
    assert desk.viewer.layers.selection.active.name == "case lesions"
    assert "passed lesions" not in desk.viewer.layers
    desk.viewer.layers.selection.active = desk.viewer.layers["passed"]
    desk.panel.session.follow()
    assert desk.viewer.layers.selection.active.name == "passed lesions"
    assert desk.viewer.layers["passed lesions"].mode == "paint"


def test_a_tool_that_the_user_chose_stays(case):
    case.lesions.mode = "fill"
    case.open(Image(picture(seed=1), name="next"))
    active = case.viewer.layers.selection.active
    assert (active.name, active.mode) == ("next lesions", "fill")


def test_normal_is_accepted_without_drawing(case, store):
    case.panel.run("choose_normal")
    case.accept()
    correction = store.newest(hash_pixels(picture())).correction
    assert (correction.label, bool(correction.mask.any())) == ("normal", False)


def test_go_on_drawing_makes_the_canvas_that_was_removed(case):
    case.panel.run("choose_benign")
    case.viewer.layers.remove(case.lesions)
    case.panel.run("accept")
    (answer,) = (b for b in case.panel.findChildren(QPushButton) if b.text() == "Go on drawing")
    answer.click()
    assert case.viewer.layers.selection.active == case.lesions
    assert case.lesions.mode == "paint"
    assert not answer.isVisibleTo(case.panel)


def test_a_lesion_class_brings_a_canvas_where_nothing_was_predicted(desk):
    desk.open(Image(picture(), name="case"))
    assert "case lesions" not in desk.viewer.layers, "another frame than those that are drawn first"
    desk.panel.run("choose_normal")
    assert "case lesions" not in desk.viewer.layers
    desk.panel.run("choose_malignant")
    assert desk.viewer.layers.selection.active == desk.lesions
    assert (desk.lesions.mode, desk.view.label) == ("paint", "malignant")


def test_predict_waits_for_accept_and_says_so(case, predictor, notices):
    (predict,) = (b for b in case.panel.findChildren(QPushButton) if b.text() == "Predict")
    assert (predict.isEnabled(), predict.toolTip()) == (False, DRAW_FIRST)
    case.predict()
    assert notices == [DRAW_FIRST]
    assert predictor.frames == []
    case.panel.run("choose_normal")
    case.accept()
    case.idle()
    assert predict.isEnabled()


@pytest.fixture
def asked_early(all_test, desk):
    """A desk whose annotator asked for a prediction before the store had said that it is drawn first."""
    desk.open(Image(picture(), name="case"), wait=False)
    desk.panel.session.follow()
    desk.predict()
    desk.ready()
    desk.idle()
    return desk


def test_nothing_of_an_early_prediction_is_shown_before_accept(asked_early, predictor):
    case = asked_early
    assert len(predictor.frames) == 1
    assert [layer.name for layer in case.viewer.layers] == ["case", "case lesions"]
    assert not case.lesions.data.any()
    assert case.view.probabilities is None
    assert case.view.expected_dice is None
    assert hint(case) == DRAW_FIRST


def test_the_correction_is_stored_with_the_prediction_and_as_not_having_seen_it(asked_early, store):
    case = asked_early
    draw(case)
    case.panel.run("choose_malignant")
    case.accept()
    correction = store.newest(hash_pixels(picture())).correction
    np.testing.assert_array_equal(correction.mask, np.roll(box(), 3, axis=1))
    assert not correction.prediction_seen
    assert correction.prediction.model == "fake-1"


def test_after_accept_the_proposal_is_shown_beside_the_annotators_mask(asked_early):
    case = asked_early
    draw(case)
    drawn = case.lesions.data.copy()
    case.panel.run("choose_malignant")
    case.accept()
    case.idle()
    proposal = case.viewer.layers["case proposal"]
    np.testing.assert_array_equal(proposal.data, box())
    assert (proposal.contour, proposal.editable) == (1, False)
    np.testing.assert_array_equal(case.lesions.data, drawn)
    assert round(case.view.probabilities["benign"], 3) == 0.7
    assert hint(case) is None
    assert case.view.accepted


def test_what_is_accepted_again_after_that_has_seen_it(asked_early, store):
    case = asked_early
    draw(case)
    case.panel.run("choose_malignant")
    case.accept()
    case.idle()
    case.panel.run("choose_benign")
    case.accept()
    seen = [each.correction.prediction_seen for each in store.history(hash_pixels(picture()))]
    assert seen == [False, True]


def test_the_model_is_asked_after_accept_where_it_was_not_before(case, predictor):
    draw(case)
    case.panel.run("choose_benign")
    case.accept()
    case.idle()
    assert len(predictor.frames) == 1
    assert "case proposal" in case.viewer.layers


def seen(store, data=None) -> list[bool]:
    frame_id = hash_pixels(picture()) if data is None else data
    return [each.correction.prediction_seen for each in store.history(frame_id)]


def test_what_is_redrawn_after_reopening_has_seen_the_proposal_that_was_not_stored(case, make_desk, store):
    draw(case)
    case.panel.run("choose_benign")
    case.accept()
    case.idle()
    assert "case proposal" in case.viewer.layers, "shown after Accept, and not stored"
    later = make_desk()
    later.open(Image(picture(), name="case"))
    later.lesions.data = box()
    later.panel.run("accept")
    later.idle()
    assert store.newest(hash_pixels(picture())).correction.prediction is None
    assert seen(store) == [False, True]


def test_the_same_pixels_in_another_file_were_seen_too(all_test, desk, store, tmp_path):
    large, ids = np.kron(picture(), np.ones((10, 10), np.uint8)), []
    for name in ("first.png", "again.bmp"):
        Pillow.fromarray(large).save(tmp_path / name)
        data, options, _ = read(str(tmp_path / name))[0]
        ids += options["metadata"]["sonoloop"]["frame_ids"]
        desk.open(Image(data, **options))
        desk.panel.run("choose_normal")
        desk.accept()
        desk.idle()
    assert [seen(store, each) for each in ids] == [[False], [True]]


def test_what_was_shown_before_the_layer_was_closed_was_seen(desk, store):
    image = desk.open(Image(picture(), name="case"))
    desk.predict()
    desk.viewer.layers.clear()
    desk.open(Image(picture(), name="case"))
    assert image not in desk.viewer.layers
    desk.panel.run("choose_normal")
    desk.accept()
    assert seen(store) == [True]


def test_a_first_visit_without_a_prediction_has_not_seen_one(desk, store):
    desk.open(Image(picture(), name="case"))
    desk.panel.run("choose_normal")
    desk.accept()
    assert seen(store) == [False]


def test_a_frame_kept_for_testing_looks_like_the_others_that_are_drawn_first(make_desk, store):
    views = []
    for number, settings in enumerate((ALL_TEST, ALL_DRAWN_FIRST)):
        change_settings(store, **settings)
        desk = make_desk()
        image = picture(seed=number)
        desk.open(Image(image, name="case"))
        desk.predict()
        views.append((desk.view, hint(desk), [layer.name for layer in desk.viewer.layers]))
        assert placement(store, hash_pixels(image)).role == ("test", "train")[number]
    assert views[0] == views[1]


def test_another_reader_sees_neither_the_prediction_nor_the_others_mask(asked_early, make_desk):
    case = asked_early
    draw(case)
    case.panel.run("choose_malignant")
    case.accept()
    other = make_desk(annotator="bela")
    other.open(Image(picture(), name="case"))
    assert [layer.name for layer in other.viewer.layers] == ["case", "case lesions"]
    assert not other.lesions.data.any()
    assert (other.view.probabilities, other.view.label, other.view.status) == (None, None, "new")
    again = make_desk()
    again.open(Image(picture(), name="case"))
    np.testing.assert_array_equal(again.lesions.data, np.roll(box(), 3, axis=1))
    assert again.view.accepted
    assert hint(again) is None


def test_a_sample_is_neither_placed_nor_drawn_first(all_test, desk, store):
    data, options, _ = samples.benign()[0]
    desk.open(Image(data, **options))
    assert hint(desk) is None
    assert placement(store, hash_pixels(data)) is None


def test_a_sample_that_was_accepted_takes_no_part(all_test, desk, store):
    data, options, _ = samples.benign()[0]
    desk.open(Image(data, **options))
    desk.predict()
    desk.panel.run("choose_benign")
    desk.accept()
    assert store.count() == 1
    assert placement(store, hash_pixels(data)).role == "neither"
    assert (LearnableCounter(store).count().new, LearnableCounter(store).count().test_frames) == (0, 0)


def test_a_frames_file_is_remembered(desk, store, tmp_path):
    Pillow.fromarray(np.kron(picture(), np.ones((10, 10), np.uint8))).save(tmp_path / "case.png")
    data, options, _ = read(str(tmp_path / "case.png"))[0]
    desk.open(Image(data, **options))
    (frame_id,) = options["metadata"]["sonoloop"]["frame_ids"]
    place = Places(store.url).find(frame_id)
    assert (place.path, place.index) == (tmp_path / "case.png", 0)
    assert placement(store, frame_id).role == "train"


def test_accepted_again_unchanged_it_stays_in_the_test_set(case, store):
    draw(case)
    case.panel.run("choose_benign")
    case.accept()
    case.idle()
    case.panel.run("accept")
    case.idle()
    assert store.count() == 1
    assert LearnableCounter(store).count().test_frames == 1
    assert case.view.accepted


def test_the_uncertainty_of_what_was_held_back_is_computed_in_the_worker(asked_early, monkeypatch):
    case, threads = asked_early, []
    compute = Prediction.uncertainty.fget
    spied = property(lambda self: threads.append(threading.current_thread()) or compute(self))
    monkeypatch.setattr(Prediction, "uncertainty", spied)
    draw(case)
    case.panel.run("choose_malignant")
    case.accept()
    case.idle()
    assert (
        case.viewer.layers["case uncertainty"].data.any()
        == compute(case.panel.session.state(case.panel.session.target).prediction).any()
    )
    assert threading.main_thread() not in threads
