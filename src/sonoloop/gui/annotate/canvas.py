"""What the canvas shows: whether it is the frame that the panel speaks of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Image, Layer

from sonoloop.gui.annotate.layers import Target, find_layer, is_source, owner_id, slider_position
from sonoloop.gui.words import shorten

if TYPE_CHECKING:
    from napari.components import ViewerModel

# fainter is as good as not there
_FAINT = 0.1
_MIXING = ("additive", "minimum", "multiplicative")


def why_unseen(viewer: ViewerModel, target: Target) -> str | None:
    """Say why the frame is not what is seen on the canvas; None where it is."""
    image = target.image
    other = covering(viewer, image)
    reasons = {
        "The 3D view is on, which shows no single frame": viewer.dims.ndisplay != 2,
        "The grid is on, which shows image and mask apart": viewer.canvas.grid.enabled
        and len(viewer.layers) > 1,
        "This image is hidden": not image.visible,
        "This image is transparent": image.opacity < _FAINT,
        "The axes are rolled: the canvas shows no frame of this image": _is_rolled(viewer, image),
        "The slider stands beyond the frames of this image": _is_beyond(viewer, target),
        f"“{shorten('' if other is None else other.name)}” is shown over this image": other is not None,
        "This image lies outside of the view": _is_outside(viewer, image),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def why_mask_unseen(viewer: ViewerModel, target: Target) -> str | None:
    """Say why the mask that is drawn on the frame is not seen; None where it is, or where there is none."""
    layer = find_layer(viewer, target.image, "lesions")
    if layer is None or (layer.visible and layer.opacity >= _FAINT):
        return None
    return "The lesions of this image are hidden" if np.any(layer.data[target.index]) else None


def show_frame(viewer: ViewerModel, target: Target) -> None:
    """Bring the frame on the canvas, whatever hid it; other images are hidden by who asks for it."""
    image, dims = target.image, viewer.dims
    if dims.ndisplay != 2:
        dims.ndisplay = 2
    viewer.canvas.grid.enabled = False
    lesions = find_layer(viewer, image, "lesions")
    for layer in (image, lesions):
        if layer is None:
            continue
        if not layer.visible:
            layer.visible = True
        if layer.opacity < _FAINT:
            layer.opacity = 1 if layer is image else 0.9
    if _is_rolled(viewer, image):
        dims.order = tuple(range(dims.ndim))
    move_slider(viewer, target)
    if _is_outside(viewer, image):
        viewer.reset_view()


def move_slider(viewer: ViewerModel, target: Target) -> None:
    """Move a slider that stands beyond a stack's frames to the one that is current."""
    if not _is_beyond(viewer, target):
        return
    image = target.image
    world = image.data_to_world((*target.index, 0, 0))
    first = viewer.dims.ndim - image.ndim
    for axis in range(len(target.index)):
        viewer.dims.set_point(first + axis, float(world[axis]))


def covering(viewer: ViewerModel, image: Image) -> Layer | None:
    """Find another image, or what is drawn on one, that is seen instead of this image or mixed with it."""
    layers = viewer.layers
    images = {str(layer.unique_id) for layer in layers if is_source(layer)}
    own = str(image.unique_id)
    mixes = image.opacity < 1 or image.blending in _MIXING
    place = layers.index(image)
    for number, layer in reversed(list(enumerate(layers))):
        owner = owner_id(layer)
        if owner == own or owner not in images or not layer.visible or layer.opacity == 0:
            continue
        if (number > place or mixes) and _overlap(viewer, layer, image):
            return layer
    return None


def _is_rolled(viewer: ViewerModel, image: Image) -> bool:
    dims = viewer.dims
    return dims.ndisplay == 2 and image.ndim > 2 and set(dims.displayed) != {dims.ndim - 2, dims.ndim - 1}


def _is_beyond(viewer: ViewerModel, target: Target) -> bool:
    position = slider_position(viewer, target.image)
    return any(not -0.5 <= p <= n - 0.5 for p, n in zip(position, target.grid, strict=False))


def _box(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """First and last corner of a layer in the world, rows and columns."""
    low, high = np.asarray(layer.extent.world)[:, -2:]
    half = np.abs(np.asarray(layer.extent.step)[-2:]) / 2  # the extent runs from pixel centre to pixel centre
    return low - half, high + half


def _overlap(viewer: ViewerModel, one: Layer, other: Layer) -> bool:
    (low, high), (other_low, other_high) = _box(one), _box(other)
    return bool(np.all(low < other_high) and np.all(other_low < high))


def _is_outside(viewer: ViewerModel, image: Image) -> bool:
    camera = viewer.scene.camera
    if not camera.zoom > 0:
        return False
    centre = np.asarray(camera.center[-2:])
    half = np.asarray(viewer.canvas.size) / camera.zoom / 2
    low, high = _box(image)
    return bool(np.any(high < centre - half) or np.any(low > centre + half))
