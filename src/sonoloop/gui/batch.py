"""The Batch predict panel: a folder of images in, masks and a table out, as `sonoloop predict` writes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import MISSING, dataclass, fields
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from magicgui.widgets import Container, create_widget
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QApplication, QFormLayout, QProgressBar, QPushButton, QWidget
from superqt import QElidingLabel

from sonoloop.gui.launch import viewer_preferences
from sonoloop.gui.preferences import Device, Preferences
from sonoloop.gui.widgets import BROKEN, Panel, breakable, row, show_problem, text_label
from sonoloop.gui.words import fit_toast, in_panel_words, shorten_words
from sonoloop.gui.workers import JobQueue, Projects, ignore
from sonoloop.plain_text import shown

if TYPE_CHECKING:
    import napari

    from sonoloop.models.predictor import Predictor

_OWN = "as the model's"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """What is asked for; the form is made from its fields."""

    images: Annotated[Path, {"mode": "d", "label": "Images", "tooltip": "Folder to search for images"}]
    out: Annotated[Path, {"mode": "d", "label": "Write to", "tooltip": "Folder for masks and the table"}]
    model: Annotated[
        str, {"label": "Model", "tooltip": "Name or folder of a model; the one in use if empty"}
    ] = ""
    device: Annotated[Device, {"label": "Device", "tooltip": "auto takes a GPU if there is one"}] = "auto"
    views: Annotated[
        Literal["as the model's", "1", "2", "4"],
        {"label": "Views", "tooltip": "Views of each image to average; more is slower and a little better"},
    ] = "as the model's"
    threshold: Annotated[
        float,
        {"label": "Threshold", "min": 0, "max": 0.99, "step": 0.05, "tooltip": "From which a pixel counts"},
    ] = 0
    overlay: Annotated[bool, {"label": "Overlays", "tooltip": "Also draw the outline on each image"}] = False


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How many of all images were predicted; which were not, or in part, and why; and what else to know."""

    done: int
    total: int
    failures: tuple[str, ...]
    cancelled: bool
    notes: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


class _Reports(QObject):
    """Carries what the worker tells to the GUI thread: images done, of all, and the last one's name."""

    told = Signal(int, int, str)


class BatchPanel(Panel):
    """Predict all images of a folder, with progress, in a worker.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer it is docked in.
    projects : Projects, optional
        What the worker asks which model is in use; the user's own unless given.
    load : callable, optional
        Loads a model; see `sonoloop.project.load_model`.
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
        load: Callable[..., Predictor] | None = None,
        preferences: Callable[[], Preferences] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._preferences = preferences or viewer_preferences(viewer)
        self._projects = projects or Projects()
        self._load = load or _load_model
        self.news = self.watch_store(self._projects, self._preferences)
        self._jobs = JobQueue(parent=self)
        self._reports = _Reports()
        self._cancelled = Event()
        self._closed = False
        self.form = make_form(BatchRequest)
        self.form["threshold"].native.setSpecialValueText(_OWN)
        self.form["model"].native.setPlaceholderText("the one in use")
        for folder in ("images", "out"):
            self.form[folder].choose_btn.text = "\N{HORIZONTAL ELLIPSIS}"
        self._start = QPushButton("Predict")
        self._cancel = QPushButton("Cancel")
        self._cancel.setToolTip("Stop; what is done is kept")
        self._bar, self._current = QProgressBar(), QElidingLabel()
        self._current.setElideMode(Qt.TextElideMode.ElideMiddle)
        self._current.setTextFormat(Qt.TextFormat.PlainText)
        self._result = text_label(selectable=True)
        # magicgui's own rows begin each where its label ends
        rows = QFormLayout()
        rows.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for asked in self.form:
            rows.addRow("" if asked.annotation is bool else asked.label, asked.native)
        self.column.addLayout(rows)
        self.column.addLayout(row((self._start, 1), (self._cancel, 1)))
        for widget in (self._bar, self._current, self._result):
            self.column.addWidget(widget)
            widget.hide()
        self.column.addStretch(1)
        self._on_busy(False)
        self._start.clicked.connect(self.start)
        self._cancel.clicked.connect(self.cancel)
        self._jobs.busy_changed.connect(self._on_busy)
        self.news.trouble_changed.connect(self._render_start)
        self._reports.told.connect(self._on_told)
        self.destroyed.connect(self.close_session)
        # napari's window goes without closing what is docked in it, whose own slots are not called any more
        self.destroyed.connect(self._cancelled.set)
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self._cancelled.set)

    def start(self) -> None:
        """Predict what the form says."""
        for name, what in (("images", "the images"), ("out", "the predictions")):
            if not self.form[name].line_edit.value:
                show_warning(f"choose a folder for {what} first")
                return
        request = BatchRequest(**{widget.name: widget.value for widget in self.form})
        self._cancelled.clear()
        self._result.hide()
        self.problem.tell(None)
        self._on_told(0, 0, "")
        preferences, told = self._preferences(), self._reports.told.emit
        body = partial(predict_folder, request, self._load, told, self._cancelled, engine=preferences.engine)
        self._jobs.submit(
            partial(self._projects.ask, preferences.store, body),
            done=partial(self._on_done, request.out),
            failed=show_problem,
        )

    def cancel(self) -> None:
        """Stop after the images that are being predicted; what is done is kept."""
        self._cancelled.set()
        self._cancel.setEnabled(False)

    def close_session(self) -> None:
        """Stop, and let go of the project."""
        if self._closed:
            return
        self._closed = True
        self._cancelled.set()
        self.news.close()
        self._jobs.mute()
        self._jobs.submit(self._projects.close, done=ignore, failed=ignore)

    def _on_busy(self, busy: bool) -> None:
        for asked in self.form:
            asked.enabled = not busy
        self._render_start()
        self._cancel.setEnabled(busy)
        self._bar.setVisible(busy)
        self._current.setVisible(busy)

    def _render_start(self) -> None:
        broken = self.news.trouble is not None
        self._start.setEnabled(not broken and not self._jobs.busy)
        self._start.setToolTip(BROKEN if broken else "")

    def _on_told(self, done: int, total: int, name: str) -> None:
        self._bar.setRange(0, total)
        self._bar.setValue(done)
        self._current.setText(f"{done} of {total}: {shown(name)}" if name else "Loading the model…")
        self._current.setToolTip(shown(name))

    def _on_done(self, out: Path, result: BatchResult) -> None:
        lines = [
            f"{'Cancelled: ' if result.cancelled else ''}{result.done} of {result.total} images predicted; "
            f"masks and predictions.csv are in {shown(str(out))}"
        ]
        partly = "predicted, though not whole"
        for named, what in ((result.failures, "could not be predicted"), (result.notes, partly)):
            if named:
                lines += [f"{len(named)} {what}:", *(shorten_words(shown(one)) for one in named)]
        lines += map(shown, result.notices)
        self._result.setText(breakable(in_panel_words("\n".join(lines))))
        self._result.show()


def make_form(request: type) -> Container[Any]:
    """Make a form with a widget for each field of a dataclass."""
    hints = get_type_hints(request, include_extras=True)
    defaults = {field.name: field.default for field in fields(request)}
    widgets = [
        create_widget(annotation=hints[name], name=name, **({} if default is MISSING else {"value": default}))
        for name, default in defaults.items()
    ]
    return Container(widgets=widgets)


def predict_folder(
    request: BatchRequest,
    load: Callable[..., Predictor],
    tell: Callable[[int, int, str], None],
    cancelled: Event,
    project: Any,  # noqa: ANN401 - a Project, whose module loads slowly
    *,
    engine: str = "auto",
) -> BatchResult:
    """Predict a folder, in the worker."""
    from sonoloop.batch import Batch, Failed  # noqa: PLC0415

    batch = Batch.plan([request.images], request.out, overlay=request.overlay)
    total, done = batch.total, 0
    failures: list[str] = []
    notes: list[str] = []
    predictor = load(
        request.model or project.library.find(project.begin().version),
        device=request.device,
        engine=engine,
        views=None if request.views == _OWN else int(request.views),
        threshold=request.threshold or None,
        on_notice=lambda text: show_warning(fit_toast(text)),
    )
    with closing(batch.run(predictor)) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome, Failed):
                name = outcome.image.relative.as_posix()
                failures.append(f"{name}: {str(outcome.error).removeprefix(PurePosixPath(name).name + ' ')}")
            else:
                name, done = outcome.row.image, done + 1
                if outcome.note is not None:
                    notes.append(f"{name}: {outcome.note}")
            tell(done + len(failures), total, name)
            if cancelled.is_set():
                break
    stopped = cancelled.is_set() and done + len(failures) < total
    return BatchResult(done, total, tuple(failures), stopped, tuple(notes), tuple(batch.notices))


def _load_model(*place: Any, **options: Any) -> Predictor:  # noqa: ANN401 - as `load_model` takes them
    from sonoloop.project import load_model  # noqa: PLC0415 - the store loads slowly

    return load_model(*place, **options)
