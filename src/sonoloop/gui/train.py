"""The Train panel: what there is to learn from, a fine-tuning as it goes, and whether its model gets in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from napari.utils.theme import get_theme
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QLabel, QPushButton, QSizePolicy, QSpinBox, QVBoxLayout, QWidget

from sonoloop.gui.desks import LazyDesk, Outlook, TrainingDesk
from sonoloop.gui.docking import Panel, desk_preferences, row, tell_model_moved
from sonoloop.gui.messages import show_problem
from sonoloop.gui.preferences import Preferences
from sonoloop.gui.tasks import JobQueue
from sonoloop.gui.train_gate import GateBox
from sonoloop.gui.train_job import Job
from sonoloop.gui.train_progress import JobProgress, Stage, describe_progress
from sonoloop.gui.train_start import Request, start_job
from sonoloop.gui.train_watch import TrainWatch
from sonoloop.gui.work import OpenStore, open_default_store

if TYPE_CHECKING:
    import napari

    from sonoloop.gui.train_curves import Curves

_ALL = "All accepted"
_MINUTES = 5
_LEFT_OUT = 3  # shown; all of them in the tool tip


class TrainPanel(Panel):
    """Fine-tune on the corrections, watch, and decide.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer it is docked in.
    open_store : callable
        Gives the correction store for a URL, None for the default; called in a worker.
    make_desk : callable, optional
        Gives what asks the store; called in a worker.
    start : callable
        Starts a job; see `sonoloop.gui.train_start.start_job`.
    preferences : callable, optional
        Gives the user's preferences as they are now; those of the viewer's Annotate panel unless given.
    parent : QWidget, optional
        The owner.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        *,
        open_store: OpenStore = open_default_store,
        make_desk: Callable[[], TrainingDesk] | None = None,
        start: Callable[..., Job] = start_job,
        preferences: Callable[[], Preferences] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._preferences = preferences or desk_preferences(viewer)
        self._desk = LazyDesk(make_desk or partial(_make_desk, open_store))
        desk = self._desk
        self._jobs = JobQueue(parent=self)
        self.watch = TrainWatch(lambda url: desk.get().jobs_folder(url), start=start, parent=self)
        self._outlook: Outlook | None = None
        self._curves: Curves | None = None
        self._named: tuple[tuple[str, str], ...] = ()
        self._closed = False
        self._build()
        self._lay_out()
        self._connect()
        self._render()
        self.refresh()
        self.watch.look_for(self._preferences().store)

    def refresh(self) -> None:
        """Count again what is new since the model in use."""
        desk, url = self._desk, self._preferences().store
        self._jobs.submit(lambda: desk.get().outlook(url), done=self._on_outlook, failed=show_problem)

    def close_session(self) -> None:
        """Stop reading; a training that runs goes on."""
        if self._closed:
            return
        self._closed = True
        self._viewer.events.theme.disconnect(self._on_theme)
        self.watch.close()
        self._jobs.mute()
        self._jobs.submit(self._desk.close, done=_ignore, failed=_ignore)

    def _build(self) -> None:
        self._news, self._learn, self._by_annotator = _text(), _text(), _text()
        font = self._news.font()
        font.setBold(True)
        self._news.setFont(font)
        self._snapshot = QComboBox()
        self._snapshot.addItem(_ALL)
        self._snapshot.setToolTip("What to learn from: all corrections as they stand, or a snapshot of them")
        self._snapshot.setAccessibleName("Snapshot")
        self._snapshot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._budget = QSpinBox()
        self._budget.setRange(1, 24 * 60)
        self._budget.setValue(_MINUTES)
        self._budget.setSuffix(" min")
        self._budget.setToolTip("Time for all of it; fewer epochs are made where it does not suffice")
        self._budget.setAccessibleName("Budget")
        self._start = QPushButton("Fine-tune")
        self._start.setToolTip("Make a new model from the model in use and the corrections")
        self._go_on = QPushButton("Go on")
        self._go_on.setToolTip("Go on from where the last fine-tuning broke off")
        self._stop = QPushButton("Stop")
        self._stop.setToolTip("End at the next batch; it can be gone on with")
        self._progress, self._error, self._left_out = _text(), _text(), _text()
        self._gate = GateBox()
        for button in (self._start, self._go_on, self._stop):
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)

    def _lay_out(self) -> None:
        column = self.column
        for label in (self._news, self._learn, self._by_annotator):
            column.addWidget(label)
        column.addSpacing(4)
        column.addLayout(row((QLabel("Snapshot"), 0), (self._snapshot, 1)))
        column.addLayout(row((QLabel("Budget"), 0), (self._budget, 1), (self._start, 1)))
        self._place = QVBoxLayout()
        column.addLayout(self._place)
        column.addLayout(row((self._progress, 1), (self._go_on, 0), (self._stop, 0)))
        column.addWidget(self._error)
        column.addWidget(self._left_out)
        column.addWidget(self._gate)
        column.addStretch(1)

    def _connect(self) -> None:
        self.watch.changed.connect(self._render)
        self.watch.ended.connect(self.refresh)
        self._start.clicked.connect(lambda: self.watch.start(self._request()))
        self._go_on.clicked.connect(lambda: self.watch.go_on(self._request()))
        self._stop.clicked.connect(self.watch.stop)
        self._gate.used.connect(self._use)
        self._viewer.events.theme.connect(self._on_theme)
        self.destroyed.connect(self.close_session)

    def _request(self) -> Request:
        preferences = self._preferences()
        chosen = self._snapshot.currentText() if self._snapshot.currentIndex() else None
        return Request(
            store=preferences.store,
            who=preferences.annotator,
            device=preferences.device,
            snapshot=chosen,
            minutes=self._budget.value(),
        )

    def _use(self, why: str | None) -> None:
        desk, gate, preferences = self._desk, self.watch.progress.gate, self._preferences()
        if gate is not None:
            self._jobs.submit(
                lambda: desk.get().use(preferences.store, gate, who=preferences.annotator, why=why),
                done=self._on_used,
                failed=show_problem,
            )

    def _on_used(self, _answer: object) -> None:
        show_info(f"{self.watch.progress.model or 'The model'} is in use now")
        tell_model_moved(self._viewer)
        self.refresh()

    def _on_outlook(self, outlook: Outlook) -> None:
        moved = self._outlook is not None and self._outlook.model != outlook.model
        self._outlook = outlook
        chosen = self._snapshot.currentText()
        self._snapshot.clear()
        self._snapshot.addItems([_ALL, *outlook.snapshots])
        self._snapshot.setCurrentIndex(max(0, self._snapshot.findText(chosen)))
        self._render()
        if moved:
            tell_model_moved(self._viewer)

    def _render(self) -> None:
        progress = self.watch.progress
        self._render_news()
        alive = progress.stage.alive
        learn = 0 if self._outlook is None else self._outlook.news.learn
        self._start.setEnabled(not alive and self._outlook is not None)
        self._start.setToolTip(
            "It runs already" if alive else "Make a new model from the model in use and the corrections"
        )
        self._start.setDefault(learn > 0)
        self._stop.setVisible(alive)
        self._stop.setEnabled(progress.stage is not Stage.STOPPING)
        self._go_on.setVisible(progress.stage.can_go_on)
        line = describe_progress(progress)
        self._progress.setText(f"Stopped · {line}" if progress.stage is Stage.STOPPED else line)
        self._error.setText("" if progress.error is None else f"It failed: {progress.error}")
        self._error.setVisible(progress.error is not None)
        self._render_left_out(progress)
        gate = progress.gate
        model = progress.model or "The candidate"
        now = None if self._outlook is None else self._outlook.news.version
        self._gate.set_gate(gate, model=model, in_use=gate is not None and gate.candidate == now)
        if progress.losses or progress.dices:
            self._draw(progress)
        elif self._curves is not None:
            self._curves.hide()

    def _render_news(self) -> None:
        outlook = self._outlook
        if outlook is None:
            self._news.setText("Counting what is new")
            return
        news = outlook.news
        self._news.setText(f"New since {outlook.model}")
        self._learn.setText(f"{news.learn} to learn from{_brackets(news.by_class)}, {news.judge} to judge")
        self._learn.setToolTip("What judges was drawn before the prediction was seen, and never trains")
        self._by_annotator.setText("By " + ", ".join(f"{who} {n}" for who, n in news.by_annotator.items()))
        self._by_annotator.setVisible(bool(news.by_annotator))

    def _render_left_out(self, progress: JobProgress) -> None:
        self._left_out.setVisible(bool(progress.left_out))
        if progress.left_out == self._named or not progress.left_out:
            return
        self._named = left_out = progress.left_out
        self._write_left_out({})
        desk, url, frames = self._desk, self._preferences().store, [frame for frame, _ in left_out]
        self._jobs.submit(
            lambda: desk.get().name_frames(url, frames), done=self._write_left_out, failed=show_problem
        )

    def _write_left_out(self, names: Mapping[str, str]) -> None:
        rows = [f"{names.get(frame, frame[:8])}: {why}" for frame, why in self._named]
        count = "1 correction does" if len(rows) == 1 else f"{len(rows)} corrections do"
        more = f"\nand {len(rows) - _LEFT_OUT} more" if len(rows) > _LEFT_OUT else ""
        self._left_out.setText(f"{count} not train:\n" + "\n".join(rows[:_LEFT_OUT]) + more)
        self._left_out.setToolTip("\n".join(rows))

    def _draw(self, progress: JobProgress) -> None:
        if self._curves is None:
            from sonoloop.gui.train_curves import Curves  # noqa: PLC0415 - loads pyqtgraph

            self._curves = Curves()
            self._place.addWidget(self._curves)
            self._on_theme()
        self._curves.show()
        self._curves.set_progress(progress)

    def _on_theme(self, _event: object = None) -> None:
        if self._curves is not None:
            theme = get_theme(self._viewer.theme)
            self._curves.set_colours(theme.text.as_hex(), theme.secondary.as_hex())


def _make_desk(open_store: OpenStore) -> TrainingDesk:
    from sonoloop.gui.train_desk import TrainDesk  # noqa: PLC0415 - imports the store

    return TrainDesk(open_store)


def _text() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    return label


def _brackets(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{n} {name}' for name, n in counts.items())})" if counts else ""


def _ignore(_answer: object) -> None:
    """Nobody is left to be told."""
