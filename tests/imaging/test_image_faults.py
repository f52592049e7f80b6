"""Files that are damaged, packed, too large or no image at all."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from sonoloop.errors import (
    ImageEmptyError,
    ImageError,
    ImageMissingError,
    ImageTooLargeError,
    ImageTruncatedError,
    NotAnImageError,
)
from sonoloop.imaging import io as images
from sonoloop.imaging.io import read_frame, read_study

GREY = np.random.default_rng(7).integers(0, 256, (40, 50), dtype=np.uint8)


def save(path: Path) -> Path:
    Image.fromarray(GREY).save(path)
    return path


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageMissingError, match=r"gone\.png"):
        read_frame(tmp_path / "gone.png")


def test_a_folder_is_not_an_image(tmp_path):
    with pytest.raises(NotAnImageError, match="folder"):
        read_frame(tmp_path)


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageEmptyError, match=r"a\.png is empty"):
        read_frame(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"hello", b"GIF89a\x01\x00\x01\x00", b"%PDF-1.4", b"\x00" * 64])
def test_what_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(NotAnImageError, match=r"a\.png is not"):
        read_frame(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_refused(tmp_path, suffix, share):
    data = save(tmp_path / f"whole{suffix}").read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(data[: max(4, int(len(data) * share))])
    with pytest.raises((ImageTruncatedError, NotAnImageError), match="a"):
        read_frame(tmp_path / f"a{suffix}")


SMALL = GREY[:12, :15]
VARIANTS = {
    "grey.png": ("PNG", None, {}),
    "palette.png": ("PNG", "P", {}),
    "grey.jpg": ("JPEG", None, {}),
    "colour.jpg": ("JPEG", "RGB", {"progressive": True}),
    "grey.bmp": ("BMP", None, {}),
    "bits.bmp": ("BMP", "1", {}),
    "plain.tif": ("TIFF", None, {}),
    "deep.tif": ("TIFF", "I;16", {}),
    "lzw.tif": ("TIFF", None, {"compression": "tiff_lzw"}),
    "deflate.tif": ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    "group4.tif": ("TIFF", "1", {"compression": "group4"}),
    "cine.tif": ("TIFF", None, {"save_all": True, "append_images": [Image.fromarray(SMALL)] * 2}),
}
FLOAT_VARIANTS = {
    "float.tif": {},
    "planar.tif": {"planarconfig": "separate"},
    "zlib.tif": {"compression": "zlib"},
    "lzma.tif": {"compression": "lzma"},
    "big.tif": {"bigtiff": True},
}


def encode(variant: str) -> bytes:
    buffer = io.BytesIO()
    if variant in VARIANTS:
        encoder, mode, options = VARIANTS[variant]
        image = Image.fromarray(SMALL)
        (image.convert(mode) if mode else image).save(buffer, encoder, **options)
    else:
        options = FLOAT_VARIANTS[variant]
        axis = 0 if "planarconfig" in options else -1
        colour = np.stack([SMALL] * 3, axis=axis).astype(np.float32)
        tifffile.imwrite(buffer, colour, photometric="rgb", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("variant", [*VARIANTS, *FLOAT_VARIANTS])
def test_damaged_bytes_never_escape_as_another_error(tmp_path, variant):
    data = encode(variant)
    path = tmp_path / variant
    path.write_bytes(data)
    assert read_study(path).frames[0].shape == SMALL.shape
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(data)
        # half of the damage to where a TIFF has its tags
        start = 0 if rng.random() < 0.5 else max(0, len(data) - 260)
        for place in rng.integers(start, len(data), rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_study(path)
        except ImageError as error:
            assert variant in str(error)


def tiff_with(*, bits: int = 8, compression: int = 1) -> bytes:
    """Return a TIFF of 15 x 12 zeros that claims this depth and compression."""
    data = bytes(2 * -(-15 * bits // 16) * 12)
    tags = {256: 15, 257: 12, 258: bits, 259: compression, 262: 1, 273: 8, 277: 1, 278: 12, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return (
        b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)
    )


JPEG_2000, LERC = 34712, 34887


@pytest.mark.parametrize(
    "packing",
    [{"bits": 7}, {"bits": 9}, {"bits": 14}, {"compression": JPEG_2000}, {"compression": LERC}],
)
def test_a_tiff_packed_in_a_way_that_is_not_read_is_not_called_damaged(tmp_path, packing):
    (tmp_path / "a.tif").write_bytes(tiff_with(**packing))
    with pytest.raises(NotAnImageError, match=r"a\.tif is compressed or packed .* save it uncompressed"):
        read_study(tmp_path / "a.tif")


def test_too_little_memory_is_an_image_too_large(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(tifffile.TiffPage, "asarray", refuse)
    (tmp_path / "a.tif").write_bytes(encode("float.tif"))
    with pytest.raises(ImageTooLargeError, match=r"a\.tif takes more memory than there is"):
        read_study(tmp_path / "a.tif")


def test_an_overflow_in_a_decoder_is_damage(tmp_path, monkeypatch):
    def overflow(*_: object) -> None:
        raise OverflowError

    path = save(tmp_path / "a.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", overflow)
    with pytest.raises(ImageTruncatedError):
        read_study(path)


def test_a_width_that_is_a_list_is_damage(tmp_path):
    data = bytearray(encode("float.tif"))
    width = data.index(struct.pack("<H", 256), 8)  # the first tag; the length is the next
    struct.pack_into("<HI", data, width + 2, 4, 257)
    struct.pack_into("<HII", data, width + 14, 4, 1, 2**31)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ImageTruncatedError):
        read_study(tmp_path / "a.tif")


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8_001, 9_400, 13_500, 60_000])
def test_a_bomb_is_refused_from_its_header(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_claiming(side, side))
    with pytest.raises(ImageTooLargeError, match="more than 64,000,000 pixels"):
        read_frame(tmp_path / "bomb.png")


def test_a_tiff_bomb_is_refused_from_its_header(tmp_path):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, shape=(9000, 9000), dtype=np.uint8, tile=(512, 512), compression=None, data=None)
    (tmp_path / "bomb.tif").write_bytes(buffer.getvalue()[:4096])
    with pytest.raises(ImageTooLargeError):
        read_frame(tmp_path / "bomb.tif")


def test_the_cap_is_on_pixels(tmp_path):
    path = save(tmp_path / "a.png")
    assert read_frame(path, max_pixels=2000).shape == (40, 50)
    with pytest.raises(ImageTooLargeError, match="1,999"):
        read_frame(path, max_pixels=1999)


def multi_page(path: Path, *shapes: tuple[int, ...], dtype: type = np.uint8) -> Path:
    with tifffile.TiffWriter(path) as file:
        for shape in shapes:
            file.write(np.ones(shape, dtype), photometric="rgb" if len(shape) == 3 else "minisblack")
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.float32], ids=["pillow", "tifffile"])
def test_the_cap_of_a_study_counts_every_page(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(images, "MAX_STUDY_PIXELS", 1000)
    path = multi_page(tmp_path / "a.tif", (4, 4, 3), *[(20, 20, 3)] * 5, dtype=dtype)
    with pytest.raises(ImageTooLargeError, match="in all its frames; at most 1,000"):
        read_study(path)


def test_the_cap_of_a_frame_holds_for_every_page(tmp_path):
    path = multi_page(tmp_path / "a.tif", (4, 4), (10, 11))
    assert [frame.shape for frame in read_study(path, max_pixels=110).frames] == [(4, 4), (10, 11)]
    with pytest.raises(ImageTooLargeError, match="109"):
        read_study(path, max_pixels=109)


def test_the_cap_counts_channels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((10, 10, 700), np.float32), planarconfig="contig")
    with pytest.raises(ImageTooLargeError, match="10 x 10 x 700"):
        read_study(tmp_path / "a.tif", max_pixels=100)


def test_the_number_of_frames_is_capped(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_FRAMES", 2)
    with pytest.raises(ImageTooLargeError, match="3 frames; at most 2"):
        read_study(multi_page(tmp_path / "a.tif", (4, 4), (4, 4), (4, 4)))
