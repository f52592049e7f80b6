"""Frames of a queue, read and predicted in a worker, and the few that are kept until they are gone to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import ImageMissingError, SonoloopError
from sonoloop.gui.preferences import Identity
from sonoloop.gui.reader import layer_data
from sonoloop.imaging.io import Study, read_study
from sonoloop.values import Frame, Prediction

if TYPE_CHECKING:
    from sonoloop.project import FrameStatus, InUse, Project

# of frames that are ready, and of a cine of which one frame follows another
MOST_BYTES = 256 << 20
# what is larger is read and predicted when it is gone to: its probabilities alone take four times as much
_MOST_PIXELS_AHEAD = 16_000_000


@dataclass(frozen=True, slots=True, eq=False)
class ReadyFrame:
    """A frame as it is shown, with what was found out of it in advance.

    Parameters
    ----------
    frame : Frame
        As the reader gives it.
    data, options : numpy.ndarray and dict
        What napari makes a layer of.
    ids : tuple of str
        Ids of all frames of the file.
    notes : tuple of str
        What the file lacks.
    identity : tuple, optional
        As whom and where it was looked up.
    status : FrameStatus, optional
        What the store knows of it.
    prediction, in_use : Prediction and InUse, optional
        The model's.
    problem : SonoloopError, optional
        Why it was not predicted.
    """

    frame: Frame
    data: NDArray[Any]
    options: dict[str, Any]
    ids: tuple[str, ...]
    notes: tuple[str, ...]
    identity: Identity | None = None
    status: FrameStatus | None = None
    prediction: Prediction | None = None
    in_use: InUse | None = None
    problem: SonoloopError | None = None

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        maps = () if self.prediction is None else (self.prediction.lesion, self.prediction.mask)
        return int(self.data.nbytes + sum(each.nbytes for each in maps))


class FrameReader:
    """Reads frames, in any worker; a file of many frames is decoded once while they follow each other."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._last: tuple[Path, int, Study] | None = None

    def read(self, path: Path, index: int) -> ReadyFrame:
        """Read one frame of a file.

        Raises
        ------
        ImageError
            If there is no such frame, or it cannot be read.
        """
        study = self._study(path)
        if index >= len(study.frames):
            raise ImageMissingError(
                f"{study.name} has {len(study.frames)} frames by now: open its folder again"
            )
        frame = study.frames[index]
        colour = None if study.colour is None else study.colour[index : index + 1]
        single = len(study.frames) == 1
        name = path.stem if single else f"{path.stem} [{index + 1}]"
        data, options, _ = layer_data(name, (frame,), colour)
        notes = () if frame.note is None else (f"{frame.name}: {frame.note}",)
        return ReadyFrame(frame, data, options, tuple(each.id for each in study.frames), notes)

    def _study(self, path: Path) -> Study:
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            changed = 0  # reading says what is wrong
        with self._lock:
            if self._last is not None and self._last[:2] == (path, changed):
                return self._last[2]
        study = read_study(path)
        size = sum(frame.pixels.nbytes for frame in study.frames)
        with self._lock:
            self._last = (path, changed, study) if len(study.frames) > 1 and size <= MOST_BYTES else None
        return study


def prepare(
    read: Callable[[], ReadyFrame],
    patient: str | None,
    predict: Callable[[Frame, Project], tuple[Prediction, InUse]] | None,
    identity: Identity,
    project: Project,
) -> ReadyFrame:
    """Read a frame, look it up and predict it, in the worker."""
    ready = read()
    if ready.data.size > _MOST_PIXELS_AHEAD:
        return ready
    status = project.look_up(ready.frame, patient=patient)
    ready = replace(ready, identity=identity, status=status)
    if predict is None or (status.newest is not None and not is_withheld(status)):
        return ready
    try:
        prediction, in_use = predict(ready.frame, project)
    except SonoloopError as error:
        return replace(ready, problem=error)
    return replace(ready, prediction=prediction, in_use=in_use)


def is_withheld(status: FrameStatus) -> bool:
    """Whether what is known of a frame may not be shown before the annotator has drawn."""
    return status.draw_first and status.own_head is None


class ReadyFrames:
    """The frames that wait to be gone to, by their keys; as many as memory is set aside for.

    Parameters
    ----------
    most : int
        Bytes of all of them.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._frames: OrderedDict[str, ReadyFrame] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._frames

    @property
    def nbytes(self) -> int:
        """How much memory they take."""
        return sum(ready.nbytes for ready in self._frames.values())

    def put(self, key: str, ready: ReadyFrame) -> bool:
        """Keep a frame, where there is room for it; whether there was."""
        if self.nbytes + ready.nbytes > self._most:
            return False
        self._frames[key] = ready
        return True

    def take(self, key: str) -> ReadyFrame | None:
        """Give a frame away; None where it is not ready."""
        return self._frames.pop(key, None)

    def keep_only(self, keys: Iterable[str]) -> None:
        """Forget the others."""
        for key in self._frames.keys() - set(keys):
            del self._frames[key]


def first_mask(ready: ReadyFrame, status: FrameStatus | None) -> NDArray[np.uint8] | None:
    """Give the mask that a frame begins with; None where nothing is known, or may be shown, of it yet."""
    if status is None or is_withheld(status):
        return None
    shape = ready.frame.shape
    if status.newest is not None:
        stored = status.newest.correction.mask
        return stored if stored.shape == shape else None
    if ready.prediction is not None and ready.prediction.mask.shape == shape:
        return ready.prediction.mask
    return None
