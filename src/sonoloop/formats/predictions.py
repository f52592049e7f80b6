"""`predictions.csv`: a row for each image that was predicted."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from sonoloop.errors import SonoloopError
from sonoloop.values import Prediction

TABLE = "predictions.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRow:
    """One row of `predictions.csv`.

    Parameters
    ----------
    image : str
        Path of the image relative to the input, with forward slashes.
    width, height : int
        Of the image, in pixels.
    p_normal, p_benign, p_malignant : float
        Calibrated class probabilities.
    predicted_class : str
        The most probable of them.
    lesions, lesion_area_px : int
        Number of lesions in the mask, and their pixels.
    expected_dice : float
        See `sonoloop.values.Prediction`.
    model : str
        Id of the model.
    seconds : float
        What predicting took; an image's share of its batch, reading and writing not counted.
    """

    image: str
    width: int
    height: int
    p_normal: float
    p_benign: float
    p_malignant: float
    predicted_class: str
    lesions: int
    lesion_area_px: int
    expected_dice: float
    model: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the values by column."""
        return asdict(self)


COLUMNS = tuple(field.name for field in fields(PredictionRow))


def describe(prediction: Prediction, *, image: str, seconds: float) -> PredictionRow:
    """Describe a prediction in a row, probabilities rounded to four digits."""
    normal, benign, malignant = (round(float(p), 4) for p in prediction.classes)
    height, width = prediction.mask.shape
    return PredictionRow(
        image=image,
        width=width,
        height=height,
        p_normal=normal,
        p_benign=benign,
        p_malignant=malignant,
        predicted_class=prediction.label,
        lesions=prediction.lesions,
        lesion_area_px=int(np.count_nonzero(prediction.mask)),
        expected_dice=round(prediction.expected_dice, 4),
        model=prediction.model,
        seconds=round(seconds, 3),
    )


def read_predictions(path: Path) -> list[PredictionRow]:
    """Read a `predictions.csv`.

    Parameters
    ----------
    path : pathlib.Path
        The table, or the folder it is in.

    Raises
    ------
    SonoloopError
        If it cannot be read, lacks a column or holds a value that does not fit; the message names the row.
    """
    path = path / TABLE if path.is_dir() else path
    kinds = {"int": int, "float": float, "str": str}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            missing = sorted(set(COLUMNS) - set(table.fieldnames or ()))
            if missing:
                raise SonoloopError(
                    f"{path} lacks {', '.join(missing)}; give a table that `sonoloop predict` wrote"
                )
            rows = []
            for number, row in enumerate(table, start=2):
                try:
                    values = {f.name: kinds[str(f.type)](row[f.name]) for f in fields(PredictionRow)}
                except (TypeError, ValueError) as error:
                    raise SonoloopError(
                        f"line {number} of {path} does not fit its columns: {error}"
                    ) from error
                rows.append(PredictionRow(**values))
            return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SonoloopError(f"{path} cannot be read: {error}") from error
