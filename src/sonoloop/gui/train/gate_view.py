"""How the comparison with the model in use ended: verdict, figures, pictures, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from sonoloop.gui.widgets import WhyBox, show_problem, text_label
from sonoloop.gui.workers import JobQueue
from sonoloop.jobs.events import Gate

# a shape each: colour alone tells nobody apart
_VERDICTS = {
    "promote": ("\N{BLACK UP-POINTING TRIANGLE}", "Better: promote"),
    "refuse": ("\N{BLACK DOWN-POINTING TRIANGLE}", "Worse: refuse"),
    "inconclusive": ("\N{BLACK DIAMOND}", "Inconclusive"),
}
_TITLES = {"scatter": "Before and after", "improved": "Most improved", "harmed": "Most harmed"}
_THUMBNAIL = 88


class GateBox(QFrame):
    """Shows a comparison; hidden while there is none."""

    used = Signal(object)  # why, where a person decides against the gate's word; None on its word

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._gate: Gate | None = None
        self._verdict = text_label(selectable=True)
        font = self._verdict.font()
        font.setBold(True)
        font.setPointSizeF(font.pointSizeF() * 1.25)
        self._verdict.setFont(font)
        self._figures, self._reason, self._set, self._changed, self._state = (
            text_label(selectable=True) for _ in range(5)
        )
        self._pictures = _Pictures()
        self._use = QPushButton("Use it")
        self._use.setToolTip("Bring this model into use, as the comparison says")
        self._anyway = QPushButton("Use anyway")
        self._anyway.setToolTip("Bring this model into use against the comparison; asks why, and keeps it")
        self._why = WhyBox()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(6)
        parts: tuple[QWidget, ...] = (self._verdict, self._figures, self._reason, self._set, self._pictures)
        for part in (*parts, self._changed, self._use, self._anyway, self._why, self._state):
            layout.addWidget(part)
        for button in (self._use, self._anyway):
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._use.clicked.connect(lambda: self.used.emit(None))
        self._anyway.clicked.connect(self._ask_why)
        self.hide()

    def set_gate(self, gate: Gate | None, *, model: str, in_use: bool, fate: str | None = None) -> None:
        """Show how a comparison ended; `fate` says why the model cannot be used any more, or at present."""
        self.setVisible(gate is not None)
        if gate is not self._gate:
            self._gate = gate
            self._why.clear()
            self._pictures.set_files({} if gate is None else gate.pictures)
        if gate is None:
            return
        shape, words = _VERDICTS.get(gate.verdict, ("", gate.verdict))
        self._verdict.setText(f"{shape} {words}")
        self._verdict.setAccessibleName(f"Verdict on {model}: {gate.verdict}")
        self._figures.setText(describe_figures(gate))
        self._reason.setText(describe_reason(gate))
        self._set.setText(describe_set(gate, model))
        better = gate.verdict == "promote"
        free = not in_use and fate is None
        self._use.setVisible(better and free)
        self._anyway.setVisible(not better and free)
        self._state.setText("In use now" if in_use else fate or "")
        self._state.setVisible(not free)
        if not free:
            self._why.clear()

    def set_changed(self, names: Mapping[str, Sequence[str]]) -> None:
        """Name the images in the pictures of those that changed most, from the top."""
        rows = [
            f"{_TITLES[name]}: {', '.join(each)}" for name, each in names.items() if name in _TITLES and each
        ]
        self._changed.setText("\n".join(rows))
        self._changed.setVisible(bool(rows))

    def _ask_why(self) -> None:
        self._why.ask("Use it against the comparison: why?", self.used.emit)


def describe_figures(gate: Gate) -> str:
    """Write the differences, candidate less incumbent."""
    parts = []
    if gate.difference is not None:
        text = f"Dice {_sign(gate.difference)}"
        if gate.interval is not None:
            text += f" [{_sign(gate.interval[0])}, {_sign(gate.interval[1])}]"
        parts.append(text)
    for value, name in ((gate.missed_malignant, "missed malignant"), (gate.false_alarms, "false alarms")):
        if value is not None:
            parts.append(f"{name} {_points(value)}")
    if gate.auc is not None:
        parts.append(f"AUC {_sign(gate.auc)}")
    return ", ".join(parts)


def describe_reason(gate: Gate) -> str:
    """Say the reason without the Dice and its interval, which the figures have."""
    reason = gate.reason
    if gate.difference is None:
        return reason
    told = f" {gate.difference:+.3f}"
    if gate.interval is not None:
        told += f" [{gate.interval[0]:+.3f}, {gate.interval[1]:+.3f}]"
    return reason.replace(f"mean Dice{told}", "mean Dice", 1)


def describe_set(gate: Gate, model: str) -> str:
    """Say on what was compared, and how often it was looked at."""
    return f"{model} on {gate.groups} test groups (set {gate.test_set}, look {gate.looks})"


def _sign(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _points(value: float) -> str:
    """Write a change of a share in percentage points, to a tenth below one."""
    points = round(100 * value) or round(100 * value, 1)
    if not points:
        return "unchanged"
    unit = "point" if abs(points) == 1 else "points"
    return f"{points:+g} {unit}".replace("-", "\N{MINUS SIGN}")


class _Pictures(QWidget):
    """Thumbnails that open larger; read in a worker."""

    def __init__(self) -> None:
        super().__init__()
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(4)
        self._thumbnails: list[_Thumbnail] = []
        self._jobs = JobQueue(latest_only=True, parent=self)

    def set_files(self, files: Mapping[str, str]) -> None:
        """Show the pictures of some files, by name."""
        for thumbnail in self._thumbnails:
            self._row.removeWidget(thumbnail)
            thumbnail.hide()
            thumbnail.deleteLater()
        self._thumbnails.clear()
        if files:
            self._jobs.submit(lambda: _read(files), done=self._show, failed=show_problem)

    def _show(self, images: Mapping[str, QImage]) -> None:
        for name, image in images.items():
            thumbnail = _Thumbnail(_TITLES.get(name, name), image)
            self._thumbnails.append(thumbnail)
            self._row.addWidget(thumbnail, 1)


def _read(files: Mapping[str, str]) -> dict[str, QImage]:
    # a QImage belongs to no thread; what cannot be read is left out
    images = {name: QImage(path) for name, path in files.items()}
    return {name: image for name, image in images.items() if not image.isNull()}


class _Thumbnail(QWidget):
    """A picture with its title."""

    def __init__(self, title: str, image: QImage) -> None:
        super().__init__()
        self._title, self._image = title, image
        self._window: QWidget | None = None
        picture = QPushButton()
        picture.setFlat(True)
        picture.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setToolTip(f"{title}: open larger")
        picture.setAccessibleName(f"{title}: open larger")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        label = QLabel(title)
        label.setWordWrap(True)
        label.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        ratio = self.devicePixelRatioF()
        side = round(_THUMBNAIL * ratio)
        pixmap = QPixmap.fromImage(
            image.scaled(
                side,
                side,
                Qt.AspectRatioMode.KeepAspectRatio,
                Qt.TransformationMode.SmoothTransformation,
            )
        )
        pixmap.setDevicePixelRatio(ratio)
        picture.setIcon(QIcon(pixmap))
        picture.setIconSize(pixmap.deviceIndependentSize().toSize())
        picture.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        picture.setFixedHeight(_THUMBNAIL + 4)
        picture.clicked.connect(self.open)
        layout.addWidget(picture)
        layout.addWidget(label)

    def open(self) -> None:
        """Show the picture in a window of its own."""
        if self._window is None:
            self._window = QScrollArea(self)
            self._window.setWindowFlag(Qt.WindowType.Window)
            self._window.setWindowTitle(self._title)
            label = QLabel()
            label.setPixmap(QPixmap.fromImage(self._image))
            self._window.setWidget(label)
            self._window.resize(min(self._image.width() + 4, 1100), min(self._image.height() + 4, 800))
        self._window.show()
        self._window.raise_()
