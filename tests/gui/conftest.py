"""Fixtures of the panel's tests: a fake model, a real store in a temporary folder."""

from __future__ import annotations

import pytest
from desk import Desk, FakePredictor
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QApplication

from sonoloop import drafts
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.settings import change_settings


@pytest.fixture(autouse=True)
def drafts_root(tmp_path, monkeypatch):
    """Keep drafts away from the user's own."""
    monkeypatch.setattr(drafts, "drafts_root", lambda: tmp_path / "drafts")
    return tmp_path / "drafts"


@pytest.fixture
def predictor() -> FakePredictor:
    return FakePredictor()


@pytest.fixture
def store_url(tmp_path) -> str:
    """A store that shows every prediction at once: no frame is kept for testing, and none drawn first."""
    url = f"sqlite:///{tmp_path / 'corrections.db'}"
    with CorrectionStore(url) as opened:
        change_settings(opened, test_cap=0, draw_first_share=0)
    return url


@pytest.fixture
def store(store_url):
    """A second hand on the store that the panel writes to."""
    with CorrectionStore(store_url) as opened:
        yield opened


@pytest.fixture
def notices():
    """The texts of all notifications, oldest first."""
    texts: list[str] = []

    def keep(notification):
        texts.append(str(notification.message))

    notification_manager.notification_ready.connect(keep)
    yield texts
    notification_manager.notification_ready.disconnect(keep)


@pytest.fixture
def make_desk(qtbot, predictor, store_url):
    """Make a desk; the second one is a later session, or another person's."""
    desks: list[Desk] = []

    def make(viewer=None, **options) -> Desk:
        options = {"load_predictor": lambda *_: predictor, "store_url": store_url, **options}
        desks.append(Desk(qtbot, viewer or ViewerModel(), **options))
        return desks[-1]

    yield make
    predictor.gate.set()
    for desk in desks:
        desk.panel.close_session()
    for _ in range(3):
        QApplication.processEvents()
        assert QThreadPool.globalInstance().waitForDone(20_000)


@pytest.fixture
def desk(make_desk) -> Desk:
    return make_desk()
