"""Many images through a predictor: read ahead, predicted in batches, one outcome each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sonoloop.errors import ImageError, ModelError
from sonoloop.imaging.io import FoundImage
from sonoloop.values import Frame, Prediction

# the maps of a prediction take nine bytes a pixel, and all of a batch are held at once
MAX_BATCH_PIXELS = 32_000_000


class PredictsBatches(Protocol):
    """What is asked of a predictor."""

    def predict_batch(self, frames: Sequence[Frame]) -> list[Prediction]:
        """Predict several frames."""


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """An image that was predicted; `seconds` is its share of its batch."""

    image: FoundImage
    frame: Frame
    prediction: Prediction
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """An image that was not, and why."""

    image: FoundImage
    error: ImageError | ModelError


Outcome = Predicted | Failed


def predict_images(
    images: Sequence[FoundImage],
    predictor: PredictsBatches,
    *,
    batch: int,
    read: Callable[[Path], Frame],
) -> Generator[Outcome]:
    """Predict images; one that cannot be read or predicted does not stop the others."""
    waiting: list[tuple[FoundImage, Frame]] = []
    for image, frame in _read_ahead(images, read, ahead=2 * batch):
        if isinstance(frame, ImageError):
            yield Failed(image, frame)
            continue
        if sum(other.pixels.size for _, other in waiting) + frame.pixels.size > MAX_BATCH_PIXELS and waiting:
            yield from _predict(waiting, predictor)
            waiting = []
        waiting.append((image, frame))
        if len(waiting) == batch:
            yield from _predict(waiting, predictor)
            waiting = []
    if waiting:
        yield from _predict(waiting, predictor)


def _read_ahead(
    images: Sequence[FoundImage], read: Callable[[Path], Frame], *, ahead: int
) -> Iterator[tuple[FoundImage, Frame | ImageError]]:
    pending: deque[tuple[FoundImage, Future[Frame]]] = deque()
    left = iter(images)
    pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="read")
    try:
        while True:
            while len(pending) < ahead and (image := next(left, None)) is not None:
                pending.append((image, pool.submit(read, image.path)))
            if not pending:
                return
            image, future = pending.popleft()
            try:
                frame: Frame | ImageError = future.result()
            except ImageError as error:
                frame = error
            yield image, frame
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _predict(waiting: Sequence[tuple[FoundImage, Frame]], predictor: PredictsBatches) -> Iterator[Outcome]:
    start = time.perf_counter()
    try:
        predictions = predictor.predict_batch([frame for _, frame in waiting])
    except (ImageError, ModelError) as error:  # of a model: too little memory for the image
        if len(waiting) == 1:
            yield Failed(waiting[0][0], error)
            return
        for one in waiting:
            yield from _predict([one], predictor)
        return
    seconds = (time.perf_counter() - start) / len(waiting)
    for (image, frame), prediction in zip(waiting, predictions, strict=True):
        yield Predicted(image, frame, prediction, seconds)
