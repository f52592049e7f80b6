"""One rule for every container: EXIF's or TIFF's orientation is applied once."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from image_writers import DEFLATE, LZW, PALETTE, RGB, write_png, write_tiff
from PIL import Image, ImageOps

from sonoloop.formats.mask_png import read_mask
from sonoloop.imaging.io import read_frame, read_study
from sonoloop.imaging.orientation import as_stored, onto_frame, turn, turn_back

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (16, 24), np.uint8)
ORIENTATIONS = range(1, 9)


def exif(orientation: int, order: str = "<", kind: str = "H") -> bytes:
    """Return an EXIF block; `kind` is as `struct` names it."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    number = {"B": 1, "H": 3, "I": 4, "f": 11}[kind]
    value = struct.pack(f"{order}{kind}", orientation).ljust(4, b"\0")
    return start + struct.pack(f"{order}IHHHI", 8, 1, 274, number, 1) + value + bytes(4)


def as_pillow_shows(array: np.ndarray, orientation: int) -> np.ndarray:
    image = Image.fromarray(array)
    image.getexif()[274] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_turning_is_pillows_and_is_undone(orientation):
    turned = turn(GREY, orientation)
    np.testing.assert_array_equal(turned, as_pillow_shows(GREY, orientation))
    np.testing.assert_array_equal(turn_back(turned, orientation), GREY)
    colour = np.dstack([GREY, GREY, GREY])
    np.testing.assert_array_equal(turn(colour, orientation)[..., 1], turned)


def write(path: Path, container: str, orientation: int) -> Path:
    block = exif(orientation)
    if container == "png":
        path.write_bytes(write_png(GREY, chunks=((b"eXIf", block),)))
    elif container == "jpg":
        smooth = Image.fromarray(GREY).resize((240, 160))
        smooth.save(path, "JPEG", quality=100, exif=b"Exif\0\0" + block)
    else:
        options = {
            "tif": {},
            "lzw.tif": {"compression": LZW},
            "deflate-tiles.tif": {"compression": DEFLATE, "tile": 16},
            "big-endian.tif": {"order": ">"},
            "float.tif": {},
        }[container]
        samples = GREY.astype(np.float64) if container == "float.tif" else GREY
        path.write_bytes(write_tiff(samples, orientation=orientation, **options))
    return path


CONTAINERS = ("png", "jpg", "tif", "lzw.tif", "deflate-tiles.tif", "big-endian.tif", "float.tif")


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_an_image_is_turned_once_whatever_its_container(tmp_path, container, orientation):
    upright = read_frame(write(tmp_path / "upright", container, 1))
    turned = read_frame(write(tmp_path / "turned", container, orientation))
    np.testing.assert_array_equal(turned.pixels, turn(upright.pixels, orientation))
    # the pixels of an image that was saved turned
    again = as_stored(turned)
    if turned.orientation != 1:
        np.testing.assert_array_equal(again.pixels, upright.pixels)
        assert again.pixels_hash == upright.pixels_hash
    # Pillow, which an earlier Sonoloop read with, turned those TIFFs that it knows
    assert turned.orientation == (orientation if container in ("png", "jpg", "float.tif") else 1)


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
@pytest.mark.parametrize("container", CONTAINERS)
def test_an_orientation_that_there_is_not_is_ignored(tmp_path, container, orientation):
    upright = read_frame(write(tmp_path / "upright", container, 1))
    other = read_frame(write(tmp_path / "other", container, orientation))
    assert other.pixels_hash == upright.pixels_hash
    assert other.orientation == 1


@pytest.mark.parametrize("container", ["png", "jpg"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_is_read_in_both_orders_and_damage_is_ignored(tmp_path, order, container):
    def read(block: bytes) -> int:
        (tmp_path / "a").write_bytes(with_exif(container, block))
        return read_frame(tmp_path / "a").orientation

    block = exif(6, order)
    assert read(block) == 6
    assert [read(exif(6, order, kind)) for kind in "BI"] == [6, 6]
    assert read(exif(6, order, "f")) == 1
    assert all(read(block[:length]) in (1, 6) for length in range(len(block)))
    assert read(block[:18]) == 1
    assert read(b"") == read(b"II*\0\xff\xff\xff\xff") == 1


def with_exif(container: str, block: bytes) -> bytes:
    if container == "png":
        return write_png(GREY, chunks=((b"eXIf", block),))
    return with_segment(b"Exif\0\0" + block)


def with_segment(body: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "JPEG")
    data = buffer.getvalue()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + data[2:]


XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>"""


@pytest.mark.parametrize("first", [None, 1, 3])
@pytest.mark.parametrize("container", ["png", "jpg", "tif", "jpeg.tif"])
def test_xmp_counts_where_nothing_else_says_how_to_turn(tmp_path, container, first):
    block = b"" if first is None else exif(first)
    if container == "jpg":
        data = with_segment(b"http://ns.adobe.com/xap/1.0/\0" + XMP)
        if first is not None:
            data = data[:2] + b"\xff\xe1" + struct.pack(">H", 8 + len(block)) + b"Exif\0\0" + block + data[2:]
    elif container == "png":
        text = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
        data = write_png(GREY, chunks=(text, *([(b"eXIf", block)] if block else ())))
    else:
        tags = {700: XMP} if first is None else {700: XMP, 274: first}
        buffer = io.BytesIO()
        packing = "jpeg" if container == "jpeg.tif" else None
        Image.fromarray(GREY).save(buffer, "TIFF", tiffinfo=tags, compression=packing)
        data = buffer.getvalue()
    (tmp_path / "a").write_bytes(data)
    frame = read_frame(tmp_path / "a")
    lying = np.asarray(Image.open(io.BytesIO(data))) if container in ("png", "jpg") else GREY
    expected = turn(lying, 6 if first is None else first)
    assert frame.shape == expected.shape
    if container != "jpeg.tif":
        np.testing.assert_array_equal(frame.pixels, expected)


@pytest.mark.parametrize("chunk_first", [True, False])
def test_exif_behind_the_pixels_of_a_png_counts_too(tmp_path, chunk_first):
    data = write_png(GREY, chunks=((b"eXIf", exif(6)),))
    at, end = data.index(b"eXIf") - 4, data.index(b"IDAT") - 4
    if not chunk_first:
        data = data[:at] + data[end:-12] + data[at:end] + data[-12:]
    (tmp_path / "a.png").write_bytes(data)
    np.testing.assert_array_equal(read_frame(tmp_path / "a.png").pixels, turn(GREY, 6))


def test_every_page_of_a_cine_is_turned_by_its_own_tag(tmp_path):
    pages = [{"samples": GREY, "orientation": number} for number in (1, 3, 2, 4)]
    (tmp_path / "a.tif").write_bytes(write_tiff(*pages))
    frames = read_study(tmp_path / "a.tif").frames
    for frame, number in zip(frames, (1, 3, 2, 4), strict=True):
        np.testing.assert_array_equal(frame.pixels, turn(GREY, number))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("orientation", [3, 6])
def test_colour_is_turned_as_its_grey_is(tmp_path, orientation, planar):
    colour = np.dstack([GREY, GREY[::-1], 255 - GREY])
    data = write_tiff(colour, photometric=RGB, planar=planar, orientation=orientation)
    (tmp_path / "a.tif").write_bytes(data)
    study = read_study(tmp_path / "a.tif")
    np.testing.assert_array_equal(study.colour[0], turn(colour, orientation))
    assert study.frames[0].shape == study.colour[0].shape[:2]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("container", ["png", "palette.png", "tif", "palette.tif"])
def test_a_mask_is_turned_as_its_image_is(tmp_path, container, orientation):
    numbers = (GREY % 3).astype(np.uint8)
    block = (b"eXIf", exif(orientation))
    colours = RNG.integers(0, 256, (3, 256), np.uint8)
    chunks = ((b"PLTE", colours.T.tobytes()), block)
    wide = tuple(int(value) * 257 for value in colours.ravel())
    data = {
        "png": lambda: write_png(numbers, chunks=(block,)),
        "palette.png": lambda: write_png(numbers, colour=3, chunks=chunks),
        "tif": lambda: write_tiff(numbers, orientation=orientation),
        "palette.tif": lambda: write_tiff(
            numbers, photometric=PALETTE, orientation=orientation, tags={320: wide}
        ),
    }[container]()
    (tmp_path / "a_mask").write_bytes(data)
    np.testing.assert_array_equal(read_mask(tmp_path / "a_mask"), turn(numbers, orientation))


def test_what_was_drawn_on_the_pixels_as_they_lie_is_brought_upright(tmp_path):
    frame = read_frame(write(tmp_path / "a", "png", 6))
    drawn = GREY > 100
    np.testing.assert_array_equal(onto_frame(drawn, frame, as_stored(frame).pixels_hash), turn(drawn, 6))
    upright = turn(drawn, 6)
    assert onto_frame(upright, frame, frame.pixels_hash) is upright


def test_jpeg_reads_the_first_exif_block_alone(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "JPEG", exif=b"Exif\0\0" + exif(3))
    data = buffer.getvalue()
    at = data.index(b"\xff\xe1")
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(exif(8))) + b"Exif\0\0" + exif(8)
    (tmp_path / "a.jpg").write_bytes(
        data[:at] + data[at : at + 4] + data[at + 4 :].replace(b"\xff\xdb", thumbnail + b"\xff\xdb", 1)
    )
    assert read_frame(tmp_path / "a.jpg").orientation == 3
