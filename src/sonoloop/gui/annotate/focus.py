"""The focus layout: napari's own docks are folded, so that the image has the window."""

from __future__ import annotations

from qtpy.compat import isalive
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

from sonoloop.gui.widgets import dock_of

_NAPARIS = ("layer list", "layer controls", "console")
_WIDTH = 300


class FocusLayout:
    """Folds napari's own docks in the window of a panel, and unfolds those that it folded.

    Parameters
    ----------
    panel : QWidget
        Docked in napari's window, by the time that it is used.
    """

    def __init__(self, panel: QWidget) -> None:
        self._panel = panel
        self._folded: list[QDockWidget] = []
        self.is_on = False

    def set_on(self, on: bool) -> None:
        """Fold or unfold."""
        if on == self.is_on:
            return
        self.is_on = on
        folded, self._folded = self._folded, []
        for dock in filter(isalive, folded):  # the window may be gone
            dock.show()
        own = dock_of(self._panel) if on else None
        window = None if own is None else own.parent()
        if own is not None and isinstance(window, QMainWindow):
            docks = window.findChildren(QDockWidget)
            self._folded = [dock for dock in docks if dock.objectName() in _NAPARIS and not dock.isHidden()]
            for dock in self._folded:
                dock.hide()
            window.resizeDocks([own], [_WIDTH], Qt.Orientation.Horizontal)
