"""TIFF files: tifffile says what a page holds and decodes it; Pillow decodes what is packed otherwise.

What neither reads right is refused by name. A page that is marked as a thumbnail or a mask of another, or
that is its thumbnail, is no frame.
"""

from __future__ import annotations

import io
import lzma
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sonoloop.errors import ImageError, ImageTruncatedError, NotAnImageError, UnsupportedImageError
from sonoloop.imaging.grey import to_grey, to_unit
from sonoloop.imaging.io import check_count, check_sizes, say_packed, say_truncated
from sonoloop.imaging.jpeg import read_header
from sonoloop.imaging.orientation import TAG, UPRIGHT, known_orientation, read_xmp, turn
from sonoloop.imaging.page import Page, missing_rows, unmultiply
from sonoloop.imaging.pictures import to_array, to_values

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _STENCIL, _CMYK, _YCBCR = range(7)
# how many channels each has, beside extra ones
_CHANNELS = {
    _WHITE_IS_ZERO: 1,
    _BLACK_IS_ZERO: 1,
    _RGB: 3,
    _PALETTE: 1,
    _STENCIL: 1,
    _CMYK: 4,
    _YCBCR: 3,
}
# the last one is MetaMorph's
_PHOTOMETRIC, _INK_SET, _XMP, _PLANES = 262, 332, 700, 33629
_UNSIGNED, _SIGNED, _FLOAT, _VOID = 1, 2, 3, 4
_NONE, _LZW, _JPEG, _DEFLATE, _PACKBITS, _LZMA, _OLD_DEFLATE = 1, 5, 7, 8, 32773, 34925, 32946
_FAX, _OLD_JPEG = (2, 3, 4), 6
_PLAIN = {_NONE, _LZW, _DEFLATE, _OLD_DEFLATE, _PACKBITS, _LZMA}
_PLAIN_BITS = (1, 8, 16, 32, 64)
_PILLOW_BITS = (1, 2, 4, 8, 12)
_REDUCED_OR_STENCIL = 1 | 4
_ASSOCIATED, _UNASSOCIATED = 1, 2
# the predictor of whole numbers
_DIFFERENCES = 2
# a page this many times smaller than another, with its proportions and its picture, is its thumbnail
_SMALLER = 2
_SAME_PICTURE = 0.9


def decode_tiff(data: bytes, name: str, max_pixels: int) -> list[Page]:
    """Decode the frames of a TIFF."""
    import tifffile  # noqa: PLC0415 - slow to import, seldom needed

    try:
        buffer = io.BytesIO(data)
        with tifffile.TiffFile(buffer) as tiff:
            check_count(len(tiff.pages), name)
            pages = [page.aspage() for page in tiff.pages]
            _check_chain(tiff, pages, data, name)
            pages = [page for page in pages if not _is_marked(page)] or pages[:1]
            check_sizes(map(_shape, pages), name, max_pixels, pixel_bytes=max(map(_pixel_bytes, pages)))
            turned = any(_read_orientation(page) != UPRIGHT for page in pages)
            left_undone = turned and not _is_known_to_pillow(data)
            decoded = [_decode(page, data, buffer, name, left_undone=left_undone) for page in pages]
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # every codec has its own for damaged data
        if _lacks_codec(error):
            raise NotAnImageError(say_packed(name)) from error
        raise ImageTruncatedError(say_truncated(name)) from error
    return _narrow_grey(_without_thumbnails(decoded))


def _check_chain(tiff: TiffFile, pages: Sequence[TiffPage], data: bytes, name: str) -> None:
    """Refuse pages that lead to none, and fewer pages than the file says that it holds."""
    if not pages:
        raise ImageTruncatedError(say_truncated(name))
    form, at = tiff.tiff, pages[-1].offset
    (tags,) = struct.unpack_from(form.tagnoformat, data, at)
    (following,) = struct.unpack_from(form.offsetformat, data, at + form.tagnosize + tags * form.tagsize)
    if following:
        raise ImageTruncatedError(say_truncated(name))
    # ImageJ, MetaMorph and tifffile may keep frames behind the one that a page tells of
    first = pages[0]
    stacked = int((tiff.imagej_metadata or {}).get("images", 1))
    if _PLANES in first.tags:
        stacked = max(stacked, first.tags[_PLANES].count)
    shaped = sum(math.prod(one.get("shape", ())) for one in tiff.shaped_metadata or ())
    stacked = max(stacked, shaped // max(1, math.prod(first.shape)) if len(pages) == 1 else 1)
    if stacked > len(pages) and first.dataoffsets[0] + stacked * first.nbytes <= len(data):
        raise UnsupportedImageError(
            f"{name} holds {stacked} frames behind one page; save each frame as a page of its own"
        )


def _is_marked(page: TiffPage) -> bool:
    """Whether the page says that it is a thumbnail or a mask of another."""
    return bool(int(page.subfiletype) & _REDUCED_OR_STENCIL) or page.photometric == _STENCIL


def _shape(page: TiffPage) -> tuple[int, ...]:
    # a damaged tag may hold a tuple, which would multiply to one of gigabytes
    size = int(page.imagelength), int(page.imagewidth)
    samples, depth = int(page.samplesperpixel), int(page.imagedepth)
    return (*size, *(() if samples <= 4 else (samples,)), *(() if depth == 1 else (depth,)))


def _pixel_bytes(page: TiffPage) -> int:
    bits = page.bitspersample
    each = -(-bits // 8) if isinstance(bits, int) else 8
    return each * min(int(page.samplesperpixel), 4)


def _read_orientation(page: TiffPage) -> int:
    if TAG in page.tags:
        return known_orientation(page.tags.valueof(TAG))
    return read_xmp(page.tags.valueof(_XMP))


def _is_known_to_pillow(data: bytes) -> bool:
    """Whether Pillow opens the file: an earlier Sonoloop then read it through Pillow, which turned it."""
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)):
            return True
    except Exception:  # whatever it finds wrong
        return False


def _decode(page: TiffPage, data: bytes, buffer: io.BytesIO, name: str, *, left_undone: bool) -> Page:
    _check_layout(page, name)
    orientation, note = _read_orientation(page), None
    if _is_plain(page):
        samples, note = _read_samples(page, data, buffer, name)
        pixels, values = _interpret(page, samples, name)
        pixels = turn(pixels, orientation)
        values = None if values is None else turn(values, orientation)
    else:
        # which turns it
        pixels, values = _decode_by_pillow(page, data, name)
    return Page(pixels=pixels, values=values, orientation=orientation if left_undone else UPRIGHT, note=note)


def _check_layout(page: TiffPage, name: str) -> None:
    """Refuse what has no meaning as grey levels or colour."""
    bits, form, photometric = page.bitspersample, page.sampleformat, int(page.photometric)
    if not isinstance(bits, int) or not isinstance(form, int):
        raise UnsupportedImageError(f"the channels of {name} differ in depth or kind; save it as 8-bit RGB")
    if form not in (_UNSIGNED, _SIGNED, _FLOAT, _VOID):
        raise UnsupportedImageError(
            f"{name} holds complex values, or numbers of an unknown kind; convert it to grey levels"
        )
    if page.predictor != 1 and page.compression in (_NONE, _PACKBITS):
        # decoders do not agree on it
        raise UnsupportedImageError(
            f"{name} says that it holds differences, and is not compressed; save it again without a predictor"
        )
    if _PHOTOMETRIC not in page.tags and page.compression not in (*_FAX, _OLD_JPEG):
        raise UnsupportedImageError(
            f"{name} does not say whether 0 is black or white; save it again as a grey or RGB image"
        )
    if photometric not in _CHANNELS:
        raise NotAnImageError(
            f"{name} holds colours that Sonoloop does not read ({page.photometric!s}); save it as RGB"
        )
    if page.imagedepth != 1:
        raise UnsupportedImageError(f"{name} holds volumes; save each of their slices as a page")
    extra = page.samplesperpixel - _CHANNELS[photometric]
    if extra < 0 or (photometric == _PALETTE and page.colormap is None):
        raise ImageTruncatedError(say_truncated(name))
    if extra > 1 and _CHANNELS[photometric] == 1:
        raise UnsupportedImageError(
            f"{name} holds {page.samplesperpixel} channels that are not red, green and blue; "
            "save one of them, or an RGB image"
        )
    if photometric == _CMYK and (bits != 8 or form != _UNSIGNED or page.tags.valueof(_INK_SET, 1) != 1):
        raise NotAnImageError(f"{name} holds inks other than 8-bit CMYK; save it as RGB")


def _is_plain(page: TiffPage) -> bool:
    """Whether tifffile itself decodes the page; the rest is left to Pillow."""
    return (
        page.compression in _PLAIN
        and page.bitspersample in _PLAIN_BITS
        and (page.predictor == 1 or (page.predictor == _DIFFERENCES and _is_whole_number(page)))
        and page.photometric != _YCBCR
        and (page.fillorder == 1 or page.compression == _NONE)
    )


def _is_whole_number(page: TiffPage) -> bool:
    return page.sampleformat in (_UNSIGNED, _SIGNED) and page.bitspersample != 1


def _read_samples(
    page: TiffPage, data: bytes, buffer: io.BytesIO, name: str
) -> tuple[NDArray[Any], str | None]:
    """Read the samples, (H, W) or (H, W, C), and say what of them is not there."""
    note = _unpack(page, data, buffer, name)
    # which tifffile undoes in strips or tiles alone
    is_predicted = page.predictor == _DIFFERENCES and page.is_contiguous
    if is_predicted:
        page.predictor = 1
    array = page.asarray()
    buffer.truncate(len(data))
    if array.ndim == 3 and page.planarconfig == 2:
        array = np.moveaxis(array, 0, -1)
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if is_predicted:
        array = np.cumsum(array, axis=1, dtype=array.dtype)
    return array.astype(array.dtype.newbyteorder("="), copy=False), note


def _unpack(page: TiffPage, data: bytes, buffer: io.BytesIO, name: str) -> str | None:
    """Have a page decode as if it were not compressed, and say what of it is not there.

    Its strips or tiles are decompressed here: tifffile decompresses whatever there is, and fills in silently
    what is not.
    """
    row_bytes, rows = _strips(page)
    count, there = len(rows), [0] * len(rows)
    places = [*zip(page.dataoffsets, page.databytecounts, strict=False)]
    # those that were never written have no place or no length
    places = (places + [(0, 0)] * count)[:count]
    for number, (start, length) in enumerate(places):
        if start == 0 or length == 0:
            places[number] = 0, 0
            continue
        size = rows[number] * row_bytes
        # of what is not compressed some writers count the bytes wrong
        length = size if page.compression == _NONE else length  # noqa: PLW2901
        if start >= len(data) or (page.compression == _NONE and start + length > len(data)):
            raise ImageTruncatedError(say_truncated(name))
        there[number] = rows[number]
        if page.compression != _NONE:
            unpacked = _decompress(data[start : start + length], size, page.compression)
            there[number] = len(unpacked) // row_bytes
            start, length = buffer.seek(0, io.SEEK_END), size  # noqa: PLW2901
            buffer.write(unpacked.ljust(size, b"\0"))
        places[number] = start, length
    if not any(there):
        raise ImageTruncatedError(say_truncated(name))
    page.compression = _NONE
    page.dataoffsets, page.databytecounts = map(tuple, zip(*places, strict=True))
    if there == rows:
        return None
    if page.is_tiled or page.planarconfig == 2:
        whole = sum(one == all_ for one, all_ in zip(there, rows, strict=True))
        return f"only {whole} of {count} parts of it are there; the rest is blank"
    return missing_rows(sum(there), page.imagelength)


def _strips(page: TiffPage) -> tuple[int, list[int]]:
    """Return the bytes of a row of a strip or tile, and the rows of each of them."""
    samples = page.samplesperpixel if page.planarconfig == 1 else 1
    width = page.tilewidth if page.is_tiled else page.imagewidth
    row_bytes = -(-width * samples * page.bitspersample // 8)
    if page.is_tiled:
        return row_bytes, [page.tilelength] * math.prod(page.chunked)
    each = page.rowsperstrip
    rows = [min(each, page.imagelength - first) for first in range(0, page.imagelength, each)]
    return row_bytes, rows * (page.samplesperpixel if page.planarconfig == 2 else 1)


def _decompress(data: bytes, size: int, compression: int) -> bytes:
    """Decompress a strip or tile to at most so many bytes; a whole one that holds fewer is no error."""
    if compression == _LZW:
        return _decompress_lzw(data, size)
    if compression == _LZMA:
        return lzma.LZMADecompressor().decompress(data, size)
    if compression == _PACKBITS:
        from tifffile import TIFF  # noqa: PLC0415

        return bytes(TIFF.DECOMPRESSORS[compression](data))[:size]
    stream = zlib.decompressobj()
    unpacked = stream.decompress(data, size)
    if len(unpacked) < size and not stream.eof:
        raise zlib.error("incomplete")
    return unpacked


def _decompress_lzw(data: bytes, size: int) -> bytes:
    """Decompress LZW by libtiff, which Pillow brings: as a TIFF of one row of bytes."""
    tags = {
        256: size,
        257: 1,
        258: 8,
        259: _LZW,
        _PHOTOMETRIC: _BLACK_IS_ZERO,
        273: 8,
        277: 1,
        278: 1,
        279: len(data),
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    padded = data + bytes(len(data) % 2)
    header = b"II*\0" + struct.pack("<I", 8 + len(padded))
    row = header + padded + struct.pack("<H", len(tags)) + entries + bytes(4)
    with Image.open(io.BytesIO(row), formats=("TIFF",)) as image:
        return image.tobytes()


def _interpret(
    page: TiffPage, samples: NDArray[Any], name: str
) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Turn samples to grey levels or colour, and return the numbers that a palette or one bit stood for."""
    photometric = int(page.photometric)
    levels = samples.astype(np.uint8) * np.uint8(255) if samples.dtype == np.bool_ else samples
    if photometric == _CMYK:
        return np.asarray(Image.fromarray(levels[..., :4].copy(), "CMYK").convert("RGB")), None
    if photometric == _RGB:
        return _with_alpha(page, levels[..., :3], levels), None
    grey = samples if samples.ndim == 2 else np.ascontiguousarray(samples[..., 0])
    if photometric == _PALETTE:
        colour = _resolve_palette(page, grey)
        if samples.dtype.itemsize <= colour.dtype.itemsize:
            colour = _with_alpha(page, colour, samples.astype(colour.dtype))
        return colour, grey.astype(np.uint8) if page.bitspersample <= 8 else None
    if photometric == _WHITE_IS_ZERO:
        grey = ~grey if grey.dtype.kind in "bui" else -grey
    values = grey.astype(np.uint8) if grey.dtype == np.bool_ else None
    if values is not None:
        grey = values * np.uint8(255)
    return _with_alpha(page, grey, levels), values


def _with_alpha(page: TiffPage, colour: NDArray[Any], samples: NDArray[Any]) -> NDArray[Any]:
    """Add the alpha of a page to its grey levels (H, W) or colour (H, W, 3), if it has one."""
    kind = page.extrasamples[:1]
    if samples.ndim == 2 or kind not in ((_ASSOCIATED,), (_UNASSOCIATED,)):
        return np.ascontiguousarray(colour)
    alpha = samples[..., _CHANNELS[int(page.photometric)]]
    colour = colour[..., None] if colour.ndim == 2 else colour
    if kind == (_ASSOCIATED,) and page.photometric != _PALETTE:
        colour = unmultiply(colour, alpha)
    return np.dstack([colour, alpha])


def _resolve_palette(page: TiffPage, indices: NDArray[Any]) -> NDArray[Any]:
    """Look colours up, at 8 bits where the map holds no more than that."""
    indices = indices.astype(np.intp)
    colours = np.asarray(page.colormap).T
    if colours.max() > 255:  # else some writers' map of 8 bits
        if colours.max() <= 0x7FFF and (colours % 256).any() and (colours % 257).any():
            return np.ascontiguousarray(colours[indices])
        colours = colours // 256
    return np.ascontiguousarray(colours.astype(np.uint8)[indices])


def _narrow_grey(pages: Sequence[Page]) -> list[Page]:
    """Keep signed and 32-bit levels in the fewest of 8, 16 or 32 bits that hold those of all pages."""
    grey = [page.pixels for page in pages if page.pixels.ndim == 2]
    kinds = {
        kind: _narrowest(kind, [one for one in grey if one.dtype == kind])
        for kind in {one.dtype for one in grey}
    }
    return [
        replace(page, pixels=page.pixels.astype(kinds[page.pixels.dtype], copy=False))
        if page.pixels.ndim == 2
        else page
        for page in pages
    ]


def _narrowest(kind: np.dtype[Any], arrays: Sequence[NDArray[Any]]) -> np.dtype[Any]:
    if kind not in (np.int8, np.int16, np.int32, np.uint32):
        return kind
    low, high = min(int(one.min()) for one in arrays), max(int(one.max()) for one in arrays)
    if kind == np.int8:
        return np.dtype(np.uint8 if low >= 0 else np.int8)
    if low >= 0 and high <= np.iinfo(np.uint16).max:
        return np.dtype(np.uint16)
    return np.dtype(np.int32) if high <= np.iinfo(np.int32).max else kind


def _decode_by_pillow(
    page: TiffPage, data: bytes, name: str
) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Decode 8-bit pages that are compressed as pictures or faxes, and what Pillow alone unpacks."""
    bits, form, photometric = page.bitspersample, page.sampleformat, int(page.photometric)
    single = page.samplesperpixel == 1 and photometric == _BLACK_IS_ZERO
    deep = single and (form, bits) in ((_UNSIGNED, 16), (_FLOAT, 32))
    if not deep and (form != _UNSIGNED or bits not in _PILLOW_BITS):
        raise NotAnImageError(say_packed(name))
    if photometric == _YCBCR and page.compression not in (_JPEG, _NONE):
        raise NotAnImageError(say_packed(name))
    if page.compression == _JPEG and not _are_whole(page, data):
        # libtiff passes over it
        raise ImageTruncatedError(say_truncated(name))
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            image.seek(page.index)
            image.load()
            values = to_values(image)
            if image.mode in ("P", "PA"):
                indices = np.array(image) if values is None else values
                indices = indices if indices.ndim == 2 else indices[..., 0]
                return _resolve_palette(page, indices), indices
            return to_array(image, name), values
    except (UnidentifiedImageError, SyntaxError) as error:
        raise NotAnImageError(say_packed(name)) from error


def _are_whole(page: TiffPage, data: bytes) -> bool:
    """Whether each strip or tile is a JPEG that ends, and has the rows that it is to have."""
    _, rows = _strips(page)
    parts = zip(rows, page.dataoffsets, page.databytecounts, strict=False)
    headers = [(of, read_header(data[start : start + length])) for of, start, length in parts]
    return len(headers) == len(rows) and all(
        header.end is not None and header.rows >= of for of, header in headers
    )


def _lacks_codec(error: Exception) -> bool:
    """Whether tifffile does not know how to decode, or lacks the library for it; it says so in words only."""
    known = isinstance(error, NotImplementedError | ImportError)
    return known or "imagecodecs" in str(error) or "not supported" in str(error)


def _without_thumbnails(pages: list[Page]) -> list[Page]:
    """Leave out pages that are much smaller than another, and plainly its picture."""
    if len({page.pixels.shape[:2] for page in pages}) == 1:
        return pages
    largest = max(pages, key=lambda page: page.pixels.shape[0] * page.pixels.shape[1])
    return [page for page in pages if not _is_thumbnail(page.pixels, largest.pixels)]


def _is_thumbnail(small: NDArray[Any], whole: NDArray[Any]) -> bool:
    height, width = small.shape[:2]
    of_height, of_width = whole.shape[:2]
    proportions = (
        abs(height - width * of_height / of_width) <= 1.5 or abs(width - height * of_width / of_height) <= 1.5
    )
    if (
        min(height, width) < 8
        or of_height < _SMALLER * height
        or of_width < _SMALLER * width
        or not proportions
    ):
        return False
    pictures = [Image.fromarray(to_unit(to_grey(one))) for one in (small, whole)]
    one, other = (
        np.asarray(picture.resize((min(width, 64), min(height, 64)), Image.Resampling.BOX))
        for picture in pictures
    )
    if not (one.std() > 0 and other.std() > 0):
        return False
    return bool(np.corrcoef(one.ravel(), other.ravel())[0, 1] > _SAME_PICTURE)
