"""Decoded arrays to grey frames: colour, hashes and the checks a model asks for."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import ConstantImageError, ImageEmptyError, NotFiniteImageError, UnsupportedImageError
from sonoloop.values import Frame

# ITU-R BT.601 luma, the weights by which JPEG and Pillow turn colour to grey
LUMA = (0.299, 0.587, 0.114)


def channels_agree(array: NDArray[Any]) -> bool:
    """Whether red, green and blue of an (H, W, 3) or (H, W, 4) array are the same everywhere."""
    red = array[..., 0]
    return bool(np.array_equal(red, array[..., 1]) and np.array_equal(red, array[..., 2]))


def to_grey(array: NDArray[Any]) -> NDArray[Any]:
    """Turn (H, W) or (H, W, C), C up to 4, to one channel of the same grid and dtype.

    Alpha is dropped; where red, green and blue disagree, it is their BT.601 luma.
    """
    if array.ndim == 2:
        return array
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise UnsupportedImageError(
            f"an image of shape {array.shape} is neither grey (H, W) nor colour (H, W, 3); "
            "pick one frame or channel"
        )
    if array.shape[2] <= 2 or channels_agree(array):
        return np.ascontiguousarray(array[..., 0])
    luma: NDArray[Any] = array[..., :3].astype(np.float64) @ np.array(LUMA)
    if np.issubdtype(array.dtype, np.integer):
        luma = np.rint(luma)
        if array.dtype.itemsize == 8:
            # the last of 64 bits is no float64: rounded up it would wrap
            luma = np.clip(luma, np.iinfo(array.dtype).min, np.nextafter(float(np.iinfo(array.dtype).max), 0))
    return luma.astype(array.dtype)


def to_unit(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Scale grey levels to [0, 1]: 8-bit by its range, anything else by its own minimum and maximum.

    Sixteen-bit files mostly hold 10 or 12 bits of signal, so that their dtype's range says nothing.
    """
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / np.float32(255)
    low, high = pixels.min(), pixels.max()
    if low == high:
        return np.zeros(pixels.shape, np.float32)
    if pixels.dtype.kind in "iu" and pixels.dtype.itemsize == 8:
        # in float64 levels far from 0 would fall together
        above = pixels.astype(np.uint64) - low.astype(np.uint64)
        return np.asarray(above.astype(np.float64) / float(int(high) - int(low)), np.float32)
    levels: NDArray[np.floating] = pixels.astype(np.longdouble if pixels.dtype.itemsize > 8 else np.float64)
    low, high = levels.min(), levels.max()
    with np.errstate(over="ignore"):
        is_too_wide = np.isinf(high - low)
    if is_too_wide and np.isfinite(low) and np.isfinite(high):
        levels, low, high = levels / 2, low / 2, high / 2
    return np.asarray((levels - low) / (high - low), np.float32)


def hash_pixels(pixels: NDArray[Any]) -> str:
    """SHA-256 of an array's dtype, shape and values, byte order aside; 64 hex digits."""
    little = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{little.dtype.str}{little.shape}".encode())
    digest.update(little.data)
    return digest.hexdigest()


def frame_from_array(
    array: NDArray[Any],
    *,
    name: str,
    id: str | None = None,  # noqa: A002 - the frame's own word
    spacing: tuple[float, float] | None = None,
) -> Frame:
    """Make a frame of a decoded image: grey (H, W) or colour (H, W, 3 or 4) of any real dtype, or boolean.

    The id is the hash of the encoded bytes, or that of the pixels where there are none; the spacing of rows
    and columns is in mm.
    """
    if array.size == 0:
        raise ImageEmptyError(f"{name} has no pixels; open another image")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise UnsupportedImageError(f"{name} holds {array.dtype} values; convert it to grey levels")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        # whose bytes differ between machines; what lies beyond becomes infinite, and is refused as such
        with np.errstate(over="ignore"):
            array = array.astype(np.float64)
    pixels = np.ascontiguousarray(to_grey(array))
    pixels_hash = hash_pixels(pixels)
    return Frame(pixels=pixels, id=id or pixels_hash, pixels_hash=pixels_hash, name=name, spacing=spacing)


def check_frame(frame: Frame) -> Frame:
    """Return the frame if a model can say something of it: it is finite and not of one value."""
    pixels = frame.pixels
    if np.issubdtype(pixels.dtype, np.floating) and not np.isfinite(pixels).all():
        bad = int(np.count_nonzero(~np.isfinite(pixels)))
        raise NotFiniteImageError(
            f"{frame.name} holds {bad} pixels that are NaN or infinite; replace them and open the image again"
        )
    low, high = pixels.min(), pixels.max()
    if low == high:
        raise ConstantImageError(
            f"every pixel of {frame.name} has the value {low}; there is nothing to see, check the export"
        )
    return frame
