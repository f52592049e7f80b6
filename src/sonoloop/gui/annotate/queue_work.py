"""What a person did on frames that were left: their masks, kept until they are accepted."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sonoloop.gui.annotate.journal_entry import Content, stored_content
from sonoloop.gui.annotate.layers import FrameState


@dataclass(frozen=True, slots=True, eq=False)
class PackedMask:
    """A mask that was left long ago."""

    data: bytes
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return len(self.data)


def pack(mask: NDArray[np.uint8] | PackedMask) -> PackedMask:
    """Make a mask small."""
    return mask if isinstance(mask, PackedMask) else PackedMask(zlib.compress(mask.tobytes(), 1), mask.shape)


def unpack(mask: NDArray[np.uint8] | PackedMask) -> NDArray[np.uint8]:
    """Give a mask as an array."""
    if not isinstance(mask, PackedMask):
        return mask
    return np.frombuffer(zlib.decompress(mask.data), np.uint8).reshape(mask.shape)


def mask_of(state: FrameState) -> NDArray[np.uint8] | None:
    """Give the mask of a frame on which nothing is drawn that is not stored."""
    return state.written if state.revision is None else state.revision.correction.mask


def is_begun(state: FrameState, mask: NDArray[np.uint8] | None, annotator: str) -> bool:
    """Whether a person drew or chose something on a frame that is not accepted."""
    stored = None if state.revision is None else stored_content(state.revision, annotator)
    return Content(mask, state.label, state.lesions).is_work(state.written, stored)


def state_bytes(state: FrameState) -> int:
    """Count what a state holds of a frame; arrays that it shares are counted once."""
    own = (state.written, state.cleared, state.held_uncertainty)
    arrays: dict[int, NDArray[Any]] = {id(each): each for each in own if each is not None}
    for prediction in (state.prediction, state.held, state.kept):
        if prediction is not None:
            arrays |= {id(each): each for each in (prediction.lesion, prediction.mask)}
    if state.revision is not None:
        arrays[id(state.revision)] = state.revision.correction.mask
    return sum(each.nbytes for each in arrays.values())
