"""Tools that repair the lesion at hand: by clicks, lines and boxes, and by edits of its outline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_info
from numpy.typing import NDArray
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QPushButton, QSlider, QToolButton, QVBoxLayout, QWidget

from sonoloop.errors import ModelError, SonoloopError
from sonoloop.gui.annotate.layers import Key, Target, find_layer, read_mask
from sonoloop.gui.annotate.session import Session
from sonoloop.gui.widgets import row, show_notice, show_problem, text_label
from sonoloop.gui.workers import JobQueue
from sonoloop.imaging import mask_edits
from sonoloop.models.prompts import Prompts

if TYPE_CHECKING:
    from sonoloop.models.corrector import Corrector

Mask = NDArray[np.uint8]

_TOOLS = (
    (
        "click",
        "Click",
        "Click on the lesion, or with the right button (or Alt) on what is none",
    ),
    ("line", "Line", "Draw over the lesion, or with the right button (or Alt) over what is none"),
    ("box", "Box", "Draw a box around a lesion: it is outlined"),
)
_EDITS: tuple[tuple[str, str, Callable[..., Mask]], ...] = (
    ("Grow", "Grow the lesion by a pixel", mask_edits.grow),
    ("Shrink", "Shrink the lesion by a pixel", mask_edits.shrink),
    ("Smooth", "Smooth the lesion's outline", mask_edits.smooth),
    ("Fill", "Fill the lesion's holes", mask_edits.fill_holes),
    ("Split", "Split the lesion at its narrowest place", mask_edits.split),
)
_NONE = (
    "no model on this machine takes clicks: import one with sonoloop models import, or train one with "
    "sonoloop train interactive"
)
# what a drag shorter than this is, in pixels
_CLICK = 2.0


def load_newest(device: str, engine: str) -> Corrector:
    """Load the model that takes clicks and came to this machine last; called in a worker."""
    from sonoloop.models.card import read_card  # noqa: PLC0415 - with the next, as a worker needs them
    from sonoloop.models.corrector import load_corrector  # noqa: PLC0415 - loads what runs networks
    from sonoloop.models.library import Library  # noqa: PLC0415 - as above

    folders = [folder for folder in Library().folders() if read_card(folder).spec.takes_prompts]
    if not folders:
        raise ModelError(_NONE)
    newest = max(folders, key=lambda folder: folder.stat().st_mtime)
    return load_corrector(newest, device=device, engine=engine)


@dataclass(slots=True, eq=False)
class Repair:
    """What was pointed at for a lesion, and the masks before each answer."""

    prompts: Prompts = field(default_factory=Prompts)
    # mask, prompts and result of each answer, the last one at the end
    steps: list[tuple[Mask, Prompts, Mask]] = field(default_factory=list)


class PromptTools(QWidget):
    """Repairs the lesion whose number the lesions layer has selected; each answer is one undo step.

    Parameters
    ----------
    session : Session
        What is on the canvas.
    load : callable
        Loads the model that takes clicks, by device and engine; called in a worker when it is first needed.
    parent : QWidget, optional
        The owner.
    """

    pointed = Signal()  # a click, a line or a box was given

    def __init__(
        self,
        session: Session,
        *,
        load: Callable[[str, str], Corrector] = load_newest,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._session, self._load = session, load
        self._corrector: Corrector | None = None
        self._jobs = JobQueue(parent=self)
        # by frame and lesion
        self._repairs: dict[tuple[Key, int], Repair] = {}
        # of each frame the last repair, and what the program itself had written by then
        self._made: dict[Key, tuple[Mask | None, Mask]] = {}
        # of each frame what a person painted, as far as it is known
        self._painted: dict[Key, NDArray[np.bool_]] = {}
        self._tool: str | None = None
        self._layer: Any = None
        # the mask as it was when the slider was pressed, and of which frame
        self._before: tuple[Key, Mask] | None = None
        self._build()
        session.target_changed.connect(self._on_target)

    def close_session(self) -> None:
        """Give the mouse back, and drop what is asked."""
        self._take(None)
        self._jobs.drop()

    def _build(self) -> None:
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        self._fold = QToolButton()
        self._fold.setText("Repair the lesion")
        self._fold.setToolTip("Show the tools that repair the lesion whose number is selected")
        self._fold.setCheckable(True)
        self._fold.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._tools = QWidget()
        self._tools.hide()
        self._fold.toggled.connect(self._on_fold)
        whole.addWidget(self._fold)
        whole.addWidget(self._tools)
        column = QVBoxLayout(self._tools)
        column.setContentsMargins(0, 0, 0, 0)
        self._buttons: dict[str, QToolButton] = {}
        for tool, title, help_ in _TOOLS:
            button = QToolButton()
            button.setText(title)
            button.setToolTip(help_)
            button.setCheckable(True)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.clicked.connect(partial(self._on_tool, tool))
            self._buttons[tool] = button
        self._back = _button("Undo click", "Take the last click, line or box back", self.undo)
        self._keep = QCheckBox("Keep what I paint")
        self._keep.setToolTip("Pixels that you paint or erase stay as they are when a lesion is repaired")
        column.addLayout(row(*((each, 0) for each in self._buttons.values()), (self._back, 1)))
        column.addWidget(self._keep)
        edits = [_button(title, help_, partial(self._on_edit, edit)) for title, help_, edit in _EDITS]
        merge = _button("Merge", "Join the lesion with the one nearest to it", self._on_merge)
        column.addLayout(row(*((each, 1) for each in edits[:3])))
        column.addLayout(row(*((each, 1) for each in (*edits[3:], merge))))
        self._at = QSlider(Qt.Orientation.Horizontal)
        self._at.setRange(1, 99)
        self._at.setToolTip("Outline the lesion where the model's probability is at least this")
        self._at.setAccessibleName("Threshold of the lesion's probability")
        self._at.sliderPressed.connect(self._on_pressed)
        self._at.sliderReleased.connect(self._on_released)
        self._at.valueChanged.connect(self._on_threshold)
        column.addLayout(row((text_label("Threshold"), 0), (self._at, 1)))

    @property
    def lesion(self) -> int:
        """The number of the lesion at hand: what the lesions layer has selected."""
        layer = self._lesions()
        return max(1, int(layer.selected_label)) if layer is not None else 1

    def point(self, prompts: Prompts) -> None:
        """Have the lesion at hand repaired by prompts of which the last is new."""
        target = self._session.target
        if target is None:
            return
        if self._session.state(target).withheld:
            show_notice("This frame is drawn first: clicks that a model answers come after Accept")
            return
        mask = self._mask(target)
        if mask is None:
            return
        preferences, number = self._session.preferences(), self.lesion
        repair = self._repairs.setdefault((target.key, number), Repair())
        repair.prompts = prompts
        self.pointed.emit()
        kept = self._kept(target, mask)
        source = target.capture()

        def ask() -> Mask:
            if self._corrector is None:
                self._corrector = self._load(preferences.device, preferences.engine)
            return self._corrector.correct(source.frame(), mask, prompts, lesion=number, kept=kept)

        self._jobs.submit(
            ask,
            done=lambda made: self._on_answer(target, number, mask, prompts, made),
            failed=lambda error: self._on_failed(target, number, prompts, error),
        )

    def undo(self) -> None:
        """Take the last click of the lesion at hand back, with what it changed."""
        target = self._session.target
        repair = self._repairs.get((target.key, self.lesion)) if target is not None else None
        if target is None or repair is None or not repair.steps:
            show_info("There is no click to take back on this lesion")
            return
        before, prompts, made = repair.steps.pop()
        repair.prompts = prompts.undo()
        mask = self._mask(target)
        if mask is not None:
            # what was drawn since stays
            self._write(target, np.where(mask == made, before, mask))

    def prompts(self) -> Prompts:
        """Give what was pointed at for the lesion at hand so far."""
        target = self._session.target
        repair = self._repairs.get((target.key, self.lesion)) if target is not None else None
        return Prompts() if repair is None else repair.prompts

    def _on_answer(self, target: Target, number: int, asked: Mask, prompts: Prompts, made: Mask) -> None:
        mask = self._mask(target) if self._is_current(target) else None
        repair = self._repairs.get((target.key, number))
        if mask is None or repair is None or repair.prompts != prompts or not np.array_equal(mask, asked):
            return  # clicked or drawn since: a later answer comes, or what was drawn holds
        repair.steps.append((mask, prompts, made))
        self._write(target, made)

    def _on_failed(self, target: Target, number: int, prompts: Prompts, error: Exception) -> None:
        repair = self._repairs.get((target.key, number))
        if repair is not None and repair.prompts == prompts:
            repair.prompts = prompts.undo()
        show_problem(error)

    def _on_edit(self, edit: Callable[..., Mask]) -> None:
        self._edit(lambda mask, number, kept: edit(mask, number, kept=kept))

    def _on_merge(self) -> None:
        def merge(mask: Mask, number: int, kept: NDArray[np.bool_] | None) -> Mask:
            others = np.argwhere((mask > 0) & (mask != number))
            if not len(others):
                raise ValueError("there is no other lesion to join this one with")
            middle = np.argwhere(mask == number).mean(0)
            nearest = others[np.abs(others - middle).sum(1).argmin()]
            return mask_edits.merge(mask, number, int(mask[tuple(nearest)]), kept=kept)

        self._edit(merge)

    def _on_threshold(self, percent: int) -> None:
        target = self._session.target
        prediction = None if target is None else self._session.state(target).prediction
        if target is None or prediction is None:
            return
        before = self._before

        def outline(mask: Mask, number: int, kept: NDArray[np.bool_] | None) -> Mask:
            # one that went comes back where the slider does
            first = before[1] if before is not None and before[0] == target.key else mask
            return mask_edits.threshold(first, number, prediction.lesion, percent / 100, kept=kept)

        self._edit(outline)

    def _on_pressed(self) -> None:
        target = self._session.target
        mask = None if target is None else self._mask(target)
        self._before = None if target is None or mask is None else (target.key, mask.copy())

    def _on_released(self) -> None:
        self._before = None

    def _edit(self, edit: Callable[[Mask, int, NDArray[np.bool_] | None], Mask]) -> None:
        target = self._session.target
        mask = None if target is None else self._mask(target)
        if target is None or mask is None:
            return
        try:
            made = edit(mask, self.lesion, self._kept(target, mask))
        except ValueError as error:
            show_notice(f"{str(error)[:1].upper()}{str(error)[1:]}")
            return
        if not np.array_equal(made, mask):
            self._write(target, made)

    def _write(self, target: Target, mask: Mask) -> None:
        self._session.write(target, mask, by_hand=True)
        self._made[target.key] = self._session.state(target).written, mask.copy()
        self._session.changed.emit()

    def _mask(self, target: Target) -> Mask | None:
        try:
            found = read_mask(self._session.viewer, target)
        except SonoloopError as error:
            show_problem(error)
            return None
        return np.zeros(target.grid[-2:], np.uint8) if found is None else found

    def _kept(self, target: Target, mask: Mask) -> NDArray[np.bool_] | None:
        """Find what a person painted on what the program had written, since they want that kept."""
        if not self._keep.isChecked():
            self._painted.pop(target.key, None)
            return None
        written = self._session.state(target).written
        proposed, made = self._made.get(target.key, (None, None))
        if made is not None and proposed is written:
            written = made  # what was repaired is nobody's painting
        now = mask > 0 if written is None or written.shape != mask.shape else written != mask
        before = self._painted.get(target.key)
        painted = now if before is None or before.shape != mask.shape else before | now
        self._painted[target.key] = painted
        return painted

    def _is_current(self, target: Target) -> bool:
        current = self._session.target
        return current is not None and current.key == target.key

    def _lesions(self) -> Any:  # noqa: ANN401 - napari's proxy of a Labels layer
        target = self._session.target
        return None if target is None else find_layer(self._session.viewer, target.image, "lesions")

    def _on_fold(self, shown: bool) -> None:
        self._tools.setVisible(shown)
        if not shown:
            self._take(None)

    def _on_tool(self, tool: str, on: bool) -> None:
        self._take(tool if on else None)

    def _on_target(self) -> None:
        if self._tool is not None:
            self._take(self._tool)

    def _take(self, tool: str | None) -> None:
        """Have the mouse do a tool's work on the lesions layer, or nothing of ours."""
        self._let_go()
        target = self._session.target
        if tool is not None and target is not None and self._lesions() is None:
            self._session.write(target, np.zeros(target.grid[-2:], np.uint8))
        layer = self._lesions() if tool is not None else None
        self._tool = tool
        for name, button in self._buttons.items():
            button.setChecked(name == tool)
        if layer is None:
            return
        self._layer = layer
        layer.mode = "pan_zoom"
        layer.mouse_pan = False
        layer.mouse_drag_callbacks.append(self._on_drag)
        layer.events.mode.connect(self._on_mode)
        self._session.viewer.layers.selection.active = layer

    def _let_go(self) -> None:
        layer, self._layer = self._layer, None
        if layer is None:
            return
        layer.events.mode.disconnect(self._on_mode)
        if self._on_drag in layer.mouse_drag_callbacks:
            layer.mouse_drag_callbacks.remove(self._on_drag)
        if layer.mode == "pan_zoom":
            layer.mouse_pan = True

    def _on_mode(self, _event: object = None) -> None:
        # another tool of napari's was taken
        if self._layer is not None and self._layer.mode != "pan_zoom":
            self._take(None)

    def _on_drag(self, layer: Any, event: Any) -> Iterator[None]:  # noqa: ANN401 - napari's
        """Follow a press of the mouse to its end."""
        inside = event.button == 1 and "Alt" not in event.modifiers
        points = [self._place(layer, event)]
        yield
        while event.type == "mouse_move":
            points.append(self._place(layer, event))
            yield
        self._on_drawn(points, inside=inside)

    def _place(self, layer: Any, event: Any) -> tuple[float, float]:  # noqa: ANN401 - napari's
        down, across = layer.world_to_data(event.position)[-2:]
        return float(down), float(across)

    def _select(self, target: Target, point: tuple[float, float]) -> None:
        """Take the lesion that is pointed at for the one at hand."""
        mask, layer = self._mask(target), self._lesions()
        if mask is not None and layer is not None and (number := int(mask[round(point[0]), round(point[1])])):
            layer.selected_label = number

    def _on_drawn(self, points: list[tuple[float, float]], *, inside: bool) -> None:
        target = self._session.target
        if target is None:
            return
        height, width = target.grid[-2:]
        drawn = [(r, c) for r, c in points if -0.5 <= r < height - 0.5 and -0.5 <= c < width - 0.5]
        if not drawn:
            return
        if self._tool != "box":
            self._select(target, drawn[0])
        if self._tool == "box":
            ends = np.clip(np.array(points), 0, (height - 1, width - 1))
            low, high = ends.min(0), ends.max(0)
            if (high - low).min() >= _CLICK:
                self.point(self.prompts().enclose(*low, *high))
        elif self._tool == "line":
            self.point(self.prompts().scribble(drawn, inside=inside))
        else:
            self.point(self.prompts().click(*drawn[0], inside=inside))


def _button(title: str, help_: str, action: Callable[[], object]) -> QPushButton:
    button = QPushButton(title)
    button.setToolTip(help_)
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    button.clicked.connect(lambda _checked=False: action())
    return button
