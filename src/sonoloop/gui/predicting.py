"""Predict: from the current frame to a mask on the canvas."""

from __future__ import annotations

from functools import partial

import numpy as np
from napari.utils.notifications import show_info, show_warning
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from sonoloop.errors import SonoloopError
from sonoloop.gui.frames import Target
from sonoloop.gui.layers import find_layer, read_mask, record_prediction, write_uncertainty
from sonoloop.gui.messages import show_problem
from sonoloop.gui.session import Session
from sonoloop.gui.tasks import JobQueue
from sonoloop.gui.view import NO_IMAGE
from sonoloop.gui.work import LoadPredictor, PredictorKeeper
from sonoloop.values import Prediction


class Predicting(QObject):
    """Runs the model on the current frame in a worker and shows what it says.

    Parameters
    ----------
    session : Session
        Where the frames are.
    load_predictor : callable
        Gives the predictor for a device; called in the worker, at the first prediction.
    """

    busy_changed = Signal(bool)

    def __init__(self, session: Session, *, load_predictor: LoadPredictor) -> None:
        super().__init__(session)
        self._session = session
        self._keeper = PredictorKeeper(load_predictor)
        self._jobs = JobQueue(latest_only=True, parent=self)
        self._jobs.busy_changed.connect(self.busy_changed)

    @property
    def model_line(self) -> str:
        """Which model, and where it runs."""
        predictor = self._keeper.loaded
        if predictor is not None:
            return f"Model {predictor.model} · {_device_name(predictor.device)}"
        if self._jobs.busy:
            return "Loading the model…"
        return "The model loads at the first prediction"

    def predict(self) -> None:
        """Predict on the current frame; the answer to what was asked before is dropped."""
        session = self._session
        session.follow()
        if session.target is None:
            show_warning(NO_IMAGE)
            return
        self._jobs.submit(
            partial(self._keeper.predict, session.target.capture(), session.preferences().device),
            done=partial(self._on_prediction, session.target),
            failed=show_problem,
        )

    def cancel(self) -> None:
        """Ignore the answer that is still to come."""
        self._jobs.drop()

    def _on_prediction(self, target: Target, answer: tuple[Prediction, NDArray[np.float32]]) -> None:
        session, (prediction, uncertainty) = self._session, answer
        if not session.is_open(target) or target.grid[-2:] != prediction.mask.shape:
            return  # the layer is gone, or shows something else by now
        session.follow()
        state = session.state(target)
        replaces = self._replaces_work(target)
        viewer, image = session.viewer, target.image
        write_uncertainty(viewer, target, uncertainty)
        session.write(target, prediction.mask)
        record_prediction(viewer, target, prediction)
        state.prediction = prediction
        state.cleared = None
        if session.target is not None and session.target.image == image:
            # ready to paint, and Ctrl+Z ready to undo
            viewer.layers.selection.active = find_layer(viewer, image, "lesions")
        if replaces:
            show_info(f"The prediction replaced the mask of {target.name}; Ctrl+Z brings it back")
        session.changed.emit()

    def _replaces_work(self, target: Target) -> bool:
        """Whether a mask is on the canvas that a person drew or accepted."""
        try:
            mask = read_mask(self._session.viewer, target)
        except SonoloopError:
            return True
        if mask is None or not mask.any():
            return False
        state = self._session.state(target)
        untouched = state.written is not None and np.array_equal(mask, state.written)
        accepted = state.revision is not None and np.array_equal(mask, state.revision.correction.mask)
        return accepted or not untouched


def _device_name(device: str) -> str:
    kind, _, number = device.partition(":")
    names = {"cpu": "CPU", "cuda": "GPU", "mps": "Apple GPU"}
    return f"{names.get(kind, kind)} {number}" if number not in ("", "0") else names.get(kind, kind)
