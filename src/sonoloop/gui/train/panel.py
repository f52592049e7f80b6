"""The Train panel: what there is to learn from, a fine-tuning as it goes, and whether its model gets in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from napari.utils.theme import get_theme
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget
from superqt import QCollapsible

from sonoloop.errors import NotInstalledError, check_installed
from sonoloop.gui.launch import viewer_preferences
from sonoloop.gui.preferences import Preferences
from sonoloop.gui.train.form import RequestForm
from sonoloop.gui.train.gate_view import GateBox
from sonoloop.gui.train.install_box import InstallBox
from sonoloop.gui.train.progress import (
    JobProgress,
    Stage,
    describe_failure,
    describe_left_out,
    describe_progress,
)
from sonoloop.gui.train.watcher import TrainWatch
from sonoloop.gui.widgets import BROKEN, Panel, breakable, row, show_problem, text_label
from sonoloop.gui.words import in_panel_words
from sonoloop.gui.workers import JobQueue, Projects, ignore
from sonoloop.jobs.events import Gate
from sonoloop.jobs.folder import Job
from sonoloop.jobs.process import EXTRA, start_job
from sonoloop.jobs.request import FinetuneRequest

if TYPE_CHECKING:
    import napari

    from sonoloop.gui.train.curves import Curves
    from sonoloop.project import LearningStatus


_FOLDED, _UNFOLDED = "\N{BLACK RIGHT-POINTING SMALL TRIANGLE}", "\N{BLACK DOWN-POINTING SMALL TRIANGLE}"
_ANY_HEIGHT = 16_777_215  # Qt's own, which not every binding tells
_FEWEST = 5  # the training refuses fewer


class LearnableText(QWidget):
    """Says what is new since the model in use, by class and by annotator."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._learnable, self._learn, self._by_annotator = text_label(), text_label(), text_label()
        self._aside = text_label()
        font = self._learnable.font()
        font.setBold(True)
        self._learnable.setFont(font)
        self._learn.setToolTip("What judges was drawn before the prediction was seen, and never trains")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        for label in (self._learnable, self._learn, self._aside, self._by_annotator):
            layout.addWidget(label)

    def set_status(self, status: LearningStatus | None, *, failed: bool = False) -> None:
        """Show what was counted; None while it is being counted, or where that failed."""
        self._learn.setVisible(status is not None)
        self._by_annotator.setVisible(status is not None)
        if status is None:
            self._aside.hide()
            self._learnable.setText("What is new could not be counted" if failed else "Counting what is new")
            return
        learnable = status.learnable
        self._learnable.setText(f"New since {status.model}")
        self._learn.setText(
            f"{learnable.new} to learn from{_brackets(learnable.by_class)}, {status.judging.frames} to judge"
        )
        aside = describe_aside(status)
        self._aside.setText(aside or "")
        self._aside.setVisible(aside is not None)
        self._by_annotator.setText(
            "By " + ", ".join(f"{who} {n}" for who, n in learnable.by_annotator.items())
        )
        self._by_annotator.setVisible(bool(learnable.by_annotator))


def describe_too_few(status: LearningStatus | None) -> str | None:
    """Say that more must be accepted before anything can be learned; None where that is not so."""
    if status is None or status.samples >= _FEWEST:
        return None
    return f"Accept at least {_FEWEST} images first; {status.samples} so far"


def describe_aside(status: LearningStatus) -> str | None:
    """Say which frames were kept to judge and do not, and why; None where all of them do."""
    judging, told = status.judging, []
    if judging.known:
        told.append(f"{judging.known} more do not judge: {status.model} learned from them, or from copies")
    if judging.missing:
        told.append(f"{judging.missing} more do not judge: their files are not on this computer")
    if not judging.frames and (told or status.learnable.new):
        told.append("With none to judge, whether a new model is used will be yours to say")
    return "\n".join(told) or None


def describe_lock(status: LearningStatus | None) -> str | None:
    """Say that the project keeps its model; None where it does not."""
    if status is None or status.locked is None:
        return None
    return f"The project is locked to {status.locked}: nothing else gets in until it is unlocked in Models"


def describe_fate(gate: Gate, status: LearningStatus) -> str | None:
    """Say why a model that was compared cannot be used any more; None where it can."""
    if gate.candidate == status.learnable.version:
        return None
    if gate.candidate not in status.usable:
        return "It was deleted since, or is not on this computer"
    if gate.incumbent != status.learnable.version:
        return (
            f"{status.model} came into use since: the comparison was with another model. Fine-tune again, or "
            "choose a model in Models"
        )
    return describe_lock(status)


def _brackets(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{n} {name}' for name, n in counts.items())})" if counts else ""


class Notes(QWidget):
    """Shows the newest note, below the earlier ones, which are folded. Hidden while there is none."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._notes: Sequence[str] = ()
        self._earlier, self._newest = text_label(selectable=True), text_label(selectable=True)
        # its own arrows keep the colour of another theme
        self._fold = QCollapsible(expandedIcon=QIcon(), collapsedIcon=QIcon())
        self._fold.setDuration(0)
        self._fold.setContent(self._earlier)
        self._fold.toggled.connect(self._render)
        button = self._fold.toggleButton()
        button.setToolTip("Show all that the training told")
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        button.setStyleSheet("text-align: left; background: transparent; border: none; padding: 0 4px")
        layout = QVBoxLayout(self)
        for each in (layout, self._fold.layout()):
            if each is not None:
                each.setContentsMargins(0, 0, 0, 0)
                each.setSpacing(2)
        for part in (self._fold, self._newest):
            layout.addWidget(part)
        self.hide()

    def set_notes(self, notes: Sequence[str]) -> None:
        """Show notes, the oldest first."""
        self._notes = notes
        self.setVisible(bool(notes))
        self._render()

    def _render(self) -> None:
        unfolded = self._fold.isExpanded()
        self._fold.setText(f"{_UNFOLDED if unfolded else _FOLDED} Notes ({len(self._notes)})")
        self._fold.setVisible(len(self._notes) > 1)
        self._earlier.setText(breakable("\n".join(self._notes[:-1])))
        self._earlier.setVisible(unfolded)
        # the height that it is given unfolded is too small for text that is wrapped
        self._earlier.setMaximumHeight(_ANY_HEIGHT)
        self._newest.setText(breakable("".join(self._notes[-1:])))


# as a training's own words abbreviate them
_SHORT = re.compile(r"\b[0-9a-f]{12}\b")


class FrameNames(QObject):
    """Looks names of frames up in a worker, each once.

    `find` gives the names of frames in the store of a URL, as far as they are known; called in the worker.
    """

    changed = Signal()

    def __init__(
        self, find: Callable[[str | None, Sequence[str]], Mapping[str, str]], parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._find = find
        self._names: dict[str, str] = {}
        self._asked: set[tuple[str | None, str]] = set()
        self._jobs = JobQueue(parent=self)

    def of(self, frame: str) -> str:
        """Name a frame; by the first digits of its id as long as no name is known."""
        return self._names.get(frame, frame[:8])

    def put_into(self, text: str) -> str:
        """Write names in the place of ids."""
        return _SHORT.sub(lambda found: self._names.get(found[0], found[0]), text)

    def ask(self, url: str | None, frames: Iterable[str], texts: Iterable[str]) -> None:
        """Look up frames, and those that texts speak of."""
        spoken_of = (short for text in texts for short in _SHORT.findall(text))
        new = [f for f in dict.fromkeys((*frames, *spoken_of)) if (url, f) not in self._asked]
        if new:
            self._asked.update((url, frame) for frame in new)
            self._jobs.submit(lambda: self._find(url, new), done=self._on_found, failed=show_problem)

    def close(self) -> None:
        """Tell nobody any more."""
        self._jobs.mute()

    def _on_found(self, names: Mapping[str, str]) -> None:
        self._names.update(names)
        if names:
            self.changed.emit()


def _what_to_install() -> InstallBox | None:
    """Say what fine-tuning needs that is not there; None where all of it is."""
    try:
        check_installed((*FinetuneRequest.needs, "pyqtgraph"), EXTRA)
    except NotInstalledError as missing:
        return InstallBox(missing)
    return None


_START = "Make a new model from the model in use and the corrections"


class TrainPanel(Panel):
    """Fine-tune on the corrections, watch, and decide.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer it is docked in.
    projects : Projects, optional
        What its workers ask; the user's own unless given.
    start : callable
        Starts a job; see `sonoloop.jobs.process.start_job`.
    preferences : callable, optional
        Gives the user's preferences as they are now; those of the viewer's Annotate panel unless given.
    parent : QWidget, optional
        The owner.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        *,
        projects: Projects | None = None,
        start: Callable[..., Job] = start_job,
        preferences: Callable[[], Preferences] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._preferences = preferences or viewer_preferences(viewer)
        self._projects = projects or Projects()
        ask = self._projects.ask
        self.news = self.watch_store(self._projects, self._preferences)
        self._jobs = JobQueue(parent=self)
        self.watch = TrainWatch(
            lambda url: ask(url, lambda project: project.jobs_folder()), start=start, parent=self
        )
        self._status: LearningStatus | None = None
        self._uncounted: str | None = None  # why
        self._curves: Curves | None = None
        self._names = FrameNames(
            lambda url, frames: ask(url, lambda project: project.name_frames(frames)), parent=self
        )
        self._closed = False
        self._install = _what_to_install()
        self._build()
        self._lay_out()
        self._connect()
        self._render()

    def refresh(self) -> None:
        """Count again what is new since the model in use."""
        ask, url = self._projects.ask, self.news.store
        self._jobs.submit(
            lambda: ask(url, lambda project: project.learning_status()),
            done=partial(self._on_outlook, url),
            failed=partial(self._on_uncounted, url),
        )

    def follow_store(self) -> bool:
        """Go over to the store that the preferences name by now; tell whether it is another one."""
        return self.news.follow()

    def close_session(self) -> None:
        """Stop reading; a training that runs goes on."""
        if self._closed:
            return
        self._closed = True
        self.news.close()
        self._viewer.events.theme.disconnect(self._on_theme)
        self.watch.close()
        self._names.close()
        self._jobs.mute()
        self._jobs.submit(self._projects.close, done=ignore, failed=ignore)

    def _build(self) -> None:
        self._learnable = LearnableText()
        self._form = RequestForm(FinetuneRequest, parent=self)
        self._start = QPushButton("Fine-tune")
        self._without = QPushButton("Go on without them")
        self._without.setToolTip("Fine-tune without the images whose files are gone")
        self._go_on = QPushButton("Go on")
        self._go_on.setToolTip("Go on from where the last fine-tuning broke off")
        self._stop = QPushButton("Stop")
        self._stop.setToolTip("End at the next batch; it can be gone on with")
        self._few, self._locked = text_label(), text_label()
        self._progress, self._error, self._left_out = text_label(), text_label(), text_label()
        self._notes, self._gate = Notes(), GateBox()
        for button in (self._start, self._go_on, self._without, self._stop):
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)

    def _lay_out(self) -> None:
        column = self.column
        column.addWidget(self._learnable)
        column.addSpacing(4)
        *rows, last = ([(label, 0), (widget, 1)] for label, widget in self._form.rows())
        for parts in (*rows, [*last, (self._start, 1)]):
            column.addLayout(row(*parts))
        if self._install is not None:
            column.addWidget(self._install)
        column.addWidget(self._few)
        column.addWidget(self._locked)
        self._place = QVBoxLayout()
        column.addLayout(self._place)
        column.addLayout(row((self._progress, 1), (self._go_on, 0), (self._stop, 0)))
        for part in (self._error, self._without, self._notes, self._left_out):
            column.addWidget(part)
        column.addWidget(self._gate)
        column.addStretch(1)

    def _connect(self) -> None:
        self.news.moved.connect(self._on_moved)
        self.news.opened.connect(self._on_opened)
        self.news.changed.connect(self.refresh)
        self.news.trouble_changed.connect(self._render)
        self.watch.changed.connect(self._render)
        self._names.changed.connect(self._render)
        self.watch.ended.connect(self.news.look)
        for button, act in (
            (self._start, self.watch.start),
            (self._go_on, self.watch.go_on),
            (self._without, self.watch.start_without_missing),
        ):
            button.clicked.connect(partial(self._ask, act))
        self._form.changed.connect(self._render)
        self._stop.clicked.connect(self.watch.stop)
        self._gate.used.connect(self._use)
        self._viewer.events.theme.connect(self._on_theme)
        self.destroyed.connect(self.close_session)

    def _ask(self, act: Callable[[FinetuneRequest], None], _checked: bool = False) -> None:
        # what is shown is of one store; of another one it is shown first
        if not self.follow_store():
            act(self._request())

    def _request(self) -> FinetuneRequest:
        preferences = self._preferences()
        data = preferences.base_data
        return FinetuneRequest(
            store=self.news.store,
            who=preferences.annotator,
            device=preferences.device,
            base_data=None if data is None else Path(data),
            **self._form.values(),
        )

    def _use(self, why: str | None) -> None:
        ask, who, url = self._projects.ask, self._preferences().annotator, self.news.store
        gate = None if self.follow_store() else self.watch.progress.gate
        if gate is not None:
            self._jobs.submit(
                lambda: ask(url, lambda project: project.promote(gate, why=why), annotator=who),
                done=self._on_used,
                failed=self._on_unused,
            )

    def _on_used(self, _answer: object) -> None:
        show_info(f"{self.watch.progress.model or 'The model'} is in use now")
        self.news.look()

    def _on_unused(self, error: Exception) -> None:
        show_problem(error)
        self.news.look()

    def _on_moved(self) -> None:
        self._status, self._uncounted = None, None
        self.watch.look_for(self.news.store)
        self._render()

    def _on_opened(self) -> None:
        if self.watch.progress.stage is Stage.NONE:
            self.watch.look_for(self.news.store)

    def _on_outlook(self, url: str | None, status: LearningStatus) -> None:
        if url != self.news.store:
            return  # of a store that another one followed
        self._status, self._uncounted = status, None
        self._form.set_choices("snapshot", status.snapshots)
        self._render()

    def _on_uncounted(self, url: str | None, error: Exception) -> None:
        if url != self.news.store:
            return
        if str(error) != self._uncounted:
            show_problem(error)
        self._uncounted = str(error)
        self._render()
        self.news.doubt()

    def _render(self) -> None:
        progress = self.watch.progress
        trouble = self.news.trouble is not None
        self._learnable.set_status(self._status, failed=trouble or self._uncounted is not None)
        alive = progress.stage.alive
        self._form.show_job(self.watch.plan if alive else None)
        learn = 0 if self._status is None else self._status.learnable.new
        # a snapshot holds what it holds
        too_few = describe_too_few(self._status) if self._form.values()["snapshot"] is None else None
        locked = describe_lock(self._status)
        self._locked.setText(locked or "")
        self._locked.setVisible(locked is not None)
        broken = BROKEN if trouble else None
        missing = None if self._install is None else self._install.said
        why_not = "It runs already" if alive else missing or broken or locked or too_few
        self._start.setEnabled(why_not is None and self._status is not None)
        self._start.setToolTip(why_not or _START)
        self._few.setText(too_few or "")
        self._few.setVisible(too_few is not None and not alive and missing is None)
        self._start.setDefault(learn > 0)
        self._stop.setVisible(alive)
        self._stop.setEnabled(progress.stage is not Stage.STOPPING)
        for button, wanted in ((self._go_on, self.watch.can_go_on), (self._without, progress.misses_files)):
            button.setVisible(wanted and missing is None)
            button.setEnabled(not trouble and locked is None)
        line = describe_progress(progress)
        self._progress.setText(f"Stopped · {line}" if progress.stage is Stage.STOPPED else line)
        self._render_words(progress)
        gate = progress.gate
        model = progress.model or "The candidate"
        fate = broken if gate is None or self._status is None else broken or describe_fate(gate, self._status)
        now = None if self._status is None else self._status.learnable.version
        self._gate.set_gate(gate, model=model, in_use=gate is not None and gate.candidate == now, fate=fate)
        self._gate.set_changed(
            {}
            if gate is None
            else {name: [self._names.of(frame) for frame in frames] for name, frames in gate.changed.items()}
        )
        if (progress.losses or progress.dices) and missing is None:
            self._draw(progress)
        elif self._curves is not None:
            self._curves.hide()

    def _render_words(self, progress: JobProgress) -> None:
        names, failed, error = self._names, progress.failed, None
        told = (*progress.notices, *([] if failed is None else [failed.error]))
        gate = progress.gate
        changed = () if gate is None else (frame for frames in gate.changed.values() for frame in frames)
        names.ask(self.news.store, (*(one.frame for one in progress.left_out), *changed), told)
        if failed is not None:
            named = replace(failed, error=in_panel_words(names.put_into(failed.error)))
            error = describe_failure(named, self.watch.details)
        self._error.setText(breakable(error or ""))
        self._error.setToolTip(error or "")
        self._error.setVisible(error is not None)
        self._notes.set_notes([in_panel_words(names.put_into(notice)) for notice in progress.notices])
        rows = [f"{names.of(one.frame)}: {names.put_into(one.why)}" for one in progress.left_out]
        self._left_out.setText(breakable(describe_left_out(rows)))
        self._left_out.setToolTip("\n".join(rows))
        self._left_out.setVisible(bool(rows))

    def _draw(self, progress: JobProgress) -> None:
        if self._curves is None:
            from sonoloop.gui.train.curves import Curves  # noqa: PLC0415 - loads pyqtgraph

            self._curves = Curves()
            self._place.addWidget(self._curves)
            self._on_theme()
        self._curves.show()
        self._curves.set_progress(progress)

    def _on_theme(self, _event: object = None) -> None:
        if self._curves is not None:
            theme = get_theme(self._viewer.theme)
            self._curves.set_colours(theme.text.as_hex(), theme.secondary.as_hex())
