"""The frozen values that the packages hand each other; numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

ClassName = Literal["normal", "benign", "malignant"]
Label = Literal["normal", "benign", "malignant", "unsure"]
MaskDecision = Literal["kept", "edited", "new", "none"]
ClassDecision = Literal["kept", "changed", "new", "unsure"]
# what a mask was begun from: the proposal, one's own drawing before it was shown, nothing
EffortMode = Literal["proposal", "drawn first", "scratch"]

CLASSES: tuple[ClassName, ...] = get_args(ClassName)
LABELS: tuple[Label, ...] = get_args(Label)
EFFORT_MODES: tuple[EffortMode, ...] = get_args(EffortMode)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One grey image.

    Parameters
    ----------
    pixels : numpy.ndarray
        Grey levels, shape (H, W), any real dtype. A model reads 8-bit ones by their range, any other by
        their own minimum and maximum.
    id : str
        SHA-256 (64 hex digits) of the encoded bytes the frame came from; of the pixels where there was
        no file.
    pixels_hash : str
        SHA-256 (64 hex digits) of the decoded pixels, their shape and dtype.
    name : str
        What to call the frame before a user, usually the file's name.
    spacing : tuple of float, optional
        Row and column spacing in mm, only where a calibration is known.
    path : pathlib.Path, optional
        The file it came from, absolute, so that it is found again.
    index : int
        Its number in that file, from 0.
    simulated : bool
        Whether it is nobody's: it trains nothing, and judges nothing.
    orientation : int
        How its file says that it is to be turned, as EXIF numbers it, where an earlier Sonoloop left it as
        it was stored: `sonoloop.imaging.orientation.as_stored` gives it so. The pixels are upright.
    note : str, optional
        What of it is not there, or was not read, in words for a user.
    """

    pixels: NDArray[Any]
    id: str
    pixels_hash: str
    name: str
    spacing: tuple[float, float] | None = None
    path: Path | None = None
    index: int = 0
    simulated: bool = False
    orientation: int = 1
    note: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.pixels.shape
        return height, width


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """What a model said of a frame, on the frame's own grid.

    Parameters
    ----------
    frame_id : str
        The frame it was made for.
    lesion : numpy.ndarray
        Lesion probability, float32 (H, W) in [0, 1].
    mask : numpy.ndarray
        The proposed lesions, uint8 (H, W): 0 background, then one number a lesion, the largest first.
    classes : numpy.ndarray
        Calibrated probability of each of `CLASSES`, float32 (3,), sums to 1.
    expected_dice : float
        Calibrated expectation of the mask's Dice; for an empty mask the calibrated probability that
        there is no lesion.
    threshold : float
        Lesion probability above which a pixel entered `mask`.
    model : str
        Id of the model: its name and the first digits of its version.
    """

    frame_id: str
    lesion: NDArray[np.float32]
    mask: NDArray[np.uint8]
    classes: NDArray[np.float32]
    expected_dice: float
    threshold: float
    model: str

    @property
    def label(self) -> ClassName:
        """The most probable class."""
        return CLASSES[int(self.classes.argmax())]

    @property
    def lesions(self) -> int:
        """The number of lesions in the mask."""
        return int(self.mask.max(initial=0))

    @property
    def uncertainty(self) -> NDArray[np.float32]:
        """Binary entropy of `lesion` in bits, float32 (H, W) in [0, 1]: 0 where a pixel is sure."""
        yes = np.clip(self.lesion, 0, 1)
        # at 0 and 1 the product is 0, whatever stands in for the logarithm of 0
        tiny = np.finfo(np.float32).tiny
        entropy = -(yes * np.log2(np.maximum(yes, tiny)) + (1 - yes) * np.log2(np.maximum(1 - yes, tiny)))
        bits: NDArray[np.float32] = np.clip(entropy, 0, 1).astype(np.float32)
        return bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What a correction took.

    Parameters
    ----------
    started : datetime.datetime, optional
        When the frame was first worked on, with its time zone; only where the project records time.
    active_seconds : float, optional
        Time worked on it without the pauses; only where the project records time.
    strokes, clicks, undos : int
        How often each was made.
    mode : str
        "proposal", "drawn first" or "scratch".
    shown : tuple of (str, float)
        What was shown, and how many seconds after the start; None in place of the seconds where the project
        records no time.
    """

    started: datetime | None = None
    active_seconds: float | None = None
    strokes: int = 0
    clicks: int = 0
    undos: int = 0
    mode: EffortMode = "proposal"
    shown: tuple[tuple[str, float | None], ...] = ()

    def __post_init__(self) -> None:
        for name in ("strokes", "clicks", "undos"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
                raise ValueError(f"an effort's {name} must be a whole number from 0 on, got {value!r}")
        if self.mode not in EFFORT_MODES:
            raise ValueError(f"an effort's mode must be one of {', '.join(EFFORT_MODES)}, got {self.mode!r}")
        if self.started is not None and self.started.utcoffset() is None:
            raise ValueError("an effort's start must have a time zone")
        for seconds in (self.active_seconds, *(after for _, after in self.shown)):
            if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
                raise ValueError(f"an effort's seconds must be from 0 on, got {seconds!r}")

    def without_times(self) -> Effort:
        """Leave out when and for how long; what was done and shown stays."""
        shown = tuple((what, None) for what, _ in self.shown)
        return replace(self, started=None, active_seconds=None, shown=shown)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Correction:
    """What a person said of a frame.

    Parameters
    ----------
    frame_id, pixels_hash : str
        The frame it is about; see `Frame`.
    mask : numpy.ndarray
        The person's lesions, uint8 (H, W), numbered as in `Prediction`; all zero where there is none.
    label : str
        One of `LABELS`: the class the person chose, or "unsure".
    annotator : str
        Pseudonym of the person.
    prediction : Prediction, optional
        The prediction they started from.
    prediction_seen : bool
        Whether the prediction was shown before they decided.
    seconds : float, optional
        Time spent, only where the project records it.
    lesions : mapping of int to str
        The class of lesions by their numbers in the mask, as far as the person gave one; that of the frame
        may be another.
    effort : Effort, optional
        What it took.
    """

    frame_id: str
    pixels_hash: str
    mask: NDArray[np.uint8]
    label: Label
    annotator: str
    prediction: Prediction | None = None
    prediction_seen: bool = False
    seconds: float | None = None
    lesions: Mapping[int, ClassName] = field(default_factory=dict)
    effort: Effort | None = None

    def __post_init__(self) -> None:
        if self.label not in LABELS:
            raise ValueError(f"label must be one of {', '.join(LABELS)}, got {self.label!r}")
        if self.mask.ndim != 2 or self.mask.dtype != np.uint8:
            raise ValueError(f"mask must be uint8 (H, W), got {self.mask.dtype} {self.mask.shape}")
        maps = () if self.prediction is None else (self.prediction.mask, self.prediction.lesion)
        for predicted in maps:
            if predicted.shape != self.mask.shape:
                raise ValueError(f"the mask has shape {self.mask.shape}, its prediction {predicted.shape}")
        if self.prediction is not None and self.prediction.frame_id != self.frame_id:
            raise ValueError("the prediction belongs to another frame")
        for number, name in self.lesions.items():
            if name not in CLASSES:
                raise ValueError(f"lesion {number} must be one of {', '.join(CLASSES)}, got {name!r}")
            if number == 0 or not (self.mask == number).any():
                raise ValueError(f"there is no lesion {number} in the mask to be {name}")

    @property
    def mask_decision(self) -> MaskDecision:
        """Whether the mask was kept, edited, drawn anew, or left empty."""
        if not self.mask.any():
            return "none"
        if self.prediction is None or not self.prediction.mask.any():
            return "new"
        return "kept" if np.array_equal(self.mask, self.prediction.mask) else "edited"

    @property
    def class_decision(self) -> ClassDecision:
        """Whether the predicted class was kept, changed, given without a prediction, or left open."""
        if self.label == "unsure":
            return "unsure"
        if self.prediction is None:
            return "new"
        return "kept" if self.label == self.prediction.label else "changed"
