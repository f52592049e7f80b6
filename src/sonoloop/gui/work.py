"""What runs in the workers: module functions and two keepers, without Qt and without layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import RLock
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import StoreError
from sonoloop.gui.annotate.layers import Source
from sonoloop.gui.llvm import load_triton_apart
from sonoloop.imaging.grey import check_frame
from sonoloop.values import Correction, Frame, Label, Prediction

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore
    from sonoloop.store.file_index import Places
    from sonoloop.store.near_duplicates import SketchIndex
    from sonoloop.store.revisions import Revision


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


# of a device, and of a version; None is the shipped one
LoadPredictor = Callable[[str, "str | None"], Predicts]
OpenStore = Callable[["str | None"], "CorrectionStore"]


def load_default_predictor(device: str, version: str | None = None) -> Predicts:
    """Load a version from the library, or the shipped model; imports torch, which takes seconds."""
    from napari.utils.notifications import show_warning  # noqa: PLC0415 - safe to call in a worker

    from sonoloop.models import default_predictor  # noqa: PLC0415 - listing widgets imports no torch

    load_triton_apart()
    return default_predictor(device=device, on_notice=show_warning, version=version)


def open_default_store(url: str | None) -> CorrectionStore:
    """Open the store at a URL, or the one in the platform's data folder."""
    from sonoloop.store.corrections import CorrectionStore  # noqa: PLC0415 - opened at the first use

    return CorrectionStore(url)


@dataclass(frozen=True, slots=True)
class InUse:
    """The model in use, by version and name; None for the shipped one that nobody promoted."""

    version: str | None = None
    model: str | None = None


class PredictorKeeper:
    """Loads the predictor at the first use, and again when another device is asked for or the model changed.

    Parameters
    ----------
    load : callable
        Gives the predictor for a device and a version.
    find_model : callable
        Gives the model in use at a store's URL.
    """

    def __init__(self, load: LoadPredictor, find_model: Callable[[str | None], InUse]) -> None:
        self._load = load
        self._find_model = find_model
        self._asked: tuple[str, str | None] | None = None
        self._predictor: Predicts | None = None

    @property
    def loaded(self) -> Predicts | None:
        """The predictor, if there is one already."""
        return self._predictor

    def is_of(self, version: str | None) -> bool:
        """Whether the predictor that is loaded is of that version."""
        return self._asked is not None and self._asked[1] == version

    def predict(
        self, source: Source, device: str, url: str | None
    ) -> tuple[Prediction, NDArray[np.float32], InUse]:
        """Predict on a captured frame with the model in use.

        The uncertainty map is computed here too, off the GUI thread.
        """
        frame = check_frame(source.frame())
        in_use = self._find_model(url)
        if self._predictor is None or self._asked != (device, in_use.version):
            self._predictor = self._load(device, in_use.version)
            self._asked = device, in_use.version
        prediction = self._predictor.predict(frame)
        return prediction, prediction.uncertainty, in_use


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What an annotator accepted, captured in the GUI thread.

    Whether they had `seen` the prediction; `shown` are the frames of which one was shown since the panel was
    opened, also where it is not known any more.
    """

    mask: NDArray[np.uint8]
    label: Label
    annotator: str
    prediction: Prediction | None
    seen: bool
    parent: str | None
    shown: frozenset[str] = frozenset()


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
    draw_first : bool
        Whether the frame is drawn before its prediction is shown.
    in_use : InUse
        The model that is in use by now.
    """

    newest: Revision | None
    prediction: Prediction | None
    own_head: str | None
    draw_first: bool
    in_use: InUse


class StoreKeeper:
    """Opens the store at the first use, and again when another URL is set; for all workers of a panel."""

    def __init__(self, open_store: OpenStore) -> None:
        self._open = open_store
        self._url: str | None = None
        self._store: CorrectionStore | None = None
        self._places: Places | None = None
        self._sketches: SketchIndex | None = None
        self._closed = False
        self._lock = RLock()

    def look_up(self, source: Source, annotator: str, url: str | None) -> Stored:
        """Place a frame, remember where its file is, and look for earlier corrections of it."""
        frame = source.frame()
        store = self.at(url)
        draw_first = False if source.sample else self._place(store, source, frame)
        newest = store.newest(frame.id, pixels_hash=frame.pixels_hash)
        head = store.head(frame.id, annotator)
        prediction = newest.correction.prediction if newest is not None else None
        if prediction is not None:
            prediction = replace(prediction, frame_id=frame.id)  # the same pixels, perhaps saved anew
        own_head = head.id if head is not None else None
        return Stored(newest, prediction, own_head, draw_first, self.model_in_use(url))

    def model_in_use(self, url: str | None) -> InUse:
        """Read which model is in use."""
        from sonoloop.store.model_registry import find_model  # noqa: PLC0415
        from sonoloop.store.promotions import incumbent  # noqa: PLC0415 - the store loads slowly

        store = self.at(url)
        promotion = incumbent(store)
        if promotion is None:
            return InUse()
        return InUse(promotion.version, find_model(store, promotion.version).model)

    def accept(self, source: Source, decision: Decision, url: str | None) -> Revision:
        """Store a decision; when this returns it is on disk."""
        from sonoloop.gui.seen import may_have_seen  # noqa: PLC0415 - the store loads slowly

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
        store = self.at(url)
        # what was once seen stays seen, also where no prediction goes with it
        seen = decision.seen or frame.id in decision.shown
        seen = seen or may_have_seen(store, frame, decision.annotator)
        correction = Correction(
            frame_id=frame.id,
            pixels_hash=frame.pixels_hash,
            mask=decision.mask,
            label=decision.label,
            annotator=decision.annotator,
            prediction=prediction,
            prediction_seen=seen,
        )
        if source.sample:
            from sonoloop.store.groups import set_aside  # noqa: PLC0415 - the store loads slowly

            set_aside(store, frame)
        return store.accept(correction, parent=decision.parent)

    def at(self, url: str | None) -> CorrectionStore:
        """Return the store at a URL, open."""
        with self._lock:
            if self._closed:
                raise StoreError("the panel was closed: open it again from Plugins > Sonoloop")
            if self._store is None or url != self._url:
                self._let_go()
                self._store = self._open(url)
                self._url = url
            return self._store

    def close(self) -> None:
        """Close the store, if it was opened, for good."""
        with self._lock:
            self._closed = True
            self._let_go()

    def _place(self, store: CorrectionStore, source: Source, frame: Frame) -> bool:
        """Place a frame for ever, and tell whether it is drawn first."""
        from sonoloop.store.file_index import Places  # noqa: PLC0415
        from sonoloop.store.groups import place_frame  # noqa: PLC0415 - the store loads slowly
        from sonoloop.store.near_duplicates import SketchIndex  # noqa: PLC0415

        if self._sketches is None:
            self._sketches = SketchIndex()
        placement = place_frame(store, frame, index=self._sketches)
        if source.file is not None and frame.id == source.id:
            path, page = source.file
            if self._places is None:
                self._places = Places(store.url)
            self._places.remember(frame.id, path, index=page, pixels_hash=frame.pixels_hash)
        return placement.draw_first

    def _let_go(self) -> None:
        self._places = self._sketches = None
        if self._store is not None:
            self._store.close()
            self._store = None
