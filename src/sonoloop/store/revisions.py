"""A revision: one immutable row of a frame's history, how it reads and writes, and which of them count.

Below what a revision is and which one stands or judges come the rules of withdrawn frames, and then how the
prediction and the mask in a row are kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import struct
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import (
    ColumnElement,
    Connection,
    Exists,
    Row,
    Select,
    Table,
    and_,
    exists,
    func,
    not_,
    or_,
    select,
    true,
    update,
)

from sonoloop import __version__
from sonoloop.errors import ConflictError, StoreError
from sonoloop.store.database import check_who, in_batches
from sonoloop.store.tables import FRAMES, GROUPS, HEADS, MEMBERS, PREDICTIONS, REVISIONS, TOMBSTONES
from sonoloop.values import CLASSES, ClassName, Correction, Effort, Prediction

MAX_PIXELS = 64_000_000

# whose head what was adjudicated is; nobody works under that name
ADJUDICATION = "adjudication"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PREDICTION = "prediction__"
_PNG = b"\x89PNG\r\n\x1a\n"
_GREY_8_BIT = (8, 0, 0, 0, 0)  # depth, colour type, compression, filter, interlace


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Revision:
    """What a person said of a frame, as it was stored."""

    id: str
    # the revision that the same annotator had replaced with this one
    parent: str | None
    # in UTC, by the clock of the machine it was accepted on
    created: datetime
    # its prediction with probabilities in steps of 1/255; `pixels_hash` as when the frame was first stored
    correction: Correction
    # whose prediction they started from
    model: str | None
    # of the mask's shape and pixels
    mask_sha256: str
    # the version of Sonoloop that stored it
    software: str
    # then the mask is all zero here, there is no prediction, and the hash is still that of what was accepted
    withdrawn: bool = False


class HeadMovedError(ConflictError):
    """The annotator's head on the frame is another than the one they opened; both sides are kept.

    `theirs` stays the head; `mine` is stored beside it: accept it with ``parent=theirs.id`` to prefer it.
    """

    def __init__(self, message: str, *, theirs: Revision, mine: Revision) -> None:
        super().__init__(message)
        self.theirs = theirs
        self.mine = mine


def write_revision(
    correction: Correction, *, parent: str | None, prediction_id: str | None
) -> dict[str, Any]:
    """Turn a correction into the values of a new revision's row."""
    for name in ("frame_id", "pixels_hash"):
        if not _SHA256.fullmatch(getattr(correction, name)):
            raise ValueError(f"a correction's {name} must be a SHA-256 in 64 lower-case hex digits")
    annotator = check_who(correction.annotator)
    mask = np.array(correction.mask)  # a copy: the layer it came from lives on
    return {
        "id": uuid4().hex,
        "frame_id": correction.frame_id,
        "annotator": annotator,
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
        "lesions": _write_lesions(correction.lesions),
        "effort": None if correction.effort is None else write_effort(correction.effort),
    }


def _write_lesions(lesions: Mapping[int, ClassName]) -> str | None:
    """Write the classes of lesions, one text for the same ones."""
    if not lesions:
        return None
    return json.dumps({str(int(number)): lesions[number] for number in sorted(lesions)})


def _read_lesions(text: str | None) -> dict[int, ClassName]:
    return {} if text is None else {int(number): name for number, name in json.loads(text).items()}


def write_effort(effort: Effort) -> str:
    """Write an effort as its row keeps it."""
    values = asdict(effort)
    if effort.started is not None:
        values["started"] = effort.started.astimezone(UTC).isoformat(timespec="microseconds")
    # numpy's numbers too
    return json.dumps(values, allow_nan=False, default=lambda number: number.item())


def read_effort(revision_id: str, text: str | None) -> Effort | None:
    """Turn what a revision keeps of an effort back into it."""
    if text is None:
        return None
    try:
        values = json.loads(text)
        started = values["started"]
        values["started"] = None if started is None else datetime.fromisoformat(started)
        values["shown"] = tuple((what, after) for what, after in values["shown"])
        return Effort(**values)
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"revision {revision_id}: its effort is damaged ({error}); restore a backup"
        ) from error


def select_revisions() -> Select[Any]:
    """Select revisions with their frames and predictions, as `read_revision` takes them."""
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


def join_rows(
    revision: Mapping[str, Any], frame: Mapping[str, Any], prediction: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Join three rows that were written apart into one that `read_revision` takes."""
    size = {name: frame[name] for name in ("pixels_hash", "height", "width")}
    return {
        **revision,
        **size,
        "withdrawn": False,
        **{_PREDICTION + name: value for name, value in (prediction or {}).items()},
    }


def read_revision(row: Row[Any] | Mapping[str, Any]) -> Revision:
    """Turn a row back into a revision, and check that its mask is what was stored."""
    values = dict(row if isinstance(row, Mapping) else row._mapping)
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
            lesions=_read_lesions(values["lesions"]),
            effort=read_effort(values["id"], values["effort"]),
        )
        created = datetime.fromisoformat(values["created"])
    except (ValueError, AttributeError) as error:
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
    for name in ("mask", "lesions", "effort"):
        if values[name]:
            raise StoreError(
                f"revision {values['id']}: its image was withdrawn, its {name} is still there; "
                "withdraw it again"
            )
    return np.zeros((values["height"], values["width"]), np.uint8)


def select_newest(*columns: ColumnElement[Any], pixels: Collection[str] | None = None) -> Select[Any]:
    """Select the newest head of each image that was not withdrawn, whichever of its files it is about.

    Of all images, or of those with these pixel hashes.
    """
    said, of = REVISIONS.alias("said"), FRAMES.alias("of")
    newest = (
        select(func.max(said.c.number))
        .join(
            HEADS,
            # by its key, where one image is asked about
            and_(
                HEADS.c.frame_id == said.c.frame_id,
                HEADS.c.annotator == said.c.annotator,
                HEADS.c.revision_id == said.c.id,
            ),
        )
        .join(of, of.c.id == said.c.frame_id)
        .where(not_(is_withdrawn(said.c.frame_id)))
        .where(true() if pixels is None else of.c.pixels_hash.in_(pixels))
        .group_by(of.c.pixels_hash)
    )
    return _select_placed(newest, *columns)


def select_judging(*columns: ColumnElement[Any], pixels: Collection[str] | None = None) -> Select[Any]:
    """Select the revision that models are judged by, of each image that is kept for testing.

    It was made without having seen what a model says, and is its annotator's first of these pixels: once they
    have accepted, the prediction is shown, and what they draw after that was drawn knowing it. Of several
    persons' the last judges; what anybody changes after having seen takes nothing away.
    """
    said, of = REVISIONS.alias("said"), FRAMES.alias("of")
    firsts = (
        select(func.min(said.c.number).label("number"), of.c.pixels_hash)
        .join(of, of.c.id == said.c.frame_id)
        .where(not_(is_withdrawn(said.c.frame_id)))
        .where(true() if pixels is None else of.c.pixels_hash.in_(pixels))
        .group_by(of.c.pixels_hash, said.c.annotator)
        .subquery()
    )
    made = REVISIONS.alias("made")
    last = (
        select(func.max(firsts.c.number))
        .join(made, made.c.number == firsts.c.number)
        .where(made.c.prediction_seen.is_(False))
        .group_by(firsts.c.pixels_hash)
    )
    return _select_placed(last, *columns).where(GROUPS.c.role == "test", MEMBERS.c.bridges.is_(False))


def _select_placed(numbers: Select[Any], *columns: ColumnElement[Any]) -> Select[Any]:
    placed = (
        REVISIONS.join(FRAMES, FRAMES.c.id == REVISIONS.c.frame_id)
        .outerjoin(MEMBERS, MEMBERS.c.frame_id == REVISIONS.c.frame_id)
        .outerjoin(GROUPS, GROUPS.c.id == MEMBERS.c.group_id)
    )
    chosen = REVISIONS.c.number.in_(numbers)
    return select(*columns).select_from(placed).where(chosen).order_by(REVISIONS.c.number)


def is_withdrawn(frame_id: ColumnElement[str]) -> Exists:
    """Say in SQL whether a frame was withdrawn."""
    return exists().where(TOMBSTONES.c.frame_id == frame_id)


def has_withdrawn_pixels(pixels_hash: ColumnElement[str] | str) -> Exists:
    """Say in SQL whether a frame of these pixels was withdrawn, whatever file it came from."""
    gone = FRAMES.alias("gone")
    return exists().where(TOMBSTONES.c.frame_id == gone.c.id, gone.c.pixels_hash == pixels_hash)


def check_not_withdrawn(
    connection: Connection, frame: Mapping[str, Any], turned_away: Mapping[str, str] | None = None
) -> None:
    """Refuse to store anything of a frame that was withdrawn, or turned away as a withdrawn patient's."""
    query = (
        select(TOMBSTONES.c.created)
        .join(FRAMES, FRAMES.c.id == TOMBSTONES.c.frame_id)
        .where(or_(FRAMES.c.id == frame["id"], FRAMES.c.pixels_hash == frame["pixels_hash"]))
        .order_by(TOMBSTONES.c.number)
        .limit(1)
    )
    created = connection.scalar(query)
    if created is not None:
        raise StoreError(
            f"this image was withdrawn on {created[:10]}: nothing more is stored of it; open another"
        )
    created = (turned_away or {}).get(frame["pixels_hash"]) or _find_set_apart(connection, frame["id"])
    if created is not None:
        raise StoreError(
            f"an image of this patient was withdrawn on {created[:10]}: nothing new is stored of them; "
            "open another"
        )


def find_withdrawal(connection: Connection, patient: str) -> str | None:
    """Tell when a frame of a patient was withdrawn, the first of them; None if none was."""
    query = (
        select(TOMBSTONES.c.created)
        .join(MEMBERS, MEMBERS.c.frame_id == TOMBSTONES.c.frame_id)
        .where(MEMBERS.c.patient == patient)
        .order_by(TOMBSTONES.c.number)
        .limit(1)
    )
    created: str | None = connection.scalar(query)
    return created


def is_refused(
    connection: Connection, member: Row[Any] | None, pixels_hash: str, patient: str | None
) -> bool:
    """Tell whether nothing is stored of a frame: it was withdrawn, or is news of a withdrawn patient.

    A frame that was known as the patient's when another one of theirs was withdrawn, by its id alone, is no
    news, and stays.
    """
    if connection.scalar(select(has_withdrawn_pixels(pixels_hash))):
        return True
    if member is not None and member.patient is not None:
        return bool(member.bridges) and find_withdrawal(connection, member.patient) is not None
    return patient is not None and find_withdrawal(connection, patient) is not None


def set_apart(connection: Connection, pixels_hash: str, patient: str) -> None:
    """Have the frames of these pixels take no part: they turned out to be a withdrawn patient's.

    Their masks stay, since the number that was told may be wrong; withdrawing the patient again erases them.
    """
    same = select(FRAMES.c.id).where(FRAMES.c.pixels_hash == pixels_hash)
    own = (MEMBERS.c.frame_id.in_(same), not_(is_withdrawn(MEMBERS.c.frame_id)))
    known = func.coalesce(MEMBERS.c.patient, patient)
    connection.execute(update(MEMBERS).where(*own).values(bridges=True, patient=known))


def _find_set_apart(connection: Connection, frame_id: str) -> str | None:
    query = select(MEMBERS.c.patient).where(MEMBERS.c.frame_id == frame_id, MEMBERS.c.bridges)
    patient = connection.scalar(query)
    return None if patient is None else find_withdrawal(connection, patient)


def write_prediction(prediction: Prediction) -> dict[str, Any]:
    """Turn a prediction into the values of its row."""
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
    """Hash what is kept of a prediction."""
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
    """Turn a row back into a prediction."""
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


def encode_png(values: NDArray[np.uint8]) -> bytes:
    """Write a mask as a PNG without loss."""
    if values.ndim != 2 or values.dtype != np.uint8:
        raise ValueError(f"a mask must be uint8 (H, W), got {values.dtype} {values.shape}")
    if not 0 < values.size <= MAX_PIXELS:
        raise ValueError(f"a mask must have 1 to {MAX_PIXELS} pixels, got {values.shape}")
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(file, format="PNG")
    return file.getvalue()


def decode_png(data: bytes) -> NDArray[np.uint8]:
    """Read what `encode_png` wrote, and nothing else."""
    height, width = _read_shape(data)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            values = np.array(image, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, zlib.error) as error:
        raise StoreError(f"a stored PNG of {height} x {width} pixels does not decode: {error}") from error
    if values.shape != (height, width):
        raise StoreError(f"a stored PNG says {height} x {width} pixels and has {values.shape}")
    return values


def read_masks(connection: Connection, table: Table, ids: Iterable[str]) -> dict[str, NDArray[np.uint8]]:
    """Read masks of revisions or predictions by ids; what was withdrawn has none."""
    found: dict[str, NDArray[np.uint8]] = {}
    for some in in_batches(ids):
        rows = connection.execute(select(table.c.id, table.c.mask).where(table.c.id.in_(some)))
        found.update({row.id: decode_png(row.mask) for row in rows if row.mask})
    return found


def hash_pixels(values: NDArray[np.uint8]) -> str:
    """Hash a mask's shape and pixels, whatever the PNG around them."""
    height, width = values.shape
    digest = hashlib.sha256(f"uint8 {height} {width} ".encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _read_shape(data: bytes) -> tuple[int, int]:
    """Walk every chunk, since Pillow forgives damage that leaves the pixels alone and we want it found."""
    if data[:8] != _PNG:
        raise StoreError("a stored mask is no PNG: the store is damaged, restore it from a backup")
    kinds: list[bytes] = []
    position = len(_PNG)
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4].ljust(4, b"\0"))
        body, end = data[position + 4 : position + 8 + length], position + 12 + length
        if end > len(data) or zlib.crc32(body) != int.from_bytes(data[end - 4 : end], "big"):
            raise StoreError("a stored PNG is damaged or cut short: restore the store from a backup")
        kinds.append(body[:4])
        position = end
    if len(kinds) < 3 or kinds[0] != b"IHDR" or kinds[-1] != b"IEND" or set(kinds[1:-1]) != {b"IDAT"}:
        raise StoreError(
            "a stored PNG has other chunks than Sonoloop writes: the store was changed from outside"
        )
    width, height, *encoding = struct.unpack(">IIBBBBB", data[16:29])
    if tuple(encoding) != _GREY_8_BIT:
        raise StoreError("a stored PNG is not 8-bit grey: the store was changed from outside")
    if not 0 < width * height <= MAX_PIXELS:
        raise StoreError(f"a stored PNG claims {height} x {width} pixels, the cap is {MAX_PIXELS} in all")
    return height, width
