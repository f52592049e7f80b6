"""A prediction that comes where a person has drawn: mine, theirs, or both; asked once a frame."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from sonoloop.errors import SonoloopError
from sonoloop.gui.annotate.layers import Key, Target, read_mask
from sonoloop.gui.annotate.session import Session
from sonoloop.gui.widgets import show_problem

Choice = Literal["mine", "theirs", "merge"]

# what the panel asks
QUESTION = "A new proposal is there, and you have drawn on this frame. Ctrl+Z takes the answer back."
ANSWERS: tuple[tuple[str, Choice], ...] = (
    ("Keep mine", "mine"),
    ("Take the new one", "theirs"),
    ("Merge: add its other lesions to mine", "merge"),
)


def merge_masks(mine: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Add the lesions that only a proposal has; where both have one, the annotator's stays as it is.

    A lesion of the proposal that touches no pixel of the annotator's gets the next free number.
    """
    merged = mine.copy()
    free = iter(sorted(set(range(1, 256)) - set(np.unique(mine).tolist())))
    for number in np.unique(theirs[theirs > 0]):
        lesion = theirs == number
        if not mine[lesion].any() and (own := next(free, None)) is not None:
            merged[lesion] = own
    return merged


class Overwriting(QObject):
    """Puts proposals on frames, and asks first where that would replace a person's work.

    Parameters
    ----------
    session : Session
        Where the frames are.
    """

    changed = Signal()  # whether something is asked of the current frame
    taken = Signal(object)  # a Target whose mask is the proposal's by now

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self._waiting: dict[Key, tuple[Target, NDArray[np.uint8]]] = {}
        self._chosen: dict[Key, Choice] = {}
        session.target_changed.connect(self.changed)

    @property
    def asks(self) -> bool:
        """Whether the current frame's proposal waits for an answer."""
        target = self._session.target
        return target is not None and target.key in self._waiting

    def put(self, target: Target, proposal: NDArray[np.uint8]) -> None:
        """Put a proposal on a frame, or ask which mask is to go on; as answered before, where it was."""
        self._waiting.pop(target.key, None)
        if not self._replaces_work(target, proposal):
            self._take(target, proposal)
            return
        self._waiting[target.key] = target, proposal
        if target.key in self._chosen:
            self._settle(target.key, self._chosen[target.key])
        else:
            self.changed.emit()

    def answer(self, choice: Choice) -> None:
        """Settle the question that is asked of the current frame, and the next ones of it."""
        if self._session.target is not None and self.asks:
            key = self._session.target.key
            self._chosen[key] = choice
            self._settle(key, choice)
            self.changed.emit()

    def forget(self, target: Target) -> None:
        """Ask no more of a frame: it was accepted."""
        if self._waiting.pop(target.key, None) is not None:
            self.changed.emit()

    def _settle(self, key: Key, choice: Choice) -> None:
        session, (target, proposal) = self._session, self._waiting.pop(key)
        if choice == "mine" or not session.is_open(target):
            return
        if choice == "theirs":
            self._take(target, proposal)
            return
        try:
            mine = read_mask(session.viewer, target)
        except SonoloopError as error:
            show_problem(error)
            return
        merged = proposal if mine is None else merge_masks(mine, proposal)
        session.write(target, merged, by_hand=True)
        session.changed.emit()

    def _take(self, target: Target, proposal: NDArray[np.uint8]) -> None:
        session = self._session
        # its lesions are other ones, whatever their numbers
        session.write(target, proposal, lesions={})
        session.state(target).cleared = None
        self.taken.emit(target)

    def _replaces_work(self, target: Target, proposal: NDArray[np.uint8]) -> bool:
        """Whether a mask is on the canvas that a person drew or accepted, and that is another one."""
        try:
            mask = read_mask(self._session.viewer, target)
        except SonoloopError:
            return True
        if mask is None or not mask.any() or np.array_equal(mask, proposal):
            return False
        state = self._session.state(target)
        untouched = state.written is not None and np.array_equal(mask, state.written)
        accepted = state.revision is not None and np.array_equal(mask, state.revision.correction.mask)
        return accepted or not untouched
