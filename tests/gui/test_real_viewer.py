"""The whole way in a real viewer, through the manifest, as a user goes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from desk import FakePredictor, picture
from napari.settings import get_plugin_settings
from npe2 import PluginManifest
from PIL import Image
from qtpy.QtWidgets import QApplication, QPushButton, QScrollArea, QToolButton

import sonoloop
import sonoloop.project
from sonoloop.gui.annotate.deciding import Question
from sonoloop.gui.launch import dock_panel, prepare_viewer
from sonoloop.imaging.phantom import sample_study
from sonoloop.store.settings import change_settings

pytestmark = pytest.mark.gui

PLUGIN = "napari-sonoloop"
SCROLL_BAR = 16


class PhantomPredictor(FakePredictor):
    """Finds the same box in every image: a phantom's lesion is dark, which the fake does not see."""

    def predict(self, frame):
        bright = np.zeros(frame.shape, np.uint8)
        bright[200:240, 300:360] = 255
        return super().predict(type(frame)(pixels=bright, id=frame.id, pixels_hash="", name=""))


@pytest.fixture
def plugin(plugin_settings, npe2pm, monkeypatch, store_url):
    """The manifest, registered; its preferences point to a store in a temporary folder."""
    npe2pm.register(PluginManifest.from_file(Path(sonoloop.__file__).with_name("napari.yaml")))
    settings = get_plugin_settings(PLUGIN).annotate
    settings.store = store_url
    settings.annotator = "anna"
    model = PhantomPredictor()
    monkeypatch.setattr(sonoloop.project, "load_model", lambda *_, **__: model)
    return model


def seen(panel):
    return panel.session.view()


def test_open_sample_predict_paint_accept_close_reopen(plugin, make_napari_viewer_proxy, qtbot):
    viewer = make_napari_viewer_proxy()
    viewer.open_sample(PLUGIN, "benign")
    panel = dock_panel(viewer)
    qtbot.waitUntil(lambda: seen(panel).name == "benign phantom")
    panel.run("predict")
    qtbot.waitUntil(lambda: "benign phantom lesions" in viewer.layers)
    lesions = viewer.layers["benign phantom lesions"]
    assert lesions.data.sum() == 40 * 60
    lesions.selected_label = 2
    lesions.paint((100, 100), 2)
    painted = np.array(lesions.data)
    assert set(np.unique(painted)) == {0, 1, 2}
    panel.run("choose_benign")
    qtbot.waitUntil(lambda: seen(panel).why_no_accept is None)
    panel.run("accept")
    qtbot.waitUntil(lambda: seen(panel).accepted)
    viewer.layers.clear()
    panel.close_session()
    viewer.close()

    again = make_napari_viewer_proxy()
    panel = dock_panel(again)
    again.open_sample(PLUGIN, "benign")
    qtbot.waitUntil(lambda: "benign phantom lesions" in again.layers)
    np.testing.assert_array_equal(again.layers["benign phantom lesions"].data, painted)
    qtbot.waitUntil(lambda: seen(panel).accepted)
    assert seen(panel).label == "benign"
    panel.close_session()


def test_a_folder_opens_with_its_first_image_predicted(plugin, make_napari_viewer_proxy, qtbot, tmp_path):
    for number in (1, 2):
        Image.fromarray(np.kron(picture(seed=number), np.ones((10, 10), np.uint8))).save(
            tmp_path / f"case {number}.png"
        )
    viewer = make_napari_viewer_proxy()
    prepare_viewer(viewer, [tmp_path])
    qtbot.waitUntil(lambda: "case 1 lesions" in viewer.layers)
    panel = dock_panel(viewer)
    assert seen(panel).name == "case 1.png"
    panel.run("next")
    qtbot.waitUntil(lambda: seen(panel).probabilities is not None and seen(panel).name == "case 2.png")
    assert [layer.name for layer in viewer.layers] == ["case 2", "case 2 uncertainty", "case 2 lesions"]
    panel.close_session()


def test_a_folder_that_is_drawn_first_opens_with_the_brush_in_hand(
    plugin, make_napari_viewer_proxy, qtbot, tmp_path, store
):
    change_settings(store, draw_first_share=1.0)
    Image.fromarray(np.kron(picture(), np.ones((10, 10), np.uint8))).save(tmp_path / "case.png")
    viewer = make_napari_viewer_proxy()
    prepare_viewer(viewer, [tmp_path])
    qtbot.waitUntil(lambda: "case lesions" in viewer.layers)
    panel, lesions = dock_panel(viewer), viewer.layers["case lesions"]
    qtbot.waitUntil(lambda: lesions.mode == "paint")
    assert viewer.layers.selection.active == lesions
    assert plugin.frames == [], "nothing is predicted before Accept"
    lesions.paint((100, 100), 1)
    panel.run("choose_benign")
    panel.run("accept")
    qtbot.waitUntil(lambda: "case proposal" in viewer.layers)
    assert seen(panel).accepted
    panel.close_session()


def test_several_files_and_a_folder_that_is_opened_later_become_a_queue(
    plugin, make_napari_viewer_proxy, qtbot, tmp_path
):
    paths = [tmp_path / f"case {number}.png" for number in (1, 2, 3)]
    for number, path in enumerate(paths):
        Image.fromarray(np.kron(picture(seed=number), np.ones((10, 10), np.uint8))).save(path)
    viewer = make_napari_viewer_proxy()
    prepare_viewer(viewer, paths[1:])
    panel = dock_panel(viewer)
    qtbot.waitUntil(lambda: seen(panel).name == "case 2.png")
    viewer.open(str(tmp_path), plugin=PLUGIN)
    qtbot.waitUntil(lambda: seen(panel).name == "case 1.png")
    assert len(panel.queue.list) == 3
    assert len([layer for layer in viewer.layers if layer.visible]) == 2
    panel.close_session()


def test_the_panel_takes_over_a_folder_that_was_opened_before_it(
    plugin, make_napari_viewer_proxy, qtbot, tmp_path
):
    for number in (1, 2):
        Image.fromarray(np.kron(picture(seed=number), np.ones((10, 10), np.uint8))).save(
            tmp_path / f"case {number}.png"
        )
    viewer = make_napari_viewer_proxy()
    viewer.open(str(tmp_path), plugin=PLUGIN)
    assert [layer.name for layer in viewer.layers] == ["case 1"]
    panel = dock_panel(viewer)
    qtbot.waitUntil(lambda: panel.queue.shown is not None)
    qtbot.waitUntil(lambda: seen(panel).probabilities is not None)
    assert [layer.name for layer in viewer.layers] == ["case 1", "case 1 uncertainty", "case 1 lesions"]
    panel.close_session()


def test_a_stored_correction_is_shown_instead_of_a_first_prediction(
    plugin, make_napari_viewer_proxy, qtbot, store
):
    from sonoloop.imaging.grey import frame_from_array
    from sonoloop.values import Correction

    phantom = sample_study()[0]
    frame = frame_from_array(phantom.image, name="benign phantom")
    correction = Correction(
        frame_id=frame.id,
        pixels_hash=frame.pixels_hash,
        mask=phantom.mask,
        label="benign",
        annotator="bela",
    )
    store.accept(correction, parent=None)
    viewer = make_napari_viewer_proxy()
    prepare_viewer(viewer)
    qtbot.waitUntil(lambda: "benign phantom lesions" in viewer.layers)
    np.testing.assert_array_equal(viewer.layers["benign phantom lesions"].data, phantom.mask)
    assert plugin.frames == []
    dock_panel(viewer).close_session()


def test_a_store_named_at_the_start_is_used(plugin, make_napari_viewer_proxy, qtbot, tmp_path):
    from sonoloop.store.corrections import CorrectionStore

    viewer = make_napari_viewer_proxy()
    prepare_viewer(viewer, store=str(tmp_path / "study.sqlite"))
    qtbot.waitUntil(lambda: "benign phantom lesions" in viewer.layers)
    panel = dock_panel(viewer)
    panel.run("choose_benign")
    panel.run("accept")
    qtbot.waitUntil(lambda: seen(panel).accepted)
    panel.close_session()
    with CorrectionStore(str(tmp_path / "study.sqlite")) as named:
        assert named.count() == 1


def test_the_panel_fits_300_pixels_and_gives_the_focus_back(plugin, make_napari_viewer_proxy, qtbot):
    viewer = make_napari_viewer_proxy(show=True)
    viewer.window.resize(1280, 800)
    panel = dock_panel(viewer)
    long_name = "a very long name of a file that nobody would choose for an image of a breast " * 2
    viewer.add_image(picture(), name=long_name)
    qtbot.waitUntil(lambda: seen(panel).name == long_name)
    QApplication.processEvents()
    content = panel.findChild(QScrollArea).widget()
    panel.deciding.asked.emit(Question.NORMAL_WITH_LESION)
    panel.findChild(QToolButton).click()
    QApplication.processEvents()
    assert content.minimumSizeHint().width() <= 300 - SCROLL_BAR
    panel.deciding.asked.emit(None)
    panel.findChild(QToolButton).click()
    QApplication.processEvents()
    assert panel.width() < 400, "the canvas keeps the image large"
    assert content.sizeHint().height() <= 533, "it fits 1280 x 800 at 150 %"
    predict = next(b for b in panel.findChildren(QPushButton) if b.text() == "Predict")
    qtbot.waitUntil(predict.isEnabled)
    viewer.window.activate()
    predict.click()
    qtbot.waitUntil(lambda: not isinstance(QApplication.focusWidget(), QPushButton))
    panel.close_session()


def test_closing_the_window_while_a_prediction_runs_ends_the_program(tmp_path):
    code = f"""
import time
from threading import Event
import napari
from qtpy.QtCore import QTimer
from sonoloop.gui.annotate.panel import AnnotatePanel
from sonoloop.gui.preferences import Preferences
from sonoloop.gui.workers import Projects
from sonoloop.imaging.phantom import sample_study
from sonoloop.project import Project
from sonoloop.store.corrections import CorrectionStore

closed = Event()

class Slow:
    model, device = "slow", "cpu"
    def predict(self, frame):
        closed.wait(30)
        time.sleep(1)
        raise RuntimeError("nobody waits for this")

viewer = napari.Viewer()
viewer.add_image(sample_study()[0].image)
url = "sqlite:///{(tmp_path / "corrections.db").as_posix()}"
panel = AnnotatePanel(
    viewer,
    projects=Projects(lambda url: Project(CorrectionStore(url), load_predictor=lambda *_: Slow())),
    preferences=lambda: Preferences(store=url),
)
viewer.window.add_dock_widget(panel)
QTimer.singleShot(500, panel.predicting.predict)

def close():
    viewer.close()
    closed.set()

QTimer.singleShot(1500, close)
napari.run()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "nobody waits" not in done.stderr


def test_the_shipped_model_predicts_in_a_window(tmp_path):
    # in a process of its own: what torch loads must get along with what the open window has loaded before it
    code = f"""
import napari
from qtpy.QtCore import QTimer
from sonoloop.gui.annotate.panel import AnnotatePanel
from sonoloop.gui.preferences import Preferences

viewer = napari.Viewer()
url = "sqlite:///{(tmp_path / "corrections.db").as_posix()}"
panel = AnnotatePanel(viewer, preferences=lambda: Preferences(store=url))
viewer.window.add_dock_widget(panel)
viewer.open_sample("napari-sonoloop", "benign")

def look():
    view = panel.session.view()
    if view.probabilities is not None:
        timer.stop()
        print("predicted", max(view.probabilities, key=view.probabilities.get), flush=True)
        viewer.close()

timer = QTimer()
timer.timeout.connect(look)
timer.start(100)
QTimer.singleShot(1000, panel.predicting.predict)
napari.run()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "predicted benign" in done.stdout


def test_closing_the_panel_leaves_the_viewer_as_it_was(plugin, make_napari_viewer_proxy, qtbot):
    viewer = make_napari_viewer_proxy()
    panel = dock_panel(viewer)
    for name in ("lower", "upper"):
        viewer.add_image(picture(), name=name)
    qtbot.waitUntil(lambda: [layer.visible for layer in viewer.layers] == [False, True])
    viewer.window.remove_dock_widget(panel)
    assert [layer.visible for layer in viewer.layers] == [True, True]
    viewer.layers.selection.active = viewer.layers["lower"]
    QApplication.processEvents()
    assert [layer.visible for layer in viewer.layers] == [True, True], "the panel listens no more"
