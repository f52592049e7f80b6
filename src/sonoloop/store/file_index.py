"""Where the files of a store's frames are on this machine: a key file that stays on it.

File names carry names of people, so they are never in the store. A line of the file is a root, which names a
folder, or a frame below a root. Each process appends whole lines, and the last one on a subject holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import URL

from sonoloop.errors import StoreError
from sonoloop.store.database import data_folder, is_file

_DIGITS = 6
_ROOT = {"root", "folder"}
_FRAME = {"frame", "root", "path", "index", "pixels"}
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would write other line ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a frame's file was last seen.

    Parameters
    ----------
    path : pathlib.Path
        The file, absolute; it may be gone by now.
    index : int
        Number of the frame in it, from 0.
    pixels_hash : str, optional
        Hash of the frame's decoded pixels.
    """

    path: Path
    index: int
    pixels_hash: str | None


def work_folder(url: URL) -> Path:
    """Name the folder for what belongs to a store and stays on this machine: places, jobs.

    Parameters
    ----------
    url : sqlalchemy.URL
        See `sonoloop.store.CorrectionStore.url`.

    Returns
    -------
    pathlib.Path
        Beside a SQLite store, its name with ``.sonoloop`` for its suffix; else below the user's data folder.
        Nothing is created.
    """
    if is_file(url):
        return Path(str(url.database)).with_suffix(".sonoloop")
    named = url._replace(password=None)  # a password that was changed names the same store
    plain = named.render_as_string(hide_password=False)
    return data_folder() / "stores" / hashlib.sha256(plain.encode()).hexdigest()[:16]


class Places:
    """The key file of a store.

    Parameters
    ----------
    url : sqlalchemy.URL
        See `sonoloop.store.CorrectionStore.url`.

    Raises
    ------
    StoreError
        From each method, if the file cannot be read or written.
    """

    def __init__(self, url: URL) -> None:
        self._path = work_folder(url) / "places.jsonl"
        self._file: int | None = None
        self._read_to = 0
        self._roots: dict[str, Path] = {}
        self._frames: dict[str, dict[str, Any]] = {}

    def remember(self, frame_id: str, path: Path, *, index: int = 0, pixels_hash: str | None = None) -> None:
        """Note where a frame's file is; what is known already is not noted again.

        Parameters
        ----------
        frame_id : str
            See `sonoloop.values.Frame`.
        path : pathlib.Path
            The file.
        index : int
            Number of the frame in it, from 0.
        pixels_hash : str, optional
            Hash of its decoded pixels.
        """
        self._catch_up()
        path = Path(path).absolute()
        known = self._locate(frame_id)
        same = known is not None and (known.path, known.index) == (path, index)
        if same and known is not None and pixels_hash in (None, known.pixels_hash):
            return
        lines: list[dict[str, Any]] = []
        root = self._find_root(path)
        if root is None:
            root = self._name_root(path.parent)
            lines.append({"root": root, "folder": str(path.parent)})
        relative = path.relative_to(path.parent if lines else self._roots[root]).as_posix()
        lines.append(
            {"frame": frame_id, "root": root, "path": relative, "index": index, "pixels": pixels_hash}
        )
        self._append(lines)

    def find(self, frame_id: str) -> Place | None:
        """Give where a frame's file was last seen; None if that was never on this machine."""
        self._catch_up()
        return self._locate(frame_id)

    def forget(self, frame_ids: Iterable[str]) -> None:
        """Take every line about these frames out of the file, names and all."""
        wanted = set(frame_ids)
        self._catch_up()
        if not wanted.intersection(self._frames):
            return
        kept = [line for frame_id, line in self._frames.items() if frame_id not in wanted]
        used = {line["root"] for line in kept}
        roots = [{"root": n, "folder": str(folder)} for n, folder in self._roots.items() if n in used]
        try:
            self._replace([*roots, *kept])
        except OSError as error:
            raise self._failed(error) from error
        self._catch_up()

    def _locate(self, frame_id: str) -> Place | None:
        line = self._frames.get(frame_id)
        if line is None or line["root"] not in self._roots:
            return None
        path = self._roots[line["root"]].joinpath(*PurePosixPath(line["path"]).parts)
        return Place(path=path, index=line["index"], pixels_hash=line["pixels"])

    def _find_root(self, path: Path) -> str | None:
        above = [
            (len(folder.parts), name) for name, folder in self._roots.items() if path.is_relative_to(folder)
        ]
        return max(above)[1] if above else None

    def _name_root(self, folder: Path) -> str:
        # two processes that meet one folder at once give it one name, and two folders two
        digest = hashlib.sha256(str(folder).encode()).hexdigest()
        return f"{folder.name or 'root'}-{digest[:_DIGITS]}"

    def _catch_up(self) -> None:
        """Read what was appended since, or all of it where somebody wrote the file anew."""
        try:
            now = self._path.stat()
        except FileNotFoundError:
            self._restart(None)
            return
        except OSError as error:
            raise self._failed(error) from error
        if now.st_ino != self._file:
            self._restart(now.st_ino)
        if now.st_size == self._read_to:
            return
        for line in self._read_on():
            if "frame" in line:
                self._frames[line["frame"]] = line
            else:
                self._roots[line["root"]] = Path(line["folder"])

    def _restart(self, file: int | None) -> None:
        self._file, self._read_to, self._roots, self._frames = file, 0, {}, {}

    def _read_on(self) -> list[dict[str, Any]]:
        """Read the whole lines from where the last reading ended; one that a crash cut short is none."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_to)
                data = file.read()
        except OSError as error:
            raise self._failed(error) from error
        whole = data[: data.rfind(b"\n") + 1]
        self._read_to += len(whole)
        return [line for line in map(_parse, whole.splitlines()) if line is not None]

    def _append(self, lines: list[dict[str, Any]]) -> None:
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _BINARY, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                if size > self._read_to:
                    # the line that a crash cut short, or another process's: an empty line costs nothing
                    data = b"\n" + data
                os.write(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._failed(error) from error
        self._catch_up()

    def _replace(self, lines: list[dict[str, Any]]) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(json.dumps(line).encode() + b"\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _failed(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self._path}, which says where images are, cannot be used ({error.strerror}): "
            "allow reading and writing it, and make room on its disk"
        )


def _parse(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    if not isinstance(line, dict):
        return None
    return line if line.keys() >= _FRAME or line.keys() >= _ROOT else None
