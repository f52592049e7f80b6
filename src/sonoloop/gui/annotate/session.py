"""Which frame the annotator is on, and what is known of every open one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from sonoloop.errors import SonoloopError
from sonoloop.gui.annotate.layers import (
    FILL,
    OUTLINE,
    FrameState,
    Key,
    Target,
    adopt_layer,
    current_target,
    find_layer,
    read_mask,
    show_only,
    write_mask,
)
from sonoloop.gui.preferences import Preferences, read_preferences
from sonoloop.gui.widgets import BROKEN, single_shot
from sonoloop.values import CLASSES, ClassName, Label

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from sonoloop.store.revisions import Revision


DRAW_FIRST = "Draw this one first: the model's proposal is shown after Accept"
NO_IMAGE = "Open an image first, or File > Open Sample > Sonoloop"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameView:
    """What is to be seen of the current frame; the reasons say why a button is not ready."""

    name: str = "No image"
    status: str = ""
    accepted: bool = False
    probabilities: dict[ClassName, float] | None = None
    label: Label | None = None
    lesions: int = 0
    area_px: int = 0
    area_mm2: float | None = None
    expected_dice: float | None = None
    hint: str | None = None
    why_no_predict: str | None = NO_IMAGE
    why_no_accept: str | None = NO_IMAGE


def describe(target: Target, state: FrameState, mask: NDArray[np.uint8] | None, annotator: str) -> FrameView:
    """Describe a frame for the panel."""
    prediction = state.prediction
    area = 0 if mask is None else int(np.count_nonzero(mask))
    spacing = target.spacing
    status, accepted = _status(state, mask, annotator)
    hint = DRAW_FIRST if state.draw_first and state.withheld else None
    return FrameView(
        name=target.name,
        status=status,
        accepted=accepted,
        probabilities=None
        if prediction is None
        else dict(zip(CLASSES, map(float, prediction.classes), strict=True)),
        label=state.label,
        lesions=0 if mask is None else count_lesions(mask),
        area_px=area,
        area_mm2=None if spacing is None else area * spacing[0] * spacing[1],
        expected_dice=None if prediction is None else prediction.expected_dice,
        hint=hint,
        why_no_predict=hint,
        why_no_accept=_why_no_accept(state),
    )


def count_lesions(mask: NDArray[np.uint8]) -> int:
    """Count the numbers that are drawn in a mask; of 12 million pixels in some 20 ms."""
    return int(np.count_nonzero(np.bincount(mask.ravel(), minlength=256)[1:]))


def _why_no_accept(state: FrameState) -> str | None:
    if state.saving:
        return "Storing the correction"
    if state.looked_up is None:
        return "Looking for an earlier correction of this frame"
    if state.label is None:
        return "Choose a class first, under Yours"
    return None


def _status(state: FrameState, mask: NDArray[np.uint8] | None, annotator: str) -> tuple[str, bool]:
    if state.saving:
        return "storing", False
    drawn = mask is not None and bool(mask.any())
    if state.revision is None:
        begun = drawn or state.prediction is not None or state.label is not None
        return ("in progress" if begun else "new"), False
    correction = state.revision.correction
    own = correction.annotator == annotator
    same_mask = np.array_equal(mask, correction.mask) if mask is not None else not correction.mask.any()
    if not same_mask or state.label != (correction.label if own else None):
        return "changed since accepted", False
    return f"accepted {_when(state.revision)}" + ("" if own else f" by {correction.annotator}"), True


def _when(revision: Revision) -> str:
    """Today's time, else the date, by the user's clock."""
    created = revision.created.astimezone()
    if created.date() == datetime.now().astimezone().date():
        return f"{created:%H:%M}"
    return f"{created:%Y-%m-%d}"


class Session(QObject):
    """Follows the viewer to the current frame and keeps the state of each open one.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer, or napari's public proxy of it.
    preferences : callable
        Gives the user's preferences as they are now.
    parent : QObject, optional
        The owner.
    """

    target_changed = Signal()
    changed = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        preferences: Callable[[], Preferences] = read_preferences,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self._preferences = preferences
        self._store: str | None = None
        self._trouble: str | None = None  # why the store cannot be used
        self.target: Target | None = None
        self._states: dict[Key, FrameState] = {}
        # ids of the frames of which a prediction was shown; outlives their layers
        self.shown: set[str] = set()
        self._watched: Any = None
        self._follow_timer = single_shot(self, 0, self.follow)
        self._redraw_timer = single_shot(self, 50, self.changed.emit)
        for event in self._viewer_events():
            event.connect(self._on_viewer)
        self._follow_timer.start()

    def preferences(self) -> Preferences:
        """Return the user's preferences as they are now."""
        preferences = self._preferences()
        return preferences if self._store is None else replace(preferences, store=self._store)

    def use_store(self, url: str) -> None:
        """Work on another store than the preferences name."""
        self._store = url

    def state(self, target: Target) -> FrameState:
        """Return what is known of a frame, to read and to write."""
        return self._states.setdefault(target.key, FrameState())

    def known_states(self) -> dict[Key, FrameState]:
        """Return what is known of every frame whose layer is open."""
        return self._states

    def is_open(self, target: Target) -> bool:
        """Whether the frame's layer is still there."""
        return target.image in self.viewer.layers

    def view(self) -> FrameView:
        """Describe the current frame."""
        if self.target is None:
            return FrameView()
        try:
            mask = read_mask(self.viewer, self.target)
        except SonoloopError:
            mask = None  # said at Accept, where it matters
        view = describe(self.target, self.state(self.target), mask, self.preferences().annotator)
        if self._trouble is None:
            return view
        return replace(view, why_no_predict=BROKEN, why_no_accept=BROKEN)

    def set_trouble(self, trouble: str | None) -> None:
        """Take note of why the store cannot be used; None when it can."""
        self._trouble = trouble
        self.changed.emit()

    def write(self, target: Target, mask: NDArray[np.uint8]) -> None:
        """Put a mask on a frame's canvas, undoably."""
        write_mask(self.viewer, target, mask)
        self.state(target).written = mask.copy()
        self._watch()

    def follow(self) -> None:
        """Find out which frame is current."""
        self._follow_timer.stop()
        self._forget_removed()
        before, target = self.target, current_target(self.viewer)
        if target is not None:
            adopt_layer(self.viewer, target)
        if before is not None and target is not None and before.key == target.key:
            self._watch()
            return
        self.target = target
        moved = before is not None and target is not None and before.image != target.image
        if moved and target is not None and "sonoloop" in target.image.metadata:
            # an image on top would hide what is being annotated
            show_only(self.viewer, target.image)
        self._watch()
        self.target_changed.emit()
        self.changed.emit()

    def toggle_fill(self) -> None:
        """Show lesions as outlines, or filled."""
        layer = self._lesions()
        if layer is not None:
            style = FILL if layer.contour else OUTLINE
            layer.contour = int(style["contour"])
            layer.opacity = style["opacity"]

    def set_lesions_visible(self, visible: bool) -> None:
        """Show or hide the current image's lesions."""
        layer = self._lesions()
        if layer is not None:
            layer.visible = visible

    def close(self) -> None:
        """Stop listening to the viewer."""
        for event in self._viewer_events():
            event.disconnect(self._on_viewer)
        self._unwatch()
        self._follow_timer.stop()
        self._redraw_timer.stop()

    def _viewer_events(self) -> tuple[Any, ...]:
        layers = self.viewer.layers
        return (
            layers.selection.events.active,
            layers.events.inserted,
            layers.events.removed,
            self.viewer.dims.events.current_step,
        )

    def _on_viewer(self, _event: object = None) -> None:
        # one answer to the several events of one action
        self._follow_timer.start()

    def _lesions(self) -> Any:  # noqa: ANN401 - napari's proxy of a Labels layer
        return None if self.target is None else find_layer(self.viewer, self.target.image, "lesions")

    def _watch(self) -> None:
        """Listen to the current lesions layer: painting, undo and redo."""
        layer = self._lesions()
        if layer == self._watched:
            return
        self._unwatch()
        self._watched = layer
        if layer is not None:
            for event in (layer.events.paint, layer.events.set_data):
                event.connect(self._on_drawn)
        self._redraw_timer.start()

    def _unwatch(self) -> None:
        if self._watched is not None:
            for event in (self._watched.events.paint, self._watched.events.set_data):
                event.disconnect(self._on_drawn)
        self._watched = None

    def _on_drawn(self, _event: object = None) -> None:
        self._redraw_timer.start()

    def _forget_removed(self) -> None:
        alive = {str(layer.unique_id) for layer in self.viewer.layers}
        self._states = {key: state for key, state in self._states.items() if key[0] in alive}


_BRUSH, _NO_TOOL = "paint", "pan_zoom"


def lay_out_canvas(session: Session) -> None:
    """Make the current frame ready to draw on, where it is drawn first and nothing is drawn yet."""
    target = session.target
    if target is None:
        return
    state = session.state(target)
    if state.draw_first and state.withheld and not _is_drawn(session, target):
        take_up_brush(session)


def take_up_brush(session: Session) -> None:
    """Select the current image's lesions layer, made empty where there is none, and let the mouse paint.

    Another tool than the brush that the user has chosen stays.
    """
    target = session.target
    if target is None:
        return
    viewer = session.viewer
    if find_layer(viewer, target.image, "lesions") is None:
        # not as what the program proposes: a stored mask may still come
        write_mask(viewer, target, np.zeros(target.grid[-2:], np.uint8))
    layer = find_layer(viewer, target.image, "lesions")
    # napari takes setting it anew for a change, and forgets the layer's tool
    if not layer.visible:
        layer.visible = True
    viewer.layers.selection.active = layer
    if layer.mode == _NO_TOOL:
        layer.mode = _BRUSH
    session.follow()


def offer_canvas(session: Session) -> None:
    """Make the current frame ready to draw on, where there is neither a layer to draw on nor a prediction."""
    target = session.target
    if target is None or session.state(target).prediction is not None:
        return
    if find_layer(session.viewer, target.image, "lesions") is None:
        take_up_brush(session)


def _is_drawn(session: Session, target: Target) -> bool:
    try:
        mask = read_mask(session.viewer, target)
    except SonoloopError:
        return True
    return mask is not None and bool(mask.any())
