"""Which frame the annotator is on, and what is known of every open one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_warning
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from sonoloop.errors import SonoloopError
from sonoloop.gui.annotate.canvas import (
    move_slider,
    show_frame,
    why_mask_unseen,
    why_unseen,
)
from sonoloop.gui.annotate.followers import put_in_order
from sonoloop.gui.annotate.journal_entry import Content, stored_content
from sonoloop.gui.annotate.layers import (
    FILL,
    OUTLINE,
    FrameState,
    Key,
    Target,
    adopt_layer,
    current_target,
    find_layer,
    fits,
    frame_of,
    is_lesions,
    is_source,
    keep_as_draft,
    look_of,
    owner_id,
    read_mask,
    show_only,
    source_key,
    take_up_draft,
    write_mask,
)
from sonoloop.gui.annotate.mask_steps import MaskSteps
from sonoloop.gui.annotate.own_layers import Offer, find_offers, mask_of
from sonoloop.gui.preferences import Preferences, read_preferences
from sonoloop.gui.widgets import BROKEN, single_shot
from sonoloop.gui.words import shorten
from sonoloop.imaging.unusual import why_unusual
from sonoloop.values import CLASSES, ClassName, Label

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from sonoloop.store.revisions import Revision


DRAW_FIRST = "Draw this one first: such images, about one in five, judge the model"
# what the layers tell that changes nothing of what is seen
_UNRELATED = frozenset(
    {
        "thumbnail",
        "_extent_augmented",
        "status",
        "help",
        "cursor",
        "cursor_size",
        "mode",
        "brush_size",
        "loaded",
    }
)
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
    unseen: str | None = None
    offers: tuple[Offer, ...] = ()
    advice: str | None = None
    frames: int = 1
    why_no_predict: str | None = NO_IMAGE
    why_no_accept: str | None = NO_IMAGE


def describe(
    target: Target,
    state: FrameState,
    mask: NDArray[np.uint8] | None,
    annotator: str,
    *,
    unseen: str | None = None,
    mask_unseen: str | None = None,
    offers: tuple[Offer, ...] = (),
) -> FrameView:
    """Describe a frame for the panel.

    `unseen` and `mask_unseen` say why the canvas does not show the frame, or not its mask; `offers` are the
    layers that may be meant as its mask.
    """
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
        unseen=unseen or mask_unseen,
        offers=offers,
        why_no_predict=unseen or hint,
        why_no_accept=_why_no_accept(state) or unseen or mask_unseen or _why_not_yet(offers),
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


def _why_not_yet(offers: tuple[Offer, ...]) -> str | None:
    name = next((offer.name for offer in offers if offer.why_not is None), None)
    return None if name is None else f"Say first whether to use the layer “{shorten(name)}”"


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
    stored = stored_content(state.revision, annotator)
    drawn_now = Content(mask, state.label, state.lesions)
    if not same_mask or not drawn_now.says_the_same(stored):
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
    drawn = Signal()  # the current lesions layer may show something else
    stroked = Signal()  # a person drew on a lesions layer
    undone = Signal(int)  # so many steps; fewer than none where they were redone
    shown_now = Signal(object, str)  # a Target, and what is shown on it from now on
    # a Target whose layers are about to show another frame: what is on the canvas is read now or never
    leaving = Signal(object)

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
        # a frame of a queue; what is said of it waits until all of it is there
        self.arriving = False
        # images whose states outlive what their layers show; a queue says which
        self.elsewhere: set[str] = set()
        # ids of the frames of which a prediction was shown; outlives their layers
        self.shown: set[str] = set()
        self._watched: Any = None
        self._steps: dict[str, MaskSteps] = {}  # by the lesions layer
        self._writing = False  # another frame into the layers
        self._lesions_held = False
        self._replaced: set[str] = set()  # images whose pixels were replaced
        self._hidden: set[str] = set()  # layers that were hidden to show another image
        self._rendered: object = None
        self._left: set[tuple[str, str]] = set()  # layers not to be used, each with the image
        self.changed.connect(self._note)
        self._follow_timer = single_shot(self, 0, self.follow)
        self._redraw_timer = single_shot(self, 50, self.changed.emit)
        self._look_timer = single_shot(self, 100, self._look)
        for event in self._viewer_events():
            event.connect(self._on_viewer)
        for event in self._canvas_events():
            event.connect(self._on_canvas)
        self._follow_timer.start()

    def preferences(self) -> Preferences:
        """Return the user's preferences as they are now."""
        preferences = self._preferences()
        return preferences if self._store is None else replace(preferences, store=self._store)

    @property
    def own_store(self) -> str | None:
        """The store that was named instead of the preferences', if one was."""
        return self._store

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
        """Whether the frame is still there."""
        return target.image in self.viewer.layers and target.is_shown and target.is_within

    def is_drawn(self, target: Target) -> bool:
        """Whether anything is drawn on a frame."""
        try:
            mask = read_mask(self.viewer, target)
        except SonoloopError:
            return True
        return mask is not None and bool(mask.any())

    def view(self) -> FrameView:
        """Describe the current frame."""
        if self.target is None or not self.is_open(self.target):
            return FrameView()
        try:
            mask = read_mask(self.viewer, self.target)
        except SonoloopError:
            mask = None  # said at Accept, where it matters
        unseen, mask_unseen, offers = self._look_at(self.target)
        view = describe(
            self.target,
            self.state(self.target),
            mask,
            self.preferences().annotator,
            unseen=unseen,
            mask_unseen=mask_unseen,
            offers=offers,
        )
        view = replace(
            view,
            name=self._name(self.target),
            advice=why_unusual(*look_of(self.target)),
            frames=math.prod(self.target.grid[:-2]),
        )
        if self._trouble is None:
            return view
        return replace(view, why_no_predict=BROKEN, why_no_accept=BROKEN)

    def set_trouble(self, trouble: str | None) -> None:
        """Take note of why the store cannot be used; None when it can."""
        self._trouble = trouble
        self.changed.emit()

    def write(
        self,
        target: Target,
        mask: NDArray[np.uint8],
        label: Label | None = None,
        *,
        lesions: Mapping[int, ClassName] | None = None,
        by_hand: bool = False,
    ) -> None:
        """Put a mask on a frame's canvas, undoably; classes given with it are undone with it.

        `by_hand` says that it is a person's work, which nothing may replace without asking.
        """
        state = self.state(target)
        with self.step(target):
            write_mask(self.viewer, target, mask)
            state.label = label or state.label
            if lesions is not None:
                state.lesions = dict(lesions)
            if not by_hand:
                state.written = mask.copy()
        self._watch()

    def decide(
        self, target: Target, label: Label | None, *, lesions: Mapping[int, ClassName] | None = None
    ) -> None:
        """Set a frame's class, and those of its lesions, undoably where there is a layer to draw on."""
        state = self.state(target)
        with self.step(target):
            state.label = label
            if lesions is not None:
                state.lesions = dict(lesions)
        self.changed.emit()

    def step(self, target: Target) -> AbstractContextManager[None]:
        """Make one step of undo of all that is written and decided within the context."""
        layer = find_layer(self.viewer, target.image, "lesions")
        if layer is None:
            return nullcontext()
        return self._steps_of(layer).step(self.state(target), target.index)

    def _steps_of(self, layer: Any) -> MaskSteps:  # noqa: ANN401 - napari's proxy of a Labels layer
        key = str(layer.unique_id)
        if key not in self._steps:
            steps = self._steps[key] = MaskSteps(layer, parent=self)
            steps.stroked.connect(self.stroked)
            steps.undone.connect(self.undone)
            steps.undone.connect(self._redraw_timer.start)
        return self._steps[key]

    @contextmanager
    def replacing(self) -> Iterator[None]:
        """Put another frame into the current layers meanwhile; what was known of the last one stays known."""
        if self.target is not None:
            self.leaving.emit(self.target)
        self._writing = True
        try:
            with ExitStack() as histories:
                for steps in self._steps.values():
                    histories.enter_context(steps.beginning_anew())
                yield
        finally:
            self._writing = False
        self.follow()

    def forget(self, source: str) -> None:
        """Forget what is known of an image that is not on the canvas."""
        self.elsewhere.discard(source)
        for key in [key for key in self._states if key[0] == source]:
            del self._states[key]

    def follow(self) -> None:
        """Find out which frame is current."""
        self._follow_timer.stop()
        self._forget_removed()
        before, target = self.target, current_target(self.viewer, self.target)
        if target is not None:
            take_up_draft(self.viewer, target)
            adopt_layer(self.viewer, target)
        put_in_order(self.viewer)
        if before is not None and target is not None and before.key == target.key:
            self._watch()
            self._look_timer.start()
            return
        self.target = target
        if target is not None and (before is None or before.image != target.image):
            self._bring_up(target)
        self._watch()
        self.target_changed.emit()
        self.changed.emit()

    def show_current(self) -> None:
        """Show the current frame on the canvas, alone, whatever hid it."""
        if self.target is not None:
            show_frame(self.viewer, self.target)
            self._bring_up(self.target)
            self.changed.emit()

    def use_layer(self, offer: Offer) -> None:
        """Take an offered layer for the current frame's mask, undoably; the layer is hidden."""
        target = self.target
        if target is None:
            return
        self.write(target, mask_of(self.viewer, target, offer), by_hand=True)
        self.state(target).cleared = None
        for layer in self.viewer.layers:
            if str(layer.unique_id) == offer.layer:
                layer.visible = False
        take_up_brush(self)
        self.changed.emit()

    def leave_layers(self) -> None:
        """Use none of the offered layers for the current image, and ask no more."""
        if self.target is not None:
            offers = find_offers(self.viewer, self.target, self._left)
            self._left |= {(offer.layer, self.target.key[0]) for offer in offers}
            self.changed.emit()

    def restore_hidden(self) -> None:
        """Show again the images that were hidden to show another one."""
        for layer in self.viewer.layers:
            if str(layer.unique_id) in self._hidden and not layer.visible:
                layer.visible = True
        self._hidden.clear()

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
            self._lesions_held = not visible
            layer.visible = visible

    def close(self) -> None:
        """Stop listening to the viewer."""
        for event in self._viewer_events():
            event.disconnect(self._on_viewer)
        for event in self._canvas_events():
            event.disconnect(self._on_canvas)
        self._unwatch()
        for steps in self._steps.values():
            steps.close()
        self._follow_timer.stop()
        self._redraw_timer.stop()
        self._look_timer.stop()

    def _viewer_events(self) -> tuple[Any, ...]:
        layers = self.viewer.layers
        return (
            layers.selection.events.active,
            layers.events.inserted,
            layers.events.removed,
            self.viewer.dims.events.current_step,
        )

    def _canvas_events(self) -> tuple[Any, ...]:
        viewer = self.viewer
        return (
            viewer.layers.events,
            viewer.scene.camera.events.center,
            viewer.scene.camera.events.zoom,
            viewer.canvas.grid.events.enabled,
            viewer.dims.events.ndisplay,
            viewer.dims.events.order,
        )

    def _on_canvas(self, event: Any) -> None:  # noqa: ANN401 - napari's event
        if event.type == "data" and not self._writing and is_source(layer := self.viewer.layers[event.index]):
            self._replaced.add(source_key(layer))
        if event.type in ("visible", "reordered", "data"):
            self._follow_timer.start()
        elif event.type not in _UNRELATED:
            self._look_timer.start()

    def _look(self) -> None:
        """Look whether the canvas still shows what the panel speaks of."""
        if self._look_at(self.target) != self._rendered:
            self.changed.emit()

    def _note(self) -> None:
        if self.arriving:
            return
        self._rendered = self._look_at(self.target)

    def _look_at(self, target: Target | None) -> tuple[str | None, str | None, tuple[Offer, ...]]:
        """Say why a frame is not seen, why its mask is not, and what may be meant as its mask."""
        if target is None or not self.is_open(target):
            return None, None, ()
        viewer = self.viewer
        mask_unseen = None if self._lesions_held else why_mask_unseen(viewer, target)
        return why_unseen(viewer, target), mask_unseen, find_offers(viewer, target, self._left)

    def _bring_up(self, target: Target) -> None:
        if not self.viewer.canvas.grid.enabled:
            self._hidden.update(show_only(self.viewer, target.image))
            self._hidden.discard(str(target.image.unique_id))
        move_slider(self.viewer, target)

    def _name(self, target: Target) -> str:
        """Name a frame; by its layer, too, where another image is called the same."""
        layer, name = target.image, target.name
        others = (frame_of(self.viewer, other) for other in self.viewer.layers if is_source(other))
        alike = any(other.image != layer and other.name == name for other in others)
        return f"{name} ({layer.name})" if alike and layer.name != name else name

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
            self._steps_of(layer)
            for event in self._drawing_events(layer):
                event.connect(self._on_drawn)
        self._redraw_timer.start()

    def _unwatch(self) -> None:
        if self._watched is not None:
            for event in self._drawing_events(self._watched):
                event.disconnect(self._on_drawn)
        self._watched = None

    def _drawing_events(self, layer: Any) -> tuple[Any, ...]:  # noqa: ANN401
        return (layer.events.paint, layer.events.labels_update, layer.events.set_data, layer.events.data)

    def _on_drawn(self, _event: object) -> None:
        self._redraw_timer.start()
        if not self._writing:
            self.drawn.emit()

    def _forget_removed(self) -> None:
        layers = self.viewer.layers
        alive = {str(layer.unique_id): layer for layer in layers}
        for layer in list(layers):
            owner = alive.get(owner_id(layer))
            if owner is None or (owner is not layer and not fits(layer, owner)):
                self._put_away(layer, owner_id(layer) if owner is None else source_key(owner))
        sources = {source_key(layer) for layer in layers if is_source(layer)} | self.elsewhere
        gone = self._replaced | {image for image, _ in self._states if image not in sources}
        self._states = {key: state for key, state in self._states.items() if key[0] not in gone}
        for key in self._steps.keys() - alive.keys():
            self._steps.pop(key).close()
        if self.target is not None and self.target.source in self._replaced:
            self.target = None  # other pixels: another frame, of which nothing is known
        self._replaced.clear()

    def _put_away(self, layer: Any, owner: str) -> None:  # noqa: ANN401 - napari's proxy of a layer
        """Remove a layer whose image was removed; a mask that is stored nowhere stays, by itself."""
        if is_lesions(layer) and self._holds_work(layer, owner):
            keep_as_draft(layer)
            show_warning(f"Kept, hidden: “{shorten(layer.name)}”, which is not accepted")
        else:
            self.viewer.layers.remove(layer)

    def _holds_work(self, layer: Any, owner: str) -> bool:  # noqa: ANN401
        """Whether a person drew on a layer what was not accepted."""
        data = np.asarray(layer.data)
        for index in np.ndindex(data.shape[:-2]):
            mask, state = data[index], self._states.get((owner, index))
            known = [] if state is None else [state.written]
            if state is not None and state.revision is not None:
                known.append(state.revision.correction.mask)
            if mask.any() and not any(each is not None and np.array_equal(mask, each) for each in known):
                return True
        return False


_BRUSH, _NO_TOOL = "paint", "pan_zoom"


def lay_out_canvas(session: Session) -> None:
    """Make the current frame ready to draw on, where it is drawn first and nothing is drawn yet."""
    target = session.target
    if target is None:
        return
    state = session.state(target)
    if state.draw_first and state.withheld and not session.is_drawn(target):
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
