"""Keys belong to the canvas: the focus goes back there after a button is used."""

from __future__ import annotations

from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QWidget


def focus_canvas(widget: QWidget) -> None:
    """Give the focus to the canvas of the window that holds the widget."""
    window = widget.window()
    canvas = window.findChild(QOpenGLWidget) if window is not None else None
    if canvas is not None:
        canvas.setFocus()
