"""What panels are told of their store: that something in it changed, whoever did it, or that it is broken."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QApplication, QWidget

from sonoloop.errors import SonoloopError, StoreError
from sonoloop.gui.preferences import Preferences
from sonoloop.gui.workers import JobQueue, Projects

if TYPE_CHECKING:
    from sonoloop.project import Project

_POLL_MS = 2_000
_DOUBT_MS = 5_000  # a look at all of a file takes longer
_FOLLOW_MS = 1_000  # a name is followed once it is typed to the end, of which nobody tells

_log = logging.getLogger(__name__)


class _SharedLook(QObject):
    """Looks at one store for all panels on it, in a worker."""

    told = Signal(bool)  # whether it can be used for the first time, or again

    def __init__(self, store: str | None) -> None:
        super().__init__()
        self._store = store
        # what the panels' workers ask; the first one is asked
        self.users: list[Projects] = []
        self.trouble: str | None = None
        self.pulse: Hashable = None
        # something failed that no quick look explains: it is looked at all of it until nothing is wrong
        self._doubts = False
        self._jobs = JobQueue(latest_only=True, parent=self)
        self._timer = QTimer(self)
        self._timer.setInterval(_POLL_MS)
        self._timer.timeout.connect(self._poll)
        self._timer.start()

    def look(self, *, doubts: bool = False, anew: bool = False) -> None:
        """Look now; the answer to an earlier look is dropped. `anew`: open what lies there, if need be."""
        self._doubts = thorough = doubts or self._doubts
        self._timer.setInterval(_DOUBT_MS if thorough else _POLL_MS)
        if self.users:
            body = partial(_look, self.users[0], self._store, thorough=thorough, anew=anew)
            self._jobs.submit(body, done=self._on_pulse, failed=self._on_trouble)

    def close(self) -> None:
        """Look no more."""
        self._timer.stop()
        self._jobs.mute()
        self.deleteLater()

    def _poll(self) -> None:
        if not self._jobs.busy:  # a server that is down is waited for
            self.look()

    def _on_pulse(self, pulse: Hashable) -> None:
        again = self.trouble is not None or self.pulse is None
        self._doubts = False
        self._timer.setInterval(_POLL_MS)
        before, self.pulse, self.trouble = self.pulse, pulse, None
        if again or pulse != before:
            self.told.emit(again)

    def _on_trouble(self, error: Exception) -> None:
        if not isinstance(error, SonoloopError):
            _log.error("the store could not be looked at", exc_info=error)
        self.trouble = str(error) or type(error).__name__
        self.told.emit(False)


def _look(projects: Projects, store: str | None, *, thorough: bool, anew: bool) -> Hashable:
    """Take the pulse of a store, in the worker."""
    from sonoloop.store.sqlite_file import GoneError  # noqa: PLC0415 - the store loads slowly

    def ask(project: Project) -> Hashable:
        return project.pulse(thorough=thorough)

    try:
        return projects.ask(store, ask)
    except GoneError:
        raise  # opened anew, it would be an empty one
    except StoreError:
        if not anew:
            raise
        projects.forget(store)
        return projects.ask(store, ask)


_looks: dict[str | None, _SharedLook] = {}


class StoreWatch(QObject):
    """Tells one panel of the store that its preferences name.

    All panels on a store share one look at it, so that what is done in one of them, or by another program,
    is seen in all within seconds; `look` is for at once.

    Parameters
    ----------
    projects : Projects
        What the panel's workers ask.
    preferences : callable
        Gives the user's preferences as they are now.
    parent : QWidget
        The panel.
    """

    changed = Signal()  # to be read again; at first, and after trouble, once it can be used
    opened = Signal()  # the same, before it: it can be used for the first time, or again
    trouble_changed = Signal()
    moved = Signal()  # the preferences name another store by now

    def __init__(
        self, projects: Projects, preferences: Callable[[], Preferences], *, parent: QWidget
    ) -> None:
        super().__init__(parent)
        self._projects = projects
        self._preferences = preferences
        self._panel = parent
        self.store = preferences().store
        self.trouble: str | None = None
        self._shared: _SharedLook | None = None
        self.timer = QTimer(self)
        self.timer.setInterval(_FOLLOW_MS)
        self.timer.timeout.connect(self._follow)
        self.timer.start()
        # the panel may be given another store before it is shown
        self._begin = QTimer(self)
        self._begin.setSingleShot(True)
        self._begin.timeout.connect(self._join)
        self._begin.start()

    def look(self) -> None:
        """Look at the store now: something was done, or may work again."""
        if self._shared is not None:
            self._shared.look()

    def try_again(self) -> None:
        """Look now, and open what lies there by now."""
        if self._shared is not None:
            self._shared.look(anew=True)

    def doubt(self) -> None:
        """Look at all of the store now: something failed that should not have."""
        if self._shared is not None:
            self._shared.look(doubts=True)

    def follow(self) -> bool:
        """Go over to the store that the preferences name by now; tell whether it is another one."""
        store = self._preferences().store
        if store == self.store:
            return False
        self._leave()
        self.store = store
        self._set_trouble(None)
        self.moved.emit()
        self._join()
        return True

    def close(self) -> None:
        """Tell nothing any more."""
        self.timer.stop()
        self._begin.stop()
        self._leave()

    def _follow(self) -> None:
        # a name that is still being typed would make a store of every beginning of it
        if QApplication.activeWindow() in (None, self._panel.window()):
            self.follow()

    def _join(self) -> None:
        self.store = self._preferences().store
        if self.store not in _looks:
            _looks[self.store] = _SharedLook(self.store)
        shared = self._shared = _looks[self.store]
        shared.users.append(self._projects)
        shared.told.connect(self._on_told)
        if shared.trouble is None and shared.pulse is not None:
            self._on_told(True)
        else:
            self._set_trouble(shared.trouble)
            shared.look()

    def _leave(self) -> None:
        shared, self._shared = self._shared, None
        if shared is None:
            return
        shared.told.disconnect(self._on_told)
        shared.users.remove(self._projects)
        if shared.users:
            shared.look()  # in the place of a look that asks what is being closed
        else:
            _looks.pop(self.store).close()

    def _on_told(self, again: bool) -> None:
        if self._shared is None:
            return
        if self._shared.trouble is not None:
            self._set_trouble(self._shared.trouble)
            return
        if self.trouble is not None:
            # what lies there may be another one, as after a backup was restored
            self._projects.forget(self.store)
        self._set_trouble(None)
        if again:
            self.opened.emit()
        self.changed.emit()

    def _set_trouble(self, trouble: str | None) -> None:
        # told even if it is the same: whoever tries again sees an answer
        same, self.trouble = trouble is None and self.trouble is None, trouble
        if not same:
            self.trouble_changed.emit()
