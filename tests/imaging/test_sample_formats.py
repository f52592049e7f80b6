"""Every kind of sample is read as the array it was written from, or refused by name."""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
from image_writers import (
    BLACK,
    CMYK,
    DEFLATE,
    LAB,
    LZW,
    NONE,
    PACKBITS,
    PALETTE,
    RGB,
    WHITE,
    YCBCR,
    pack_row,
    write_bmp,
    write_png,
    write_tiff,
)
from PIL import Image

from sonoloop.errors import ImageError, NotAnImageError, UnsupportedImageError
from sonoloop.imaging.grey import to_grey, to_unit
from sonoloop.imaging.io import Study, read_channels, read_frame, read_study

RNG = np.random.default_rng(3)
SHAPE = (19, 23)
ORDERS = ("<", ">")


def levels(dtype: type, *shape: int, most: int | None = None) -> np.ndarray:
    if np.issubdtype(dtype, np.floating):
        return RNG.normal(0, 100, shape).astype(dtype)
    known = np.iinfo(dtype)
    return RNG.integers(known.min, known.max if most is None else most, shape, dtype, endpoint=True)


def read(folder: Path, data: bytes, name: str = "a.tif") -> Study:
    (folder / name).write_bytes(data)
    return read_study(folder / name)


def assert_shows(pixels: np.ndarray, expected: np.ndarray) -> None:
    """See that the same grey levels are there, in whatever type."""
    np.testing.assert_array_equal(pixels.astype(expected.dtype), expected)
    assert np.array_equal(pixels.astype(np.float64), expected.astype(np.float64))


GREY = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64)
FLOATS = (np.float16, np.float32, np.float64)
PACKINGS = {
    "none": {},
    "tiles": {"tile": 16},
    "deflate": {"compression": DEFLATE},
    "deflate-tiles-predicted": {"compression": DEFLATE, "tile": 16, "predictor": 2},
    "lzw": {"compression": LZW},
    "lzw-predicted": {"compression": LZW, "predictor": 2},
    "lzw-tiles": {"compression": LZW, "tile": 16},
    "packbits": {"compression": PACKBITS},
    "one-strip": {"rows": 100},
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("dtype", [*GREY, *FLOATS], ids=lambda dtype: dtype.__name__)
def test_grey_is_read_as_it_was_written(tmp_path, dtype, packing, order):
    if PACKINGS[packing].get("predictor") == 2 and np.issubdtype(dtype, np.floating):
        pytest.skip("floats are predicted by another predictor")
    grey = levels(dtype, *SHAPE)
    data = write_tiff(grey, order=order, **PACKINGS[packing])
    assert_shows(read(tmp_path, data).frames[0].pixels, grey)
    white = read(tmp_path, write_tiff(grey, order=order, photometric=WHITE, **PACKINGS[packing])).frames[0]
    # as bright as the other is dark
    np.testing.assert_allclose(to_unit(white.pixels), 1 - to_unit(grey), atol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("planar", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32], ids=lambda d: d.__name__)
def test_colour_is_read_as_it_was_written(tmp_path, dtype, planar, packing, order):
    if PACKINGS[packing].get("predictor") == 2 and np.issubdtype(dtype, np.floating):
        pytest.skip("floats are predicted by another predictor")
    colour = levels(dtype, *SHAPE, 3)
    data = write_tiff(colour, photometric=RGB, order=order, planar=planar, **PACKINGS[packing])
    study = read(tmp_path, data)
    expected = (colour >> 8).astype(np.uint8) if dtype == np.uint16 else colour
    assert_shows(study.colour[0], expected)
    assert_shows(study.frames[0].pixels, to_grey(expected))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("compression", [NONE, DEFLATE, LZW, PACKBITS])
@pytest.mark.parametrize("photometric", [WHITE, BLACK])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_read_as_all_of_eight(tmp_path, bits, photometric, compression, order):
    top = 2**bits - 1
    few = levels(np.uint8, *SHAPE, most=top) & top
    data = write_tiff(few, bits=bits, photometric=photometric, compression=compression, order=order)
    shown = few if photometric == BLACK else top - few
    assert_shows(read(tmp_path, data).frames[0].pixels, shown * np.uint8(255 // top))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bits", [6, 10, 12, 14, 24])
def test_odd_bits_are_read_right_or_refused(tmp_path, bits, order):
    odd = levels(np.uint32, *SHAPE, most=2**bits - 1)
    try:
        pixels = read(tmp_path, write_tiff(odd, bits=bits, order=order)).frames[0].pixels
    except NotAnImageError as error:
        assert "save it uncompressed" in str(error)
    else:
        assert bits == 12
        assert_shows(pixels, odd)


@pytest.mark.parametrize("fill_order", [1, 2])
@pytest.mark.parametrize("compression", [NONE, DEFLATE, LZW])
@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 1), (np.uint8, 8), (np.uint16, 16)])
def test_bits_in_either_order_are_read_right_or_refused(tmp_path, dtype, bits, compression, fill_order):
    grey = levels(dtype, *SHAPE, most=2**bits - 1)
    data = write_tiff(grey, bits=bits, compression=compression, fill_order=fill_order)
    try:
        pixels = read(tmp_path, data).frames[0].pixels
    except NotAnImageError:
        assert fill_order == 2 and compression != NONE
    else:
        assert_shows(pixels, grey * np.uint8(255) if bits == 1 else grey)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("form", ["tiff", "png"])
@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15])
def test_signal_of_fewer_bits_in_sixteen_keeps_them_all(tmp_path, bits, form, channels):
    deep = levels(np.uint16, *SHAPE, channels, most=2**bits - 1)
    deep[0, 0] = 2**bits - 1
    deep = deep[..., 0] if channels == 1 else deep
    if form == "png":
        study = read(tmp_path, write_png(deep), "a.png")
    else:
        photometric = BLACK if channels == 1 else RGB
        study = read(tmp_path, write_tiff(deep, photometric=photometric, extra=(2,) * (channels == 4)))
    assert_shows(study.frames[0].pixels, to_grey(deep))
    if channels > 1:
        assert_shows(study.colour[0], deep[..., :3])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("compression", [NONE, DEFLATE, LZW])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("map_bits", [8, 12, 16])
def test_a_colour_map_is_looked_up(tmp_path, map_bits, bits, compression, order):
    count = 2**bits
    scale = {8: 257, 12: 1, 16: 1}[map_bits]
    colours = RNG.integers(0, 2**map_bits, (3, count), np.uint16) * np.uint16(scale)
    colours[:, 0] = (2**map_bits - 1) * scale
    indices = levels(np.uint16 if bits == 16 else np.uint8, *SHAPE, most=count - 1)
    tags = {320: tuple(map(int, colours.ravel()))}
    options = {"bits": bits, "compression": compression, "order": order, "tags": tags}
    study = read(tmp_path, write_tiff(indices, photometric=PALETTE, **options))
    expected = colours.T[indices]
    assert_shows(study.colour[0], expected if map_bits == 12 else (expected // 256).astype(np.uint8))


def test_a_colour_map_of_eight_bits_is_not_read_as_black(tmp_path):
    colours = RNG.integers(0, 256, (3, 256), np.uint16)
    indices = levels(np.uint8, *SHAPE)
    tags = {320: tuple(map(int, colours.ravel()))}
    study = read(tmp_path, write_tiff(indices, photometric=PALETTE, tags=tags))
    assert_shows(study.colour[0], colours.T[indices].astype(np.uint8))


def test_cmyk_is_read_as_pillow_turns_it_to_rgb(tmp_path):
    inks = levels(np.uint8, *SHAPE, 4)
    expected = np.asarray(Image.fromarray(inks, "CMYK").convert("RGB"))
    for planar in (False, True):
        study = read(tmp_path, write_tiff(inks, photometric=CMYK, planar=planar))
        assert_shows(study.colour[0], expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32], ids=lambda d: d.__name__)
def test_colour_that_was_multiplied_by_alpha_is_divided_by_it(tmp_path, dtype):
    top = 1 if dtype == np.float32 else np.iinfo(dtype).max
    colour = (RNG.random((*SHAPE, 3)) * top).astype(dtype)
    alpha = ((0.25 + 0.75 * RNG.random(SHAPE)) * top).astype(dtype)
    alpha[0, 0] = 0
    by = (colour * (alpha[..., None] / np.float64(top))).astype(dtype)
    study = read(tmp_path, write_tiff(np.dstack([by, alpha]), photometric=RGB, extra=(1,)))
    assert not study.colour[0, 0, 0].any()
    shown, right = study.colour[0].astype(float), colour.astype(float)
    right /= 257 if dtype == np.uint16 else 1
    assert np.abs(shown - right)[1:].max() <= (1e-6 if dtype == np.float32 else 5)
    other = read(tmp_path, write_tiff(np.dstack([colour, alpha]), photometric=RGB, extra=(2,)))
    assert_shows(other.colour[0], (colour >> 8).astype(np.uint8) if dtype == np.uint16 else colour)


@pytest.mark.parametrize("extra", [0, 1, 2])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_with_a_second_channel_is_its_grey(tmp_path, dtype, extra):
    grey = levels(dtype, *SHAPE)
    opaque = np.full(SHAPE, np.iinfo(dtype).max, dtype)
    assert_shows(read(tmp_path, write_tiff(np.dstack([grey, opaque]), extra=(extra,))).frames[0].pixels, grey)


REFUSED = {
    "complex": (levels(np.float32, *SHAPE).astype(np.complex64), {}, UnsupportedImageError, "complex"),
    "lab": (levels(np.uint8, *SHAPE, 3), {"photometric": LAB}, NotAnImageError, "colours"),
    "three-greys": (levels(np.uint8, *SHAPE, 3), {"extra": (0, 0)}, UnsupportedImageError, "3 channels"),
    "inks-16": (levels(np.uint16, *SHAPE, 4), {"photometric": CMYK}, NotAnImageError, "inks"),
    "inks-5": (
        levels(np.uint8, *SHAPE, 4),
        {"photometric": CMYK, "tags": {332: (2,)}},
        NotAnImageError,
        "inks",
    ),
    "predictor-2-uncompressed": (
        levels(np.uint8, *SHAPE),
        {"predictor": 2},
        UnsupportedImageError,
        "differences",
    ),
    "predictor-3": (
        levels(np.float64, *SHAPE),
        {"predictor": 3, "compression": DEFLATE},
        NotAnImageError,
        "packed",
    ),
    "no-photometric": (
        levels(np.uint8, *SHAPE),
        {"tags": {262: None}},
        UnsupportedImageError,
        "black or white",
    ),
    "mixed-bits": (
        levels(np.uint8, *SHAPE, 3),
        {"photometric": RGB, "tags": {258: (8, 8, 4)}},
        ImageError,
        "differ",
    ),
    "mixed-kinds": (
        levels(np.uint8, *SHAPE, 3),
        {"photometric": RGB, "tags": {339: (1, 1, 2)}},
        ImageError,
        "differ|damaged",
    ),
    "no-colour-map": (levels(np.uint8, *SHAPE), {"photometric": PALETTE}, ImageError, "damaged"),
    "too-few-channels": (levels(np.uint8, *SHAPE, 2), {"photometric": RGB}, ImageError, "damaged"),
    "subsampled": (
        levels(np.uint8, *SHAPE, 3),
        {"photometric": YCBCR, "compression": DEFLATE},
        NotAnImageError,
        "packed",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_read_right_is_refused_by_name(tmp_path, kind):
    samples, options, error, words = REFUSED[kind]
    with pytest.raises(error, match=rf"a\.tif.*({words})") as caught:
        read(tmp_path, write_tiff(samples, **options))
    assert any(verb in str(caught.value) for verb in ("save", "convert", "copy"))


def test_the_pages_of_a_cine_have_one_type(tmp_path):
    above, below = levels(np.int16, *SHAPE) & np.int16(127), -(levels(np.int16, *SHAPE) & np.int16(127))
    frames = read(tmp_path, write_tiff(above, below)).frames
    assert {frame.pixels.dtype for frame in frames} == {np.dtype(np.int32)}
    np.testing.assert_array_equal(frames[1].pixels, below)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_floats_that_were_predicted_are_read(tmp_path, compression):
    grey = levels(np.float32, *SHAPE)
    Image.fromarray(grey).save(tmp_path / "a.tif", compression=compression, tiffinfo={317: 3})
    assert_shows(read_frame(tmp_path / "a.tif").pixels, grey)


def test_every_tiff_that_tifffile_writes_is_read_as_it_was(tmp_path):
    for dtype, big, order in product([np.uint8, np.int16, np.float32], [False, True], ORDERS):
        grey = levels(dtype, *SHAPE)
        tifffile.imwrite(tmp_path / "a.tif", grey, bigtiff=big, byteorder=order)
        assert_shows(read_frame(tmp_path / "a.tif").pixels, grey)


def test_frames_behind_one_page_are_told(tmp_path):
    stack = levels(np.uint8, 5, *SHAPE)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", truncate=True)
    with pytest.raises(UnsupportedImageError, match="5 frames behind one page"):
        read_study(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", stack, imagej=True)
    assert len(read_study(tmp_path / "b.tif").frames) == 5


@pytest.mark.parametrize("interlaced", [False, True], ids=["plain", "interlaced"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_every_png_is_read_as_it_was_written(tmp_path, bits, channels, interlaced):
    if bits < 8 and channels > 1:
        pytest.skip("there is no such PNG")
    dtype = np.uint16 if bits == 16 else np.uint8
    samples = levels(dtype, *SHAPE, channels, most=2**bits - 1)
    samples = samples[..., 0] if channels == 1 else samples
    chunks = ((b"sBIT", bytes([min(bits, 5)] * channels)),)
    study = read(tmp_path, write_png(samples, bits=bits, interlaced=interlaced, chunks=chunks), "a.png")
    if channels <= 2:
        grey = samples if channels == 1 else samples[..., 0]
        assert_shows(study.frames[0].pixels, grey * np.uint8(255 // (2**bits - 1)) if bits < 8 else grey)
    else:
        assert_shows(
            study.colour[0], samples[..., :3] if bits == 8 else (samples[..., :3] >> 8).astype(np.uint8)
        )


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_palette_is_looked_up(tmp_path, bits, interlaced):
    colours = levels(np.uint8, 2**bits, 3)
    indices = levels(np.uint8, *SHAPE, most=2**bits - 1)
    chunks = ((b"PLTE", colours.tobytes()), (b"tRNS", b"\0\x40"))
    data = write_png(indices, bits=bits, colour=3, interlaced=interlaced, chunks=chunks)
    assert_shows(read(tmp_path, data, "a.png").colour[0], colours[indices])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour_changes_no_pixel(tmp_path, bits, channels):
    dtype = np.uint16 if bits == 16 else np.uint8
    samples = levels(dtype, *SHAPE, channels, most=4095 if bits == 16 else 255)
    clear = samples[0, 0].astype(">u2").tobytes()
    study = read(tmp_path, write_png(samples, chunks=((b"tRNS", clear),)), "a.png")
    assert_shows(study.frames[0].pixels, to_grey(samples))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [2, 4])
def test_a_mask_keeps_all_bits_of_a_png_with_alpha(tmp_path, channels, interlaced):
    samples = levels(np.uint16, *SHAPE, channels)
    (tmp_path / "a.png").write_bytes(write_png(samples, interlaced=interlaced))
    (page,) = read_channels(tmp_path / "a.png")
    np.testing.assert_array_equal(page.pixels, samples)


@pytest.mark.parametrize("extra", [1, 2], ids=["associated", "apart"])
@pytest.mark.parametrize("photometric", [WHITE, BLACK, RGB, PALETTE])
def test_a_mask_keeps_the_alpha_of_a_tiff_and_an_image_drops_it(tmp_path, photometric, extra):
    samples = levels(np.uint8, *SHAPE, 4 if photometric == RGB else 2)
    tags = {320: tuple(range(768))} if photometric == PALETTE else {}
    data = write_tiff(samples, photometric=photometric, extra=(extra,), tags=tags)
    study = read(tmp_path, data)
    (page,) = read_channels(tmp_path / "a.tif")
    np.testing.assert_array_equal(page.pixels[..., -1], samples[..., -1])
    assert study.frames[0].pixels.ndim == 2
    np.testing.assert_array_equal(study.frames[0].pixels, to_grey(page.pixels))


def saved(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


SMOOTH = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_every_jpeg_is_read_within_its_loss(tmp_path, mode, progressive):
    colour = np.dstack([SMOOTH, SMOOTH[::-1], SMOOTH[:, ::-1]])
    image = Image.fromarray(colour).convert(mode)
    study = read(tmp_path, saved(image, "JPEG", quality=95, subsampling=0, progressive=progressive), "a.jpg")
    shown = study.frames[0].pixels if mode == "L" else study.colour[0]
    assert np.abs(shown.astype(int) - np.asarray(image if mode == "L" else image.convert("RGB"))).max() < 9


def test_a_jpeg_of_another_kind_is_refused_by_name(tmp_path):
    data = bytearray(saved(Image.fromarray(SMOOTH), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 4] = 12
    with pytest.raises(NotAnImageError, match=r"a\.jpg is a JPEG of a kind .*12-bit"):
        read(tmp_path, data, "a.jpg")
    inks = saved(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG").replace(b"Adobe", b"adobe")
    with pytest.raises(NotAnImageError, match=r"a\.jpg is a CMYK JPEG"):
        read(tmp_path, inks, "a.jpg")


@pytest.mark.parametrize("top_down", [False, True], ids=["bottom-up", "top-down"])
@pytest.mark.parametrize("bits", [1, 4, 8, 24, 32])
def test_every_bmp_is_read_as_it_was_written(tmp_path, bits, top_down):
    height, width = SHAPE
    if bits <= 8:
        colours = levels(np.uint8, 2**bits, 3)
        stored = levels(np.uint8, *SHAPE, most=2**bits - 1)
        expected = colours[stored]
        palette = np.dstack([colours[None, :, ::-1], np.zeros((1, 2**bits, 1), np.uint8)]).tobytes()
    else:
        expected, palette = levels(np.uint8, *SHAPE, 3), b""
        fourth = np.zeros((*SHAPE, 1), np.uint8)
        stored = expected[..., ::-1] if bits == 24 else np.dstack([expected[..., ::-1], fourth])
    rows = stored if top_down else stored[::-1]
    lines = [row.tobytes() if bits >= 8 else pack_row(row[:, None], bits) for row in rows]
    data = b"".join(line + bytes(-len(line) % 4) for line in lines)
    bmp = write_bmp(data, width, -height if top_down else height, bits, palette=palette)
    assert_shows(read(tmp_path, bmp, "a.bmp").colour[0], expected)


def test_a_bmp_of_sixteen_bits_is_read_by_its_masks(tmp_path):
    five = levels(np.uint8, *SHAPE, 3, most=31)
    stored = five[..., 0].astype("<u2") << 10 | five[..., 1].astype("<u2") << 5 | five[..., 2]
    lines = b"".join(row.tobytes() + bytes(-2 * len(row) % 4) for row in stored[::-1])
    shown = read(tmp_path, write_bmp(lines, SHAPE[1], SHAPE[0], 16), "a.bmp").colour[0]
    assert np.abs(shown.astype(float) - five * (255 / 31)).max() <= 1


def test_a_run_length_bmp_is_read(tmp_path):
    grey = np.repeat(levels(np.uint8, *SHAPE), 3, axis=1)
    palette = b"".join(bytes([i, i, i, 0]) for i in range(256))
    data = b"".join(b"".join(bytes([3, v]) for v in row[::3]) + b"\0\0" for row in grey[::-1]) + b"\0\1"
    bmp = write_bmp(data, grey.shape[1], len(grey), 8, palette=palette, packing=1)
    assert_shows(read(tmp_path, bmp, "a.bmp").frames[0].pixels, grey)
