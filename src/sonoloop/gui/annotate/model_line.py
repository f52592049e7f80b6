"""Which model and where it runs; while it works a slim bar, with Cancel once that lasts."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGridLayout, QProgressBar, QPushButton, QWidget
from superqt import QElidingLabel

from sonoloop.gui.annotate.session import single_shot

_CANCEL_AFTER_MS = 1000


class ModelLine(QWidget):
    """Keeps the place of what it hides, so that nothing jumps.

    Parameters
    ----------
    parent : QWidget, optional
        The panel.
    """

    cancelled = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text = QElidingLabel()
        self._cancel = QPushButton("Cancel")
        self._cancel.setToolTip("Ignore the answer that is still to come")
        self._cancel.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._bar = QProgressBar()
        self._bar.setRange(0, 0)
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(4)
        for widget in (self._cancel, self._bar):
            policy = widget.sizePolicy()
            policy.setRetainSizeWhenHidden(True)
            widget.setSizePolicy(policy)
            widget.hide()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(0, 1)
        grid.addWidget(self._text, 0, 0)
        grid.addWidget(self._cancel, 0, 1)
        grid.addWidget(self._bar, 1, 0, 1, 2)
        self._timer = single_shot(self, _CANCEL_AFTER_MS, self._cancel.show)
        self._cancel.clicked.connect(self.cancelled)

    def set_text(self, text: str) -> None:
        """Name the model."""
        self._text.setText(text)
        self._text.setToolTip(text)

    def set_busy(self, busy: bool) -> None:
        """Show that something runs, or that nothing does."""
        self._bar.setVisible(busy)
        if busy:
            self._timer.start()
        else:
            self._timer.stop()
            self._cancel.hide()
