"""Two versions of one frame: of two sessions, two people, two stores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from desk import box, picture
from napari.layers import Image
from qtpy.QtWidgets import QMessageBox

from sonoloop.gui.annotate.session import count_lesions
from sonoloop.imaging.grey import hash_pixels
from sonoloop.store.corrections import CorrectionStore

FRAME = hash_pixels(picture())


@pytest.fixture
def conflict(make_desk):
    """Two sessions of one person: the second accepts after the first did."""
    first, second = make_desk(), make_desk()
    for desk in (first, second):
        desk.open(Image(picture(), name="case"))
        desk.predict()
    first.panel.run("choose_benign")
    first.accept()
    second.lesions.paint((30, 30), 1)
    second.panel.run("choose_malignant")
    second.panel.run("accept")
    second.qtbot.waitUntil(lambda: second.panel.findChild(QMessageBox) is not None)
    return second


def test_a_moved_head_asks_which_goes_on_and_keeps_both(conflict, store):
    box_ = conflict.panel.findChild(QMessageBox)
    assert "benign, 1 lesion" in box_.informativeText()
    assert "malignant, 1 lesion" in box_.informativeText()
    assert store.count() == 2
    next(b for b in box_.buttons() if "mine" in b.text()).click()
    conflict.qtbot.waitUntil(lambda: conflict.view.accepted)
    assert store.head(FRAME, "anna").correction.label == "malignant"


def test_the_stored_version_can_go_on(conflict, store):
    box_ = conflict.panel.findChild(QMessageBox)
    next(b for b in box_.buttons() if "stored" in b.text()).click()
    conflict.qtbot.waitUntil(lambda: conflict.view.accepted)
    np.testing.assert_array_equal(conflict.lesions.data, box())
    assert store.head(FRAME, "anna").correction.label == "benign"


def test_mine_goes_on_though_the_image_was_closed(conflict, store):
    box_ = conflict.panel.findChild(QMessageBox)
    conflict.viewer.layers.clear()
    conflict.panel.session.follow()
    next(b for b in box_.buttons() if "mine" in b.text()).click()
    conflict.idle()
    head = store.head(FRAME, "anna")
    assert head.correction.label == "malignant"
    assert head.correction.prediction.model == "fake-1"
    assert store.count() == 3


@pytest.fixture
def accepted(desk):
    """A desk at which anna accepted a benign lesion."""
    desk.open(Image(picture(), name="case"))
    desk.predict()
    desk.panel.run("choose_benign")
    desk.accept()
    return desk


def test_another_annotator_can_accept_on_an_open_image(accepted, store):
    accepted.preferences = replace(accepted.preferences, annotator="bela")
    accepted.panel.run("choose_malignant")
    accepted.accept()
    labels = [store.head(FRAME, name).correction.label for name in ("anna", "bela")]
    assert labels == ["benign", "malignant"]
    accepted.panel.run("choose_benign")
    accepted.accept()
    assert store.head(FRAME, "bela").correction.label == "benign"


def test_another_store_takes_what_is_open(accepted, tmp_path):
    url = str(tmp_path / "other.sqlite")
    accepted.preferences = replace(accepted.preferences, store=url)
    accepted.panel.run("choose_malignant")
    accepted.accept()
    with CorrectionStore(url) as other:
        assert other.head(FRAME, "anna").correction.label == "malignant"


def test_a_correction_that_was_never_seen_is_not_replaced_unasked(make_desk, accepted, store):
    other = make_desk(annotator="bela")
    other.open(Image(picture(), name="case"))
    other.panel.run("choose_malignant")
    other.accept()
    accepted.preferences = replace(accepted.preferences, annotator="bela")
    accepted.panel.run("accept")
    accepted.qtbot.waitUntil(lambda: accepted.panel.findChild(QMessageBox) is not None)
    assert store.head(FRAME, "bela").correction.label == "malignant"
    next(b for b in accepted.panel.findChild(QMessageBox).buttons() if "mine" in b.text()).click()
    accepted.qtbot.waitUntil(lambda: accepted.view.accepted)
    assert store.head(FRAME, "bela").correction.label == "benign"


def test_a_frame_gone_back_to_is_looked_up_in_the_store_of_now(accepted, tmp_path):
    case = accepted.viewer.layers["case"]
    accepted.lesions.paint((30, 30), 2)
    drawn = accepted.lesions.data.copy()
    accepted.preferences = replace(accepted.preferences, store=str(tmp_path / "other.sqlite"))
    accepted.open(Image(picture(20), name="next"))
    accepted.viewer.layers.selection.active = case
    accepted.panel.session.follow()
    accepted.qtbot.waitUntil(lambda: accepted.view.status == "in progress")
    np.testing.assert_array_equal(accepted.lesions.data, drawn)


def test_lesions_are_counted_by_their_numbers():
    assert count_lesions(box() * 3 + box(20) * 255) == 2
    assert count_lesions(box() * 0) == 0
