"""The sample study: simulated images, so that a first try needs nobody's data."""

from __future__ import annotations

from typing import Any

from sonoloop.gui.reader import layer_data, show_first
from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.phantom import Phantom, sample_study

LayerData = tuple[Any, dict[str, Any], str]


def benign() -> list[LayerData]:
    """Open the benign phantom."""
    return [_sample(sample_study()[0])]


def malignant() -> list[LayerData]:
    """Open the malignant phantom."""
    return [_sample(sample_study()[1])]


def normal() -> list[LayerData]:
    """Open the normal phantom."""
    return [_sample(sample_study()[2])]


def study() -> list[LayerData]:
    """Open all three, the benign one shown."""
    layers = [_sample(phantom) for phantom in sample_study()]
    show_first(layers)
    return layers


def _sample(phantom: Phantom) -> LayerData:
    frame = frame_from_array(phantom.image, name=f"{phantom.label} phantom")
    data, options, kind = layer_data(frame.name, (frame,), None)
    # nobody's data: it is neither drawn into a part nor hidden from the annotator
    options["metadata"]["sonoloop"]["sample"] = True
    return data, options, kind
