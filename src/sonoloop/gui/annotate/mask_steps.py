"""One history of mask, class and lesions: what napari's undo and redo bring back beside the pixels.

napari keeps a history of each Labels layer and tells of every item that comes in (the `paint` event), but of
undo and redo only that something was drawn again; which of the two it was is seen in how much can be redone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from sonoloop.values import ClassName, Label

if TYPE_CHECKING:
    from sonoloop.gui.annotate.layers import FrameState, Index

# as many as napari keeps of a layer
_KEPT = 100


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What is decided of a frame and goes with a mask; the fields are those of `FrameState`."""

    label: Label | None
    lesions: Mapping[int, ClassName]
    written: NDArray[np.uint8] | None
    cleared: NDArray[np.uint8] | None

    @classmethod
    def of(cls, state: FrameState) -> Decision:
        """Take it of a frame as it is now."""
        return cls(state.label, dict(state.lesions), state.written, state.cleared)

    def put(self, state: FrameState) -> None:
        """Bring it back."""
        state.label, state.lesions = self.label, dict(self.lesions)
        state.written, state.cleared = self.written, self.cleared

    def says_the_same(self, other: Decision) -> bool:
        """Whether a person would see no difference."""
        return self.label == other.label and self.lesions == other.lesions


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """A decision that took the place of another, together with pixels or by itself."""

    state: FrameState
    before: Decision
    after: Decision


class MaskSteps(QObject):
    """The history of one lesions layer, item for item beside napari's.

    Parameters
    ----------
    layer : napari.layers.Labels
        The layer, or napari's public proxy of it.
    parent : QObject, optional
        The owner.
    """

    stroked = Signal()  # by a person
    undone = Signal(int)  # how many items; fewer than none where they were redone

    def __init__(self, layer: Any, *, parent: QObject | None = None) -> None:  # noqa: ANN401 - perhaps a proxy
        super().__init__(parent)
        self._layer = layer
        # None is a stroke, of which napari knows all
        self._done: deque[_Step | None] = deque(maxlen=_KEPT)
        self._undone: deque[_Step | None] = deque(maxlen=_KEPT)
        self._pushed = 0
        self._writing = False
        self._redoable = self._count_redoable()
        layer.events.paint.connect(self._on_pushed)
        layer.events.set_data.connect(self.catch_up)

    def close(self) -> None:
        """Stop listening."""
        self._layer.events.paint.disconnect(self._on_pushed)
        self._layer.events.set_data.disconnect(self.catch_up)

    def reset(self) -> None:
        """Forget everything: the layer holds another frame by now, with a history of its own."""
        self._done.clear()
        self._undone.clear()
        self._redoable = self._count_redoable()

    @contextmanager
    def step(self, state: FrameState, index: Index) -> Iterator[None]:
        """Make one step of all that is written on a frame and decided of it within the context."""
        if self._writing:  # within a larger one
            yield
            return
        self.catch_up()
        before, pushed = Decision.of(state), self._pushed
        self._writing = True
        try:
            with self._layer.block_history():
                yield
            after = Decision.of(state)
            if self._pushed == pushed and not before.says_the_same(after):
                self._touch(index)
        finally:
            self._writing = False
        if self._pushed != pushed:
            self._done[-1] = _Step(state, before, after)

    def catch_up(self, _event: object = None) -> None:
        """Bring back what was decided where something was undone or redone since the last look."""
        before, self._redoable = self._redoable, self._count_redoable()
        if self._writing or self._redoable == before:
            return
        for _ in range(self._redoable - before):
            step = self._done.pop() if self._done else None
            self._undone.append(step)
            if step is not None:
                step.before.put(step.state)
        for _ in range(before - self._redoable):
            step = self._undone.pop() if self._undone else None
            self._done.append(step)
            if step is not None:
                step.after.put(step.state)
        self.undone.emit(self._redoable - before)

    def _on_pushed(self, _event: object) -> None:
        self._pushed += 1
        self._redoable = self._count_redoable()
        self._undone.clear()
        self._done.append(None)
        if not self._writing:
            self.stroked.emit()

    def _touch(self, index: Index) -> None:
        """Put an item into napari's history that changes no pixel."""
        at = (*(np.array([i]) for i in index), np.array([0]), np.array([0]))
        value = self._layer.data[at].copy()
        with self._layer.block_history():
            self._layer.data_setitem(at, np.where(value == 1, 2, 1).astype(value.dtype), refresh=False)
            self._layer.data_setitem(at, value, refresh=False)

    def _count_redoable(self) -> int:
        """How many items could be redone; napari has no public way to tell undo from redo."""
        return len(getattr(getattr(self._layer, "__wrapped__", self._layer), "_redo_history", ()))
