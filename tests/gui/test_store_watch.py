"""Panels hear of each other, of other programs and of a store that is broken, on real stores."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from desk import picture
from napari.layers import Image
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QApplication, QLabel, QPushButton, QWidget

from sonoloop.errors import StoreError
from sonoloop.gui.batch import BatchPanel
from sonoloop.gui.models.panel import ModelsPanel
from sonoloop.gui.preferences import Preferences
from sonoloop.gui.store_watch import StoreWatch
from sonoloop.gui.train.panel import TrainPanel
from sonoloop.gui.widgets import BROKEN
from sonoloop.gui.words import fit_toast
from sonoloop.gui.workers import Projects, open_project
from sonoloop.models.library import Library
from sonoloop.project import Project
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.model_registry import register
from sonoloop.store.promotions import incumbent, lock, promote

TUNED = "b" * 64


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Look ten times as often as in a window."""
    monkeypatch.setattr("sonoloop.gui.store_watch._POLL_MS", 200)
    monkeypatch.setattr("sonoloop.gui.store_watch._DOUBT_MS", 500)


@pytest.fixture
def panels(desk, qtbot, tmp_path):
    """Annotate, Train, Models and Batch predict, each with what it would have in a window."""

    def open_one(url):
        return Project(CorrectionStore(url), library=Library(tmp_path / "models"))

    made = [
        kind(desk.viewer, projects=Projects(open_one), preferences=lambda: desk.preferences)
        for kind in (TrainPanel, ModelsPanel, BatchPanel)
    ]
    for panel in made:
        qtbot.addWidget(panel)
    train, models, _batch = made
    qtbot.waitUntil(lambda: train._status is not None and models._models is not None, timeout=20_000)
    yield desk.panel, *made
    for panel in made:
        panel.close_session()
    QApplication.processEvents()
    assert QThreadPool.globalInstance().waitForDone(20_000)


def file_of(desk) -> Path:
    return Path(desk.preferences.store.removeprefix("sqlite:///"))


def button(panel, text: str) -> QPushButton:
    return next(b for b in panel.findChildren(QPushButton) if b.text() == text)


def trouble(panel) -> str | None:
    shown = (each.text() for each in panel.problem.findChildren(QLabel) if each.isVisibleTo(panel))
    return next((each.replace("\N{ZERO WIDTH SPACE}", "") for each in shown), None)


def starred(models) -> str:
    return next(line.row.model for line in models._models.overview.models if line.in_use)


def test_what_another_program_decides_is_seen_in_all_panels(panels, store, qtbot):
    annotate, train, models, _ = panels
    shipped = incumbent(store).version
    register(store, version=TUNED, model="ft-bbbbbbbb", origin="tuned", who="anna", parent=shipped)
    promote(store, TUNED, kind="use", who="anna", why="a test", expected=shipped)
    qtbot.waitUntil(lambda: starred(models) == "ft-bbbbbbbb", timeout=6_000)
    qtbot.waitUntil(lambda: train._status.model == "ft-bbbbbbbb")
    qtbot.waitUntil(lambda: "ft-bbbbbbbb" in annotate.predicting.model_line)
    assert models._back.toolTip().startswith("Put default-")
    models._back.click()
    qtbot.waitUntil(lambda: starred(models) != "ft-bbbbbbbb", timeout=30_000)  # its bundle is verified
    qtbot.waitUntil(lambda: train._status.model == starred(models))
    qtbot.waitUntil(lambda: starred(models) in annotate.predicting.model_line)


def test_roll_back_does_what_its_tooltip_says_or_nothing(panels, store, qtbot, notices):
    _, _, models, _ = panels
    shipped = incumbent(store).version
    for version, name in ((TUNED, "ft-bbbbbbbb"), ("c" * 64, "ft-cccccccc")):
        register(store, version=version, model=name, origin="tuned", who="anna", parent=shipped)
    promote(store, TUNED, kind="use", who="anna", why="a test", expected=shipped)
    qtbot.waitUntil(lambda: starred(models) == "ft-bbbbbbbb", timeout=6_000)
    promote(store, "c" * 64, kind="use", who="bela", why="a test", expected=TUNED)
    models._back.click()  # before it is heard of
    qtbot.waitUntil(lambda: bool(notices))
    assert incumbent(store).version == "c" * 64
    qtbot.waitUntil(lambda: models._back.toolTip() == "Put ft-bbbbbbbb back into use")


def test_a_lock_by_another_program_is_seen_in_train_and_models(panels, store, qtbot):
    _, train, models, _ = panels
    lock(store, incumbent(store).version, who="anna", why="a reader study")
    qtbot.waitUntil(lambda: models._lock.text() == "Unlock", timeout=6_000)
    qtbot.waitUntil(lambda: train._status.locked is not None)
    assert not button(train, "Fine-tune").isEnabled()


def damage(path: Path, how: str) -> None:
    if how == "gone":
        path.rename(path.with_suffix(".away"))
    elif how == "empty":
        path.rename(path.with_suffix(".away"))
        path.touch()
    elif how == "no database":
        path.rename(path.with_suffix(".away"))
        path.write_bytes(b"no database at all" * 100)
    elif how == "no tables":
        path.rename(path.with_suffix(".away"))
        sqlite3.connect(path).execute("CREATE TABLE other (x)").connection.close()


@pytest.mark.parametrize("how", ["gone", "empty", "no database", "no tables"])
def test_a_store_that_breaks_while_open_is_said_in_every_panel_until_it_works(
    panels, desk, qtbot, how, notices
):
    annotate, train, models, _ = panels
    path = file_of(desk)
    desk.open(Image(picture(), name="case"))
    annotate.run("choose_benign")
    desk.lesions.data_setitem((np.array([3, 4]), np.array([3, 3])), 1)
    damage(path, how)
    qtbot.waitUntil(lambda: all(trouble(panel) for panel in panels), timeout=6_000)
    for panel in panels:
        assert str(path) in trouble(panel)
    for panel, name in ((annotate, "Accept"), (train, "Fine-tune"), (models, "Lock"), (models, "Roll back")):
        assert not button(panel, name).isEnabled(), name
    annotate.run("accept")
    assert desk.lesions.data.any(), "what was drawn stays"
    assert len(models._models.overview.models) == 1, "what was read stays"
    path.with_suffix(".away").replace(path)
    button(models, "Try again").click()
    qtbot.waitUntil(lambda: not any(trouble(panel) for panel in panels))
    annotate.session.state(annotate.session.target).label = "benign"
    qtbot.waitUntil(lambda: desk.view.why_no_accept is None)
    annotate.run("accept")
    qtbot.waitUntil(lambda: desk.view.accepted)
    assert all(len(text) <= 90 for text in notices)


def test_damage_within_a_store_is_said_as_soon_as_something_fails_until_it_is_restored(panels, desk, qtbot):
    annotate, path = panels[0], file_of(desk)
    whole = path.read_bytes()
    desk.open(Image(picture(), name="case"))
    annotate.run("choose_normal")
    # in place: a file that is emptied first may be looked at while it is empty
    with path.open("r+b") as file:
        file.write(whole[:4096] + os.urandom(len(whole) - 4096))
    annotate.run("accept")
    qtbot.waitUntil(lambda: all(trouble(panel) for panel in panels), timeout=6_000)
    assert "is damaged" in trouble(annotate) or "could not be used" in trouble(annotate)
    assert annotate.session.state(annotate.session.target).label == "normal"
    qtbot.wait(3_000)
    assert all(trouble(panel) for panel in panels), "no quick look takes it away"
    path.write_bytes(whole)
    annotate.problem._again.click()
    qtbot.waitUntil(lambda: not any(trouble(panel) for panel in panels))
    qtbot.waitUntil(lambda: desk.view.why_no_accept is None)
    desk.accept()


def test_a_store_that_cannot_be_opened_is_said_and_opened_as_soon_as_it_can(make_desk, qtbot, tmp_path):
    place = tmp_path / "share" / "study" / "corrections.db"
    desk = make_desk(store_url=str(place))
    qtbot.waitUntil(lambda: trouble(desk.panel) is not None, timeout=6_000)
    assert str(place.parent) in trouble(desk.panel)
    desk.viewer.layers.append(Image(picture(), name="case"))
    qtbot.waitUntil(lambda: desk.view.name == "case")
    assert desk.view.why_no_accept.startswith("The store cannot be used")
    place.parent.mkdir(parents=True)
    qtbot.waitUntil(lambda: trouble(desk.panel) is None, timeout=9_000)
    desk.panel.run("choose_normal")
    qtbot.waitUntil(lambda: desk.view.why_no_accept is None)
    desk.accept()
    assert place.exists()


def test_a_store_that_became_read_only_is_said(panels, desk, qtbot, monkeypatch):
    real = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, *args, **more: False if str(path) == str(file_of(desk)) else real(path, *args, **more),
    )
    qtbot.waitUntil(lambda: all(trouble(panel) for panel in panels), timeout=6_000)
    assert "is read-only: allow writing to it" in trouble(panels[0])
    monkeypatch.setattr(os, "access", real)
    qtbot.waitUntil(lambda: not any(trouble(panel) for panel in panels), timeout=6_000)


def test_a_store_that_was_put_in_the_place_of_another_is_read_anew(panels, desk, qtbot, tmp_path):
    annotate, train, _models, _ = panels
    desk.open(Image(picture(), name="case"))
    annotate.run("choose_normal")
    desk.accept()
    qtbot.waitUntil(lambda: train._status.samples == 1, timeout=6_000)
    with CorrectionStore(f"sqlite:///{tmp_path / 'other.db'}"):
        pass
    file_of(desk).rename(tmp_path / "gone.db")
    qtbot.waitUntil(lambda: trouble(train) is not None, timeout=6_000)
    (tmp_path / "other.db").rename(file_of(desk))
    train.problem._again.click()
    qtbot.waitUntil(lambda: train._status.samples == 0, timeout=6_000)


def test_what_is_said_as_the_stores_trouble_is_not_said_twice(panels, qtbot):
    line = panels[0].problem
    for told in (False, True):
        line.tell(None)
        for act in (line.tell, line.set_trouble) if told else (line.set_trouble, line.tell):
            act("it is gone")
        said = [each.text() for each in line.findChildren(QLabel) if each.isVisibleTo(line)]
        assert len(said) == 1, said
        line.set_trouble(None)
    line.tell("another matter")
    assert button(line, "Dismiss").isVisibleTo(line)


def test_batch_predict_is_off_while_the_store_is_broken(panels, desk, qtbot):
    batch = panels[-1]
    damage(file_of(desk), "gone")
    qtbot.waitUntil(lambda: trouble(batch) is not None, timeout=6_000)
    assert not batch._start.isEnabled()
    assert batch._start.toolTip() == BROKEN


@pytest.mark.parametrize("named", ["study.db", "sqlite:///study.db", "a/../b.db"])
def test_a_store_named_by_half_a_path_is_not_made_wherever_napari_runs(tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="not a whole path"):
        open_project(named)
    assert not list(tmp_path.glob("*.db"))


def test_a_panel_that_is_closed_during_a_look_troubles_no_other(qtbot, tmp_path):
    began, goes_on, told = Event(), Event(), []

    def close_meanwhile(_url):
        began.set()
        goes_on.wait(20)
        raise StoreError("the panel was closed")

    wish, parents = Preferences(store=str(tmp_path / "a.db")), (QWidget(), QWidget())
    projects = Projects(lambda url: Project(CorrectionStore(url)))
    closed, stays = (
        StoreWatch(each, lambda: wish, parent=parent)
        for each, parent in zip((Projects(close_meanwhile), projects), parents, strict=True)
    )
    stays.trouble_changed.connect(lambda: told.append(stays.trouble))
    qtbot.waitUntil(lambda: began.is_set() and stays._shared is not None)
    with qtbot.waitSignal(stays.changed, timeout=20_000):
        closed.close()
        goes_on.set()
    assert told == []
    stays.close()
    projects.close()


def test_a_store_of_which_the_name_is_being_typed_is_not_begun(make_desk, qtbot, tmp_path, monkeypatch):
    listening = []
    monkeypatch.setattr(
        "sonoloop.gui.annotate.panel.watch_preferences",
        lambda changed: listening.append(changed) or (lambda: None),
    )
    desk = make_desk()
    desk.open(Image(picture(), name="case"))
    dialog = QWidget()
    monkeypatch.setattr(QApplication, "activeWindow", lambda: dialog)
    desk.preferences = replace(desk.preferences, store=str(tmp_path / "corr"))
    listening[0]()
    qtbot.wait(500)
    assert not (tmp_path / "corr").exists()
    desk.preferences = replace(desk.preferences, store=str(tmp_path / "corrections.db"))
    monkeypatch.setattr(QApplication, "activeWindow", lambda: None)
    qtbot.waitUntil((tmp_path / "corrections.db").exists, timeout=6_000)
    desk.ready()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("short", "short"),
        ("it is read-only: " + "word " * 20, "it is read-only\N{HORIZONTAL ELLIPSIS}"),
        (
            "/" + "x" * 300 + " is gone: why",
            "/" + "x" * 22 + "\N{HORIZONTAL ELLIPSIS}" + "x" * 23 + " is gone: why",
        ),
        ("word " * 40, "word " * 17 + "word\N{HORIZONTAL ELLIPSIS}"),
        ("one\ntwo", "one two"),
    ],
)
def test_a_notification_is_one_line_that_fits(text, shown):
    assert fit_toast(text) == shown
    assert len(shown) <= 90
