"""The layers that Sonoloop made of an image follow it: its place, name, eye and order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer
from napari.utils.transforms import Affine

from sonoloop.gui.annotate.layers import is_source, owned_layers, owner_id

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

_PLACE = ("scale", "translate", "rotate", "shear", "affine", "units")


class Followers:
    """Keeps the layers of every image where the image is.

    Parameters
    ----------
    viewer : ViewerModel
        The viewer, or napari's public proxy of it.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._names = {str(layer.unique_id): layer.name for layer in viewer.layers if is_source(layer)}
        # which of an image's layers were seen when it was hidden
        self._seen: dict[str, dict[str, bool]] = {}
        viewer.layers.events.connect(self._on_event)

    def close(self) -> None:
        """Stop listening."""
        self._viewer.layers.events.disconnect(self._on_event)

    def _on_event(self, event: Any) -> None:  # noqa: ANN401 - napari's event
        if event.type == "inserted":
            self._names[str(event.value.unique_id)] = event.value.name
        elif event.type in _PLACE or event.type in ("name", "visible"):
            layer = self._viewer.layers[event.index]
            if not is_source(layer):
                self._on_follower(layer, event.type)
            elif event.type == "name":
                self._rename(layer)
            elif event.type == "visible":
                self._show(layer)
            else:
                for follower in owned_layers(self._viewer, layer):
                    _take(follower, layer, event.type)

    def _on_follower(self, layer: Layer, what: str) -> None:
        """Put a mask that was moved by itself back on its image: it is stored by pixels, not by place."""
        if what in _PLACE and owner_id(layer) != str(layer.unique_id):
            owner = owner_id(layer)
            image = next((each for each in self._viewer.layers if str(each.unique_id) == owner), None)
            if image is not None:
                _take(layer, image, what)

    def _rename(self, image: Image) -> None:
        key = str(image.unique_id)
        before, self._names[key] = self._names.get(key), image.name
        for layer in owned_layers(self._viewer, image):
            kind = layer.metadata["sonoloop"]["kind"]
            # a name that the user gave stays
            if before is not None and re.fullmatch(
                rf"{re.escape(f'{before} {kind}')}( \[\d+\])?", layer.name
            ):
                layer.name = f"{image.name} {kind}"

    def _show(self, image: Image) -> None:
        key = str(image.unique_id)
        layers = owned_layers(self._viewer, image)
        if not image.visible:
            self._seen[key] = {str(layer.unique_id): layer.visible for layer in layers}
        seen = self._seen.pop(key, {}) if image.visible else {}
        for layer in layers:
            usual = layer.metadata["sonoloop"]["kind"] in ("lesions", "proposal")
            visible = image.visible and seen.get(str(layer.unique_id), usual)
            # napari takes setting it anew for a change, and forgets the layer's tool
            if layer.visible != visible:
                layer.visible = visible


def put_in_order(viewer: ViewerModel) -> None:
    """Bring every image's layers directly above it, in the order they have."""
    layers = list(viewer.layers)
    # asked once of each layer: a folder opens as 200, and this follows each move of a slider
    owners = [owner_id(layer) for layer in layers]
    groups = {owner: [layer] for owner, layer in zip(owners, layers, strict=True) if is_source(layer)}
    for owner, layer in zip(owners, layers, strict=True):
        if not is_source(layer) and owner in groups:
            groups[owner].append(layer)
    wanted: list[Layer] = []
    for owner, layer in zip(owners, layers, strict=True):
        if is_source(layer):
            wanted += groups[owner]
        elif owner not in groups:
            wanted.append(layer)
    if all(one is other for one, other in zip(wanted, layers, strict=True)):
        return
    for place, layer in enumerate(wanted):
        if (now := viewer.layers.index(layer)) != place:
            viewer.layers.move(now, place)


def _take(layer: Layer, image: Image, what: str) -> None:
    value = getattr(image, what)
    if not _same(getattr(layer, what), value):
        setattr(layer, what, value)


def _same(one: Any, other: Any) -> bool:  # noqa: ANN401 - numbers, a matrix, or units
    if isinstance(one, Affine):
        return bool(np.allclose(one.affine_matrix, other.affine_matrix))
    if isinstance(one, tuple):
        return bool(one == other)
    return bool(np.allclose(one, other))
