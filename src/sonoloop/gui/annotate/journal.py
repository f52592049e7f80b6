"""The journal: what is drawn and chosen and not accepted is on disk within two seconds, and comes back.

The layers are read in the GUI thread, a copy of one plane at a time; hashing, comparing and writing are done
in a thread of the journal's own, which no prediction keeps waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.utils.notifications import show_warning
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QApplication

from sonoloop.drafts import Draft, DraftFolder, DraftHead, draft_folder
from sonoloop.errors import SonoloopError
from sonoloop.gui.annotate.effort import EffortCounter
from sonoloop.gui.annotate.journal_entry import (
    Content,
    DraftFile,
    Entry,
    draft_of,
    drop_stored,
    keep,
    read_draft,
    set_aside,
    stored_content,
)
from sonoloop.gui.annotate.layers import (
    FrameState,
    Key,
    Target,
    is_lesions,
    is_source,
    owner_id,
    read_mask,
)
from sonoloop.gui.annotate.session import Session
from sonoloop.gui.preferences import Identity
from sonoloop.gui.widgets import show_notice, show_problem, single_shot
from sonoloop.gui.words import fit_toast, shorten
from sonoloop.gui.workers import JobQueue

# a stroke that lasts is kept meanwhile, so this is no pause to wait for
_EVERY_MS = 400
_RETRY_MS = 5000
# at the end; Python waits for what is being written after that
_PATIENCE_MS = 5000
_LEFT = "was left for another"


@dataclass(slots=True, eq=False)
class _Frame:
    """A frame in the journal.

    Parameters
    ----------
    identity : Identity
        For whom, and on which store, its draft was looked for.
    state : FrameState
        The session's: where it begins a new one, the image has other pixels, or was forgotten.
    file : DraftFile
        Its file, of that identity.
    asked, read : bool
        Whether the file was asked for, and whether the answer is there.
    waiting : Draft, optional
        What was found, until it is on the canvas or decided on.
    why : str, optional
        Why a draft that waits is asked about.
    aside : bool
        Whether the file of the draft that waits had to make room for another.
    basis : datetime, optional
        When the file was written that the canvas goes on from.
    restored : datetime, optional
        When what came back on the canvas had been drawn, until it is accepted or discarded.
    before : Content, optional
        What was on the canvas then, for Discard.
    unkept : bool
        Whether it was told that what is drawn cannot be kept.
    told : tuple
        The label and lesions of the last capture.
    """

    identity: Identity
    state: FrameState
    file: DraftFile = field(default_factory=DraftFile)
    asked: bool = False
    read: bool = False
    waiting: Draft | None = None
    why: str | None = None
    aside: bool = False
    basis: datetime | None = None
    restored: datetime | None = None
    before: Content | None = None
    unkept: bool = False
    told: tuple[Any, ...] = (None, {})


class Journal(QObject):
    """Keeps what is not accepted yet on this machine, and puts it back on the canvas.

    Parameters
    ----------
    session : Session
        Where the frames are.
    effort : EffortCounter, optional
        Counts what they take.
    """

    changed = Signal()  # what is to be said of the current frame's draft
    kept = Signal(str, bool)  # a frame's id, and whether it has a draft by now
    listed = Signal(object)  # ids of all frames that have one

    def __init__(self, session: Session, *, effort: EffortCounter | None = None) -> None:
        super().__init__(session)
        self._session = session
        self._jobs = JobQueue(prompt=True, parent=self)
        # of thousands it takes a while, in which strokes are to be written
        self._listing = JobQueue(latest_only=True, parent=self)
        self._effort = effort
        self._frames: dict[Key, _Frame] = {}
        self._dirty: dict[Key, Target] = {}
        self._failing = False
        self._closed = False
        self._timer = single_shot(self, _EVERY_MS, self.capture)
        self._retry = single_shot(self, _RETRY_MS, self.capture)
        session.target_changed.connect(self._on_target)
        session.leaving.connect(lambda _target: self.capture())
        session.drawn.connect(self._on_drawn)
        session.undone.connect(self._on_undone)
        session.changed.connect(self._on_changed)
        session.viewer.layers.events.removing.connect(self._on_removing)
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.flush)
        self._heads: dict[tuple[Path, int], list[DraftHead]] = {}
        self._listed_for: Identity | None = None
        self._on_target()

    # what the panel shows

    @property
    def restored(self) -> datetime | None:
        """When the work was drawn that came back on the current frame."""
        frame = self._current()
        return None if frame is None else frame.restored

    @property
    def question(self) -> str | None:
        """What is to be decided of the current frame's draft."""
        frame = self._current()
        return None if frame is None or frame.waiting is None else frame.why

    def discard(self) -> None:
        """Take what came back off the current frame, undoably."""
        target, frame = self._session.target, self._current()
        if target is None or frame is None or frame.restored is None:
            return
        before, frame.restored, frame.before = frame.before, None, None
        if before is not None:
            self._show(target, before)
        self.changed.emit()

    def take(self) -> None:
        """Go on with the draft that was asked about; what is on the canvas is one undo away."""
        target, frame = self._session.target, self._current()
        if target is None or frame is None or frame.waiting is None:
            return
        draft, frame.waiting, frame.why = frame.waiting, None, None
        if frame.aside:  # what is on the canvas is in the file by now
            self._submit(partial(set_aside, self._folder(frame.identity), frame.file, _LEFT), frame)
        self._restore(target, frame, draft)

    def leave(self) -> None:
        """Go on with what is on the canvas; the draft that was asked about is kept aside."""
        target, frame = self._session.target, self._current()
        if target is None or frame is None or frame.waiting is None:
            return
        frame.waiting = frame.why = None
        if not frame.aside:
            self._submit(partial(set_aside, self._folder(frame.identity), frame.file, _LEFT), frame)
        self._mark(target)
        self.changed.emit()

    # what happens to the frames

    def look_for_drafts(self) -> None:
        """List the drafts of whoever works now, on the store that they work on now."""
        identity = self._session.preferences().identity
        if identity != self._listed_for:
            self._listed_for = identity
            self._listing.submit(self._folder(identity).heads, done=self._on_listed, failed=show_problem)

    def look_up_answered(self, target: Target) -> None:
        """Put a draft back, now that the store has said what it knows of the frame."""
        frame = self._frame_of(target)
        if frame.read:
            self._offer(target, frame)
        elif self._session.is_open(target):
            self._look_for_draft(target)  # of another annotator, or on another store, by now

    def accepted(self, target: Target) -> None:
        """Drop the draft of what the store has by now; what was drawn since stays."""
        state, frame = self._session.state(target), self._frames.get(target.key)
        if frame is None or state.revision is None:
            return
        frame.restored = frame.before = None
        stored = stored_content(state.revision, frame.identity[0])
        self._submit(
            partial(drop_stored, self._folder(frame.identity), frame.file, stored, frame.basis), frame
        )
        if self._is_there(target):
            self._mark(target)
            self.capture()
        self.changed.emit()

    def capture(self) -> None:
        """Take what changed of the canvas, and have it written."""
        self._timer.stop()
        self._retry.stop()
        dirty, self._dirty = self._dirty, {}
        for target in dirty.values():
            self._capture(target)

    def flush(self) -> None:
        """Have everything on the disk before this returns."""
        self.capture()
        self._jobs.wait(_PATIENCE_MS)

    def close(self) -> None:
        """Write what is pending, and listen no more."""
        if self._closed:
            return
        self._closed = True
        self.capture()
        self._session.viewer.layers.events.removing.disconnect(self._on_removing)
        self._listing.drop()
        self._jobs.mute()
        self._jobs.wait(_PATIENCE_MS)

    def _on_target(self) -> None:
        self.capture()
        target, known = self._session.target, self._session.known_states()
        self._frames = {key: frame for key, frame in self._frames.items() if key in known}
        self.look_for_drafts()
        if target is not None:
            self._look_for_draft(target)
        self.changed.emit()

    def _on_drawn(self) -> None:
        target = self._session.target
        if target is not None:
            self._mark(target)

    def _on_undone(self, _count: int) -> None:
        """Undo reaches frames of a stack that are not shown."""
        target = self._session.target
        if target is None:
            return
        for image, index in self._session.known_states():
            if image == target.source:
                self._mark(Target(target.image, index))

    def _on_changed(self) -> None:
        target = self._session.target
        if target is None or not self._is_there(target):
            return
        frame, state = self._frame_of(target), self._session.state(target)
        if frame.told != (state.label, state.lesions):
            self._mark(target)

    def _on_removing(self, event: Any) -> None:  # noqa: ANN401 - napari's event
        """Take what is on a layer before it goes, by hand or with the viewer."""
        layer = self._session.viewer.layers[event.index]
        owner = owner_id(layer)
        if not (is_lesions(layer) or is_source(layer)):
            return
        target = self._session.target
        if is_lesions(layer) and target is not None and str(target.image.unique_id) == owner:
            self._keep_removed(target)
        elif any(str(each.image.unique_id) == owner for each in self._dirty.values()):
            self.capture()

    def _keep_removed(self, target: Target) -> None:
        """Keep the mask of a layer that is removed under the panel, and ask what is to become of it."""
        frame = self._frame_of(target)
        entry = self._entry(target, frame)
        self._dirty.pop(target.key, None)
        if entry is None or entry.content.mask is None or not entry.content.mask.any():
            return
        self._submit(partial(keep, self._folder(frame.identity), frame.file, entry), frame, target)
        # a queue puts the layer back by itself
        if target.source not in self._session.elsewhere and entry.content.is_work(
            entry.written, entry.stored
        ):
            frame.restored = frame.before = None
            frame.why, frame.aside = "The layer with the lesions of this frame was removed.", False
            # its id is the worker's to find, and nobody asks this one for it
            frame.waiting = draft_of(entry, "0" * 64, "0" * 64)
            self.changed.emit()

    def _on_listed(self, heads: list[DraftHead]) -> None:
        self._heads = {}
        for head in heads:
            if head.path is not None:
                self._heads.setdefault((head.path, head.index), []).append(head)
        self.listed.emit(frozenset(head.frame_id for head in heads))
        target, frame = self._session.target, self._current()
        if target is not None and frame is not None and frame.read:
            self._tell_of_other_pixels(target, frame)

    def _tell_of_other_pixels(self, target: Target, frame: _Frame) -> None:
        """Name the drafts of what a file held before: they come back with the image as it was."""
        file = target.capture().file
        heads = [] if file is None else self._heads.pop((file[0], file[1]), [])
        for head in heads:
            if head.frame_id != frame.file.frame_id:
                kept = self._folder(frame.identity).folder / f"{head.frame_id}.png"
                show_notice(
                    f"{shorten(target.name)} has other pixels than when you drew on it, on "
                    f"{say_when(head.written)}: that draft is kept as {kept}"
                )

    def _look_for_draft(self, target: Target) -> None:
        frame = self._frame_of(target)
        if frame.asked:
            return
        frame.asked = True
        self._jobs.submit(
            partial(read_draft, self._folder(frame.identity), frame.file, target.capture()),
            done=partial(self._on_read, target, frame),
            failed=partial(self._on_unread, target, frame),
        )

    def _on_read(self, target: Target, frame: _Frame, draft: Draft | None) -> None:
        if self._frames.get(target.key) is not frame:
            return
        frame.read, frame.waiting = True, draft
        if draft is not None:
            self.kept.emit(draft.frame_id, True)
        elif self._session.is_open(target):
            self._tell_of_other_pixels(target, frame)
        if self._session.state(target).looked_up is not None:
            self._offer(target, frame)

    def _on_unread(self, target: Target, frame: _Frame, error: Exception) -> None:
        frame.read = True  # an image that cannot be read tells so elsewhere
        if not isinstance(error, SonoloopError):
            show_problem(error)

    def _offer(self, target: Target, frame: _Frame) -> None:
        """Put a draft on the canvas, or ask where something else is there."""
        draft, session = frame.waiting, self._session
        if draft is None or frame.why is not None or not session.is_open(target):
            return
        state, entry = session.state(target), self._entry(target, frame)
        kept, when = Content(draft.mask, draft.label, draft.lesions), say_when(draft.written)
        if entry is None:
            return
        if entry.stored is not None and not kept.is_work(None, entry.stored):
            frame.waiting = None
            job = partial(drop_stored, self._folder(frame.identity), frame.file, kept, draft.written)
            self._submit(job, frame)
        elif entry.content.is_work(entry.written, entry.stored) and not entry.content.begins(kept):
            frame.why = f"Your unfinished work of {when} is kept, and you have begun anew."
        elif state.parent is not None and draft.parent != state.parent:
            accepted = "" if state.revision is None else f" at {say_when(state.revision.created)}"
            frame.why = f"This frame was accepted{accepted}, and your unfinished work of {when} is kept."
        else:
            frame.waiting = None
            self._restore(target, frame, draft)
        self.changed.emit()

    def _restore(self, target: Target, frame: _Frame, draft: Draft) -> None:
        session = self._session
        state = session.state(target)
        frame.before = Content(_mask_of(session, target), state.label, dict(state.lesions))
        frame.restored = frame.basis = draft.written
        if draft.seen:
            session.shown.add(draft.frame_id)
            state.begun_from = draft.model
        if draft.effort is not None and self._effort is not None:
            self._effort.resume(target, draft.effort)
        self._show(target, Content(draft.mask, draft.label, draft.lesions))
        session.shown_now.emit(target, "draft")
        self.changed.emit()

    def _show(self, target: Target, content: Content) -> None:
        """Put work on the canvas, as one step of undo."""
        session = self._session
        state = session.state(target)
        with session.step(target):
            mask = content.drawn((target.grid[-2], target.grid[-1]))
            if content.mask is not None or _mask_of(session, target) is not None:
                session.write(target, mask, by_hand=True)
            state.label, state.lesions = content.label, dict(content.lesions)
            state.cleared = None
        session.changed.emit()

    def _capture(self, target: Target) -> None:
        frame = self._frame_of(target)
        entry = self._entry(target, frame)
        if entry is None:
            return
        frame.told = (entry.content.label, entry.content.lesions)
        if frame.waiting is not None:
            if not entry.content.is_work(entry.written, entry.stored):
                return  # the draft that is asked about stays, as long as nothing takes its place
            frame.aside = True
        self._submit(partial(keep, self._folder(frame.identity), frame.file, entry), frame, target)

    def _entry(self, target: Target, frame: _Frame) -> Entry | None:
        session = self._session
        if not (target.is_within and target.is_shown):
            return None
        state: FrameState = session.state(target)
        try:
            mask = read_mask(session.viewer, target)
        except SonoloopError as error:
            if not frame.unkept:
                frame.unkept = True
                show_problem(error)
            return None
        annotator = frame.identity[0]
        return Entry(
            source=target.capture(),
            shape=(target.grid[-2], target.grid[-1]),
            content=Content(mask, state.label, dict(state.lesions)),
            written=state.written,
            stored=None if state.revision is None else stored_content(state.revision, annotator),
            annotator=annotator,
            model=state.begun_from if state.prediction is None else state.prediction.model,
            seen=state.prediction is not None,
            shown=frozenset(session.shown),
            parent=state.parent,
            basis=frame.basis,
            effort=None if self._effort is None else self._effort.effort(target),
        )

    def _submit(self, body: Any, frame: _Frame, target: Target | None = None) -> None:  # noqa: ANN401
        self._jobs.submit(
            body, done=partial(self._on_kept, frame), failed=partial(self._on_failed, target, frame)
        )

    def _on_kept(self, frame: _Frame, has_draft: bool | None) -> None:
        self._failing = False
        if has_draft is not None and frame.file.frame_id is not None:
            self.kept.emit(frame.file.frame_id, has_draft)

    def _on_failed(self, target: Target | None, frame: _Frame, error: Exception) -> None:
        """Tell once what is wrong, and try again."""
        frame.file.digest = None
        if target is not None and self._is_there(target):
            self._dirty[target.key] = target
            self._retry.start()
        if not self._failing:
            self._failing = True
            show_problem(error)

    def _mark(self, target: Target) -> None:
        self._dirty[target.key] = target
        if not self._timer.isActive():
            self._timer.start()

    def _is_there(self, target: Target) -> bool:
        return self._session.is_open(target)

    def _current(self) -> _Frame | None:
        target = self._session.target
        return None if target is None else self._frames.get(target.key)

    def _frame_of(self, target: Target) -> _Frame:
        identity = self._session.preferences().identity
        frame, state = self._frames.get(target.key), self._session.state(target)
        if frame is None or frame.identity != identity or frame.state is not state:
            frame = self._frames[target.key] = _Frame(identity, state)
        return frame

    def _folder(self, identity: Identity) -> DraftFolder:
        annotator, store = identity
        # called in a worker, which is safe
        return DraftFolder(draft_folder(store, annotator), store=store, on_notice=_tell)


def _tell(text: str) -> None:
    show_warning(fit_toast(text[0].upper() + text[1:]))


def _mask_of(session: Session, target: Target) -> NDArray[np.uint8] | None:
    try:
        return read_mask(session.viewer, target)
    except SonoloopError:
        return None


def say_when(moment: datetime) -> str:
    """Today's time, else the date with it, by the user's clock."""
    local = moment.astimezone()
    today = local.date() == datetime.now().astimezone().date()
    return f"{local:%H:%M}" if today else f"{local:%Y-%m-%d %H:%M}"
