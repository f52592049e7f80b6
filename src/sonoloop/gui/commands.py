"""What napari's layer menus and command palette can ask for."""

from __future__ import annotations

from napari.viewer import Viewer

from sonoloop.gui.launch import dock_panel


def predict(viewer: Viewer) -> None:
    """Predict the current frame, and dock the panel if it is not there yet."""
    dock_panel(viewer).run("predict")
