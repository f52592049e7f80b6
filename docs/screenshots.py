"""Make the pictures of the documentation; needs a display, or Xvfb.

xvfb-run -a -s "-screen 0 1600x1000x24" python docs/screenshots.py [--theme light] [--only annotate]

Those of Train and Models are of a real fine-tuning on simulated images, which takes some minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import napari
from napari.settings import get_settings
from qtpy.QtWidgets import QApplication, QDoubleSpinBox, QPushButton, QWidget

from sonoloop.gui.annotate.panel import AnnotatePanel
from sonoloop.gui.launch import PANEL
from sonoloop.gui.models.panel import ModelsPanel
from sonoloop.gui.preferences import PLUGIN, Preferences
from sonoloop.gui.train.panel import TrainPanel
from sonoloop.gui.train.progress import Stage
from sonoloop.imaging.phantom import phantom
from sonoloop.values import CLASSES

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from phantom_project import make_project

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
        settle()
        viewer.screenshot(out, canvas_only=False, flash=False)
        panel.close_session()
        viewer.close()


def queue(out: Path) -> None:
    """Show a queue of simulated images of which some are decided on."""
    viewer = napari.Viewer(show=False)
    viewer.window.resize(*SIZE)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        for number in range(12):
            made = phantom(CLASSES[number % len(CLASSES)], seed=number + 1)
            iio.imwrite(images / f"case {number + 1:02}.png", made.image)
        url = f"sqlite:///{folder}/corrections.db"
        panel = AnnotatePanel(viewer, preferences=lambda: Preferences(store=url))
        viewer.window.add_dock_widget(panel, name=PANEL, area="right")
        viewer.window.show()
        viewer.window.resize(*SIZE)
        panel.queue.open([images])
        for action in ("choose_normal", "choose_benign", "choose_malignant"):
            wait_for(lambda: panel.session.view().why_no_accept is not None)
            settle()
            panel.run(action)
            wait_for(lambda: panel.session.view().why_no_accept is None)
            before = panel.session.target
            panel.deciding.accept(no_lesion=True)
            wait_for(lambda before=before: panel.session.target is not before)  # type: ignore[misc]
        settle()
        panel.queue.mark("flagged", "second opinion")
        wait_for(lambda: panel.session.view().probabilities is not None)
        panel.run("focus")
        settle()
        viewer.screenshot(out, canvas_only=False, flash=False)
        panel.close_session()
        viewer.close()


def loop(out: Path) -> None:
    """Show a fine-tuning as it goes, its verdict, and the models after it was brought into use."""
    with tempfile.TemporaryDirectory() as folder:
        # the models of whoever makes the pictures are left alone
        os.environ["XDG_DATA_HOME"] = folder
        url = make_project(Path(folder), train=36, test=54)
        viewer = napari.Viewer(show=False)
        panels: list[TrainPanel | ModelsPanel] = []

        def dock(panel: TrainPanel | ModelsPanel, name: str) -> None:
            viewer.window.add_dock_widget(panel, name=name, area="right")
            panels.append(panel)

        def preferences() -> Preferences:
            return Preferences(store=url, annotator="anna")

        viewer.open(str(Path(folder) / "images" / "case 002.png"), plugin=PLUGIN)
        viewer.window.show()
        viewer.window.resize(*SIZE)
        train = TrainPanel(viewer, preferences=preferences)
        dock(train, "Train")
        wait_for(button(train, "Fine-tune").isEnabled)
        train.findChild(QDoubleSpinBox).setValue(4)
        button(train, "Fine-tune").click()
        wait_for(lambda: len(train.watch.progress.dices) > 2, seconds=900)
        settle()
        viewer.screenshot(out / "train.png", canvas_only=False, flash=False)
        wait_for(lambda: train.watch.progress.stage is Stage.DONE, seconds=900)
        settle()
        viewer.screenshot(out / "gate.png", canvas_only=False, flash=False)
        use = button(train, "Use it")
        if use.isVisibleTo(train):
            use.click()
            wait_for(lambda: not use.isVisibleTo(train))
        models = ModelsPanel(viewer, preferences=preferences)
        dock(models, "Models")
        wait_for(button(models, "Card").isEnabled)
        button(models, "Card").click()
        settle()
        viewer.screenshot(out / "models.png", canvas_only=False, flash=False)
        for panel in panels:
            panel.close_session()
        viewer.close()


def button(panel: QWidget, text: str) -> QPushButton:
    """Find a panel's button."""
    return next(each for each in panel.findChildren(QPushButton) if each.text() == text)


def settle() -> None:
    """Wait for thumbnails and the status bar, which follow at their leisure."""
    end = time.monotonic() + 2
    wait_for(lambda: time.monotonic() > end)


PICTURES = {
    "annotate": lambda out: annotate(out / "annotate.png"),
    "queue": lambda out: queue(out / "queue.png"),
    "loop": loop,
}


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    parser.add_argument("--theme", default="dark", choices=("dark", "light"))
    parser.add_argument("--only", choices=tuple(PICTURES), help="one part of them")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    settings = get_settings()
    settings.appearance.theme = options.theme
    for name, make in PICTURES.items():
        if options.only in (None, name):
            make(options.out)


if __name__ == "__main__":
    main()
