"""Live curves of a training: its loss, and the Dice on images that do not train."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from sonoloop.gui.train.progress import JobProgress

if TYPE_CHECKING:
    import pyqtgraph

_HEIGHT = 140
# of Okabe and Ito: told apart by everyone
_LOSS, _DICE = "#E69F00", "#56B4E9"


class Curves(QWidget):
    """Two small plots side by side; they only show, and take no mouse."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        import pyqtgraph  # noqa: PLC0415 - takes a while, and most panels never show a curve

        self._graph = pyqtgraph
        self._plots = [self._make_plot("Training loss"), self._make_plot("Validation Dice")]
        plots = QHBoxLayout()
        plots.setSpacing(4)
        for plot in self._plots:
            plots.addWidget(plot, 1)
        self._caption = QLabel()
        self._caption.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addLayout(plots)
        layout.addWidget(self._caption)
        self._loss = self._plots[0].plot()
        self._dice = self._plots[1].plot()
        self._start = pyqtgraph.InfiniteLine(angle=0)
        self._start.setVisible(False)
        self._plots[1].addItem(self._start)
        # of few images none is kept apart
        self._none = pyqtgraph.TextItem("from 20 groups on", anchor=(0.5, 0.5))
        font = self._none.textItem.font()
        font.setPointSize(8)
        self._none.setFont(font)
        self._none.setVisible(False)
        self._plots[1].addItem(self._none, ignoreBounds=True)
        self.setAccessibleName("Training loss and validation Dice over the epochs")
        self.set_colours("#909090", "#909090")

    def set_colours(self, text: str, faint: str) -> None:
        """Draw in the theme's colours."""
        pen = self._graph.mkPen
        for plot, title in zip(self._plots, ("Training loss", "Validation Dice"), strict=True):
            plot.setTitle(title, color=text, size="9pt")
            for name in ("left", "bottom"):
                axis = plot.getAxis(name)
                axis.setPen(pen(faint))
                axis.setTextPen(pen(text))
            plot.setLabel("bottom", "epoch", color=text, **{"font-size": "8pt"})
        self._loss.setPen(pen(_LOSS, width=2))
        self._dice.setPen(pen(_DICE, width=2))
        self._dice.setSymbol("o")
        self._dice.setSymbolSize(5)
        self._dice.setSymbolPen(pen(_DICE))
        self._dice.setSymbolBrush(_DICE)
        self._none.setColor(text)
        self._loss.setSymbolPen(pen(_LOSS))
        self._loss.setSymbolBrush(_LOSS)
        self._loss.setSymbolSize(5)
        self._start.setPen(pen(text, style=Qt.PenStyle.DashLine))

    def set_progress(self, progress: JobProgress) -> None:
        """Show a job's curves; the dashed line is the Dice of the model that it starts from."""
        for curve, points in ((self._loss, progress.losses), (self._dice, progress.dices)):
            curve.setData([x for x, _ in points], [y for _, y in points])
        start = next((dice for epoch, dice in progress.dices if epoch == 0), None)
        self._start.setVisible(start is not None)
        if start is not None:
            self._start.setValue(start)
        self._caption.setText(describe_curves(progress))
        self._caption.setVisible(bool(self._caption.text()))
        # a line needs two points
        self._loss.setSymbol("o" if len(progress.losses) == 1 else None)
        epochs = max(progress.epochs, 1)
        self._none.setVisible(progress.unwatched and not progress.dices)
        self._none.setPos(epochs / 2, 0.5)
        for plot, points, top in zip(
            self._plots, (progress.losses, progress.dices), (None, 1.0), strict=True
        ):
            plot.setXRange(0, epochs, padding=0.02)
            plot.setYRange(*_range([y for _, y in points], top), padding=0)

    def _make_plot(self, title: str) -> pyqtgraph.PlotWidget:
        plot = self._graph.PlotWidget(background=None)
        plot.setFixedHeight(_HEIGHT)
        plot.setMinimumWidth(60)
        plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        plot.setMouseEnabled(x=False, y=False)
        plot.setMenuEnabled(False)
        plot.hideButtons()
        plot.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        plot.setFrameShape(plot.Shape.NoFrame)
        plot.setAccessibleName(title)
        axis = plot.getAxis("left")
        axis.setWidth(34)
        axis.enableAutoSIPrefix(False)
        return plot


def describe_curves(progress: JobProgress) -> str:
    """Explain what may look strange: a dashed line, and curves that are empty yet."""
    told = []
    if any(epoch == 0 for epoch, _ in progress.dices):
        told.append("Dashed line: the model that it starts from")
    if not progress.unwatched and not any(epoch > 0 for epoch, _ in progress.dices):
        told.append("The curve of the Dice begins after the first epoch")
    if progress.unwatched and not progress.dices:
        told.append("The Dice is measured from 20 patients, or images without near copies, on")
    return ". ".join(told)


def _range(values: Sequence[float], top: float | None) -> tuple[float, float]:
    """Give the ends of an axis: what there is with a margin, from 0 on and up to the top."""
    finite = [value for value in values if isfinite(value)]
    if not finite:
        return 0.0, top or 1.0
    low, high = min(finite), max(finite)
    margin = max(0.1 * (high - low), 0.02)
    return max(0.0, low - margin), high + margin if top is None else min(top, high + margin)
