"""The Train panel on a viewer model: what it counts, shows, starts, stops, finds again and decides."""

from __future__ import annotations

import sys
from pathlib import Path

import fake_training
import pytest
from desk import picture
from napari.components import ViewerModel
from napari.layers import Image as NapariImage
from PIL import Image
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QApplication, QComboBox, QDoubleSpinBox, QLabel, QLineEdit, QPushButton

from sonoloop import errors
from sonoloop.errors import ConflictError, StoreError
from sonoloop.gui.preferences import Preferences
from sonoloop.gui.train.panel import TrainPanel
from sonoloop.gui.train.progress import Stage
from sonoloop.gui.workers import Projects
from sonoloop.jobs import process as train_start
from sonoloop.jobs.events import failure
from sonoloop.leakage import Judging
from sonoloop.project import LearningStatus, Project
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.snapshots import Learnable

NEWS = Learnable(
    version="a" * 64,
    model="default-aaaaaaaa",
    by_class={"benign": 98, "malignant": 44, "normal": 15},
    by_annotator={"anna": 100, "bela": 57},
    samples=157,
    test_frames=41,
)


class FakeProject:
    """Counts what it is told to, and keeps what was brought into use."""

    def __init__(self, jobs: Path) -> None:
        self.jobs = jobs
        self.used: list[tuple[str, str, str | None]] = []
        self.version, self.problem = "a" * 64, None
        self.asked: list[str | None] = []
        self.samples, self.locked = 157, None
        self.deleted: set[str] = set()
        self.judging = Judging(frames=41)

    def at(self, url):
        self.url = url
        return self

    def by(self, who):
        self.who = who
        return self

    def pulse(self, *, thorough=False):
        if isinstance(self.problem, StoreError) and not isinstance(self.problem, ConflictError):
            raise self.problem
        return self.version, self.samples, self.locked, len(self.deleted)

    def learning_status(self):
        self.asked.append(self.url)
        news = Learnable(
            version=self.version,
            model=f"model-{self.version[:8]}",
            by_class=NEWS.by_class,
            by_annotator=NEWS.by_annotator,
            samples=self.samples,
            test_frames=NEWS.test_frames,
        )
        usable = {"a" * 64, "b" * 64, "c" * 64} - self.deleted
        names = ("second", "first")
        return LearningStatus(
            news,
            news.model,
            names,
            self.samples,
            judging=self.judging,
            locked=self.locked,
            usable=frozenset(usable),
        )

    def name_frames(self, frames):
        return dict.fromkeys(frames, "case 12.png")

    def jobs_folder(self):
        return self.jobs if self.url is None else self.jobs.parent / self.url

    def promote(self, gate, *, why):
        if self.problem is not None:
            raise self.problem
        self.used.append((gate.candidate, self.who, why))
        self.version = gate.candidate

    def close(self):
        pass


@pytest.fixture
def fake(tmp_path) -> FakeProject:
    return FakeProject(tmp_path / "jobs")


@pytest.fixture
def mode(monkeypatch, fake):
    """Let Fine-tune start the fake training in the mode that the list holds last."""
    modes, requests = ["done"], []

    def command(request):
        requests.append(request)
        more = [] if request.job is None else [str(request.job)]
        return [sys.executable, fake_training.__file__, "sonoloop_training", str(fake.jobs), modes[-1], *more]

    monkeypatch.setattr(train_start, "_command", command)
    modes_and_requests = modes, requests
    return modes_and_requests


@pytest.fixture
def preferences() -> list[Preferences]:
    """The last one holds."""
    return [Preferences(store=None, annotator="anna", device="cpu")]


@pytest.fixture
def make_panel(qtbot, fake, mode, preferences):
    panels = []

    def make() -> TrainPanel:
        panel = TrainPanel(ViewerModel(), projects=Projects(fake.at), preferences=lambda: preferences[-1])
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
    assert (request.snapshot, request.max_minutes, request.who, request.device) == ("first", 5, "anna", "cpu")


def test_it_shows_the_curves_and_the_verdict(panel, qtbot):
    run(panel, qtbot)
    loss, dice = panel._curves._loss, panel._curves._dice
    assert len(loss.getData()[0]) == fake_training.EPOCHS * fake_training.STEPS
    assert list(dice.getData()[0]) == [1, 2, 3]
    assert label(panel, "promote").startswith("\N{BLACK UP-POINTING TRIANGLE}")
    assert label(
        panel, "Dice +0.031 [+0.012, +0.050], missed malignant unchanged, false alarms \N{MINUS SIGN}2 points"
    )
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
    monkeypatch.setattr("sonoloop.gui.train.watcher.ask_to_stop", lambda _job: None)  # nobody hears it
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
    snapshot, budget = later.findChild(QComboBox), later.findChild(QDoubleSpinBox)
    qtbot.waitUntil(lambda: (snapshot.currentText(), budget.text()) == ("third", "45 min"))
    assert not (snapshot.isEnabled() or budget.isEnabled()), "it is the job's own"
    later.watch.stop()
    wait(later, qtbot, Stage.STOPPED)
    assert (snapshot.currentText(), budget.text()) == ("All accepted", "5 min")
    assert snapshot.isEnabled()
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


def test_use_anyway_asks_why_and_records_it(panel, qtbot, fake):
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
    pictures = {"scatter": str(tmp_path / "scatter.png"), "harmed": str(tmp_path / "gone.png")}
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


def stop_midway(panel, qtbot, mode) -> None:
    mode[0].append("slow")
    button(panel, "Fine-tune").click()
    qtbot.waitUntil(lambda: bool(panel.watch.progress.losses), timeout=15_000)
    button(panel, "Stop").click()
    wait(panel, qtbot, Stage.STOPPED)


def test_another_store_shows_its_own_job_and_goes_on_with_none(panel, qtbot, mode, fake, preferences):
    stop_midway(panel, qtbot, mode)
    assert button(panel, "Go on").isVisibleTo(panel)
    preferences.append(Preferences(store="other", annotator="anna", device="cpu"))
    button(panel, "Go on").click()
    qtbot.waitUntil(lambda: fake.asked[-1] == "other" and not panel.watch._jobs.busy)
    assert panel.watch.progress.stage is Stage.NONE
    assert not button(panel, "Go on").isVisibleTo(panel)
    assert len(mode[1]) == 1, "nothing was started"
    preferences.append(preferences[0])
    panel.news.timer.setInterval(20)
    wait(panel, qtbot, Stage.STOPPED)
    assert button(panel, "Go on").isVisibleTo(panel)


def test_a_job_that_runs_on_another_store_is_not_shown(panel, qtbot, mode, preferences):
    mode[0].append("slow")
    button(panel, "Fine-tune").click()
    preferences.append(Preferences(store="other", annotator="anna", device="cpu"))
    assert panel.follow_store()
    qtbot.wait(700)
    assert panel.watch.progress.stage is Stage.NONE
    preferences.append(preferences[0])
    qtbot.waitUntil(lambda: any(panel.watch._find_jobs(None).glob("*/job.json")), timeout=15_000)
    panel.follow_store()
    wait(panel, qtbot, Stage.RUNNING)
    panel.watch.stop()
    wait(panel, qtbot, Stage.STOPPED)


def test_what_a_resumed_job_says_last_wins_over_how_it_ended_before(panel, qtbot, mode):
    stop_midway(panel, qtbot, mode)
    mode[0].append("fails")
    button(panel, "Go on").click()
    wait(panel, qtbot, Stage.FAILED)
    assert label(panel, "It failed: there are 3 corrections; fine-tuning needs 5: accept more")


def test_go_on_can_be_pressed_again_where_starting_failed(panel, qtbot, mode, monkeypatch, notices):
    stop_midway(panel, qtbot, mode)

    def refuse(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(train_start.subprocess, "Popen", refuse)
        button(panel, "Go on").click()
        qtbot.waitUntil(lambda: bool(notices))
    assert panel.watch.progress.stage is Stage.STOPPED
    mode[0].append("done")
    button(panel, "Go on").click()
    wait(panel, qtbot, Stage.DONE)


def test_a_job_without_a_folder_is_not_gone_on_with(panel, qtbot, mode):
    mode[0].append("fails")
    button(panel, "Fine-tune").click()
    wait(panel, qtbot, Stage.FAILED)
    assert not button(panel, "Go on").isVisibleTo(panel)


def test_files_that_are_gone_can_be_done_without(panel, qtbot, mode):
    without = button(panel, "Go on without them")
    assert not without.isVisibleTo(panel)
    mode[0].append("gone")
    button(panel, "Fine-tune").click()
    wait(panel, qtbot, Stage.FAILED)
    assert without.isVisibleTo(panel)
    told = "It failed: case 12.png is gone; press Go on without them"
    qtbot.waitUntil(lambda: label(panel, "is gone") == told)
    mode[0].append("done")
    without.click()
    wait(panel, qtbot, Stage.DONE)
    first, second = mode[1]
    assert (first.snapshot, first.skip_missing) == (None, False)
    assert (second.snapshot, second.skip_missing) == ("third", True)


def test_a_job_that_another_window_started_is_found(make_panel, qtbot, mode):
    idle, busy = make_panel(), make_panel()
    idle.watch._idle.setInterval(20)
    mode[0].append("slow")
    button(busy, "Fine-tune").click()
    wait(idle, qtbot, Stage.RUNNING)
    assert button(idle, "Stop").isVisibleTo(idle)
    button(idle, "Stop").click()
    for panel in (idle, busy):
        wait(panel, qtbot, Stage.STOPPED)


def test_what_else_is_told_is_folded_below_the_newest(panel):
    from dataclasses import replace

    told = ("only 2 of 3 epochs fit into the time allowed", "ft-1 passed and is not in use: it is locked")
    panel.watch._set(replace(panel.watch.progress, stage=Stage.DONE, notices=told))
    assert label(panel, "ft-1 passed") == told[1]
    assert label(panel, "only 2 of 3") is None
    fold = button(panel, "\N{BLACK RIGHT-POINTING SMALL TRIANGLE} Notes (2)")
    fold.click()
    assert (label(panel, "only 2 of 3"), label(panel, "ft-1 passed")) == told
    fold.click()
    assert label(panel, "only 2 of 3") is None


def test_where_training_is_not_installed_it_says_so_before_it_is_asked_to(make_panel, monkeypatch):
    found = errors.find_spec
    missing = {"torch", "lightning", "monai"}
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name in missing else found(name))
    panel = make_panel()
    told = label(panel, "Fine-tuning needs torch and 2 more packages, which are not installed")
    assert (button(panel, "Fine-tune").isEnabled(), button(panel, "Fine-tune").toolTip()) == (False, told)
    assert label(panel, "pip install") == 'pip install "napari-sonoloop[train]"'


def test_the_command_that_installs_it_is_copied_for_the_python_that_runs(make_panel, monkeypatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "executable", "/home/ann marie/bin/python")
    copy = button(make_panel(), "Copy the command")
    copy.click()
    told = "'/home/ann marie/bin/python' -m pip install \"napari-sonoloop[train]\""
    assert (QApplication.clipboard().text(), copy.text()) == (told, "Copied")
    assert told in copy.toolTip()


def test_too_little_to_learn_from_is_said_before_it_is_asked(make_panel, fake, qtbot):
    fake.samples = 3
    panel = make_panel()
    told = "Accept at least 5 images first; 3 so far"
    assert label(panel, "Accept at least") == told
    assert (button(panel, "Fine-tune").isEnabled(), button(panel, "Fine-tune").toolTip()) == (False, told)
    choice = panel.findChild(QComboBox)
    choice.setCurrentIndex(1)
    assert button(panel, "Fine-tune").isEnabled(), "of a snapshot the panel does not know"
    choice.setCurrentIndex(0)
    fake.samples = 5
    panel.refresh()
    qtbot.waitUntil(button(panel, "Fine-tune").isEnabled)
    assert label(panel, "Accept at least") is None


def test_what_is_accepted_beside_it_is_counted_at_once(desk, qtbot):
    projects = Projects(lambda url: Project(CorrectionStore(url)))
    panel = TrainPanel(desk.viewer, projects=projects, preferences=lambda: desk.preferences)
    qtbot.addWidget(panel)
    qtbot.waitUntil(lambda: label(panel, "Accept at least") == "Accept at least 5 images first; 0 so far")
    desk.open(NapariImage(picture(), name="case"))
    desk.panel.run("choose_normal")
    desk.accept()
    qtbot.waitUntil(lambda: label(panel, "Accept at least") == "Accept at least 5 images first; 1 so far")
    panel.close_session()


def test_go_on_is_offered_after_a_failure_only_with_something_kept(panel, qtbot, mode):
    mode[0].append("gone")
    button(panel, "Fine-tune").click()
    wait(panel, qtbot, Stage.FAILED)
    assert not button(panel, "Go on").isVisibleTo(panel)
    (folder,) = (path.parent for path in panel.watch._find_jobs(None).glob("*/job.json"))
    (folder / "checkpoint.pt").touch()  # of before the first epoch
    panel.watch.look_for(None)
    wait(panel, qtbot, Stage.FAILED)
    assert not button(panel, "Go on").isVisibleTo(panel)
    (folder / "history.jsonl").touch()
    panel.watch.look_for(None)
    wait(panel, qtbot, Stage.FAILED)
    assert button(panel, "Go on").isVisibleTo(panel)


def test_an_error_that_nobody_foresaw_names_the_file_of_its_details(panel, qtbot, mode):
    mode[0].append("gone")
    button(panel, "Fine-tune").click()
    wait(panel, qtbot, Stage.FAILED)
    from dataclasses import replace

    panel.watch._set(replace(panel.watch.progress, failed=failure(TypeError("'NoneType' is not callable"))))
    told = f"It failed: an error in Sonoloop; details in {panel.watch.details}"
    assert panel.watch.details.name == "output.log"
    assert panel._error.text().replace("\N{ZERO WIDTH SPACE}", "") == panel._error.toolTip() == told


def test_a_curve_of_one_point_is_seen_and_axes_hold_what_can_be(panel, qtbot):
    from dataclasses import replace

    panel.watch._set(replace(panel.watch.progress, epochs=3, losses=((0.25, 0.01),), unwatched=True))
    curves = panel._curves
    assert curves._loss.opts["symbol"] == "o"
    assert curves._plots[0].viewRange()[1] == pytest.approx([0, 0.03])
    assert curves._none.isVisible()
    dices = ((0, 0.5), (1, 0.99))
    panel.watch._set(replace(panel.watch.progress, losses=((0.25, 0.9), (1, 0.4)), dices=dices))
    assert curves._loss.opts["symbol"] is None
    assert curves._plots[1].viewRange()[1] == pytest.approx([0.451, 1])
    assert not curves._none.isVisible()


def inconclusive(panel, qtbot) -> None:
    from dataclasses import replace

    run(panel, qtbot)
    gate = replace(panel.watch.progress.gate, verdict="inconclusive", groups_needed=90)
    panel.watch._set(replace(panel.watch.progress, gate=gate))
    assert button(panel, "Use anyway").isVisibleTo(panel)


def test_what_was_deleted_elsewhere_is_not_offered(panel, qtbot, fake):
    inconclusive(panel, qtbot)
    fake.deleted.add("c" * 64)
    qtbot.waitUntil(lambda: label(panel, "It was deleted since") is not None, timeout=5_000)
    assert not button(panel, "Use anyway").isVisibleTo(panel)


def test_a_comparison_with_a_model_that_is_not_in_use_any_more_offers_nothing(panel, qtbot, fake):
    inconclusive(panel, qtbot)
    button(panel, "Use anyway").click()
    fake.version = "b" * 64
    qtbot.waitUntil(lambda: label(panel, "model-bbbbbbbb came into use since") is not None, timeout=5_000)
    assert not button(panel, "Use anyway").isVisibleTo(panel)
    assert not button(panel, "Confirm").isVisibleTo(panel)
    fake.version = "a" * 64
    qtbot.waitUntil(lambda: button(panel, "Use anyway").isVisibleTo(panel), timeout=5_000)


def test_a_locked_project_is_said_and_nothing_can_be_started_or_used(panel, qtbot, fake):
    inconclusive(panel, qtbot)
    fake.locked = "model-aaaaaaaa"
    told = "The project is locked to model-aaaaaaaa: nothing else gets in until it is unlocked in Models"
    qtbot.waitUntil(lambda: label(panel, "locked") == told, timeout=5_000)
    assert (button(panel, "Fine-tune").isEnabled(), button(panel, "Fine-tune").toolTip()) == (False, told)
    assert not button(panel, "Use anyway").isVisibleTo(panel)
    fake.locked = None
    qtbot.waitUntil(lambda: label(panel, "locked") is None, timeout=5_000)
    assert button(panel, "Fine-tune").isEnabled()


def test_a_broken_store_is_said_as_long_as_it_is_and_what_was_counted_stays(panel, qtbot, fake, notices):
    inconclusive(panel, qtbot)
    problem = "the server at db.example cannot be reached: check the connection"
    fake.problem = StoreError(problem)
    told = f"\N{WARNING SIGN} The store cannot be used\n{problem}"
    qtbot.waitUntil(lambda: label(panel, "cannot be reached") == told, timeout=5_000)
    assert label(panel, "to learn").startswith("157 to learn from")
    for name in ("Fine-tune", "Use anyway"):
        assert not (button(panel, name).isEnabled() and button(panel, name).isVisibleTo(panel)), name
    fake.problem = None
    button(panel, "Try again").click()
    qtbot.waitUntil(lambda: label(panel, "cannot be reached") is None)
    qtbot.waitUntil(button(panel, "Fine-tune").isEnabled)
    assert button(panel, "Use anyway").isVisibleTo(panel)
    assert notices == []


def test_frames_that_will_not_judge_are_told_before_it_is_started(panel, qtbot, fake):
    assert label(panel, "do not judge") is None
    fake.judging, fake.samples = Judging(known=37, missing=2), 158
    told = (
        "37 more do not judge: model-aaaaaaaa learned from them, or from copies\n"
        "2 more do not judge: their files are not on this computer\n"
        "With none to judge, whether a new model is used will be yours to say"
    )
    qtbot.waitUntil(lambda: label(panel, "do not judge") == told, timeout=5_000)
    assert label(panel, "to learn").endswith(", 0 to judge")


def test_what_changed_most_is_named_by_its_file(panel, qtbot):
    from dataclasses import replace

    run(panel, qtbot)
    changed = {"harmed": ["1" * 64, "2" * 64], "improved": []}
    panel.watch._set(replace(panel.watch.progress, gate=replace(panel.watch.progress.gate, changed=changed)))
    qtbot.waitUntil(lambda: label(panel, "Most harmed") == "Most harmed: case 12.png, case 12.png")


def test_the_dashed_line_and_an_empty_curve_are_explained(panel, qtbot):
    from dataclasses import replace

    progress = replace(panel.watch.progress, epochs=3, losses=((0.25, 0.9),), dices=((0, 0.5),))
    panel.watch._set(progress)
    told = "Dashed line: the model that it starts from. The curve of the Dice begins after the first epoch"
    assert label(panel, "Dashed") == told
    panel.watch._set(replace(progress, dices=((0, 0.5), (1, 0.6))))
    assert label(panel, "Dashed") == "Dashed line: the model that it starts from"
