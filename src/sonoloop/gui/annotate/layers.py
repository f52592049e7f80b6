"""The layers that Sonoloop adds to an image: lesions and uncertainty."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from sonoloop import __version__
from sonoloop.errors import SonoloopError
from sonoloop.gui.annotate.frames import Target, is_source
from sonoloop.imaging.overlay import lesion_colour
from sonoloop.values import CLASSES, Prediction

if TYPE_CHECKING:
    from napari.components import ViewerModel

OUTLINE = {"contour": 2, "opacity": 0.9}
FILL = {"contour": 0, "opacity": 0.35}

# thin and white, apart from what the annotator drew
_PROPOSAL = {"contour": 1, "opacity": 0.9}

Kind = Literal["lesions", "uncertainty", "proposal"]


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
    placed = all(np.allclose(getattr(layer, n), getattr(target.image, n)) for n in ("scale", "translate"))
    if not placed or find_layer(viewer, target.image, "lesions") is not None or np.any(layer.data):
        return
    owner = str(target.image.unique_id)
    layer.metadata = {**layer.metadata, "sonoloop": {"kind": "lesions", "image": owner}}


def read_mask(viewer: ViewerModel, target: Target) -> NDArray[np.uint8] | None:
    """Copy the mask that is drawn on a frame.

    Returns
    -------
    numpy.ndarray or None
        uint8 (H, W); None where the image has no lesions layer.

    Raises
    ------
    SonoloopError
        If a label does not fit a stored mask.
    """
    layer = find_layer(viewer, target.image, "lesions")
    if layer is None:
        return None
    plane = np.asarray(layer.data[target.index])
    low, high = plane.min(initial=0), plane.max(initial=0)
    if low < 0 or high > 255:
        raise SonoloopError(
            f"{layer.name} holds the label {low if low < 0 else high}; Sonoloop keeps the labels 1 to 255, "
            "one a lesion: fill the lesion with another number"
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
    layer = find_layer(viewer, target.image, "uncertainty")
    if layer is not None:
        layer.data[target.index] = uncertainty
        layer.refresh()
        return
    data = np.zeros(target.grid, np.float32)
    data[target.index] = uncertainty
    image = target.image
    layer = Image(
        data,
        name=f"{image.name} uncertainty",
        colormap="inferno",
        contrast_limits=(0, 1),
        blending="additive",
        visible=False,
        metadata={"sonoloop": {"kind": "uncertainty", "image": str(image.unique_id)}},
        **_placement(image),
    )
    _insert(viewer, image, layer)


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
        metadata={"sonoloop": {"kind": "proposal", "image": str(image.unique_id)}},
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


def show_only(viewer: ViewerModel, image: Image) -> None:
    """Show an image with what was drawn on it, and hide the other images that Sonoloop opened with theirs."""
    owner = str(image.unique_id)
    others = {
        str(layer.unique_id)
        for layer in viewer.layers
        if is_source(layer) and "sonoloop" in layer.metadata and layer != image
    }
    for layer in viewer.layers:
        belongs_to = layer.metadata.get("sonoloop", {}).get("image", str(layer.unique_id))
        hide = belongs_to in others
        about = layer.metadata.get("sonoloop", {})
        show = belongs_to == owner and (layer == image or about.get("kind") in ("lesions", "proposal"))
        # napari takes setting it anew for a change, and forgets the layer's tool
        if (hide and layer.visible) or (show and not layer.visible):
            layer.visible = show


def _lesions_layer(image: Image, data: NDArray[np.uint8]) -> Labels:
    clear = (0.0, 0.0, 0.0, 0.0)
    colours: dict[int | None, tuple[float, ...]] = {None: clear, 0: clear}
    colours.update((n, (*(part / 255 for part in lesion_colour(n)), 1.0)) for n in range(1, 256))
    layer = Labels(
        data,
        name=f"{image.name} lesions",
        colormap=DirectLabelColormap(color_dict=colours),
        opacity=OUTLINE["opacity"],
        metadata={"sonoloop": {"kind": "lesions", "image": str(image.unique_id)}},
        **_placement(image),
    )
    layer.contour = int(OUTLINE["contour"])
    return layer


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
    """Insert above the image: the uncertainty directly, the proposal above that, the lesions on top."""
    active = viewer.layers.selection.active
    place = viewer.layers.index(image) + 1
    below: tuple[Kind, ...] = ()
    if layer.metadata["sonoloop"]["kind"] == "proposal":
        below = ("uncertainty",)
    elif is_lesions(layer):
        below = ("uncertainty", "proposal")
    place += sum(find_layer(viewer, image, kind) is not None for kind in below)
    viewer.layers.insert(place, layer)
    viewer.layers.selection.active = active
