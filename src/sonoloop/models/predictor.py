"""Frames in, predictions out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import ModelError
from sonoloop.imaging.grey import check_frame, to_unit
from sonoloop.models.engines import Array, Engine
from sonoloop.models.occlusion import cover, log_odds, make_covers
from sonoloop.models.postprocess import number_lesions
from sonoloop.models.preprocess import Letterbox, namespace, normalise
from sonoloop.models.tta import (
    VIEWS,
    agreement,
    average_classes,
    expected_dice,
    list_views,
    make_views,
    undo_views,
)
from sonoloop.values import CLASSES, ClassName, Frame, Prediction

if TYPE_CHECKING:
    from sonoloop.models.bundle import Bundle

logger = logging.getLogger(__name__)

# of a probability that was resized or computed in half precision
_ROUNDING = 0.001


class Predictor:
    """A model ready to predict; safe to call from several threads.

    Parameters
    ----------
    bundle : Bundle or Engine
        The model: a bundle, which torch runs, or one that `sonoloop.models.engines.load_engine` loaded.
    device : str
        Where a bundle runs; see `sonoloop.models.devices.choose_device`.
    batch : int
        Most frames that go through the network at once.
    views : int, optional
        How many views are averaged: 1, 2 or 4; the card's unless given. More is slower and a little better.
    threshold : float, optional
        Lesion probability from which a pixel is lesion, in (0, 1); the card's unless given.
    on_notice : callable, optional
        Told in words when memory ran out and what was done.

    Raises
    ------
    ValueError
        If a setting is out of range.
    DeviceError
        If the device is not there.
    ModelError
        If the model takes prompts; `sonoloop.models.corrector` is for such.
    """

    def __init__(
        self,
        bundle: Bundle | Engine,
        *,
        device: str = "auto",
        batch: int = 8,
        views: int | None = None,
        threshold: float | None = None,
        on_notice: Callable[[str], None] | None = None,
    ) -> None:
        self.views = bundle.card.views if views is None else views
        self.threshold = bundle.card.threshold if threshold is None else threshold
        if self.views not in VIEWS:
            raise ValueError(f"views must be one of {', '.join(map(str, VIEWS))}, got {self.views}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must be in (0, 1), got {self.threshold}")
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        if bundle.card.spec.takes_prompts:
            raise ModelError(
                f"the model {bundle.card.model} repairs masks by clicks, and is not made to predict without: "
                "take another model, as --model default"
            )
        self.card = bundle.card
        self.model = self.card.model
        self.batch = batch
        self._on_notice = on_notice or logger.warning
        self._lock = threading.Lock()
        if not isinstance(bundle, Engine):
            from sonoloop.models.engines.torch import TorchEngine  # noqa: PLC0415 - others need no torch

            bundle = TorchEngine(bundle, device)
        self.engine: Engine = bundle

    @property
    def engine_name(self) -> str:
        """What computes: "onnx", "openvino", "torch", or the name of another package's engine."""
        return self.engine.name

    @property
    def device(self) -> str:
        """Where the network runs: "cpu", "cuda", "mps"."""
        return self.engine.device

    @property
    def precision(self) -> str:
        """In what the network computes: "float32", or the reduced precision that pays here."""
        return self.engine.precision

    def predict(self, frame: Frame) -> Prediction:
        """Segment and classify one frame.

        Parameters
        ----------
        frame : Frame
            Grey levels, shape (H, W), any real dtype.

        Returns
        -------
        Prediction
            On the frame's own grid.

        Raises
        ------
        ConstantImageError, NotFiniteImageError
            If there is nothing to see in the frame.
        ModelError
            If there is not enough memory for a single frame, even on the CPU, or the network's answer holds
            what is no number.
        """
        return self.predict_batch([frame])[0]

    def predict_batch(self, frames: Sequence[Frame]) -> list[Prediction]:
        """Segment and classify frames of any sizes, in order; see `predict`."""
        for frame in frames:
            check_frame(frame)
        predictions: list[Prediction] = []
        with self._lock:
            while len(predictions) < len(frames):
                some = frames[len(predictions) : len(predictions) + self.batch]
                try:
                    predictions += self._predict_some(some)
                except (RuntimeError, MemoryError) as error:
                    if not self.engine.is_out_of_memory(error):
                        raise
                    self._take_less(error, some[0])
        return predictions

    def explain(self, frame: Frame, label: ClassName) -> NDArray[np.float32]:
        """Tell where in a frame a class is decided, by covering its parts one after the other.

        Takes some thirty times as long as one view of a prediction.

        Parameters
        ----------
        frame : Frame
            Grey levels, shape (H, W), any real dtype.
        label : str
            One of `sonoloop.values.CLASSES`.

        Returns
        -------
        numpy.ndarray
            By how much the log odds of the class fall when what is there is covered, float32 (H, W); where
            it is negative, what is there speaks against the class.

        Raises
        ------
        ConstantImageError, NotFiniteImageError, ModelError
            As `predict`.
        """
        check_frame(frame)
        box = self._box(frame)
        square = box.apply(to_unit(frame.pixels))
        covers = make_covers(box)
        squares = np.concatenate([square[None], cover(square, covers, box)])
        done: list[NDArray[np.float32]] = []
        with self._lock:
            while (first := sum(map(len, done))) < len(squares):
                try:
                    done.append(self._classify(squares[first : first + self.batch], frame))
                except (RuntimeError, MemoryError) as error:
                    if not self.engine.is_out_of_memory(error):
                        raise
                    self._take_less(error, frame)
        odds = log_odds(np.concatenate(done), CLASSES.index(label))
        falls = np.asarray(odds[0] - odds[1:], np.float32)
        heat: NDArray[np.float32] = box.invert(np.tensordot(falls, covers, 1)[None])[0]
        return heat

    def _classify(self, squares: NDArray[np.float32], frame: Frame) -> NDArray[np.float32]:
        """Give class probabilities (N, 3) of letterboxed squares (N, S, S) of one frame."""
        views = self.engine.upload(normalise(self.engine.put(squares)[:, None]))
        _, classes = self._run(views, [frame])
        logits = self.engine.fetch(classes)
        if not np.isfinite(logits).all():
            raise self._is_no_number(frame)
        return average_classes(logits[None], self.card.temperature)  # type: ignore[no-any-return]

    def _is_no_number(self, frame: Frame) -> ModelError:
        return ModelError(
            f"the answer of the model {self.model} to {frame.name} holds what is no number; "
            "use another model for it"
        )

    def see(self, frames: Sequence[Frame]) -> tuple[Array, Array]:
        """Run the network on every view of a few frames, which have to fit into memory at once.

        Gives lesion probability (views, B, S, S), in the letterbox, and class logits (views, B, 3). All are
        finite, whatever the engine: an answer that is not is a `ModelError` that names the image.
        """
        squares = [self._box(frame).apply(self.engine.put(to_unit(frame.pixels))) for frame in frames]
        images = self.engine.upload(normalise(namespace(squares[0]).stack(squares)[:, None]))
        views = list_views(self.views, self.card.mirror_scale)
        lesion, classes = self._run(make_views(images, views), frames)
        maps, logits = undo_views(lesion, views), classes.reshape(self.views, len(frames), -1)
        xp = namespace(maps)
        right = xp.isfinite(logits).all((0, 2)) & ((maps >= -_ROUNDING) & (maps <= 1 + _ROUNDING)).all(
            (0, 2, 3)
        )
        for frame, is_right in zip(frames, right.tolist(), strict=True):
            if not is_right:
                raise self._is_no_number(frame)
        return maps, logits

    def _run(self, views: Array, frames: Sequence[Frame]) -> tuple[Array, Array]:
        try:
            lesion, classes = self.engine.run(views)
        except Exception as error:  # networks raise whatever they come upon
            if self.engine.is_out_of_memory(error):
                raise
            names = frames[0].name + (f" and {len(frames) - 1} more" if len(frames) > 1 else "")
            fault = str(error).partition("\n")[0] or type(error).__name__
            raise ModelError(f"the model {self.model} cannot compute {names}: {fault}") from error
        wanted = [tuple(views.shape), (len(views), len(CLASSES))]
        if (shapes := [tuple(lesion.shape), tuple(classes.shape)]) != wanted:
            raise ModelError(f"the model {self.model} answers in the shapes {shapes}, not {wanted}")
        return lesion, classes

    def _predict_some(self, frames: Sequence[Frame]) -> list[Prediction]:
        maps, logits = self.see(frames)
        classes = self.engine.fetch(average_classes(logits, self.card.temperature))
        # what cards before format 2.1 go by
        scores = [None] * len(frames) if self.card.foreground else agreement(maps, self.threshold).tolist()
        means = self.engine.fetch(maps.mean(0))
        return [self._finish(*one) for one in zip(frames, means, classes, scores, strict=True)]

    def on_grid(self, frame: Frame, mean: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring a map (S, S) from the letterbox, as `see` gives it, to the frame's own grid."""
        box = self._box(frame)
        return self.engine.fetch(box.invert(self.engine.put(mean[None]))[0].clip(0, 1))

    def _box(self, frame: Frame) -> Letterbox:
        spec = self.card.spec
        return Letterbox(*frame.shape, spec.size, spec.is_stretched)

    def _finish(
        self, frame: Frame, mean: NDArray[np.float32], classes: NDArray[np.float32], score: float | None
    ) -> Prediction:
        lesion = self.on_grid(frame, mean)
        normal = float(classes[CLASSES.index("normal")])
        if normal >= self.card.normal_gate:
            mask = np.zeros(frame.shape, np.uint8)
        else:
            mask = number_lesions(lesion, threshold=self.threshold, min_area=self.card.min_area)
        return Prediction(
            frame_id=frame.id,
            lesion=lesion,
            mask=mask,
            classes=classes,
            expected_dice=self._expect(lesion, mask, normal, score),
            threshold=self.threshold,
            model=self.model,
        )

    def _expect(
        self, lesion: NDArray[np.float32], mask: NDArray[np.uint8], normal: float, score: float | None
    ) -> float:
        """Expect a Dice of a mask; of an empty one, tell the probability that there is no lesion."""
        if score is not None:
            return expected_dice(score, self.card.agreement, self.views) if mask.any() else normal
        if mask.any():
            return expected_dice(float(lesion[mask > 0].mean()), self.card.foreground, self.views)
        # neither head may see one: where the classes say "normal" and the map does not, look at it soon
        return normal * (1 - float(lesion.max()))

    def _take_less(self, error: Exception, frame: Frame) -> None:
        """Halve the batch; at one frame go to the CPU; on the CPU give up."""
        self.engine.free()
        if self.batch > 1:
            self.batch //= 2
            self._on_notice(f"out of memory on {self.device}; going on with batches of {self.batch}")
        elif self.device != "cpu":
            self._on_notice(f"out of memory on {self.device} even for one image; going on on the CPU")
            self.engine.move_to_cpu()
        else:
            raise ModelError(
                f"there is not enough memory to predict {frame.name}; "
                "close other programs or shrink the image"
            ) from error
