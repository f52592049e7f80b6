"""Which class went with a mask that the program wrote: undo and redo bring back both."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sonoloop.values import Label

_KEPT = 20


@dataclass(slots=True, eq=False)
class Step:
    """A mask and a class that took the place of another mask and class."""

    mask_before: NDArray[np.uint8]
    label_before: Label | None
    mask_after: NDArray[np.uint8]
    label_after: Label | None


class MaskSteps:
    """The steps of one frame, beside napari's history, which knows pixels only.

    Strokes are not recorded: between two steps they change the mask, and only where undo comes back to what
    a step had found, or redo to what it had left, it is that step.
    """

    def __init__(self) -> None:
        self._done: deque[Step] = deque(maxlen=_KEPT)
        self._undone: deque[Step] = deque(maxlen=_KEPT)

    def __bool__(self) -> bool:
        return bool(self._done or self._undone)

    def record(self, step: Step) -> None:
        """Keep a step that was just made."""
        self._undone.clear()
        if not np.array_equal(step.mask_before, step.mask_after):
            self._done.append(step)

    def painted(self) -> None:
        """Forget what was undone, as napari does after a stroke."""
        self._undone.clear()

    def follow(self, mask: NDArray[np.uint8], label: Label | None, *, undoing: bool) -> Step | None:
        """Say which step an undo or a redo brought back: its mask and class now hold as "after"."""
        if undoing and self._done and np.array_equal(mask, self._done[-1].mask_before):
            step = self._done.pop()
            step.label_after = label  # another may have been chosen since it was made
            self._undone.append(step)
            return Step(step.mask_after, label, step.mask_before, step.label_before)
        if not undoing and self._undone and np.array_equal(mask, self._undone[-1].mask_after):
            step = self._undone.pop()
            step.label_before = label  # another may have been chosen since the undo
            self._done.append(step)
            return step
        return None
