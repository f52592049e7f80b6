"""The Train panel on a viewer model: what it counts, shows, starts, stops, finds again and decides."""

from __future__ import annotations

import sys
from pathlib import Path

import fake_training
import pytest
from napari.components import ViewerModel
from PIL import Image
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QApplication, QComboBox, QLabel, QLineEdit, QPushButton

from sonoloop.errors import ConflictError
from sonoloop.gui import train_start
from sonoloop.gui.desks import Outlook
from sonoloop.gui.preferences import Preferences
from sonoloop.gui.train import TrainPanel
from sonoloop.gui.train_progress import Stage
from sonoloop.labels.news import News

NEWS = News(
    version="a" * 64,
    model="default-aaaaaaaa",
    by_class={"benign": 98, "malignant": 44, "normal": 15},
    by_annotator={"anna": 100, "bela": 57},
    judge=41,
)


class FakeDesk:
    """Counts what it is told to, and keeps what was brought into use."""

    def __init__(self, jobs: Path) -> None:
        self.jobs = jobs
        self.used: list[tuple[str, str, str | None]] = []
        self.version, self.problem = "a" * 64, None

    def outlook(self, _url):
        news = News(
            version=self.version,
            model=f"model-{self.version[:8]}",
            by_class=NEWS.by_class,
            by_annotator=NEWS.by_annotator,
            judge=NEWS.judge,
        )
        return Outlook(news, news.model, ("second", "first"))

    def name_frames(self, _url, frames):
        return dict.fromkeys(frames, "case 12.png")

    def jobs_folder(self, _url):
        return self.jobs

    def use(self, _url, gate, *, who, why):
        if self.problem is not None:
            raise self.problem
        self.used.append((gate.candidate, who, why))
        self.version = gate.candidate

    def close(self):
        pass


@pytest.fixture
def fake(tmp_path) -> FakeDesk:
    return FakeDesk(tmp_path / "jobs")


@pytest.fixture
def mode(monkeypatch, fake):
    """Let Fine-tune start the fake training in the mode that the list holds last."""
    modes, requests = ["done"], []

    def command(request, folder):
        requests.append(request)
        more = [] if folder is None else ["--job", str(folder)]
        return [sys.executable, fake_training.__file__, "sonoloop_training", str(fake.jobs), modes[-1], *more]

    monkeypatch.setattr(train_start, "_command", command)
    modes_and_requests = modes, requests
    return modes_and_requests


@pytest.fixture
def make_panel(qtbot, fake, mode):
    panels = []

    def make() -> TrainPanel:
        preferences = Preferences(store=None, annotator="anna", device="cpu")
        panel = TrainPanel(ViewerModel(), make_desk=lambda: fake, preferences=lambda: preferences)
        qtbot.addWidget(panel)
        panel.watch._poll.setInterval(20)
        qtbot.waitUntil(lambda: not label(panel, "Counting"))
        panels.append(panel)
        return panel

    yield make
    for panel in panels:
        panel.watch.stop()
        qtbot.waitUntil(lambda panel=panel: not panel.watch.progress.stage.alive, timeout=15_000)
        panel.close_session()
    QApplication.processEvents()
    assert QThreadPool.globalInstance().waitForDone(20_000)


@pytest.fixture
def panel(make_panel) -> TrainPanel:
    return make_panel()


def button(panel, text: str) -> QPushButton:
    return next(b for b in panel.findChildren(QPushButton) if b.text() == text)


def label(panel, text: str) -> str | None:
    shown = (each.text() for each in panel.findChildren(QLabel) if each.isVisibleTo(panel))
    return next((each for each in shown if text in each), None)


def wait(panel, qtbot, stage: Stage) -> None:
    qtbot.waitUntil(lambda: panel.watch.progress.stage is stage, timeout=15_000)


def run(panel, qtbot) -> None:
    button(panel, "Fine-tune").click()
    wait(panel, qtbot, Stage.DONE)


def test_it_says_what_is_new_by_class_and_by_annotator(panel):
    assert label(panel, "New since") == "New since model-aaaaaaaa"
    told = "157 to learn from (98 benign, 44 malignant, 15 normal), 41 to judge"
    assert label(panel, "to learn") == told
    assert label(panel, "By ") == "By anna 100, bela 57"


def test_fine_tune_asks_for_what_is_chosen(panel, qtbot, mode):
    choice = panel.findChild(QComboBox)
    assert [choice.itemText(i) for i in range(choice.count())] == ["All accepted", "second", "first"]
    choice.setCurrentText("first")
    run(panel, qtbot)
    (request,) = mode[1]
    assert (request.snapshot, request.minutes, request.who, request.device) == ("first", 5, "anna", "cpu")


def test_it_shows_the_curves_and_the_verdict(panel, qtbot):
    run(panel, qtbot)
    loss, dice = panel._curves._loss, panel._curves._dice
    assert len(loss.getData()[0]) == fake_training.EPOCHS * fake_training.STEPS
    assert list(dice.getData()[0]) == [1, 2, 3]
    assert label(panel, "promote").startswith("\N{BLACK UP-POINTING TRIANGLE}")
    assert label(panel, "Dice +0.031 [+0.012, +0.050], missed malignant 0 %, false alarms \N{MINUS SIGN}2 %")
    assert label(panel, "on 64 test groups (set 3, look 5)")
    told = "1 correction does not train:\ncase 12.png: a lesion on a frame called normal"
    qtbot.waitUntil(lambda: label(panel, "does not train") == told)
    assert label(panel, "Made ft-cccccccc")


def test_stop_ends_it_and_go_on_finishes_it(panel, qtbot, mode):
    mode[0].append("slow")
    button(panel, "Fine-tune").click()
    qtbot.waitUntil(lambda: bool(panel.watch.progress.losses), timeout=15_000)
    assert not button(panel, "Fine-tune").isEnabled()
    button(panel, "Stop").click()
    assert label(panel, "Stopping")
    wait(panel, qtbot, Stage.STOPPED)
    assert label(panel, "Stopped")
    mode[0].append("done")
    button(panel, "Go on").click()
    wait(panel, qtbot, Stage.DONE)
    assert [epoch for epoch, _ in panel.watch.progress.dices][-1] == fake_training.EPOCHS


def test_what_does_not_stop_by_itself_is_ended(panel, qtbot, mode, monkeypatch):
    monkeypatch.setattr("sonoloop.gui.train_watch.ask_to_stop", lambda _job: None)  # nobody hears it
    mode[0].append("slow")
    panel.watch._patience.setInterval(100)
    button(panel, "Fine-tune").click()
    qtbot.waitUntil(lambda: bool(panel.watch.progress.losses), timeout=15_000)
    button(panel, "Stop").click()
    wait(panel, qtbot, Stage.STOPPED)


def test_a_panel_opened_later_finds_the_job_that_runs(make_panel, qtbot, mode):
    mode[0].append("slow")
    first = make_panel()
    button(first, "Fine-tune").click()
    qtbot.waitUntil(lambda: bool(first.watch.progress.losses), timeout=15_000)
    first.close_session()
    later = make_panel()
    wait(later, qtbot, Stage.RUNNING)
    qtbot.waitUntil(lambda: bool(later.watch.progress.losses), timeout=15_000)
    assert later.watch.progress.losses[0] == (0.25, 1 / 1.25), "from its beginning"
    later.watch.stop()
    wait(later, qtbot, Stage.STOPPED)
    first.watch.progress = later.watch.progress


def test_a_failure_is_told_in_the_process_own_words(panel, qtbot, mode):
    mode[0].append("fails")
    button(panel, "Fine-tune").click()
    wait(panel, qtbot, Stage.FAILED)
    assert label(panel, "It failed: there are 3 corrections; fine-tuning needs 5: accept more")
    assert button(panel, "Fine-tune").isEnabled()


def test_use_it_takes_the_gate_at_its_word(panel, qtbot, fake):
    run(panel, qtbot)
    button(panel, "Use it").click()
    qtbot.waitUntil(lambda: label(panel, "In use now") is not None)
    assert fake.used == [("c" * 64, "anna", None)]
    assert not button(panel, "Use it").isVisibleTo(panel)


def test_use_anyway_asks_why_and_records_it(panel, qtbot, fake, monkeypatch):
    monkeypatch.setitem(fake_training.GATE, "verdict", "promote")
    run(panel, qtbot)
    from dataclasses import replace

    gate = replace(panel.watch.progress.gate, verdict="inconclusive", groups_needed=90)
    panel.watch._set(replace(panel.watch.progress, gate=gate))
    assert label(panel, "Inconclusive").startswith("\N{BLACK DIAMOND}")
    button(panel, "Use anyway").click()
    line = next(each for each in panel._gate.findChildren(QLineEdit) if each.isVisibleTo(panel))
    confirm = button(panel, "Confirm")
    assert not confirm.isEnabled(), "a reason is asked for"
    line.setText("the study asks for it")
    confirm.click()
    qtbot.waitUntil(lambda: bool(fake.used))
    assert fake.used == [("c" * 64, "anna", "the study asks for it")]


def test_what_the_store_refuses_is_said(panel, qtbot, fake, notices):
    run(panel, qtbot)
    fake.problem = ConflictError("another model came into use since this comparison")
    button(panel, "Use it").click()
    qtbot.waitUntil(lambda: bool(notices))
    assert notices == ["another model came into use since this comparison"]
    assert button(panel, "Use it").isVisibleTo(panel)


def test_pictures_are_shown_small_and_open_larger(panel, qtbot, tmp_path):
    from dataclasses import replace

    Image.new("RGB", (700, 500), "white").save(tmp_path / "scatter.png")
    run(panel, qtbot)
    pictures = {"scatter": tmp_path / "scatter.png", "harmed": tmp_path / "gone.png"}
    panel.watch._set(
        replace(panel.watch.progress, gate=replace(panel.watch.progress.gate, pictures=pictures))
    )
    qtbot.waitUntil(lambda: label(panel, "Before and after") is not None)
    assert label(panel, "Most harmed") is None
    thumbnail = next(b for b in panel.findChildren(QPushButton) if "open larger" in b.accessibleName())
    assert thumbnail.iconSize().width() < 100
    thumbnail.click()
    window = next(w for w in QApplication.topLevelWidgets() if w.windowTitle() == "Before and after")
    assert window.widget().pixmap().width() == 700
    window.close()
