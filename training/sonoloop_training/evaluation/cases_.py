"""Frames with their truth, and what is known of where they came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sonoloop.values import Frame
from sonoloop_training.datasets import Sample


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A frame with its truth.

    Parameters
    ----------
    frame : Frame
        What a model sees.
    mask : numpy.ndarray
        Its lesions, bool (H, W).
    label : str
        Its class.
    dataset, group : str
        See `sonoloop_training.datasets.Sample`.
    name : str
        Unique within its dataset; empty where nobody needs it.
    patient, scanner : str
        Empty where they are not known.
    overlay : bool, optional
        Whether callipers, text or marks are burned in; None where that is not known.
    """

    frame: Frame
    mask: NDArray[np.bool_]
    label: str
    dataset: str
    group: str
    name: str = ""
    patient: str = ""
    scanner: str = ""
    overlay: bool | None = None


def read_case(sample: Sample) -> Case:
    """Read a sample's frame and masks; raises what `Sample.read` does."""
    frame, mask = sample.read()
    return Case(
        frame=frame,
        mask=mask,
        label=sample.label,
        dataset=sample.dataset,
        group=sample.group,
        name=sample.name,
        patient=sample.patient,
        scanner=sample.scanner,
        overlay=sample.overlay,
    )
