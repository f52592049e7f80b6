"""What Sonoloop wrote into a folder: a manifest with a line for each change, read back after any crash."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from sonoloop.atomic import write_whole
from sonoloop.errors import SonoloopError
from sonoloop.regular_files import open_regular, read_regular

MANIFEST = "predictions.manifest.jsonl"
_MADE_BY = "sonoloop predict"
_FORMAT = 1
_HEADER = json.dumps({"made_by": _MADE_BY, "format": _FORMAT}) + "\n"
_MOST = 1 << 30


class WrittenFiles:
    """Knows which files of a folder are as Sonoloop wrote them; whatever else is there is somebody's own.

    A change is told before it is made, and what was true before stays told: whether a process died before or
    after, a file that it wrote is known by its hash.

    Parameters
    ----------
    folder : pathlib.Path
        The folder; its manifest is read, if there is one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / MANIFEST
        # each file's hashes, and the image that each mask is of, and the other way round
        self._hashes: dict[str, set[str]] = {}
        self._images: dict[str, str] = {}
        self._masks: dict[str, str] = {}
        self._ends_in_line = True
        self.is_begun = False
        if os.path.lexists(self._path):
            self._read()

    def tell(self, files: Mapping[Path, str], *, image: str | None = None) -> None:
        """Add that files hold these bytes, by their SHA-256, from now on; the first is the image's mask."""
        line = {"image": image, "files": {self._name(path): digest for path, digest in files.items()}}
        text = json.dumps(line) + "\n"
        if not self.is_begun:
            text = _HEADER + text
        elif not self._ends_in_line:
            text = "\n" + text
        with self._path.open("ab" if self.is_begun else "wb", buffering=0) as file:
            self._ends_in_line = False
            write_all(file.fileno(), text.encode())
        self._ends_in_line = self.is_begun = True
        self._take(line)

    def confirm(self, path: Path, digest: str) -> None:
        """Know that a file holds these bytes, and no others that were told before."""
        self._hashes[self._name(path)] = {digest}

    def adopt(self, path: Path, *, image: str | None = None) -> None:
        """Take a file for ours as it is; an older version wrote it without a manifest."""
        self._take({"image": image, "files": {self._name(path): _hash(path)}})

    def is_ours(self, path: Path) -> bool:
        """Whether a file holds what we wrote there."""
        known = self._hashes.get(self._name(path))
        if known is None:
            return False
        try:
            return stat.S_ISREG(path.lstat().st_mode) and _hash(path) in known
        except (OSError, ValueError):
            return False

    def mask_of(self, image: str) -> Path | None:
        """Return where the mask of an image was written last."""
        name = self._masks.get(image)
        return None if name is None else self._folder / name

    def files(self) -> list[Path]:
        """Return all files that were ever written."""
        return [self._folder / name for name in self._hashes]

    def compact(self) -> None:
        """Write the manifest anew, without files that are gone and what no longer holds."""
        lines: list[Mapping[str, Any]] = []
        for name, digests in self._hashes.items():
            if os.path.lexists(self._folder / name):
                lines += [{"image": self._images.get(name), "files": {name: one}} for one in sorted(digests)]
        write_whole(self._path, _HEADER + "".join(json.dumps(line) + "\n" for line in lines))
        self._ends_in_line = self.is_begun = True

    def drop(self) -> None:
        """Remove the manifest of a run that wrote nothing."""
        self._path.unlink(missing_ok=True)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _take(self, line: Mapping[str, Any]) -> None:
        for name, digest in line["files"].items():
            self._hashes.setdefault(name, set()).add(digest)
        image = line.get("image")
        if image is not None:
            mask = next(iter(line["files"]))
            self._masks.pop(self._images.get(mask, image), None)
            self._masks[image], self._images[mask] = mask, image

    def _read(self) -> None:
        try:
            if self._path.is_symlink():
                raise OSError(errno.ELOOP, "it is a link")
            data = read_regular(self._path, most=_MOST)
        except OSError as error:
            raise SonoloopError(
                f"{self._path} cannot be read ({error.strerror}); move it away, or choose another folder "
                "with --out"
            ) from error
        if _HEADER.encode().startswith(data):
            return  # the disk was full, or the process killed
        header, *lines = data.splitlines()
        begun = _parse(header)
        if not isinstance(begun, dict) or begun.get("made_by") != _MADE_BY:
            raise SonoloopError(
                f"{self._path} was not written by `{_MADE_BY}` and stays as it is; move it away, or choose "
                "another folder with --out"
            )
        if begun.get("format") != _FORMAT:
            raise SonoloopError(
                f"{self._path} was written by another version of Sonoloop; choose another folder with --out"
            )
        self.is_begun, self._ends_in_line = True, data.endswith(b"\n")
        for line in map(_parse, lines):
            if _is_line(line):
                self._take(line)


def write_all(file: int, data: bytes) -> None:
    """Write bytes; a disk may take a part of them first, and then no more."""
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def _parse(text: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_line(line: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
    if not (isinstance(line, dict) and isinstance(files := line.get("files"), dict) and files):
        return False
    image = line.get("image")
    return (image is None or isinstance(image, str)) and all(
        _is_below(name) and isinstance(digest, str) for name, digest in files.items()
    )


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts and not Path(name).anchor


def _hash(path: Path) -> str:
    with open_regular(path, most=_MOST) as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
