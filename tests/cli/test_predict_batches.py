"""Reading ahead and batching, with a predictor that remembers what it was asked."""

from __future__ import annotations

import io
import signal
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sonoloop import batch as batches
from sonoloop.batch import Batch, Failed, Predicted, predict_images
from sonoloop.cli.console import interrupts_held
from sonoloop.errors import ImageMissingError, ModelError, UnsupportedImageError
from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.image_files import FoundImage
from sonoloop.values import Frame, Prediction


class FakePredictor:
    """Refuses frames called "odd"."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def predict_batch(self, frames):
        self.asked.append([frame.name for frame in frames])
        if any(frame.name == "odd" for frame in frames):
            raise UnsupportedImageError("odd cannot be predicted")
        return [prediction_of(frame) for frame in frames]


def prediction_of(frame: Frame) -> Prediction:
    return Prediction(
        frame_id=frame.id,
        lesion=np.zeros(frame.shape, np.float32),
        mask=np.zeros(frame.shape, np.uint8),
        classes=np.array([1, 0, 0], np.float32),
        expected_dice=1.0,
        threshold=0.5,
        model="fake",
    )


def found(*names: str) -> list[FoundImage]:
    return [FoundImage(Path(name), Path(name)) for name in names]


def read(path: Path) -> Frame:
    if path.name == "missing":
        raise ImageMissingError("there is no file missing")
    return frame_from_array(np.arange(64).reshape(8, 8), name=path.name)


def test_every_image_has_one_outcome_and_batches_are_full():
    predictor = FakePredictor()
    outcomes = list(predict_images(found(*"abcde", "missing", "f"), predictor, batch=3, read=read))
    assert predictor.asked == [["a", "b", "c"], ["d", "e", "f"]]
    assert [o.image.path.name for o in outcomes if isinstance(o, Predicted)] == list("abcdef")
    assert [str(o.error) for o in outcomes if isinstance(o, Failed)] == ["there is no file missing"]


def test_a_frame_that_fails_in_a_batch_fails_alone():
    outcomes = list(predict_images(found("a", "odd", "b"), FakePredictor(), batch=3, read=read))
    assert [(o.image.path.name, type(o)) for o in outcomes] == [
        ("a", Predicted),
        ("odd", Failed),
        ("b", Predicted),
    ]


def test_an_image_too_large_for_memory_fails_alone():
    class LacksMemory(FakePredictor):
        def predict_batch(self, frames):
            if any(frame.name == "odd" for frame in frames):
                raise ModelError("there is not enough memory to predict odd; shrink the image")
            return super().predict_batch(frames)

    outcomes = list(predict_images(found("a", "odd", "b"), LacksMemory(), batch=3, read=read))
    assert [type(o) for o in outcomes] == [Predicted, Failed, Predicted]
    assert isinstance(outcomes[1], Failed)
    assert "not enough memory" in str(outcomes[1].error)


def with_fewer_rows(levels: np.ndarray, height: int) -> bytes:
    """Return a PNG that says it is higher than what it holds."""
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    data = buffer.getvalue()
    header = data[12:20] + struct.pack(">I", height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def test_what_of_an_image_is_not_there_is_told_with_its_row(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(with_fewer_rows(levels[:9], 16))
    (tmp_path / "in" / "b.png").write_bytes(with_fewer_rows(levels, 16))
    batch = Batch.plan([tmp_path / "in"], tmp_path / "out")
    notes = {outcome.row.image: outcome.note for outcome in batch.run(FakePredictor())}
    assert notes == {"a.png": "only 9 of 16 rows are there; the rest is blank", "b.png": None}


def test_large_frames_go_in_smaller_batches(monkeypatch):
    monkeypatch.setattr(batches, "MAX_BATCH_PIXELS", 130)
    predictor = FakePredictor()
    list(predict_images(found(*"abcde"), predictor, batch=4, read=read))
    assert predictor.asked == [["a", "b"], ["c", "d"], ["e"]]


def test_reading_goes_on_while_a_batch_is_predicted():
    everything_read = threading.Event()
    seen: list[str] = []

    def read_and_tell(path: Path) -> Frame:
        seen.append(path.name)
        if len(seen) == 4:
            everything_read.set()
        return read(path)

    class Waits(FakePredictor):
        def predict_batch(self, frames):
            assert everything_read.wait(10)
            return super().predict_batch(frames)

    assert len(list(predict_images(found(*"abcd"), Waits(), batch=2, read=read_and_tell))) == 4


def test_an_unexpected_error_is_not_swallowed():
    class Broken(FakePredictor):
        def predict_batch(self, frames):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(predict_images(found("a"), Broken(), batch=1, read=read))


def test_an_interrupt_waits_for_the_step_to_finish(interruptible):
    steps = []
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        signal.raise_signal(signal.SIGINT)
        steps.append("finished")
    assert steps == ["finished"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
