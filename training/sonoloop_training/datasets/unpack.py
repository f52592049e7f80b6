"""A dataset as downloaded to the plain folder that `find_datasets` reads."""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile, ZipInfo

from sonoloop.atomic import sweep_left
from sonoloop.errors import TrainingError
from sonoloop.imaging.image_files import fold_case
from sonoloop.imaging.io import SUFFIXES
from sonoloop.jobs.events import Event, Progress, Unpacked
from sonoloop.regular_files import open_regular
from sonoloop.values import CLASSES
from sonoloop_training.datasets.registry import find_layout
from sonoloop_training.datasets.sample import Sample

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile


# what of an archive is of use; anything else in it is passed over
TAKEN = SUFFIXES | {".csv", ".json", ".txt"}

_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[1-9¹²³]|lpt[1-9¹²³])(?:\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]')
# far below a bomb's ratio, and too small to fill a disk
_SMALL = 1_000_000
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
_STAGE = "Unpacking"
# of a name that is made longer
_LONGEST = 40
_PAUSE = 0.2  # seconds between two events
# of a packed file: all that it may unpack to, and as much again
_MOST_BYTES = 8_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is unpacked at most."""

    # files, those that are passed over counted too
    members: int = 10_000
    file_bytes: int = 256_000_000
    total_bytes: int = 4_000_000_000
    # size unpacked by size packed, of one file above 1 MB
    ratio: float = 100


def unpack(source: Path, out: Path, *, limits: Limits | None = None) -> Iterator[Event]:
    """Write a dataset's images to a new folder; whole, or not at all."""
    if out.exists() or out.is_symlink():
        raise TrainingError(f"{out} is there already; give another --out")
    if not out.parent.is_dir():
        raise TrainingError(f"there is no folder {out.parent}; make it, or give another --out")
    limits = limits or Limits()
    try:
        sweep_left(out.parent)
        # beside its place, since a rename does not cross disks; named for `sweep_left`
        prefix = f".{out.name[:_LONGEST]}.{os.getpid()}."
        with tempfile.TemporaryDirectory(prefix=prefix, suffix=".tmp", dir=out.parent) as scratch:
            folder = Path(scratch) / out.name
            folder.mkdir()
            yield from _write(source, folder, limits)
            samples = _check(folder, source)
            if out.exists():
                raise TrainingError(f"{out} was made by another program meanwhile; give another --out")
            folder.rename(out)
    except OSError as error:
        raise TrainingError(
            f"{out} cannot be written ({error.strerror or error}); give another --out"
        ) from error
    masks = sum(len(sample.masks) for sample in samples)
    yield Unpacked(path=str(out), dataset=samples[0].dataset, images=len(samples), masks=masks)


def _write(source: Path, folder: Path, limits: Limits) -> Iterator[Event]:
    if source.is_dir():
        paths = sorted(source.rglob("*.parquet"))
        if not paths and any(source.rglob("*.arrow")):
            raise TrainingError(
                f"{source} was saved by the library datasets in its own form; load it there with "
                "load_from_disk, write it with to_parquet, and unpack that"
            )
        if not paths:
            raise TrainingError(
                f"{source} holds no Parquet files; give a zip file, or train on the folder as it is"
            )
        yield from _write_parquet(paths, folder, limits)
    elif not source.exists():
        raise TrainingError(f"there is no file or folder {source}; check the path")
    elif source.suffix.lower() == ".parquet":
        yield from _write_parquet([source], folder, limits)
    else:
        yield from _write_zip(source, folder, limits)


def _write_zip(source: Path, folder: Path, limits: Limits) -> Iterator[Event]:
    _check_file(source)
    try:
        archive = ZipFile(source)
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise TrainingError(f"{source} is no zip file, or damaged ({error}); download it again") from error
    with archive:
        members = list_members(archive, limits, source.name)
        files = ((path, read_member(archive, info, source.name)) for info, path in members)
        yield from _write_files(files, folder, limits, total=len(members))


def _write_parquet(paths: Sequence[Path], folder: Path, limits: Limits) -> Iterator[Event]:
    name = paths[0].name if len(paths) == 1 else paths[0].parent.name
    rows, size = measure(paths)
    if rows > limits.members:
        raise TrainingError(f"{name} has {rows} rows, more than {limits.members}; is it a dataset?")
    if size > limits.total_bytes:
        raise TrainingError(
            f"{name} unpacks to {size / 1e9:.1f} GB, more than {limits.total_bytes / 1e9:g} GB"
        )
    files = ((check_path(str(path), name), data) for path, data in image_files(paths))
    yield from _write_files(files, folder, limits, total=rows)


def _write_files(
    files: Iterator[tuple[PurePosixPath, bytes]], folder: Path, limits: Limits, *, total: int
) -> Iterator[Event]:
    written, said = 0, 0.0
    for done, (path, data) in enumerate(files, start=1):
        written += len(data)
        if len(data) > limits.file_bytes or written > limits.total_bytes:
            raise TrainingError(f"{path} makes the dataset too large to unpack ({written / 1e9:.1f} GB)")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("xb") as file:
                file.write(data)
        except FileExistsError as error:
            raise TrainingError(f"the dataset has {path} twice; remove one of them") from error
        if time.monotonic() - said > _PAUSE:
            said = time.monotonic()
            yield Progress(stage=_STAGE, done=min(done, total), total=total)
    yield Progress(stage=_STAGE, done=total, total=total)


def _check(folder: Path, source: Path) -> Sequence[Sample]:
    """Return the samples of what was written, if it is a dataset with masks."""
    layout = find_layout(folder)
    if layout is None:
        raise TrainingError(
            f"{source} holds no dataset with a layout that Sonoloop knows; see docs/datasets.md"
        )
    samples = layout.load(folder, find_groups=lambda found: {sample.name: sample.name for sample in found})
    if not any(sample.masks for sample in samples if sample.label != "normal"):
        raise TrainingError(f"{source} holds no masks of lesions; give the dataset with its masks")
    return samples


def list_members(archive: ZipFile, limits: Limits, name: str) -> list[tuple[ZipInfo, PurePosixPath]]:
    """Return the members to take, and the path of each within the folder that will hold them.

    One folder around everything is taken off. The whole archive is refused for one member that is unsafe.
    """
    members = [info for info in archive.infolist() if not info.is_dir()]
    if len(members) > limits.members:
        raise TrainingError(f"{name} has {len(members)} files, more than {limits.members}; is it a dataset?")
    taken: list[tuple[ZipInfo, PurePosixPath]] = []
    seen: set[str] = set()
    for info in members:
        path = check_path(info.filename, name)
        _check_kind(info, name)
        if path.suffix.lower() not in TAKEN or any(part.startswith((".", "__MACOSX")) for part in path.parts):
            continue
        _check_size(info, limits, name)
        key = fold_case(Path(path))
        if key in seen:
            raise TrainingError(f"{name} has {info.filename} twice; pack it again")
        seen.add(key)
        taken.append((info, path))
    if not taken:
        raise TrainingError(f"{name} has no images in it; give the dataset as it was downloaded")
    total = sum(info.file_size for info, _ in taken)
    if total > limits.total_bytes:
        raise TrainingError(
            f"{name} unpacks to {total / 1e9:.1f} GB, more than {limits.total_bytes / 1e9:g} GB"
        )
    if len({path.parts[0] for _, path in taken}) == 1 and all(len(path.parts) > 1 for _, path in taken):
        taken = [(info, PurePosixPath(*path.parts[1:])) for info, path in taken]
    return taken


def read_member(archive: ZipFile, info: ZipInfo, name: str) -> bytes:
    """Read one file."""
    try:
        with archive.open(info) as file:
            # one byte more than promised would show that the promise was false
            data = file.read(info.file_size + 1)
    except (BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
        raise TrainingError(f"{info.filename} in {name} is damaged ({error}); download it again") from error
    if len(data) != info.file_size:
        raise TrainingError(f"{info.filename} in {name} is damaged (wrong size); download it again")
    return data


def check_path(member: str, name: str) -> PurePosixPath:
    """Return a member's path with `/` between its parts."""
    path = PurePosixPath(member.replace("\\", "/"))
    unsafe = path.is_absolute() or not path.parts or ".." in path.parts
    if unsafe or any(_is_unwritable(part) for part in path.parts):
        raise TrainingError(f"{name} has a member {member!r}, whose path is not safe; nothing was unpacked")
    return path


def _is_unwritable(part: str) -> bool:
    return bool(
        _RESERVED.fullmatch(part) or _FORBIDDEN.search(part) or part.endswith((".", " ")) or len(part) > 200
    )


def _check_kind(info: ZipInfo, name: str) -> None:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise TrainingError(f"{name} has {info.filename}, which is a link or no file; nothing was unpacked")
    if info.flag_bits & 0x1:
        raise TrainingError(f"{name} is encrypted; unpack it by hand and give the folder")


def _check_size(info: ZipInfo, limits: Limits, name: str) -> None:
    if info.file_size > limits.file_bytes:
        raise TrainingError(
            f"{info.filename} in {name} unpacks to {info.file_size / 1e6:.0f} MB, more than "
            f"{limits.file_bytes / 1e6:.0f} MB; nothing was unpacked"
        )
    if info.file_size > _SMALL and info.file_size > limits.ratio * info.compress_size:
        raise TrainingError(
            f"{info.filename} in {name} unpacks to over {limits.ratio:g} times its size; nothing was unpacked"
        )


def measure(paths: Sequence[Path]) -> tuple[int, int]:
    """Return how many rows and unpacked bytes the files have together, as they say themselves."""
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


def _check_file(path: Path) -> None:
    """Refuse what is no file: a pipe would be waited for, and a device has no end."""
    try:
        open_regular(path, most=_MOST_BYTES).close()
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be unpacked ({error.strerror}); give the file as it was"
        ) from error


def _open(path: Path) -> ParquetFile:
    from pyarrow import ArrowException, parquet  # noqa: PLC0415 - large, and only needed here

    _check_file(path)
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
