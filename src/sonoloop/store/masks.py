"""Masks and 8-bit maps as lossless PNG, and the hash that tells whether one is still what it was."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sonoloop.errors import StoreError

MAX_PIXELS = 64_000_000

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY_8_BIT = (8, 0, 0, 0, 0)  # depth, colour type, compression, filter, interlace


def encode_png(values: NDArray[np.uint8]) -> bytes:
    """Write a mask as a PNG without loss.

    Parameters
    ----------
    values : numpy.ndarray
        uint8, shape (H, W), at least one pixel.

    Returns
    -------
    bytes
        An 8-bit grey PNG with no other chunks than its header, its data and its end.

    Raises
    ------
    ValueError
        If the array is not uint8 (H, W), is empty, or has more than `MAX_PIXELS`.
    """
    if values.ndim != 2 or values.dtype != np.uint8:
        raise ValueError(f"a mask must be uint8 (H, W), got {values.dtype} {values.shape}")
    if not 0 < values.size <= MAX_PIXELS:
        raise ValueError(f"a mask must have 1 to {MAX_PIXELS} pixels, got {values.shape}")
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(file, format="PNG")
    return file.getvalue()


def decode_png(data: bytes) -> NDArray[np.uint8]:
    """Read what `encode_png` wrote, and nothing else.

    Parameters
    ----------
    data : bytes
        A whole 8-bit grey PNG.

    Returns
    -------
    numpy.ndarray
        uint8, shape (H, W), writable.

    Raises
    ------
    StoreError
        If the bytes are damaged, cut short, followed by others, not an 8-bit grey PNG, or claim more than
        `MAX_PIXELS`. The claim is checked before anything is decoded.
    """
    height, width = _read_shape(data)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            values = np.array(image, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, zlib.error) as error:
        raise StoreError(f"a stored PNG of {height} x {width} pixels does not decode: {error}") from error
    if values.shape != (height, width):
        raise StoreError(f"a stored PNG says {height} x {width} pixels and has {values.shape}")
    return values


def hash_pixels(values: NDArray[np.uint8]) -> str:
    """Hash a mask's shape and pixels, whatever the PNG around them.

    Parameters
    ----------
    values : numpy.ndarray
        uint8, shape (H, W).

    Returns
    -------
    str
        SHA-256, 64 hex digits; the same from every version of the PNG encoder.
    """
    height, width = values.shape
    digest = hashlib.sha256(f"uint8 {height} {width} ".encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _read_shape(data: bytes) -> tuple[int, int]:
    """Walk every chunk, since Pillow forgives damage that leaves the pixels alone and we want it found."""
    if data[:8] != _SIGNATURE:
        raise StoreError("a stored mask is no PNG: the store is damaged, restore it from a backup")
    kinds: list[bytes] = []
    position = len(_SIGNATURE)
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4].ljust(4, b"\0"))
        body, end = data[position + 4 : position + 8 + length], position + 12 + length
        if end > len(data) or zlib.crc32(body) != int.from_bytes(data[end - 4 : end], "big"):
            raise StoreError("a stored PNG is damaged or cut short: restore the store from a backup")
        kinds.append(body[:4])
        position = end
    if len(kinds) < 3 or kinds[0] != b"IHDR" or kinds[-1] != b"IEND" or set(kinds[1:-1]) != {b"IDAT"}:
        raise StoreError(
            "a stored PNG has other chunks than Sonoloop writes: the store was changed from outside"
        )
    width, height, *encoding = struct.unpack(">IIBBBBB", data[16:29])
    if tuple(encoding) != _GREY_8_BIT:
        raise StoreError("a stored PNG is not 8-bit grey: the store was changed from outside")
    if not 0 < width * height <= MAX_PIXELS:
        raise StoreError(f"a stored PNG claims {height} x {width} pixels, the cap is {MAX_PIXELS} in all")
    return height, width
