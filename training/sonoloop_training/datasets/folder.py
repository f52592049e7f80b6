"""A user's own dataset: `images`, `masks`, and a CSV with a class for each image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from sonoloop.errors import TrainingError
from sonoloop.imaging.image_files import natural_order
from sonoloop.imaging.io import SUFFIXES
from sonoloop_training.datasets.groups import FindGroups, group_samples
from sonoloop_training.datasets.sample import Sample, images_in, parse_class, read_table, subfolder

# what a recipe may weigh by name without having seen the data, and no other folder may be called
DATASETS = ("busi", "busbra", "breast-usg", "udiat", "phantom")

_COLUMNS = ("image", "class")
_KNOWN = (*_COLUMNS, "patient", "group", "scanner", "mask", "overlay")
# "case7_mask", "case7_lesion_2", "case7-1"
_SUFFIX = re.compile(r"[ _-](?:mask|seg|gt|lesion|\d+)$")
_TRUTH = {"": None, "yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def is_folder(root: Path) -> bool:
    """Whether a folder has the folders of a user's own dataset."""
    return subfolder(root, "images") is not None and subfolder(root, "masks") is not None


def load_folder(
    root: Path, groups: Path | None = None, *, find_groups: FindGroups | None = None
) -> list[Sample]:
    """List a folder with `images`, `masks` and one CSV; the dataset's name is the folder's, in lower case.

    The table has the columns image and class, and may have patient, group, scanner, overlay (yes or no) and
    mask (file names in `masks`, with semicolons between); other columns become facts. Without a column mask,
    the masks of `case7.png` are `case7.png`, `case7_mask.png`, `case7_mask_1.png`, `case7_2.png`, also with
    "seg", "gt" or "lesion". An image without a row is left out: nobody said what it is.

    A group is the column group, else the patient, else the near-duplicates.
    """
    name = root.resolve().name.lower()
    if name in DATASETS:
        raise TrainingError(f"{root} is named like a dataset that Sonoloop knows; rename the folder")
    image_folder, mask_folder = subfolder(root, "images"), subfolder(root, "masks")
    if image_folder is None or mask_folder is None:
        raise TrainingError(f"{root} has no folder images or masks; make both")
    table = _find_table(root)
    rows = read_table(table, _COLUMNS)
    grouped = _has_groups(rows, table)
    images = images_in(image_folder)
    masks = _match_masks(mask_folder, images)
    samples: dict[str, Sample] = {}
    for row in rows:
        image = images.get(_key(row["image"]))
        if image is None:
            raise TrainingError(f"{table.name} names {row['image']!r}, which is not in {image_folder}")
        if image.stem in samples:
            raise TrainingError(f"{table.name} has two rows for {row['image']}; keep one")
        named = [part.strip() for part in row.get("mask", "").split(";") if part.strip()]
        samples[image.stem] = Sample(
            name=image.stem,
            dataset=name,
            image=image,
            masks=_named_masks(named, mask_folder, table) if named else masks.get(_key(image.name), ()),
            label=parse_class(row["class"], table, row["image"]),
            group=f"{name}/{row.get('group') or row.get('patient') or image.stem}",
            patient=row.get("patient", ""),
            scanner=row.get("scanner", ""),
            overlay=_parse_overlay(row, table),
            facts={column: text for column, text in row.items() if column not in _KNOWN and text},
        )
    found = list(samples.values())
    return found if grouped else group_samples(found, root, groups=groups, find_groups=find_groups)


def has_groups(root: Path) -> bool:
    """Whether the table of such a folder groups the images, by patient or by group."""
    table = _find_table(root)
    return _has_groups(read_table(table, _COLUMNS), table)


def _find_table(root: Path) -> Path:
    tables = sorted(path for path in root.iterdir() if path.suffix.lower() == ".csv" and path.is_file())
    if len(tables) != 1:
        found = ", ".join(path.name for path in tables) or "none"
        raise TrainingError(f"{root} needs one CSV with the columns image and class; it has {found}")
    return tables[0]


def _has_groups(rows: list[dict[str, str]], table: Path) -> bool:
    grouped = [bool(row.get("group") or row.get("patient")) for row in rows]
    if any(grouped) and not all(grouped):
        missing = rows[grouped.index(False)]["image"]
        raise TrainingError(
            f"{table.name} gives no patient or group for {missing}, but for others; give it for all or none"
        )
    return all(grouped)


def _match_masks(folder: Path, images: Mapping[str, Path]) -> dict[str, tuple[Path, ...]]:
    """Give each mask to the image with the longest name that it begins with."""
    matched: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir(), key=natural_order):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        key = _key(path.name)
        while key not in images and _SUFFIX.search(key):
            key = _SUFFIX.sub("", key)
        if key in images:
            matched[key].append(path)
    return {key: tuple(paths) for key, paths in matched.items()}


def _named_masks(names: list[str], folder: Path, table: Path) -> tuple[Path, ...]:
    paths = []
    for name in names:
        # a mask lies in the folder itself, which may stand before its name: another path would lead out of it
        path = PurePosixPath(name.replace("\\", "/"))
        if len(path.parts) == 2 and path.parts[0].casefold() == folder.name.casefold():
            path = PurePosixPath(path.name)
        if len(path.parts) != 1 or path.name == ".." or not (folder / path).is_file():
            raise TrainingError(f"{table.name} names the mask {name!r}, which is not in {folder}")
        paths.append(folder / path)
    return tuple(paths)


def _parse_overlay(row: Mapping[str, str], table: Path) -> bool | None:
    word = row.get("overlay", "").lower()
    if word not in _TRUTH:
        raise TrainingError(f"{table.name} has overlay {word!r} for {row['image']}; use yes or no")
    return _TRUTH[word]


def _key(name: str) -> str:
    """Name without folder and suffix, in lower case."""
    file = PurePosixPath(name.replace("\\", "/")).name
    stem, dot, suffix = file.rpartition(".")
    return (stem if dot and f".{suffix.lower()}" in SUFFIXES else file).casefold()
