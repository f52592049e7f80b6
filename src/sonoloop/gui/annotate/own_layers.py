"""Layers that the annotator drew with napari's own tools: offered as the mask of the frame they lie on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Shapes
from numpy.typing import NDArray
from skimage.draw import polygon2mask

from sonoloop.errors import SonoloopError
from sonoloop.gui.annotate.layers import Target, is_placed_alike
from sonoloop.gui.words import shorten

if TYPE_CHECKING:
    from napari.components import ViewerModel

_MOST = 255  # lesions of a mask
_AREAS = ("polygon", "rectangle", "ellipse")


@dataclass(frozen=True, slots=True)
class Offer:
    """A layer that may be meant as the mask; `why_not` says why it cannot be used, and `text` what it is."""

    layer: str
    name: str
    text: str
    why_not: str | None = None


def find_offers(viewer: ViewerModel, target: Target, left: Collection[tuple[str, str]]) -> tuple[Offer, ...]:
    """List what is drawn on a frame in layers that are not Sonoloop's, topmost first.

    Hidden layers are put aside, and those in `left`, pairs of a layer and an image, the annotator has left.
    """
    offers = []
    for layer in reversed(viewer.layers):
        if not isinstance(layer, Labels | Shapes) or "image" in layer.metadata.get("sonoloop", {}):
            continue
        if not layer.visible or layer.opacity == 0 or (str(layer.unique_id), target.key[0]) in left:
            continue
        offer = _offer_labels(layer, target) if isinstance(layer, Labels) else _offer_shapes(layer, target)
        if offer is not None:
            offers.append(offer)
    return tuple(offers)


def mask_of(viewer: ViewerModel, target: Target, offer: Offer) -> NDArray[np.uint8]:
    """Make the mask of a frame of what an offered layer holds there; labels above 255 are numbered anew."""
    layer = next((each for each in viewer.layers if str(each.unique_id) == offer.layer), None)
    if layer is None:
        raise SonoloopError(f"the layer {shorten(offer.name)} is gone: nothing was changed")
    if isinstance(layer, Shapes):
        return _draw_shapes(layer, target)
    plane = _plane(layer, target)
    assert plane is not None
    return _number(plane, layer.name)


def _offer_labels(layer: Labels, target: Target) -> Offer | None:
    key, name = str(layer.unique_id), shorten(layer.name)
    plane = _plane(layer, target)
    if plane is None:
        if not np.any(_data(layer)):
            return None
        size, own = _size(_data(layer).shape), _size(target.grid)
        return Offer(key, layer.name, f"“{name}” has {size} pixels, this image {own}", why_not="size")
    if not plane.any():
        return None
    if is_placed_alike(layer, target.image):
        return Offer(key, layer.name, f"“{name}” holds what is drawn on this image")
    return Offer(key, layer.name, f"“{name}” has this image's size, and lies elsewhere")


def _offer_shapes(layer: Shapes, target: Target) -> Offer | None:
    key, name = str(layer.unique_id), shorten(layer.name)
    here = [kind for kind, _ in _shapes(layer, target)]
    if not here:
        return None
    if not any(kind in _AREAS for kind in here):
        return Offer(key, layer.name, f"“{name}” holds lines; a mask needs closed shapes", why_not="lines")
    return Offer(key, layer.name, f"“{name}” holds shapes, which can be filled")


def _data(layer: Labels) -> Any:  # noqa: ANN401 - an array of any kind
    return layer.data[0] if layer.multiscale else layer.data


def _plane(layer: Labels, target: Target) -> NDArray[Any] | None:
    """Take what lies on a frame: of a layer of the image's shape, or of one plane over all its frames."""
    data = _data(layer)
    if tuple(data.shape) == target.grid:
        return np.asarray(data[target.index])
    return np.asarray(data) if tuple(data.shape) == target.grid[-2:] else None


def _size(shape: tuple[int, ...]) -> str:
    """Spell a shape as width, height, frames."""
    return " x ".join(str(number) for number in (shape[-1], *shape[-2::-1]))


def _number(plane: NDArray[Any], name: str) -> NDArray[np.uint8]:
    values = np.unique(plane)
    values = values[values != 0]
    # 255 alone is how other programs write a mask of one lesion
    if values.size and values.min() > 0 and values.max() < _MOST:
        return plane.astype(np.uint8)
    if values.size > _MOST:
        raise SonoloopError(
            f"“{shorten(name)}” holds {values.size} labels; a mask keeps at most {_MOST} lesions"
        )
    numbered = np.searchsorted(values, plane).astype(np.uint8) + 1
    return np.where(plane != 0, numbered, 0).astype(np.uint8)


def _shapes(layer: Shapes, target: Target) -> list[tuple[str, NDArray[np.float64]]]:
    """List the shapes on a frame, each with its outline in the frame's pixels."""
    found = []
    for kind, corners in zip(layer.shape_type, layer.data, strict=True):
        outline = _ellipse(corners) if kind == "ellipse" else np.asarray(corners, float)
        pixels = np.array([target.image.world_to_data(layer.data_to_world(point)) for point in outline])
        depth = len(target.index)
        # a flat layer of shapes lies over all frames
        if (
            layer.ndim > 2
            and depth
            and not np.array_equal(np.rint(pixels[0, :depth]).astype(int), target.index)
        ):
            continue
        found.append((kind, pixels[:, -2:]))
    return found


def _ellipse(corners: NDArray[Any]) -> NDArray[np.float64]:
    """Follow an ellipse, which napari keeps as the corners of its box."""
    box = np.asarray(corners, float)
    centre, across, along = box.mean(axis=0), (box[1] - box[0]) / 2, (box[3] - box[0]) / 2
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)[:, None]
    outline: NDArray[np.float64] = centre + np.cos(angles) * across + np.sin(angles) * along
    return outline


def _draw_shapes(layer: Shapes, target: Target) -> NDArray[np.uint8]:
    areas = [outline for kind, outline in _shapes(layer, target) if kind in _AREAS]
    if len(areas) > _MOST:
        raise SonoloopError(
            f"“{shorten(layer.name)}” holds {len(areas)} shapes; a mask keeps at most {_MOST} lesions"
        )
    mask = np.zeros(target.grid[-2:], np.uint8)
    for number, outline in enumerate(areas, start=1):
        mask[polygon2mask(mask.shape, outline)] = number
    if not mask.any():
        raise SonoloopError(f"the shapes of “{shorten(layer.name)}” lie outside of this image")
    return mask
