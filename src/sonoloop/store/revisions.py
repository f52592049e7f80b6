"""A revision: one immutable row of a frame's history, and how it reads and writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Exists, Row, Select, exists, select

from sonoloop import __version__
from sonoloop.errors import ConflictError, StoreError
from sonoloop.store.masks import decode_png, encode_png, hash_pixels
from sonoloop.store.predictions import read_prediction
from sonoloop.store.tables import FRAMES, PREDICTIONS, REVISIONS, TOMBSTONES
from sonoloop.values import Correction

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PREDICTION = "prediction__"
_GONE = FRAMES.alias("gone")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Revision:
    """What a person said of a frame, as it was stored.

    Parameters
    ----------
    id : str
        32 hex digits, drawn at random.
    parent : str, optional
        The revision that the same annotator had replaced with this one.
    created : datetime.datetime
        When it was accepted, with its timezone (UTC), by the clock of the machine it was accepted on.
    correction : Correction
        The mask as it was, uint8 (H, W); the prediction with its probabilities in steps of 1/255;
        ``pixels_hash`` as it was when the frame was first stored.
    model : str, optional
        Id of the model whose prediction they started from.
    mask_sha256 : str
        SHA-256 (64 hex digits) of the mask's shape and pixels.
    software : str
        The version of Sonoloop that stored it.
    withdrawn : bool
        Whether the frame was withdrawn: the mask is erased and all zero here, there is no prediction, and
        ``mask_sha256`` is still that of what was accepted.
    """

    id: str
    parent: str | None
    created: datetime
    correction: Correction
    model: str | None
    mask_sha256: str
    software: str
    withdrawn: bool = False


class HeadMovedError(ConflictError):
    """The annotator's head on the frame is another than the one they opened; both sides are kept.

    Parameters
    ----------
    message : str
        What happened and what to do.
    theirs : Revision
        The head, which stays the head.
    mine : Revision
        What was to be accepted: stored, and not the head. Accept it again with ``parent=theirs.id`` to
        prefer it.
    """

    def __init__(self, message: str, *, theirs: Revision, mine: Revision) -> None:
        super().__init__(message)
        self.theirs = theirs
        self.mine = mine


def write_revision(
    correction: Correction, *, parent: str | None, prediction_id: str | None
) -> dict[str, Any]:
    """Turn a correction into the values of a new revision's row.

    Parameters
    ----------
    correction : Correction
        Its ids must be SHA-256: a file name carries names of people.
    parent : str, optional
        The revision it replaces.
    prediction_id : str, optional
        The row of the prediction they started from.

    Returns
    -------
    dict
        One value a column, but for ``number``, which the database gives.

    Raises
    ------
    ValueError
        If an id is no SHA-256, the annotator has no name, or the mask has no pixels.
    """
    for name in ("frame_id", "pixels_hash"):
        if not _SHA256.fullmatch(getattr(correction, name)):
            raise ValueError(f"a correction's {name} must be a SHA-256 in 64 lower-case hex digits")
    if not correction.annotator.strip() or "\0" in correction.annotator:
        raise ValueError("a correction needs its annotator's pseudonym")
    mask = np.array(correction.mask)  # a copy: the layer it came from lives on
    return {
        "id": uuid4().hex,
        "frame_id": correction.frame_id,
        "annotator": correction.annotator,
        "parent": parent,
        "mask": encode_png(mask),
        "mask_sha256": hash_pixels(mask),
        "label": correction.label,
        "mask_decision": correction.mask_decision,
        "class_decision": correction.class_decision,
        "prediction_id": prediction_id,
        "prediction_seen": bool(correction.prediction_seen),
        "model": None if correction.prediction is None else correction.prediction.model,
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "seconds": None if correction.seconds is None else float(correction.seconds),
        "software": __version__,
    }


def select_revisions() -> Select[Any]:
    """Select revisions with their frames and predictions, as `read_revision` takes them.

    Returns
    -------
    sqlalchemy.Select
        In the order of acceptance; narrow it with ``where``.
    """
    return (
        select(
            REVISIONS,
            FRAMES.c.pixels_hash,
            FRAMES.c.height,
            FRAMES.c.width,
            is_withdrawn(REVISIONS.c.frame_id).label("withdrawn"),
            *(column.label(_PREDICTION + column.name) for column in PREDICTIONS.c),
        )
        .join(FRAMES, FRAMES.c.id == REVISIONS.c.frame_id)
        .outerjoin(PREDICTIONS, PREDICTIONS.c.id == REVISIONS.c.prediction_id)
        .order_by(REVISIONS.c.number)
    )


def is_withdrawn(frame_id: ColumnElement[str]) -> Exists:
    """Say in SQL whether a frame was withdrawn.

    Parameters
    ----------
    frame_id : sqlalchemy.ColumnElement
        The column that names the frame.

    Returns
    -------
    sqlalchemy.Exists
        True where there is a tombstone.
    """
    return exists().where(TOMBSTONES.c.frame_id == frame_id)


def has_withdrawn_pixels(pixels_hash: ColumnElement[str] | str) -> Exists:
    """Say in SQL whether a frame of these pixels was withdrawn, whatever file it came from.

    Parameters
    ----------
    pixels_hash : sqlalchemy.ColumnElement or str
        Hash of the decoded pixels, or the column that holds it.

    Returns
    -------
    sqlalchemy.Exists
        True where there is a tombstone.
    """
    return exists().where(TOMBSTONES.c.frame_id == _GONE.c.id, _GONE.c.pixels_hash == pixels_hash)


def join_rows(
    revision: Mapping[str, Any], frame: Mapping[str, Any], prediction: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Join three rows that were written apart into one that `read_revision` takes.

    Parameters
    ----------
    revision, frame, prediction : mapping
        The values of the rows; no prediction if the person started without one.

    Returns
    -------
    dict
        As a row of `select_revisions`.
    """
    size = {name: frame[name] for name in ("pixels_hash", "height", "width")}
    return {
        **revision,
        **size,
        "withdrawn": False,
        **{_PREDICTION + name: value for name, value in (prediction or {}).items()},
    }


def read_revision(row: Row[Any] | Mapping[str, Any]) -> Revision:
    """Turn a row back into a revision, and check that its mask is what was stored.

    Parameters
    ----------
    row : sqlalchemy.Row or mapping
        From `select_revisions` or `join_rows`.

    Returns
    -------
    Revision
        With a mask of its own.

    Raises
    ------
    StoreError
        If the mask or the prediction is damaged, of another size than the frame, or not what was accepted.
    """
    values = dict(row) if isinstance(row, Mapping) else dict(row._mapping)
    withdrawn = bool(values["withdrawn"])
    mask = _read_erased(values) if withdrawn else _read_mask(values)
    prediction = None
    if values["prediction_id"] is not None and not withdrawn:
        prediction = read_prediction({c.name: values[_PREDICTION + c.name] for c in PREDICTIONS.c})
    try:
        correction = Correction(
            frame_id=values["frame_id"],
            pixels_hash=values["pixels_hash"],
            mask=mask,
            label=values["label"],
            annotator=values["annotator"],
            prediction=prediction,
            prediction_seen=values["prediction_seen"],
            seconds=values["seconds"],
        )
        created = datetime.fromisoformat(values["created"])
    except ValueError as error:
        raise StoreError(
            f"revision {values['id']}: the row is damaged ({error}); restore a backup"
        ) from error
    return Revision(
        id=values["id"],
        parent=values["parent"],
        created=created,
        correction=correction,
        model=values["model"],
        mask_sha256=values["mask_sha256"],
        software=values["software"],
        withdrawn=withdrawn,
    )


def _read_mask(values: Mapping[str, Any]) -> NDArray[np.uint8]:
    mask = decode_png(values["mask"])
    if hash_pixels(mask) != values["mask_sha256"]:
        raise StoreError(
            f"revision {values['id']}: the mask is not the one that was accepted; restore a backup"
        )
    if mask.shape != (values["height"], values["width"]):
        raise StoreError(f"revision {values['id']}: the mask has {mask.shape} pixels, its frame has not")
    return mask


def _read_erased(values: Mapping[str, Any]) -> NDArray[np.uint8]:
    if values["mask"]:
        raise StoreError(
            f"revision {values['id']}: its image was withdrawn, its mask is still there; withdraw it again"
        )
    return np.zeros((values["height"], values["width"]), np.uint8)
