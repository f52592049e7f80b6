"""The notes on the current frame, folded until they are wanted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLineEdit, QToolButton, QVBoxLayout, QWidget

from sonoloop.gui.annotate.layers import Source, Target
from sonoloop.gui.annotate.session import Session
from sonoloop.gui.widgets import show_problem, single_shot, text_label
from sonoloop.gui.workers import JobQueue, Projects

if TYPE_CHECKING:
    from sonoloop.project import Project
    from sonoloop.store.notes import Note

_SETTLE_MS = 200  # a frame that is only passed is not asked for
_MOST = 2_000  # letters


class NotesBox(QWidget):
    """Shows what was written on a frame, and takes more; a note stays for good.

    Parameters
    ----------
    session : Session
        Where the current frame is.
    projects : Projects
        What the worker asks.
    """

    written = Signal()

    def __init__(self, session: Session, *, projects: Projects) -> None:
        super().__init__()
        self._session = session
        self._projects = projects
        self._jobs = JobQueue(latest_only=True, parent=self)
        self._writing = JobQueue(parent=self)
        self.fold = QToolButton()
        self.fold.setText("Notes")
        self.fold.setCheckable(True)
        self.fold.setArrowType(Qt.ArrowType.RightArrow)
        self.fold.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.fold.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.fold.setToolTip("Show and write notes on this frame")
        self._text = text_label(selectable=True)
        self._line = QLineEdit()
        self._line.setPlaceholderText("A note on this frame, without names of persons")
        self._line.setMaxLength(_MOST)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.fold, self._text, self._line):
            layout.addWidget(widget)
        self._settle = single_shot(self, _SETTLE_MS, self._read)
        self.fold.toggled.connect(self._unfold)
        self._line.returnPressed.connect(self._write)
        session.target_changed.connect(self._on_target)
        self._unfold(False)

    def close_session(self) -> None:
        """Ask no more; what is being written is still written."""
        self._settle.stop()
        self._jobs.drop()
        self._writing.mute()

    def _unfold(self, on: bool) -> None:
        self.fold.setArrowType(Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow)
        self._line.setVisible(on)
        self._on_target()

    def _on_target(self) -> None:
        self._show([])
        self._jobs.drop()
        self._line.setEnabled(self._session.target is not None)
        if self.fold.isChecked():
            self._settle.start()

    def _read(self) -> None:
        target = self._session.target
        if target is not None:
            self._ask(self._jobs, target, None)

    def _write(self) -> None:
        target, text = self._session.target, self._line.text().strip()
        if target is not None and text:
            self._line.clear()
            self._ask(self._writing, target, text)
            self.written.emit()

    def _ask(self, jobs: JobQueue, target: Target, text: str | None) -> None:
        preferences = self._session.preferences()
        jobs.submit(
            partial(
                self._projects.ask,
                preferences.store,
                partial(_read_notes, target.capture(), text),
                annotator=preferences.annotator,
            ),
            done=partial(self._on_notes, target),
            failed=partial(self._on_failed, target, text),
        )

    def _on_notes(self, target: Target, notes: list[Note]) -> None:
        current = self._session.target
        if current is not None and current.key == target.key:
            self._show(notes)

    def _on_failed(self, target: Target, text: str | None, error: Exception) -> None:
        show_problem(error)
        current = self._session.target
        if text is not None and current is not None and current.key == target.key and not self._line.text():
            self._line.setText(text)  # to be written again

    def _show(self, notes: list[Note]) -> None:
        lines = (
            f"{note.created.astimezone():%Y-%m-%d %H:%M} {note.annotator}: {note.text}" for note in notes
        )
        self._text.setText("\n".join(lines))
        self._text.setVisible(bool(notes) and self.fold.isChecked())
        self.fold.setText(f"Notes ({len(notes)})" if notes else "Notes")


def _read_notes(source: Source, text: str | None, project: Project) -> list[Note]:
    """Write a note, if there is one, and list all on the frame, in the worker."""
    frame = source.frame()
    if text is not None:
        project.note(frame, text)
    return project.notes(frame.id)
