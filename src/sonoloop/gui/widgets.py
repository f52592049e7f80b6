"""What the panels of a window share: their frame, their place, and what one must know of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Qt
from qtpy.QtGui import QCloseEvent, QShowEvent
from qtpy.QtWidgets import QDockWidget, QFrame, QHBoxLayout, QMainWindow, QScrollArea, QVBoxLayout, QWidget

from sonoloop.gui.annotate.keys import attached
from sonoloop.gui.annotate.session import single_shot
from sonoloop.gui.preferences import Preferences, read_preferences

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from sonoloop.gui.annotate.panel import AnnotatePanel


_WIDTH = 300


class Panel(QWidget):
    """A panel of Sonoloop: scrolls downwards only, and is docked as a tab of the others.

    Parameters
    ----------
    parent : QWidget, optional
        The owner.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMinimumWidth(_WIDTH)
        self._content = QWidget()
        self.column = QVBoxLayout(self._content)
        self.column.setContentsMargins(8, 8, 8, 8)
        self.column.setSpacing(8)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(self._content)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)
        # once: where the user moves it to is their choice
        self._stack = single_shot(self, 0, self._join_others)
        self._stacked = False

    def close_session(self) -> None:
        """Stop listening to the viewer and let go of what was opened."""

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 - Qt's name
        """Take a place among the other panels, the first time."""
        super().showEvent(event)
        if not self._stacked:
            self._stacked = True
            self._stack.start()

    def closeEvent(self, event: QCloseEvent | None) -> None:  # noqa: N802 - Qt's name
        """Close the session with the panel."""
        self.close_session()
        super().closeEvent(event)

    def _join_others(self) -> None:
        own = _dock_of(self)
        window = own.parent() if own is not None else None
        if own is None or own.isFloating() or not isinstance(window, QMainWindow):
            return
        for other in window.findChildren(Panel):
            place = _dock_of(other)
            docked = place is not None and place is not own and place.parent() is window
            if place is not None and docked and not place.isFloating() and not place.isHidden():
                window.tabifyDockWidget(place, own)
                own.raise_()
                return


def row(*widgets: tuple[QWidget, int]) -> QHBoxLayout:
    """Lay widgets side by side, each with how it stretches."""
    layout = QHBoxLayout()
    for widget, stretch in widgets:
        layout.addWidget(widget, stretch)
    return layout


def annotate_panel(viewer: ViewerModel) -> AnnotatePanel | None:
    """Return the viewer's Annotate panel, if it is open."""
    panel = attached(viewer)
    return panel if panel is not None and hasattr(panel, "session") else None  # type: ignore[return-value]


def desk_preferences(viewer: ViewerModel) -> Callable[[], Preferences]:
    """Give the preferences as the viewer's Annotate panel has them: it may work on a store of its own."""

    def read() -> Preferences:
        panel = annotate_panel(viewer)
        return read_preferences() if panel is None else panel.session.preferences()

    return read


def tell_model_moved(viewer: ViewerModel) -> None:
    """Let the viewer's Annotate panel ask which model is in use by now."""
    panel = annotate_panel(viewer)
    if panel is not None:
        panel.deciding.refresh_model()


def _dock_of(widget: QWidget) -> QDockWidget | None:
    above: QObject | None = widget
    while above is not None and not isinstance(above, QDockWidget):
        above = above.parent()
    return above
