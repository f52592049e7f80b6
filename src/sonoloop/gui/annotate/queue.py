"""The queue: frames gone through one after another, of which the viewer holds the current one alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from napari.utils.notifications import show_info, show_warning
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from sonoloop.errors import SonoloopError
from sonoloop.gui.annotate.carry_over import CarryOver
from sonoloop.gui.annotate.deciding import Deciding
from sonoloop.gui.annotate.journal_entry import same_mask
from sonoloop.gui.annotate.layers import (
    Source,
    Target,
    find_layer,
    owned_layers,
    read_mask,
    replace_frame,
    write_mask,
)
from sonoloop.gui.annotate.predicting import Predicting
from sonoloop.gui.annotate.queue_frames import (
    FrameReader,
    ReadyFrame,
    ReadyFrames,
    first_mask,
    is_withheld,
    prepare,
)
from sonoloop.gui.annotate.queue_list import Listed, QueueEntry, QueueList, Status, list_frames
from sonoloop.gui.annotate.queue_statuses import Statuses
from sonoloop.gui.annotate.queue_work import (
    PackedMask,
    is_begun,
    mask_of,
    pack,
    state_bytes,
    unpack,
)
from sonoloop.gui.annotate.session import Session
from sonoloop.gui.widgets import show_notice, show_problem, single_shot
from sonoloop.gui.words import shorten
from sonoloop.gui.workers import JobQueue, Projects, ignore

if TYPE_CHECKING:
    from sonoloop.project import FrameStatus, Project
    from sonoloop.store.marks import MarkStatus

_AHEAD = 3
# by then the canvas is drawn, and the panel may follow
_DRAWN_MS = 10
_SETTLED_MS = 60
# of the frames gone through, which come back at once; then of those alone that hold work
_MOST_KEPT_BYTES = 256 << 20
# files that are tried one after another where none can be read
_MOST_TRIED = 20
NO_QUEUE = "Open a folder first: File > Open Folder, or drop it here"
ALL_DONE = "Nothing is left to do under this filter"


class Queue(QObject):
    """Owns the list of frames and shows one of them in the viewer, in layers that are used again.

    What was drawn or chosen on a frame that was left is kept, and comes back with it.

    Parameters
    ----------
    session : Session
        Follows the viewer.
    deciding, predicting, carry_over : Deciding, Predicting, CarryOver
        The parts of the panel that take up what was found out of a frame in advance.
    projects : Projects
        What the workers ask.
    """

    listed = Signal()  # there are other frames in the list, or in another order
    changed = Signal()  # another frame, or other statuses

    def __init__(
        self,
        session: Session,
        *,
        deciding: Deciding,
        predicting: Predicting,
        carry_over: CarryOver,
        projects: Projects,
    ) -> None:
        super().__init__(session)
        self._session = session
        self._deciding = deciding
        self._predicting = predicting
        self._carry_over = carry_over
        self._projects = projects
        self.list = QueueList(())
        self._drafts: set[str] = set()  # ids of the frames that have one on this machine
        self.shown: QueueEntry | None = None  # on the canvas; the list is ahead of it while a file is read
        self.predicts = True  # the frames that are come to, and those that come next
        self._image: Image | None = None
        self._entries: dict[str, QueueEntry] = {}
        self._masks: dict[str, NDArray[np.uint8] | PackedMask] = {}  # work on frames that were left
        self._removed: NDArray[np.uint8] | None = None  # from the viewer, by hand
        self._reader = FrameReader()
        self._ready = ReadyFrames()
        self._last: ReadyFrame | None = None  # what is on the canvas, as it was read
        self._unready: set[str] = set()
        self._told: set[str] = set()
        self._opening = JobQueue(latest_only=True, parent=self)
        self._reading = JobQueue(latest_only=True, parent=self)
        self._marking = JobQueue(parent=self)
        self._ahead = JobQueue(parent=self)
        self._preparing: str | None = None
        self._mend = single_shot(self, 0, self._on_removed_by_hand)
        self._arrived = single_shot(self, _DRAWN_MS, self._on_arrived)
        self._begin_next = single_shot(self, _SETTLED_MS, self._on_settled_down)
        self._left: QueueEntry | None = None
        self._answer: tuple[Target, bool] | None = None  # what the store said of the frame that arrives
        self.statuses = Statuses(session, projects=projects, note_ids=self._note_ids)
        self.statuses.changed.connect(self._on_statuses)
        self.statuses.finished.connect(self._on_looked)
        session.viewer.layers.events.removed.connect(self._on_removed)
        deciding.submitted.connect(self._on_submitted)
        deciding.accepted.connect(self._on_accepted)
        deciding.refused.connect(self._on_refused)
        deciding.settled.connect(self._on_settled)

    @property
    def is_open(self) -> bool:
        """Whether there is a queue."""
        return bool(len(self.list))

    @property
    def is_current(self) -> bool:
        """Whether the annotator is on the queue's frame, and not on an image of their own."""
        target = self._session.target
        return target is not None and self.shown is not None and target.source == self.shown.key

    @property
    def busy(self) -> bool:
        """Whether a list, or a frame that was gone to, is still being read."""
        return self._opening.busy or self._reading.busy

    @property
    def next_is_ready(self) -> bool:
        """Whether the frame that comes next is read already."""
        entry = self.list.next()
        return entry is not None and entry.key in self._ready

    def open(self, paths: Sequence[Path], *, at: Path | None = None) -> None:
        """Make a queue of folders, tables and images, in a worker, and go to the first frame, or `at` one."""
        self._opening.submit(partial(list_frames, paths), done=partial(self.take, at=at), failed=show_problem)

    def take_over(self) -> None:
        """Go through the folder of which an image was opened before the panel was."""
        viewer = self._session.viewer
        for layer in viewer.layers:
            folder = layer.metadata.get("sonoloop", {}).get("folder")
            if folder is not None and not self.is_open and not owned_layers(viewer, layer):
                files = layer.metadata["sonoloop"]["files"]
                self._image = layer  # it is used again for the queue's frames
                self.open([folder], at=files[0][0])
                return

    def take(self, listed: Listed, *, at: Path | None = None) -> None:
        """Go through other frames from now on."""
        if listed.problems:
            rest = len(listed.problems) - 1
            more = f" (and {rest} more)" if rest else ""
            show_notice(f"left out: {listed.problems[0]}{more}")
        self._reading.drop()
        self._ready.keep_only(())
        order = self.list.order
        self._leave()
        entries = list(listed.entries)
        for entry in entries:
            entry.is_draft = entry.key in self._masks  # it was in another queue too
        self.list = QueueList(entries, seed=self.list.seed)
        self.list.order_by(order)
        self._entries = {entry.key: entry for entry in entries}
        self._deciding.patients = {
            entry.key: patient for entry in entries if (patient := entry.patient or entry.group) is not None
        }
        self.listed.emit()
        first = next((each for each in self.list if each.path == at), None) or next(iter(self.list), None)
        if first is not None:
            self.go_to(first)
        self.statuses.begin(self.list)

    def next(self) -> None:
        """Go to the next frame that is to do."""
        if not self.is_open:
            show_warning(NO_QUEUE)
            return
        entry = self.list.next()
        if entry is None:
            show_info(ALL_DONE)
        else:
            self.go_to(entry)

    def back(self) -> None:
        """Go to the frame that was visited before this one."""
        if not self.is_open:
            show_warning(NO_QUEUE)
            return
        entry = self.list.back()
        if entry is None:
            show_info("This is the first frame that you came to")
        else:
            self.go_to(entry)

    def go_to(self, entry: QueueEntry) -> None:
        """Show a frame; the one that is shown stays until it is read."""
        self.list.go_to(entry)
        ready = self._ready.take(entry.key)
        if ready is not None:
            self._reading.drop()
            self._show(entry, ready)
            return
        if entry is self.shown and self._has_image():
            self._reading.drop()
            self._bring_forward()
            return
        self._reading.submit(
            partial(self._reader.read, entry.path, entry.index),
            done=partial(self._show, entry),
            failed=partial(self._on_unread, entry),
        )
        self.changed.emit()

    def mark(self, status: MarkStatus, reason: str) -> None:
        """Flag, skip or exclude the current frame, and go on; "open" takes that back, and stays."""
        entry, target = self.shown, self._session.target
        if entry is None or target is None or not self.is_current:
            show_warning(NO_QUEUE)
            return
        before = entry.stored, entry.reason
        entry.stored, entry.reason = "to do" if status == "open" else status, reason
        preferences = self._session.preferences()
        self._marking.submit(
            partial(
                self._projects.ask,
                preferences.store,
                partial(_mark, target.capture(), status, reason),
                annotator=preferences.annotator,
            ),
            done=ignore,
            failed=partial(self._on_not_marked, entry, before),
        )
        self.changed.emit()
        if status != "open":
            self.next()

    def note_drafts(self, frames: Collection[str]) -> None:
        """Take note of which frames have a draft on this machine, of an earlier napari maybe."""
        self._drafts = set(frames)
        self._note_earlier_work(self.list)
        self.changed.emit()

    def note_draft(self, frame_id: str, has_one: bool) -> None:
        """Take note that a frame has a draft by now, or none."""
        (self._drafts.add if has_one else self._drafts.discard)(frame_id)

    def _note_earlier_work(self, entries: Iterable[QueueEntry]) -> None:
        for entry in entries:
            # of a frame that was come to, its state says what was done on it
            if entry.frame_id in self._drafts and entry.key not in self._session.elsewhere:
                entry.is_draft = True

    def close(self) -> None:
        """Stop listening; what is being stored is still stored."""
        self._session.viewer.layers.events.removed.disconnect(self._on_removed)
        for jobs in (self._opening, self._reading, self._ahead):
            jobs.drop()
        self._marking.mute()
        self._mend.stop()
        self._arrived.stop()
        self._begin_next.stop()
        self.statuses.close()

    # showing

    def _show(self, entry: QueueEntry, ready: ReadyFrame) -> None:
        session, key = self._session, entry.key
        if session.arriving:
            self._on_arrived()  # of the frame that is only passed
        left, last = self.shown, self._last
        self._leave()
        if left is not None and last is not None and left is not entry:
            # to go back to at once; what is known of it is in its state by now
            plain = replace(last, identity=None, status=None, prediction=None, problem=None)
            self._ready.put(left.key, plain)
        self._last = ready
        if entry.frame_id not in (None, ready.frame.id):
            self._forget_changed(entry)
        kept = self._masks.pop(key, None)
        is_fresh = kept is None and key not in session.elsewhere
        state = session.known_states().get((key, ()))
        status = ready.status if is_fresh and ready.identity == session.preferences().identity else None
        begun = first_mask(ready, status)
        mask: NDArray[np.uint8] | None
        if kept is not None:
            mask = unpack(kept)
        elif is_fresh or state is None:
            mask = begun
        else:
            mask = mask_of(state)
        session.arriving = True
        self._arrived.start()  # what can wait until the canvas is drawn
        with session.replacing():
            self._put(key, ready, np.zeros(ready.frame.shape, np.uint8) if mask is None else mask.copy())
            self.shown = entry
            session.elsewhere.add(key)
        assert self._image is not None
        self._carry_over.follow_frame(self._image)
        target = session.target
        if is_fresh and target is not None and target.source == key:
            session.state(target).written = mask
            self._take_up(target, ready, status, mask)
        for note in ready.notes:
            show_notice(note)
        self._note_ids(entry, ready.ids)
        self._left = left

    def _forget_changed(self, entry: QueueEntry) -> None:
        """Take a file that was written anew for another frame."""
        self._session.forget(entry.key)
        if self._masks.pop(entry.key, None) is not None or entry.is_draft:
            show_warning(f"{shorten(entry.name)} was written anew: what you drew was on the image before")
        entry.frame_id, entry.stored, entry.is_draft = None, "to do", False
        entry.reason, entry.decided, entry.draw_first = "", None, None

    def _on_arrived(self) -> None:
        """Show the rest of a frame that arrived, and begin with what comes next."""
        self._arrived.stop()
        self._session.arriving = False
        answer, self._answer = self._answer, None
        if answer is not None:
            self._deciding.looked_up.emit(*answer)
        self._forget_old()
        self.changed.emit()
        self._session.changed.emit()
        self._begin_next.start()

    def _on_settled_down(self) -> None:
        """Begin with what takes the processor: the frame is there to be looked at."""
        if self.is_current:
            self._predicting.draw_map()
        self._unready.clear()
        self._read_ahead(self._left)

    def _put(self, key: str, ready: ReadyFrame, mask: NDArray[np.uint8]) -> None:
        viewer = self._session.viewer
        about = {**ready.options["metadata"]["sonoloop"], "entry": key}
        options = {**ready.options, "metadata": {"sonoloop": about}}
        if self._has_image() and self._image is not None and self._image.rgb == options["rgb"]:
            replace_frame(viewer, self._image, ready.data, options, mask)
            image = self._image
            if find_layer(viewer, image, "lesions") is None:
                write_mask(viewer, Target(image), mask)
        else:
            # the new one first: napari would fit an image that comes alone
            before, image = self._image, Image(ready.data, **options)
            viewer.layers.append(image)
            write_mask(viewer, Target(image), mask)
            self._remove(before)
            self._image = image
        self._bring_forward()

    def _bring_forward(self) -> None:
        """Make the queue's frame the current one."""
        viewer = self._session.viewer
        assert self._image is not None
        lesions = find_layer(viewer, self._image, "lesions")
        chosen = self._image if lesions is None else lesions
        if viewer.layers.selection.active != chosen:
            viewer.layers.selection.active = chosen

    def _take_up(
        self,
        target: Target,
        ready: ReadyFrame,
        status: FrameStatus | None,
        mask: NDArray[np.uint8] | None,
    ) -> None:
        if status is None:
            return  # the store is asked once the frame is shown
        identity = self._session.preferences().identity
        self._deciding.take_up(target, identity, status, mask=mask)
        if ready.prediction is not None and ready.in_use is not None:
            laid = mask is ready.prediction.mask
            self._predicting.take_up(target, ready.prediction, ready.in_use, laid=laid)
        elif ready.problem is not None and str(ready.problem) not in self._told:
            self._told.add(str(ready.problem))
            show_problem(ready.problem)
        shown = status.newest is not None and not is_withheld(status)
        self._answer = target, shown or ready.problem is not None

    def _has_image(self) -> bool:
        return self._image is not None and self._image in self._session.viewer.layers

    def _remove(self, image: Image | None) -> None:
        viewer = self._session.viewer
        if image is not None and image in viewer.layers:
            for layer in [*owned_layers(viewer, image), image]:
                viewer.layers.remove(layer)

    # leaving

    def _mask(self) -> NDArray[np.uint8] | None:
        assert self._image is not None
        try:
            return read_mask(self._session.viewer, Target(self._image))
        except SonoloopError:
            return None  # labels that no mask holds: said at Accept

    def _leave(self) -> None:
        entry, self.shown = self.shown, None
        if entry is None:
            return
        mask = self._mask() if self._has_image() else self._removed
        self._removed = None
        state = self._session.known_states().get((entry.key, ()))
        self._note_work(entry, mask)
        if state is not None:
            differs = entry.is_draft or state.saving or not same_mask(mask, mask_of(state))
            if mask is not None and differs:
                self._masks[entry.key] = mask

    def _note_work(self, entry: QueueEntry, mask: NDArray[np.uint8] | None) -> None:
        state = self._session.known_states().get((entry.key, ()))
        if state is not None and not state.saving:
            entry.is_draft = is_begun(state, mask, self._session.preferences().annotator)

    def _forget_old(self) -> None:
        """Let go of what is kept of frames that were left long ago, and can be found again."""
        session, states = self._session, self._session.known_states()
        sizes = {key[0]: state_bytes(state) for key, state in states.items() if key[0] in session.elsewhere}
        sizes |= {key: sizes.get(key, 0) + mask.nbytes for key, mask in self._masks.items()}
        total = sum(sizes.values())
        for key in sizes:
            if total <= _MOST_KEPT_BYTES:
                return
            if self.shown is not None and key == self.shown.key:
                continue
            state = states.get((key, ()))
            if state is not None and state.saving:
                continue
            if (mask := self._masks.get(key)) is None:
                session.forget(key)
                total -= sizes[key]
            else:
                self._masks[key] = pack(mask)
                if state is not None:
                    state.prediction = state.held = state.kept = state.held_uncertainty = None
                total -= sizes[key] - self._masks[key].nbytes

    # by hand

    def _on_removed(self, event: Any) -> None:  # noqa: ANN401 - napari's event
        """Keep what a layer held that was deleted under the panel."""
        layer, image = event.value, self._image
        if self._session.arriving or image is None or self.shown is None:
            return
        about = layer.metadata.get("sonoloop", {})
        if layer == image or (about.get("kind") == "lesions" and about.get("image") == str(image.unique_id)):
            if layer == image:
                self._removed = self._mask() if self._removed is None else self._removed
            else:
                self._removed = np.asarray(layer.data).astype(np.uint8)
            self._mend.start()

    def _on_removed_by_hand(self) -> None:
        entry, mask, image = self.shown, self._removed, self._image
        if entry is None or image is None:
            return
        viewer = self._session.viewer
        if image in viewer.layers:
            self._removed = None
            target = Target(image)
            if mask is not None and mask.any() and find_layer(viewer, image, "lesions") is None:
                write_mask(viewer, target, mask)
                self._bring_forward()
                show_info("The lesions layer is back: it holds the mask; key 8 clears it")
            return
        self._leave()
        for layer in owned_layers(viewer, image):
            viewer.layers.remove(layer)
        self._image = None
        show_info(f"{shorten(entry.name)} was removed from the viewer; the queue still has it")
        self.changed.emit()

    # the store

    def _on_submitted(self, target: Target) -> None:
        entry = self._entries.get(target.source)
        if entry is None or entry is not self.shown:
            return
        entry.is_draft = False
        entry.stored = "accepted"
        entry.decided = self._session.state(target).label
        if self.list.current is entry:
            self.next()

    def _on_accepted(self, target: Target) -> None:
        entry = self._entries.get(target.source)
        if entry is None:
            return
        state = self._session.state(target)
        entry.stored, entry.reason, entry.decided = "accepted", "", state.label
        mask = self._masks.get(entry.key)
        stored = None if state.revision is None else state.revision.correction.mask
        if mask is not None and same_mask(unpack(mask), stored):
            self._masks.pop(entry.key)
        self.changed.emit()

    def _on_refused(self, target: Target | None) -> None:
        entry = None if target is None else self._entries.get(target.source)
        if entry is not None:
            entry.stored, entry.is_draft = "to do", True
            self.changed.emit()

    def _on_settled(self, target: Target) -> None:
        """Go on with the version that is stored; the annotator's own is stored beside it."""
        entry = self._entries.get(target.source)
        if entry is not None:
            self._masks.pop(entry.key, None)
            entry.is_draft = False
            self.changed.emit()

    def _on_not_marked(self, entry: QueueEntry, before: tuple[Status, str], error: Exception) -> None:
        entry.stored, entry.reason = before
        show_problem(error)
        self.changed.emit()

    def _on_statuses(self) -> None:
        self._note_earlier_work(self.list)
        self.changed.emit()

    def _on_looked(self) -> None:
        self.list.sort()
        self.listed.emit()

    def _note_ids(self, entry: QueueEntry, ids: tuple[str, ...]) -> None:
        before = len(self.list)
        self.list.expand(entry, ids)
        if len(self.list) != before:
            self._entries = {each.key: each for each in self.list}
            patient = entry.patient or entry.group
            if patient is not None:
                self._deciding.patients |= dict.fromkeys(
                    (each.key for each in self.list if each.path == entry.path), patient
                )
            self.listed.emit()

    def _on_unread(self, entry: QueueEntry, error: Exception) -> None:
        entry.problem = str(error)
        show_problem(error)
        if self.list.current is entry:
            self.list.undo_visit()
        self.changed.emit()
        if self.shown is None and sum(bool(each.problem) for each in self.list) < _MOST_TRIED:
            self.next()

    # ahead

    def _read_ahead(self, left: QueueEntry | None = None) -> None:
        """Prepare the next frames, one at a time; those that will not come next are forgotten."""
        wanted = {entry.key: entry for entry in self.list.ahead(_AHEAD)}
        if left is not None:
            self._ready.keep_only({*wanted, left.key})
        if self._preparing is not None:
            return  # its answer asks for the next one
        missing = (key for key in wanted if key not in self._ready and key not in self._unready)
        entry = wanted.get(next(missing, ""))
        if entry is None:
            return
        preferences = self._session.preferences()
        self._preparing = entry.key
        read = partial(self._reader.read, entry.path, entry.index)
        # of a frame that was visited everything else is known
        body: Callable[[], ReadyFrame] = (
            read
            if entry.key in self._session.elsewhere
            else partial(
                self._projects.ask,
                preferences.store,
                partial(
                    prepare,
                    read,
                    entry.patient or entry.group,
                    self._predicting.question() if self.predicts else None,
                    preferences.identity,
                ),
                annotator=preferences.annotator,
            )
        )
        self._ahead.submit(
            body, done=partial(self._on_ready, entry), failed=partial(self._on_not_ready, entry)
        )

    def _on_ready(self, entry: QueueEntry, ready: ReadyFrame) -> None:
        self._preparing = None
        if entry not in self.list.ahead(_AHEAD):
            self._read_ahead()  # the annotator went elsewhere meanwhile
        elif self._ready.put(entry.key, ready):
            self._note_ids(entry, ready.ids)
            self._read_ahead()

    def _on_not_ready(self, entry: QueueEntry, _error: Exception) -> None:
        # told when it is gone to
        self._preparing = None
        self._unready.add(entry.key)
        self._read_ahead()


def _mark(source: Source, status: MarkStatus, reason: str, project: Project) -> None:
    project.mark(source.frame(), status, reason)
