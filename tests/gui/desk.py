"""An annotator's desk for tests: a fake model, pictures with a known lesion, a panel to work on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
from napari.layers import Image
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QApplication

from sonoloop.gui.annotate.panel import AnnotatePanel
from sonoloop.gui.preferences import Preferences
from sonoloop.gui.workers import Projects
from sonoloop.project import Project
from sonoloop.store.corrections import CorrectionStore
from sonoloop.values import ClassName, Frame, Prediction

SHAPE = (40, 60)


class FakePredictor:
    """Takes what is brighter than 200 for a benign lesion; waits while its gate is closed."""

    model = "fake-1"
    device = "cpu"
    engine_name = "onnx"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.frames: list[Frame] = []

    def predict(self, frame: Frame) -> Prediction:
        self.frames.append(frame)
        assert self.gate.wait(20)
        mask = (frame.pixels > 200).astype(np.uint8)
        return Prediction(
            frame_id=frame.id,
            lesion=mask.astype(np.float32),
            mask=mask,
            classes=np.array([0.1, 0.7, 0.2], np.float32),
            expected_dice=0.8,
            threshold=0.5,
            model=self.model,
        )

    def explain(self, frame: Frame, label: ClassName) -> np.ndarray:
        """Find the class where it is bright."""
        assert self.gate.wait(20)
        assert label == "benign"
        return (frame.pixels > 200).astype(np.float32) * 2 - 0.1


def picture(row: int = 10, *, seed: int = 0) -> np.ndarray:
    """A dark image with one bright rectangle of 5 x 10 pixels."""
    image = np.random.default_rng(seed).integers(0, 150, SHAPE).astype(np.uint8)
    image[row : row + 5, 20:30] = 255
    return image


def box(row: int = 10) -> np.ndarray:
    """The mask of that rectangle."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[row : row + 5, 20:30] = 1
    return mask


class Desk:
    """A viewer with the panel, and what an annotator does there."""

    def __init__(self, qtbot, viewer, *, load_predictor, store_url: str, annotator: str = "anna") -> None:
        self.qtbot = qtbot
        self.viewer = viewer
        self.preferences = Preferences(store=store_url, annotator=annotator)
        self.panel = AnnotatePanel(
            viewer,
            projects=Projects(lambda url: Project(CorrectionStore(url), load_predictor=load_predictor)),
            preferences=lambda: self.preferences,
        )
        qtbot.addWidget(self.panel)

    def open(self, image: Image, *, wait: bool = True) -> Image:
        self.viewer.layers.append(image)
        if wait:
            self.ready()
        return image

    def ready(self) -> None:
        """Wait until the store has said what it knows of the current frame."""
        self.panel.session.follow()
        self.qtbot.waitUntil(
            lambda: not (self.view.why_no_accept or "").startswith("Looking"), timeout=20_000
        )

    @property
    def view(self):
        return self.panel.session.view()

    @property
    def lesions(self):
        return next(layer for layer in self.viewer.layers if layer.name.endswith("lesions"))

    @property
    def predictions(self) -> list[dict[str, object]]:
        """The records of every prediction on the canvas."""
        return list(self._records())

    def predict(self) -> None:
        self.panel.run("predict")
        self.idle()

    def accept(self) -> None:
        self.panel.run("accept")
        self.qtbot.waitUntil(lambda: self.view.accepted)

    def idle(self) -> None:
        """Wait until no worker runs and every answer has arrived."""
        QApplication.processEvents()
        self.qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0, timeout=20_000)
        for _ in range(3):
            QApplication.processEvents()

    def _records(self) -> Iterator[dict[str, object]]:
        for layer in self.viewer.layers:
            yield from layer.metadata.get("sonoloop", {}).get("predictions", {}).values()
