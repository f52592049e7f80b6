"""Make the pictures of the documentation; needs a display, or Xvfb.

xvfb-run -a -s "-screen 0 1600x1000x24" python docs/screenshots.py [--theme light] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
from napari.settings import get_settings
from qtpy.QtWidgets import QApplication

from sonoloop.gui.annotate import AnnotatePanel
from sonoloop.gui.launch import PANEL
from sonoloop.gui.preferences import PLUGIN, Preferences

SIZE = (1280, 800)


def wait_for(condition: Callable[[], bool], *, seconds: float = 120) -> None:
    """Let the event loop run until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the window did not get there")
        QApplication.processEvents()
        time.sleep(0.01)


def annotate(out: Path) -> None:
    """Show the docked panel after Predict on the benign sample."""
    viewer = napari.Viewer(show=False)
    viewer.window.resize(*SIZE)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/corrections.db"
        panel = AnnotatePanel(viewer, preferences=lambda: Preferences(store=url))
        viewer.window.add_dock_widget(panel, name=PANEL, area="right")
        viewer.open_sample(PLUGIN, "study")
        viewer.window.show()
        viewer.window.resize(*SIZE)
        wait_for(lambda: panel.session.view().why_no_predict is None)
        panel.run("predict")
        wait_for(lambda: panel.session.view().probabilities is not None)
        viewer.reset_view()
        viewer.layers.selection.active = viewer.layers["benign phantom lesions"]
        end = time.monotonic() + 2  # thumbnails and the status bar follow at their leisure
        wait_for(lambda: time.monotonic() > end)
        viewer.screenshot(out, canvas_only=False, flash=False)
        panel.close_session()
        viewer.close()


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    parser.add_argument("--theme", default="dark", choices=("dark", "light"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    settings = get_settings()
    settings.appearance.theme = options.theme
    annotate(options.out / "annotate.png")


if __name__ == "__main__":
    main()
