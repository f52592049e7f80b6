"""The images in Hugging Face's Parquet files: bytes with a file name, and a class."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from sonoloop.errors import TrainingError
from sonoloop.imaging.files import SUFFIXES
from sonoloop.values import CLASSES

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_IMAGE = ("image", "img")
_MASK = ("mask", "masks", "segmentation")
_LABEL = ("label", "class_label", "class", "category")
_NAME = ("image_id", "file_name", "filename", "name", "id")
_MAGIC = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}
_ROWS = 16  # read at once: memory stays small


def measure(paths: Sequence[Path]) -> tuple[int, int]:
    """Return how many rows and unpacked bytes the files have together, as they say themselves.

    Raises
    ------
    TrainingError
        If one is no Parquet file.
    """
    rows = size = 0
    for path in paths:
        notes = _open(path).metadata
        rows += notes.num_rows
        size += sum(notes.row_group(number).total_byte_size for number in range(notes.num_row_groups))
    return rows, size


def image_files(paths: Sequence[Path]) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Give each image and mask as a file: `benign/benign (1).png`, `benign/benign (1)_mask.png`.

    A file name is the row's own, or the column image_id; a mask is a row of its own, told by its name, or
    lies in a column mask. Bytes come as they are.

    Parameters
    ----------
    paths : sequence of pathlib.Path
        The files.

    Yields
    ------
    tuple
        Path within the dataset, and the encoded image.

    Raises
    ------
    TrainingError
        If a file cannot be read, has no images or classes, or a row has no name.
    """
    from pyarrow import ArrowException  # noqa: PLC0415

    for path in paths:
        try:
            yield from _read_file(_open(path), path.name)
        except (ArrowException, OSError, ValueError) as error:
            raise TrainingError(f"{path.name} is damaged ({error}); download it again") from error


def _read_file(file: ParquetFile, name: str) -> Iterator[tuple[PurePosixPath, bytes]]:
    known = file.schema_arrow.names
    columns = {
        kind: next((column for column in names if column in known), None)
        for kind, names in (("image", _IMAGE), ("mask", _MASK), ("label", _LABEL), ("name", _NAME))
    }
    if columns["image"] is None:
        raise TrainingError(f"{name} has no column image; it has {', '.join(known)}")
    classes = _class_names(file.schema_arrow.metadata or {}, columns["label"])
    number = 0
    for batch in file.iter_batches(
        batch_size=_ROWS, columns=[column for column in columns.values() if column]
    ):
        for row in batch.to_pylist():
            number += 1
            values = {kind: row[column] if column else None for kind, column in columns.items()}
            yield from _row_files(values, classes, f"row {number} of {name}")


def _open(path: Path) -> ParquetFile:
    from pyarrow import ArrowException, parquet  # noqa: PLC0415 - large, and only needed here

    try:
        return parquet.ParquetFile(path)
    except (ArrowException, OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read as Parquet ({error}); download it again") from error


def _class_names(metadata: Mapping[bytes, bytes], column: str | None) -> list[str]:
    """Return the names of a column of numbers, which Hugging Face keeps in the file's own notes."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _row_files(
    row: Mapping[str, Any], classes: Sequence[str], where: str
) -> Iterator[tuple[PurePosixPath, bytes]]:
    data, path = _encoded(row["image"], where)
    label = _label(row["label"], path, classes, where)
    stem = str(row["name"]) if row["name"] is not None else path.name
    stem = PurePosixPath(stem.replace("\\", "/")).name
    if PurePosixPath(stem).suffix.lower() in SUFFIXES:
        stem = PurePosixPath(stem).stem
    if not stem:
        raise TrainingError(f"{where} has no file name, so that images and masks cannot be told apart")
    yield PurePosixPath(label, stem + _suffix(data, where)), data
    masks = row["mask"] if isinstance(row["mask"], list) else [row["mask"]]
    for number, mask in enumerate(mask for mask in masks if mask is not None):
        data, _ = _encoded(mask, where)
        yield PurePosixPath(label, f"{stem}_mask{f'_{number}' if number else ''}{_suffix(data, where)}"), data


def _encoded(value: object, where: str) -> tuple[bytes, PurePosixPath]:
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return value["bytes"], PurePosixPath(str(value.get("path") or "").replace("\\", "/"))
    if isinstance(value, bytes):
        return value, PurePosixPath()
    raise TrainingError(f"{where} has no image inside, only a link; download the dataset with its images")


def _label(value: object, path: PurePosixPath, classes: Sequence[str], where: str) -> str:
    if isinstance(value, int) and 0 <= value < len(classes):
        value = classes[value]
    word = str(path.parent.name if value is None else value).strip().lower()
    if word not in CLASSES:
        raise TrainingError(f"{where} has the class {value!r}; a class is one of {', '.join(CLASSES)}")
    return word


def _suffix(data: bytes, where: str) -> str:
    suffix = next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), None)
    if suffix is None:
        raise TrainingError(f"{where} holds no image that Sonoloop reads (PNG, JPEG, BMP, TIFF)")
    return suffix
