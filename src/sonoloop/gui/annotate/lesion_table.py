"""The lesions of a frame: number, class, size; select to go there, delete; one row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from scipy.ndimage import find_objects

from sonoloop.errors import SonoloopError
from sonoloop.gui.annotate.layers import Target, find_layer, read_mask
from sonoloop.gui.annotate.session import Session, take_up_brush
from sonoloop.gui.widgets import row, show_problem, single_shot, themed_icon
from sonoloop.imaging.overlay import lesion_colour
from sonoloop.values import CLASSES, ClassName, Label, Prediction

_MOST = 255
_SHOWN = 6  # rows, before the table scrolls
# a lesion is one of these; a frame without one is normal
_CHOICES: tuple[ClassName, ...] = ("benign", "malignant")
_NOT_SAID = "not said"
_SETTLE_MS = 60
_ZOOMED = 0.5  # of the canvas, that a lesion takes


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion of a mask.

    Parameters
    ----------
    number : int
        As in the mask.
    label : str, optional
        The class that was given to it.
    box : tuple of slice
        Its rows and columns.
    area : int
        In pixels.
    """

    number: int
    label: ClassName | None
    box: tuple[slice, slice]
    area: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        rows, columns = self.box
        return columns.stop - columns.start, rows.stop - rows.start


def find_lesions(mask: NDArray[np.uint8], classes: Mapping[int, ClassName]) -> tuple[Lesion, ...]:
    """List the lesions of a mask by their numbers."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return ()
    # most of an image is no lesion
    top, left = int(rows[0]), int(columns[0])
    drawn = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    areas = np.bincount(drawn.ravel(), minlength=_MOST + 1)
    found = []
    for number, box in enumerate(find_objects(drawn), start=1):
        if box is not None:
            down, right = box
            whole = (
                slice(top + down.start, top + down.stop),
                slice(left + right.start, left + right.stop),
            )
            found.append(Lesion(number, classes.get(number), whole, int(areas[number])))
    return tuple(found)


def worst(classes: Mapping[int, ClassName]) -> ClassName | None:
    """Give the worst of the classes of lesions: that of the frame, unless the annotator says otherwise."""
    return max(classes.values(), key=CLASSES.index, default=None)


def follow(
    label: Label | None, before: Mapping[int, ClassName], after: Mapping[int, ClassName]
) -> Label | None:
    """Give the frame's class after those of its lesions changed; one that the annotator chose apart stays."""
    if label is None or label == worst(before):
        return worst(after) or label
    return label


def say_size(lesion: Lesion, spacing: tuple[float, float] | None) -> str:
    """Say width and height, in mm only where the image is calibrated."""
    width, height = lesion.size
    if spacing is None:
        return f"{width} x {height} px"
    return f"{width * spacing[1]:.1f} x {height * spacing[0]:.1f} mm"


def say_area(lesion: Lesion, spacing: tuple[float, float] | None) -> str:
    """Say the area, in mm² too where the image is calibrated."""
    area = f"{lesion.area} px"
    return area if spacing is None else f"{area}, {lesion.area * spacing[0] * spacing[1]:.1f} mm²"


class LesionTable(QWidget):
    """Lists the current frame's lesions, and changes them.

    Parameters
    ----------
    session : Session
        Where the frames are.
    parent : QWidget, optional
        The panel.
    """

    acted = Signal()

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._listed: tuple[object, ...] = ()
        self._lesions: tuple[Lesion, ...] = ()
        self._filling = False
        self._table = QTableWidget(0, 4)
        self._table.setHorizontalHeaderLabels(["", "Class", "Size", ""])
        self._table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self._table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self._table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self._table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._table.setTabKeyNavigation(False)
        self._table.setAccessibleName("Lesions of this frame")
        self._table.setToolTip("Select one to go to it on the canvas")
        columns, rows = self._table.horizontalHeader(), self._table.verticalHeader()
        assert columns is not None and rows is not None
        rows.hide()
        columns.setMinimumSectionSize(24)
        for narrow in (0, 1, 3):
            columns.setSectionResizeMode(narrow, QHeaderView.ResizeMode.ResizeToContents)
        columns.setSectionResizeMode(2, QHeaderView.ResizeMode.Stretch)
        self._new = QPushButton("New lesion")
        self._new.setToolTip("Draw with the next free number, as a lesion of its own")
        self._new.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self._table)
        column.addLayout(row((QWidget(), 1), (self._new, 0)))
        self._table.itemSelectionChanged.connect(self._on_selected)
        self._table.cellClicked.connect(lambda at, _column: self.jump(self._lesions[at].number))
        self._new.clicked.connect(self.begin_lesion)
        # after the image and its mask: the table need not be on the screen with them
        self._timer = single_shot(self, _SETTLE_MS, self.refresh)
        session.changed.connect(self._timer.start)
        self.refresh()

    def lesions(self) -> tuple[Lesion, ...]:
        """Return what is drawn by now."""
        self.refresh()
        return self._lesions

    def set_class(self, number: int, label: ClassName | None) -> None:
        """Give a lesion a class, or take it back; the frame's follows. One step of undo."""
        target = self._session.target
        if target is None:
            return
        state = self._session.state(target)
        classes = {n: name for n, name in state.lesions.items() if n != number}
        if label is not None:
            classes[number] = label
        if classes != state.lesions:
            label_after = follow(state.label, self._drawn(state.lesions), self._drawn(classes))
            self._session.decide(target, label_after, lesions=classes)
        self.acted.emit()

    def delete(self, number: int) -> None:
        """Take a lesion off the frame, with its class; one step of undo."""
        session, target = self._session, self._session.target
        if target is None:
            return
        try:
            mask = read_mask(session.viewer, target)
        except SonoloopError as error:
            show_problem(error)
            return
        if mask is not None:
            state = session.state(target)
            classes = {n: name for n, name in state.lesions.items() if n != number}
            label = follow(state.label, self._drawn(state.lesions), self._drawn(classes))
            mask[mask == number] = 0
            session.write(target, mask, label, lesions=classes, by_hand=True)
            session.changed.emit()
        self.acted.emit()

    def jump(self, number: int) -> None:
        """Select a lesion for the brush, and look at it."""
        session, target = self._session, self._session.target
        lesion = next((each for each in self.lesions() if each.number == number), None)
        layer = None if target is None else find_layer(session.viewer, target.image, "lesions")
        if target is None or lesion is None or layer is None:
            return
        session.viewer.layers.selection.active = layer
        layer.selected_label = number
        rows, columns = lesion.box
        corners = [
            np.asarray(layer.data_to_world((*target.index, *at)))[-2:]
            for at in ((rows.start - 0.5, columns.start - 0.5), (rows.stop - 0.5, columns.stop - 0.5))
        ]
        low, high = np.min(corners, axis=0), np.max(corners, axis=0)
        camera = session.viewer.scene.camera
        camera.center = (0.0, *(float(part) for part in (low + high) / 2))
        camera.zoom = float(_ZOOMED * np.min(np.asarray(session.viewer.canvas.size) / (high - low)))
        self.acted.emit()

    def begin_lesion(self) -> None:
        """Take up the brush with the next free number."""
        session = self._session
        take_up_brush(session)
        target = session.target
        layer = None if target is None else find_layer(session.viewer, target.image, "lesions")
        taken = {lesion.number for lesion in self.lesions()}
        free = next((n for n in range(1, _MOST + 1) if n not in taken), None)
        if layer is not None and free is not None:
            layer.selected_label = free
        self.acted.emit()

    def redraw(self) -> None:
        """Draw all anew, in the colours of another theme."""
        self._listed = ()
        self.refresh()

    def refresh(self) -> None:
        """List what is drawn by now."""
        target = self._session.target
        plane = _plane(self._session, target)
        if target is None or plane is None:
            self._list((), None, None)
            return
        state = self._session.state(target)
        lesions = find_lesions(plane, state.lesions)
        self._list(lesions, target.spacing, _selected(self._session, target))
        _write_features(self._session, target, lesions, state.prediction, plane)

    def _drawn(self, classes: Mapping[int, ClassName]) -> dict[int, ClassName]:
        """Leave out the classes of lesions that are not drawn any more."""
        numbers = {lesion.number for lesion in self.lesions()}
        return {number: name for number, name in classes.items() if number in numbers}

    def _list(
        self, lesions: tuple[Lesion, ...], spacing: tuple[float, float] | None, selected: int | None
    ) -> None:
        self._new.setEnabled(self._session.target is not None)
        if (lesions, spacing) != self._listed:
            self._listed, self._lesions = (lesions, spacing), lesions
            self._filling = True
            # rows stay: a list that is open under the mouse stays open
            self._table.setRowCount(len(lesions))
            for at, lesion in enumerate(lesions):
                self._fill(at, lesion, spacing)
            self._filling = False
            self._table.setVisible(bool(lesions))
            self._fit_height()
        numbers = [lesion.number for lesion in lesions]
        at = numbers.index(selected) if selected in numbers else -1
        if at != self._table.currentRow():
            self._filling = True
            self._table.setCurrentCell(at, 0) if at >= 0 else self._table.clearSelection()
            self._filling = False

    def _fill(self, at: int, lesion: Lesion, spacing: tuple[float, float] | None) -> None:
        number = QTableWidgetItem(str(lesion.number))
        number.setForeground(QColor(*lesion_colour(lesion.number)))
        size = QTableWidgetItem(say_size(lesion, spacing))
        size.setToolTip(f"Width and height; area {say_area(lesion, spacing)}")
        self._table.setItem(at, 0, number)
        self._table.setItem(at, 2, size)
        choice = QComboBox()
        choice.addItems([_NOT_SAID, *_CHOICES])
        choice.setCurrentText(lesion.label or _NOT_SAID)
        choice.setAccessibleName(f"Class of lesion {lesion.number}")
        choice.setToolTip("The class of this lesion; the frame's is the worst of them until you choose it")
        choice.activated.connect(partial(self._on_chosen, lesion.number))
        delete = QToolButton()
        delete.setIcon(themed_icon("delete", self._session.viewer.theme))
        delete.setAccessibleName(f"Delete lesion {lesion.number}")
        delete.setToolTip("Take this lesion off the frame; Ctrl+Z brings it back")
        delete.clicked.connect(partial(self._on_delete, lesion.number))
        for widget, column in ((choice, 1), (delete, 3)):
            widget.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            self._table.setCellWidget(at, column, widget)

    def _fit_height(self) -> None:
        shown = min(self._table.rowCount(), _SHOWN)
        header = self._table.horizontalHeader()
        assert header is not None
        height = header.sizeHint().height() + 2 * self._table.frameWidth()
        height += sum(self._table.rowHeight(at) for at in range(shown))
        self._table.setFixedHeight(QSize(0, height).height())

    def _on_chosen(self, number: int, at: int) -> None:
        self.set_class(number, None if at == 0 else _CHOICES[at - 1])

    def _on_delete(self, number: int, *_: object) -> None:
        self.delete(number)

    def _on_selected(self) -> None:
        at = self._table.currentRow()
        if not self._filling and 0 <= at < len(self._lesions):
            self.jump(self._lesions[at].number)


def _plane(session: Session, target: Target | None) -> NDArray[np.uint8] | None:
    """Take a frame's mask without a copy; None where there is none, or none that can be stored."""
    layer = None if target is None else find_layer(session.viewer, target.image, "lesions")
    if target is None or layer is None or not target.is_within:
        return None
    plane = np.asarray(layer.data[target.index])
    if plane.dtype == np.uint8:
        return plane
    try:
        return read_mask(session.viewer, target)
    except SonoloopError:
        return None  # said at Accept


def _selected(session: Session, target: Target) -> int | None:
    layer = find_layer(session.viewer, target.image, "lesions")
    return None if layer is None else int(layer.selected_label)


def _write_features(
    session: Session,
    target: Target,
    lesions: tuple[Lesion, ...],
    prediction: Prediction | None,
    plane: NDArray[np.uint8],
) -> None:
    """Have napari's tooltip show each lesion's class, and how sure the model is of its pixels."""
    layer: Any = find_layer(session.viewer, target.image, "lesions")
    sure = [_confidence(lesion, prediction, plane) for lesion in lesions]
    # napari says nothing of what is None, as of the background
    features = {
        "index": [0, *(lesion.number for lesion in lesions)],
        "class": [None, *(lesion.label or _NOT_SAID for lesion in lesions)],
        "confidence": [None, *sure],
    }
    # pandas keeps None as NaN, which is a float
    now = {
        str(name): [None if isinstance(value, float) else value for value in values]
        for name, values in layer.features.items()
    }
    if now != features:
        layer.features = features


def _confidence(lesion: Lesion, prediction: Prediction | None, plane: NDArray[np.uint8]) -> str | None:
    if prediction is None or prediction.lesion.shape != plane.shape:
        return None
    inside = plane[lesion.box] == lesion.number
    return f"{100 * float(prediction.lesion[lesion.box][inside].mean()):.0f} %"
