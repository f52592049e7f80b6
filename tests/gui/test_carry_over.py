"""Tool, brush, outline, contrast and view outlive a change of image."""

from __future__ import annotations

import numpy as np
import pytest
from desk import picture
from napari.components import ViewerModel
from napari.layers import Image

from sonoloop.gui.annotate.carry_over import CarryOver
from sonoloop.gui.annotate.layers import Target, find_layer, write_mask
from sonoloop.gui.reader import layer_data
from sonoloop.imaging.grey import frame_from_array


@pytest.fixture
def viewer():
    model = ViewerModel()
    carry = CarryOver(model)
    yield model
    carry.close()


def open_image(viewer: ViewerModel, name: str, data: np.ndarray | None = None):
    """Open an image with an empty mask; the mask is what the annotator works on."""
    image = viewer.add_image(picture() if data is None else data, name=name)
    write_mask(viewer, Target(image), np.zeros(image.data.shape[:2], np.uint8))
    viewer.layers.selection.active = lesions(viewer, image)
    return image


def lesions(viewer: ViewerModel, image: Image):
    return find_layer(viewer, image, "lesions")


def test_the_tool_is_the_same_on_a_new_image(viewer):
    first = lesions(viewer, open_image(viewer, "first"))
    first.mode = "paint"
    first.brush_size = 23
    first.contour = 0
    first.opacity = 0.3
    first.selected_label = 4
    first.preserve_labels = True
    second = lesions(viewer, open_image(viewer, "second"))
    assert second.mode == "paint"
    assert (second.brush_size, second.contour, second.selected_label) == (23, 0, 4)
    assert second.opacity == 0.3
    assert second.preserve_labels


def test_the_tool_is_the_same_on_an_image_gone_back_to(viewer):
    image = open_image(viewer, "first")
    first = lesions(viewer, image)
    second = lesions(viewer, open_image(viewer, "second"))
    second.brush_size = 31
    second.mode = "erase"
    assert first.brush_size != 31
    viewer.layers.selection.active = image
    assert first.brush_size == 31
    assert first.mode != "erase", "the cursor belongs to the active layer"
    viewer.layers.selection.active = first
    assert first.mode == "erase"


def test_undo_never_reaches_into_another_image(viewer):
    first = lesions(viewer, open_image(viewer, "first"))
    first.paint((5, 5), 1)
    second = lesions(viewer, open_image(viewer, "second"))
    second.undo()
    assert not second.data.any()
    assert first.data.any()


def test_contrast_a_user_set_holds_on_images_of_the_same_dtype(viewer):
    open_image(viewer, "first").contrast_limits = (20, 120)
    viewer.layers["first"].gamma = 1.5
    second = open_image(viewer, "second")
    assert tuple(second.contrast_limits) == (20, 120)
    assert second.gamma == 1.5
    wide = open_image(viewer, "wide", picture().astype(np.uint16) * 200)
    assert wide.contrast_limits[1] > 120


def test_contrast_nobody_set_is_left_alone(viewer):
    open_image(viewer, "first", picture() // 2)
    second = open_image(viewer, "second", picture())
    assert second.contrast_limits[1] == 255


def test_zoom_survives_another_image_beside_the_first(viewer):
    open_image(viewer, "first")
    viewer.scene.camera.zoom = 17
    viewer.scene.camera.center = (0, 12, 25)
    open_image(viewer, "second")
    assert viewer.scene.camera.zoom == 17
    assert tuple(viewer.scene.camera.center[-2:]) == (12, 25)


def test_zoom_survives_closing_one_image_and_opening_another(viewer):
    open_image(viewer, "first")
    viewer.scene.camera.zoom = 17
    viewer.scene.camera.center = (0, 12, 25)
    viewer.layers.clear()
    open_image(viewer, "second")
    assert viewer.scene.camera.zoom == pytest.approx(17)
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], (12, 25))


def test_the_same_part_of_a_larger_image_is_shown(viewer):
    open_image(viewer, "first")
    viewer.scene.camera.zoom = 10
    viewer.scene.camera.center = (0, 19.5, 29.5)
    viewer.layers.clear()
    open_image(viewer, "twice as large", np.kron(picture(), np.ones((2, 2), np.uint8)))
    assert viewer.scene.camera.zoom == pytest.approx(5)
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], (39.5, 59.5))


def test_an_image_of_another_size_is_seen_whole_at_first_and_each_size_keeps_its_view(viewer):
    camera = viewer.scene.camera
    first = open_image(viewer, "first")
    camera.zoom, camera.center = 17, (0, 12, 25)
    wide = open_image(viewer, "wide", np.tile(picture(), (1, 20)))
    height, width = viewer.canvas.size
    assert camera.zoom == pytest.approx(0.95 * min(height / 40, width / 1200))
    np.testing.assert_allclose(camera.center[-2:], (19.5, 599.5))
    camera.zoom = 3
    viewer.layers.selection.active = first
    assert camera.zoom == pytest.approx(17)
    np.testing.assert_allclose(camera.center[-2:], (12, 25))
    viewer.layers.selection.active = wide
    assert camera.zoom == pytest.approx(3)


def test_the_first_image_is_shown_as_napari_shows_it(viewer):
    plain = ViewerModel()
    plain.add_image(picture())
    open_image(viewer, "first")
    assert viewer.scene.camera.zoom == plain.scene.camera.zoom


@pytest.fixture
def folder(desk):
    """A desk with two images of a folder, of which only the current one is shown."""
    for row, name in ((0, "first"), (20, "second")):
        data, options, _ = layer_data(name, (frame_from_array(picture(row), name=name),), None)
        desk.open(Image(data, **{**options, "visible": name == "first"}), wait=False)
    go_to(desk, "first")
    return desk


def go_to(desk, name: str) -> None:
    desk.viewer.layers.selection.active = desk.viewer.layers[name]
    desk.ready()


def test_the_tool_is_the_same_on_an_image_that_hides_the_first(folder):
    folder.predict()
    first = folder.viewer.layers["first lesions"]
    first.mode = "paint"
    first.brush_size = 23
    go_to(folder, "second")
    assert not first.visible
    folder.predict()
    second = folder.viewer.layers["second lesions"]
    assert (second.mode, second.brush_size) == ("paint", 23)
    second.mode = "erase"
    go_to(folder, "first lesions")
    assert first.visible
    assert first.mode == "erase"
    go_to(folder, "second lesions")
    assert second.mode == "erase"


def test_hiding_the_lesions_for_a_moment_keeps_the_tool(folder):
    folder.predict()
    first = folder.viewer.layers["first lesions"]
    first.mode = "paint"
    folder.panel.run("hide_lesions", pressed=True)
    assert not first.visible
    folder.panel.run("hide_lesions", pressed=False)
    assert first.mode == "paint"
    go_to(folder, "second")
    folder.predict()
    assert folder.viewer.layers["second lesions"].mode == "paint"
