"""Accept on a viewer model: what reaches the store, what comes back, and what is asked."""

from __future__ import annotations

import numpy as np
import pytest
from desk import SHAPE, box, picture
from napari.layers import Image
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QPushButton

from sonoloop.gui.reader import layer_data
from sonoloop.imaging.grey import frame_from_array, hash_pixels


@pytest.fixture
def case(desk):
    """A desk with one picture open."""
    desk.open(Image(picture(), name="case"))
    return desk


def frame_id(image: np.ndarray) -> str:
    return hash_pixels(image)


def button(desk, text: str) -> QPushButton:
    return next(b for b in desk.panel.findChildren(QPushButton) if b.text().startswith(text))


def test_accept_waits_for_a_class_and_says_so(case, notices):
    case.predict()
    accept = button(case, "Accept")
    assert not accept.isEnabled()
    assert "Choose a class" in accept.toolTip()
    case.panel.run("accept")
    assert "Choose a class" in notices[-1]
    case.panel.run("choose_benign")
    assert accept.isEnabled()


def test_the_edited_mask_and_the_chosen_class_are_stored(case, store):
    case.predict()
    case.lesions.paint((30, 30), 2)
    drawn = case.lesions.data.copy()
    case.panel.run("choose_malignant")
    case.accept()
    correction = store.newest(frame_id(picture())).correction
    np.testing.assert_array_equal(correction.mask, drawn)
    assert correction.label == "malignant"
    assert correction.annotator == "anna"
    assert correction.prediction.model == "fake-1"
    assert correction.prediction_seen
    assert (correction.mask_decision, correction.class_decision) == ("edited", "changed")
    assert case.view.status.startswith("accepted ")


def test_a_correction_without_a_prediction_is_new(case, store):
    case.panel.run("choose_normal")
    case.accept()
    correction = store.newest(frame_id(picture())).correction
    assert correction.prediction is None
    assert not correction.prediction_seen
    assert correction.mask.shape == SHAPE
    assert (correction.mask_decision, correction.label) == ("none", "normal")


def test_drawing_after_accept_is_said_and_accepted_on_top(case, store):
    case.predict()
    case.panel.run("choose_benign")
    case.accept()
    first = store.newest(frame_id(picture()))
    case.lesions.paint((30, 30), 2)
    case.qtbot.waitUntil(lambda: case.view.status == "changed since accepted")
    case.lesions.undo()
    assert case.view.accepted
    case.lesions.redo()
    case.accept()
    second = store.newest(frame_id(picture()))
    assert second.parent == first.id
    assert store.count() == 2


def test_normal_clears_the_mask_and_another_class_brings_it_back(case):
    case.predict()
    case.panel.run("choose_normal")
    assert not case.lesions.data.any()
    case.panel.run("choose_benign")
    np.testing.assert_array_equal(case.lesions.data, box())
    case.panel.run("choose_normal")
    case.lesions.undo()
    np.testing.assert_array_equal(case.lesions.data, box())


@pytest.fixture
def painted_normal(case):
    case.predict()
    case.panel.run("choose_normal")
    case.lesions.paint((30, 30), 1)
    case.panel.run("accept")
    return case


def test_a_lesion_on_a_frame_called_normal_is_asked_about(painted_normal, store):
    assert button(painted_normal, "Normal: clear").isVisibleTo(painted_normal.panel)
    assert store.count() == 0


def test_the_answer_normal_clears_and_accepts(painted_normal, store):
    button(painted_normal, "Normal: clear").click()
    painted_normal.qtbot.waitUntil(lambda: painted_normal.view.accepted)
    correction = store.newest(frame_id(picture())).correction
    assert correction.label == "normal"
    assert not correction.mask.any()


def test_the_answer_lesion_asks_for_another_class(painted_normal, store):
    button(painted_normal, "The lesion").click()
    assert painted_normal.view.label is None
    assert painted_normal.lesions.data.any()
    assert store.count() == 0


def test_no_lesion_is_a_statement_not_a_default(case, store):
    case.panel.run("choose_benign")
    case.panel.run("accept")
    case.idle()
    assert store.count() == 0
    button(case, "No lesion here").click()
    case.qtbot.waitUntil(lambda: case.view.accepted)
    correction = store.newest(frame_id(picture())).correction
    assert (correction.label, correction.mask_decision) == ("benign", "none")


def test_only_the_current_frame_of_a_stack_is_stored(desk, store):
    stack = np.stack([picture(row, seed=row) for row in (0, 10)])
    desk.open(Image(stack, name="cine"))
    desk.predict()
    desk.viewer.dims.set_current_step(0, 0)
    desk.ready()
    desk.predict()
    desk.panel.run("choose_benign")
    desk.accept()
    np.testing.assert_array_equal(store.newest(frame_id(stack[0])).correction.mask, box(0))
    assert store.newest(frame_id(stack[1])) is None
    desk.viewer.dims.set_current_step(0, 1)
    desk.ready()
    assert desk.view.label is None
    assert not desk.view.accepted


def test_a_label_beyond_255_is_refused(case, store, notices):
    case.predict()
    case.lesions.data = case.lesions.data.astype(np.int32) * 300
    case.panel.run("choose_benign")
    case.panel.run("accept")
    assert "300" in notices[-1]
    assert store.count() == 0


def test_an_image_opened_again_shows_what_was_accepted(make_desk):
    first = make_desk()
    first.open(Image(picture(), name="case"))
    first.predict()
    first.lesions.paint((30, 30), 2)
    drawn = first.lesions.data.copy()
    first.panel.run("choose_benign")
    first.accept()

    later = make_desk()
    later.open(Image(picture(), name="saved again.png"))
    np.testing.assert_array_equal(later.lesions.data, drawn)
    assert later.view.accepted
    assert later.view.label == "benign"
    assert later.view.probabilities is not None, "what the model said then is shown with it"
    assert later.panel.predicting.model_line.startswith("No model loaded")


def test_another_persons_class_is_shown_as_theirs_and_not_chosen(make_desk, store):
    first = make_desk()
    first.open(Image(picture(), name="case"))
    first.predict()
    first.panel.run("choose_benign")
    first.accept()

    other = make_desk(annotator="bela")
    other.open(Image(picture(), name="case"))
    np.testing.assert_array_equal(other.lesions.data, box())
    assert other.view.status.endswith(" by anna")
    assert other.view.label is None
    other.panel.run("choose_malignant")
    other.accept()
    heads = [store.head(frame_id(picture()), name).correction.label for name in ("anna", "bela")]
    assert heads == ["benign", "malignant"]


def test_into_a_store_that_cannot_be_opened_nothing_is_accepted(make_desk, tmp_path, notices, qtbot):
    (tmp_path / "text.db").write_text("this is no database, and long enough to look like one" * 20)
    desk = make_desk(store_url=f"sqlite:///{tmp_path / 'text.db'}")
    desk.open(Image(picture(0), name="first"), wait=False)
    qtbot.waitUntil(lambda: (desk.view.why_no_accept or "").startswith("The store cannot be used"))
    desk.open(Image(picture(20), name="second"))
    desk.panel.run("choose_normal")
    desk.panel.run("accept")
    desk.idle()
    assert notices[-1] == desk.view.why_no_accept
    assert not desk.view.accepted
    assert desk.view.label == "normal", "what was decided stays"


def test_what_was_accepted_is_stored_though_the_window_closes(desk, store):
    images = [desk.open(Image(picture(row), name=str(row))) for row in (0, 20)]
    for image in images:
        desk.viewer.layers.selection.active = image
        desk.ready()
        desk.panel.run("choose_normal")
    for image in images:
        desk.viewer.layers.selection.active = image
        desk.panel.run("accept")
    desk.panel.close_session()
    assert QThreadPool.globalInstance().waitForDone(10_000)  # no event is processed meanwhile
    assert store.count() == 2


def test_a_file_saved_anew_keeps_the_prediction_that_was_seen(make_desk, store):
    desks = make_desk(), make_desk()
    for desk, frame_id in zip(desks, ("a" * 64, "b" * 64), strict=True):
        frame = frame_from_array(picture(), name="case", id=frame_id)
        data, options, _ = layer_data("case", (frame,), None)
        desk.open(Image(data, **options))
        if desk is desks[0]:
            desk.predict()
            desk.panel.run("choose_benign")
        desk.panel.run("accept")
        desk.idle()
    correction = store.head("b" * 64, "anna").correction
    assert correction.prediction.model == "fake-1"
    assert (correction.prediction_seen, correction.mask_decision) == (True, "kept")


def test_a_mask_of_another_size_is_refused(case, store, notices):
    case.predict()
    case.lesions.data = box()[:20]
    case.panel.run("choose_benign")
    case.panel.run("accept")
    case.idle()
    assert "60 x 20 pixels, the image 60 x 40" in notices[-1]
    assert store.count() == 0
