"""Which frames the files of a queue hold, and what the store knows of them: found out in the background."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from sonoloop.errors import ImageError
from sonoloop.gui.annotate.queue_list import QueueEntry, QueueList
from sonoloop.gui.annotate.session import Session
from sonoloop.gui.widgets import single_shot
from sonoloop.gui.workers import JobQueue, Projects, ignore

if TYPE_CHECKING:
    from sonoloop.project import Project
    from sonoloop.store.overview import FrameOverview

# how long files are looked at before their statuses are told
_CHUNK_SECONDS = 0.4
_REFRESH_MS = 3_000


class Statuses(QObject):
    """Fills in the ids and statuses of a queue's frames, some at a time.

    Parameters
    ----------
    session : Session
        Who works, on which store, and which corrections are on their way.
    projects : Projects
        What the worker asks.
    note_ids : callable
        Told the ids of the frames of an entry's file.
    """

    changed = Signal()  # statuses
    finished = Signal()  # all files were looked at

    def __init__(
        self,
        session: Session,
        *,
        projects: Projects,
        note_ids: Callable[[QueueEntry, tuple[str, ...]], None],
    ) -> None:
        super().__init__(session)
        self._session = session
        self._projects = projects
        self._note_ids = note_ids
        self._list = QueueList(())
        self._looking = JobQueue(latest_only=True, parent=self)
        self._refresh = single_shot(self, _REFRESH_MS, self.look_at_statuses)

    def begin(self, queue: QueueList) -> None:
        """Look at the files of a queue, in its order."""
        self._list = queue
        self.look_at_files()

    def look_at_files(self) -> None:
        """Find the ids of files that were not looked at yet, and their statuses, some at a time."""
        unknown = (entry for entry in self._list if entry.frame_id is None and not entry.problem)
        files = list(dict.fromkeys(entry.path for entry in unknown))
        if not files:
            self.look_at_statuses()
            return
        preferences = self._session.preferences()
        self._looking.submit(
            partial(
                self._projects.ask,
                preferences.store,
                partial(_look_at_files, files),
                annotator=preferences.annotator,
            ),
            done=self._on_files,
            failed=self._on_not_looked,
        )

    def look_at_statuses(self) -> None:
        """Ask the store again for the status of every frame that is known by its id."""
        if self._looking.busy or not len(self._list):
            return  # the files are still being looked at, and their statuses with them
        ids = [entry.frame_id for entry in self._list if entry.frame_id is not None]
        preferences = self._session.preferences()
        self._looking.submit(
            partial(
                self._projects.ask,
                preferences.store,
                lambda project: project.overview(ids),
                annotator=preferences.annotator,
            ),
            done=self._take,
            failed=ignore,  # the panel says what is wrong with the store
        )

    def refresh(self) -> None:
        """Ask the store again soon: something in it changed."""
        if len(self._list) and not self._refresh.isActive():
            self._refresh.start()

    def close(self) -> None:
        """Look no more."""
        self._looking.drop()
        self._refresh.stop()

    def _on_files(self, found: _LookedAt) -> None:
        first: dict[Path, QueueEntry] = {}
        for entry in self._list:
            if entry.frame_id is None:
                first.setdefault(entry.path, entry)
        for path, ids in found.ids.items():
            if path in first:
                self._note_ids(first[path], ids)
        for path, problem in found.problems.items():
            if path in first:
                first[path].problem = problem
        self._take(found.statuses)
        if found.rest:
            self.look_at_files()
        else:
            self.finished.emit()

    def _on_not_looked(self, _error: Exception) -> None:
        # the panel says what is wrong with the store, and it is looked at again once it can be used
        self.changed.emit()

    def _take(self, statuses: dict[str, FrameOverview]) -> None:
        for entry in self._list:
            status = statuses.get(entry.frame_id or "")
            state = self._session.known_states().get((entry.key, ()))
            if status is None or (state is not None and state.saving):
                continue
            entry.stored, entry.reason = status.status, status.reason
            entry.decided = status.label
            entry.draw_first = status.draw_first
            if status.expected_dice is not None:
                entry.expected_dice = status.expected_dice
        self.changed.emit()


@dataclass(frozen=True, slots=True)
class _LookedAt:
    """Some files: the ids of their frames, what is wrong with them, and what the store knows of them."""

    ids: dict[Path, tuple[str, ...]]
    problems: dict[Path, str]
    statuses: dict[str, FrameOverview]
    rest: bool


def _look_at_files(files: Sequence[Path], project: Project) -> _LookedAt:
    """Look at files for a while, in the worker; at one of them at least."""
    end = time.monotonic() + _CHUNK_SECONDS
    ids: dict[Path, tuple[str, ...]] = {}
    problems: dict[Path, str] = {}
    for file in files:
        try:
            ids[file] = project.frame_ids(file)
        except ImageError as error:
            problems[file] = str(error)
        if time.monotonic() > end:
            break
    statuses = project.overview(each for some in ids.values() for each in some)
    return _LookedAt(ids, problems, statuses, rest=len(ids) + len(problems) < len(files))
