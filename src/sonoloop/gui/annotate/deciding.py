"""Accept: what the annotator decided goes to the store, and comes back when the image is opened again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from napari.utils.notifications import show_warning
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QMessageBox, QWidget

from sonoloop.errors import ConflictError, SonoloopError, StoreError
from sonoloop.gui.annotate.effort import EffortCounter
from sonoloop.gui.annotate.journal_entry import Content, classes_of_drawn
from sonoloop.gui.annotate.layers import Key, Source, Target, read_mask
from sonoloop.gui.annotate.session import NO_IMAGE, Session, count_lesions
from sonoloop.gui.preferences import Identity
from sonoloop.gui.widgets import show_problem, single_shot
from sonoloop.gui.workers import JobQueue, Projects, ignore
from sonoloop.values import ClassName, Correction, Effort, Label, Prediction

if TYPE_CHECKING:
    from sonoloop.project import FrameStatus, Project
    from sonoloop.store.revisions import HeadMovedError, Revision


# a slider that is dragged passes many frames; only the one it stays on is looked up
_SETTLE_MS = 120


class Question(Enum):
    """What is asked before a decision is stored."""

    NORMAL_WITH_LESION = "normal with lesion"
    NO_LESION = "no lesion"


class Deciding(QObject):
    """Takes the annotator's class and mask to the store, and shows what is stored already.

    Parameters
    ----------
    session : Session
        Where the frames are.
    projects : Projects
        What the worker asks.
    effort : EffortCounter
        Counts what the frames take.
    """

    asked = Signal(object)  # a Question; None when it is settled
    conflicted = Signal(object, object)  # the Target and the HeadMovedError
    looked_up = Signal(object, bool)  # a Target, and whether a correction of it is stored
    accepted = Signal(object)  # a Target
    submitted = Signal(object)  # a Target, whose mask and class are on their way to the store
    refused = Signal(object)  # a Target, by the store, which may be broken; None where it was only asked
    settled = Signal(object)  # a Target, which goes on with the version of a conflict that is stored
    model_seen = Signal(object)  # the InUse that the store names by now

    def __init__(self, session: Session, *, projects: Projects, effort: EffortCounter) -> None:
        super().__init__(session)
        self._session = session
        self._effort = effort
        self._projects = projects
        self._jobs = JobQueue(parent=self)
        self._told: set[str] = set()
        self._unanswered: set[Key] = set()  # frames whose look-up failed
        # the patients of images, by the images' keys, where a table names them
        self.patients: dict[str, str] = {}
        self._settle = single_shot(self, _SETTLE_MS, self._look_up)
        session.target_changed.connect(self._on_target)

    def choose(self, label: Label) -> None:
        """Take the annotator's class; "normal" clears the mask, undoably, another class brings it back."""
        session = self._session
        if session.target is None:
            show_warning(NO_IMAGE)
            return
        state = session.state(session.target)
        mask = self._mask(session.target)
        with session.step(session.target):
            if label == "normal" and mask is not None and mask.any():
                state.cleared = mask
                session.write(session.target, np.zeros_like(mask), label)
            elif label != "normal" and state.cleared is not None:
                if mask is not None and not mask.any():
                    session.write(session.target, state.cleared, label)
                state.cleared = None
            state.label = label
        self.asked.emit(None)
        session.changed.emit()

    def accept(self, *, no_lesion: bool = False) -> None:
        """Store the current frame's mask and class."""
        session = self._session
        session.follow()
        why_not = session.view().why_no_accept
        if session.target is None or why_not is not None:
            show_warning(why_not or NO_IMAGE)
            return
        try:
            mask = read_mask(session.viewer, session.target)
        except SonoloopError as error:
            show_problem(error)
            return
        if mask is None:
            mask = np.zeros(session.target.grid[-2:], np.uint8)
        called_normal = session.state(session.target).label == "normal"
        if called_normal and mask.any():
            self.asked.emit(Question.NORMAL_WITH_LESION)
        elif not called_normal and not mask.any() and not no_lesion:
            self.asked.emit(Question.NO_LESION)
        else:
            self.asked.emit(None)
            self._submit(session.target, mask)
            self.submitted.emit(session.target)

    def keep_normal(self) -> None:
        """Answer that a frame called normal is normal: clear its mask and accept."""
        self.choose("normal")
        self.accept()

    def keep_lesion(self) -> None:
        """Answer that the lesion on a frame called normal holds: take the class back."""
        if self._session.target is not None:
            self._session.state(self._session.target).label = None
        self.asked.emit(None)
        self._session.changed.emit()

    def settle(self, target: Target, conflict: HeadMovedError, *, keep_mine: bool) -> None:
        """Say which of two versions goes on; both stay in the store."""
        session = self._session
        state = session.state(target)
        state.looked_up = session.preferences().identity
        state.parent = conflict.theirs.id
        chosen = (conflict.mine if keep_mine else conflict.theirs).correction
        with session.step(target):
            state.label, state.lesions = chosen.label, dict(chosen.lesions)
            if session.is_open(target):
                session.write(target, chosen.mask)
        if keep_mine:
            # an image that was closed since keeps nothing but what the conflict holds
            state.prediction = chosen.prediction
            self._submit(target, chosen.mask, state.source)
        else:
            state.revision, state.source = conflict.theirs, None
            self.settled.emit(target)
        session.changed.emit()

    def look_up_again(self) -> None:
        """Ask the store about the current frame, where it is another store, or another annotator, by now."""
        self._settle.start()

    def refresh_model(self) -> None:
        """Ask the store which model is in use by now."""
        self._jobs.submit(
            partial(self._projects.ask, self._session.preferences().store, lambda project: project.in_use()),
            done=self.model_seen.emit,
            failed=ignore,  # said at the next look-up
        )

    def look_again(self) -> None:
        """Look up again what could not be looked up; the store can be used by now."""
        states, keys = self._session.known_states(), self._unanswered
        if not keys:
            return
        for key in keys & states.keys():
            states[key].looked_up = states[key].draw_first = None
        keys.clear()
        self._told.clear()
        self._look_up()
        self._session.changed.emit()

    def close(self) -> None:
        """Close the store once what is under way is stored."""
        self._settle.stop()
        self._jobs.mute()
        self._jobs.submit(self._projects.close, done=ignore, failed=ignore)

    def _mask(self, target: Target) -> NDArray[np.uint8] | None:
        try:
            return read_mask(self._session.viewer, target)
        except SonoloopError:
            return None

    def _submit(self, target: Target, mask: NDArray[np.uint8], source: Source | None = None) -> None:
        state = self._session.state(target)
        preferences = self._session.preferences()
        assert state.label is not None
        # by the time of a conflict the layer may show another frame
        source = state.source = source or target.capture()
        if state.looked_up != preferences.identity:
            # whom or what was looked up before is no parent here; a head that nobody saw is a conflict
            state.looked_up, state.parent = preferences.identity, None
        question = partial(
            _accept,
            source,
            mask,
            state.label,
            prediction=state.prediction or state.held or state.kept,
            seen=state.prediction is not None,
            shown=frozenset(self._session.shown),
            parent=state.parent,
            lesions=classes_of_drawn(Content(mask, state.label, state.lesions)),
            effort=self._effort.effort(target),
        )
        state.saving = True
        self._jobs.submit(
            partial(self._projects.ask, preferences.store, question, annotator=preferences.annotator),
            done=partial(self._on_accepted, target),
            failed=partial(self._on_refused, target),
        )
        self._session.changed.emit()

    def _on_accepted(self, target: Target, revision: Revision) -> None:
        state = self._session.state(target)
        state.saving = False
        state.revision = revision
        state.parent = revision.id
        state.cleared = state.source = None
        self._effort.restart(target)
        self._session.changed.emit()
        self.accepted.emit(target)

    def _on_refused(self, target: Target, error: Exception) -> None:
        self._session.state(target).saving = False
        if isinstance(error, ConflictError):
            self.conflicted.emit(target, error)
        else:
            show_problem(error)
            self.refused.emit(target)
        self._session.changed.emit()

    def _on_target(self) -> None:
        self.asked.emit(None)
        self._settle.start()

    def _look_up(self) -> None:
        target, preferences = self._session.target, self._session.preferences()
        if target is None or self._session.state(target).looked_up == preferences.identity:
            return
        self._jobs.submit(
            partial(
                self._projects.ask,
                preferences.store,
                partial(look_up, target.capture(), self.patients.get(target.source)),
                annotator=preferences.annotator,
            ),
            done=partial(self._on_found, target, preferences.identity),
            failed=partial(self._on_not_found, target, preferences.identity),
        )

    def _on_found(self, target: Target, identity: Identity, stored: FrameStatus) -> None:
        if self._session.is_open(target):
            self.take_up(target, identity, stored)
            self.looked_up.emit(target, self._session.state(target).revision is not None)

    def take_up(
        self,
        target: Target,
        identity: Identity,
        stored: FrameStatus,
        *,
        mask: NDArray[np.uint8] | None = None,
    ) -> None:
        """Take note of what the store knows of a frame, and show it; `mask` is what is shown already."""
        session = self._session
        state = session.state(target)
        state.looked_up = identity
        state.parent, state.draw_first = stored.own_head, stored.draw_first
        # what others drew, and what they saw, is as little shown as the prediction
        shown = None if state.withheld else stored.newest
        state.revision = shown
        if shown is not None:
            self._show(target, shown.correction, stored.prediction, mask)
        session.changed.emit()
        self.model_seen.emit(stored.in_use)

    def _show(
        self,
        target: Target,
        correction: Correction,
        prediction: Prediction | None,
        laid: NDArray[np.uint8] | None,
    ) -> None:
        """Put a stored correction on the canvas, unless something was begun there meanwhile."""
        session = self._session
        state = session.state(target)
        if laid is None:
            mask = self._mask(target)
            drawn = mask is not None and bool(mask.any())
            begun = drawn or state.written is not None or state.label is not None
            if begun or correction.mask.shape != target.grid[-2:]:
                return
            session.write(target, correction.mask)
        elif laid is not correction.mask:
            return  # a draft
        session.shown_now.emit(target, "correction")
        state.prediction = prediction
        if prediction is not None:
            session.shown.add(prediction.frame_id)
        if correction.annotator == session.preferences().annotator:
            state.label, state.lesions = correction.label, dict(correction.lesions)

    def _on_not_found(self, target: Target, identity: Identity, error: Exception) -> None:
        # Accept asks the store again, and says again what is wrong; looking says it once
        state = self._session.state(target)
        state.looked_up, state.parent = identity, None
        self._unanswered.add(target.key)
        if isinstance(error, StoreError):
            self.refused.emit(None)
        if state.draw_first is None:
            state.draw_first = False
        if str(error) not in self._told:
            self._told.add(str(error))
            show_problem(error)
        self._session.changed.emit()
        self.looked_up.emit(target, False)


def look_up(source: Source, patient: str | None, project: Project) -> FrameStatus:
    """Ask the store what it knows of a frame, in the worker."""
    return project.look_up(source.frame(), patient=patient)


def _accept(
    source: Source,
    mask: NDArray[np.uint8],
    label: Label,
    project: Project,
    *,
    prediction: Prediction | None,
    seen: bool,
    shown: frozenset[str],
    parent: str | None,
    lesions: Mapping[int, ClassName],
    effort: Effort,
) -> Revision:
    """Store a decision; `shown` are the frames of which a prediction was shown since the panel was opened."""
    frame = source.frame()
    if prediction is not None and prediction.frame_id != frame.id:
        prediction = None  # the layer's pixels were changed since: it is not of this frame
    seen = seen or frame.id in shown
    return project.accept(
        frame,
        mask,
        label,
        prediction=prediction,
        seen=seen,
        parent=parent,
        lesions=lesions,
        effort=effort,
    )


def ask_which(
    name: str, conflict: HeadMovedError, answer: Callable[[bool], object], *, parent: QWidget | None = None
) -> QMessageBox:
    """Ask which of two versions goes on; `answer` is called with True for the annotator's own.

    The dialog does not block; closing it leaves the stored version as it is, which is never a loss.
    """
    box = QMessageBox(parent)
    box.setIcon(QMessageBox.Icon.Warning)
    box.setWindowTitle("Two versions")
    box.setText(f"{name} was accepted elsewhere since it was opened here. Both versions are kept.")
    box.setInformativeText(
        f"Stored:\t{_describe(conflict.theirs)}\nYours:\t{_describe(conflict.mine)}\n\nWhich one goes on?"
    )
    mine = box.addButton("Go on with mine", QMessageBox.ButtonRole.AcceptRole)
    theirs = box.addButton("Go on with the stored one", QMessageBox.ButtonRole.RejectRole)
    box.setEscapeButton(theirs)
    box.buttonClicked.connect(lambda button: answer(button is mine))
    box.open()
    return box


def _describe(revision: Revision) -> str:
    correction = revision.correction
    lesions = count_lesions(correction.mask)
    return (
        f"{correction.label}, {lesions} lesion{'' if lesions == 1 else 's'}, "
        f"{revision.created.astimezone():%Y-%m-%d %H:%M}, {correction.annotator}"
    )
