"""What is kept of an image to know it again: cropped, mirrored, brighter, or with other callipers.

An image is flattened (its local mean taken away, its local contrast evened out, so that gain, shadows and
callipers weigh little) and hashed by the signs of its lowest cosine frequencies. Mirroring changes the signs
of the odd ones alone, so that one hash finds mirrored twins too; cropped ones are found by hashes of windows.

The hash follows pHash (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010),
with signs instead of a median, on flattened images; ``benchmarks/duplicates.py`` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

from sonoloop.imaging.grey import to_unit

# bits, of 256, that two fingerprints of near copies differ in at most
NEAR = 76
BITS = 256
# bits of windows up to which the images themselves are compared
CANDIDATE = 88
# an image is compared with so many, the nearest
CANDIDATES_AN_IMAGE = 40
# the correlation from which on two registered images are near-duplicates
ALIKE = 0.48
# a pair above it joins two groups whatever their other members say
SURE = 0.6
# what the other members must then reach on average; unlike images reach 0.3 once registered as well as can be
RELATED = 0.35
MEMBERS_ASKED = 3

_FREQUENCIES = 16
_HALF = BITS // 2
_THUMBNAIL = 96
_SIDE = 64
_MAX_SHIFT = 12
_PADDED = (_SIDE + 2 * _MAX_SHIFT,) * 2
# how far a window that was found may be off
_SCALES = (0.9, 0.95, 1.05, 1.1)
# no better fit is looked for
_ENOUGH = 0.9

Box = tuple[float, float, float, float]
# left, top, right, bottom as shares of the frame; the first is the frame itself
_WINDOWS: tuple[Box, ...] = tuple(
    (left, top, 1 - right, 1 - bottom)
    for left, right, top, bottom in product((0, 0.1, 0.2), (0, 0.1, 0.2), (0, 0.1), (0, 0.1))
)


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """What is kept of an image to compare it: about 18 KB."""

    # (96, 96), squashed to a square
    thumbnail: NDArray[np.uint8]
    # (36, 256): the hash of the frame and of its windows; the even frequencies first
    bits: NDArray[np.bool_]


def fingerprint(pixels: NDArray[np.generic]) -> str:
    """Hash finite grey levels (H, W) to 64 hex digits: near copies, mirrored too, have near hashes."""
    return np.packbits(_hash(_squash(pixels), _WINDOWS[:1])[0]).tobytes().hex()


def distance(one: str, other: str) -> int:
    """Count the bits in which two fingerprints differ, one mirrored if need be; 0 to 256, see `NEAR`."""
    digits = BITS // 4
    if len(one) != digits or len(other) != digits:
        raise ValueError(f"a fingerprint has {digits} hex digits, got {len(one)} and {len(other)}")
    (even, odd), (other_even, other_odd) = _read_halves(one), _read_halves(other)
    odd_apart = (odd ^ other_odd).bit_count()
    return (even ^ other_even).bit_count() + min(odd_apart, _HALF - odd_apart)


# each is compared with thousands
@lru_cache(maxsize=1 << 15)
def _read_halves(fingerprint: str) -> tuple[int, int]:
    digits = _HALF // 4
    return int(fingerprint[:digits], 16), int(fingerprint[digits:], 16)


def sketch(pixels: NDArray[np.generic]) -> Sketch:
    """Keep of grey levels (H, W), finite, what comparing needs."""
    thumbnail = _squash(pixels)
    return Sketch(thumbnail, _hash(thumbnail, _WINDOWS))


def correlate(one: Sketch, other: Sketch) -> tuple[float, bool]:
    """Register two images and correlate them.

    The windows whose hashes are nearest say which is a crop of which and whether it is mirrored; shifts up
    to a fifth of the frame are tried, and scales of up to a tenth, first across and then in depth. Gives the
    highest normalised correlation over what overlaps, and whether mirrored.
    """
    forth, back = _apart(one.bits, other.bits[0]), _apart(other.bits, one.bits[0])
    if back[0].min() < forth[0].min():
        one, other, forth = other, one, back
    best = int(forth[0].argmin())
    mirrored = bool(forth[1][best])
    image = _flatten(other.thumbnail, _WINDOWS[:1])[0]
    target = image[:, ::-1] if mirrored else image
    spectrum = _spectrum(target).conj()
    energies = _shifts(_spectrum(np.ones_like(target)) * _spectrum(target**2).conj())
    start = _WINDOWS[best]

    def fit(*scales: tuple[float, float]) -> list[float]:
        """Return the highest correlation over shifts, of what then overlaps, for each scale of the window."""
        some = _flatten(one.thumbnail, [_scale(start, *scale) for scale in scales])
        theirs = _shifts(_spectrum(some**2) * _spectrum(np.ones_like(some)).conj())
        # at least the energy of one pixel, for images that are flat where they overlap
        both = np.sqrt(np.maximum(theirs, 1) * np.maximum(energies, 1))
        return [float(highest) for highest in (_shifts(_spectrum(some) * spectrum) / both).max(axis=(1, 2))]

    (found,) = fit((1, 1))
    if found >= _ENOUGH:
        return found, mirrored
    wider = fit(*((scale, 1) for scale in _SCALES))
    highest, across = max([(found, 1.0), *zip(wider, _SCALES, strict=True)])
    return max(highest, *fit(*((across, scale) for scale in _SCALES))), mirrored


def _squash(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    levels = pixels if pixels.dtype == np.uint8 else (to_unit(pixels) * 255).round().astype(np.uint8)
    image = Image.fromarray(levels)
    return np.asarray(image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX))


def _flatten(thumbnail: NDArray[np.uint8], windows: Sequence[Box]) -> NDArray[np.float32]:
    """Even out brightness and contrast of each window, float32 (windows, 64, 64)."""
    image = Image.fromarray(thumbnail)
    boxes = [tuple(share * _THUMBNAIL for share in window) for window in windows]
    size = (_SIDE, _SIDE)
    small = [image.resize(size, Image.Resampling.BILINEAR, box=box) for box in boxes]  # type: ignore[arg-type]
    levels = np.stack([np.asarray(window, np.float32) for window in small])
    detail = levels - ndimage.gaussian_filter(levels, (0, 4, 4))
    contrast = np.sqrt(ndimage.gaussian_filter(detail**2, (0, 4, 4)))
    # 4 grey levels: noise in black regions is not blown up; clipped, a calliper weighs no more than an echo
    flat: NDArray[np.float32] = np.clip(detail / (contrast + 4), -1.5, 1.5)
    return flat


def _hash(thumbnail: NDArray[np.uint8], windows: Sequence[Box]) -> NDArray[np.bool_]:
    """Hash each window, boolean (windows, 256)."""
    flat = _flatten(thumbnail, windows)
    signs = fft.dctn(flat, norm="ortho", axes=(1, 2))[:, :_FREQUENCIES, :_FREQUENCIES] > 0
    even, odd = signs[..., ::2], signs[..., 1::2]
    return np.concatenate([even.reshape(len(flat), -1), odd.reshape(len(flat), -1)], axis=1)


def _apart(
    windows: NDArray[np.bool_], frame: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the distances of windows (W, 256) to a frame (256,), and where the mirror image is nearer."""
    even = (windows[:, :_HALF] != frame[:_HALF]).sum(1)
    odd = (windows[:, _HALF:] != frame[_HALF:]).sum(1)
    return even + np.minimum(odd, _HALF - odd), odd > _HALF - odd


def _scale(window: Box, across: float, down: float) -> Box:
    """Shrink or widen a window about its centre, inside the frame."""
    left, top, right, bottom = window
    x, y = (left + right) / 2, (top + bottom) / 2
    wide, high = (right - left) / 2 * across, (bottom - top) / 2 * down
    return max(0.0, x - wide), max(0.0, y - high), min(1.0, x + wide), min(1.0, y + high)


def _spectrum(image: NDArray[np.float32]) -> NDArray[np.complex64]:
    spectrum: NDArray[np.complex64] = fft.rfft2(image, _PADDED)
    return spectrum


def _shifts(product_: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Turn products of spectra back, the shifts tried alone."""
    middle = slice(_PADDED[0] // 2 - _MAX_SHIFT, _PADDED[0] // 2 + _MAX_SHIFT + 1)
    every = fft.fftshift(fft.irfft2(product_, _PADDED), axes=(-2, -1))
    shifts: NDArray[np.float32] = every[..., middle, middle]
    return shifts
