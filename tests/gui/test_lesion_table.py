"""The lesions of a frame: each its class, and the frame's class the worst of them."""

from __future__ import annotations

import numpy as np
import pytest
from desk import SHAPE, box, picture
from napari.layers import Image

from sonoloop.gui.annotate.lesion_table import find_lesions, follow, say_area, say_size


def two() -> np.ndarray:
    mask = box()
    mask[30:34, 5:20] = 3
    return mask


@pytest.fixture
def case(desk):
    """A picture with two lesions, drawn by hand."""
    desk.open(Image(picture(), name="case"))
    desk.predict()
    desk.lesions.data_setitem((*np.nonzero(two() == 3),), 3)
    desk.panel.lesions.refresh()
    return desk


def test_each_lesion_is_measured_where_it_lies():
    one, other = find_lesions(two(), {3: "malignant"})
    assert (one.number, one.label, one.size, one.area) == (1, None, (10, 5), 50)
    assert (other.number, other.label, other.size, other.area) == (3, "malignant", (15, 4), 60)
    assert two()[other.box].all()
    assert (say_size(other, None), say_area(other, None)) == ("15 x 4 px", "60 px")
    assert (say_size(other, (0.5, 0.1)), say_area(other, (0.5, 0.1))) == ("1.5 x 2.0 mm", "60 px, 3.0 mm²")
    assert find_lesions(np.zeros(SHAPE, np.uint8), {1: "benign"}) == ()


@pytest.mark.parametrize(
    ("label", "before", "after", "then"),
    [
        (None, {}, {1: "benign"}, "benign"),
        ("benign", {1: "benign"}, {1: "benign", 2: "malignant"}, "malignant"),
        ("malignant", {1: "malignant"}, {1: "benign"}, "benign"),
        ("malignant", {1: "malignant"}, {}, "malignant"),
        ("malignant", {}, {1: "benign"}, "malignant"),
        ("unsure", {1: "benign"}, {1: "malignant"}, "unsure"),
        ("benign", {1: "malignant"}, {1: "malignant", 2: "malignant"}, "benign"),
    ],
)
def test_the_frame_follows_the_worst_unless_the_annotator_said_otherwise(label, before, after, then):
    assert follow(label, before, after) == then


def test_classes_of_lesions_set_that_of_the_frame_and_one_undo_takes_both_back(case):
    table = case.panel.lesions
    table.set_class(1, "benign")
    table.set_class(3, "malignant")
    assert case.view.label == "malignant"
    assert [lesion.label for lesion in table.lesions()] == ["benign", "malignant"]
    case.lesions.undo()
    case.panel.session.changed.emit()
    assert case.view.label == "benign"
    assert [lesion.label for lesion in table.lesions()] == ["benign", None]
    case.lesions.redo()
    assert case.view.label == "malignant"


def test_a_deleted_lesion_goes_with_its_class_and_comes_back_in_one_step(case):
    table = case.panel.lesions
    table.set_class(1, "benign")
    table.set_class(3, "malignant")
    table.delete(3)
    assert (case.view.label, case.view.lesions) == ("benign", 1)
    np.testing.assert_array_equal(case.lesions.data, box())
    case.lesions.undo()
    case.panel.session.changed.emit()
    assert case.view.label == "malignant"
    np.testing.assert_array_equal(case.lesions.data, two())
    assert [lesion.label for lesion in table.lesions()] == ["benign", "malignant"]


def test_they_are_stored_and_come_back(case, make_desk, store):
    case.panel.lesions.set_class(3, "malignant")
    case.panel.lesions.set_class(1, "benign")
    case.panel.lesions.delete(1)
    case.accept()
    frame_id = case.panel.session.target.capture().frame().id
    # the class of what is not drawn any more is not stored
    assert store.newest(frame_id).correction.lesions == {3: "malignant"}
    case.panel.lesions.set_class(3, "benign")
    assert not case.view.accepted
    case.accept()
    again = make_desk()
    again.open(Image(picture(), name="case"))
    assert [(each.number, each.label) for each in again.panel.lesions.lesions()] == [(3, "benign")]
    assert again.view.accepted


def test_a_lesion_is_selected_and_looked_at(case):
    case.panel.lesions.jump(3)
    assert case.lesions.selected_label == 3
    assert case.viewer.layers.selection.active == case.lesions
    np.testing.assert_allclose(case.viewer.scene.camera.center[-2:], (31.5, 12))
    case.panel.lesions.begin_lesion()
    assert (case.lesions.selected_label, case.lesions.mode) == (2, "paint")


def test_the_tooltip_tells_class_and_confidence(case):
    case.panel.lesions.set_class(3, "malignant")
    case.panel.lesions.refresh()
    features = case.lesions.features
    assert features["index"].tolist() == [0, 1, 3]
    assert features["class"].tolist()[1:] == ["not said", "malignant"]
    assert features["confidence"].tolist()[1:] == ["100 %", "0 %"]
    assert "class" not in str(case.lesions.get_status((0, 0), world=True)), (
        "of the background nothing is said"
    )
    written = []
    case.lesions.events.features.connect(written.append)
    case.panel.lesions.refresh()
    assert not written, "what is told already is not told again"
    assert "malignant" in str(case.lesions.get_status((31, 10), world=True))
