"""What a correction took: strokes, clicks, undos, and the time worked on it without the pauses."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from qtpy.QtCore import QObject

from sonoloop.gui.annotate.layers import FrameState, Key, Target
from sonoloop.gui.annotate.session import Session
from sonoloop.values import Effort, EffortMode

# a longer pause is taken off
PAUSE_SECONDS = 20.0


@dataclass(slots=True, eq=False)
class _Count:
    """The effort on one frame so far; `last` is when something was last done on it, while it is current.

    `earlier` is that of a draft that came back, whose time nobody kept.
    """

    begun: float
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    active: float = 0.0
    last: float | None = None
    strokes: int = 0
    clicks: int = 0
    undos: int = 0
    shown: list[tuple[str, float]] = field(default_factory=list)
    earlier: Effort = field(default_factory=Effort)
    resumed: bool = False

    def act(self, now: float) -> None:
        """Count the time since the last action, unless it was a pause."""
        if self.last is not None and now - self.last <= PAUSE_SECONDS:
            self.active += now - self.last
        self.last = now


class EffortCounter(QObject):
    """Counts what is done on each frame between its first sight and Accept.

    Parameters
    ----------
    session : Session
        Where the frames are.
    clock : callable
        Gives the seconds from some moment on.
    """

    def __init__(self, session: Session, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(session)
        self._session = session
        self._clock = clock
        self._counts: dict[Key, _Count] = {}
        self._current: Key | None = None
        viewer = session.viewer
        self._events = (
            viewer.cursor.events.position,
            viewer.scene.camera.events.center,
            viewer.scene.camera.events.zoom,
        )
        for event in self._events:
            event.connect(self._on_event)
        session.target_changed.connect(self._on_target)
        session.drawn.connect(self.act)
        session.stroked.connect(self._on_stroke)
        session.undone.connect(self._on_undone)
        session.shown_now.connect(self._on_shown)
        self._on_target()

    def act(self) -> None:
        """Take note that the annotator did something on the current frame."""
        count = self._count()
        if count is not None:
            count.act(self._clock())

    def click(self) -> None:
        """Count a prompt: a click, a box or a scribble."""
        count = self._count()
        if count is not None:
            count.clicks += 1
            count.act(self._clock())

    def effort(self, target: Target) -> Effort:
        """Tell what a frame took so far."""
        count = self._counts.get(target.key) or _Count(self._clock())
        if target.key == self._current:
            count.act(self._clock())
        state, earlier = self._session.state(target), count.earlier
        effort = Effort(
            started=count.started,
            active_seconds=count.active,
            strokes=earlier.strokes + count.strokes,
            clicks=earlier.clicks + count.clicks,
            undos=earlier.undos + count.undos,
            mode=_mode(state),
            shown=(*earlier.shown, *count.shown),
        )
        return effort.without_times() if count.resumed else effort

    def resume(self, target: Target, earlier: Effort) -> None:
        """Go on from what a draft took that came back; its time was not kept, so none is told."""
        count = self._counts.setdefault(target.key, _Count(self._clock()))
        count.earlier, count.resumed = earlier, True

    def restart(self, target: Target) -> None:
        """Begin anew: the frame was accepted."""
        self._counts.pop(target.key, None)
        if target.key == self._current:
            self._begin(target.key)

    def close(self) -> None:
        """Stop listening to the viewer."""
        for event in self._events:
            event.disconnect(self._on_event)

    def _count(self) -> _Count | None:
        return None if self._current is None else self._counts.get(self._current)

    def _begin(self, key: Key) -> None:
        now = self._clock()
        self._counts.setdefault(key, _Count(now)).last = now

    def _on_target(self) -> None:
        before, target = self._count(), self._session.target
        if before is not None:
            before.act(self._clock())
            before.last = None
        self._current = None if target is None else target.key
        known = self._session.known_states()
        self._counts = {key: count for key, count in self._counts.items() if key in known}
        if self._current is not None:
            self._begin(self._current)

    def _on_event(self, _event: object) -> None:
        self.act()

    def _on_stroke(self) -> None:
        count = self._count()
        if count is not None:
            count.strokes += 1
            count.act(self._clock())

    def _on_undone(self, steps: int) -> None:
        count = self._count()
        if count is not None:
            count.undos += max(steps, 0)
            count.act(self._clock())

    def _on_shown(self, target: Target, what: str) -> None:
        now = self._clock()
        count = self._counts.setdefault(target.key, _Count(now))
        count.shown.append((what, round(now - count.begun, 1)))


def _mode(state: FrameState) -> EffortMode:
    if state.draw_first:
        return "drawn first"
    return "scratch" if state.prediction is None and state.begun_from is None else "proposal"
