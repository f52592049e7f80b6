"""One image of a dataset with what is known of it, and the tables and folders that say so."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import TrainingError
from sonoloop.imaging.image_files import is_image_path
from sonoloop.imaging.io import Study, read_study
from sonoloop.regular_files import read_regular
from sonoloop.values import CLASSES, ClassName, Frame
from sonoloop_training.datasets.mask_check import Masks, explain, read_masks


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
    # of the image that it was made from, where that was another: see `Member`, and height and width
    fingerprint: str = ""
    original: tuple[int, int] | None = None

    @property
    def key(self) -> str:
        """How splits name the image: "dataset/name"."""
        return f"{self.dataset}/{self.name}"

    @property
    def patient_key(self) -> str:
        """Name the patient so that no two datasets share a number; empty where it is not known."""
        return f"{self.dataset}/{self.patient}" if self.patient else ""

    def read(self) -> tuple[Frame, NDArray[np.bool_]]:
        """Read the frame and the union of its masks, both (H, W)."""
        frame, masks = self.look()
        self.check(masks)
        return frame, masks.union

    def check(self, masks: Masks) -> None:
        """Refuse masks that cannot be used."""
        for fault in masks.faults:
            if not fault.usable:
                raise fault.error or TrainingError(explain(fault, self.image.name, self.label))

    def look(self) -> tuple[Frame, Masks]:
        """Read the frame, and its masks with what is wrong with them; raises for the frame alone."""
        study = self.study()
        if len(study.frames) > 1:
            raise TrainingError(
                f"{self.image.name} has {len(study.frames)} frames, and its mask is of one; save that one "
                "as a file of its own"
            )
        if study.notes:
            # of which a part is missing, it would teach what is not so
            raise TrainingError(f"{self.image.name} is not whole: {study.notes[0]}; copy or export it again")
        frame = replace(study.frames[0], spacing=self.spacing)
        return frame, self.read_masks(frame)

    def study(self) -> Study:
        """Read what the image's file holds."""
        return read_study(self.image)

    def read_masks(self, frame: Frame) -> Masks:
        """Read the masks of its frame, and say what is wrong with them."""
        return read_masks(self.masks, frame, self.label)


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
        data = read_regular(path, most=MAX_BYTES)
    except OSError as error:
        raise TrainingError(f"{path} cannot be read as a table ({error.strerror})") from error
    try:
        cells = _read_excel(data, path) if path.suffix.lower() == ".xlsx" else _read_csv(data)
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


def _read_csv(data: bytes) -> list[list[str]]:
    # utf-8-sig: Excel begins its files with a byte order mark
    text = data.decode("utf-8-sig")
    first = text.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


def _read_excel(data: bytes, path: Path) -> list[list[str]]:
    from openpyxl import load_workbook  # noqa: PLC0415 - only Dataset B needs it

    with ZipFile(io.BytesIO(data)) as parts:
        if sum(part.file_size for part in parts.infolist()) > MAX_BYTES:
            raise TrainingError(f"{path} is larger than {MAX_BYTES // 1_000_000} MB inside; is it a table?")
    workbook = load_workbook(io.BytesIO(data), read_only=True, data_only=True)
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
