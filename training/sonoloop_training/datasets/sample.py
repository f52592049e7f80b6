"""One image of a dataset with what is known of it, and the tables and folders that say so."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import TrainingError
from sonoloop.imaging.image_files import is_image_path
from sonoloop.imaging.io import read_study
from sonoloop.values import CLASSES, ClassName, Frame

_LOSSY = frozenset({".jpg", ".jpeg"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image on disk with what is known of it."""

    # unique within its dataset
    name: str
    # "busi", "busbra", "breast-usg", "udiat", or the name of the user's own folder
    dataset: str
    image: Path
    # one file a lesion, or none
    masks: tuple[Path, ...]
    label: ClassName
    # patient, or near-duplicates: never split between training and test
    group: str
    # whether the group was computed from the images: then its name and members change with what is added
    computed: bool = False
    # as the dataset numbers its patients, and maker and model; empty where unknown
    patient: str = ""
    scanner: str = ""
    # whether callipers, text or body marks are burned in, into it or a near-duplicate of it
    overlay: bool | None = None
    # mm a pixel, down and across, where the dataset knows
    spacing: tuple[float, float] | None = None
    # what else the dataset says: "histology", "birads", "side", "device", "objection" (BUSI's axilla and
    # needle images), "overlay" (which kinds), "5-fold" and "10-fold", and other columns of a user's own table
    facts: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> str:
        """How splits name the image: "dataset/name"."""
        return f"{self.dataset}/{self.name}"

    def read(self) -> tuple[Frame, NDArray[np.bool_]]:
        """Read the frame and the union of its masks, both (H, W)."""
        if not self.masks and self.label != "normal":
            # an empty mask would teach that there is no lesion
            raise TrainingError(f"{self.image.name} is {self.label} and has no mask; add it, or move it away")
        frame = replace(read_study(self.image).frames[0], spacing=self.spacing)
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
    """
    # the compression leaves grey specks around the edges of a JPEG
    background = 127 if path.suffix.lower() in _LOSSY else 0
    mask: NDArray[np.bool_] = read_study(path).frames[0].pixels > background
    if mask.shape != shape:
        raise TrainingError(
            f"{path.name} is {mask.shape[1]} x {mask.shape[0]}, its image {shape[1]} x {shape[0]}"
        )
    return mask


MAX_BYTES = 64_000_000

# what a damaged file can raise: the file system, csv, zipfile, XML and openpyxl
_BROKEN = (
    OSError,
    csv.Error,
    BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
)


def read_table(path: Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """Read a table; its column names come back in lower case, empty rows are left out."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TrainingError(f"{path} is larger than {MAX_BYTES // 1_000_000} MB; is it a table?")
        cells = _read_excel(path) if path.suffix.lower() == ".xlsx" else _read_csv(path)
    except _BROKEN as error:
        raise TrainingError(f"{path} cannot be read ({error}); save it again as CSV in UTF-8") from error
    header = [cell.strip().lower() for cell in cells[0]] if cells else []
    rows = [
        {name: cell.strip() for name, cell in zip(header, row, strict=False) if name}
        for row in cells[1:]
        if any(cell.strip() for cell in row)
    ]
    if not rows:
        raise TrainingError(f"{path} has no rows")
    missing = [name for name in columns if name not in header]
    if missing:
        found = ", ".join(filter(None, header))
        raise TrainingError(f"{path} has no column {', '.join(missing)}; it has {found}")
    # a short row says nothing of its last columns
    return [{name: row.get(name, "") for name in header if name} for row in rows]


def parse_class(text: str, path: Path, name: str) -> ClassName:
    """Turn a table's word into a class, in any case."""
    word = text.strip().lower()
    if word not in CLASSES:
        raise TrainingError(f"{path.name} calls {name} {text!r}; a class is one of {', '.join(CLASSES)}")
    return CLASSES[CLASSES.index(word)]


def _read_csv(path: Path) -> list[list[str]]:
    # utf-8-sig: Excel begins its files with a byte order mark
    with path.open(newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        file.seek(0)
        return list(csv.reader(file, delimiter=";" if first.count(";") > first.count(",") else ","))


def _read_excel(path: Path) -> list[list[str]]:
    from openpyxl import load_workbook  # noqa: PLC0415 - only Dataset B needs it

    with ZipFile(path) as parts:
        if sum(part.file_size for part in parts.infolist()) > MAX_BYTES:
            raise TrainingError(f"{path} is larger than {MAX_BYTES // 1_000_000} MB inside; is it a table?")
    workbook = load_workbook(path, read_only=True, data_only=True)
    try:
        rows = workbook.worksheets[0].iter_rows(values_only=True)
        return [["" if cell is None else str(cell) for cell in row] for row in rows]
    finally:
        workbook.close()


def subfolder(root: Path, name: str) -> Path | None:
    """Return the folder of that name in `root`, in any case; the exact name first."""
    return _pick(root, name, [path for path in _children(root) if path.is_dir()])


def file_in(root: Path, name: str) -> Path | None:
    """Return the file of that name in `root`, in any case; the exact name first."""
    return _pick(root, name, [path for path in _children(root) if path.is_file()])


def class_folders(root: Path) -> dict[ClassName, Path]:
    """Return the folders of `root` that are named after classes."""
    folders = {label: subfolder(root, label) for label in CLASSES}
    return {label: folder for label, folder in folders.items() if folder is not None}


def images_in(folder: Path) -> dict[str, Path]:
    """Return the images that lie directly in `folder`, by their name without suffix in lower case."""
    found: dict[str, Path] = {}
    for path in _children(folder):
        if is_image_path(path) and path.is_file():
            key = path.stem.casefold()
            if key in found:
                raise TrainingError(f"{found[key]} and {path.name} have one name; rename one of them")
            found[key] = path
    return found


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _pick(root: Path, name: str, paths: list[Path]) -> Path | None:
    if root / name in paths:
        return root / name
    return next((path for path in paths if path.name.casefold() == name.casefold()), None)
