"""Reading each format."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from sonoloop.errors import (
    ConstantImageError,
    ImageEmptyError,
    NotFiniteImageError,
    UnsupportedImageError,
)
from sonoloop.imaging.grey import check_frame, frame_from_array
from sonoloop.imaging.io import read_frame, read_study

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (40, 50), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (40, 50), dtype=np.uint16)
RGB = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)


def save(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_eight_bit_grey_is_read_exactly(tmp_path, suffix):
    frame = read_frame(save(tmp_path / f"a{suffix}", GREY))
    assert frame.pixels.dtype == np.uint8
    np.testing.assert_array_equal(frame.pixels, GREY)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_keeps_its_depth(tmp_path, suffix):
    frame = read_frame(save(tmp_path / f"a{suffix}", DEEP))
    assert frame.pixels.dtype == np.uint16
    np.testing.assert_array_equal(frame.pixels, DEEP)


def test_big_endian_tiff_has_the_pixels_hash_of_the_little_endian_one(tmp_path):
    tifffile.imwrite(tmp_path / "big.tif", DEEP, byteorder=">")
    tifffile.imwrite(tmp_path / "little.tif", DEEP, byteorder="<")
    big, little = read_frame(tmp_path / "big.tif"), read_frame(tmp_path / "little.tif")
    assert big.pixels_hash == little.pixels_hash
    assert big.id != little.id


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_one_bit_becomes_black_and_white(tmp_path, suffix):
    frame = read_frame(save(tmp_path / f"a{suffix}", GREY > 127, "1"))
    np.testing.assert_array_equal(frame.pixels, np.where(GREY > 127, 255, 0))


def test_jpeg_is_read_within_its_loss(tmp_path):
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    frame = read_frame(save(tmp_path / "a.jpg", smooth))
    assert np.abs(frame.pixels.astype(int) - smooth).max() < 6


def test_colour_whose_channels_agree_is_that_channel(tmp_path):
    study = read_study(save(tmp_path / "a.png", np.stack([GREY] * 3, axis=-1)))
    np.testing.assert_array_equal(study.frames[0].pixels, GREY)
    assert study.colour is None


def test_colour_whose_channels_differ_is_luminance_and_kept(tmp_path):
    study = read_study(save(tmp_path / "a.png", RGB))
    np.testing.assert_array_equal(study.colour, RGB[None])
    expected = np.asarray(Image.fromarray(RGB).convert("L")).astype(int)
    assert np.abs(study.frames[0].pixels.astype(int) - expected).max() <= 1


def test_alpha_is_dropped(tmp_path):
    alpha = np.full(GREY.shape, 30, np.uint8)
    rgba = save(tmp_path / "a.png", np.dstack([GREY, GREY, GREY, alpha]))
    np.testing.assert_array_equal(read_frame(rgba).pixels, GREY)
    Image.fromarray(np.dstack([GREY, alpha]), "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_frame(tmp_path / "la.png").pixels, GREY)


def test_palette_is_resolved(tmp_path):
    image = Image.fromarray(GREY % 3, "P")
    image.putpalette([0, 0, 0, 200, 200, 200, 90, 90, 90])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_frame(tmp_path / "a.png").pixels, np.array([0, 200, 90])[GREY % 3])


def test_sixteen_bit_colour_is_read_at_eight_bits(tmp_path):
    deep = RNG.integers(0, 65536, (40, 50, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb")
    frame = read_frame(tmp_path / "a.tif")
    assert frame.pixels.dtype == np.uint8
    np.testing.assert_allclose(frame.pixels, deep @ np.array([0.299, 0.587, 0.114]) / 257, atol=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_colour_in_floating_point_is_read(tmp_path, dtype):
    deep = RNG.random((40, 50, 3)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb")
    np.testing.assert_allclose(
        read_frame(tmp_path / "a.tif").pixels, deep @ np.array([0.299, 0.587, 0.114]), atol=1e-6
    )


def test_a_tiff_of_many_pages_is_a_cine(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY, 255 - GREY, GREY]), photometric="minisblack")
    study = read_study(tmp_path / "a.tif")
    assert len(study.frames) == 3
    np.testing.assert_array_equal(study.frames[1].pixels, 255 - GREY)
    # the first and third look alike, but are two frames of the file
    assert len({frame.id for frame in study.frames}) == 3
    assert study.frames[0].pixels_hash == study.frames[2].pixels_hash
    with pytest.raises(UnsupportedImageError, match=r"3 frames.*move the slider"):
        read_frame(tmp_path / "a.tif")


def test_the_id_is_the_hash_of_the_files_bytes(tmp_path):
    path = save(tmp_path / "a.png", GREY)
    frame = read_frame(path)
    assert frame.id == hashlib.sha256(path.read_bytes()).hexdigest()
    moved = path.rename(tmp_path / "moved.png")
    assert read_frame(moved).id == frame.id


def test_a_resaved_file_has_another_id_and_the_same_pixels_hash(tmp_path):
    png, tif = read_frame(save(tmp_path / "a.png", GREY)), read_frame(save(tmp_path / "a.tif", GREY))
    assert png.id != tif.id
    assert png.pixels_hash == tif.pixels_hash
    assert read_frame(save(tmp_path / "b.png", 255 - GREY)).pixels_hash != png.pixels_hash


def test_a_constant_image_is_refused(tmp_path):
    with pytest.raises(ConstantImageError, match="value 9"):
        read_frame(save(tmp_path / "a.png", np.full((20, 20), 9, np.uint8)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_image_that_is_not_finite_is_refused(tmp_path, bad):
    pixels = GREY.astype(np.float32)
    pixels[3, 4] = bad
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    with pytest.raises(NotFiniteImageError, match="1 pixels"):
        read_frame(tmp_path / "a.tif")


def test_arrays_that_are_no_image_are_refused():
    with pytest.raises(UnsupportedImageError, match="one frame"):
        frame_from_array(np.zeros((4, 5, 6, 7)), name="x")
    with pytest.raises(ImageEmptyError):
        frame_from_array(np.zeros((0, 5)), name="x")
    with pytest.raises(UnsupportedImageError, match="complex"):
        frame_from_array(np.zeros((4, 5), complex), name="x")


def test_a_frame_without_a_file_is_known_by_its_pixels():
    one, other = frame_from_array(GREY, name="a"), frame_from_array(GREY.copy(), name="b")
    assert one.id == one.pixels_hash == other.id
    assert check_frame(one) is one
