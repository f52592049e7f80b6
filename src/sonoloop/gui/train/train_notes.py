"""What a training tells besides its figures: the newest note, and all of them one click away."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QToolButton, QVBoxLayout, QWidget


class Notes(QWidget):
    """Shows the newest note; unfolded, all of them. Hidden while there is none.

    Parameters
    ----------
    parent : QWidget, optional
        The panel.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._notes: tuple[str, ...] = ()
        self._fold = QToolButton()
        self._fold.setCheckable(True)
        self._fold.setAutoRaise(True)
        self._fold.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._fold.setToolTip("Show all that the training told")
        self._fold.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._text = QLabel()
        self._text.setWordWrap(True)
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self._fold, 0, Qt.AlignmentFlag.AlignLeft)
        layout.addWidget(self._text)
        self._fold.toggled.connect(self._render)
        self.hide()

    def set_notes(self, notes: Sequence[str]) -> None:
        """Show notes, the oldest first."""
        self._notes = tuple(notes)
        self.setVisible(bool(self._notes))
        self._render()

    def _render(self) -> None:
        unfolded = self._fold.isChecked()
        self._fold.setArrowType(Qt.ArrowType.DownArrow if unfolded else Qt.ArrowType.RightArrow)
        self._fold.setText(f"Notes ({len(self._notes)})")
        self._fold.setVisible(len(self._notes) > 1)
        self._text.setText("\n".join(self._notes if unfolded else self._notes[-1:]))
