"""Frames that are drawn before the model's proposal is shown: what is held back, stored and shown after."""

from __future__ import annotations

import numpy as np
import pytest
from desk import box, picture
from napari.layers import Image, Labels
from PIL import Image as Pillow
from qtpy.QtWidgets import QLabel

from sonoloop.gui import samples
from sonoloop.gui.reader import read
from sonoloop.gui.view import DRAW_FIRST
from sonoloop.imaging.grey import hash_pixels
from sonoloop.labels.groups import placement
from sonoloop.labels.news import count_news
from sonoloop.labels.places import Places
from sonoloop.labels.settings import change_settings

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
    layer = Labels(np.roll(box(), 3, axis=1), name="case lesions")
    image = desk.viewer.layers["case"]
    layer.metadata = {"sonoloop": {"kind": "lesions", "image": str(image.unique_id)}}
    desk.viewer.layers.append(layer)


def test_predict_shows_nothing_of_the_prediction_before_accept(case, predictor):
    case.predict()
    assert len(predictor.frames) == 1
    assert [layer.name for layer in case.viewer.layers] == ["case"]
    assert case.view.probabilities is None
    assert case.view.expected_dice is None
    assert hint(case) == DRAW_FIRST


def test_the_correction_is_stored_with_the_prediction_and_as_not_having_seen_it(case, store):
    case.predict()
    draw(case)
    case.panel.run("choose_malignant")
    case.accept()
    correction = store.newest(hash_pixels(picture())).correction
    np.testing.assert_array_equal(correction.mask, np.roll(box(), 3, axis=1))
    assert not correction.prediction_seen
    assert correction.prediction.model == "fake-1"


def test_after_accept_the_proposal_is_shown_beside_the_annotators_mask(case):
    case.predict()
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


def test_what_is_accepted_again_after_that_has_seen_it(case, store):
    case.predict()
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


def test_an_answer_that_comes_before_the_store_has_spoken_is_held(all_test, desk, predictor):
    desk.open(Image(picture(), name="case"), wait=False)
    desk.panel.session.follow()
    desk.panel.run("predict")
    desk.ready()
    desk.idle()
    assert predictor.frames
    assert [layer.name for layer in desk.viewer.layers] == ["case"]


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


def test_another_reader_sees_neither_the_prediction_nor_the_others_mask(case, make_desk):
    case.predict()
    draw(case)
    case.panel.run("choose_malignant")
    case.accept()
    other = make_desk(annotator="bela")
    other.open(Image(picture(), name="case"))
    assert [layer.name for layer in other.viewer.layers] == ["case"]
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
    assert (count_news(store).learn, count_news(store).judge) == (0, 0)


def test_a_frames_file_is_remembered(desk, store, tmp_path):
    Pillow.fromarray(np.kron(picture(), np.ones((10, 10), np.uint8))).save(tmp_path / "case.png")
    data, options, _ = read(str(tmp_path / "case.png"))[0]
    desk.open(Image(data, **options))
    (frame_id,) = options["metadata"]["sonoloop"]["frame_ids"]
    place = Places(store.url).find(frame_id)
    assert (place.path, place.index) == (tmp_path / "case.png", 0)
    assert placement(store, frame_id).role == "train"
