"""Which frame the annotator is on, and what is known of every open one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from sonoloop.errors import SonoloopError
from sonoloop.gui.annotate.frames import FrameState, Key, Target, current_target
from sonoloop.gui.annotate.layers import (
    FILL,
    OUTLINE,
    adopt_layer,
    find_layer,
    read_mask,
    show_only,
    write_mask,
)
from sonoloop.gui.annotate.view import FrameView, describe
from sonoloop.gui.preferences import Preferences, read_preferences

if TYPE_CHECKING:
    from napari.components import ViewerModel


class Session(QObject):
    """Follows the viewer to the current frame and keeps the state of each open one.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer, or napari's public proxy of it.
    preferences : callable
        Gives the user's preferences as they are now.
    parent : QObject, optional
        The owner.
    """

    target_changed = Signal()
    changed = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        preferences: Callable[[], Preferences] = read_preferences,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self._preferences = preferences
        self._store: str | None = None
        self.target: Target | None = None
        self._states: dict[Key, FrameState] = {}
        # ids of the frames of which a prediction was shown; outlives their layers
        self.shown: set[str] = set()
        self._watched: Any = None
        self._follow_timer = single_shot(self, 0, self.follow)
        self._redraw_timer = single_shot(self, 50, self.changed.emit)
        for event in self._viewer_events():
            event.connect(self._on_viewer)
        self._follow_timer.start()

    def preferences(self) -> Preferences:
        """Return the user's preferences as they are now."""
        preferences = self._preferences()
        return preferences if self._store is None else replace(preferences, store=self._store)

    def use_store(self, url: str) -> None:
        """Work on another store than the preferences name."""
        self._store = url

    def state(self, target: Target) -> FrameState:
        """Return what is known of a frame, to read and to write."""
        return self._states.setdefault(target.key, FrameState())

    def is_open(self, target: Target) -> bool:
        """Whether the frame's layer is still there."""
        return target.image in self.viewer.layers

    def view(self) -> FrameView:
        """Describe the current frame."""
        if self.target is None:
            return FrameView()
        try:
            mask = read_mask(self.viewer, self.target)
        except SonoloopError:
            mask = None  # said at Accept, where it matters
        return describe(self.target, self.state(self.target), mask, self.preferences().annotator)

    def write(self, target: Target, mask: NDArray[np.uint8]) -> None:
        """Put a mask on a frame's canvas, undoably."""
        write_mask(self.viewer, target, mask)
        self.state(target).written = mask.copy()
        self._watch()

    def follow(self) -> None:
        """Find out which frame is current."""
        self._follow_timer.stop()
        self._forget_removed()
        before, target = self.target, current_target(self.viewer)
        if target is not None:
            adopt_layer(self.viewer, target)
        if before is not None and target is not None and before.key == target.key:
            self._watch()
            return
        self.target = target
        moved = before is not None and target is not None and before.image != target.image
        if moved and target is not None and "sonoloop" in target.image.metadata:
            # an image on top would hide what is being annotated
            show_only(self.viewer, target.image)
        self._watch()
        self.target_changed.emit()
        self.changed.emit()

    def toggle_fill(self) -> None:
        """Show lesions as outlines, or filled."""
        layer = self._lesions()
        if layer is not None:
            style = FILL if layer.contour else OUTLINE
            layer.contour = int(style["contour"])
            layer.opacity = style["opacity"]

    def set_lesions_visible(self, visible: bool) -> None:
        """Show or hide the current image's lesions."""
        layer = self._lesions()
        if layer is not None:
            layer.visible = visible

    def close(self) -> None:
        """Stop listening to the viewer."""
        for event in self._viewer_events():
            event.disconnect(self._on_viewer)
        self._unwatch()
        self._follow_timer.stop()
        self._redraw_timer.stop()

    def _viewer_events(self) -> tuple[Any, ...]:
        layers = self.viewer.layers
        return (
            layers.selection.events.active,
            layers.events.inserted,
            layers.events.removed,
            self.viewer.dims.events.current_step,
        )

    def _on_viewer(self, _event: object = None) -> None:
        # one answer to the several events of one action
        self._follow_timer.start()

    def _lesions(self) -> Any:  # noqa: ANN401 - napari's proxy of a Labels layer
        return None if self.target is None else find_layer(self.viewer, self.target.image, "lesions")

    def _watch(self) -> None:
        """Listen to the current lesions layer: painting, undo and redo."""
        layer = self._lesions()
        if layer == self._watched:
            return
        self._unwatch()
        self._watched = layer
        if layer is not None:
            for event in (layer.events.paint, layer.events.set_data):
                event.connect(self._on_drawn)
        self._redraw_timer.start()

    def _unwatch(self) -> None:
        if self._watched is not None:
            for event in (self._watched.events.paint, self._watched.events.set_data):
                event.disconnect(self._on_drawn)
        self._watched = None

    def _on_drawn(self, _event: object = None) -> None:
        self._redraw_timer.start()

    def _forget_removed(self) -> None:
        alive = {str(layer.unique_id) for layer in self.viewer.layers}
        self._states = {key: state for key, state in self._states.items() if key[0] in alive}


def single_shot(parent: QObject, milliseconds: int, action: Callable[[], object]) -> QTimer:
    """Make a timer that acts once, that long after its last start."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(action)
    return timer
