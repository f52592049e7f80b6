"""What lies in a dataset's folder, whatever the case of its names."""

from __future__ import annotations

from pathlib import Path

from sonoloop.errors import TrainingError
from sonoloop.imaging.files import is_image_path
from sonoloop.values import CLASSES, ClassName


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
    """Return the images that lie directly in `folder`, by their name without suffix in lower case.

    Raises
    ------
    TrainingError
        If two differ in suffix or case only.
    """
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
