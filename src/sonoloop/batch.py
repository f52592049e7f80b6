"""Many images through a predictor: read ahead, predicted in batches, one outcome each, into a folder."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from sonoloop.errors import ImageError, ImageTooLargeError, ModelError, OutputError, SonoloopError
from sonoloop.formats.prediction_folder import (
    PredictionFolder,
    PredictionRow,
    describe,
    plan_stems,
    tell_apart,
)
from sonoloop.imaging.image_files import FoundImage, find_images
from sonoloop.imaging.io import read_frame
from sonoloop.values import Frame, Prediction

# the maps of a prediction take nine bytes a pixel, and all of a batch are held at once
MAX_BATCH_PIXELS = 32_000_000
_NAMED = 3


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
    """An image that was not, and why; or a folder whose images were not found."""

    image: FoundImage
    error: ImageError | ModelError | OutputError


Outcome = Predicted | Failed


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """An image whose prediction is in the folder: its row, its pictures relative to the folder, a note.

    The note says what of the image is not there; see `Frame`.
    """

    row: PredictionRow
    files: list[str]
    note: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Images, and the folder that their predictions go to; checked before a model is loaded.

    `failed` are known before the run; `notices` should be known though nothing is missing.
    """

    images: Sequence[FoundImage]
    stems: Mapping[FoundImage, Path]
    failed: Sequence[Failed]
    notices: Sequence[str]
    folder: PredictionFolder

    @property
    def total(self) -> int:
        """The number of outcomes of a run."""
        return len(self.images) + len(self.failed)

    @classmethod
    def plan(cls, paths: Iterable[Path], out: Path, *, overlay: bool = False) -> Self:
        """Find the images below files and folders, and see that the folder can be written to."""
        paths = list(paths)
        found = find_images(paths)
        if not found.images:
            raise SonoloopError(
                f"there is no image in {', '.join(map(str, paths))}; PNG, JPEG, TIFF and BMP files are "
                "predicted, masks (..._mask.png) and what is hidden are not"
                + "".join(f"; {one.error}" for one in found.left_out[:_NAMED])
            )
        stems, refused = plan_stems(tell_apart(found.images))
        failed = [Failed(FoundImage(one.path, one.relative), one.error) for one in found.left_out]
        failed += [Failed(image, error) for image, error in refused.items()]
        folder = PredictionFolder(out, overlay=overlay)
        folder.check()
        return cls(list(stems), stems, failed, [*found.notices, *folder.notices], folder)

    def run(
        self,
        predictor: PredictsBatches,
        *,
        batch: int = 8,
        guard: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Generator[Written | Failed]:
        """Predict and write; closed early, it keeps what is done. `guard` holds until an outcome is taken in.

        A mask without its row, or a row without its mask, would mislead.
        """
        outcomes = predict_images(self.images, predictor, batch=batch, read=read_frame)
        with self.folder, closing(outcomes):
            yield from self.failed
            for outcome in outcomes:
                if isinstance(outcome, Failed):
                    yield outcome
                else:
                    with guard():
                        yield self._write(outcome)

    def _write(self, outcome: Predicted) -> Written | Failed:
        image, prediction = outcome.image, outcome.prediction
        try:
            row = describe(prediction, image=image.relative.as_posix(), seconds=outcome.seconds)
            files = self.folder.write(outcome.frame, prediction, row, self.stems[image])
            return Written(row, files, outcome.frame.note)
        except (ModelError, OutputError) as error:
            return Failed(image, error)
        except MemoryError:
            return Failed(image, _too_large(image))


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
            except MemoryError:
                frame = _too_large(image)
            yield image, frame
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _too_large(image: FoundImage) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"{image.path.name} does not fit into memory; close other programs or shrink it"
    )


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
