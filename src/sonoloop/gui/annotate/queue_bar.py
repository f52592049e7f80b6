"""What stands below the class table in a queue: where one goes, what is put aside and why, how far it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QComboBox, QProgressBar, QPushButton, QToolButton, QVBoxLayout, QWidget

from sonoloop.gui.annotate.keys import KEYS, spell
from sonoloop.gui.annotate.queue_list import Status
from sonoloop.gui.widgets import row, text_label

# what is offered first is given by Enter alone; any other can be typed
REASONS: Mapping[Status, tuple[str, ...]] = {
    "flagged": ("second opinion", "border unclear", "class unclear", "artefact"),
    "skipped": ("later", "not sure"),
    "excluded": ("unreadable", "not breast", "axilla", "needle", "Doppler", "duplicate"),
}
_ASKED: Mapping[Status, str] = {
    "flagged": "Flag this frame. Why?",
    "skipped": "Skip this frame. Why?",
    "excluded": "Exclude this frame: it is no part of the study. Why?",
}
_MOST = 500  # letters of a reason
_ACTIONS = (
    ("previous", "Back", "Back to the frame before, in the order of visits"),
    ("next", "Next", "Go to the next frame that is to do; what you drew here is kept"),
    ("flag", "Flag", "Put aside for a second look, with a reason; again: take it back"),
    ("skip", "Skip", "Leave for later, with a reason; again: take it back"),
    ("exclude", "Exclude", "Take out of the study, with a reason; again: take it back"),
)
_SHORT: Mapping[Status, str] = {"draft": "drafts"}


def show_checked(button: QToolButton) -> None:
    """Write what is switched on in bold: napari's themes draw a tool button alike either way."""

    def embolden(on: bool) -> None:
        font = button.font()
        font.setBold(on)
        font.setUnderline(on)
        button.setFont(font)

    button.toggled.connect(embolden)


class ReasonBox(QWidget):
    """Asks why a frame is put aside; hidden while nothing is asked.

    Parameters
    ----------
    parent : QWidget, optional
        The panel.
    """

    given = Signal(str, str)  # the status, and the reason
    closed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._status: Status | None = None
        self._text = text_label()
        self._reason = QComboBox()
        self._reason.setEditable(True)
        self._reason.setMinimumContentsLength(12)
        self._confirm, self._cancel = QPushButton("Confirm"), QPushButton("Cancel")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._text)
        layout.addLayout(row((self._reason, 1), (self._confirm, 0), (self._cancel, 0)))
        line = self._reason.lineEdit()
        assert line is not None
        self._line = line
        line.setMaxLength(_MOST)
        line.returnPressed.connect(self._give)
        line.textChanged.connect(lambda text: self._confirm.setEnabled(bool(text.strip())))
        self._confirm.clicked.connect(self._give)
        self._cancel.clicked.connect(self.clear)
        self.hide()

    def ask(self, status: Status) -> None:
        """Ask why a frame is to have a status."""
        self._status = status
        self._text.setText(_ASKED[status])
        self._reason.clear()
        self._reason.addItems(REASONS[status])
        self._reason.setAccessibleName(_ASKED[status])
        self.show()
        self._line.setFocus()
        self._line.selectAll()

    def clear(self) -> None:
        """Ask no more."""
        if self._status is not None:
            self._status = None
            self.hide()
            self.closed.emit()

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 - Qt's name
        """Take Escape for Cancel."""
        if event is not None and event.key() == Qt.Key.Key_Escape:
            self.clear()
            return
        super().keyPressEvent(event)

    def _give(self) -> None:
        status, reason = self._status, self._line.text().strip()
        if status is not None and reason:
            self.clear()
            self.given.emit(status, reason)


class QueueBar(QWidget):
    """The buttons of a queue.

    Parameters
    ----------
    parent : QWidget, optional
        The panel.
    """

    pressed = Signal(str)  # an action's name; see `sonoloop.gui.annotate.keys`

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.buttons: dict[str, QToolButton] = {}
        for action, text, help_ in _ACTIONS:
            button = QToolButton()
            button.setText(text)
            button.setToolTip(f"{help_} ({_key(action)})")
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.setCheckable(action in ("flag", "skip", "exclude"))
            show_checked(button)
            button.clicked.connect(lambda _checked=False, action=action: self.pressed.emit(action))
            self.buttons[action] = button
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row(*((button, 1) for button in self.buttons.values())))

    def set_status(self, status: Status | None) -> None:
        """Show how the current frame is marked; None where there is none."""
        for action, marked in (("flag", "flagged"), ("skip", "skipped"), ("exclude", "excluded")):
            self.buttons[action].setEnabled(status is not None)
            self.buttons[action].setChecked(status == marked)


class ProgressLine(QWidget):
    """How far a queue is: a bar, and the frames of each status.

    Parameters
    ----------
    parent : QWidget, optional
        The panel.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(4)
        self._text = text_label()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self._bar)
        layout.addWidget(self._text)

    def set_counts(self, counts: Counter[Status], unread: int) -> None:
        """Show how many frames have each status, and of how many the file could not be read."""
        total = counts.total()
        left = counts["to do"] + counts["draft"]
        # it would draw the whole window anew at once, and wait for it
        self.setUpdatesEnabled(False)
        self._bar.setRange(0, max(1, total))
        self._bar.setValue(total - left)
        self.setUpdatesEnabled(True)
        order: tuple[Status, ...] = ("accepted", "flagged", "skipped", "excluded", "draft", "to do")
        told = [f"{counts[status]} {_SHORT.get(status, status)}" for status in order if counts[status]]
        if unread:
            told.append(f"{unread} not read")
        self._text.setText(" · ".join(told))


def _key(action: str) -> str:
    return spell(next(key.key for key in KEYS if key.action == action))
