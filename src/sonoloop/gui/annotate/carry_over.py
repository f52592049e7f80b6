"""Tool, brush, outline, contrast and view outlive a change of image.

Every image has its own lesions layer, so that undo never writes pixels of another image; a fresh layer starts
with napari's defaults, which is what this module makes up for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sonoloop.gui.annotate.layers import is_lesions, is_source

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

# in the order in which they are set: the mode last, it reads the others
_TOOL = (
    "contour",
    "opacity",
    "brush_size",
    "selected_label",
    "preserve_labels",
    "contiguous",
    "n_edit_dimensions",
    "mode",
)
_FITTED = 0.95  # of the canvas, as napari fits
_CONTRAST = ("contrast_limits", "gamma")
_WHITE = 255


@dataclass(frozen=True, slots=True)
class View:
    """Where the camera looks, in parts of the image: its centre, and screen pixels for the image's height."""

    centre: tuple[float, float]
    height: float


class CarryOver:
    """Hands a user's settings from image to image.

    What the user last set on a lesions layer holds on every lesions layer; contrast and gamma hold on images
    of the same dtype; the view is kept where napari would reset it, when another image follows the last, and
    for each size of images: it is fitted at the first image of another size beside those that are open.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer, or napari's public proxy of it.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._tool: dict[str, Any] = {}
        self._contrast: dict[tuple[str, str], Any] = {}
        self._view: View | None = None
        self._views: dict[tuple[float, ...], View] = {}  # by the size of the image
        self._shown: Image | None = None
        self._size: tuple[float, ...] | None = None  # of what is shown
        self._applying = False
        layers = viewer.layers
        self._hidden = {str(layer.unique_id) for layer in layers if not layer.visible}
        self._connections: list[tuple[Any, Any]] = [
            (layers.events.inserted, self._on_inserted),
            (layers.events.removed, self._on_removed),
            (layers.selection.events.active, self._on_active),
            (viewer.scene.camera.events.zoom, self._on_camera),
            (viewer.scene.camera.events.center, self._on_camera),
        ]
        for event, slot in self._connections:
            event.connect(slot)
        for layer in layers:
            self._listen(layer)
        self._remember_view()

    def close(self) -> None:
        """Stop listening."""
        for event, slot in self._connections:
            event.disconnect(slot)
        for layer in self._viewer.layers:
            for name, slot in self._layer_slots(layer):
                getattr(layer.events, name).disconnect(slot)

    def follow_frame(self, image: Image) -> None:
        """Go on with a layer that shows another frame by now, maybe of another type or size."""
        if not image.rgb and (image.dtype != np.uint8 or image.contrast_limits_range[1] != _WHITE):
            self._applying = True
            image.reset_contrast_limits_range()
            if image.dtype == np.uint8:
                # as the reader opens it
                image.contrast_limits = (0, _WHITE)
            else:
                image.reset_contrast_limits()
            self._apply(image)
        self._go_to(image)
        self._remember_view()

    def _layer_slots(self, layer: Layer) -> list[tuple[str, Any]]:
        if is_lesions(layer):
            return [*((name, self._on_tool) for name in _TOOL), ("visible", self._on_visible)]
        if is_source(layer) and not layer.rgb:
            return [(name, self._on_contrast) for name in _CONTRAST]
        return []

    def _listen(self, layer: Layer) -> None:
        for name, slot in self._layer_slots(layer):
            getattr(layer.events, name).connect(slot)

    def _on_inserted(self, event: Any) -> None:  # noqa: ANN401 - napari's event
        layer = event.value
        self._apply(layer)
        self._listen(layer)
        if is_source(layer) and len(self._viewer.layers) == 1:
            self._restore_view(layer)

    def _on_removed(self, _event: object) -> None:
        if self._shown is not None and self._shown not in self._viewer.layers:
            self._shown = self._size = None

    def _on_active(self, _event: object) -> None:
        active = self._viewer.layers.selection.active
        if active is None:
            return
        owner = active.metadata.get("sonoloop", {}).get("image", str(active.unique_id))
        for layer in self._viewer.layers:
            about = layer.metadata.get("sonoloop", {})
            if str(layer.unique_id) == owner or about.get("image") == owner:
                self._apply(layer)
                if is_source(layer):
                    self._go_to(layer)
        self._remember_view()

    def _on_tool(self, event: Any) -> None:  # noqa: ANN401
        layer = event.source
        # napari sets the mode of a layer that is hidden or shown, before it says that it is
        by_user = layer.visible and str(layer.unique_id) not in self._hidden
        if by_user and not self._applying:
            self._tool = {name: getattr(layer, name) for name in _TOOL}

    def _on_visible(self, event: Any) -> None:  # noqa: ANN401
        layer = event.source
        if layer.visible:
            self._hidden.discard(str(layer.unique_id))
            self._apply(layer)
        else:
            self._hidden.add(str(layer.unique_id))

    def _on_contrast(self, event: Any) -> None:  # noqa: ANN401
        if not self._applying:
            self._contrast[str(event.source.dtype), event.type] = getattr(event.source, event.type)

    def _apply(self, layer: Layer) -> None:
        self._applying = True
        try:
            if is_lesions(layer):
                active = layer == self._viewer.layers.selection.active
                for name, value in self._tool.items():
                    # a tool set on a layer that is not active would change the cursor of the one that is
                    if (name != "mode" or active) and getattr(layer, name) != value:
                        setattr(layer, name, value)
            elif is_source(layer) and not layer.rgb:
                for name in _CONTRAST:
                    value = self._contrast.get((str(layer.dtype), name))
                    if value is not None and getattr(layer, name) != value:
                        setattr(layer, name, value)
        finally:
            self._applying = False

    def _on_camera(self, _event: object) -> None:
        self._remember_view()

    def _remember_view(self) -> None:
        if self._shown is None:
            return
        corner, size = _world_box(self._shown)
        camera = self._viewer.scene.camera
        centre = (np.asarray(camera.center[-2:]) - corner) / size
        self._view = View((float(centre[0]), float(centre[1])), float(camera.zoom * size[0]))
        self._views[_key(size)] = self._view

    def _go_to(self, image: Image) -> None:
        """Look at an image of another size as at the last one of its size; at all of the first."""
        viewer, before, self._shown = self._viewer, self._size, image
        size = _world_box(image)[1]
        self._size = _key(size)
        if before is None or viewer.canvas.grid.enabled or viewer.dims.ndisplay != 2:
            return
        if before != self._size:
            self._look_at(image, self._views.get(_key(size), self._whole(image)))

    def fit(self) -> None:
        """Show all of the current image, and of the first of each size: the canvas has another size now."""
        self._views.clear()
        if self._shown is not None and self._viewer.dims.ndisplay == 2:
            self._look_at(self._shown, self._whole(self._shown))

    def _whole(self, image: Image) -> View:
        size = _world_box(image)[1]
        height, width = (_FITTED * pixels for pixels in self._viewer.canvas.size)
        return View((0.5, 0.5), min(height, width * float(size[0] / size[1])))

    def _restore_view(self, image: Image) -> None:
        """Look at the same part of another image."""
        if self._view is not None:
            self._look_at(image, self._view)

    def _look_at(self, image: Image, view: View) -> None:
        corner, size = _world_box(image)
        camera = self._viewer.scene.camera
        centre = corner + np.asarray(view.centre) * size
        # each of the two is remembered as it is set
        camera.center = (0.0, float(centre[0]), float(centre[1]))
        camera.zoom = view.height / float(size[0])


def _key(size: np.ndarray) -> tuple[float, ...]:
    """Name a size; what differs in the last digits is the same."""
    return tuple(float(f"{side:.5g}") for side in size)


def _world_box(image: Image) -> tuple[np.ndarray, np.ndarray]:
    """Corner and size of an image in the world, rows and columns."""
    step = np.asarray(image.extent.step)[-2:]  # the extent runs from pixel centre to pixel centre
    low, high = np.asarray(image.extent.world)[:, -2:]
    return low - step / 2, high - low + step
