"""BrEaST (Breast-Lesions-USG): one image a patient, with its calibration.

Pawłowska et al., Curated benchmark dataset for ultrasound based breast lesion analysis, Scientific Data 11,
148, 2024; The Cancer Imaging Archive, doi 10.7937/9WKK-Q141.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from sonoloop.errors import TrainingError
from sonoloop_training.datasets.groups import FindGroups
from sonoloop_training.datasets.sample import Sample, file_in, parse_class, read_table

DATASET = "breast-usg"
INDEX = "index.csv"
_IMAGES = "breast-lesions_usg-images_and_masks"
_CLINICAL = "breast-lesions-usg-clinical-data"
# the archive's own column names, and those of an index; what else a table says becomes facts
_IMAGE, _CLASS = ("image_filename", "image"), ("classification", "class")
_MASK, _PATIENT = ("mask_tumor_filename", "mask"), ("caseid", "case_id", "patient")
_PATIENTS = "breast-"
# in cm, for rows and columns alike
_PIXEL = ("pixel_size", "pixel_size_cm")
_LEFT_OUT = {
    *_IMAGE,
    *_CLASS,
    *_MASK,
    *_PATIENT,
    *_PIXEL,
    "mask_other_filename",
    "width",
    "height",
    "n_masks",
}
_NOTHING = {"", "not applicable", "not available"}


def is_breast(root: Path) -> bool:
    """Whether a folder holds BrEaST: the archive's clinical table, or an index of its patients."""
    if _clinical_table(root) is not None:
        return True
    index = file_in(root, INDEX)
    if index is None:
        return False
    try:
        rows = read_table(index)
    except TrainingError:
        return False
    # somebody's own table may have the same columns
    named = all(row.get("patient", "").casefold().startswith(_PATIENTS) for row in rows)
    return named and {"image", "mask", "class", "pixel_size_cm"} <= rows[0].keys()


def load_breast(
    root: Path, groups: Path | None = None, *, find_groups: FindGroups | None = None
) -> list[Sample]:
    """List BrEaST; every image is another patient, and a group of its own, whatever `groups` says.

    From the archive's own table and folder of images and masks (``case001.png``, ``case001_tumor.png``;
    masks of other findings are no lesions and are left aside), or from an index with the columns image, mask,
    class, patient and pixel_size_cm, whose paths are relative to the folder.
    """
    table = _clinical_table(root) or file_in(root, INDEX)
    if table is None:
        raise TrainingError(f"{root} has no {INDEX}, and no {_CLINICAL}...xlsx; unpack BrEaST again")
    folder = root if table.name.casefold() == INDEX else _image_folder(root)
    samples = []
    for row in read_table(table):
        name = _first(row, _IMAGE, table)
        image = _find(folder, name, table)
        label = parse_class(_first(row, _CLASS, table), table, name)
        masks = [part.strip() for part in _first(row, _MASK, table).replace(";", "&").split("&")]
        patient = _first(row, _PATIENT, table)
        samples.append(
            Sample(
                name=image.stem,
                dataset=DATASET,
                image=image,
                masks=tuple(_find(folder, mask, table) for mask in masks if mask.lower() not in _NOTHING),
                label=label,
                group=f"{DATASET}/{patient or image.stem}",
                patient=patient,
                spacing=_spacing(_first(row, _PIXEL, table), name, table),
                facts={
                    column: text
                    for column, text in row.items()
                    if column not in _LEFT_OUT and text.lower() not in _NOTHING
                },
            )
        )
    return samples


def _clinical_table(root: Path) -> Path | None:
    if not root.is_dir():
        return None
    tables = sorted(p for p in root.iterdir() if p.name.casefold().startswith(_CLINICAL) and p.is_file())
    return next((path for path in tables if path.suffix.lower() in (".xlsx", ".csv")), None)


def _image_folder(root: Path) -> Path:
    named = [p for p in sorted(root.iterdir()) if p.is_dir() and p.name.casefold() == _IMAGES]
    # the images may also lie beside the table
    return named[0] if named else root


def _first(row: Mapping[str, str], names: tuple[str, ...], table: Path) -> str:
    for name in names:
        if name in row:
            return row[name]
    raise TrainingError(f"{table} has no column {' or '.join(names)}; unpack BrEaST again")


def _find(folder: Path, name: str, table: Path) -> Path:
    path = PurePosixPath(name.replace("\\", "/"))
    if not name or path.is_absolute() or ".." in path.parts or not (folder / path).is_file():
        raise TrainingError(
            f"{table.name} names {name!r}, which is not in {folder}; unpack BrEaST again, or drop the row"
        )
    return folder / path


def _spacing(text: str, name: str, table: Path) -> tuple[float, float] | None:
    """Return mm a pixel, down and across."""
    if text.lower() in _NOTHING:
        return None
    try:
        side = float(text.replace(",", ".")) * 10
    except ValueError:
        side = math.nan
    # a pixel of a breast scan is a twentieth to a fifth of a millimetre
    if not 0.001 <= side <= 5:
        raise TrainingError(
            f"{table.name} gives {name} a pixel of {text!r} cm; correct it, or leave it empty"
        )
    return side, side
