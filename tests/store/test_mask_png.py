from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from sonoloop.errors import StoreError
from sonoloop.store.revisions import decode_png, encode_png, hash_pixels

MASKS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=40))


@given(MASKS)
def test_mask_comes_back_exactly(mask):
    again = decode_png(encode_png(mask))
    assert again.dtype == np.uint8
    assert np.array_equal(again, mask)
    assert hash_pixels(again) == hash_pixels(mask)


@given(MASKS, st.data())
def test_any_flipped_bit_is_found(mask, data):
    png = bytearray(encode_png(mask))
    png[data.draw(st.integers(0, len(png) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(StoreError):
        decode_png(bytes(png))


@given(MASKS, st.data())
def test_any_truncation_is_found(mask, data):
    png = encode_png(mask)
    with pytest.raises(StoreError):
        decode_png(png[: data.draw(st.integers(0, len(png) - 1))])


def test_transposed_masks_of_the_same_bytes_hash_differently():
    assert hash_pixels(np.zeros((2, 3), np.uint8)) != hash_pixels(np.zeros((3, 2), np.uint8))


def test_non_contiguous_mask_is_kept_as_it_is_seen():
    mask = np.arange(24, dtype=np.uint8).reshape(4, 6)[::2, ::-1]
    assert np.array_equal(decode_png(encode_png(mask)), mask)
    assert hash_pixels(mask) == hash_pixels(mask.copy())


def test_claimed_size_is_refused_before_anything_is_decoded(monkeypatch):
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n"
    for chunk in (header, b"IDAT" + zlib.compress(b""), b"IEND"):
        png += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    monkeypatch.setattr(Image, "open", lambda *_a, **_k: pytest.fail("Pillow was asked"))
    with pytest.raises(StoreError, match="50000 x 50000"):
        decode_png(png)


@pytest.mark.parametrize("mode", ["RGB", "1", "P", "LA", "I;16"])
def test_other_kinds_of_png_are_refused(mode):
    file = io.BytesIO()
    Image.new(mode, (4, 3)).save(file, format="PNG")
    with pytest.raises(StoreError, match="changed from outside"):
        decode_png(file.getvalue())


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 2), bool), np.zeros((2, 2, 3), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_what_is_no_mask_is_not_encoded(bad):
    with pytest.raises(ValueError, match="a mask must"):
        encode_png(bad)
