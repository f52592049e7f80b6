"""One image of a dataset with what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import TrainingError
from sonoloop.imaging.io import read_study
from sonoloop.values import ClassName, Frame

_LOSSY = frozenset({".jpg", ".jpeg"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image on disk with what is known of it.

    Parameters
    ----------
    name : str
        Unique within its dataset.
    dataset : str
        "busi", "busbra", "udiat", or the name of the user's own folder.
    image : pathlib.Path
        The image file.
    masks : tuple of pathlib.Path
        One file a lesion, or none.
    label : str
        The class.
    group : str
        Patient, or near-duplicates: never split between training and test.
    computed : bool
        Whether the group was computed from the images: then its name and members change with what is added.
    patient : str
        As the dataset numbers its patients; empty where it does not.
    scanner : str
        Maker and model; empty where unknown.
    overlay : bool, optional
        Whether callipers, text or body marks are burned in, into it or a near-duplicate of it.
    facts : mapping
        What else the dataset says, as text: "histology", "birads", "side", "device", "objection" (BUSI's
        axilla and needle images), "overlay" (which kinds), "5-fold" and "10-fold" (BUS-BRA's folds), and the
        other columns of a user's own table.
    """

    name: str
    dataset: str
    image: Path
    masks: tuple[Path, ...]
    label: ClassName
    group: str
    computed: bool = False
    patient: str = ""
    scanner: str = ""
    overlay: bool | None = None
    facts: Mapping[str, str] = field(default_factory=dict, hash=False)

    def read(self) -> tuple[Frame, NDArray[np.bool_]]:
        """Read the frame and the union of its masks, both (H, W).

        Raises
        ------
        TrainingError
            If a lesion has no mask or an empty one, a normal image has a lesion drawn, or a mask has another
            size than its image.
        ImageError
            If a file cannot be read.
        """
        if not self.masks and self.label != "normal":
            # an empty mask would teach that there is no lesion
            raise TrainingError(f"{self.image.name} is {self.label} and has no mask; add it, or move it away")
        frame = read_study(self.image).frames[0]
        mask = np.zeros(frame.shape, np.bool_)
        for path in self.masks:
            mask |= read_mask(path, frame.shape)
        if self.label != "normal" and not mask.any():
            raise TrainingError(
                f"{self.image.name} is {self.label} and its mask is empty; draw the lesion, or correct the "
                "class"
            )
        if self.label == "normal" and mask.any():
            raise TrainingError(
                f"{self.image.name} is normal and has a lesion in its mask; correct the class, or empty the "
                "mask"
            )
        return frame, mask


def read_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a 1-bit, grey or colour mask file as (H, W) booleans.

    Every level above 0 is the lesion; in a JPEG every level above 127.

    Raises
    ------
    TrainingError
        If its size is not the image's.
    ImageError
        If it cannot be read.
    """
    # the compression leaves grey specks around the edges of a JPEG
    background = 127 if path.suffix.lower() in _LOSSY else 0
    mask: NDArray[np.bool_] = read_study(path).frames[0].pixels > background
    if mask.shape != shape:
        raise TrainingError(
            f"{path.name} is {mask.shape[1]} x {mask.shape[0]}, its image {shape[1]} x {shape[0]}"
        )
    return mask
