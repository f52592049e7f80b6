"""What is on the canvas, in numbers: lesions, their area, and how far the mask can be trusted."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from sonoloop.gui.annotate.view import FrameView

_LESIONS = "How many lesions are drawn on this frame"
_AREA = "Their area together; in mm² only where the image is calibrated"
_EXPECTED = (
    "How well the proposed mask should agree with a careful reader's (Dice, 0 to 1); "
    "of an empty mask, the probability that there is no lesion"
)


class FactsTable(QWidget):
    """Three numbers with their names.

    Parameters
    ----------
    parent : QWidget, optional
        The panel.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setVerticalSpacing(4)
        self._grid.setColumnStretch(0, 1)
        self._lesions = self._add_row("Lesions", _LESIONS)
        self._area = self._add_row("Area", _AREA)
        self._expected = self._add_row("Expected agreement (Dice)", _EXPECTED)

    def set_view(self, view: FrameView) -> None:
        """Show a frame's numbers."""
        self._lesions.setText(str(view.lesions))
        area = f"{view.area_px:,} px".replace(",", "\N{NARROW NO-BREAK SPACE}")
        if view.area_mm2 is not None:
            area += f" · {view.area_mm2:.1f} mm²"
        self._area.setText(area if view.lesions else "")
        self._expected.setText("" if view.expected_dice is None else f"{view.expected_dice:.2f}")

    def _add_row(self, name: str, explanation: str) -> QLabel:
        row = self._grid.rowCount()
        title, value = QLabel(name), QLabel()
        value.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        for column, label in enumerate((title, value)):
            label.setToolTip(explanation)
            self._grid.addWidget(label, row, column)
        return value
