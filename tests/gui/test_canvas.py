"""What the panel speaks of is what the canvas shows, or the panel says that it is not."""

from __future__ import annotations

import numpy as np
import pytest
from desk import SHAPE, box, picture
from napari.layers import Image, Labels

from sonoloop.gui.annotate import followers
from sonoloop.gui.annotate import layers as layers_module
from sonoloop.gui.annotate.layers import owner_id


def two(desk, **options):
    """Two images by code, the lower one current."""
    lower = desk.open(Image(picture(0), name="lower"))
    upper = desk.open(Image(picture(20), name="upper", **options))
    desk.viewer.layers.selection.active = lower
    desk.ready()
    return lower, upper


def seen(desk):
    return [layer.name for layer in desk.viewer.layers if layer.visible]


def unseen(desk, reason):
    """Wait until the panel says why, and that Predict and Accept are off for it."""
    desk.panel.run("choose_benign")
    desk.qtbot.waitUntil(lambda: reason in (desk.view.unseen or ""))
    assert desk.view.why_no_predict == desk.view.why_no_accept == desk.view.unseen
    desk.qtbot.waitUntil(lambda: desk.panel._hint.text() == desk.view.unseen)
    desk.panel.session.show_current()
    assert desk.view.unseen is None, "one button brings it back"


@pytest.mark.parametrize("options", [{}, {"scale": (3, 3), "translate": (9, 9)}, {"blending": "additive"}])
def test_of_images_added_by_code_only_the_current_one_is_seen(desk, options):
    two(desk, **options)
    assert seen(desk) == ["lower"]
    desk.viewer.layers.selection.active = desk.viewer.layers["upper"]
    desk.ready()
    assert (seen(desk), desk.view.name) == (["upper"], "upper")


def test_an_image_that_the_user_shows_over_the_current_one_is_named(desk):
    _, upper = two(desk)
    upper.visible = True
    unseen(desk, "“upper” is shown over this image")
    assert not upper.visible


def test_the_lesions_of_another_image_are_not_taken_for_this_ones(desk):
    desk.open(Image(picture(0), name="lower"))
    upper = desk.open(Image(picture(20), name="upper"))
    desk.predict()
    desk.viewer.layers.selection.active = desk.viewer.layers["lower"]
    desk.ready()
    assert seen(desk) == ["lower"]
    desk.viewer.layers["upper lesions"].visible = True
    unseen(desk, "“upper lesions” is shown over")
    assert not upper.visible


def hide(viewer, image):
    image.visible = False


def fade(viewer, image):
    image.opacity = 0


def look_away(viewer, image):
    viewer.scene.camera.center = (0, 5000, 5000)


def grid(viewer, image):
    viewer.canvas.grid.enabled = True
    viewer.layers.append(Labels(np.zeros((3, 3), np.uint8)))
    viewer.layers.selection.active = image


def in_3d(viewer, image):
    viewer.dims.ndisplay = 3


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        (hide, "hidden"),
        (fade, "transparent"),
        (look_away, "outside of the view"),
        (grid, "grid"),
        (in_3d, "3D"),
    ],
)
def test_an_image_that_is_not_seen_is_not_decided_on(desk, do, reason):
    do(desk.viewer, desk.open(Image(picture(), name="case")))
    unseen(desk, reason)


def test_a_mask_that_is_hidden_is_not_accepted(desk):
    desk.open(Image(picture(), name="case"))
    desk.predict()
    desk.panel.run("choose_benign")
    desk.lesions.visible = False
    desk.qtbot.waitUntil(lambda: "lesions of this image are hidden" in (desk.view.why_no_accept or ""))
    assert desk.view.why_no_predict is None
    desk.panel.session.show_current()
    assert desk.view.why_no_accept is None


def test_a_slider_beyond_the_frames_is_moved_with_the_image_and_said_afterwards(desk):
    short = desk.open(Image(np.stack([picture(row) for row in (0, 10)]), name="short"))
    desk.open(Image(np.stack([picture(row % 30) for row in range(0, 60, 10)]), name="long"))
    desk.viewer.dims.set_current_step(0, 5)
    desk.ready()
    desk.viewer.layers.selection.active = short
    desk.ready()
    assert desk.viewer.dims.point[0] == 1
    assert desk.view.name == "short [2]"
    assert desk.view.unseen is None
    desk.viewer.dims.set_current_step(0, 4)
    desk.ready()
    unseen(desk, "slider stands beyond")


def test_rolled_axes_are_said(desk):
    desk.open(Image(np.stack([picture(row) for row in (0, 10)]), name="cine"))
    desk.viewer.dims.order = (1, 2, 0)
    unseen(desk, "rolled")


def test_with_several_or_none_selected_the_image_stays(desk):
    lower, upper = two(desk)
    desk.viewer.layers.selection = {lower, upper}
    desk.ready()
    assert (desk.view.name, seen(desk)) == ("lower", ["lower"])
    desk.viewer.layers.selection.clear()
    desk.ready()
    assert (desk.view.name, seen(desk)) == ("lower", ["lower"])
    desk.viewer.layers.append(Labels(np.zeros((3, 3), np.uint8), name="for something else"))
    desk.ready()
    assert desk.view.name == "lower"


def test_when_the_current_image_is_removed_the_next_one_is_shown(desk):
    lower, _ = two(desk)
    desk.viewer.layers.append(Labels(np.zeros((3, 3), np.uint8), name="for something else"))
    desk.viewer.layers.remove(lower)
    desk.ready()
    assert desk.view.name == "upper"
    assert "upper" in seen(desk)


def test_what_the_panel_hid_is_shown_again_when_it_is_closed(desk):
    two(desk)
    desk.panel.session.restore_hidden()
    assert seen(desk) == ["lower", "upper"]


def test_images_of_one_name_are_told_apart(desk):
    named = {"sonoloop": {"names": ("case.png",)}}
    desk.open(Image(picture(0), name="case", metadata=named))
    desk.open(Image(picture(20), name="case", metadata=named))
    assert desk.view.name == "case.png (case [1])"


@pytest.fixture
def predicted(desk):
    """An image with all layers that Sonoloop makes."""
    desk.open(Image(picture(), name="case"))
    desk.predict()
    desk.lesions.paint((30, 30), 2)
    return desk


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("translate", (7, 8)),
        ("scale", (0.1, 0.2)),
        ("rotate", 30),
        ("shear", [0.5]),
        ("units", ("mm", "mm")),
        ("affine", [[1, 0, 5], [0, 1, 6], [0, 0, 1]]),
    ],
)
def test_layers_go_where_their_image_goes(predicted, what, value):
    drawn = predicted.lesions.data.copy()
    image = predicted.viewer.layers["case"]
    setattr(image, what, value)
    for layer in predicted.viewer.layers:
        np.testing.assert_allclose(layer.extent.world, image.extent.world)
        assert layer.units == image.units
    np.testing.assert_array_equal(predicted.lesions.data, drawn)
    predicted.lesions.undo()
    np.testing.assert_array_equal(predicted.lesions.data, box())


def test_a_mask_that_is_moved_by_itself_is_put_back(predicted):
    predicted.lesions.translate = (5, 5)
    assert tuple(predicted.lesions.translate) == (0, 0)


def test_layers_are_renamed_with_their_image_unless_the_user_named_them(predicted):
    image = predicted.viewer.layers["case"]
    image.name = "other"
    assert [layer.name for layer in predicted.viewer.layers] == [
        "other",
        "other uncertainty",
        "other lesions",
    ]
    predicted.lesions.name = "my lesions"
    image.name = "third"
    assert [layer.name for layer in predicted.viewer.layers] == ["third", "third uncertainty", "my lesions"]


def test_layers_are_hidden_and_shown_with_their_image(predicted):
    image, uncertainty = predicted.viewer.layers["case"], predicted.viewer.layers["case uncertainty"]
    predicted.lesions.mode = "paint"
    uncertainty.visible = True
    image.visible = False
    assert seen(predicted) == []
    image.visible = True
    assert seen(predicted) == ["case", "case uncertainty", "case lesions"]
    uncertainty.visible = False
    image.visible = False
    image.visible = True
    assert seen(predicted) == ["case", "case lesions"]
    assert predicted.lesions.mode == "paint"


def test_layers_stay_above_their_image(predicted):
    predicted.open(Image(picture(20), name="upper"))
    predicted.viewer.layers.move(0, 4)
    predicted.panel.session.follow()
    names = ["upper", "case", "case uncertainty", "case lesions"]
    assert [layer.name for layer in predicted.viewer.layers] == names
    predicted.viewer.layers.move(3, 0)
    predicted.panel.session.follow()
    assert [layer.name for layer in predicted.viewer.layers].index("case lesions") > 1


def test_layers_are_removed_with_their_image_and_what_was_not_accepted_stays(predicted, notices):
    image, drawn = predicted.viewer.layers["case"], predicted.lesions.data.copy()
    predicted.viewer.layers.remove(image)
    predicted.panel.session.follow()
    assert [(layer.name, layer.visible) for layer in predicted.viewer.layers] == [("case lesions", False)]
    assert notices == ["Kept, hidden: “case lesions”, which is not accepted"]
    predicted.open(image)
    assert seen(predicted) == ["case", "case lesions"]
    np.testing.assert_array_equal(predicted.lesions.data, drawn)
    assert predicted.view.lesions == 2


@pytest.mark.parametrize("accepted", [False, True])
def test_a_mask_that_nobody_drew_or_that_is_stored_goes_with_its_image(desk, notices, accepted):
    image = desk.open(Image(picture(), name="case"))
    desk.predict()
    if accepted:
        desk.lesions.paint((30, 30), 2)
        desk.panel.run("choose_benign")
        desk.accept()
    desk.viewer.layers.remove(image)
    desk.panel.session.follow()
    assert list(desk.viewer.layers) == []
    assert notices == []


def test_clearing_the_layer_list_is_quiet(predicted, notices):
    predicted.viewer.layers.clear()
    predicted.panel.session.follow()
    assert predicted.view.name == "No image"
    assert notices == []


def test_a_draft_does_not_come_up_on_another_image(predicted):
    predicted.viewer.layers.remove(predicted.viewer.layers["case"])
    predicted.open(Image(np.zeros(SHAPE, np.uint8) + picture(20), name="other"))
    assert predicted.view.lesions == 0
    assert predicted.view.offers == ()


@pytest.mark.parametrize("drawn", [False, True])
def test_a_size_that_is_replaced_takes_the_layers_of_the_old_one_away(predicted, notices, drawn):
    if not drawn:
        predicted.lesions.undo()
    image = predicted.viewer.layers["case"]
    image.data = np.kron(picture(), np.ones((2, 2), np.uint8))
    predicted.ready()
    assert seen(predicted) == ["case"]
    assert predicted.view.probabilities is None
    assert bool(notices) == drawn
    predicted.predict()
    assert predicted.viewer.layers["case uncertainty"].data.shape == (80, 120)


def test_other_pixels_of_the_same_size_are_another_frame(predicted):
    predicted.panel.run("choose_benign")
    image, mask = predicted.viewer.layers["case"], predicted.lesions.data.copy()
    image.data = picture(20)
    predicted.ready()
    assert (predicted.view.label, predicted.view.probabilities) == (None, None)
    np.testing.assert_array_equal(predicted.lesions.data, mask)


def test_a_stack_that_shrinks_under_the_slider_is_followed(desk):
    image = desk.open(Image(np.stack([picture(row % 30) for row in range(6)]), name="cine"))
    desk.viewer.dims.set_current_step(0, 5)
    desk.ready()
    image.data = np.stack([picture()] * 2)
    assert desk.view.name == "No image", "until it was looked which frame it is"
    desk.ready()
    assert desk.view.name == "cine [2]"


def test_each_layer_is_asked_once_whose_it_is_when_they_are_put_in_order(desk, monkeypatch):
    for number in range(30):
        desk.viewer.layers.append(Image(picture(seed=number), name=f"case {number}"))
    desk.ready()
    asked = []
    monkeypatch.setattr(followers, "owner_id", lambda layer: asked.append(layer) or owner_id(layer))
    monkeypatch.setattr(layers_module, "owner_id", lambda layer: asked.append(layer) or owner_id(layer))
    followers.put_in_order(desk.viewer)
    assert len(asked) == len(desk.viewer.layers)
