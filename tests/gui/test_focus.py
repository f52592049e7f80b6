"""How much of the window the image has, in a real window."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.gui, pytest.mark.slow]

CODE = """
import json, sys
import napari
from qtpy.QtWidgets import QApplication
from sonoloop.gui.annotate.panel import AnnotatePanel
from sonoloop.gui.preferences import Preferences
from sonoloop.imaging.phantom import sample_study

viewer = napari.Viewer()
width, height = map(int, sys.argv[2:])
viewer.window._qt_window.setGeometry(0, 0, width, height)
panel = AnnotatePanel(viewer, preferences=lambda: Preferences(store=sys.argv[1]))
viewer.window.add_dock_widget(panel, area="right")
viewer.add_image(sample_study()[0].image)

def share():
    whole = viewer.window._qt_window
    for _ in range(20):
        # napari's own docks need more height than a small screen has
        whole.resize(width, height)
        QApplication.processEvents()
    canvas = viewer.window._qt_viewer.canvas.native
    return canvas.width() * canvas.height() / (whole.width() * whole.height()), whole.width(), whole.height()

before = share()
panel.run("focus")
focused = share()
panel.run("focus")
print(json.dumps([before, focused, share()]))
panel.close_session()
viewer.close()
"""


@pytest.mark.parametrize(("scale", "least"), [("1", 0.6), ("1.5", 0.5)])
def test_focus_gives_the_image_most_of_a_small_screen(tmp_path, scale, least):
    # Qt reads the scale when it starts
    size = [str(round(side / float(scale))) for side in (1280, 800)]
    done = subprocess.run(
        [sys.executable, "-c", CODE, f"sqlite:///{tmp_path / 'corrections.db'}", *size],
        env={**os.environ, "QT_SCALE_FACTOR": scale},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (before, *_), (focused, *whole), (after, *_) = json.loads(done.stdout.splitlines()[-1])
    assert whole == list(map(int, size)), "it fits the screen"
    assert focused >= least
    assert focused > before
    assert after == pytest.approx(before, abs=0.02), "napari's docks are back"
