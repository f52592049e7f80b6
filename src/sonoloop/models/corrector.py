"""A mask and prompts in, the repaired mask out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sonoloop.errors import ModelError
from sonoloop.imaging.grey import check_frame, to_unit
from sonoloop.imaging.mask_edits import MAX_LESIONS, free_number
from sonoloop.models.engines import Engine
from sonoloop.models.engines.auto import AUTO, Notify, open_engine
from sonoloop.models.library import bundle_folder
from sonoloop.models.preprocess import Letterbox, normalise
from sonoloop.models.prompts import RADIUS, Prompts, draw_discs, draw_prompts
from sonoloop.values import Frame

if TYPE_CHECKING:
    from sonoloop.models.bundle import Bundle

Mask = NDArray[np.uint8]
Bools = NDArray[np.bool_]

_TOUCHING = np.ones((3, 3), np.bool_)
# a lesion is looked at in a square so many times as large as it and its prompts, which is at least this share
# of the frame's longer side
_AROUND, _LEAST = 2.0, 0.2
# from this share of the longer side on, the whole frame is looked at
_WHOLE = 0.85
# around a prompt, this share of the disc that is shown obeys it whatever the network says
_OBEYS = 0.4
# parts of frames that are kept as the network is shown them
_MOST_KEPT = 8


class Corrector:
    """A model that repairs masks by clicks, lines and boxes; safe to call from several threads.

    Parameters
    ----------
    bundle : Bundle or Engine
        A model that takes prompts: a bundle, which torch runs, or one that an engine loaded.
    device : str
        Where a bundle runs; see `sonoloop.models.devices.choose_device`.

    Raises
    ------
    ModelError
        If the model takes no prompts.
    """

    def __init__(self, bundle: Bundle | Engine, *, device: str = "auto") -> None:
        self.card = bundle.card
        self.model = self.card.model
        if not self.card.spec.takes_prompts:
            raise ModelError(
                f"the model {self.model} predicts by itself, and knows no clicks: take one of the recipe "
                "interactive"
            )
        if not isinstance(bundle, Engine):
            from sonoloop.models.engines.torch import TorchEngine  # noqa: PLC0415 - others need no torch

            bundle = TorchEngine(bundle, device)
        self.engine: Engine = bundle
        self._lock = threading.Lock()
        # what does not depend on prompts: the last frame in [0, 1], and its parts as the network sees them
        self._frame = "", np.zeros((0, 0), np.float32)
        self._shown: OrderedDict[tuple[str, Part], NDArray[np.float32]] = OrderedDict()

    def correct(
        self,
        frame: Frame,
        mask: Mask,
        prompts: Prompts,
        *,
        lesion: int | None = None,
        kept: Bools | None = None,
    ) -> Mask:
        """Repair one lesion of a mask, whoever drew it, so that it agrees with all prompts.

        Pixels of other lesions and pixels that are kept stay as they are, whatever is pointed at; around
        each stroke the later one holds. Nothing else is changed but the lesion at hand.

        Parameters
        ----------
        frame : Frame
            Grey levels, shape (H, W), any real dtype.
        mask : numpy.ndarray
            Numbered lesions, uint8 (H, W); it is not changed.
        prompts : Prompts
            All that was pointed at for this lesion so far, in pixels of the frame.
        lesion : int, optional
            The number of the lesion, 1 to 255, which need not be there yet; unless given, see `find_lesion`.
        kept : numpy.ndarray, optional
            Pixels that stay as they are, bool (H, W), such as those painted by hand.

        Returns
        -------
        numpy.ndarray
            The repaired mask, uint8 (H, W).

        Raises
        ------
        ValueError
            If shapes or types do not fit, a prompt lies outside the frame, there is none, or the mask has 255
        lesions already.
        ConstantImageError, NotFiniteImageError
            If there is nothing to see in the frame.
        ModelError
            If the network's answer holds what is no number.
        """
        check_frame(frame)
        _check(frame, mask, prompts, kept)
        number = find_lesion(mask, prompts) if lesion is None else lesion
        if not 1 <= number <= MAX_LESIONS:
            raise ValueError(f"lesion must be a number from 1 to {MAX_LESIONS}, got {number}")
        old = mask == number
        with self._lock:
            new = self._repair(frame, old, prompts)
        new &= old | (mask == 0)
        if kept is not None:
            new = np.where(kept, old, new)
        repaired = np.where(old, np.uint8(0), mask)
        repaired[new] = number
        return repaired

    def _repair(self, frame: Frame, old: Bools, prompts: Prompts) -> Bools:
        part = find_part(frame.shape, old, prompts)
        now = self._look(frame, part, old, prompts)
        if part == Part.whole(frame.shape) and not old.any() and prompts.box is None and now.any():
            # a lesion that was just found is looked at once more from near
            closer = find_part(frame.shape, now, prompts)
            if closer != part:
                part, now = closer, self._look(frame, closer, now, prompts)
        # where nothing was looked at, what was there stays
        rows, columns = part.slices
        new = old.copy()
        new[rows, columns] = now[rows, columns]
        return _obey(new, old, prompts, part.scale(self.card.spec.size))

    def _look(self, frame: Frame, part: Part, old: Bools, prompts: Prompts) -> Bools:
        """Ask the network about a part of a frame; false elsewhere."""
        size = self.card.spec.size
        box = Letterbox(part.height, part.width, size)
        top, left, height, width = box.content
        scale = height / part.height, width / part.width
        shift = top - part.top * scale[0], left - part.left * scale[1]
        before = box.apply(old[part.slices].astype(np.float32)) >= 0.5 if old.any() else None
        drawn = draw_prompts(size, prompts.moved(scale, shift), before)
        images = np.concatenate([self._show(frame, part, box)[None], drawn])[None]
        lesion, _ = self.engine.run(self.engine.upload(self.engine.put(images)))
        seen = box.invert(self.engine.fetch(lesion)[0])[0]
        if not np.isfinite(seen).all():
            raise ModelError(
                f"the model {self.model} answers {frame.name} with what is no number; take another model"
            )
        answer = np.zeros(frame.shape, np.bool_)
        answer[part.slices] = seen >= 0.5
        return _connected(answer, old, prompts)

    def _show(self, frame: Frame, part: Part, box: Letterbox) -> NDArray[np.float32]:
        """Bring a part of a frame to the network's square; what was shown before is kept."""
        key = frame.pixels_hash, part
        if key not in self._shown:
            if self._frame[0] != frame.pixels_hash:
                self._frame = frame.pixels_hash, to_unit(frame.pixels)
            cut = np.ascontiguousarray(self._frame[1][part.slices])
            self._shown[key] = normalise(box.apply(cut)).astype(np.float32)
            if len(self._shown) > _MOST_KEPT:
                self._shown.popitem(last=False)
        self._shown.move_to_end(key)
        return self._shown[key]


def load_corrector(
    name_or_path: str | Path, *, device: str = "auto", engine: str = AUTO, on_notice: Notify | None = None
) -> Corrector:
    """Load a model that takes prompts, by its name in the data folder or the path of its bundle."""
    return Corrector(open_engine(bundle_folder(name_or_path), device, engine=engine, on_notice=on_notice))


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def whole(cls, shape: tuple[int, int]) -> Part:
        """All of a frame."""
        return cls(0, 0, *shape)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def scale(self, size: int) -> float:
        """Say how many pixels of a square of a size one of the frame takes."""
        return size / max(self.height, self.width)


def find_part(shape: tuple[int, int], lesion: Bools, prompts: Prompts) -> Part:
    """Find the part of a frame to look at: around the lesion and the prompts, or all of it where none is.

    Seen from near, a small lesion's outline is finer, as with RITM's and nnInteractive's zooming in.
    """
    points = [point for stroke in prompts.strokes for point in stroke.points]
    if not lesion.any() and prompts.box is None:
        return Part.whole(shape)
    if lesion.any():
        rows, columns = ndimage.find_objects(lesion.view(np.int8))[0]
        points += [(rows.start, columns.start), (rows.stop - 1, columns.stop - 1)]
    if prompts.box is not None:
        points += [prompts.box[:2], prompts.box[2:]]
    ends = np.array(points, np.float64)
    low, high = ends.min(0), ends.max(0)
    longer = max(shape)
    side = max(float((high - low).max() + 1) * _AROUND, _LEAST * longer)
    if side >= _WHOLE * longer:
        return Part.whole(shape)
    # in steps, so that a lesion that changes a little is seen in the same part, which is kept
    step = max(1, longer // 32)
    side = int(np.ceil(side / step)) * step
    sides = [min(side, length) for length in shape]
    firsts = [
        int(np.clip(round((middle - extent / 2) / step) * step, 0, length - extent))
        for middle, extent, length in zip((low + high) / 2, sides, shape, strict=True)
    ]
    return Part(*firsts, *sides)


def find_lesion(mask: Mask, prompts: Prompts) -> int:
    """Find which lesion is meant: the first that a stroke touches, else the one most of which is in the box.

    Where none is touched it is a new one, with the lowest number that is free.
    """
    for stroke in prompts.strokes:
        rows, columns = np.round(stroke.path).astype(int).clip(0, np.array(mask.shape) - 1).T
        touched = mask[rows, columns]
        if touched.any():
            return int(touched[touched > 0][0])
    if prompts.box is not None:
        top, left, bottom, right = (max(0, round(end)) for end in prompts.box)
        counts = np.bincount(mask[top : bottom + 1, left : right + 1].ravel(), minlength=2)[1:]
        if counts.any():
            return 1 + int(counts.argmax())
    return free_number(mask)


def _check(frame: Frame, mask: Mask, prompts: Prompts, kept: Bools | None) -> None:
    if mask.shape != frame.shape or mask.dtype != np.uint8:
        raise ValueError(f"mask must be uint8 {frame.shape}, got {mask.dtype} {mask.shape}")
    if kept is not None and (kept.shape != frame.shape or kept.dtype != np.bool_):
        raise ValueError(f"kept must be bool {frame.shape}, got {kept.dtype} {kept.shape}")
    if not prompts:
        raise ValueError("there is no prompt: click on the lesion, or draw a box around it")
    height, width = frame.shape
    for row, column in (point for stroke in prompts.strokes for point in stroke.points):
        if not (-0.5 <= row < height and -0.5 <= column < width):
            raise ValueError(
                f"the prompt at row {row:g}, column {column:g} lies outside the image of {height} x {width}"
            )


def _connected(answer: Bools, old: Bools, prompts: Prompts) -> Bools:
    """Keep of an answer what belongs to the lesion at hand: it touches it, a positive stroke, or the box."""
    regions, count = ndimage.label(answer, _TOUCHING)
    if count < 2 and not old.any() and prompts.box is None and not any(s.inside for s in prompts.strokes):
        return answer
    meant = old.copy()
    for stroke in prompts.strokes:
        if stroke.inside:
            draw_discs(meant, stroke.path, 1.5, True)
    if prompts.box is not None:
        top, left, bottom, right = (max(0, round(end)) for end in prompts.box)
        meant[top : bottom + 1, left : right + 1] = True
    numbers = np.unique(regions[meant])
    return np.isin(regions, numbers[numbers > 0])


def _obey(new: Bools, old: Bools, prompts: Prompts, scale: float) -> Bools:
    """See that each stroke holds in its middle, the later ones over the earlier."""
    for stroke in prompts.strokes:
        draw_discs(new, stroke.path, max(0.0, _OBEYS * RADIUS / scale), stroke.inside)
    return new
