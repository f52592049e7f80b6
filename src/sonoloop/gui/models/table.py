"""The table of models; in a narrow panel some columns become lines of the first one."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from sonoloop.errors import SonoloopError
from sonoloop.gui.widgets import breakable
from sonoloop.gui.words import in_panel_words

if TYPE_CHECKING:
    from sonoloop.models.library import Library
    from sonoloop.project import ModelList, Project
    from sonoloop.store.corrections import CorrectionStore
    from sonoloop.store.metrics import Figure
    from sonoloop.store.test_sets import ComparedModel, ModelComparison


_HEADINGS = ("Version", "Made", "Dice (test)", "Normals", "From")
_HINTS = (
    "What the model is called, and what became of it; * is in use",
    "When it came into this project",
    "Mean Dice on the newest test set, with its 95 % interval",
    "Share of the normals in which a lesion is drawn",
    "The model that it was tuned from",
)
_MADE, _FROM = 1, 4
_NO_FIGURE = "\N{EN DASH}"
# below this width the columns Made and From are lines of the first one
_WIDE = 460
_MOST_HEIGHT = 320


class ModelsTable(QTableWidget):
    """Shows models; one can be chosen.

    Parameters
    ----------
    parent : QWidget, optional
        The panel.
    """

    chosen = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(_HEADINGS), parent)
        self._models: ModelList | None = None
        self._lines: tuple[ComparedModel, ...] = ()
        self._wide = False
        self.setHorizontalHeaderLabels(_HEADINGS)
        for column, hint in enumerate(_HINTS):
            heading = self.horizontalHeaderItem(column)
            assert heading is not None
            heading.setToolTip(hint)
        header, numbers = self.horizontalHeader(), self.verticalHeader()
        assert header is not None
        assert numbers is not None
        numbers.hide()
        header.setHighlightSections(False)
        header.setMinimumSectionSize(30)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setShowGrid(False)
        self.setTabKeyNavigation(False)
        self.setAccessibleName("Models")
        self.itemSelectionChanged.connect(self.chosen)

    def value(self) -> ComparedModel | None:
        """Return the model that is chosen."""
        rows = {index.row() for index in self.selectedIndexes()}
        return self._lines[rows.pop()] if len(rows) == 1 else None

    def set_models(self, models: ModelList | None) -> None:
        """Show all that were not deleted; what was chosen stays chosen, else the one in use is."""
        before = self.value()
        known = () if models is None else models.overview.models
        lines = tuple(line for line in known if not line.row.is_deleted)
        self.blockSignals(True)
        self._models, self._lines = models, lines
        self.setRowCount(len(lines))
        self._write()
        chosen = None if before is None else before.row.version
        keep = next((i for i, line in enumerate(lines) if line.row.version == chosen), None)
        in_use = next((i for i, line in enumerate(lines) if line.in_use), 0)
        if lines:
            self.selectRow(in_use if keep is None else keep)
        self.blockSignals(False)
        self.chosen.emit()

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802 - Qt's name
        """Show as many columns as there is room for."""
        super().resizeEvent(event)
        if (self.width() >= _WIDE) != self._wide:
            self._wide = not self._wide
            self._write()
        else:
            self._fit()

    def _write(self) -> None:
        for column in (_MADE, _FROM):
            self.setColumnHidden(column, not self._wide)
        for row, line in enumerate(self._lines):
            assert self._models is not None
            for column, text in enumerate(describe_line(line, self._models, wide=self._wide)):
                item = QTableWidgetItem(text)
                item.setToolTip(f"{line.row.model}\n{_HINTS[column]}")
                if line.in_use:
                    font = item.font()
                    font.setBold(True)
                    item.setFont(font)
                self.setItem(row, column, item)
        self._fit()

    def _fit(self) -> None:
        """Be as high as the rows are, up to a limit."""
        header = self.horizontalHeader()
        assert header is not None
        self.resizeRowsToContents()
        rows = sum(self.rowHeight(row) for row in range(self.rowCount()))
        height = header.sizeHint().height() + rows + 2 * self.frameWidth()
        self.setFixedHeight(min(height, _MOST_HEIGHT))


def describe_line(line: ComparedModel, models: ModelList, *, wide: bool) -> tuple[str, str, str, str, str]:
    """Write a model's cells."""
    row, figures, test_set = line.row, line.figures, models.overview.test_set
    made = "shipped" if row.origin == "shipped" else _day(row.created)
    marks = [*row.standing, *([] if row.version in models.here else ["not on this machine"])]
    origin = f"from {line.parent}" if line.parent else ""
    below = marks if wide else [", ".join(filter(None, (made, origin))), *marks]
    # whole in a narrow column too: a name breaks at its dashes, and the star stays with it
    name = breakable(row.model).replace("-", "-\N{ZERO WIDTH SPACE}")
    name = f"*\N{NO-BREAK SPACE}{name}" if line.in_use else name
    partly = figures is not None and test_set is not None and figures.frames < len(test_set.members)
    alarms = None if figures is None else figures.false_alarms
    return (
        "\n".join((name, *below)),
        made,
        _dice(None if figures is None else figures.dice, figures.frames if figures and partly else None),
        _NO_FIGURE if alarms is None else f"{100 * alarms.value:.0f} %",
        line.parent or _NO_FIGURE,
    )


def _dice(figure: Figure | None, scored_on: int | None) -> str:
    if figure is None:
        return _NO_FIGURE
    lines = [_short(figure.value, 3)]
    if figure.low is not None and figure.high is not None:
        lines.append(f"[{_short(figure.low, 2)}, {_short(figure.high, 2)}]")
    if scored_on is not None:
        lines.append(f"on {_frames(scored_on)} only")
    return "\n".join(lines)


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"


def _short(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".removeprefix("0")


def _day(moment: datetime) -> str:
    day = moment.astimezone()
    today = datetime.now().astimezone()
    if day.date() == today.date():
        return f"{day:%H:%M}"
    return f"{day:%d %b}" if day.year == today.year else f"{day:%Y-%m}"


Facts = tuple[tuple[str, str], ...]


def describe_list(overview: ModelComparison) -> str:
    """Say on what the models were tested."""
    test_set = overview.test_set
    if test_set is None or not test_set.members:
        return "No test set yet: figures come with the first comparison"
    groups = f"{test_set.groups} group{'' if test_set.groups == 1 else 's'}"
    looks = f"{overview.evaluations} look{'' if overview.evaluations == 1 else 's'}"
    return f"Figures on test set {test_set.number}, {groups}, {looks}"


def describe_model(project: Project, version: str) -> Facts:
    """Tell what is known of a model, name by name; asked in a worker."""
    return (
        *_card_facts(project.library, version),
        *_test_facts(project.store, version),
        *_store_facts(project.store, version),
    )


def _card_facts(library: Library, version: str) -> Facts:
    from sonoloop.models.card import read_card  # noqa: PLC0415
    from sonoloop.models.engines.auto import describe_engine  # noqa: PLC0415
    from sonoloop.models.origin import (  # noqa: PLC0415
        describe_origin,
        describe_parity,
        describe_reached,
    )

    try:
        card = read_card(library.find(version))
    except SonoloopError as error:
        return (("Bundle", in_panel_words(str(error))),)
    spec = card.spec
    network = " ".join(filter(None, (spec.architecture, spec.encoder)))
    facts = [("Model", card.model), ("Version", card.version), ("Network", f"{network}, {spec.size} px")]
    datasets = card.snapshot.get("datasets")
    if isinstance(datasets, list):
        facts.append(("Learned from", ", ".join(map(str, datasets))))
    reached = [
        ("On its own test images", describe_reached(card, "test")),
        ("On validation images", describe_reached(card, "validation")),
    ]
    runs = [("Engine", describe_engine(card))]
    if card.graphs and card.spec.has_weights:
        runs.append(("Graph against torch", describe_parity(card)))
    return (*facts, *describe_origin(card), *reached, *runs)


def _store_facts(store: CorrectionStore, version: str) -> Facts:
    from sonoloop.store.model_registry import list_models  # noqa: PLC0415
    from sonoloop.store.promotions import history  # noqa: PLC0415 - the store loads slowly

    rows = {row.version: row for row in list_models(store)}
    if version not in rows:
        return (("In this project", "not used yet"),)
    row = rows[version]
    facts = [("Came", f"{_when(row.created)}, {row.origin}, by {row.who}")]
    if row.parent is not None:
        facts.append(("Tuned from", rows[row.parent].model if row.parent in rows else row.parent[:8]))
    if row.snapshot is not None:
        facts.append(("Snapshot", row.snapshot))
    moves = [move for move in history(store) if move.version == version]
    facts += [("Put into use", f"{_when(m.created)} by {m.who} ({m.kind}): {m.why}") for m in moves]
    facts += [(m.mark.capitalize(), f"{_when(m.created)} by {m.who}: {m.why}") for m in row.marks]
    return tuple(facts)


def _test_facts(store: CorrectionStore, version: str) -> Facts:
    from sonoloop.store.test_sets import compare_models  # noqa: PLC0415 - the store loads slowly

    overview = compare_models(store)
    figures = next((line.figures for line in overview.models if line.row.version == version), None)
    if figures is None or overview.test_set is None:
        return (("On this project's test set", "not compared yet"),)
    named = {
        "Dice": figures.dice,
        "normals with a mask": figures.false_alarms,
        "malignant missed": figures.missed_malignant,
        "AUC": figures.auc,
    }
    told = [
        f"{name} {one.value:.3f}" + ("" if one.low is None else f" [{one.low:.3f}, {one.high:.3f}]")
        for name, one in named.items()
        if one is not None
    ]
    frames = f"{_frames(figures.frames)}, {figures.groups} groups, test set {overview.test_set.number}"
    return (("On this project's test set", f"{', '.join(told)} ({frames})"),)


def _when(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
