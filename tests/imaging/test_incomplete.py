"""Images of which a part is missing, and files that hold more than their frames."""

from __future__ import annotations

import io
import logging
import os
import socket
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from image_writers import DEFLATE, LZW, NONE, RGB, STENCIL, write_png, write_tiff
from PIL import Image

from sonoloop.errors import (
    ImageError,
    ImageTooLargeError,
    ImageTruncatedError,
    NotAnImageError,
    UnsupportedImageError,
)
from sonoloop.formats.mask_png import read_mask
from sonoloop.imaging import io as images
from sonoloop.imaging.decoder_noise import silence_decoders
from sonoloop.imaging.io import read_frame, read_study
from sonoloop.imaging.phantom import phantom

GREY = phantom("benign", seed=1, shape=(96, 128)).image


def put(folder: Path, data: bytes, name: str) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("samples", [GREY, np.dstack([GREY] * 3), GREY.astype(np.uint16) * 7])
def test_a_png_of_fewer_rows_is_read_and_told(tmp_path, samples):
    path = put(tmp_path, write_png(samples, rows=40), "a.png")
    study = read_study(path)
    assert study.frames[0].note == "only 40 of 96 rows are there; the rest is blank"
    assert study.notes == ["a.png: only 40 of 96 rows are there; the rest is blank"]
    grey = samples if samples.ndim == 2 else samples[..., 0]
    np.testing.assert_array_equal(study.frames[0].pixels[:40], grey[:40])
    assert read_frame(put(tmp_path, write_png(samples), "whole.png")).note is None


@pytest.mark.parametrize(
    "data",
    [
        write_png(GREY, rows=0),
        write_png(GREY, interlaced=True, rows=40),
        write_png(GREY)[:-300],
        write_png(GREY, rows=40, ends=False)[:-9],
    ],
    ids=["none", "interlaced", "cut", "fewer and cut"],
)
def test_a_png_whose_missing_part_is_unknown_is_refused(tmp_path, data):
    with pytest.raises(ImageTruncatedError):
        read_study(put(tmp_path, data, "a.png"))


def encode(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 2}, {"quality": 30, "optimize": True}])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_that_ends_early_is_read_and_told(tmp_path, mode, options):
    whole = encode(Image.fromarray(GREY).convert(mode), "JPEG", **options)
    assert read_frame(put(tmp_path, whole, "whole.jpg")).note is None
    start = whole.rindex(b"\xff\xda")
    half = (start + len(whole)) // 2
    study = read_study(put(tmp_path, whole[:half] + b"\xff\xd9", "a.jpg"))
    note = study.frames[0].note
    rows = int(note.split()[1])
    assert note == f"only {rows} of 96 rows are there; the rest is blank"
    assert 16 <= rows <= 80 and rows % 8 == 0
    right = read_frame(tmp_path / "whole.jpg").pixels
    np.testing.assert_array_equal(study.frames[0].pixels[: rows - 1], right[: rows - 1])


def test_a_progressive_jpeg_that_ends_early_is_read_and_told(tmp_path):
    whole = encode(Image.fromarray(GREY), "JPEG", progressive=True)
    for share in (0.3, 0.5, 0.7, 0.9):
        path = put(tmp_path, whole[: int(len(whole) * share)] + b"\xff\xd9", "a.jpg")
        assert read_frame(path).note.startswith("it ends early: from row ")


def test_an_animation_is_read_as_its_first_picture_and_told(tmp_path):
    other = Image.fromarray(GREY[::-1])
    data = encode(Image.fromarray(GREY), "PNG", save_all=True, append_images=[other])
    frame = read_frame(put(tmp_path, data, "a.png"))
    np.testing.assert_array_equal(frame.pixels, GREY)
    assert frame.note == "it is an animation, and only the first of 2 pictures is read"


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("end", [np.s_[-16:], np.s_[-40:]])
def test_a_jpeg_that_is_grey_below_is_whole(tmp_path, mode, end):
    pixels = GREY.copy()
    pixels[end] = 128
    for progressive in (False, True):
        image = Image.fromarray(pixels).convert(mode)
        path = put(tmp_path, encode(image, "JPEG", progressive=progressive), "a.jpg")
        assert read_frame(path).note is None


@pytest.mark.parametrize("compression", [NONE, DEFLATE, LZW])
def test_a_tiff_without_some_strips_is_read_and_told(tmp_path, compression):
    data = write_tiff(GREY, rows=10, missing=(7, 8, 9), compression=compression)
    frame = read_frame(put(tmp_path, data, "a.tif"))
    assert frame.note == "only 70 of 96 rows are there; the rest is blank"
    np.testing.assert_array_equal(frame.pixels[:70], GREY[:70])
    assert not frame.pixels[70:].any()


def test_a_tiff_without_some_tiles_is_read_and_told(tmp_path):
    data = write_tiff(GREY, tile=32, missing=(0, 5))
    assert (
        read_frame(put(tmp_path, data, "a.tif")).note
        == "only 10 of 12 parts of it are there; the rest is blank"
    )
    with pytest.raises(ImageTruncatedError):
        read_frame(put(tmp_path, write_tiff(GREY, tile=32, missing=tuple(range(12))), "b.tif"))


@pytest.mark.parametrize("damage", ["cut", "fewer-rows"])
def test_a_jpeg_in_a_tiff_that_is_not_whole_is_refused(tmp_path, damage):
    Image.fromarray(GREY).save(tmp_path / "a.tif", compression="jpeg")
    assert read_frame(tmp_path / "a.tif").shape == GREY.shape
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        tags = tiff.pages[0].tags
    if damage == "cut":
        at = tags["StripByteCounts"].valueoffset
        struct.pack_into("<I", data, at, tags["StripByteCounts"].value[0] // 2)
    else:
        for tag in ("ImageLength", "RowsPerStrip"):
            struct.pack_into("<H" if tags[tag].dtype == 3 else "<I", data, tags[tag].valueoffset, 120)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ImageTruncatedError, match=r"a\.tif breaks off"):
        read_study(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [NONE, DEFLATE, LZW])
def test_a_tiff_that_breaks_off_is_refused(tmp_path, compression):
    data = write_tiff(GREY, compression=compression)
    at, size = struct.unpack_from("<I", data, 4)[0], len(data)
    # its directory first, its strips behind the end of the file
    moved = bytearray(data)
    place = data.index(struct.pack("<HHI", 273, 4, 14)) + 8
    (offsets,) = struct.unpack_from("<I", data, place)
    struct.pack_into("<I", moved, offsets + 4 * 13, size + 10)
    with pytest.raises(ImageTruncatedError):
        read_frame(put(tmp_path, bytes(moved), "a.tif"))
    with pytest.raises(ImageTruncatedError):
        read_frame(put(tmp_path, data[: at + 20], "b.tif"))


def test_a_tiff_whose_chain_of_pages_breaks_is_refused(tmp_path):
    data = bytearray(write_tiff(GREY, GREY))
    struct.pack_into("<I", data, len(data) - 4, len(data) + 100)
    with pytest.raises(ImageTruncatedError):
        read_study(put(tmp_path, bytes(data), "a.tif"))
    struct.pack_into("<I", data, len(data) - 4, 8)
    with pytest.raises(ImageError):
        read_study(put(tmp_path, bytes(data), "a.tif"))


def test_a_bmp_that_breaks_off_is_refused(tmp_path):
    data = encode(Image.fromarray(GREY), "BMP")
    with pytest.raises(ImageTruncatedError):
        read_frame(put(tmp_path, data[:-200], "a.bmp"))


def test_a_mask_of_which_rows_are_missing_is_refused(tmp_path):
    with pytest.raises(ImageTruncatedError, match=r"a_mask\.png is not whole: only 40 of 96 rows"):
        read_mask(put(tmp_path, write_png(GREY, rows=40), "a_mask.png"))


SMALL = np.asarray(Image.fromarray(GREY).resize((32, 24), Image.Resampling.LANCZOS))
OTHER = phantom("malignant", seed=7, shape=(96, 128)).image[30:54, 40:72]
BESIDE = {
    "reduced": {"samples": SMALL, "tags": {254: (1,)}},
    "old reduced": {"samples": SMALL, "tags": {255: (2,)}},
    "reduced of the same size": {"samples": GREY, "tags": {254: (1,)}},
    "mask": {
        "samples": (GREY > 100).astype(np.uint8),
        "bits": 1,
        "tags": {254: (4,)},
        "photometric": STENCIL,
    },
    "mask by its kind": {"samples": (GREY > 100).astype(np.uint8), "bits": 1, "photometric": STENCIL},
    "unmarked thumbnail": {"samples": SMALL},
    "colour thumbnail": {"samples": np.dstack([SMALL] * 3), "photometric": RGB},
}


@pytest.mark.parametrize("first", [False, True], ids=["behind", "before"])
@pytest.mark.parametrize("beside", BESIDE)
def test_a_thumbnail_or_a_mask_of_a_page_is_no_frame(tmp_path, beside, first):
    pages = [BESIDE[beside], GREY] if first else [GREY, BESIDE[beside]]
    frame = read_frame(put(tmp_path, write_tiff(*pages), "a.tif"))
    np.testing.assert_array_equal(frame.pixels, GREY)


def test_the_levels_of_a_pyramid_are_no_frames(tmp_path):
    with tifffile.TiffWriter(tmp_path / "sub.tif") as file:
        file.write(GREY, subifds=2)
        file.write(GREY[::2, ::2], subfiletype=1)
        file.write(GREY[::4, ::4], subfiletype=1)
    np.testing.assert_array_equal(read_frame(tmp_path / "sub.tif").pixels, GREY)
    levels = [
        np.asarray(Image.fromarray(GREY).resize((128 // k, 96 // k), Image.Resampling.BOX)) for k in (1, 2, 4)
    ]
    np.testing.assert_array_equal(read_frame(put(tmp_path, write_tiff(*levels), "chain.tif")).pixels, GREY)


def test_pages_that_only_differ_in_size_are_told(tmp_path):
    path = put(tmp_path, write_tiff(GREY, OTHER), "a.tif")
    assert [frame.shape for frame in read_study(path).frames] == [(96, 128), (24, 32)]
    with pytest.raises(UnsupportedImageError, match=r"a\.tif has 2 pages that differ in size"):
        read_frame(path)


def test_the_thumbnail_of_a_cine_is_no_frame(tmp_path):
    cine = [GREY, GREY[:, ::-1], GREY[::-1], {"samples": SMALL, "tags": {254: (1,)}}]
    assert len(read_study(put(tmp_path, write_tiff(*cine), "a.tif")).frames) == 3


def test_a_page_alone_is_the_frame_whatever_its_mark(tmp_path):
    data = write_tiff({"samples": GREY, "tags": {254: (1,)}})
    np.testing.assert_array_equal(read_frame(put(tmp_path, data, "a.tif")).pixels, GREY)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder", "loop"])
def test_what_is_no_file_is_named_and_never_waited_for(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        listening = socket.socket(socket.AF_UNIX)
        listening.bind("a.png")
        listening.close()
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "a.png")
    for read in (read_frame, read_mask):
        with pytest.raises(ImageError, match=r"a\.png"):
            read(path)


@pytest.mark.skipif(os.name == "nt", reason="there the file would take its 40 GiB")
def test_a_file_beyond_the_cap_is_not_read(tmp_path):
    path = tmp_path / "a.tif"
    with path.open("wb") as file:
        file.truncate(40 << 30)
    for read in (read_frame, read_mask):
        with pytest.raises(ImageTooLargeError, match=r"a\.tif is not read: it has 40 GiB"):
            read(path)


def test_the_bytes_of_a_decoded_page_are_capped(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_DECODED_BYTES", 5 * GREY.size)
    assert read_frame(put(tmp_path, write_tiff(GREY.astype(np.float32)), "a.tif")).shape == GREY.shape
    with pytest.raises(ImageTooLargeError, match=r"b\.tif takes .* once decoded"):
        read_frame(put(tmp_path, write_tiff(GREY.astype(np.float64)), "b.tif"))


@pytest.mark.parametrize("compression", [NONE, DEFLATE, LZW])
def test_a_header_that_lies_about_its_size_is_damage(tmp_path, compression):
    data = bytearray(write_tiff(np.ones((20, 20), np.uint8), rows=20, compression=compression))
    for tag in (257, 278):
        struct.pack_into("<I", data, data.index(struct.pack("<HHI", tag, 4, 1)) + 8, 60_000)
    path = put(tmp_path, bytes(data), "a.tif")
    try:
        frame = read_frame(path)
    except ImageError as error:
        assert "a.tif" in str(error)
    else:
        assert "only 20 of 60000 rows" in frame.note


def test_a_strip_that_unpacks_to_more_than_its_rows_is_cut(tmp_path):
    bomb = write_tiff(np.zeros((3000, 3000), np.uint8), rows=3000, compression=DEFLATE)
    data = bytearray(bomb)
    for tag in (257, 278):
        struct.pack_into("<I", data, data.index(struct.pack("<HHI", tag, 4, 1)) + 8, 1)
    assert read_study(put(tmp_path, bytes(data), "a.tif")).frames[0].shape == (1, 3000)


NOISY = f"""
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from sonoloop.errors import ImageError
from sonoloop.imaging.io import read_study

def read(path):
    try:
        read_study(path)
    except ImageError:
        return 1
    return 0

with ThreadPoolExecutor(4) as pool:
    failed = sum(pool.map(read, sorted(Path({"sys.argv[1]"}).iterdir())))
print(failed)
"""


def test_nothing_that_decoders_say_reaches_the_user(tmp_path):
    rng = np.random.default_rng(0)
    grey = Image.fromarray(GREY)
    good = {
        "lzw.tif": encode(grey, "TIFF", compression="tiff_lzw"),
        "jpeg.tif": encode(grey, "TIFF", compression="jpeg"),
        "fax.tif": encode(grey.convert("1"), "TIFF", compression="group4"),
        "cine.tif": encode(grey, "TIFF", save_all=True, append_images=[grey, grey]),
        "a.jpg": encode(grey, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01"),
        "a.png": encode(grey, "PNG"),
        "a.bmp": encode(grey, "BMP"),
    }
    for name, data in good.items():
        for number in range(12):
            damaged = bytearray(data)
            start = 0 if number % 2 else max(0, len(data) - 260)
            for place in rng.integers(start, len(data), 5):
                damaged[place] = rng.integers(256)
            (tmp_path / f"{number}-{name}").write_bytes(damaged)
    (tmp_path / "large.png").write_bytes(
        write_png(np.zeros((1, 1), np.uint8)).replace(
            struct.pack(">II", 1, 1), struct.pack(">II", 12_000, 9_000)
        )
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", NOISY, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert int(done.stdout) > 20


def test_others_who_use_the_decoders_still_hear_of_it(caplog):
    said = logging.getLogger("tifffile")
    with silence_decoders():
        said.error("ours")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(said.error, "theirs").result()
    said.error("later")
    assert [record.message for record in caplog.records] == ["theirs", "later"]


def test_a_link_to_an_image_is_read(tmp_path):
    put(tmp_path, write_png(GREY), "a.png")
    (tmp_path / "b.png").symlink_to("a.png")
    assert read_frame(tmp_path / "b.png").shape == GREY.shape
    with pytest.raises(NotAnImageError):
        read_frame(put(tmp_path, b"text", "c.png"))
