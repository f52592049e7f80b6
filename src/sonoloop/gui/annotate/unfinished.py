"""What the panel says of unfinished work: that it is back, and what is to go on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from sonoloop.gui.annotate.journal import Journal, say_when
from sonoloop.gui.annotate.overwriting import ANSWERS, QUESTION, Overwriting
from sonoloop.gui.widgets import QuestionBox, row, text_label


class UnfinishedBox(QWidget):
    """One line where work came back, with Discard, and the questions about it; hidden while there is nothing.

    Parameters
    ----------
    journal : Journal
        Where the drafts are.
    overwriting : Overwriting
        Where the proposals wait.
    parent : QWidget, optional
        The panel.
    """

    answered = Signal()

    def __init__(self, journal: Journal, overwriting: Overwriting, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._journal, self._overwriting = journal, overwriting
        self._back = text_label()
        self._discard = QPushButton("Discard")
        self._discard.setToolTip("Take it off this frame; Ctrl+Z brings it back")
        self._discard.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._draft, self._proposal = QuestionBox(), QuestionBox()
        self._asked: tuple[object, ...] = ()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(row((self._back, 1), (self._discard, 0)))
        column.addWidget(self._draft)
        column.addWidget(self._proposal)
        self._discard.clicked.connect(partial(self._answer, journal.discard))
        journal.changed.connect(self._render)
        overwriting.changed.connect(self._render)
        self._render()

    def buttons(self) -> list[QPushButton]:
        """Return the buttons that are there to press."""
        back = [] if self._journal.restored is None else [self._discard]
        return [*back, *self._draft.answers(), *self._proposal.answers()]

    def text(self) -> str:
        """Return the line that says what came back."""
        return self._back.text()

    def _render(self) -> None:
        restored, question, asks = self._journal.restored, self._journal.question, self._overwriting.asks
        # the buttons stay the same ones under the mouse while nothing changes
        if (restored, question, asks) == self._asked:
            return
        self._asked = restored, question, asks
        self._back.setText(
            "" if restored is None else f"Your unfinished work of {say_when(restored)} is back"
        )
        self._back.setVisible(restored is not None)
        self._discard.setVisible(restored is not None)
        if question is None:
            self._draft.clear()
        else:
            self._draft.ask(
                f"{question} Which goes on?",
                [
                    ("My unfinished work", partial(self._answer, self._journal.take)),
                    ("What is on the canvas", partial(self._answer, self._journal.leave)),
                ],
            )
        if asks:
            answers = [
                (text, partial(self._answer, partial(self._overwriting.answer, to))) for text, to in ANSWERS
            ]
            self._proposal.ask(QUESTION, answers)
        else:
            self._proposal.clear()
        self.setVisible(restored is not None or question is not None or asks)

    def _answer(self, action: Callable[[], object], *_: object) -> None:
        action()
        self.answered.emit()
