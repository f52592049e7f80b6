"""Predict: from the current frame to a mask on the canvas."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Event as Flag
from typing import TYPE_CHECKING

import numpy as np
from napari.utils.notifications import show_info, show_warning
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QApplication, QGridLayout, QProgressBar, QPushButton, QWidget
from superqt import QElidingLabel

from sonoloop.errors import SonoloopError, UnsupportedImageError
from sonoloop.gui.annotate.layers import (
    HeatMap,
    Source,
    Target,
    find_layer,
    forget_heat_map,
    record_prediction,
    toggle_heat_map,
    warm_up_lesions,
    write_heat_map,
    write_proposal,
    write_uncertainty,
)
from sonoloop.gui.annotate.overwriting import Overwriting
from sonoloop.gui.annotate.session import NO_IMAGE, Session
from sonoloop.gui.preferences import Preferences
from sonoloop.gui.widgets import device_name, engine_title, show_notice, show_problem, single_shot
from sonoloop.gui.workers import JobQueue, Projects, ignore
from sonoloop.imaging.grey import check_frame
from sonoloop.values import Frame, Prediction

if TYPE_CHECKING:
    from sonoloop.project import InUse, Project


@dataclass(slots=True)
class _Loaded:
    """Which model is loaded, and where; written by the worker."""

    version: str | None = None
    model: str | None = None
    device: str = ""
    engine: str = ""


@dataclass(frozen=True, slots=True)
class _Where:
    """Where a model is to run, and what computes."""

    device: str
    engine: str

    @classmethod
    def of(cls, preferences: Preferences) -> _Where:
        """Read it of the preferences, which a worker may not."""
        return cls(preferences.device, preferences.engine)


# of the predictions that wait to be looked at
_MOST_BYTES = 2 * 1024**3
_BYTES_PER_PIXEL = 5  # a probability and a mask


@dataclass(slots=True, eq=False)
class _Series:
    """The frames of a stack that are still to be predicted, and how it went so far."""

    waiting: deque[Target]
    total: int
    asked: Target | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def number(self) -> int:
        """Number of the frame that is being predicted, from 1."""
        return self.total - len(self.waiting)


class Predicting(QObject):
    """Runs the model on the current frame in a worker and shows what it says.

    Parameters
    ----------
    session : Session
        Where the frames are.
    projects : Projects
        What the worker asks for the model in use.
    """

    busy_changed = Signal(bool)
    progressed = Signal(int, int)  # the frame of a stack that is being predicted, and how many there are

    def __init__(self, session: Session, *, projects: Projects) -> None:
        super().__init__(session)
        self._session = session
        self._projects = projects
        self._loaded = _Loaded()
        self._in_use: InUse | None = None
        self._jobs = JobQueue(latest_only=True, parent=self)
        self._jobs.busy_changed.connect(self._tell_busy)
        self._maps = JobQueue(parent=self)
        self._comparing = JobQueue(parent=self)
        self._compared = False
        self._is_over = Flag()
        self._series: _Series | None = None
        self._busy = False
        self._warmed_up = False
        self.overwriting = Overwriting(session)
        self.overwriting.taken.connect(self._on_taken)
        session.target_changed.connect(self._show_kept)
        # napari's window goes without closing what is docked in it
        self.destroyed.connect(self._is_over.set)
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self._is_over.set)

    @property
    def model_line(self) -> str:
        """Which model, and where it runs; which frame it is on."""
        if self._series is not None:
            return f"Predicting frame {self._series.number} of {self._series.total}"
        version, name = (None, None) if self._in_use is None else (self._in_use.version, self._in_use.model)
        if self._loaded.model is not None and self._loaded.version == version:
            where = f"{device_name(self._loaded.device)}, {engine_title(self._loaded.engine)}"
            return f"Model {self._loaded.model} · {where}"
        if self._jobs.busy:
            return "Loading the model…"
        if name is not None:
            return f"Model {name}"
        return "No model loaded yet"

    def set_in_use(self, in_use: InUse) -> None:
        """Take note of which model is in use; it is loaded when it is needed."""
        if in_use != self._in_use:
            self._in_use = in_use
            self._session.changed.emit()

    def predict(self) -> None:
        """Predict on the current frame; the answer to what was asked before is dropped."""
        session = self._session
        session.follow()
        why_not = session.view().why_no_predict
        if session.target is None or why_not is not None:
            show_warning(why_not or NO_IMAGE)
            return
        source, preferences = session.target.capture(), session.preferences()
        question = partial(_predict, source, _Where.of(preferences), self._loaded)
        self._jobs.submit(
            partial(self._projects.ask, preferences.store, question),
            done=partial(self._on_prediction, session.target),
            failed=self._on_problem,
        )

    def explain(self) -> None:
        """Show where the model saw the class that it names, or hide it again."""
        session, target = self._session, self._session.target
        prediction = None if target is None else session.state(target).prediction
        if target is None or prediction is None or toggle_heat_map(session.viewer, target, prediction):
            return
        if self._jobs.busy and self._series is None:
            return  # a prediction is under way, which this would drop
        preferences = session.preferences()
        question = partial(_explain, target.capture(), _Where.of(preferences), prediction)
        self._jobs.submit(
            partial(self._projects.ask, preferences.store, question),
            done=partial(self._on_heat_map, target),
            failed=self._on_problem,
        )

    def predict_all(self) -> None:
        """Predict every frame of the current stack that nobody worked on, from the current one on.

        What is predicted is kept until the slider comes to it, and nothing is accepted.
        """
        session = self._session
        session.follow()
        if session.target is None:
            show_warning(NO_IMAGE)
            return
        frames = [target for target in _frames_from(session.target) if not self._is_begun(target)]
        if not frames:
            show_info("Every frame has a prediction or a mask already")
            return
        height, width = session.target.grid[-2:]
        most = max(1, _MOST_BYTES // (_BYTES_PER_PIXEL * height * width))
        if len(frames) > most:
            show_info(f"The next {most} of {len(frames)} frames are predicted: memory holds no more")
        self._jobs.drop()
        self._series = _Series(deque(frames[:most]), len(frames[:most]))
        self._go_on()

    @property
    def predicts_all(self) -> bool:
        """Whether the frames of a stack are being predicted."""
        return self._series is not None

    def cancel(self) -> None:
        """Ignore the answers that are still to come."""
        self._series = None
        self._jobs.drop()
        self._tell_busy()

    def close(self) -> None:
        """Ignore all answers, for good."""
        self.cancel()
        self._is_over.set()
        self._comparing.mute()

    def release(self, target: Target) -> None:
        """Show the prediction that was held back, if it may be shown by now."""
        session = self._session
        state = session.state(target)
        if state.held is None or state.withheld or not session.is_open(target):
            return
        prediction, uncertainty = state.held, state.held_uncertainty
        state.held = state.held_uncertainty = None
        assert uncertainty is not None
        self._show(target, prediction, uncertainty)

    def look_up_answered(self, target: Target) -> None:
        """Show what was kept or held back of a frame, now that the store has said what it knows of it."""
        self._warm_up()
        self.release(target)
        self._show_kept()

    def take_up(self, target: Target, prediction: Prediction, in_use: InUse, *, laid: bool) -> None:
        """Take a prediction that was made in advance; `laid` where its mask is seen already."""
        session = self._session
        state = session.state(target)
        self.set_in_use(in_use)
        if not laid:
            state.kept = prediction
            self._show_kept()
            return
        state.prediction = prediction
        session.shown.add(prediction.frame_id)
        session.shown_now.emit(target, "prediction")
        record_prediction(session.viewer, target, prediction)

    def draw_map(self) -> None:
        """Put the uncertainty of the current frame's prediction into its layer."""
        target = self._session.target
        prediction = None if target is None else self._session.state(target).prediction
        if target is not None and prediction is not None:
            self._maps.submit(
                lambda: prediction.uncertainty,
                done=partial(self._on_own_map, target, prediction),
                failed=show_problem,
            )

    def question(self) -> Callable[[Frame, Project], tuple[Prediction, InUse]]:
        """Capture what a worker needs to predict a frame that is not shown yet."""
        where, loaded = _Where.of(self._session.preferences()), self._loaded
        return lambda frame, project: _predict_frame(check_frame(frame), where, loaded, project)

    def _on_own_map(self, target: Target, prediction: Prediction, uncertainty: NDArray[np.float32]) -> None:
        if self._session.is_open(target) and self._session.state(target).prediction is prediction:
            write_uncertainty(self._session.viewer, target, uncertainty)

    def _warm_up(self) -> None:
        """Load what the first prediction needs, once; what goes wrong is told when it is asked for."""
        if not self._warmed_up:
            self._warmed_up = True
            preferences = self._session.preferences()
            warm_up = partial(_warm_up, _Where.of(preferences))
            body = partial(self._projects.ask, preferences.store, warm_up)
            self._maps.submit(body, done=ignore, failed=ignore)

    def _on_prediction(self, target: Target, answer: tuple[Prediction, NDArray[np.float32], InUse]) -> None:
        self._put(target, answer)
        self._go_on()

    def _on_heat_map(self, target: Target, heat: HeatMap) -> None:
        if self._session.is_open(target) and self._session.state(target).prediction is heat.prediction:
            write_heat_map(self._session.viewer, target, heat)
            self._session.shown_now.emit(target, "heat map")
        self._go_on()

    def _on_problem(self, error: Exception) -> None:
        show_problem(error)
        self._go_on()

    def _put(self, target: Target, answer: tuple[Prediction, NDArray[np.float32], InUse]) -> None:
        session, (prediction, uncertainty, in_use) = self._session, answer
        self.set_in_use(in_use)
        if not session.is_open(target) or target.grid[-2:] != prediction.mask.shape:
            return  # the layer is gone, or shows something else by now
        session.follow()
        state = session.state(target)
        if state.withheld:
            state.held, state.held_uncertainty = prediction, uncertainty
            session.changed.emit()
        else:
            self._show(target, prediction, uncertainty)

    def _show(self, target: Target, prediction: Prediction, uncertainty: NDArray[np.float32]) -> None:
        session = self._session
        state = session.state(target)
        viewer, image = session.viewer, target.image
        goes_on = state.prediction is None and state.begun_from == prediction.model
        state.prediction = prediction
        session.shown.add(prediction.frame_id)
        session.shown_now.emit(target, "outline" if state.draw_first else "prediction")
        forget_heat_map(viewer, target)
        write_uncertainty(viewer, target, uncertainty)
        if state.draw_first:
            # the annotator's own mask stays as it is: it may judge models
            write_proposal(viewer, target, prediction.mask)
            session.changed.emit()
            return
        if not (goes_on and session.is_drawn(target)):  # the draft that came back was drawn on it
            self.overwriting.put(target, prediction.mask)
        if session.target is not None and session.target.image == image:
            # ready to paint, and Ctrl+Z ready to undo
            viewer.layers.selection.active = find_layer(viewer, image, "lesions")
        session.changed.emit()
        self._compare_engines()

    def _compare_engines(self) -> None:
        """Find which engine is the quickest here, once a prediction is shown; it runs from the next start on.

        What goes wrong is told of the engine that is asked for.
        """
        preferences = self._session.preferences()
        if self._compared or preferences.engine != "auto":
            return
        self._compared = True
        question = partial(_compare, preferences.device, self._is_over.is_set)
        self._comparing.submit(
            partial(self._projects.ask, preferences.store, question), done=self._on_compared, failed=ignore
        )

    def _on_compared(self, outcome: str | None) -> None:
        if outcome is not None:
            show_info(f"Engines compared: {outcome}")

    def _go_on(self) -> None:
        """Ask for the next frame of a stack."""
        series, session = self._series, self._session
        if series is None:
            return
        if series.asked is not None:  # a single prediction came first
            series.waiting.appendleft(series.asked)
            series.asked = None
        if not series.waiting or not session.is_open(series.waiting[0]):
            self._end_series(series)
            return
        target = series.asked = series.waiting.popleft()
        preferences = session.preferences()
        question = partial(_predict_for_later, target.capture(), _Where.of(preferences), self._loaded)
        self._jobs.submit(
            partial(self._projects.ask, preferences.store, question),
            done=partial(self._on_next, target),
            failed=partial(self._on_next_failed, target),
        )
        self._tell_busy()
        self.progressed.emit(series.number, series.total)

    def _on_next(self, target: Target, answer: tuple[Prediction, InUse]) -> None:
        prediction, in_use = answer
        self.set_in_use(in_use)
        if self._series is not None:
            self._series.asked = None
        if self._session.is_open(target) and target.grid[-2:] == prediction.mask.shape:
            self._session.state(target).kept = prediction
            self._show_kept()
        self._go_on()

    def _on_next_failed(self, target: Target, error: Exception) -> None:
        series = self._series
        if series is None:
            return
        series.asked = None
        if isinstance(error, UnsupportedImageError):
            series.problems.append(str(error))  # of this frame; the others can be predicted
            self._go_on()
        else:
            self.cancel()
            show_problem(error)

    def _end_series(self, series: _Series) -> None:
        self._series = None
        self._tell_busy()
        if series.problems:
            failed = len(series.problems)
            show_notice(f"{failed} of {series.total} frames not predicted: {series.problems[0]}")
        self._session.changed.emit()

    def _tell_busy(self) -> None:
        busy = self._jobs.busy or self._series is not None
        if busy != self._busy:
            self._busy = busy
            self.busy_changed.emit(busy)

    def _is_begun(self, target: Target) -> bool:
        """Whether somebody decided or drew on a frame, or a prediction of it is there."""
        session = self._session
        state = session.state(target)
        known = (state.prediction, state.held, state.kept, state.revision, state.label)
        return any(each is not None for each in known) or session.is_drawn(target)

    def _show_kept(self) -> None:
        """Show what was predicted of the current frame before it was looked at, unless something is there."""
        target = self._session.target
        if target is None or (kept := self._session.state(target).kept) is None:
            return
        state = self._session.state(target)
        if state.looked_up is None:
            return  # the store may hold a mask of it
        if state.revision is not None or self._session.is_drawn(target):
            state.kept = None
            return
        self._maps.submit(
            lambda: kept.uncertainty, done=partial(self._on_map, target, kept), failed=show_problem
        )

    def _on_map(self, target: Target, kept: Prediction, uncertainty: NDArray[np.float32]) -> None:
        state = self._session.state(target)
        if state.kept is kept:
            state.kept, state.held, state.held_uncertainty = None, kept, uncertainty
            self.release(target)

    def _on_taken(self, target: Target) -> None:
        prediction = self._session.state(target).prediction
        if prediction is not None:
            record_prediction(self._session.viewer, target, prediction)


def _warm_up(where: _Where, project: Project) -> None:
    """Load the model in use, and what napari loads for its first layer of lesions, which takes as long."""
    project.model(device=where.device, engine=where.engine)
    warm_up_lesions()


def _compare(device: str, is_over: Callable[[], bool], project: Project) -> str | None:
    """Compare the engines, in the worker."""
    return project.compare_engines(device, is_cancelled=is_over)


def _frames_from(current: Target) -> list[Target]:
    """List the frames of a stack from the current one on, those before it last."""
    indices = list(np.ndindex(current.grid[:-2]))
    start = indices.index(current.index)
    return [Target(current.image, index) for index in indices[start:] + indices[:start]]


def _predict(
    source: Source, where: _Where, loaded: _Loaded, project: Project
) -> tuple[Prediction, NDArray[np.float32], InUse]:
    """Predict with the model in use, in the worker; the uncertainty, too, takes long."""
    prediction, in_use = _predict_for_later(source, where, loaded, project)
    return prediction, prediction.uncertainty, in_use


def _explain(source: Source, where: _Where, prediction: Prediction, project: Project) -> HeatMap:
    """Ask the model that made a prediction where it saw what it says, in the worker."""
    frame = check_frame(source.frame())
    if frame.id != prediction.frame_id:
        raise SonoloopError(f"the pixels of {frame.name} were changed since: press Predict first")
    predictor = project.model(project.in_use().version, where.device, engine=where.engine)
    if predictor.model != prediction.model:
        raise SonoloopError(
            f"{prediction.model} predicted this, and {predictor.model} is in use now: press Predict first"
        )
    return HeatMap(prediction, predictor.explain(frame, prediction.label))


def _predict_for_later(
    source: Source, where: _Where, loaded: _Loaded, project: Project
) -> tuple[Prediction, InUse]:
    """Predict without the map of uncertainty, which is made when the frame is looked at."""
    return _predict_frame(check_frame(source.frame()), where, loaded, project)


def _predict_frame(
    frame: Frame, where: _Where, loaded: _Loaded, project: Project
) -> tuple[Prediction, InUse]:
    in_use = project.in_use()
    predictor = project.model(in_use.version, where.device, engine=where.engine)
    loaded.version, loaded.model = in_use.version, predictor.model
    loaded.device, loaded.engine = predictor.device, predictor.engine_name
    return predictor.predict(frame), in_use


_CANCEL_AFTER_MS = 1000


class ModelLine(QWidget):
    """Keeps the height of what it hides, so that nothing below jumps.

    Parameters
    ----------
    parent : QWidget, optional
        The panel.
    """

    cancelled = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text = QElidingLabel()
        self._text.setTextFormat(Qt.TextFormat.PlainText)
        self._cancel = QPushButton("Cancel")
        self._cancel.setToolTip("Ignore the answer that is still to come")
        self._cancel.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._bar = QProgressBar()
        self._bar.setRange(0, 0)
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(4)
        policy = self._bar.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self._bar.setSizePolicy(policy)
        # the row is as high without it; its width is the text's meanwhile
        self._text.setMinimumHeight(self._cancel.sizeHint().height())
        for widget in (self._cancel, self._bar):
            widget.hide()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(0, 1)
        grid.addWidget(self._text, 0, 0)
        grid.addWidget(self._cancel, 0, 1)
        grid.addWidget(self._bar, 1, 0, 1, 2)
        self._timer = single_shot(self, _CANCEL_AFTER_MS, self._cancel.show)
        self._cancel.clicked.connect(self.cancelled)

    def set_text(self, text: str) -> None:
        """Name the model."""
        self._text.setText(text)
        self._text.setToolTip(text)

    def set_progress(self, number: int, total: int) -> None:
        """Show how far a task of several parts is."""
        self._bar.setRange(0, total)
        self._bar.setValue(number - 1)

    def set_busy(self, busy: bool) -> None:
        """Show that something runs, or that nothing does."""
        self._bar.setRange(0, 0)
        self._bar.setVisible(busy)
        if busy:
            self._timer.start()
        else:
            self._timer.stop()
            self._cancel.hide()
