"""A prediction as a row: exact but for its probabilities, which are kept in steps of 1/255."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sonoloop.store.masks import decode_png, encode_png, hash_pixels
from sonoloop.values import CLASSES, Prediction


def write_prediction(prediction: Prediction) -> dict[str, Any]:
    """Turn a prediction into the values of its row.

    Parameters
    ----------
    prediction : Prediction
        ``lesion`` (H, W) in [0, 1]; it is rounded to 1/255.

    Returns
    -------
    dict
        One value a column. ``id`` is the SHA-256 of the content, so the same prediction is the same row.

    Raises
    ------
    ValueError
        If a probability is outside [0, 1] or any number is not finite.
    """
    if not ((prediction.lesion >= 0) & (prediction.lesion <= 1)).all():
        raise ValueError("a prediction's lesion probabilities must lie in [0, 1]")
    numbers: dict[str, float] = {
        "expected_dice": float(prediction.expected_dice),
        "threshold": float(prediction.threshold),
    }
    numbers.update((name, float(p)) for name, p in zip(CLASSES, prediction.classes, strict=True))
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise ValueError(f"a prediction's {name} must be finite, got {value}")
    return {
        "id": hash_prediction(prediction),
        "frame_id": prediction.frame_id,
        "model": prediction.model,
        "lesion": encode_png(_quantise(prediction.lesion)),
        "mask": encode_png(prediction.mask),
        **numbers,
    }


def hash_prediction(prediction: Prediction) -> str:
    """Hash what is kept of a prediction.

    Parameters
    ----------
    prediction : Prediction
        As it was made, or as it was read back: both give the same.

    Returns
    -------
    str
        SHA-256, 64 hex digits.
    """
    content = {
        "frame_id": prediction.frame_id,
        "model": prediction.model,
        "lesion": hash_pixels(_quantise(prediction.lesion)),
        "mask": hash_pixels(prediction.mask),
        "classes": [float(p) for p in prediction.classes],
        "expected_dice": float(prediction.expected_dice),
        "threshold": float(prediction.threshold),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_prediction(row: Mapping[str, Any]) -> Prediction:
    """Turn a row back into a prediction.

    Parameters
    ----------
    row : mapping
        As from `write_prediction`.

    Returns
    -------
    Prediction
        The mask and every number as they were; ``lesion`` within 1/510 of what it was.

    Raises
    ------
    StoreError
        If a mask in the row is damaged.
    """
    lesion = decode_png(row["lesion"]).astype(np.float32) / np.float32(255)
    return Prediction(
        frame_id=row["frame_id"],
        lesion=lesion,
        mask=decode_png(row["mask"]),
        classes=np.array([row[name] for name in CLASSES], np.float32),
        expected_dice=row["expected_dice"],
        threshold=row["threshold"],
        model=row["model"],
    )


def _quantise(lesion: NDArray[np.float32]) -> NDArray[np.uint8]:
    steps: NDArray[np.uint8] = np.rint(lesion * np.float32(255)).astype(np.uint8)
    return steps
