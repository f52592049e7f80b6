"""A mask and prompts in, the repaired mask out."""

from __future__ import annotations

import threading
from collections import OrderedDict
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
from sonoloop.models.prompts import RADIUS, Box, Prompts, draw_discs, draw_prompts
from sonoloop.values import Frame

if TYPE_CHECKING:
    from sonoloop.models.bundle import Bundle

Mask = NDArray[np.uint8]
Bools = NDArray[np.bool_]

_TOUCHING = np.ones((3, 3), np.bool_)
# around a prompt, this share of the disc that is shown obeys it whatever the network says
_OBEYS = 0.4
# frames that are kept as the network is shown them
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
        # what does not depend on prompts: the last frames as the network is shown them, by their pixels
        self._shown: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

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
        size = self.card.spec.size
        box = Letterbox(*frame.shape, size)
        top, left, height, width = box.content
        before = box.apply(old.astype(np.float32)) >= 0.5
        moved = prompts.moved((height / frame.shape[0], width / frame.shape[1]), (top, left))
        images = np.concatenate([self._show(frame, box)[None], draw_prompts(size, moved, before)])[None]
        lesion, _ = self.engine.run(self.engine.upload(self.engine.put(images)))
        seen = box.invert(self.engine.fetch(lesion)[0])[0]
        if not np.isfinite(seen).all():
            raise ModelError(
                f"the model {self.model} answers {frame.name} with what is no number; take another model"
            )
        return _obey(_connected(seen >= 0.5, old, prompts), prompts, max(frame.shape) / size)

    def _show(self, frame: Frame, box: Letterbox) -> NDArray[np.float32]:
        """Bring a frame to the network's square; what was shown before is kept."""
        key = frame.pixels_hash
        if key not in self._shown:
            self._shown[key] = normalise(box.apply(to_unit(frame.pixels))).astype(np.float32)
            if len(self._shown) > _MOST_KEPT:
                self._shown.popitem(last=False)
        self._shown.move_to_end(key)
        return self._shown[key]


def load_corrector(
    name_or_path: str | Path, *, device: str = "auto", engine: str = AUTO, on_notice: Notify | None = None
) -> Corrector:
    """Load a model that takes prompts, by its name in the data folder or the path of its bundle."""
    return Corrector(open_engine(bundle_folder(name_or_path), device, engine=engine, on_notice=on_notice))


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
        counts = np.bincount(mask[_slices(prompts.box)].ravel(), minlength=2)[1:]
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
    if prompts.box is not None and not all(
        each.stop > each.start for each in _slices(prompts.box, frame.shape)
    ):
        raise ValueError(f"the box {prompts.box} lies outside the image of {height} x {width}")
    for row, column in (point for stroke in prompts.strokes for point in stroke.points):
        if not (-0.5 <= row < height and -0.5 <= column < width):
            raise ValueError(
                f"the prompt at row {row:g}, column {column:g} lies outside the image of {height} x {width}"
            )


def _slices(box: Box, shape: tuple[int, int] = (1 << 30, 1 << 30)) -> tuple[slice, slice]:
    """Give the rows and columns that a box covers."""
    top, left, bottom, right = (round(end) for end in box)
    return (
        slice(max(0, top), max(0, min(bottom + 1, shape[0]))),
        slice(max(0, left), max(0, min(right + 1, shape[1]))),
    )


def _connected(answer: Bools, old: Bools, prompts: Prompts) -> Bools:
    """Keep of an answer what belongs to the lesion at hand: it touches it, a positive stroke, or the box."""
    regions, _ = ndimage.label(answer, _TOUCHING)
    meant = old.copy()
    for stroke in prompts.strokes:
        if stroke.inside:
            draw_discs(meant, stroke.path, 1.5, True)
    if prompts.box is not None:
        meant[_slices(prompts.box)] = True
    numbers = np.unique(regions[meant])
    return np.isin(regions, numbers[numbers > 0])


def _obey(new: Bools, prompts: Prompts, scale: float) -> Bools:
    """See that each stroke holds in its middle, the later ones over the earlier."""
    for stroke in prompts.strokes:
        draw_discs(new, stroke.path, _OBEYS * RADIUS * scale, stroke.inside)
    return new
