"""Image files of every format, from their bytes to studies of grey frames."""

from __future__ import annotations

import errno
import hashlib
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import (
    ImageEmptyError,
    ImageMissingError,
    ImageTooLargeError,
    ImageTruncatedError,
    NotAnImageError,
    UnsupportedImageError,
)
from sonoloop.imaging.decoder_noise import silence_decoders
from sonoloop.imaging.grey import channels_agree, check_frame, frame_from_array
from sonoloop.imaging.page import Page, narrow_colour
from sonoloop.regular_files import name_size, read_regular
from sonoloop.values import Frame

MAX_PIXELS = 64_000_000
MAX_FRAMES = 2_000
MAX_STUDY_PIXELS = 1_000_000_000
# of an encoded file, and of all its decoded pages
MAX_FILE_BYTES = 1 << 30
MAX_DECODED_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFormat:
    """How files of a format are told, by their names and by how they begin, and what decodes them.

    Parameters
    ----------
    suffixes : tuple of str
        In lower case.
    magic : tuple of bytes
        What the bytes from `offset` on begin with.
    offset : int
        Where the magic lies.
    decoder : str
        "module:function" of the bytes, a name for messages and the most pixels of a page: gives the pages,
        upright arrays (H, W) or (H, W, C), or `Page` where there is more to say, and calls `check_count` and
        `check_sizes` before it decodes any.
    several : bool
        Whether a file may hold more pages than one.
    """

    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...]
    offset: int = 0
    decoder: str
    several: bool = False


# a new one is a file with its decoder, and a line here
FORMATS = {
    "PNG": ImageFormat(suffixes=(".png",), magic=(b"\x89PNG",), decoder="sonoloop.imaging.png:decode_png"),
    "JPEG": ImageFormat(
        suffixes=(".jpg", ".jpeg"), magic=(b"\xff\xd8\xff",), decoder="sonoloop.imaging.jpeg:decode_jpeg"
    ),
    "TIFF": ImageFormat(
        suffixes=(".tif", ".tiff"),
        magic=(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        decoder="sonoloop.imaging.tiff:decode_tiff",
        several=True,
    ),
    "BMP": ImageFormat(suffixes=(".bmp",), magic=(b"BM",), decoder="sonoloop.imaging.pictures:decode_bmp"),
}
SUFFIXES = frozenset(suffix for known in FORMATS.values() for suffix in known.suffixes)
# what Pillow raises for damaged data
BROKEN = (
    ArithmeticError,
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """What one path holds.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    name : str
        The file's name.
    frames : tuple of Frame
        One grey frame, or a cine of many.
    colour : numpy.ndarray, optional
        (N, H, W, 3) as the file has it, only where its channels disagree (Doppler, coloured marks).
    """

    path: Path
    name: str
    frames: tuple[Frame, ...]
    colour: NDArray[Any] | None = None

    @property
    def notes(self) -> list[str]:
        """What of its frames is not there, each by name; see `Frame`."""
        return [f"{frame.name}: {frame.note}" for frame in self.frames if frame.note is not None]


def read_study(path: Path, *, max_pixels: int = MAX_PIXELS) -> Study:
    """Read an image file.

    It is turned as its EXIF or TIFF orientation says, or else its XMP. Grey levels keep their bit depth
    (1-bit becomes 0 and 255); colour is read at 8 bits, or at 16 where it does not fill them; palettes are
    resolved; alpha is dropped; only a TIFF is read as a cine, of which pages that are thumbnails or masks of
    others are no part. What is not read right is refused. A frame of which rows are missing says so in its
    `note`.

    Parameters
    ----------
    path : pathlib.Path
        A PNG, JPEG, TIFF or BMP file.
    max_pixels : int
        Most pixels a frame may have; checked from the headers, before anything is decoded. More than four
        channels count as pixels.

    Raises
    ------
    ImageMissingError, ImageEmptyError, NotAnImageError, ImageTruncatedError, ImageTooLargeError,
    UnsupportedImageError
        As their names say; the message names the file and what to do.
    """
    path = Path(path)
    try:
        return _make_study(path, max_pixels)
    except MemoryError as error:
        raise ImageTooLargeError(say_no_memory(path.name)) from error


def _make_study(path: Path, max_pixels: int) -> Study:
    data = _read_bytes(path)
    pages = narrow_colour(_decode(data, path.name, max_pixels))
    frames = []
    for number, (page, frame_id) in enumerate(zip(pages, _name_frames(data, len(pages)), strict=True)):
        name = path.name if len(pages) == 1 else f"{path.name} [{number + 1}]"
        frame = frame_from_array(page.pixels, name=name, id=frame_id)
        place = path.absolute()
        frames.append(replace(frame, path=place, index=number, orientation=page.orientation, note=page.note))
    arrays = [page.pixels for page in pages]
    coloured = [one for one in arrays if one.ndim == 3 and one.shape[2] >= 3 and not channels_agree(one)]
    same_shape = len({one.shape for one in arrays}) == 1
    colour = np.stack([one[..., :3] for one in arrays]) if coloured and same_shape else None
    return Study(path=path, name=path.name, frames=tuple(frames), colour=colour)


def _name_frames(data: bytes, count: int) -> tuple[str, ...]:
    """Give the ids of the frames of a file."""
    digest = hashlib.sha256(data)
    if count == 1:
        return (digest.hexdigest(),)
    ids = []
    for number in range(count):
        one = digest.copy()
        one.update(f"#{number}".encode())
        ids.append(one.hexdigest())
    return tuple(ids)


def read_frame_ids(path: Path) -> tuple[str, ...]:
    """Give the ids of a file's frames as `read_study` does; what holds one frame is not decoded.

    Raises
    ------
    ImageError
        As `read_study`, as far as it is decoded.
    """
    path = Path(path)
    data = _read_bytes(path)
    several = any(known.several and data.startswith(known.magic, known.offset) for known in FORMATS.values())
    try:
        return _name_frames(data, len(_decode(data, path.name, MAX_PIXELS)) if several else 1)
    except MemoryError as error:
        raise ImageTooLargeError(say_no_memory(path.name)) from error


def read_values(path: Path) -> NDArray[np.uint8]:
    """Read the numbers that a file of one 8-bit grey, 1-bit or palette page holds, turned as a frame is.

    Raises
    ------
    NotAnImageError
        If it holds other pages.
    ImageError
        As `read_study`; also if any of it is missing.
    """
    path = Path(path)
    pages = _read_pages(path, MAX_PIXELS)
    page, values = pages[0], pages[0].pixels if pages[0].values is None else pages[0].values
    if page.note is not None:
        raise ImageTruncatedError(f"{path.name} is not whole: {page.note}; write it again")
    if len(pages) > 1:
        raise NotAnImageError(f"{path.name} is no mask: it holds {len(pages)} pages; save it as a PNG")
    if values.ndim != 2 or values.dtype != np.uint8:
        what = f"{values.dtype} values" if values.ndim == 2 else "colours"
        raise NotAnImageError(f"{path.name} is no mask: it holds {what}; save it as a grey or palette PNG")
    return values


def read_channels(path: Path, *, max_pixels: int = MAX_PIXELS) -> list[Page]:
    """Read the pages of a file with all their channels and bits, alpha too: a mask's shape may stand there.

    Raises
    ------
    ImageError
        As `read_study`; also if any of a page is missing.
    """
    path = Path(path)
    pages = _read_pages(path, max_pixels)
    for page in pages:
        if page.note is not None:
            raise ImageTruncatedError(f"{path.name} is not whole: {page.note}; copy or export it again")
    return pages


def read_frame(path: Path, *, max_pixels: int = MAX_PIXELS) -> Frame:
    """Read a file that holds one frame a model can work on.

    Raises
    ------
    UnsupportedImageError
        If the file holds several frames, or the frame is constant or not finite.
    ImageError
        As `read_study`.
    """
    study = read_study(path, max_pixels=max_pixels)
    if len({frame.shape for frame in study.frames}) > 1:
        raise UnsupportedImageError(
            f"{study.name} has {len(study.frames)} pages that differ in size; save each as a file of its own"
        )
    if len(study.frames) > 1:
        raise UnsupportedImageError(
            f"{study.name} has {len(study.frames)} frames; predicting works on one: "
            "open it in napari, move the slider and press Predict"
        )
    return check_frame(study.frames[0])


def _read_pages(path: Path, max_pixels: int) -> list[Page]:
    try:
        return _decode(_read_bytes(path), path.name, max_pixels)
    except MemoryError as error:
        raise ImageTooLargeError(say_no_memory(path.name)) from error


def _read_bytes(path: Path) -> bytes:
    try:
        data = read_regular(path, most=MAX_FILE_BYTES)
    except FileNotFoundError as error:
        raise ImageMissingError(f"there is no file {path}; check the path") from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ImageTooLargeError(
                f"{path.name} is not read: {error.strerror}; crop or shrink it"
            ) from error
        if error.errno in (errno.EINVAL, errno.EISDIR):
            raise NotAnImageError(f"{path.name} is no image: {error.strerror}; give an image file") from error
        raise ImageMissingError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except ValueError as error:  # a NUL in the name
        raise ImageMissingError(f"{path.name!r} is no name of a file; check the path") from error
    if not data:
        raise ImageEmptyError(f"{path.name} is empty (0 bytes); copy or export it again")
    return data


def _decode(data: bytes, name: str, max_pixels: int) -> list[Page]:
    for known in FORMATS.values():
        if data.startswith(known.magic, known.offset):
            with silence_decoders():
                pages: list[Page | NDArray[Any]] = resolve_name(known.decoder)(data, name, max_pixels)
            return [page if isinstance(page, Page) else Page(pixels=page) for page in pages]
    *names, last = FORMATS
    raise NotAnImageError(f"{name} is not a {', '.join(names)} or {last} image; convert it to one of these")


def check_sizes(shapes: Iterable[Sequence[int]], name: str, max_pixels: int, *, pixel_bytes: int = 1) -> None:
    """Refuse pages that are empty, too large, or too many for their size."""
    total = 0
    for shape in shapes:
        sides, pixels = " x ".join(map(str, shape)), math.prod(shape)
        if pixels == 0:
            raise ImageEmptyError(f"{name} has no pixels ({sides}); export it again")
        if pixels > max_pixels:
            raise ImageTooLargeError(f"{say_too_large(name, max_pixels)} It has {sides}.")
        total += pixels
    if total > MAX_STUDY_PIXELS:
        raise ImageTooLargeError(
            f"{name} has {total:,} pixels in all its frames; at most {MAX_STUDY_PIXELS:,} are read: "
            "split the file"
        )
    if total * pixel_bytes > MAX_DECODED_BYTES:
        raise ImageTooLargeError(
            f"{name} takes {name_size(total * pixel_bytes)} once decoded, and at most "
            f"{name_size(MAX_DECODED_BYTES)} are read: crop it, split it, or save it at fewer bits a pixel"
        )


def check_count(count: int, name: str) -> None:
    """Refuse a file of too many pages."""
    if count > MAX_FRAMES:
        raise ImageTooLargeError(
            f"{name} has {count:,} frames; at most {MAX_FRAMES:,} are read: split the file"
        )


def say_too_large(name: str, max_pixels: int) -> str:
    """Say that a picture has too many pixels."""
    return f"{name} has more than {max_pixels:,} pixels, the most that is read: crop or shrink it."


def say_no_memory(name: str) -> str:
    """Say that a picture does not fit into memory."""
    return f"{name} takes more memory than there is; close other programs, or crop or shrink it"


def say_truncated(name: str) -> str:
    """Say that a file is damaged."""
    return f"{name} breaks off or is damaged; copy or export it again"


def say_packed(name: str) -> str:
    """Say that a file may well be right, and is not read."""
    return f"{name} is compressed or packed in a way that Sonoloop does not read; save it uncompressed"
