"""The class table: the model's probabilities as bars, the annotator's choice beside them."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QButtonGroup, QGridLayout, QLabel, QProgressBar, QRadioButton, QSizePolicy, QWidget

from sonoloop.gui.annotate.keys import KEYS
from sonoloop.gui.annotate.session import FrameView
from sonoloop.values import CLASSES, LABELS, ClassName, Label

_KEYS = {key.action.removeprefix("choose_"): key.key for key in KEYS}


class ClassTable(QWidget):
    """Shows probabilities and takes a class; nothing is chosen until the annotator chooses.

    Parameters
    ----------
    parent : QWidget, optional
        The panel.
    """

    chosen = Signal(str)  # one of LABELS

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._names: dict[Label, QLabel] = {}
        self._bars: dict[ClassName, QProgressBar] = {}
        self._numbers: dict[ClassName, QLabel] = {}
        self._choices: dict[Label, QRadioButton] = {}
        self._group = QButtonGroup(self)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(1, 1)
        for column, heading in enumerate(("Class", "Model", "", "Yours")):
            grid.addWidget(QLabel(heading), 0, column)
        for row, name in enumerate(CLASSES, start=1):
            self._add_probability(grid, row, name)
        for row, label in enumerate(LABELS, start=1):
            self._names[label] = QLabel(label)
            grid.addWidget(self._names[label], row, 0)
            self._add_choice(grid, row, label)
        self._group.idClicked.connect(self._on_clicked)
        self.set_probabilities(None)

    def set_probabilities(self, probabilities: Mapping[ClassName, float] | None) -> None:
        """Show the model's probabilities; None where it was not asked."""
        known = probabilities or {}
        best = max(known, key=lambda name: known[name], default=None)
        # each bar would draw the whole window anew at once, and wait for it
        self.setUpdatesEnabled(False)
        for name in CLASSES:
            self._bars[name].setValue(round(1000 * known.get(name, 0)))
            self._numbers[name].setText(f"{100 * known[name]:.0f} %" if name in known else "")
            for label in (self._names[name], self._numbers[name]):
                font = label.font()
                font.setBold(name == best)
                label.setFont(font)
        self.setUpdatesEnabled(True)

    def set_colour(self, colour: str) -> None:
        """Draw the bars in a colour of the theme."""
        for bar in self._bars.values():
            bar.setStyleSheet(f"QProgressBar::chunk {{ background-color: {colour}; }}")

    def value(self) -> Label | None:
        """Return the class that is chosen."""
        for name, choice in self._choices.items():
            if choice.isChecked():
                return name
        return None

    def set_value(self, label: Label | None) -> None:
        """Show a choice, or none."""
        self._group.setExclusive(label is not None)
        for name, choice in self._choices.items():
            choice.setChecked(name == label)
        self._group.setExclusive(True)

    def _add_probability(self, grid: QGridLayout, row: int, name: ClassName) -> None:
        bar = QProgressBar()
        bar.setRange(0, 1000)
        bar.setTextVisible(False)
        bar.setFixedHeight(12)
        bar.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        bar.setAccessibleName(f"Model's probability of {name}")
        number = QLabel()
        number.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        number.setMinimumWidth(number.fontMetrics().horizontalAdvance("100 %"))
        self._bars[name] = bar
        self._numbers[name] = number
        grid.addWidget(bar, row, 1)
        grid.addWidget(number, row, 2)

    def _add_choice(self, grid: QGridLayout, row: int, name: Label) -> None:
        choice = QRadioButton(_KEYS.get(name, ""))
        choice.setAccessibleName(f"Your class: {name}")
        choice.setToolTip(f"Call this frame {name}" + (f" (key {_KEYS[name]})" if name in _KEYS else ""))
        choice.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._group.addButton(choice, LABELS.index(name))
        self._choices[name] = choice
        grid.addWidget(choice, row, 3)

    def _on_clicked(self, number: int) -> None:
        self.chosen.emit(LABELS[number])


_LESIONS = "How many lesions are drawn, and their area together; in mm² only where the image is calibrated"
_EXPECTED = (
    "How well the proposed mask should agree with a careful reader's (Dice, 0 to 1); "
    "of an empty mask, the probability that there is no lesion"
)


class FactsTable(QWidget):
    """What is drawn in numbers, and how good the proposal should be.

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
        self._expected = self._add_row("Expected Dice", _EXPECTED)

    def set_view(self, view: FrameView) -> None:
        """Show a frame's numbers."""
        area = f"{view.area_px:,} px".replace(",", "\N{NARROW NO-BREAK SPACE}")
        if view.area_mm2 is not None:
            area += f" · {view.area_mm2:.1f} mm²"
        self._lesions.setText(f"{view.lesions} · {area}" if view.lesions else "0")
        self._expected.setText("" if view.expected_dice is None else f"{view.expected_dice:.2f}")

    def _add_row(self, name: str, explanation: str) -> QLabel:
        row = self._grid.rowCount()
        title, value = QLabel(name), QLabel()
        value.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        for column, label in enumerate((title, value)):
            label.setToolTip(explanation)
            self._grid.addWidget(label, row, column)
        return value
