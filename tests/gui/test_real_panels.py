"""Train and Models in a real viewer, through the manifest: as tabs, narrow, on the Annotate panel's store."""

from __future__ import annotations

from pathlib import Path

import pytest
from npe2 import PluginManifest
from qtpy.QtWidgets import QApplication, QDockWidget, QScrollArea

import sonoloop
from sonoloop.gui.launch import dock_panel
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.model_registry import register
from sonoloop.store.promotions import incumbent, promote

pytestmark = pytest.mark.gui

PLUGIN = "napari-sonoloop"
SCROLL_BAR = 16


@pytest.fixture
def viewer(plugin_settings, npe2pm, make_napari_viewer_proxy, store_url):
    npe2pm.register(PluginManifest.from_file(Path(sonoloop.__file__).with_name("napari.yaml")))
    viewer = make_napari_viewer_proxy(show=True)
    viewer.window.resize(1280, 800)
    dock_panel(viewer, store=store_url)
    return viewer


@pytest.fixture
def panels(viewer, qtbot):
    """The three panels, opened one after another as from the menu."""
    opened = [dock_panel(viewer)]
    for name in ("Train", "Models"):
        dock, panel = viewer.window.add_plugin_dock_widget(PLUGIN, name)
        dock.show()
        qtbot.waitUntil(lambda panel=panel: panel._stacked and not panel._stack.isActive())
        opened.append(panel)
    annotate, train, models = opened
    qtbot.waitUntil(lambda: train._status is not None and models._models is not None, timeout=20_000)
    yield annotate, train, models
    for panel in opened:
        panel.close_session()


def test_they_are_tabs_of_the_annotate_panel(panels):
    docks = [panel.parent() for panel in panels]
    while not all(isinstance(dock, QDockWidget) for dock in docks):
        docks = [dock if isinstance(dock, QDockWidget) else dock.parent() for dock in docks]
    window = docks[0].parent()
    assert set(window.tabifiedDockWidgets(docks[0])) == set(docks[1:])


def test_they_fit_300_pixels(panels):
    for panel in panels:
        content = panel.findChild(QScrollArea).widget()
        QApplication.processEvents()
        assert content.minimumSizeHint().width() <= 300 - SCROLL_BAR, type(panel).__name__
        assert panel.width() < 400, "the canvas keeps the image large"


def test_they_work_on_the_store_that_the_annotate_panel_was_opened_on(panels, store_url):
    for panel in panels[1:]:
        assert panel._preferences().store == store_url


def test_a_model_used_in_one_panel_is_that_of_the_others(panels, store_url, qtbot):
    annotate, train, models = panels
    with CorrectionStore(store_url) as store:
        shipped = incumbent(store).version
        register(store, version="b" * 64, model="ft-b", origin="tuned", who="anna", parent=shipped)
        promote(store, "b" * 64, kind="use", who="anna", why="a test", expected=shipped)
    train.refresh()
    qtbot.waitUntil(lambda: "ft-b" in annotate.predicting.model_line, timeout=10_000)
    models.refresh()
    qtbot.waitUntil(
        lambda: any(line.row.model == "ft-b" for line in models._models.overview.models), timeout=10_000
    )
