"""What the frames are called that a training names by their ids: only the annotator's machine knows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from qtpy.QtCore import QObject, Signal

from sonoloop.gui.messages import show_problem
from sonoloop.gui.workers import JobQueue

# as a training's own words abbreviate them
_SHORT = re.compile(r"\b[0-9a-f]{12}\b")


class FrameNames(QObject):
    """Looks names of frames up in a worker, each once.

    Parameters
    ----------
    find : callable
        Gives the names of frames in the store of a URL, as far as they are known; called in the worker.
    parent : QObject, optional
        The owner.
    """

    changed = Signal()

    def __init__(
        self, find: Callable[[str | None, Sequence[str]], Mapping[str, str]], parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._find = find
        self._names: dict[str, str] = {}
        self._asked: set[tuple[str | None, str]] = set()
        self._jobs = JobQueue(parent=self)

    def of(self, frame: str) -> str:
        """Name a frame; by the first digits of its id as long as no name is known."""
        return self._names.get(frame, frame[:8])

    def put_into(self, text: str) -> str:
        """Write names in the place of ids."""
        return _SHORT.sub(lambda found: self._names.get(found[0], found[0]), text)

    def ask(self, url: str | None, frames: Iterable[str], texts: Iterable[str]) -> None:
        """Look up frames, and those that texts speak of."""
        spoken_of = (short for text in texts for short in _SHORT.findall(text))
        new = [f for f in dict.fromkeys((*frames, *spoken_of)) if (url, f) not in self._asked]
        if new:
            self._asked.update((url, frame) for frame in new)
            self._jobs.submit(lambda: self._find(url, new), done=self._on_found, failed=show_problem)

    def close(self) -> None:
        """Tell nobody any more."""
        self._jobs.mute()

    def _on_found(self, names: Mapping[str, str]) -> None:
        self._names.update(names)
        if names:
            self.changed.emit()
