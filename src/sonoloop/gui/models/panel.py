"""The Models panel: every version with its figures, which one is in use, and one click back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QGridLayout, QLabel, QPushButton, QWidget

from sonoloop.gui.launch import viewer_preferences
from sonoloop.gui.models.calibration import CalibrationBox
from sonoloop.gui.models.table import ModelsTable, describe_list, describe_model
from sonoloop.gui.preferences import Preferences
from sonoloop.gui.widgets import BROKEN, Panel, QuestionBox, WhyBox, breakable, show_problem, text_label
from sonoloop.gui.workers import JobQueue, Projects, ignore
from sonoloop.jobs.events import Calibrated, why_calibrated

if TYPE_CHECKING:
    import napari

    from sonoloop.project import ModelList, Project
    from sonoloop.store.model_registry import ModelRow

_COLUMNS = 3
_FILES = "Models (*.zip card.json *.onnx *.safetensors *.toml);;All files (*)"
_USE = "Put the chosen model into use; asks why"
_LOCKED = "The project is locked to the model in use: unlock it first"
_CALIBRATE = "Fit the chosen model's threshold, gate and temperature on this project's test frames"
_ROLLBACK, _DELETED = "rolled back in the Models panel", "deleted in the Models panel"


class ModelsPanel(Panel):
    """Use a model, go back to another, bring one in, take one out.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer it is docked in.
    projects : Projects, optional
        What its worker asks; the user's own unless given.
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
        preferences: Callable[[], Preferences] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._preferences = preferences or viewer_preferences(viewer)
        self._projects = projects or Projects()
        self.news = self.watch_store(self._projects, self._preferences)
        self._jobs = JobQueue(parent=self)
        self._unread: str | None = None  # why
        self._models: ModelList | None = None
        self._closed = False
        self._build()
        self._lay_out()
        self._connect()
        self._render()

    def refresh(self) -> None:
        """Read the models again."""
        store = self.news.store
        self._submit(
            lambda project: project.models(),
            partial(self._on_models, store),
            partial(self._on_unread, store),
        )

    def import_file(self, source: Path) -> None:
        """Bring in a model from a zip file or a card, or a network of a user's own."""
        self._ask(
            lambda project: project.import_model(source),
            lambda row: f"{row.model} is here; choose it and press Use to use it",
        )

    def export_file(self, target: Path) -> None:
        """Write the model that is chosen to a zip file."""
        line = self._table.value()
        if line is not None:
            self._ask(
                lambda project: project.export_model(line.row.version, target),
                lambda path: f"{line.row.model} was written to {path}",
            )

    def close_session(self) -> None:
        """Close the store once what is under way is done."""
        if self._closed:
            return
        self._closed = True
        self._calibration.close_session()
        self.news.close()
        self._jobs.mute()
        self._jobs.submit(self._projects.close, done=ignore, failed=ignore)

    def _build(self) -> None:
        self._table = ModelsTable()
        self._test_set = text_label()
        self._use = self._button("Use", _USE)
        self._back = self._button("Roll back", "Put the model back into use that was before")
        self._import = self._button(
            "Import",
            "Bring in a model from a zip file or a card, or a network of your own: ONNX or safetensors",
        )
        self._export = self._button("Export", "Write the chosen model to a zip file")
        self._card = self._button("Card", "Show what is known of the chosen model")
        self._card.setCheckable(True)
        self._lock = self._button("Lock", "Keep the model in use for a study: nothing else gets in")
        self._calibrate = self._button("Calibrate", _CALIBRATE)
        self._calibration = CalibrationBox()
        self._delete = self._button("Delete", "Delete the chosen model's files; what was said of it stays")
        self._question = QuestionBox()
        self._why = WhyBox()
        self._result = text_label(selectable=True)
        self._result.hide()
        self._facts = QLabel()
        self._facts.setWordWrap(True)
        self._facts.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._facts.hide()

    def _button(self, text: str, tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        return button

    def _lay_out(self) -> None:
        self.column.addWidget(self._table)
        self.column.addWidget(self._test_set)
        grid = QGridLayout()
        grid.setSpacing(4)
        buttons = (
            *(self._use, self._back, self._card),
            *(self._import, self._export, self._lock),
            *(self._calibrate, self._delete),
        )
        for place, button in enumerate(buttons):
            grid.addWidget(button, place // _COLUMNS, place % _COLUMNS)
        self.column.addLayout(grid)
        for widget in (self._result, self._calibration, self._question, self._why, self._facts):
            self.column.addWidget(widget)
        self.column.addStretch(1)

    def _connect(self) -> None:
        self.news.moved.connect(self._on_moved)
        self.news.changed.connect(self.refresh)
        self.news.trouble_changed.connect(self._render)
        self._table.chosen.connect(self._on_chosen)
        self._use.clicked.connect(self._on_use)
        self._back.clicked.connect(self._on_back)
        self._import.clicked.connect(self._on_import)
        self._export.clicked.connect(self._on_export)
        self._card.toggled.connect(lambda _on: self._show_card())
        self._lock.clicked.connect(self._on_lock)
        self._delete.clicked.connect(self._on_delete)
        self._calibrate.clicked.connect(self._on_calibrate)
        self._calibration.used.connect(self._on_calibrated)
        self._calibration.changed.connect(self._render)
        self._calibration.ended.connect(self._look_again)
        self.destroyed.connect(self.close_session)

    def _submit(
        self,
        question: Callable[[Project], Any],
        done: Callable[[Any], None],
        failed: Callable[[Exception], None],
    ) -> None:
        # of the store that is shown: of another one, what is chosen here means nothing
        ask = partial(self._projects.ask, self.news.store, question, annotator=self._preferences().annotator)
        self._jobs.submit(ask, done=done, failed=failed)

    def _ask(self, action: Callable[[Project], Any], say: Callable[[Any], str] | None = None) -> None:
        """Do something in the worker, and say what came of it; all panels hear of it."""
        self._question.clear()
        self._tell("")
        self.problem.tell(None)
        if self.news.follow():
            return  # what was chosen is of another store than the preferences name by now

        def done(answer: object) -> None:
            self._tell(say(answer) if say is not None else "")
            self._look_again()

        def failed(error: Exception) -> None:
            show_problem(error)
            self._look_again()

        self._submit(action, done, failed)

    def _tell(self, text: str) -> None:
        self._result.setText(breakable(text))
        self._result.setVisible(bool(text))

    def _look_again(self) -> None:
        self.refresh()
        self.news.look()

    def _on_use(self) -> None:
        line, used = self._table.value(), self._in_use()
        if line is None or used is None:
            return

        def use(why: str) -> None:
            self._ask(lambda project: project.promote(line.row.version, why=why, expected=used.version))

        self._why.ask(f"Use {line.row.model}: why?", use)

    def _on_back(self) -> None:
        expected = None if self._models is None else self._models.back_to
        if expected is not None:
            self._ask(lambda project: project.roll_back(why=_ROLLBACK, expected=expected))

    def _on_lock(self) -> None:
        used = self._in_use()
        if used is None or self._models is None:
            return
        lock = self._models.overview.locked is None

        def set_locked(why: str) -> None:
            if lock:
                self._ask(lambda project: project.lock_model(used.version, why=why))
            else:
                self._ask(lambda project: project.unlock_model(why=why))

        self._why.ask(f"{'Lock the project to' if lock else 'Unlock'} {used.model}: why?", set_locked)

    def _in_use(self) -> ModelRow | None:
        lines = () if self._models is None else self._models.overview.models
        return next((line.row for line in lines if line.in_use), None)

    def _on_delete(self) -> None:
        line = self._table.value()
        if line is not None:
            self._question.ask(
                f"Delete {line.row.model} from this computer, for all projects on it? What was said of it "
                "stays on record.",
                [
                    (
                        "Delete",
                        lambda: self._ask(
                            lambda project: project.delete_model(line.row.version, why=_DELETED)
                        ),
                    ),
                    ("Keep", self._question.clear),
                ],
            )

    def _on_calibrate(self) -> None:
        line = self._table.value()
        if line is None or self.news.follow():
            return
        preferences, store = self._preferences(), self.news.store
        ask = partial(self._projects.ask, store, annotator=preferences.annotator)
        self._calibration.start(ask, line.row.version, preferences.device, preferences.engine)

    def _on_calibrated(self, found: Calibrated) -> None:
        self._ask(
            lambda project: project.promote(
                str(found.version), why=why_calibrated(found), expected=found.in_use
            ),
            lambda _answer: f"{found.model} is in use now",
        )

    def _on_import(self) -> None:
        dialog = QFileDialog(self, "Import a model", "", _FILES)
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.fileSelected.connect(lambda path: self.import_file(Path(path)))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def _on_export(self) -> None:
        line = self._table.value()
        if line is None:
            return
        dialog = QFileDialog(self, "Export a model", f"{line.row.model}.zip", "Models (*.zip)")
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix("zip")
        # a file that is there is refused in words
        dialog.setOption(QFileDialog.Option.DontConfirmOverwrite)
        dialog.fileSelected.connect(lambda path: self.export_file(Path(path)))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def _on_moved(self) -> None:
        self._models, self._unread = None, None
        self._calibration.clear()
        self._question.clear()
        self._why.clear()
        self._table.set_models(None)
        self._test_set.clear()
        self._render()

    def _on_unread(self, store: str | None, error: Exception) -> None:
        if store != self.news.store:
            return
        if str(error) != self._unread:
            show_problem(error)
        self._unread = str(error)
        self.news.doubt()

    def _on_models(self, store: str | None, models: ModelList) -> None:
        if store != self.news.store:
            return  # of a store that another one followed
        self._models, self._unread = models, None
        self._table.set_models(models)
        self._test_set.setText(f"* in use. {describe_list(models.overview)}")
        self._render()

    def _on_chosen(self) -> None:
        self._question.clear()
        self._why.clear()
        self._render()
        self._show_card()

    def _render(self) -> None:
        models, line = self._models, self._table.value()
        # what was read stays in sight
        works = models is not None and self.news.trouble is None
        locked = models is not None and models.overview.locked is not None
        here = models is not None and line is not None and line.row.version in models.here
        free = works and line is not None and not line.in_use
        self._use.setEnabled(free and here and not locked)
        self._use.setToolTip(self._why_not(_LOCKED if locked else None) or _USE)
        back = None if models is None else models.back_to
        self._back.setEnabled(works and back is not None and not locked)
        self._back.setToolTip(
            self._why_not(_LOCKED if locked else None)
            or ("No other model was in use before" if back is None else f"Put {back} back into use")
        )
        self._export.setEnabled(works and here)
        self._card.setEnabled(works and line is not None)
        self._calibrate.setEnabled(works and here and not self._calibration.busy)
        self._import.setEnabled(self.news.trouble is None)
        self._lock.setEnabled(works)
        self._lock.setText("Unlock" if locked else "Lock")
        self._delete.setEnabled(free and line is not None and line.row.origin != "shipped")

    def _why_not(self, reason: str | None) -> str | None:
        return reason if self.news.trouble is None else BROKEN

    def _show_card(self) -> None:
        line = self._table.value()
        wanted = self._card.isChecked() and line is not None
        self._facts.setVisible(wanted)
        if not wanted or line is None:
            return
        version = line.row.version

        def done(facts: tuple[tuple[str, str], ...]) -> None:
            chosen = self._table.value()
            if chosen is not None and chosen.row.version == version:
                self._facts.setText(_write_facts(facts))

        self._submit(lambda project: describe_model(project, version), done, show_problem)


def _write_facts(facts: tuple[tuple[str, str], ...]) -> str:
    # a version has 64 digits: broken anywhere, so that it does not widen the panel
    rows = (
        f"<p style='margin: 2px 0'><b>{escape(name)}</b><br>{_breakable(text)}</p>" for name, text in facts
    )
    return "".join(rows)


def _breakable(text: str) -> str:
    return (
        "\N{ZERO WIDTH SPACE}".join(escape(text[i : i + 8]) for i in range(0, len(text), 8))
        if (len(text) > 30 and " " not in text)
        else escape(text)
    )
