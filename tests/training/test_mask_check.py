"""What is odd about a mask is told by name, and what stands in its alpha counts."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from sonoloop.errors import TrainingError
from sonoloop.imaging.io import read_frame
from sonoloop_training.datasets.mask_check import find_lesion, read_masks
from sonoloop_training.datasets.sample import Sample

SHAPE = (96, 128)


def ellipse(rows: float = 20, columns: float = 28, at: tuple[int, int] = (48, 64)) -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return ((y - at[0]) / rows) ** 2 + ((x - at[1]) / columns) ** 2 <= 1


LESION = ellipse()


def channels(*layers: np.ndarray) -> np.ndarray:
    return np.stack([np.broadcast_to(layer, SHAPE) for layer in layers], -1).astype(np.uint8)


def palette(colours: list[int], transparency: bytes | None = None) -> Image.Image:
    image = Image.fromarray(LESION.astype(np.uint8), "P")
    image.putpalette(colours)
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(channels(255, 255, 255, LESION * 255)),
        Image.fromarray(channels(0, 0, 0, LESION * 255)),
        Image.fromarray(channels(255, 0, 0, LESION * 128)),
        Image.fromarray(channels(*[LESION * 255] * 3, 255)),
        # under what is transparent, colours say nothing
        Image.fromarray(channels(*[~LESION * 255] * 3, LESION * 255)),
        Image.fromarray(channels(*[LESION * 255] * 3, ellipse(30, 40) * 255)),
        Image.fromarray(channels(255, LESION * 255), "LA"),
        Image.fromarray(channels(0, LESION * 255), "LA"),
        palette([0, 0, 0, 0, 0, 0], b"\0\xff"),
        palette([255, 255, 255, 255, 255, 255], b"\0\xff"),
        palette([0, 0, 0, 1, 0, 0]),
        Image.fromarray(LESION.astype(np.uint8)),
        Image.fromarray(LESION.astype(np.uint16) * 65535),
        Image.fromarray(LESION),
        Image.fromarray(channels(0, 0, LESION * 1)),
    ],
)
def test_the_shape_is_what_is_opaque_and_above_the_background(mask, tmp_path):
    mask.save(tmp_path / "mask.png")
    found = read_masks([tmp_path / "mask.png"], grey(tmp_path), "benign")
    assert found.faults == ()
    assert np.array_equal(found.union, LESION)


def grey(folder):
    pixels = np.random.default_rng(0).integers(0, 200, SHAPE, np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    return read_frame(folder / "image.png")


def smooth() -> np.ndarray:
    small = Image.fromarray(LESION.astype(np.uint8) * 255).resize((64, 48))
    return np.asarray(small.resize(SHAPE[::-1], Image.Resampling.BILINEAR))


def noise() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 200, SHAPE, np.uint8)


def half(rows: int = SHAPE[0], columns: int = SHAPE[1]) -> np.ndarray:
    mask = np.zeros(SHAPE, np.bool_)
    mask[4:rows, 4:columns] = True
    return mask


@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
@pytest.mark.parametrize("shown", [(0,), (65535,), (0, 0, 0), (65535, 0, 0)])
@pytest.mark.parametrize("alpha", [1, 65535])
def test_alpha_of_a_tiff_counts(tmp_path, kind, shown, alpha):
    deep = np.stack([*(np.full(SHAPE, level) for level in shown), LESION * alpha], -1).astype(np.uint16)
    photometric = "minisblack" if len(shown) == 1 else "rgb"
    tifffile.imwrite(tmp_path / "mask.tif", deep, photometric=photometric, extrasamples=[kind])
    found = read_masks([tmp_path / "mask.tif"], grey(tmp_path), "benign")
    np.testing.assert_array_equal(found.union, LESION)
    assert found.faults == ()


@pytest.mark.parametrize("label", ["benign", "normal"])
def test_a_palette_that_hides_what_it_holds_is_told(tmp_path, label):
    palette([0, 0, 0, 0, 0, 0]).save(tmp_path / "mask.png")
    found = read_masks([tmp_path / "mask.png"], grey(tmp_path), label)
    assert any("palette" in fault.detail and fault.odd for fault in found.faults)


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        (np.full(SHAPE, 255), {"mask along the border", "mask over half"}),
        (~LESION * 255, {"mask along the border", "mask over half"}),
        (half(90, 120) * 255, {"mask over half"}),
        (half(80, 92) * 255, {"mask over half"}),
        (smooth(), {"mask not binary"}),
        (LESION * 1 + ellipse(8, 8), {"mask not binary"}),
        (LESION * 60000 + ellipse(8, 8) * np.uint16(5), {"mask not binary"}),
        (channels(LESION * 255, 0, ellipse(8, 8) * 255), {"mask not binary"}),
        (channels(255, 255, 255, smooth()), {"mask not binary"}),
        (np.where(LESION, np.float32(1), np.float32("nan")), {"mask not binary"}),
        (np.where(LESION, np.float32(1), np.float32(-1)), {"mask not binary"}),
        (LESION * 255 + ~LESION * 3, {"mask not binary", "mask along the border", "mask over half"}),
        ((LESION & ~ellipse(18, 26)) * 255, {"mask an outline"}),
        ((noise() > 195) * 255, {"mask in specks", "mask along the border"}),
        (LESION * (np.arange(128) % 4 > 0) * (np.arange(96) % 4 > 0)[:, None] * 255, {"mask in specks"}),
        (LESION & ~ellipse(18, 26) & (np.arange(128) > 50), {"mask an outline"}),
        (LESION & (np.random.default_rng(0).random(SHAPE) > 0.1), {"mask in specks"}),
        (ellipse(1, 1) * 255, {"mask tiny"}),
        (~half(92, 124) * 255, {"mask along the border", "mask an outline"}),
        (np.zeros(SHAPE), {"mask empty"}),
        (channels(LESION * 255, LESION * 255, LESION * 255, 0), {"mask empty"}),
        (LESION.T * 255, {"mask of another size"}),
        (LESION[::2, ::2] * 255, {"mask of another size"}),
        (LESION[:60] * 255, {"mask of another size"}),
    ],
)
def test_a_mask_that_looks_odd_is_told(values, kinds, tmp_path):
    values = np.asarray(values)
    if values.dtype not in (np.float32, np.uint16):
        values = values.astype(np.uint8)
    path = tmp_path / ("mask.tif" if values.dtype == np.float32 else "mask.png")
    Image.fromarray(values).save(path)
    found = read_masks([path], grey(tmp_path), "benign")
    assert {fault.kind for fault in found.faults} == kinds
    assert all(fault.odd for fault in found.faults)


def test_a_photo_is_no_mask(tmp_path):
    frame = grey(tmp_path)
    for name, content in (("copy.png", frame.pixels), ("other.png", noise()), ("photo.jpg", noise())):
        Image.fromarray(content).save(tmp_path / name)
    kinds = [
        {fault.kind for fault in read_masks([tmp_path / name], frame, "benign").faults}
        for name in ("image.png", "copy.png", "other.png", "photo.jpg")
    ]
    assert kinds[0] >= {"mask is the image"} and kinds[1] >= {"mask is the image"}
    assert kinds[2] >= {"mask not binary"} and kinds[3] >= {"mask not binary"}


def test_a_jpeg_of_a_mask_is_right(tmp_path):
    Image.fromarray(LESION.astype(np.uint8) * 255).save(tmp_path / "mask.jpg", quality=60)
    found = read_masks([tmp_path / "mask.jpg"], grey(tmp_path), "benign")
    assert found.faults == ()
    assert (found.union != LESION).mean() < 0.005


@pytest.mark.parametrize("rows, columns", [(44, 48), (36, 60)])
def test_a_large_lesion_is_no_oddity(rows, columns, tmp_path):
    mask = ellipse(rows, columns)
    assert mask.mean() > 0.5
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert read_masks([tmp_path / "mask.png"], grey(tmp_path), "malignant").faults == ()


def test_an_empty_one_beside_another_is_told(tmp_path):
    for name, mask in (("a.png", LESION), ("b.png", ~LESION & LESION)):
        Image.fromarray(mask).save(tmp_path / name)
    (fault,) = read_masks([tmp_path / "a.png", tmp_path / "b.png"], grey(tmp_path), "benign").faults
    assert (fault.kind, fault.detail) == ("mask file empty", "b.png is empty, others are not")


def test_of_several_pages_nobody_knows_which_is_the_mask(tmp_path):
    pages = [Image.fromarray(page.astype(np.uint8) * 255) for page in (LESION, ~LESION)]
    pages[0].save(tmp_path / "mask.tif", save_all=True, append_images=pages[1:])
    (fault,) = read_masks([tmp_path / "mask.tif"], grey(tmp_path), "benign").faults[:1]
    assert (fault.kind, fault.usable) == ("mask of several pages", False)


def test_a_mask_is_of_one_frame(tmp_path):
    grey(tmp_path)
    pages = [Image.fromarray(noise()), Image.fromarray(noise()[::-1])]
    pages[0].save(tmp_path / "image.tif", save_all=True, append_images=pages[1:])
    Image.fromarray(LESION).save(tmp_path / "mask.png")
    sample = Sample(
        name="a",
        dataset="own",
        image=tmp_path / "image.tif",
        masks=(tmp_path / "mask.png",),
        label="benign",
        group="a",
    )
    with pytest.raises(TrainingError, match=r"image\.tif has 2 frames, and its mask is of one"):
        sample.read()


def test_a_grey_mask_with_one_level_has_nothing_to_tell():
    assert find_lesion(LESION.astype(np.uint8) * 7)[1] == ""
