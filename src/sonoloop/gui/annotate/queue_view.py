"""The queue as a list with thumbnails, its filter and its order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from qtpy.QtCore import QAbstractListModel, QModelIndex, QObject, QSize, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QComboBox, QLineEdit, QListView, QVBoxLayout, QWidget

from sonoloop.errors import ImageError
from sonoloop.gui.annotate.queue_list import ORDERS, STATUSES, Order, QueueEntry, QueueList
from sonoloop.gui.widgets import row, single_shot
from sonoloop.gui.workers import JobQueue, ignore
from sonoloop.imaging.io import read_study
from sonoloop.imaging.overlay import to_display

_SIDE = 40  # pixels of a thumbnail
_MOST_THUMBNAILS = 600  # some 4 MB
_BATCH = 12
_HEIGHT = 150
_EVERY = "every status"
_BY: dict[Order, str] = {"name": "by name", "random": "random order", "review value": "by review value"}
_ORDER_HELP = (
    "By review value: what the model is least sure of comes first. Frames that judge a model are mixed in at "
    "random, so that their place tells nothing"
)


class QueueModel(QAbstractListModel):
    """The frames that the filter lets through, each with its status and a thumbnail made in a worker.

    Parameters
    ----------
    parent : QObject, optional
        The owner.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.entries: list[QueueEntry] = []
        self._icons: OrderedDict[str, QIcon | None] = OrderedDict()
        self._wanted: list[QueueEntry] = []
        self._jobs = JobQueue(parent=self)
        self._make = single_shot(self, 60, self._make_thumbnails)

    def show(self, entries: list[QueueEntry]) -> None:
        """Show other frames, or the same with other statuses."""
        if len(entries) == len(self.entries) and all(map(_is, entries, self.entries)):
            if entries:
                self.dataChanged.emit(self.index(0), self.index(len(entries) - 1))
            return
        self.beginResetModel()
        self.entries = entries
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802 - Qt's name
        """Count the frames."""
        return 0 if parent is not None and parent.isValid() else len(self.entries)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: ANN401
        """Say a frame's name and status, and give its thumbnail."""
        if not index.isValid() or index.row() >= len(self.entries):
            return None
        entry = self.entries[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return f"{entry.name}\n{describe(entry)}"
        if role == Qt.ItemDataRole.ToolTipRole:
            return "\n".join(filter(None, (str(entry.path), entry.problem or entry.reason)))
        if role == Qt.ItemDataRole.DecorationRole:
            return self._thumbnail(entry)
        return None

    def close(self) -> None:
        """Make no more thumbnails."""
        self._make.stop()
        self._jobs.drop()

    def _thumbnail(self, entry: QueueEntry) -> QIcon | None:
        if entry.key in self._icons:
            self._icons.move_to_end(entry.key)
            return self._icons[entry.key]
        if entry not in self._wanted:
            self._wanted.append(entry)
        if not self._jobs.busy:
            self._make.start()
        return None

    def _make_thumbnails(self) -> None:
        # what was scrolled to last is in sight
        batch, self._wanted = self._wanted[-_BATCH:], self._wanted[:-_BATCH][-_MOST_THUMBNAILS:]
        if batch and not self._jobs.busy:
            places = [(entry.key, entry.path, entry.index) for entry in batch]
            self._jobs.submit(partial(_read_thumbnails, places), done=self._on_thumbnails, failed=ignore)

    def _on_thumbnails(self, made: dict[str, NDArray[np.uint8] | None]) -> None:
        for key, pixels in made.items():
            self._icons[key] = None if pixels is None else _icon(pixels)
        while len(self._icons) > _MOST_THUMBNAILS:
            self._icons.popitem(last=False)
        rows = [number for number, entry in enumerate(self.entries) if entry.key in made]
        if rows:
            self.dataChanged.emit(self.index(min(rows)), self.index(max(rows)))
        if self._wanted:
            self._make.start()


def _is(one: QueueEntry, other: QueueEntry) -> bool:
    return one is other


def describe(entry: QueueEntry) -> str:
    """Say a frame's status, and why or as what, in a line."""
    if entry.problem:
        return "not read"
    what = entry.reason or (entry.decided or "" if entry.status == "accepted" else "")
    return f"{entry.status}: {what}" if what else entry.status


def _read_thumbnails(places: Sequence[tuple[str, Path, int]]) -> dict[str, NDArray[np.uint8] | None]:
    """Read images and make them small, in the worker; None where one cannot be read."""
    made: dict[str, NDArray[np.uint8] | None] = {}
    for key, path, index in places:
        try:
            frame = read_study(path).frames[index]
        except (ImageError, IndexError):
            made[key] = None
            continue
        small = Image.fromarray(to_display(frame.pixels))
        small.thumbnail((_SIDE, _SIDE))
        made[key] = np.ascontiguousarray(small)
    return made


def _icon(pixels: NDArray[np.uint8]) -> QIcon:
    height, width = pixels.shape
    image = QImage(pixels.tobytes(), width, height, width, QImage.Format.Format_Grayscale8)
    return QIcon(QPixmap.fromImage(image))


class QueueView(QWidget):
    """Shows the queue, and takes a frame to go to, a filter and an order.

    Parameters
    ----------
    parent : QWidget, optional
        The panel.
    """

    chosen = Signal(object)  # a QueueEntry
    filtered = Signal()  # by another status or other words, or put in another order

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.queue = QueueList(())
        self._search = QLineEdit()
        self._search.setPlaceholderText("Filter: name, patient, class, reason")
        self._search.setClearButtonEnabled(True)
        self._statuses = QComboBox()
        self._statuses.addItems([_EVERY, *STATUSES])
        self._statuses.setToolTip("Which frames are shown, and gone through")
        self._order = QComboBox()
        self._order.addItems([_BY[order] for order in ORDERS])
        self._order.setToolTip(_ORDER_HELP)
        self.model = QueueModel(self)
        self.list = QListView()
        self.list.setModel(self.model)
        self.list.setUniformItemSizes(True)
        self.list.setIconSize(QSize(_SIDE, _SIDE))
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.list.setMinimumHeight(_HEIGHT)
        self.list.setAccessibleName("Frames of the queue")
        for box, name in ((self._statuses, "Filter by status"), (self._order, "Order of the queue")):
            box.setAccessibleName(name)
            box.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            box.setMinimumContentsLength(8)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self._search)
        layout.addLayout(row((self._statuses, 1), (self._order, 1)))
        layout.addWidget(self.list)
        self._typed = single_shot(self, 200, self._filter)
        self._search.textChanged.connect(lambda _text: self._typed.start())
        self._statuses.currentIndexChanged.connect(lambda _index: self._filter())
        self._order.activated.connect(self._put_in_order)
        self.list.clicked.connect(self._on_clicked)
        self.list.activated.connect(self._on_clicked)

    def set_queue(self, queue: QueueList) -> None:
        """Show another queue, or the same in another order."""
        self.queue = queue
        self._order.setCurrentIndex(ORDERS.index(queue.order))
        self._apply_filter()
        self.refresh()

    def refresh(self) -> None:
        """Show what is known of the frames by now, and where the annotator is."""
        self.model.show(self.queue.shown())
        current = self.queue.current
        at = next((place for place, entry in enumerate(self.model.entries) if entry is current), None)
        if at is not None and at != self.list.currentIndex().row():
            self.list.setCurrentIndex(self.model.index(at))

    def close_session(self) -> None:
        """Make no more thumbnails."""
        self._typed.stop()
        self.model.close()

    def _apply_filter(self) -> None:
        status = self._statuses.currentIndex()
        self.queue.show(STATUSES if status == 0 else (STATUSES[status - 1],), self._search.text())

    def _filter(self) -> None:
        self._apply_filter()
        self.refresh()
        self.filtered.emit()

    def _put_in_order(self, number: int) -> None:
        self.queue.order_by(ORDERS[number])
        self.refresh()
        self.filtered.emit()

    def _on_clicked(self, index: QModelIndex) -> None:
        if 0 <= index.row() < len(self.model.entries):
            self.chosen.emit(self.model.entries[index.row()])
