"""A Labels layer that the annotator made by hand is drawn in as if Sonoloop had made it."""

from __future__ import annotations

import numpy as np
import pytest
from desk import SHAPE, box, picture
from napari.layers import Image, Labels, Shapes
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel

from sonoloop.imaging.grey import hash_pixels


def test_what_is_drawn_in_it_is_stored(desk, store):
    desk.open(Image(picture(), name="case"))
    layer = Labels(np.zeros(SHAPE, np.int32), name="mine")
    desk.viewer.layers.append(layer)
    desk.panel.session.follow()
    layer.data_setitem(np.nonzero(box()), 1)
    desk.panel.run("choose_benign")
    desk.accept()
    np.testing.assert_array_equal(store.newest(hash_pixels(picture())).correction.mask, box())
    assert [each.name for each in desk.viewer.layers] == ["case", "mine"]


@pytest.mark.parametrize(
    "layer",
    [
        Labels(np.ones(SHAPE, np.uint8), name="an organ"),
        Labels(np.zeros((20, 30), np.uint8), name="smaller"),
        Labels(np.zeros(SHAPE, np.uint8), scale=(2, 2), name="elsewhere"),
    ],
    ids=lambda layer: layer.name,
)
def test_a_layer_for_something_else_is_left_alone(desk, layer):
    desk.open(Image(picture(), name="case"))
    before = layer.data.copy()
    desk.viewer.layers.append(layer)
    desk.panel.session.follow()
    desk.predict()
    np.testing.assert_array_equal(layer.data, before)
    assert "sonoloop" not in layer.metadata
    np.testing.assert_array_equal(desk.viewer.layers["case lesions"].data, box())


def test_beside_a_lesions_layer_it_is_left_alone(desk):
    desk.open(Image(picture(), name="case"))
    desk.predict()
    desk.viewer.layers.append(Labels(np.zeros(SHAPE, np.uint8), name="mine"))
    desk.panel.session.follow()
    assert "sonoloop" not in desk.viewer.layers["mine"].metadata


@pytest.fixture
def case(desk):
    """A picture, with nothing drawn by Sonoloop."""
    desk.open(Image(picture(), name="case"))
    return desk


def add(desk, layer):
    desk.viewer.layers.append(layer)
    desk.panel.session.follow()
    desk.qtbot.waitUntil(lambda: bool(answers(desk)))
    return layer


def answers(desk):
    return {button.text(): button for button in desk.panel._offer.answers()}


def use(desk, name="mine"):
    desk.qtbot.waitUntil(lambda: f"Use “{name}” as the mask" in answers(desk))
    answers(desk)[f"Use “{name}” as the mask"].click()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (box(), box()),
        (box().astype(bool), box()),
        (box().astype(np.int64) * 7, box() * 7),
        (box() * 255, box()),
        (
            box().astype(np.int64) * 100_000 + np.roll(box(), 20).astype(int) * 300,
            box() * 2 + np.roll(box(), 20),
        ),
    ],
    ids=["bytes", "bool", "numbers stay", "255 is one lesion", "numbers above 255"],
)
def test_what_was_drawn_with_naparis_own_tools_is_offered(case, store, data, expected):
    layer = add(case, Labels(data, name="mine"))
    case.panel.run("choose_benign")
    assert case.view.why_no_accept == "Say first whether to use the layer “mine”"
    case.panel.run("accept")
    assert store.count() == 0, "an empty mask is never stored instead"
    use(case)
    np.testing.assert_array_equal(case.lesions.data, expected)
    assert not layer.visible, "what is on the canvas is the mask"
    assert case.view.offers == ()
    case.accept()
    np.testing.assert_array_equal(store.newest(hash_pixels(picture())).correction.mask, expected)


def test_a_name_that_is_written_as_a_tag_is_shown_as_it_is(desk, qtbot):
    desk.open(Image(picture(), name="a<b>case"))
    add(desk, Labels(np.ones((20, 30), int), name="wrong<br>size"))
    qtbot.waitUntil(lambda: bool(desk.view.offers))
    naming = [each for each in desk.panel.findChildren(QLabel) if "<b" in each.text() and each.isEnabled()]
    plain = [each.text() for each in naming if each.textFormat() == Qt.TextFormat.PlainText]
    assert any(text.startswith("a<b>") for text in plain)
    assert any("wrong<br>size" in text for text in plain)


def test_using_a_layer_can_be_undone(case):
    case.predict()
    add(case, Labels(np.roll(box(), 20), name="mine"))
    use(case)
    np.testing.assert_array_equal(case.lesions.data, np.roll(box(), 20))
    case.lesions.undo()
    np.testing.assert_array_equal(case.lesions.data, box())


def test_a_layer_that_is_left_is_not_asked_about_again(case, store):
    add(case, Labels(np.ones(SHAPE, np.uint8), name="an organ"))
    answers(case)["Leave it"].click()
    case.panel.run("choose_normal")
    case.accept()
    assert not store.newest(hash_pixels(picture())).correction.mask.any()
    assert case.viewer.layers["an organ"].visible


def test_a_layer_that_does_not_fit_is_named_with_its_size(case):
    add(case, Labels(np.ones((20, 30), np.uint8), name="mine"))
    (offer,) = case.view.offers
    assert (offer.why_not, offer.text) == ("size", "“mine” has 30 x 20 pixels, this image 60 x 40")
    assert list(answers(case)) == ["Leave it"]


def test_too_many_labels_are_refused_by_name(case, notices):
    add(case, Labels(np.arange(2400).reshape(SHAPE), name="mine"))
    use(case)
    assert notices == ["“mine” holds 2399 labels; a mask keeps at most 255 lesions"]
    assert case.view.lesions == 0


def test_a_layer_with_the_images_scale_fits_and_one_without_is_said_to_lie_elsewhere(desk):
    desk.open(Image(picture(), name="case", scale=(0.1, 0.2), translate=(3, 4)))
    add(desk, Labels(box(), name="mine", scale=(0.1, 0.2), translate=(3, 4)))
    assert "drawn on this image" in desk.view.offers[0].text
    use(desk)
    add(desk, Labels(box(), name="flat"))
    assert "lies elsewhere" in desk.view.offers[0].text


def test_of_several_layers_one_is_used_and_the_others_are_still_asked_about(case):
    for name in ("first", "second"):
        add(case, Labels(box(), name=name))
    assert [offer.name for offer in case.view.offers] == ["second", "first"]
    use(case, "first")
    assert [offer.name for offer in case.view.offers] == ["second"]


def test_a_plane_lies_over_every_frame_of_a_stack_and_is_taken_for_the_current_one(desk):
    desk.open(Image(np.stack([picture(row, seed=row) for row in (0, 10)]), name="cine"))
    add(desk, Labels(box(), name="mine"))
    desk.viewer.dims.set_current_step(0, 1)
    desk.ready()
    use(desk)
    np.testing.assert_array_equal(desk.lesions.data, [0 * box(), box()])


def test_pixels_painted_later_are_asked_about_and_an_empty_or_hidden_layer_is_not(case):
    case.predict()
    layer = Labels(np.zeros(SHAPE, np.uint8), name="mine")
    case.viewer.layers.append(layer)
    case.panel.session.follow()
    assert case.view.offers == ()
    layer.paint((30, 30), 1)
    case.qtbot.waitUntil(lambda: bool(answers(case)))
    layer.visible = False
    case.qtbot.waitUntil(lambda: not answers(case))


@pytest.mark.parametrize(
    ("kind", "corners", "area"),
    [
        ("polygon", [[5, 5], [5, 24], [14, 24], [14, 5]], 200),
        ("rectangle", [[5, 5], [5, 24], [14, 24], [14, 5]], 200),
        ("ellipse", [[5, 5], [5, 25], [15, 25], [15, 5]], 157),
    ],
)
def test_closed_shapes_are_filled_where_they_lie(desk, kind, corners, area):
    image = desk.open(Image(picture(), name="case", scale=(0.5, 0.5)))
    outline = np.asarray(corners, float) * 0.5 + 1  # drawn in a layer of its own place
    add(desk, Shapes([outline], shape_type=kind, name="mine", translate=(-1, -1)))
    use(desk)
    mask = desk.lesions.data
    assert abs(int(mask.sum()) - area) <= 12
    np.testing.assert_allclose(np.argwhere(mask).mean(axis=0), (10, 15), atol=0.7)
    assert image.visible


def test_lines_are_told_that_they_are_no_mask(case):
    add(case, Shapes([[[5, 5], [9, 9]]], shape_type="line", name="mine"))
    assert case.view.offers[0].text == "“mine” holds lines; a mask needs closed shapes"
