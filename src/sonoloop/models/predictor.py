"""Frames in, predictions out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sonoloop.errors import ModelError
from sonoloop.imaging.grey import check_frame, to_unit
from sonoloop.models.bundle import Bundle
from sonoloop.models.devices import autocast_dtype, choose_device
from sonoloop.models.postprocess import number_lesions
from sonoloop.models.preprocess import Letterbox, normalise
from sonoloop.models.tta import VIEWS, agreement, expected_dice, make_views, undo_views
from sonoloop.values import CLASSES, Frame, Prediction

logger = logging.getLogger(__name__)

# a logit whose probability is zero in every precision
_NO_LESION = -100.0


class Predictor:
    """A bundle on a device, ready to predict; safe to call from several threads.

    Parameters
    ----------
    bundle : Bundle
        The model.
    device : str
        See `sonoloop.models.devices.choose_device`.
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
    """

    def __init__(
        self,
        bundle: Bundle,
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
        self.card = bundle.card
        self.model = bundle.model
        self.batch = batch
        self._on_notice = on_notice or logger.warning
        self._lock = threading.Lock()
        self._network = bundle.network
        self._move_to(choose_device(device))

    @property
    def device(self) -> str:
        """Where the network runs, as torch writes it: "cpu", "cuda", "mps"."""
        return str(self._device)

    @property
    def precision(self) -> str:
        """In what the network computes: "float32", or the reduced precision that pays here."""
        return str(self._dtype or torch.float32).removeprefix("torch.")

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
            If there is not enough memory for a single frame, even on the CPU.
        """
        return self.predict_batch([frame])[0]

    def predict_batch(self, frames: Sequence[Frame]) -> list[Prediction]:
        """Segment and classify frames of any sizes, in order; see `predict`."""
        for frame in frames:
            check_frame(frame)
        predictions: list[Prediction] = []
        with self._lock, torch.inference_mode():
            while len(predictions) < len(frames):
                some = frames[len(predictions) : len(predictions) + self.batch]
                try:
                    predictions += self._predict_some(some)
                except (RuntimeError, MemoryError) as error:
                    if not _is_out_of_memory(error):
                        raise
                    self._take_less(error, some[0])
        return predictions

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the bare network; one that only classifies sees no lesion anywhere.

        Parameters
        ----------
        images : torch.Tensor
            (B, 1, S, S) in [-1, 1], on the device.

        Returns
        -------
        tuple of torch.Tensor
            Lesion logits (B, 1, S, S) and class logits (B, 3), float32.
        """
        images = images.contiguous(memory_format=torch.channels_last)
        dtype = self._dtype or torch.bfloat16
        with torch.autocast(self._device.type, dtype, enabled=self._dtype is not None):
            lesion, classes = self._network(images)
        if lesion is None:
            lesion = torch.full_like(images, _NO_LESION)
        return lesion.float(), classes.float()

    def see(self, frames: Sequence[Frame]) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the network on every view of a few frames, which have to fit into memory at once.

        Returns
        -------
        tuple of torch.Tensor
            Lesion probability (views, B, S, S), in the letterbox, and class logits (views, B, 3).
        """
        boxes = [Letterbox(*frame.shape, self.card.spec.size) for frame in frames]
        squares = [
            box.apply(torch.from_numpy(to_unit(frame.pixels)))
            for box, frame in zip(boxes, frames, strict=True)
        ]
        images = normalise(torch.stack(squares)[:, None]).to(self._device)
        lesion, classes = self.forward(make_views(images, self.views))
        return undo_views(lesion.sigmoid(), self.views), classes.reshape(self.views, len(frames), -1)

    def _predict_some(self, frames: Sequence[Frame]) -> list[Prediction]:
        maps, logits = self.see(frames)
        classes = (logits / self.card.temperature).softmax(-1).mean(0).cpu().numpy()
        scores = agreement(maps, self.threshold).tolist()
        means = maps.mean(0).cpu()
        return [
            self._finish(frame, mean, probabilities, score)
            for frame, mean, probabilities, score in zip(frames, means, classes, scores, strict=True)
        ]

    def _finish(
        self, frame: Frame, mean: torch.Tensor, classes: NDArray[np.float32], score: float
    ) -> Prediction:
        box = Letterbox(*frame.shape, self.card.spec.size)
        lesion = box.invert(mean[None])[0].clamp(0, 1)
        normal = float(classes[CLASSES.index("normal")])
        if normal >= self.card.normal_gate:
            mask = np.zeros(frame.shape, np.uint8)
        else:
            mask = number_lesions(lesion.numpy(), threshold=self.threshold, min_area=self.card.min_area)
        expected = expected_dice(score, self.card.agreement, self.views) if mask.any() else normal
        return Prediction(
            frame_id=frame.id,
            lesion=lesion.numpy(),
            mask=mask,
            classes=classes,
            expected_dice=expected,
            threshold=self.threshold,
            model=self.model,
        )

    def _move_to(self, device: torch.device) -> None:
        self._device = device
        self._network = self._network.to(device)
        self._dtype = autocast_dtype(device)

    def _take_less(self, error: Exception, frame: Frame) -> None:
        """Halve the batch; at one frame go to the CPU; on the CPU give up."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if self.batch > 1:
            self.batch //= 2
            self._on_notice(f"out of memory on {self.device}; going on with batches of {self.batch}")
        elif self._device.type != "cpu":
            self._on_notice(f"out of memory on {self.device} even for one image; going on on the CPU")
            self._move_to(torch.device("cpu"))
        else:
            raise ModelError(
                f"there is not enough memory to predict {frame.name}; "
                "close other programs or shrink the image"
            ) from error


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; on the CPU torch says so in words only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)
