"""Questions in the panel, in place of a dialog that would stop the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from sonoloop.gui.annotate.session import single_shot


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
        self._text = QLabel()
        self._text.setWordWrap(True)
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
        self._text = QLabel()
        self._text.setWordWrap(True)
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
