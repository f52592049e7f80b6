"""A real napari that tells what came back, and then paints, undoes and redoes until it is killed.

``python painting_napari.py IMAGE STORE FOLDER SEED``: FOLDER/back.json is what came back, each line of
FOLDER/steps a moment and the digest of what was on the canvas from then on.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import time
from pathlib import Path

import napari
import numpy as np
from desk import FakePredictor
from qtpy.QtCore import QTimer

from sonoloop.gui.annotate.panel import AnnotatePanel
from sonoloop.gui.annotate.session import take_up_brush
from sonoloop.gui.preferences import Preferences
from sonoloop.gui.workers import Projects
from sonoloop.project import Project
from sonoloop.store.corrections import CorrectionStore

_EVERY_MS = 40


def digest(mask) -> str:
    return hashlib.sha256(np.ascontiguousarray(mask).data).hexdigest()


class Painter:
    def __init__(self, image: str, store: str, folder: Path, seed: int) -> None:
        self.folder, self.random, self.number = folder, random.Random(seed), 0
        self.steps = os.open(folder / "steps", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.viewer = napari.Viewer(show=True)
        preferences = Preferences(store=store, annotator="anna")
        projects = Projects(
            lambda url: Project(CorrectionStore(url), load_predictor=lambda *_: FakePredictor())
        )
        self.panel = AnnotatePanel(self.viewer, projects=projects, preferences=lambda: preferences)
        self.viewer.window.add_dock_widget(self.panel, name="Annotate")
        self.viewer.open(image, plugin="napari-sonoloop")
        self.timer = QTimer()
        self.timer.timeout.connect(self.wait)
        self.timer.start(_EVERY_MS)

    def wait(self) -> None:
        """Begin once the panel has said what it knows of the frame, its draft among it."""
        session, journal = self.panel.session, self.panel.journal
        known = session.target is not None and session.state(session.target).looked_up is not None
        frames = list(journal._frames.values())
        if not known or not frames or not all(frame.read for frame in frames):
            return
        self.timer.timeout.disconnect(self.wait)
        take_up_brush(session)
        self.layer = self.viewer.layers.selection.active
        back = {
            "digest": digest(self.layer.data),
            "label": session.state(session.target).label,
            "said": self.panel.unfinished.text(),
        }
        if back["label"] is None:
            self.panel.run("choose_malignant")
        self.note()
        (self.folder / "back.tmp").write_text(json.dumps(back))
        (self.folder / "back.tmp").rename(self.folder / "back.json")
        self.timer.timeout.connect(self.step)

    def step(self) -> None:
        what = self.random.random()
        self.number += 1
        if what < 0.15 and self.number > 20:  # not so far back that the class is undone
            self.layer.undo()
        elif what < 0.25:
            self.layer.redo()
        else:
            height, width = self.layer.data.shape
            self.layer.paint(
                (self.random.randrange(height), self.random.randrange(width)), self.random.randrange(1, 4)
            )
        self.note()

    def note(self) -> None:
        os.write(self.steps, f"{time.time()} {digest(self.layer.data)}\n".encode())


if __name__ == "__main__":
    painter = Painter(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    napari.run()
