"""Where the files of a store's frames are on this machine: a key file that stays on it.

File names carry names of people, so they are never in the store. A line of the file is a root, which names a
folder, or a frame below a root. Each process appends whole lines, and the last one on a subject holds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import URL, not_, select

from sonoloop.atomic import whole
from sonoloop.errors import ImageError, StoreError, TrainingError
from sonoloop.imaging.image_files import find_images
from sonoloop.imaging.io import read_study
from sonoloop.imaging.orientation import as_stored
from sonoloop.regular_files import open_regular, read_regular
from sonoloop.store.database import Database, data_folder, is_file
from sonoloop.store.revisions import is_withdrawn
from sonoloop.store.tables import FRAMES
from sonoloop.values import Frame

_log = logging.getLogger(__name__)

# of a key file, and of a job's
_MOST_BYTES = 4 << 30
_SQLITE = b"SQLite format 3\0"
_DIGITS = 6
_ROOT = {"root", "folder"}
_FRAME = {"frame", "root", "path", "index", "pixels"}
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would write other line ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a frame's file was last seen: absolute, and it may be gone by now."""

    path: Path
    # number of the frame in the file, from 0
    index: int
    pixels_hash: str | None


def work_folder(url: URL) -> Path:
    """Name the folder for what belongs to a store and stays on this machine: places, jobs, pictures.

    Beside `study.sqlite` it is `study.sonoloop`, beside a file of another ending, such as `study.v1`, it is
    `study.v1-sonoloop`: no two stores have one. It was `study.sonoloop` for all of them once; what is surely
    this store's is moved from there.
    """
    if is_file(url):
        path = Path(str(url.database))
        if path.suffix == ".sqlite":
            return path.with_suffix(".sonoloop")
        own = path.with_name(f"{path.name}-sonoloop")
        if path.with_suffix(".sonoloop").is_dir():
            _take_over(path, own)
        return own
    named = url._replace(password=None)  # a password that was changed names the same store
    plain = named.render_as_string(hide_password=False)
    return data_folder() / "stores" / hashlib.sha256(plain.encode()).hexdigest()[:16]


def shared_folder(url: URL) -> Path | None:
    """Name the folder that a store shared with others before, where it is still there."""
    if not is_file(url) or (path := Path(str(url.database))).suffix == ".sqlite":
        return None
    shared = path.with_suffix(".sonoloop")
    return shared if shared.is_dir() else None


def is_owned(shared: Path) -> bool:
    """Tell whether a store whose own folder this is lies beside it."""
    return shared.with_suffix(".sqlite").exists()


def _take_over(path: Path, own: Path) -> None:
    """Move the shared folder where only this store is left and knows it, else the jobs that name this store.

    One that nothing in the folder tells of may be new, and the folder another's that is away for a moment.
    """
    shared = path.with_suffix(".sonoloop")
    try:
        owners = [one for one in path.parent.iterdir() if one.with_suffix(".sonoloop") == shared]
        jobs = [job.parent for job in shared.glob("jobs/*/job.json") if _store_name(job) == path.name]
        alone = not own.exists() and [one for one in owners if _is_database(one)] == [path]
        if alone and (jobs or _has_frame_of(path, shared / "places.jsonl")):
            shared.rename(own)
            return
        if jobs:
            own.mkdir(mode=0o700, exist_ok=True)
            (own / "jobs").mkdir(exist_ok=True)
        for job in jobs:
            job.rename(own / "jobs" / job.name)
    except OSError as error:  # another process was quicker, or it may only be read
        _log.info("what is in %s stays there: %s", shared, error)


def _is_database(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _has_frame_of(store: Path, places: Path) -> bool:
    """Tell whether a key file names a frame that is in a store; False where that cannot be read."""
    try:
        lines = [_parse(line) for line in read_regular(places, most=_MOST_BYTES).splitlines()]
        with closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return any(
                database.execute("SELECT 1 FROM frames WHERE id = ?", [line["frame"]]).fetchone()
                for line in lines
                if line is not None and "frame" in line
            )
    except (OSError, sqlite3.Error):
        return False


def _store_name(job: Path) -> str | None:
    """Name the file of the store that a job belongs to; None where that cannot be read."""
    try:
        return Path(json.loads(read_regular(job, most=_MOST_BYTES))["plan"]["store"]).name
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


class Places:
    """The key file of a store, by the store's URL."""

    def __init__(self, url: URL) -> None:
        self._path = work_folder(url) / "places.jsonl"
        # what this store noted in a folder that it shared is still read there, and forgotten
        shared = shared_folder(url)
        beside = None if shared is None else url.set(database=str(shared.with_suffix(".sqlite")))
        self._shared = None if beside is None else Places(beside)
        self._file: int | None = None
        self._read_to = 0
        self._roots: dict[str, Path] = {}
        self._frames: dict[str, dict[str, Any]] = {}

    @property
    def folder(self) -> Path:
        """The folder that the key file is in."""
        return self._path.parent

    def remember(self, frame_id: str, path: Path, *, index: int = 0, pixels_hash: str | None = None) -> None:
        """Note where a frame's file is; what is known already is not noted again."""
        path = Path(path).absolute()
        self._catch_up()
        # of its own lines: a folder that another store owns may go, or forget
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
        found = self._locate(frame_id)
        return self._shared.find(frame_id) if found is None and self._shared is not None else found

    def forget(self, frame_ids: Iterable[str]) -> None:
        """Take every line about these frames out of the file, names and all.

        Out of a folder that was shared as well, unless that is another store's own by now.
        """
        wanted = set(frame_ids)
        if self._shared is not None and not is_owned(self._shared.folder):
            self._shared.forget(wanted)
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
            with open_regular(self._path, most=_MOST_BYTES) as file:
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
        with whole(self._path) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Searching:
    """How far a search is: images looked at, of all, and frames found in them."""

    done: int
    total: int
    found: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Relinked:
    """What a search came to: files looked at, those that could not be read, and ids of frames."""

    images: int
    unreadable: int
    # whose files are known now and were not before
    found: tuple[str, ...]
    # those among them whose file has other bytes and the same pixels
    resaved: tuple[str, ...]
    # who have no file, neither where it was nor where was searched
    missing: tuple[str, ...]
    # why files could not be read, and folders not be searched, each with its name
    unread: tuple[str, ...] = field(default=(), compare=False)


def known_frames(store: Database) -> dict[str, str]:
    """Name the frames of a store that a search may look for: all but those that were withdrawn."""
    with store.reading() as connection:
        query = select(FRAMES.c.id, FRAMES.c.pixels_hash).where(not_(is_withdrawn(FRAMES.c.id)))
        return {row.id: row.pixels_hash for row in connection.execute(query)}


def relink(places: Places, folder: Path, known: Mapping[str, str]) -> Iterator[Searching | Relinked]:
    """Look for frames whose files were moved, renamed, saved anew or changed, by either hash.

    A frame whose file is where it was and still has its pixels stays there.
    """
    searched = find_images([folder])
    images = searched.images
    by_pixels: dict[str, list[str]] = {}
    for frame_id, pixels_hash in known.items():
        by_pixels.setdefault(pixels_hash, []).append(frame_id)
    found: set[str] = set()
    resaved: set[str] = set()
    there: set[str] = set()
    unread = [str(one.error) for one in searched.left_out]
    for done, image in enumerate(images):
        yield Searching(done=done, total=len(images), found=len(found | resaved))
        try:
            frames = read_study(image.path).frames
        except ImageError as error:
            unread.append(str(error))
            continue
        for index, frame in enumerate(frames):
            same = [frame.id] if frame.id in known else []
            hashes = {frame.pixels_hash, as_stored(frame).pixels_hash}
            alike = [one for pixels in hashes for one in by_pixels.get(pixels, [])]
            others = [one for one in alike if one not in {*same, *found}]
            for frame_id in (*same, *others):
                place = places.find(frame_id)
                here = place is not None and (place.path, place.index) == (image.path.absolute(), index)
                if frame_id not in there and (here or _is_there(place, frame_id, frame.pixels_hash)):
                    there.add(frame_id)
                if frame_id in there - found - resaved:
                    continue
                places.remember(frame_id, image.path, index=index, pixels_hash=frame.pixels_hash)
                there.add(frame_id)
                (found if frame_id in same else resaved).add(frame_id)
    yield Searching(done=len(images), total=len(images), found=len(found | resaved))
    yield Relinked(
        images=len(images),
        unreadable=len(unread),
        unread=tuple(unread),
        found=tuple(sorted(found | resaved)),
        resaved=tuple(sorted(resaved - found)),
        missing=tuple(sorted(frame_id for frame_id in known if not _is_file(places.find(frame_id)))),
    )


def _is_file(place: Place | None) -> bool:
    return place is not None and place.path.is_file()


def _is_there(place: Place | None, frame_id: str, pixels_hash: str) -> bool:
    try:
        reread(place, frame_id, pixels_hash)
    except TrainingError:
        return False
    return True


def reread(place: Place | None, frame_id: str, pixels_hash: str) -> Frame:
    """Read a frame, and make sure that it is the one that was corrected, by its bytes or its pixels."""
    if place is None or not place.path.is_file():
        raise TrainingError(describe_missing(place))
    try:
        frames = read_study(place.path).frames
    except ImageError as error:
        told = str(error).replace(str(place.path), "its file").replace(place.path.name, "its file")
        raise TrainingError(told) from error
    if place.index >= len(frames):
        raise TrainingError(f"its file has {len(frames)} frames, and it was number {place.index}")
    frame = frames[place.index]
    # of the same bytes other pixels are those of another decoder
    if frame.id != frame_id and pixels_hash not in (frame.pixels_hash, as_stored(frame).pixels_hash):
        raise TrainingError("its file has other pixels than when it was corrected")
    return frame


def describe_missing(place: Place | None) -> str:
    """Say that a frame's file is not there, without its name."""
    return "where its file is was never known on this machine" if place is None else "its file is gone"
