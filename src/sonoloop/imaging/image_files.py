"""Image files: which there are below files and folders, and which of them are masks."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sonoloop.errors import ImageError, ImageMissingError, NotAnImageError
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


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """A file or folder below an input whose images are not found, and why."""

    path: Path
    relative: Path
    error: ImageError


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The images below files and folders.

    Parameters
    ----------
    images : list of FoundImage
        Each file once, however many links lead to it.
    left_out : list of LeftOut
        What could not be searched or is no file; its images are missing.
    notices : list of str
        What should be known though nothing is missing: links to folders that are searched already.
    """

    images: list[FoundImage] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


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


def find_images(paths: Iterable[Path]) -> Found:
    """Find the images below files and folders.

    Files are taken as they are, but masks and overlays are left out; folders are searched, in natural order,
    but for hidden files and folders in them. With several folders, `relative` starts with the folder's own
    name. Links are followed, and no folder is searched twice.
    """
    inputs = [(path, _look(path)) for path in map(Path, paths)]
    several = sum(stat.S_ISDIR(found.st_mode) for _, found in inputs) > 1
    search = _Search()
    for path, found in inputs:
        if stat.S_ISDIR(found.st_mode):
            prefix = Path(path.resolve().name) if several else Path()
            search.search(_Folder(path, prefix, _identify(path, found), os.path.realpath(path)))
        elif not (is_mask_path(path) or is_overlay_path(path)):
            search.take(path, Path(path.name), os.path.realpath(path), is_file=stat.S_ISREG(found.st_mode))
    return search.found


def _look(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        if path.is_symlink():
            raise ImageMissingError(
                f"{path} is a link to what is not there; repair it, or leave it out"
            ) from error
        raise ImageMissingError(f"there is no file or folder {path}; check the path") from error
    except OSError as error:
        raise ImageMissingError(
            f"{path} cannot be looked at ({error.strerror}); check the path and its permissions"
        ) from error


Identity = tuple[int, int] | str


def _identify(path: Path, found: os.stat_result) -> Identity:
    # some network disks number nothing
    return (found.st_dev, found.st_ino) if found.st_ino else os.path.realpath(path)


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder to search."""

    path: Path
    relative: Path
    identity: Identity
    # where it lies, links followed
    real: str


class _Search:
    """What was found until now; links wait until the folders that lie there themselves are searched."""

    def __init__(self) -> None:
        self.found = Found()
        self._files: set[str] = set()
        self._folders: dict[Identity, Path] = {}
        self._links: deque[_Folder] = deque()

    def search(self, root: _Folder) -> None:
        """Search a folder, those below it, and then those that links in it lead to."""
        before = len(self.found.images)
        self._links.append(root)
        while self._links:
            folder = self._links.popleft()
            searched = self._folders.get(folder.identity)
            if searched is None:
                self._search_real(folder)
            elif folder is not root:
                self.found.notices.append(f"{folder.path} is a link to {searched}, which is searched once")
        self.found.images[before:] = sorted(
            self.found.images[before:], key=lambda image: (natural_order(image.path), str(image.path))
        )

    def take(self, path: Path, relative: Path, real: str, *, is_file: bool) -> None:
        """Take an image, by where it lies with links followed, if it is a file."""
        if not is_file:
            why = NotAnImageError(f"{path.name} is no file but a pipe, a socket or a device; leave it out")
            self.found.left_out.append(LeftOut(path, relative, why))
            return
        if real not in self._files:
            self._files.add(real)
            self.found.images.append(FoundImage(path, relative))

    def _search_real(self, top: _Folder) -> None:
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            if folder.identity in self._folders:
                continue
            self._folders[folder.identity] = folder.path
            try:
                with os.scandir(folder.path) as entries:
                    for entry in entries:
                        if not entry.name.startswith("."):
                            waiting.extend(self._look_at(entry, folder))
            except OSError as error:
                why = ImageMissingError(
                    f"{folder.path.name} is a folder that cannot be searched ({error.strerror}); "
                    "check its permissions, or leave it out"
                )
                self.found.left_out.append(LeftOut(folder.path, folder.relative, why))

    def _look_at(self, entry: os.DirEntry[str], folder: _Folder) -> list[_Folder]:
        """Take an entry of a folder if it is an image; give it back if it is a folder of the same tree."""
        path, relative = Path(entry.path), folder.relative / entry.name
        is_image = is_image_path(path) and not is_overlay_path(path)
        # a link that leads nowhere may have led to a folder
        counts = is_image or not path.suffix
        is_link = entry.is_symlink()
        real = os.path.join(folder.real, entry.name)  # noqa: PTH118 - many, and a Path of each takes long
        try:
            # a look at each takes long on a network disk, and the folder has told which are plain files
            if not is_link and entry.is_file():
                if is_image:
                    self.take(path, relative, real, is_file=True)
                return []
            counts = counts or entry.is_dir()
            if not (counts or is_link):
                return []
            found = path.stat()
        except OSError as error:
            if counts:
                self.found.left_out.append(LeftOut(path, relative, _describe(path, error)))
            return []
        real = os.path.realpath(path) if is_link else real
        if not stat.S_ISDIR(found.st_mode):
            if is_image:
                self.take(path, relative, real, is_file=stat.S_ISREG(found.st_mode))
            return []
        below = _Folder(path, relative, _identify(path, found), real)
        if not is_link:
            return [below]
        if Path(folder.real).is_relative_to(real):
            self.found.notices.append(f"{path} is a link to {real}, in which it lies; it is not followed")
        else:
            self._links.append(below)
        return []


def _describe(path: Path, error: OSError) -> ImageMissingError:
    if path.is_symlink() and isinstance(error, FileNotFoundError):
        return ImageMissingError(f"{path.name} is a link to what is not there; repair it, or remove it")
    return ImageMissingError(
        f"{path.name} cannot be looked at ({error.strerror}); check it and its permissions"
    )


def natural_order(path: Path) -> list[tuple[int, int | str]]:
    """Sort key by which "benign (2)" comes before "benign (10)"."""
    parts = re.split(r"(\d+)", str(path).casefold())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def fold_case(path: Path) -> str:
    """Key by which two paths are one to file systems that ignore case, or how an accent is composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path.as_posix()).casefold())


def read(path: str | os.PathLike[str]) -> list[Frame]:
    """Read all frames of an image file, or of the images below a folder.

    Parameters
    ----------
    path : str or path
        A PNG, JPEG, TIFF or BMP file, or a folder; masks in a folder (``..._mask.png``) and what is hidden
        are left out.

    Returns
    -------
    list of Frame
        In natural order of the files, then in their order in a file.

    Raises
    ------
    ImageError
        If there is none, or a file or folder cannot be read; the message names it and what to do.
    """
    place = Path(path)
    files = [place]
    if place.is_dir():
        found = find_images([place])
        for left_out in found.left_out:
            raise left_out.error
        files = [image.path for image in found.images]
    if not files:
        raise NotAnImageError(f"{place.name} holds no PNG, JPEG, TIFF or BMP image; choose another folder")
    return [frame for file in files for frame in read_study(file).frames]
