"""The layers that Sonoloop adds to an image: lesions, uncertainty, heat map, the model's own outline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from sonoloop import __version__
from sonoloop.errors import SonoloopError
from sonoloop.gui.preferences import Identity
from sonoloop.gui.words import shorten
from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.overlay import lesion_colour
from sonoloop.values import CLASSES, ClassName, Frame, Label, Prediction

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from sonoloop.store.revisions import Revision


Index = tuple[int, ...]
Key = tuple[str, Index]


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One frame of an image layer; `index` is empty where the layer is one frame.

    A queue shows one frame after another in one layer: `source` says which one this is of, and `about` what
    the reader recorded of it, whatever the layer shows by now.
    """

    image: Image
    index: Index = ()
    source: str = field(init=False)
    about: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", source_key(self.image))
        object.__setattr__(self, "about", self.image.metadata.get("sonoloop", {}))

    @property
    def key(self) -> Key:
        """What the frame is called as long as its layer lives, or its queue."""
        return self.source, self.index

    @property
    def is_shown(self) -> bool:
        """Whether the layer still shows what it showed, and not another frame of a queue."""
        return self.source == source_key(self.image)

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of the layer without its colour channels."""
        data = self.image.data[0] if self.image.multiscale else self.image.data
        shape: tuple[int, ...] = tuple(data.shape)
        return shape[:-1] if self.image.rgb else shape

    @property
    def is_within(self) -> bool:
        """Whether the layer holds the frame; its data may have been replaced since."""
        return len(self.index) == len(self.grid) - 2 and all(
            i < n for i, n in zip(self.index, self.grid, strict=False)
        )

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
    def frame_ids(self) -> tuple[str, ...] | None:
        """Ids of all frames of the layer, where the reader recorded them."""
        ids: tuple[str, ...] | None = self.about.get("frame_ids")
        return ids

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
            orientation=self._recorded("orientations") or 1,
            simulated=bool(self.about.get("simulated")),
        )

    def _recorded(self, what: str) -> Any:  # noqa: ANN401 - a text, or the file with its page
        """Look up what the reader recorded of this frame; None where it recorded nothing."""
        values = self.about.get(what)
        if not self.is_within:
            return None
        number = int(np.ravel_multi_index(self.index, self.grid[:-2])) if self.index else 0
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
    simulated: bool = False
    orientation: int = 1

    def frame(self) -> Frame:
        """Make the frame; the file's id holds only while the pixels are still those of the file."""
        frame = frame_from_array(np.asarray(self.plane), name=self.name, spacing=self.spacing)
        frame = replace(frame, simulated=self.simulated)
        if self.id is None or frame.pixels_hash != self.pixels_hash:
            return frame
        path, index = self.file or (None, 0)
        return replace(frame, id=self.id, path=path, index=index, orientation=self.orientation)


@dataclass(slots=True, eq=False)
class FrameState:
    """What is known and decided of one frame while its layer is open.

    Parameters
    ----------
    looked_up : Identity, optional
        As whom and where an earlier correction was looked for; `parent` holds for these alone.
    prediction : Prediction, optional
        The model's, as it is shown; the stored correction's after reopening.
    held, held_uncertainty : Prediction and numpy.ndarray, optional
        The model's, as long as it may not be shown; the map was computed in the worker.
    kept : Prediction, optional
        The model's, made with those of the other frames of a stack, until the frame is looked at.
    draw_first : bool, optional
        Whether the annotator draws before the prediction is shown; None until the store has said.
    label : str, optional
        The class that the annotator chose.
    written : numpy.ndarray, optional
        The mask that the program last put on the canvas; what differs from it was drawn by a person.
    cleared : numpy.ndarray, optional
        The mask that choosing "normal" took away, until another class brings it back.
    lesions : dict
        The class of each lesion that has one, by its number; some may not be drawn any more.
    begun_from : str, optional
        The model whose proposal a draft had begun from that came back.
    revision : Revision, optional
        What the store holds of this frame.
    parent : str, optional
        The annotator's own head, on which the next correction builds.
    saving : bool
        Whether a correction is on its way to the store.
    source : Source, optional
        The frame of that correction, until the store has taken it.
    """

    looked_up: Identity | None = None
    prediction: Prediction | None = None
    held: Prediction | None = None
    held_uncertainty: NDArray[np.float32] | None = None
    kept: Prediction | None = None
    draw_first: bool | None = None
    label: Label | None = None
    written: NDArray[np.uint8] | None = None
    cleared: NDArray[np.uint8] | None = None
    lesions: dict[int, ClassName] = field(default_factory=dict)
    begun_from: str | None = None
    revision: Revision | None = None
    parent: str | None = None
    saving: bool = False
    source: Source | None = None

    @property
    def withheld(self) -> bool:
        """Whether a prediction may not be shown yet."""
        return self.draw_first is None or (self.draw_first and self.parent is None)


def current_target(viewer: ViewerModel, before: Target | None = None) -> Target | None:
    """Find the frame that a user means.

    It is of the active layer; else of the image that was current, as long as it is shown; else of the topmost
    image, of those that are shown if there are any.
    """
    image = _current_image(viewer, None if before is None else before.image)
    return None if image is None else frame_of(viewer, image)


def frame_of(viewer: ViewerModel, image: Image) -> Target:
    """Find the frame of an image that the sliders stand on, or are nearest to."""
    depth = image.ndim - 2
    if depth == 0:
        return Target(image)
    position = np.rint(slider_position(viewer, image)).astype(int)
    shape = Target(image).grid
    return Target(image, tuple(int(np.clip(p, 0, n - 1)) for p, n in zip(position, shape, strict=False)))


def slider_position(viewer: ViewerModel, image: Image) -> NDArray[np.float64]:
    """Where the sliders stand, in frames of a stack; may lie beyond them."""
    return np.asarray(image.world_to_data(viewer.dims.point), float)[: image.ndim - 2]


def look_of(target: Target) -> tuple[tuple[int, int], NDArray[Any] | None]:
    """Give a frame's size, and its colours where it has some that are at hand."""
    height, width = target.grid[-2:]
    image = target.image
    data = image.data[0] if image.multiscale else image.data
    in_memory = image.rgb and isinstance(data, np.ndarray)
    return (height, width), data[target.index] if in_memory else None


def _current_image(viewer: ViewerModel, before: Image | None) -> Image | None:
    images = {str(layer.unique_id): layer for layer in viewer.layers if is_source(layer)}
    active = viewer.layers.selection.active
    if active is not None and (of_active := images.get(owner_id(active))) is not None:
        return of_active
    alive = None if before is None else images.get(str(before.unique_id))
    if alive is not None and alive.visible:
        return alive
    visible = [image for image in images.values() if image.visible]
    rest = list(images.values()) if alive is None else [alive]
    return (visible or rest or [None])[-1]


def source_key(image: Image) -> str:
    """Give what an image is called: by its place in a queue, else by its layer."""
    return str(image.metadata.get("sonoloop", {}).get("entry", image.unique_id))


def owner_id(layer: Layer) -> str:
    """Id of the image that a layer belongs to; its own where it belongs to none."""
    return str(layer.metadata.get("sonoloop", {}).get("image", layer.unique_id))


def owned_layers(viewer: ViewerModel, image: Image) -> list[Layer]:
    """List the layers that Sonoloop made of an image, bottom to top."""
    owner = str(image.unique_id)
    return [layer for layer in viewer.layers if layer != image and owner_id(layer) == owner]


def is_source(layer: object) -> bool:
    """Whether the layer is an image to look at, and not one that Sonoloop made of another."""
    return isinstance(layer, Image) and "image" not in layer.metadata.get("sonoloop", {})


OUTLINE = {"contour": 2, "opacity": 0.9}
FILL = {"contour": 0, "opacity": 0.35}

# log odds by which a heat map's brightest spot counts: below, all of it is faint
_LEAST_HEAT = 0.5

# thin and white, apart from what the annotator drew
_PROPOSAL = {"contour": 1, "opacity": 0.9}

Kind = Literal["heat map", "uncertainty", "proposal", "lesions"]
# above the image, bottom to top
_ORDER: tuple[Kind, ...] = ("heat map", "uncertainty", "proposal", "lesions")


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """How much the parts of a frame speak for the class that a prediction names."""

    prediction: Prediction
    # see `sonoloop.models.predictor.Predictor.explain`
    values: NDArray[np.float32]

    @property
    def about(self) -> dict[str, str]:
        """What it explains, for the layer's metadata."""
        return _explained(self.prediction)


def _explained(prediction: Prediction) -> dict[str, str]:
    return {"model": prediction.model, "frame_id": prediction.frame_id, "class": prediction.label}


def find_layer(viewer: ViewerModel, image: Image, kind: Kind) -> Any:  # noqa: ANN401 - Labels or Image
    """Find the layer of that kind that belongs to the image; None if there is none."""
    owner = str(image.unique_id)
    for layer in viewer.layers:
        about = layer.metadata.get("sonoloop", {})
        if about.get("kind") == kind and about.get("image") == owner:
            return layer
    return None


def is_lesions(layer: object) -> bool:
    """Whether the layer is one of Sonoloop's masks."""
    return isinstance(layer, Labels) and layer.metadata.get("sonoloop", {}).get("kind") == "lesions"


def adopt_layer(viewer: ViewerModel, target: Target) -> None:
    """Take an empty Labels layer that a user made on the image, and is about to draw in, for its lesions."""
    layer = viewer.layers.selection.active
    if not isinstance(layer, Labels) or "sonoloop" in layer.metadata or layer.source.path is not None:
        return
    if layer.multiscale or layer.data.shape != target.grid:
        return
    if (
        not is_placed_alike(layer, target.image)
        or find_layer(viewer, target.image, "lesions") is not None
        or np.any(layer.data)
    ):
        return
    layer.metadata = {**layer.metadata, "sonoloop": _about(target.image, "lesions")}


def is_placed_alike(layer: Layer, image: Image) -> bool:
    """Whether a layer's pixels lie in the world where an image's lie."""
    return bool(np.allclose(_pixel_corners(layer), _pixel_corners(image)))


def _pixel_corners(layer: Layer) -> list[Any]:
    """Where the first pixel lies, and its neighbours below and to the right."""
    first = (0,) * (layer.ndim - 2)
    return [layer.data_to_world((*first, *at))[-2:] for at in ((0, 0), (1, 0), (0, 1))]


def keep_as_draft(layer: Labels) -> None:
    """Leave a mask by itself, hidden, until its image is there again."""
    about = layer.metadata["sonoloop"]
    layer.metadata = {
        **layer.metadata,
        "sonoloop": {"kind": "draft", "of": about["image"], "frames": about.get("frames")},
    }
    layer.visible = False


def take_up_draft(viewer: ViewerModel, target: Target) -> None:
    """Take the mask that was left of an image for its lesions again."""
    if find_layer(viewer, target.image, "lesions") is not None:
        return
    owner, frames = str(target.image.unique_id), target.frame_ids
    for layer in viewer.layers:
        about = layer.metadata.get("sonoloop", {})
        same = about.get("of") == owner or (frames is not None and about.get("frames") == frames)
        if about.get("kind") == "draft" and same and layer.data.shape == target.grid:
            layer.metadata = {**layer.metadata, "sonoloop": _about(target.image, "lesions")}
            for name, value in _placement(target.image).items():
                setattr(layer, name, value)
            layer.visible = True
            return


def read_mask(viewer: ViewerModel, target: Target) -> NDArray[np.uint8] | None:
    """Copy the mask that is drawn on a frame."""
    layer = find_layer(viewer, target.image, "lesions")
    if layer is None:
        return None
    plane = np.asarray(layer.data[target.index])
    if plane.dtype == np.uint8:
        return plane.copy()
    low, high = plane.min(initial=0), plane.max(initial=0)
    if low < 0 or high > 255:
        raise SonoloopError(
            f"“{shorten(layer.name)}” holds the label {low if low < 0 else high}; a mask keeps 1 to 255"
        )
    return plane.astype(np.uint8)


def write_mask(viewer: ViewerModel, target: Target, mask: NDArray[np.uint8]) -> None:
    """Put a mask on a frame, undoably where the lesions layer is there already."""
    layer = find_layer(viewer, target.image, "lesions")
    if layer is None:
        data = np.zeros(target.grid, np.uint8)
        data[target.index] = mask
        _insert(viewer, target.image, _lesions_layer(target.image, data))
        return
    rows, columns = np.nonzero(np.asarray(layer.data[target.index]) != mask)
    # through the history, and never `layer.data = ...`: undo would write old pixels into the new mask
    at = (*(np.full(rows.shape, i) for i in target.index), rows, columns)
    layer.data_setitem(at, mask[rows, columns].astype(layer.data.dtype))


def write_uncertainty(viewer: ViewerModel, target: Target, uncertainty: NDArray[np.float32]) -> None:
    """Put an uncertainty map on a frame."""
    _write_map(viewer, target, "uncertainty", uncertainty)


def write_heat_map(viewer: ViewerModel, target: Target, heat: HeatMap) -> None:
    """Put a heat map on a frame, in sight, with what it explains."""
    layer = _write_map(viewer, target, "heat map", heat.values)
    about = layer.metadata["sonoloop"]
    layer.metadata = {
        **layer.metadata,
        "sonoloop": {**about, "explains": {**about.get("explains", {}), target.index: heat.about}},
    }
    layer.contrast_limits = (0, max(float(layer.data.max()), _LEAST_HEAT))
    layer.visible = True


def toggle_heat_map(viewer: ViewerModel, target: Target, prediction: Prediction) -> bool:
    """Show or hide the heat map of a prediction; say whether there is one."""
    layer = find_layer(viewer, target.image, "heat map")
    if layer is None or layer.metadata["sonoloop"]["explains"].get(target.index) != _explained(prediction):
        return False
    layer.visible = not layer.visible
    return True


def forget_heat_map(viewer: ViewerModel, target: Target) -> None:
    """Take the heat map of an older prediction off a frame."""
    layer = find_layer(viewer, target.image, "heat map")
    if layer is not None and layer.metadata["sonoloop"]["explains"].pop(target.index, None) is not None:
        layer.data[target.index] = 0
        layer.refresh()


def _write_map(viewer: ViewerModel, target: Target, kind: Kind, values: NDArray[np.float32]) -> Image:
    layer: Image | None = find_layer(viewer, target.image, kind)
    if layer is not None:
        layer.data[target.index] = values
        layer.refresh()
        return layer
    data = np.zeros(target.grid, np.float32)
    data[target.index] = values
    image = target.image
    layer = Image(
        data,
        name=f"{image.name} {kind}",
        colormap="inferno",
        contrast_limits=(0, 1),
        blending="additive",
        # one looks through it at what it points to
        opacity=0.6 if kind == "heat map" else 1.0,
        visible=False,
        metadata={"sonoloop": _about(image, kind)},
        **_placement(image),
    )
    _insert(viewer, image, layer)
    return layer


def write_proposal(viewer: ViewerModel, target: Target, mask: NDArray[np.uint8]) -> None:
    """Show the model's mask on a frame as a thin outline under the annotator's, which it leaves alone."""
    layer = find_layer(viewer, target.image, "proposal")
    if layer is not None:
        layer.data[target.index] = mask
        layer.refresh()
        return
    data = np.zeros(target.grid, np.uint8)
    data[target.index] = mask
    image = target.image
    colours: dict[int | None, str] = dict.fromkeys(range(1, 256), "white")
    layer = Labels(
        data,
        name=f"{image.name} proposal",
        colormap=DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", **colours}),
        opacity=_PROPOSAL["opacity"],
        visible=image.visible,
        metadata={"sonoloop": _about(image, "proposal")},
        **_placement(image),
    )
    layer.contour = int(_PROPOSAL["contour"])
    layer.editable = False
    _insert(viewer, image, layer)


def record_prediction(viewer: ViewerModel, target: Target, prediction: Prediction) -> None:
    """Write where a mask came from into the lesions layer's metadata."""
    layer = find_layer(viewer, target.image, "lesions")
    about = dict(layer.metadata["sonoloop"])
    about["predictions"] = {
        **about.get("predictions", {}),
        target.index: {
            "model": prediction.model,
            "sonoloop": __version__,
            "frame_id": prediction.frame_id,
            "expected_dice": prediction.expected_dice,
            "classes": dict(zip(CLASSES, map(float, prediction.classes), strict=True)),
            "threshold": prediction.threshold,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }
    layer.metadata = {**layer.metadata, "sonoloop": about}


def show_only(viewer: ViewerModel, image: Image) -> list[str]:
    """Show an image with what was drawn on it; hide the others with theirs, and return their ids."""
    owner = str(image.unique_id)
    others = {str(layer.unique_id) for layer in viewer.layers if is_source(layer) and layer != image}
    hidden = []
    for layer in viewer.layers:
        belongs_to = owner_id(layer)
        about = layer.metadata.get("sonoloop", {})
        show = belongs_to == owner and (layer == image or about.get("kind") in ("lesions", "proposal"))
        # napari takes setting it anew for a change, and forgets the layer's tool
        if belongs_to in others and layer.visible:
            layer.visible = False
            hidden.append(str(layer.unique_id))
        elif show and not layer.visible:
            layer.visible = True
    return hidden


def _lesions_layer(image: Image, data: NDArray[np.uint8]) -> Labels:
    clear = (0.0, 0.0, 0.0, 0.0)
    colours: dict[int | None, tuple[float, ...]] = {None: clear, 0: clear}
    colours.update((n, (*(part / 255 for part in lesion_colour(n)), 1.0)) for n in range(1, 256))
    layer = Labels(
        data,
        name=f"{image.name} lesions",
        colormap=DirectLabelColormap(color_dict=colours),
        opacity=OUTLINE["opacity"],
        visible=image.visible,  # the user may be on another one by now
        metadata={"sonoloop": _about(image, "lesions")},
        **_placement(image),
    )
    layer.contour = int(OUTLINE["contour"])
    return layer


def warm_up_lesions() -> None:
    """Make a layer that nobody sees, in a worker: the first one loads libraries, and compiles."""
    blank = np.zeros((2, 2), np.uint8)
    _lesions_layer(Image(blank), blank)


def _about(image: Image, kind: Kind) -> dict[str, Any]:
    """Say in a layer's metadata whose it is: by the layer, and by the frames, which outlive it."""
    target = Target(image)
    return {"kind": kind, "image": str(image.unique_id), "frames": target.frame_ids, "grid": target.grid}


def fits(layer: Layer, image: Image) -> bool:
    """Whether a layer that was made of an image still is of its size: its data may have been replaced."""
    grid = layer.metadata["sonoloop"].get("grid")
    return grid is None or tuple(grid) == Target(image).grid


def _placement(image: Image) -> dict[str, Any]:
    """Where the image lies in the world, so that a layer made of it lies there too."""
    return {
        "scale": image.scale,
        "translate": image.translate,
        "rotate": image.rotate,
        "shear": image.shear,
        "affine": image.affine,
        "units": image.units,
    }


def _insert(viewer: ViewerModel, image: Image, layer: Layer) -> None:
    """Insert above the image and those of its layers that lie below this one."""
    active = viewer.layers.selection.active
    below = _ORDER[: _ORDER.index(layer.metadata["sonoloop"]["kind"])]
    place = viewer.layers.index(image) + 1
    place += sum(find_layer(viewer, image, kind) is not None for kind in below)
    viewer.layers.insert(place, layer)
    viewer.layers.selection.active = active


def replace_frame(
    viewer: ViewerModel,
    image: Image,
    data: NDArray[Any],
    options: Mapping[str, Any],
    mask: NDArray[np.uint8],
) -> None:
    """Show another frame in an image's layers, which are used again: its mask begins a history of its own.

    `data` and `options` are what the reader makes a layer of; the frame has as many channels as the last one.
    """
    image.metadata = {**image.metadata, **options["metadata"]}
    image.name = options["name"]
    image.data = data
    # napari takes setting what holds already for a change, and draws anew
    if not np.allclose(image.scale, scale := options.get("scale", (1, 1))):
        image.scale = scale
    if tuple(map(str, image.units)) != (units := options.get("units", ("pixel", "pixel"))):
        image.units = units
    for layer in owned_layers(viewer, image):
        kind = layer.metadata["sonoloop"]["kind"]
        layer.metadata = {**layer.metadata, "sonoloop": _about(image, kind)}
        if kind == "lesions":
            layer.data = mask
            _forget_history(layer)
            continue
        if kind == "heat map" and layer.visible:
            layer.visible = False
        if layer.data.shape == mask.shape:
            layer.data[...] = 0
            if layer.visible:
                layer.refresh()
        else:
            layer.data = np.zeros(mask.shape, layer.data.dtype)


def _forget_history(layer: Labels) -> None:
    """Forget what could be undone: it would write pixels of the last frame into this one."""
    reset = getattr(getattr(layer, "__wrapped__", layer), "_reset_history", None)
    if reset is not None:
        reset()
        return
    # napari's public way, which takes the tool away for a moment
    mode = layer.mode
    layer.editable = False
    layer.editable = True
    if layer.mode != mode:
        layer.mode = mode
