"""Which frame of which layer is meant, and what is known and decided of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray

from sonoloop.gui.preferences import Desk
from sonoloop.imaging.grey import frame_from_array
from sonoloop.values import Frame, Label, Prediction

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from sonoloop.store.revisions import Revision

Index = tuple[int, ...]
Key = tuple[str, Index]


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One frame of an image layer; `index` is empty where the layer is one frame."""

    image: Image
    index: Index = ()

    @property
    def key(self) -> Key:
        """What the frame is called as long as its layer lives."""
        return str(self.image.unique_id), self.index

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of the layer without its colour channels."""
        data = self.image.data[0] if self.image.multiscale else self.image.data
        shape: tuple[int, ...] = tuple(data.shape)
        return shape[:-1] if self.image.rgb else shape

    @property
    def name(self) -> str:
        """The frame's name before a user."""
        recorded = self._recorded("names")
        if recorded is not None:
            return str(recorded)
        if not self.index:
            return str(self.image.name)
        return f"{self.image.name} [{', '.join(str(i + 1) for i in self.index)}]"

    @property
    def spacing(self) -> tuple[float, float] | None:
        """Row and column spacing in mm, where the layer's units are lengths."""
        spacing = []
        for scale, unit in zip(self.image.scale[-2:], self.image.units[-2:], strict=True):
            if not unit.is_compatible_with("mm"):
                return None
            spacing.append(float((float(scale) * unit).to("mm").magnitude))
        return spacing[0], spacing[1]

    def capture(self) -> Source:
        """Take what a worker needs; it may not touch the layer itself."""
        data = self.image.data[0] if self.image.multiscale else self.image.data
        return Source(
            plane=data[self.index],
            name=self.name,
            id=self._recorded("frame_ids"),
            pixels_hash=self._recorded("pixels_hashes"),
            spacing=self.spacing,
            file=self._recorded("files"),
            sample=bool(self.image.metadata.get("sonoloop", {}).get("sample")),
        )

    def _recorded(self, what: str) -> Any:  # noqa: ANN401 - a text, or the file with its page
        """Look up what the reader recorded of this frame; None where it recorded nothing."""
        values = self.image.metadata.get("sonoloop", {}).get(what)
        stack = self.grid[:-2]
        number = int(np.ravel_multi_index(self.index, stack)) if self.index else 0
        return values[number] if values is not None and number < len(values) else None


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The data of a frame, captured in the GUI thread; `file` is where it came from, and its page there."""

    plane: Any
    name: str
    id: str | None
    pixels_hash: str | None
    spacing: tuple[float, float] | None
    file: tuple[Path, int] | None = None
    sample: bool = False

    def frame(self) -> Frame:
        """Make the frame; the file's id holds only while the pixels are still those of the file."""
        frame = frame_from_array(np.asarray(self.plane), name=self.name, spacing=self.spacing)
        if self.id is None or frame.pixels_hash != self.pixels_hash:
            return frame
        return replace(frame, id=self.id)


@dataclass(slots=True, eq=False)
class FrameState:
    """What is known and decided of one frame while its layer is open.

    Parameters
    ----------
    looked_up : Desk, optional
        As whom and where an earlier correction was looked for; `parent` holds for these alone.
    prediction : Prediction, optional
        The model's, as it is shown; the stored correction's after reopening.
    held : Prediction, optional
        The model's, as long as it may not be shown.
    draw_first : bool, optional
        Whether the annotator draws before the prediction is shown; None until the store has said.
    label : str, optional
        The class that the annotator chose.
    written : numpy.ndarray, optional
        The mask that the program last put on the canvas; what differs from it was drawn by a person.
    cleared : numpy.ndarray, optional
        The mask that choosing "normal" took away, until another class brings it back.
    revision : Revision, optional
        What the store holds of this frame.
    parent : str, optional
        The annotator's own head, on which the next correction builds.
    saving : bool
        Whether a correction is on its way to the store.
    """

    looked_up: Desk | None = None
    prediction: Prediction | None = None
    held: Prediction | None = None
    draw_first: bool | None = None
    label: Label | None = None
    written: NDArray[np.uint8] | None = None
    cleared: NDArray[np.uint8] | None = None
    revision: Revision | None = None
    parent: str | None = None
    saving: bool = False

    @property
    def withheld(self) -> bool:
        """Whether a prediction may not be shown yet."""
        return self.draw_first is None or (self.draw_first and self.parent is None)


def current_target(viewer: ViewerModel) -> Target | None:
    """Find the frame that a user means: of the active layer, else of the topmost visible image."""
    image = _current_image(viewer)
    if image is None:
        return None
    depth = image.ndim - 2
    if depth == 0:
        return Target(image)
    position = np.rint(image.world_to_data(viewer.dims.point)).astype(int)[:depth]
    shape = Target(image).grid
    return Target(image, tuple(int(np.clip(p, 0, n - 1)) for p, n in zip(position, shape, strict=False)))


def _current_image(viewer: ViewerModel) -> Image | None:
    images = {str(layer.unique_id): layer for layer in viewer.layers if is_source(layer)}
    active = viewer.layers.selection.active
    if active is not None:
        owner = active.metadata.get("sonoloop", {}).get("image", str(active.unique_id))
        if owner in images:
            return images[owner]
    visible = [image for image in images.values() if image.visible]
    return visible[-1] if visible else None


def is_source(layer: object) -> bool:
    """Whether the layer is an image to look at, and not one that Sonoloop made of another."""
    return isinstance(layer, Image) and "image" not in layer.metadata.get("sonoloop", {})
