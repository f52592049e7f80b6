"""Image files of every format, from their bytes to studies of grey frames."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sonoloop.errors import (
    ImageEmptyError,
    ImageError,
    ImageMissingError,
    ImageTooLargeError,
    ImageTruncatedError,
    NotAnImageError,
    UnsupportedImageError,
)
from sonoloop.imaging.grey import channels_agree, check_frame, frame_from_array
from sonoloop.values import Frame

logger = logging.getLogger(__name__)

MAX_PIXELS = 64_000_000
MAX_FRAMES = 2_000
MAX_STUDY_PIXELS = 1_000_000_000


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
        (H, W) or (H, W, C), and calls `check_count` and `check_sizes` before it decodes any.
    """

    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...]
    offset: int = 0
    decoder: str = "sonoloop.imaging.io:decode_pictures"


_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# a new one is a file with its decoder, and a line here
FORMATS = {
    "PNG": ImageFormat(suffixes=(".png",), magic=(b"\x89PNG",)),
    "JPEG": ImageFormat(suffixes=(".jpg", ".jpeg"), magic=(b"\xff\xd8\xff",)),
    "TIFF": ImageFormat(suffixes=(".tif", ".tiff"), magic=_TIFF_MAGIC),
    "BMP": ImageFormat(suffixes=(".bmp",), magic=(b"BM",)),
}
SUFFIXES = frozenset(suffix for known in FORMATS.values() for suffix in known.suffixes)
# only these of Pillow's decoders ever see a file: the others have a history of bombs
_PILLOW = ("PNG", "JPEG", "BMP", "TIFF")
_BROKEN = (
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


def read_study(path: Path, *, max_pixels: int = MAX_PIXELS) -> Study:
    """Read an image file.

    Grey levels keep their bit depth (1-bit becomes 0 and 255), colour is read at 8 bits; palettes are
    resolved; alpha is dropped; only a TIFF is read as a cine.

    Parameters
    ----------
    path : pathlib.Path
        A PNG, JPEG, TIFF or BMP file.
    max_pixels : int
        Most pixels a frame may have; checked from the headers, before anything is decoded. In a TIFF that
        Pillow does not know, each channel counts.

    Raises
    ------
    ImageMissingError, ImageEmptyError, NotAnImageError, ImageTruncatedError, ImageTooLargeError
        As their names say; the message names the file and what to do.
    """
    path = Path(path)
    data = _read_bytes(path)
    pages = _decode(data, path.name, max_pixels)
    digest = hashlib.sha256(data)
    frames = []
    for number, page in enumerate(pages):
        frame_digest = digest
        if len(pages) > 1:
            frame_digest = digest.copy()
            frame_digest.update(f"#{number}".encode())
        name = path.name if len(pages) == 1 else f"{path.name} [{number + 1}]"
        frame = frame_from_array(page, name=name, id=frame_digest.hexdigest())
        frames.append(replace(frame, path=path.absolute(), index=number))
    coloured = [page for page in pages if page.ndim == 3 and page.shape[2] >= 3 and not channels_agree(page)]
    same_shape = len({page.shape for page in pages}) == 1
    colour = np.stack([page[..., :3] for page in pages]) if coloured and same_shape else None
    return Study(path=path, name=path.name, frames=tuple(frames), colour=colour)


def read_channels(path: Path, *, max_pixels: int = MAX_PIXELS) -> list[NDArray[Any]]:
    """Read the pages of an image file with all their channels, alpha too; it raises what `read_study` does.

    A mask's shape may stand in its alpha.
    """
    path = Path(path)
    return _decode(_read_bytes(path), path.name, max_pixels)


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
    if len(study.frames) > 1:
        raise UnsupportedImageError(
            f"{study.name} has {len(study.frames)} frames; predicting works on one: "
            "open it in napari, move the slider and press Predict"
        )
    return check_frame(study.frames[0])


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise NotAnImageError(
            f"{path.name} is a folder; give an image file, or let a command search the folder"
        )
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ImageMissingError(f"there is no file {path}; check the path") from error
    except OSError as error:
        raise ImageMissingError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if not data:
        raise ImageEmptyError(f"{path.name} is empty (0 bytes); copy or export it again")
    return data


def _decode(data: bytes, name: str, max_pixels: int) -> list[NDArray[Any]]:
    for known in FORMATS.values():
        if data.startswith(known.magic, known.offset):
            pages: list[NDArray[Any]] = resolve_name(known.decoder)(data, name, max_pixels)
            return pages
    *names, last = FORMATS
    raise NotAnImageError(f"{name} is not a {', '.join(names)} or {last} image; convert it to one of these")


def decode_pictures(data: bytes, name: str, max_pixels: int) -> list[NDArray[Any]]:
    """Decode what Pillow knows, and a TIFF that it does not."""
    try:
        with warnings.catch_warnings():
            # our own cap lies below the size at which Pillow only warns
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=_PILLOW) as image:
                return [_to_array(page) for page in _pages(image, name, max_pixels)]
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(_too_large(name, max_pixels)) from error
    except UnidentifiedImageError as error:
        if data.startswith(_TIFF_MAGIC):
            return _decode_tiff(data, name, max_pixels)
        raise ImageTruncatedError(_truncated(name)) from error
    except _BROKEN as error:
        raise ImageTruncatedError(_truncated(name)) from error


def _pages(image: Image.Image, name: str, max_pixels: int) -> Iterator[Image.Image]:
    count = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    check_count(count, name)
    check_sizes((page.size for page in _seek_each(image, count)), name, max_pixels)
    for page in _seek_each(image, count):
        page.load()
        yield page


def _seek_each(image: Image.Image, count: int) -> Iterator[Image.Image]:
    for number in range(count):
        image.seek(number)
        yield image


def _to_array(image: Image.Image) -> NDArray[Any]:
    if "transparency" in image.info and image.mode in ("P", "L", "RGB"):
        image = image.convert("LA" if image.mode == "L" else "RGBA")
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8) * np.uint8(255)
    if image.mode in ("L", "LA", "RGB", "RGBA", "F") or image.mode.startswith("I;16"):
        array = np.array(image)
        return array.astype(array.dtype.newbyteorder("="))
    if image.mode == "I":
        wide = np.array(image)
        fits = wide.min() >= 0 and wide.max() <= np.iinfo(np.uint16).max
        return wide.astype(np.uint16) if fits else wide
    return np.array(image.convert("RGB"))


def _decode_tiff(data: bytes, name: str, max_pixels: int) -> list[NDArray[Any]]:
    """Decode the TIFFs that Pillow does not know, colour in floating point among them."""
    import tifffile  # noqa: PLC0415 - slow to import, seldom needed

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            check_count(len(tiff.pages), name)
            pages = [page.aspage() for page in tiff.pages]
            # a damaged tag may hold a tuple, which would multiply to one of gigabytes
            check_sizes((tuple(map(int, page.shape)) for page in pages), name, max_pixels)
            arrays = [np.asarray(page.asarray()) for page in pages]
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # every codec has its own for damaged data
        if _lacks_codec(error):
            raise NotAnImageError(
                f"{name} is compressed or packed in a way that Sonoloop does not read; save it uncompressed"
            ) from error
        raise ImageTruncatedError(_truncated(name)) from error
    if not arrays:
        raise ImageTruncatedError(_truncated(name))
    return [np.moveaxis(a, 0, -1) if a.ndim == 3 and a.shape[0] in (3, 4) else a for a in arrays]


def _lacks_codec(error: Exception) -> bool:
    """Whether tifffile does not know how to decode, or lacks the library for it; it says so in words only."""
    known = isinstance(error, NotImplementedError | ImportError)
    return known or "imagecodecs" in str(error) or "not supported" in str(error)


def _check_size(shape: Sequence[int], name: str, max_pixels: int) -> None:
    sides = " x ".join(map(str, shape))
    if math.prod(shape) == 0:
        raise ImageEmptyError(f"{name} has no pixels ({sides}); export it again")
    if math.prod(shape) > max_pixels:
        raise ImageTooLargeError(f"{_too_large(name, max_pixels)} It has {sides}.")


def check_sizes(shapes: Iterable[Sequence[int]], name: str, max_pixels: int) -> None:
    """Refuse pages that are empty, too large, or too many for their size."""
    total = 0
    for shape in shapes:
        _check_size(shape, name, max_pixels)
        total += math.prod(shape)
    if total > MAX_STUDY_PIXELS:
        raise ImageTooLargeError(
            f"{name} has {total:,} pixels in all its frames; at most {MAX_STUDY_PIXELS:,} are read: "
            "split the file"
        )


def check_count(count: int, name: str) -> None:
    """Refuse a file of too many pages."""
    if count > MAX_FRAMES:
        raise ImageTooLargeError(
            f"{name} has {count:,} frames; at most {MAX_FRAMES:,} are read: split the file"
        )


def _too_large(name: str, max_pixels: int) -> str:
    return f"{name} has more than {max_pixels:,} pixels, the most that is read: crop or shrink it."


def _truncated(name: str) -> str:
    return f"{name} breaks off or is damaged; copy or export it again"
