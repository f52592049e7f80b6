"""A question in the panel, in place of a dialog that would stop the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QLabel, QPushButton, QVBoxLayout, QWidget


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
