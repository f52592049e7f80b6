"""Drafts: what was drawn and chosen and is not accepted yet, on this machine, one file a frame.

A file is a PNG of the mask that any program shows; the rest is JSON in its text. It is written whole or not
at all, and goes only when it is accepted or discarded, or its patient withdrawn: none is too old, and no
number is too many.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import struct
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sonoloop.atomic import whole, write_whole
from sonoloop.errors import DraftError, describe_system_error
from sonoloop.regular_files import open_regular, read_regular
from sonoloop.values import CLASSES, LABELS, ClassName, Effort, Label

_log = logging.getLogger(__name__)

_FORMAT = 1
_ID = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"([0-9a-f]{64})\.png")
_MOST_PIXELS = 64 * 1024 * 1024
_MOST_BYTES = 512 << 20
_PNG = b"\x89PNG\r\n\x1a\n"
_KEYWORD = b"sonoloop\0"
_HEAD_BYTES = 64 << 10  # of a file: its size, and all that is said of it
_PASSWORD = re.compile(r"^([^:/@]*):[^@]*@")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draft:
    """What a person drew and chose on a frame and did not accept.

    Parameters
    ----------
    frame_id, pixels_hash : str
        The frame it is about; see `Frame`.
    mask : numpy.ndarray
        uint8 (H, W), as in `Correction`.
    label : str, optional
        The class that was chosen.
    lesions : mapping
        The class of each lesion that has one, by its number in `mask`.
    annotator : str
        Pseudonym of the person.
    model : str, optional
        Id of the model whose prediction was shown.
    seen : bool
        Whether any prediction was shown.
    parent : str, optional
        Id of the annotator's correction that was the newest when this was drawn.
    path, index : Path and int, optional
        The file that the frame was read from, and its number there.
    effort : Effort, optional
        What it took so far, without the times.
    written : datetime
        When, with its time zone.
    """

    frame_id: str
    pixels_hash: str
    mask: NDArray[np.uint8]
    annotator: str
    label: Label | None = None
    lesions: Mapping[int, ClassName] = field(default_factory=dict)
    model: str | None = None
    seen: bool = False
    parent: str | None = None
    path: Path | None = None
    index: int = 0
    effort: Effort | None = None
    written: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        for name in ("frame_id", "pixels_hash"):
            if not _ID.fullmatch(getattr(self, name)):
                raise ValueError(f"{name} must be 64 hex digits, got {getattr(self, name)!r}")
        if self.mask.ndim != 2 or self.mask.dtype != np.uint8 or not 0 < self.mask.size <= _MOST_PIXELS:
            raise ValueError(f"mask must be uint8 (H, W), got {self.mask.dtype} {self.mask.shape}")
        if self.label is not None and self.label not in LABELS:
            raise ValueError(f"label must be one of {', '.join(LABELS)} or None, got {self.label!r}")
        for number, name in self.lesions.items():
            if not 1 <= number <= 255 or name not in CLASSES:
                raise ValueError(
                    f"lesions must map 1 to 255 to one of {', '.join(CLASSES)}, got {number}: {name}"
                )
        if self.written.tzinfo is None:
            raise ValueError("written must have a time zone")


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftHead:
    """What a draft says of itself without its mask: of which frame, of which file, and when."""

    frame_id: str
    pixels_hash: str
    path: Path | None
    index: int
    written: datetime


def draft_folder(store: str | os.PathLike[str] | None, annotator: str) -> Path:
    """Name the folder of an annotator's drafts on a store, by its path or URL; None is the default store.

    A password in the URL makes no difference. Nothing is created.
    """
    return _store_folder(store) / _short_hash(annotator.strip())


def draft_folders(store: str | os.PathLike[str] | None) -> list[DraftFolder]:
    """Give the folders of everybody who has drafts on a store on this machine."""
    return [DraftFolder(folder) for folder in sorted(_subfolders(_store_folder(store)))]


class DraftFolder:
    """The drafts of one annotator on one store.

    Parameters
    ----------
    folder : Path
        Made when something is written; see `draft_folder`.
    store : str, optional
        Of which store they are, for who finds the folder one day.
    on_notice : callable, optional
        Told which file was damaged, and where it is kept.
    """

    def __init__(
        self, folder: Path, *, store: str | None = None, on_notice: Callable[[str], None] | None = None
    ) -> None:
        self.folder = folder
        self._store = store
        self._notify = on_notice or _log.warning

    def write(self, draft: Draft) -> None:
        """Keep a draft in the place of the frame's last one; when this returns it is on disk.

        Raises
        ------
        DraftError
            If it cannot be written; the last one stays.
        """
        data = _encode(draft)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (self.folder / "about.json").exists():
                about = {"annotator": draft.annotator, "store": _name_store(self._store)}
                write_whole(self.folder / "about.json", json.dumps(about, indent=1))
            with whole(self._path(draft.frame_id)) as temporary:
                temporary.touch(mode=0o600)
                temporary.write_bytes(data)
        except OSError as error:
            raise DraftError(
                f"what you draw cannot be kept as a draft: {describe_system_error(error)}. It is tried again "
                "as you go on; do not close napari before it is accepted"
            ) from error

    def read(self, frame_id: str) -> Draft | None:
        """Give a frame's draft; None where there is none, or a damaged one, of which `on_notice` is told."""
        path = self._path(frame_id)
        try:
            data = read_regular(path, most=_MOST_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._notify(f"the draft {path} cannot be read ({error.strerror}): it stays where it is")
            return None
        try:
            draft = _decode(data)
            if draft.frame_id != frame_id:
                raise ValueError("it is of another frame")
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            self.set_aside(frame_id, f"is damaged or not one of Sonoloop's ({error})")
            return None
        return draft

    def drop(self, frame_id: str) -> None:
        """Remove a frame's draft: it was accepted or discarded. None being there is no error."""
        path = self._path(frame_id)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DraftError(
                f"the draft {path} cannot be removed ({error.strerror}), and will be offered again; remove it"
            ) from error

    def ids(self) -> frozenset[str]:
        """List the frames that have a draft, by the names of the files alone."""
        try:
            names = [entry.name for entry in os.scandir(self.folder)]
        except OSError:
            return frozenset()
        return frozenset(found[1] for name in names if (found := _FILE.fullmatch(name)))

    def head(self, frame_id: str) -> DraftHead | None:
        """Read what a frame's draft says of itself; None where there is none, or where it is damaged."""
        return _read_head(self._path(frame_id))

    def heads(self) -> list[DraftHead]:
        """Read what every draft says of itself; what is damaged is left out."""
        found = (self.head(frame_id) for frame_id in sorted(self.ids()))
        return [head for head in found if head is not None]

    def set_aside(self, frame_id: str, why: str) -> Path | None:
        """Keep a frame's draft beside the others under another name; `on_notice` is told which, and `why`.

        It is offered no more, and no other is written over it.
        """
        path = self._path(frame_id)
        taken = {entry.name for entry in os.scandir(self.folder)} if self.folder.is_dir() else set()
        if path.name not in taken:
            return None
        number = next(n for n in range(1, len(taken) + 2) if f"{frame_id}.aside-{n}.png" not in taken)
        kept = path.with_name(f"{frame_id}.aside-{number}.png")
        try:
            path.rename(kept)
        except OSError as error:
            self._notify(f"the draft {path} {why}, and cannot be renamed ({error.strerror})")
            return None
        self._notify(f"a draft {why}: it is kept as {kept}")
        return kept

    def _path(self, frame_id: str) -> Path:
        if not _ID.fullmatch(frame_id):
            raise ValueError(f"a frame's id must be 64 hex digits, got {frame_id!r}")
        return self.folder / f"{frame_id}.png"


def erase_drafts(store: str, frames: Collection[str], pixels: Collection[str] = ()) -> None:
    """Erase all annotators' drafts of frames, by their ids, and of frames that have such pixels.

    Raises
    ------
    DraftError
        If one cannot be removed; the others are.
    """
    kept: OSError | None = None
    for folder in _subfolders(_store_folder(store)):
        # also those set aside, and what a crash left half written
        for path in list(folder.glob("*.png*")) + list(folder.glob(".*.png.*")):
            if path.name.lstrip(".")[:64] not in frames:
                head = _read_head(path)
                if head is None or head.pixels_hash not in pixels:
                    continue
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                kept = error
    if kept is not None:
        raise DraftError(
            f"{kept.filename} is a draft of it and cannot be removed ({kept.strerror}): remove it"
        )


def drafts_root() -> Path:
    """Name the folder of all drafts on this machine; nothing is created."""
    return Path(platformdirs.user_data_path("sonoloop", appauthor=False)) / "drafts"


def _store_folder(store: str | os.PathLike[str] | None) -> Path:
    return drafts_root() / _short_hash(_name_store(store))


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _name_store(store: str | os.PathLike[str] | None) -> str:
    """Spell a store alike however it is given: a file by its path, a server without password and driver."""
    text = str(drafts_root().parent / "corrections.sqlite") if store is None else os.fspath(store)
    scheme, found, rest = text.partition("://")
    driver = scheme.partition("+")[0]
    if found and driver != "sqlite":
        return f"{driver}://" + _PASSWORD.sub(r"\1@", rest)
    path = rest.removeprefix("/").partition("?")[0] if found else text
    return os.path.normcase(Path(path).absolute())


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def _hash_mask(mask: NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(mask).data).hexdigest()


def _encode(draft: Draft) -> bytes:
    about = {
        "format": _FORMAT,
        "frame": draft.frame_id,
        "pixels": draft.pixels_hash,
        "annotator": draft.annotator,
        "label": draft.label,
        "lesions": {str(number): name for number, name in draft.lesions.items()},
        "model": draft.model,
        "seen": draft.seen,
        "parent": draft.parent,
        "path": None if draft.path is None else os.fspath(draft.path),
        "index": draft.index,
        "effort": None if draft.effort is None else _write_effort(draft.effort),
        "written": draft.written.astimezone(UTC).isoformat(),
        "mask": _hash_mask(draft.mask),
    }
    info = PngInfo()
    info.add(b"tEXt", _KEYWORD + json.dumps(about).encode("ascii"))
    file = io.BytesIO()
    # most of a mask is empty: more work makes it hardly smaller
    Image.fromarray(np.ascontiguousarray(draft.mask)).save(file, "PNG", pnginfo=info, compress_level=1)
    return file.getvalue()


def _decode(data: bytes) -> Draft:
    about = _read_about(data)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.mode != "L":
                raise ValueError("its picture is not grey")
            mask = np.array(image, dtype=np.uint8)
    except (OSError, SyntaxError, zlib.error) as error:
        raise ValueError(f"its picture does not decode: {error}") from error
    if _hash_mask(mask) != about["mask"]:
        raise ValueError("its picture is another one than was written")
    head = _head_of(about)
    return Draft(
        frame_id=head.frame_id,
        pixels_hash=head.pixels_hash,
        mask=mask,
        annotator=_text(about["annotator"]),
        label=about["label"],
        lesions={int(number): name for number, name in about["lesions"].items()},
        model=None if about["model"] is None else _text(about["model"]),
        seen=bool(about["seen"]),
        parent=None if about["parent"] is None else _text(about["parent"]),
        path=head.path,
        index=head.index,
        effort=_read_effort(about.get("effort")),
        written=head.written,
    )


def _write_effort(effort: Effort) -> dict[str, Any]:
    values = asdict(effort.without_times())
    return {name: value for name, value in values.items() if name not in {"started", "active_seconds"}}


def _read_effort(values: object) -> Effort | None:
    if not isinstance(values, dict):
        return None
    shown = tuple((_text(what), None) for what, _ in values["shown"])
    counts = {name: values[name] for name in ("strokes", "clicks", "undos")}
    return Effort(**counts, mode=values["mode"], shown=shown)


def _read_about(data: bytes) -> dict[str, Any]:
    """Read what is said of a draft, from the beginning of its file."""
    if data[:8] != _PNG or data[12:16] != b"IHDR" or len(data) < 45:
        raise ValueError("it is no PNG")
    width, height = struct.unpack(">II", data[16:24])
    if not 0 < width * height <= _MOST_PIXELS:
        raise ValueError(f"it claims {width} x {height} pixels")
    (length,) = struct.unpack(">I", data[33:37])
    body, checksum = data[37 : 41 + length], data[41 + length : 45 + length]
    if not body.startswith(b"tEXt" + _KEYWORD) or zlib.crc32(body) != int.from_bytes(checksum, "big"):
        raise ValueError("nothing of Sonoloop's is in it")
    about = json.loads(body[4 + len(_KEYWORD) :])
    if not isinstance(about, dict) or not isinstance(about.get("lesions"), dict):
        raise ValueError("what it says is not what Sonoloop writes")
    if about.get("format") != _FORMAT:
        raise ValueError(f"its format is {about.get('format')}: a newer Sonoloop may read it")
    return about


def _read_head(path: Path) -> DraftHead | None:
    try:
        with open_regular(path, most=_MOST_BYTES) as file:
            return _head_of(_read_about(file.read(_HEAD_BYTES)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _head_of(about: dict[str, Any]) -> DraftHead:
    written = datetime.fromisoformat(_text(about["written"]))
    if written.tzinfo is None:
        raise ValueError("its time has no zone")
    return DraftHead(
        frame_id=_text(about["frame"]),
        pixels_hash=_text(about["pixels"]),
        path=None if about["path"] is None else Path(_text(about["path"])),
        index=int(about["index"]),
        written=written,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
