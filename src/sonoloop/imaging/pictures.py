"""What Pillow decodes, and BMP files, which it decodes alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sonoloop.errors import ImageTooLargeError, ImageTruncatedError, NotAnImageError
from sonoloop.imaging.io import BROKEN, check_sizes, say_packed, say_too_large, say_truncated
from sonoloop.imaging.orientation import TAG, UPRIGHT, known_orientation
from sonoloop.imaging.page import Page

_GREY = ("L", "LA", "La")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


def decode_bmp(data: bytes, name: str, max_pixels: int) -> list[Page]:
    """Decode a BMP, top-down or bottom-up."""
    with open_picture(data, "BMP", name, max_pixels) as image:
        return [Page(pixels=to_array(image, name), values=to_values(image))]


@contextmanager
def open_picture(data: bytes, form: str, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open a picture of at most so many pixels; whatever Pillow finds wrong is one of our errors."""
    try:
        with Image.open(io.BytesIO(data), formats=(form,)) as image:
            check_sizes([(image.height, image.width)], name, max_pixels, pixel_bytes=8)
            image.load()
            yield image
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(say_too_large(name, max_pixels)) from error
    except UnidentifiedImageError as error:
        raise ImageTruncatedError(say_truncated(name)) from error
    except BROKEN as error:
        raise ImageTruncatedError(say_truncated(name)) from error


def read_orientation(image: Image.Image) -> int:
    """Read which way up a loaded picture is, from its EXIF, else its XMP; damage counts as upright."""
    try:
        return known_orientation(image.getexif().get(TAG))
    except BROKEN:
        return UPRIGHT


def to_array(image: Image.Image, name: str) -> NDArray[Any]:
    """Turn a loaded picture to grey levels (H, W) or colour (H, W, 3 or 4), with its alpha if it has one."""
    if "transparency" in image.info and image.mode in ("P", "L", "RGB"):
        image = image.convert("LA" if image.mode == "L" else "RGBA")
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8) * np.uint8(255)
    if image.mode in ("L", "LA", "RGB", "RGBA", "F") or image.mode.startswith("I;16"):
        array = np.array(image)
        return array.astype(array.dtype.newbyteorder("="))
    if image.mode not in (*_GREY, *_COLOUR):
        raise NotAnImageError(say_packed(name))
    return np.array(image.convert("RGB"))


def to_values(image: Image.Image) -> NDArray[np.uint8] | None:
    """Return a palette's indices, or the 0 and 1 of a 1-bit picture; see `Page`."""
    if image.mode not in ("1", "P"):
        return None
    return np.array(image).astype(np.uint8)
