"""Image files: which there are below files and folders, and which of them are masks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sonoloop.errors import ImageMissingError, NotAnImageError
from sonoloop.imaging.io import FORMATS, read_study
from sonoloop.values import Frame

# the folder that `sonoloop predict` writes its masks and overlays to
MASKS = "masks"

# BUSI writes "benign (7)_mask.png" and, for a second lesion, "benign (7)_mask_1.png"
_MASK = re.compile(r"_mask(_\d+)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image file, and its path relative to the input it was found below."""

    path: Path
    relative: Path


def is_image_path(path: Path) -> bool:
    """Whether the name is that of an image, and not of a mask or a hidden file."""
    return _has_suffix(path) and not path.name.startswith(".") and not is_mask_path(path)


def is_mask_path(path: Path) -> bool:
    """Whether the name is that of a mask, as BUSI and `sonoloop predict` write them."""
    return _has_suffix(path) and _MASK.search(path.stem) is not None


def _has_suffix(path: Path) -> bool:
    return any(path.suffix.lower() in known.suffixes for known in FORMATS.values())


def is_overlay_path(path: Path) -> bool:
    """Whether the path is that of an overlay in a folder of predictions, which is no input."""
    return path.name.endswith("_overlay.png") and MASKS in (parent.name for parent in path.parents)


def mask_paths(image: Path) -> list[Path]:
    """Return the masks that lie beside an image, in BUSI's naming, in order."""
    pattern = re.compile(re.escape(image.stem) + r"_mask(_\d+)?\.[a-z]+$", re.IGNORECASE)
    return sorted(p for p in image.parent.iterdir() if pattern.fullmatch(p.name) and is_mask_path(p))


def find_images(paths: Iterable[Path]) -> list[FoundImage]:
    """Find the images below files and folders.

    Files are taken as they are, but masks and overlays are left out; folders are searched, in natural order.
    Each file comes once. With several folders, `relative` starts with the folder's own name.
    """
    inputs = [Path(path) for path in paths]
    folders = [path for path in inputs if path.is_dir()]
    found: dict[Path, FoundImage] = {}
    for path in inputs:
        if path.is_dir():
            prefix = Path(path.resolve().name) if len(folders) > 1 else Path()
            images = (p for p in path.rglob("*") if is_image_path(p) and not is_overlay_path(p))
            files = sorted((p for p in images if p.is_file()), key=natural_order)
            for file in files:
                found.setdefault(file.resolve(), FoundImage(file, prefix / file.relative_to(path)))
        elif not path.exists():
            raise ImageMissingError(f"there is no file or folder {path}; check the path")
        elif not (is_mask_path(path) or is_overlay_path(path)):
            found.setdefault(path.resolve(), FoundImage(path, Path(path.name)))
    return list(found.values())


def natural_order(path: Path) -> list[tuple[int, int | str]]:
    """Sort key by which "benign (2)" comes before "benign (10)"."""
    parts = re.split(r"(\d+)", str(path).casefold())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def fold_case(path: Path) -> str:
    """Key by which two paths are one to file systems that ignore case."""
    return path.as_posix().casefold()


def read(path: str | os.PathLike[str]) -> list[Frame]:
    """Read all frames of an image file, or of the images below a folder.

    Parameters
    ----------
    path : str or path
        A PNG, JPEG, TIFF or BMP file, or a folder; masks in a folder (``..._mask.png``) are left out.

    Returns
    -------
    list of Frame
        In natural order of the files, then in their order in a file.

    Raises
    ------
    ImageError
        If there is none, or one cannot be read; the message names the file and what to do.
    """
    place = Path(path)
    files = [image.path for image in find_images([place])] if place.is_dir() else [place]
    if not files:
        raise NotAnImageError(f"{place.name} holds no PNG, JPEG, TIFF or BMP image; choose another folder")
    return [frame for file in files for frame in read_study(file).frames]
