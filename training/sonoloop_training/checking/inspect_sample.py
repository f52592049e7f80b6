"""One image with its masks: what they hold, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sonoloop.errors import ImageError
from sonoloop.imaging.fingerprints import Sketch, sketch
from sonoloop.imaging.grey import check_frame
from sonoloop.imaging.io import read_study
from sonoloop_training.burned_in import has_overlay
from sonoloop_training.datasets import Sample

FaultKind = Literal[
    "image unreadable",
    "mask unreadable",
    "mask missing",
    "mask empty",
    "mask of another size",
    "mask on normal",
    "mask not binary",
]
_PLACES = 48
_LOSSY = frozenset({".jpg", ".jpeg"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with an image or a mask.

    Parameters
    ----------
    kind : str
        One of `FaultKind`.
    detail : str
        What exactly, with the file's name; empty where the kind says it all.
    """

    kind: FaultKind
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inspection:
    """What a sample's files hold.

    Parameters
    ----------
    sample : Sample
        The sample.
    faults : tuple of Fault
        What is wrong; with an unreadable image nothing below is known.
    shape : tuple of int, optional
        Height and width.
    depth : str
        Such as "8-bit grey", "8-bit colour" (where the channels differ).
    lesions : int
        Connected lesions in all its masks.
    area : float
        Share of the frame that lesions cover.
    places : numpy.ndarray, optional
        Where lesions lie, boolean (48, 48) over the whole frame; only if there are any.
    overlay : bool
        Whether something looks burned in.
    sketch : Sketch, optional
        What comparing needs.
    """

    sample: Sample
    faults: tuple[Fault, ...]
    shape: tuple[int, int] | None = None
    depth: str = ""
    lesions: int = 0
    area: float = 0.0
    places: NDArray[np.bool_] | None = None
    overlay: bool = False
    sketch: Sketch | None = None


def inspect_sample(sample: Sample) -> Inspection:
    """Read a sample's image and masks; whatever is wrong is in its `faults`, nothing is raised for it."""
    try:
        study = read_study(sample.image)
        pixels = check_frame(study.frames[0]).pixels
    except ImageError as error:
        return Inspection(sample=sample, faults=(Fault(kind="image unreadable", detail=str(error)),))
    shape: tuple[int, int] = pixels.shape
    mask, faults = _read_masks(sample, shape)
    lesions = int(ndimage.label(mask, np.ones((3, 3)))[1])
    places = Image.fromarray(mask.astype(np.uint8) * 255).resize((_PLACES, _PLACES), Image.Resampling.BOX)
    return Inspection(
        sample=sample,
        faults=tuple(faults),
        shape=shape,
        depth=f"{pixels.dtype.itemsize * 8}-bit {'grey' if study.colour is None else 'colour'}",
        lesions=lesions,
        area=float(mask.mean()),
        places=np.asarray(places) >= 128 if lesions else None,
        overlay=has_overlay(pixels),
        sketch=sketch(pixels),
    )


def _read_masks(sample: Sample, shape: tuple[int, int]) -> tuple[NDArray[np.bool_], list[Fault]]:
    faults = []
    union = np.zeros(shape, np.bool_)
    whole = True
    for path in sample.masks:
        try:
            levels = read_study(path).frames[0].pixels
        except ImageError as error:
            faults.append(Fault(kind="mask unreadable", detail=str(error)))
            whole = False
            continue
        if levels.shape != shape:
            sizes = (f"{w} x {h}" for h, w in (levels.shape, shape))
            faults.append(
                Fault(kind="mask of another size", detail=f"{path.name} is {', its image '.join(sizes)}")
            )
            whole = False
            continue
        found = np.unique(levels)
        # the compression of a JPEG leaves grey around every edge; the loaders cut it at half
        lossy = path.suffix.lower() in _LOSSY
        if len(found) > 2 and not lossy:
            faults.append(Fault(kind="mask not binary", detail=f"{path.name} has {len(found)} levels"))
        union |= levels > (127 if lossy else 0)
    if not sample.masks and sample.label != "normal":
        faults.append(Fault(kind="mask missing"))
    elif whole and sample.label != "normal" and not union.any():
        faults.append(Fault(kind="mask empty"))
    elif sample.label == "normal" and union.any():
        faults.append(Fault(kind="mask on normal", detail=f"{union.mean():.1%} of the frame"))
    return union, faults
