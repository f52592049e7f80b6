"""What runs in the workers: module functions and two keepers, without Qt and without layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import StoreError
from sonoloop.gui.frames import Source
from sonoloop.gui.llvm import load_triton_apart
from sonoloop.imaging.grey import check_frame
from sonoloop.values import Correction, Frame, Label, Prediction

if TYPE_CHECKING:
    from sonoloop.labels.revisions import Revision
    from sonoloop.labels.store import CorrectionStore


class Predicts(Protocol):
    """What the panel asks of a predictor."""

    @property
    def model(self) -> str:
        """Id of the model."""
        ...

    @property
    def device(self) -> str:
        """Where it runs, as torch writes it."""
        ...

    def predict(self, frame: Frame) -> Prediction:
        """Segment and classify one frame."""
        ...


LoadPredictor = Callable[[str], Predicts]
OpenStore = Callable[["str | None"], "CorrectionStore"]


def load_default_predictor(device: str) -> Predicts:
    """Load the model in use; imports torch, which takes seconds."""
    from napari.utils.notifications import show_warning  # noqa: PLC0415 - safe to call in a worker

    from sonoloop.models import default_predictor  # noqa: PLC0415 - listing widgets imports no torch

    load_triton_apart()
    return default_predictor(device=device, on_notice=show_warning)


def open_default_store(url: str | None) -> CorrectionStore:
    """Open the store at a URL, or the one in the platform's data folder."""
    from sonoloop.labels.store import CorrectionStore  # noqa: PLC0415 - opened at the first use

    return CorrectionStore(url)


class PredictorKeeper:
    """Loads the predictor at the first use, and again when another device is asked for."""

    def __init__(self, load: LoadPredictor) -> None:
        self._load = load
        self._asked: str | None = None
        self._predictor: Predicts | None = None

    @property
    def loaded(self) -> Predicts | None:
        """The predictor, if there is one already."""
        return self._predictor

    def predict(self, source: Source, device: str) -> tuple[Prediction, NDArray[np.float32]]:
        """Predict on a captured frame; the uncertainty map is computed here too, off the GUI thread."""
        frame = check_frame(source.frame())
        if self._predictor is None or self._asked != device:
            self._predictor = self._load(device)
            self._asked = device
        prediction = self._predictor.predict(frame)
        return prediction, prediction.uncertainty


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What an annotator accepted, captured in the GUI thread."""

    mask: NDArray[np.uint8]
    label: Label
    annotator: str
    prediction: Prediction | None
    parent: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """What the store holds of a frame.

    Parameters
    ----------
    newest : Revision, optional
        What was last said of it, or of the same pixels in another file.
    prediction : Prediction, optional
        The one that revision started from, as one of this frame.
    own_head : str, optional
        The annotator's own head.
    """

    newest: Revision | None
    prediction: Prediction | None
    own_head: str | None


class StoreKeeper:
    """Opens the store at the first use, and again when another URL is set."""

    def __init__(self, open_store: OpenStore) -> None:
        self._open = open_store
        self._url: str | None = None
        self._store: CorrectionStore | None = None

    def look_up(self, source: Source, annotator: str, url: str | None) -> Stored:
        """Look for earlier corrections of a frame."""
        frame = source.frame()
        store = self._at(url)
        newest = store.newest(frame.id, pixels_hash=frame.pixels_hash)
        head = store.head(frame.id, annotator)
        prediction = newest.correction.prediction if newest is not None else None
        if prediction is not None:
            prediction = replace(prediction, frame_id=frame.id)  # the same pixels, perhaps saved anew
        return Stored(newest, prediction, head.id if head is not None else None)

    def accept(self, source: Source, decision: Decision, url: str | None) -> Revision:
        """Store a decision; when this returns it is on disk."""
        frame = source.frame()
        if decision.mask.shape != frame.shape:
            # the store would take it for the frame's size for ever
            drawn, shown = (
                "{} x {}".format(*reversed(shape)) for shape in (decision.mask.shape, frame.shape)
            )
            raise StoreError(
                f"the mask of {frame.name} has {drawn} pixels, the image {shown}; remove its lesions layer "
                "and draw on the image's own grid"
            )
        prediction = decision.prediction
        if prediction is not None and prediction.frame_id != frame.id:
            prediction = None  # the layer's pixels were changed since: it is not of this frame
        correction = Correction(
            frame_id=frame.id,
            pixels_hash=frame.pixels_hash,
            mask=decision.mask,
            label=decision.label,
            annotator=decision.annotator,
            prediction=prediction,
            prediction_seen=prediction is not None,
        )
        return self._at(url).accept(correction, parent=decision.parent)

    def close(self) -> None:
        """Close the store, if it was opened."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _at(self, url: str | None) -> CorrectionStore:
        if self._store is None or url != self._url:
            self.close()
            self._store = self._open(url)
            self._url = url
        return self._store
