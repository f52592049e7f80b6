"""A canvas to draw on: the lesions layer of a frame, empty if need be, with napari's brush in hand."""

from __future__ import annotations

import numpy as np

from sonoloop.errors import SonoloopError
from sonoloop.gui.annotate.frames import Target
from sonoloop.gui.annotate.layers import find_layer, read_mask, write_mask
from sonoloop.gui.annotate.session import Session

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
