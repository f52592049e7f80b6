"""The Models panel on a real store and a real library: what it lists, and what its buttons do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from napari.components import ViewerModel
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QApplication, QLabel, QLineEdit, QPushButton

from sonoloop.gui.models.panel import ModelsPanel
from sonoloop.gui.preferences import Preferences
from sonoloop.gui.workers import Projects
from sonoloop.models.bundle import Bundle, save_bundle
from sonoloop.models.card import Card, ModelSpec, shipped_card
from sonoloop.models.library import Library
from sonoloop.models.networks import build_network
from sonoloop.project import Project
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.metrics import FrameScore
from sonoloop.store.model_registry import list_models, mark, register
from sonoloop.store.promotions import history, incumbent
from sonoloop.store.test_sets import freeze_test_set, write_scores

SPEC = ModelSpec(
    encoder="tu-test_efficientnet", size=64, dropout=0.0, arguments={"decoder_channels": [32, 16, 8, 8, 4]}
)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory) -> tuple[Bundle, Path]:
    """A small model, and where it lies."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("made") / "bundle"
    card = Card(name="ft", spec=SPEC, parent=shipped_card().version)
    return save_bundle(folder, build_network(SPEC).eval(), card), folder


@pytest.fixture
def panel(qtbot, tmp_path, store_url):
    preferences = Preferences(store=store_url, annotator="anna")

    def open_one(url):
        return Project(CorrectionStore(url), library=Library(tmp_path / "models"))

    panel = ModelsPanel(ViewerModel(), projects=Projects(open_one), preferences=lambda: preferences)
    qtbot.addWidget(panel)
    qtbot.waitUntil(lambda: panel._table.rowCount() > 0, timeout=20_000)
    yield panel
    panel.close_session()
    QApplication.processEvents()
    assert QThreadPool.globalInstance().waitForDone(20_000)


@pytest.fixture
def with_tuned(panel, tuned, qtbot):
    """The panel after the small model was imported and chosen."""
    panel.import_file(tuned[1] / "card.json")
    idle(panel, qtbot)
    choose(panel, tuned[0].model)
    return panel


def idle(panel, qtbot) -> None:
    """Wait until what was asked is done, and the list read again."""
    qtbot.waitUntil(lambda: not panel._jobs.busy, timeout=30_000)


def rows(panel) -> list[list[str]]:
    table = panel._table
    columns = range(table.columnCount())
    return [[seen(table.item(r, c).text()) for c in columns] for r in range(table.rowCount())]


def seen(text: str) -> str:
    """A text as it is read, without what lets its lines break."""
    return text.replace("\N{ZERO WIDTH SPACE}", "").replace("\N{NO-BREAK SPACE}", " ")


def choose(panel, model: str) -> None:
    names = [row[0].split("\n")[0].removeprefix("* ") for row in rows(panel)]
    panel._table.selectRow(names.index(model))


def button(panel, text: str) -> QPushButton:
    return next(b for b in panel.findChildren(QPushButton) if b.text() == text)


def give_reason(panel, qtbot, why: str) -> None:
    line = next(each for each in panel.findChildren(QLineEdit) if each.isVisibleTo(panel))
    line.setText(why)
    button(panel, "Confirm").click()
    idle(panel, qtbot)


def test_a_new_project_uses_the_shipped_model(panel):
    dash = "\N{EN DASH}"
    assert rows(panel) == [[f"* {shipped_card().model}\nshipped", "shipped", dash, dash, dash]]
    for name in ("Use", "Roll back", "Delete"):
        assert not button(panel, name).isEnabled(), name
    assert button(panel, "Export").isEnabled()


def test_an_imported_model_is_listed_and_not_used(with_tuned, tuned, store):
    first, second = rows(with_tuned)
    name, below = first[0].split("\n")
    assert name == tuned[0].model
    assert below.endswith(f", from {shipped_card().model}")
    assert second[0].startswith(f"* {shipped_card().model}")
    assert incumbent(store).version == shipped_card().version
    assert button(with_tuned, "Use").isEnabled()


def test_use_asks_why_and_one_click_goes_back(with_tuned, tuned, qtbot, store):
    button(with_tuned, "Use").click()
    give_reason(with_tuned, qtbot, "a second opinion")
    assert incumbent(store).version == tuned[0].version
    assert rows(with_tuned)[0][0].startswith("* ft-")
    button(with_tuned, "Roll back").click()
    idle(with_tuned, qtbot)
    assert [(move.kind, move.who) for move in history(store)] == [
        ("first", "anna"),
        ("use", "anna"),
        ("rollback", "anna"),
    ]
    assert history(store)[1].why == "a second opinion"
    assert incumbent(store).version == shipped_card().version


def test_a_damaged_model_is_not_used(with_tuned, qtbot, store, tmp_path, notices):
    (weights,) = (tmp_path / "models").glob("ft-*/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    button(with_tuned, "Use").click()
    give_reason(with_tuned, qtbot, "a second opinion")
    assert weights.parent.name in notices[-1]
    assert incumbent(store).version == shipped_card().version


def test_a_name_is_whole_in_a_narrow_column(panel):
    text = panel._table.item(0, 0).text()
    assert text.startswith("*\N{NO-BREAK SPACE}default-\N{ZERO WIDTH SPACE}")


def test_the_card_of_a_model_that_is_not_here_names_the_panels_own_button(panel, store, qtbot):
    register(store, version="b" * 64, model="ft-b", origin="tuned", who="bela", parent=shipped_card().version)
    panel.news.look()
    qtbot.waitUntil(lambda: panel._table.rowCount() == 2, timeout=10_000)
    choose(panel, "ft-b")
    button(panel, "Card").click()
    idle(panel, qtbot)
    assert "press Import in Models" in panel._facts.text()
    assert "sonoloop models" not in panel._facts.text()


def test_what_could_not_be_done_is_said_until_something_else_is_done(with_tuned, qtbot, tmp_path):
    with_tuned.problem.tell("the card of x cannot be used")
    with_tuned.export_file(tmp_path / "ft.zip")
    idle(with_tuned, qtbot)
    assert not with_tuned.problem.isVisibleTo(with_tuned)


def test_export_and_import_bring_the_same_model(with_tuned, tuned, qtbot, tmp_path, store):
    with_tuned.export_file(tmp_path / "ft.zip")
    idle(with_tuned, qtbot)
    button(with_tuned, "Delete").click()
    assert (tmp_path / "models" / tuned[0].model).exists(), "it is asked first"
    next(b for b in with_tuned._question.answers() if b.text() == "Delete").click()
    idle(with_tuned, qtbot)
    assert not (tmp_path / "models" / tuned[0].model).exists()
    assert len(rows(with_tuned)) == 1
    with_tuned.import_file(tmp_path / "ft.zip")
    idle(with_tuned, qtbot)
    assert rows(with_tuned)[0][0].startswith(tuned[0].model)
    assert [row.standing for row in list_models(store) if row.version == tuned[0].version] == [()]


def test_what_is_no_model_is_refused_and_nothing_is_lost(panel, qtbot, tmp_path, notices):
    (tmp_path / "holiday.zip").write_bytes(b"PK no zip")
    panel.import_file(tmp_path / "holiday.zip")
    idle(panel, qtbot)
    assert "holiday" in notices[-1]
    assert len(rows(panel)) == 1


def test_a_locked_project_lets_nothing_in(with_tuned, qtbot, store, tuned):
    button(with_tuned, "Lock").click()
    give_reason(with_tuned, qtbot, "reader study 3")
    assert not button(with_tuned, "Use").isEnabled()
    assert "locked" in rows(with_tuned)[1][0]
    button(with_tuned, "Unlock").click()
    give_reason(with_tuned, qtbot, "the study is over")
    choose(with_tuned, tuned[0].model)
    assert button(with_tuned, "Use").isEnabled()


def test_the_card_tells_what_is_known(with_tuned, tuned, qtbot, store):
    mark(store, tuned[0].version, "refused", why="it misses more", who="anna")
    button(with_tuned, "Card").click()
    idle(with_tuned, qtbot)
    text = with_tuned._facts.text().replace("\N{ZERO WIDTH SPACE}", "")
    for fact in (
        tuned[0].version,
        "Unet tu-test_efficientnet, 64 px",
        shipped_card().model,
        "it misses more",
    ):
        assert fact in text
    choose(with_tuned, shipped_card().model)
    idle(with_tuned, qtbot)
    shipped = with_tuned._facts.text()
    for fact in ("busbra", "CC BY 4.0", "Limits", "not compared yet", "Images by site"):
        assert fact in shipped
    button(with_tuned, "Card").click()
    assert not with_tuned._facts.isVisibleTo(with_tuned)


def test_a_model_that_is_not_on_this_machine_is_shown_and_cannot_be_used(with_tuned, tuned, qtbot, tmp_path):
    shutil.rmtree(tmp_path / "models" / tuned[0].model)
    with_tuned.refresh()
    idle(with_tuned, qtbot)
    assert "not on this machine" in rows(with_tuned)[0][0]
    assert not button(with_tuned, "Use").isEnabled()


def test_a_wide_table_has_columns_of_their_own_for_made_and_from(with_tuned, tuned, qtbot):
    table = with_tuned._table
    with_tuned.resize(300, 400)
    with qtbot.waitExposed(with_tuned):
        with_tuned.show()
    assert [table.isColumnHidden(column) for column in range(5)] == [False, True, False, False, True]
    with_tuned.resize(600, 400)
    qtbot.waitUntil(lambda: table.width() > 500)
    assert not any(table.isColumnHidden(column) for column in range(5))
    assert rows(with_tuned)[0][0] == tuned[0].model
    assert rows(with_tuned)[0][4] == shipped_card().model


def test_figures_are_those_on_the_newest_test_set(with_tuned, tuned, qtbot, store):
    import numpy as np

    from sonoloop.imaging.grey import frame_from_array
    from sonoloop.store.groups import place_frame
    from sonoloop.store.settings import change_settings
    from sonoloop.values import Correction

    change_settings(store, test_cap=300)
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64)).astype(np.uint8)
        frame = frame_from_array(pixels, name="")
        place_frame(store, frame, role="test")
        mask = np.zeros((64, 64), np.uint8)
        mask[:8, :8] = number > 0
        label = "benign" if number else "normal"
        correction = Correction(
            frame_id=frame.id, pixels_hash=frame.pixels_hash, mask=mask, label=label, annotator="anna"
        )
        store.accept(correction, parent=None)
    scores = {}
    for judge in freeze_test_set(store).members:
        truth = store.newest(judge.frame_id).correction
        scores[judge.revision_id] = FrameScore(
            frame=judge.frame_id,
            group=judge.group_id,
            label=truth.label,
            lesion=truth.label != "normal",
            dice=0.8,
            claimed=True,
            malignant=0.2,
        )
    write_scores(store, tuned[0].version, scores)
    with_tuned.refresh()
    idle(with_tuned, qtbot)
    assert rows(with_tuned)[0][2:4] == [".800\n[.80, .80]", "100 %"]
    assert rows(with_tuned)[1][2:4] == ["\N{EN DASH}", "\N{EN DASH}"]
    told = [label.text() for label in with_tuned.findChildren(QLabel)]
    assert "* in use. Figures on test set 1, 4 groups, 0 looks" in told
