"""A model's numbers fitted on this project's test frames: what it changes, and whether to use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from threading import Event as Flag
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QApplication, QFrame, QPushButton, QVBoxLayout, QWidget

from sonoloop.gui.widgets import breakable, row, show_problem, text_label
from sonoloop.gui.words import in_panel_words
from sonoloop.gui.workers import JobQueue
from sonoloop.jobs.events import Calibrated, Event, Notice, Progress, Unreadable

if TYPE_CHECKING:
    from sonoloop.project import Project

_NUMBERS = {
    "temperature": "Temperature",
    "normal_gate": "Gate for normals",
    "threshold": "Threshold",
    "min_area": "Smallest lesion",
}
_ARROW = "\N{RIGHTWARDS ARROW}"
# asks a project in the worker
Ask = Callable[[Callable[["Project"], "Calibrated | None"]], "Calibrated | None"]


class _Reports(QObject):
    """Carries what the worker tells to the GUI thread."""

    told = Signal(str)


class CalibrationBox(QFrame):
    """Shows one calibration, from its start to the decision; hidden while there is none."""

    used = Signal(object)  # what was found, to be used
    changed = Signal()
    ended = Signal()  # with a model more, perhaps

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._jobs = JobQueue(parent=self)
        self._reports = _Reports()
        self._cancelled = Flag()
        self._found: Calibrated | None = None
        self._text = text_label(selectable=True)
        self._cancel = QPushButton("Cancel")
        self._cancel.setToolTip("Stop; the model in use stays")
        self._use = QPushButton("Use the new numbers")
        self._use.setToolTip("Bring the model with these numbers into use; Roll back undoes it")
        self._keep = QPushButton("Keep the old ones")
        self._keep.setToolTip("The model with the new numbers stays in the table, and is not used")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.addWidget(self._text)
        layout.addWidget(self._cancel)
        layout.addLayout(row((self._use, 1), (self._keep, 1)))
        for button in (self._cancel, self._use, self._keep):
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._cancel.clicked.connect(self.cancel)
        self._use.clicked.connect(self._on_use)
        self._keep.clicked.connect(self.clear)
        self._reports.told.connect(self._on_told)
        # napari's window goes without closing what is docked in it
        self.destroyed.connect(self._cancelled.set)
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self._cancelled.set)
        self.clear()

    @property
    def busy(self) -> bool:
        """Whether one is under way."""
        return self._jobs.busy

    def start(self, ask: Ask, model: str, device: str, engine: str) -> None:
        """Calibrate a model, of a version, in a process of its own."""
        self.clear()
        self._cancelled = Flag()
        self._show("Starting\N{HORIZONTAL ELLIPSIS}", busy=True)
        told, cancelled = self._reports.told.emit, self._cancelled
        body = partial(_calibrate, model, {"device": device, "engine": engine}, told, cancelled)
        self._jobs.submit(partial(ask, body), done=self._on_done, failed=self._on_failed)
        self.changed.emit()

    def cancel(self) -> None:
        """Stop at the next step; the model in use stays."""
        self._cancelled.set()
        self._cancel.setEnabled(False)

    def clear(self) -> None:
        """Show nothing; what is under way is stopped, and not heard of again."""
        self._cancelled.set()
        self._jobs.drop()
        self._found = None
        self.hide()
        self.changed.emit()

    def close_session(self) -> None:
        """Stop, and tell nobody."""
        self._cancelled.set()
        self._jobs.mute()

    def _on_told(self, text: str) -> None:
        if self._jobs.busy:
            self._text.setText(breakable(in_panel_words(text)))

    def _on_done(self, found: Calibrated | None) -> None:
        if found is None:  # cancelled, perhaps when the model was there
            self.clear()
            self.ended.emit()
            return
        self._found = found
        self._show(describe(found), busy=False)
        self.changed.emit()
        self.ended.emit()

    def _on_failed(self, error: Exception) -> None:
        wanted = not self._cancelled.is_set()
        self.clear()
        self.ended.emit()
        if wanted:
            show_problem(error)

    def _on_use(self) -> None:
        found = self._found
        self.clear()
        if found is not None:
            self.used.emit(found)

    def _show(self, text: str, *, busy: bool) -> None:
        self._text.setText(breakable(text))
        self._cancel.setVisible(busy)
        self._cancel.setEnabled(busy)
        new = self._found is not None and self._found.version is not None
        self._use.setVisible(not busy and new)
        self._keep.setVisible(not busy)
        self._keep.setText("Keep the old ones" if new else "Dismiss")
        self.show()


def _calibrate(
    model: str, options: dict[str, str], tell: Callable[[str], None], cancelled: Flag, project: Project
) -> Calibrated | None:
    """Calibrate, in the worker; None where it was cancelled."""
    events: Iterator[Event] = project.calibrating(model, **options)
    found: Calibrated | None = None
    notes: list[str] = []
    # closed early, the process is ended
    with closing(events):  # type: ignore[type-var]
        for event in events:
            if cancelled.is_set():
                return None
            match event:
                case Progress():
                    tell("\n".join([*notes, f"{event.stage}: {event.done} of {event.total}"]))
                case Notice():
                    notes.append(event.message)
                case Unreadable():
                    notes.append(f"{event.image} is left out: {event.error}")
                case Calibrated():
                    found = event
    return found


def describe(found: Calibrated) -> str:
    """Write the numbers and the figures, before and after."""
    lines = []
    for one in found.numbers:
        name = _NUMBERS.get(one.name, one.name)
        change = f"{one.before:g}" if one.before == one.after else f"{one.before:g} {_ARROW} {one.after:g}"
        lines.append(f"{name} {change}" + (f" (left as it was: {one.left})" if one.left else ""))
    if found.version is None:
        return "\n".join([*lines, "Nothing changes: no number does better on these frames, out of fold."])
    lines.append("")
    for figure in found.figures:
        interval = figure.interval
        ends = "" if interval is None else f" [{interval[0]:+.3f}, {interval[1]:+.3f}]"
        lines.append(
            f"{figure.title[0].upper()}{figure.title[1:]} {figure.before:.3f} {_ARROW} {figure.after:.3f} "
            f"({figure.difference:+.3f}{ends})"
        )
    lines += [
        "",
        f"Out of fold on {found.frames} frames of {found.groups} groups: each is judged with numbers fitted "
        f"on other groups. {found.model} has the weights of {found.base}.",
    ]
    return "\n".join(lines)
