"""What the panels of a window share: their frame, their place, questions, icons, errors."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence

from napari.resources import get_colorized_svg, get_icon_path
from napari.utils.notifications import (
    ErrorNotification,
    notification_manager,
    show_error,
    show_warning,
)
from napari.utils.theme import get_theme
from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtGui import QCloseEvent, QIcon, QPixmap, QShowEvent
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import (
    QApplication,
    QDockWidget,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMainWindow,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from sonoloop.errors import SonoloopError, UnsupportedImageError
from sonoloop.gui.preferences import Preferences
from sonoloop.gui.store_watch import StoreWatch
from sonoloop.gui.words import fit_toast, in_panel_words
from sonoloop.gui.workers import Projects

_WIDTH = 300
# longer than the words of a command, which must be copied as they are
_LONG = re.compile(rf"[^\s{re.escape(os.sep)}]{{28}}")
_WARNING = "\N{WARNING SIGN}"
BROKEN = "The store cannot be used now: the line at the top says why"


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
        outer.setSpacing(0)
        self.problem = ProblemLine()
        outer.addWidget(self.problem)
        outer.addWidget(scroll, 1)
        # below the column: what never scrolls out of sight
        self.foot = QVBoxLayout()
        self.foot.setSpacing(8)
        outer.addLayout(self.foot)
        # once: where the user moves it to is their choice
        self._stack = single_shot(self, 0, self._join_others)
        self._stacked = False

    def watch_store(self, projects: Projects, preferences: Callable[[], Preferences]) -> StoreWatch:
        """Say above the column what is wrong with the store that the preferences name."""
        news = StoreWatch(projects, preferences, parent=self)
        news.trouble_changed.connect(lambda: self.problem.set_trouble(news.trouble))
        self.problem.tried_again.connect(news.try_again)
        return news

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
        own = dock_of(self)
        window = own.parent() if own is not None else None
        if own is None or own.isFloating() or not isinstance(window, QMainWindow):
            return
        for other in window.findChildren(Panel):
            place = dock_of(other)
            docked = place is not None and place is not own and place.parent() is window
            if place is not None and docked and not place.isFloating() and not place.isHidden():
                # the tabs have no room for the plugin's name beside the panel's
                for dock in (place, own):
                    dock.setWindowTitle(dock.windowTitle().partition(" (")[0])
                window.tabifyDockWidget(place, own)
                own.raise_()
                return


def row(*widgets: tuple[QWidget, int]) -> QHBoxLayout:
    """Lay widgets side by side, each with how it stretches."""
    layout = QHBoxLayout()
    for widget, stretch in widgets:
        layout.addWidget(widget, stretch)
    return layout


def text_label(text: str = "", *, selectable: bool = False) -> QLabel:
    """Make a label whose lines wrap; what it says may name a file, and a file may be named as a tag is."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    if selectable:
        label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def single_shot(parent: QObject, milliseconds: int, action: Callable[[], object]) -> QTimer:
    """Make a timer that acts once, that long after its last start."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(action)
    return timer


def dock_of(widget: QWidget) -> QDockWidget | None:
    """Find the dock that holds a widget."""
    above: QObject | None = widget
    while above is not None and not isinstance(above, QDockWidget):
        above = above.parent()
    return above


class ProblemLine(QFrame):
    """Says what is wrong, and stays until it is not: above a panel's column, always in sight; else hidden.

    What is wrong with the store is said first, and can be tried again; what could not be done once is said
    below it until it is dismissed.

    Parameters
    ----------
    parent : QWidget, optional
        The panel.
    """

    tried_again = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self._trouble, self._once = text_label(selectable=True), text_label(selectable=True)
        self._again = QPushButton("Try again")
        self._again.setToolTip("Look whether the store can be used by now")
        self._dismiss = QPushButton("Dismiss")
        self._dismiss.setToolTip("It was read")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 6)
        for label, button in ((self._trouble, self._again), (self._once, self._dismiss)):
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            layout.addWidget(label)
            layout.addWidget(button, alignment=Qt.AlignmentFlag.AlignLeft)
        self._again.clicked.connect(self._try_again)
        self._dismiss.clicked.connect(lambda: self.tell(None))
        self._told: str | None = None
        self.set_trouble(None)

    def set_trouble(self, text: str | None) -> None:
        """Say why the store cannot be used; None when it can."""
        self._again.setEnabled(True)
        self._again.setText("Try again")
        text = text and in_panel_words(text)
        told = text and f"{_WARNING} The store cannot be used\n{text}"
        self._reason = text
        self._set(self._trouble, self._again, told)
        self.tell(self._told)

    def tell(self, text: str | None) -> None:
        """Say what could not be done; None to say nothing."""
        self._told = None if text == self._reason else text
        self._set(self._once, self._dismiss, self._told and f"{_WARNING} {self._told}")

    def _set(self, label: QLabel, button: QPushButton, text: str | None) -> None:
        label.setText(breakable(text or ""))
        label.setToolTip(text or "")
        label.setVisible(bool(text))
        button.setVisible(bool(text))
        self.setVisible(bool(self._trouble.text() or self._once.text()))

    def _try_again(self) -> None:
        self._again.setEnabled(False)
        self._again.setText("Trying\N{HORIZONTAL ELLIPSIS}")
        self.tried_again.emit()


def breakable(text: str) -> str:
    """Let lines of a label break within paths and long names, which have no blanks."""
    parts = _LONG.sub("\\g<0>\N{ZERO WIDTH SPACE}", text)
    return parts.replace(os.sep, f"{os.sep}\N{ZERO WIDTH SPACE}")


class QuestionBox(QFrame):
    """Shows a question with its answers as buttons; hidden while there is none.

    Parameters
    ----------
    parent : QWidget, optional
        The panel.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._text = text_label()
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(6, 6, 6, 6)
        self._layout.addWidget(self._text)
        self._buttons: list[QPushButton] = []
        self.hide()

    def ask(self, text: str, answers: Sequence[tuple[str, Callable[[], object]]]) -> None:
        """Show a question; each answer is a button's text and what it does."""
        self.clear()
        self._text.setText(text)
        for label, action in answers:
            button = QPushButton(label)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.clicked.connect(lambda _checked=False, action=action: action())
            self._layout.addWidget(button)
            self._buttons.append(button)
        self.show()

    def clear(self) -> None:
        """Take the question away."""
        self.hide()
        for button in self._buttons:
            self._layout.removeWidget(button)
            button.deleteLater()
        self._buttons.clear()

    def answers(self) -> list[QPushButton]:
        """Return the buttons, in order."""
        return list(self._buttons)


class WhyBox(QWidget):
    """Asks for a reason that is kept; hidden while there is no question.

    Parameters
    ----------
    parent : QWidget, optional
        The panel.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text = text_label()
        self._line = QLineEdit()
        self._line.setPlaceholderText("Why, for the record")
        self._line.setMaxLength(500)
        self._confirm = QPushButton("Confirm")
        self._confirm.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._action: Callable[[str], object] | None = None
        # once the layout above it has found room
        self._into_view = single_shot(self, 50, self._scroll_into_view)
        line = QHBoxLayout()
        line.addWidget(self._line, 1)
        line.addWidget(self._confirm)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._text)
        layout.addLayout(line)
        self._line.textChanged.connect(lambda text: self._confirm.setEnabled(bool(text.strip())))
        self._line.returnPressed.connect(self._give)
        self._confirm.clicked.connect(self._give)
        self.hide()

    def ask(self, text: str, action: Callable[[str], object]) -> None:
        """Ask; `action` is called with the reason once one is given."""
        self._action = action
        self._text.setText(text)
        self._line.setAccessibleName(text)
        self._line.clear()
        self._confirm.setEnabled(False)
        self.show()
        self._line.setFocus()
        self._into_view.start()

    def clear(self) -> None:
        """Take the question away."""
        self._action = None
        self.hide()

    def _give(self) -> None:
        reason, action = self._line.text().strip(), self._action
        if reason and action is not None:
            self.clear()
            action(reason)

    def _scroll_into_view(self) -> None:
        above: QWidget | None = self.parentWidget()
        while above is not None and not isinstance(above, QScrollArea):
            above = above.parentWidget()
        if above is not None:
            above.ensureWidgetVisible(self)


_PIXELS = 64  # drawn large, so that it stays sharp on a scaled screen
_FAINT = 0.4


def themed_icon(name: str, theme: str) -> QIcon:
    """Return one of napari's icons in a theme's icon colour, fainter for a disabled button."""
    icon = QIcon(_draw(name, theme, 1))
    icon.addPixmap(_draw(name, theme, _FAINT), QIcon.Mode.Disabled)
    return icon


def _draw(name: str, theme: str, opacity: float) -> QPixmap:
    svg = get_colorized_svg(get_icon_path(name), get_theme(theme).icon.as_hex(), opacity)
    pixmap = QPixmap()
    pixmap.loadFromData(svg.encode(), "SVG")
    return pixmap if pixmap.isNull() else pixmap.scaledToHeight(_PIXELS)


def focus_canvas(widget: QWidget) -> None:
    """Give the focus to the canvas of the window that holds the widget."""
    window = widget.window()
    canvas = window.findChild(QOpenGLWidget) if window is not None else None
    if canvas is not None:
        canvas.setFocus()


logger = logging.getLogger(__name__)


def show_notice(text: str, show: Callable[[str], object] = show_warning) -> None:
    """Show a text as a notification; what is too long for one stays in the panels that are in sight."""
    text = in_panel_words(text)
    toast = fit_toast(text)
    if toast != text:
        for panel in _panels_in_sight():
            panel.problem.tell(text)
    show(toast)


def show_problem(error: Exception) -> None:
    """Show an error as a notification; see `show_notice`.

    An unexpected one is shown with its traceback, which is logged too.
    """
    if isinstance(error, UnsupportedImageError):
        show_notice(str(error))
    elif isinstance(error, SonoloopError):
        logger.info("%s: %s", type(error).__name__, error)
        show_notice(str(error), show_error)
    else:
        logger.error("unexpected error", exc_info=error)
        notification_manager.dispatch(ErrorNotification(error))


def _panels_in_sight() -> list[Panel]:
    # a panel behind another tab is visible, Qt says
    panels = (each for each in QApplication.allWidgets() if isinstance(each, Panel))
    return [each for each in panels if each.isVisible() and not each.visibleRegion().isEmpty()]


def engine_title(name: str) -> str:
    """Name an engine, short enough for a narrow panel."""
    return {"onnx": "ONNX", "openvino": "OpenVINO"}.get(name, name)


def device_name(device: str) -> str:
    """Name a device that torch spells, such as "cuda:1"."""
    kind, _, number = device.partition(":")
    names = {"cpu": "CPU", "cuda": "GPU", "mps": "Apple GPU"}
    return f"{names.get(kind, kind)} {number}" if number not in ("", "0") else names.get(kind, kind)
