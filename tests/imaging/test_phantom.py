"""Phantoms look as they are labelled, and their speckle has the statistics of speckle."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import ConvexHull

from sonoloop.imaging.phantom import Phantom, envelope, log_compress, phantom, sample_study
from sonoloop.values import CLASSES

SEEDS = range(24)
SHAPE = (224, 280)


@cache
def made(label, seed):
    return phantom(label, seed=seed, shape=SHAPE)


def extent(mask):
    """Height and width of the lesion's bounding box."""
    rows, columns = np.nonzero(mask)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def solidity(mask):
    rows, columns = np.nonzero(mask)
    corners = np.concatenate([np.column_stack([rows + i, columns + j]) for i in (0, 1) for j in (0, 1)])
    return mask.sum() / ConvexHull(corners).volume


def behind_against_beside(made_phantom: Phantom):
    """Grey level below the middle of the lesion, less that at the same depth on both sides."""
    image, mask = made_phantom.image.astype(float), made_phantom.mask
    tall, wide = extent(mask)
    rows, columns = np.nonzero(mask)
    below = image[rows.max() + 3 : rows.max() + 3 + tall // 2]
    left, right = columns.min(), columns.max() + 1
    behind = below[:, left + wide // 4 : right - wide // 4]
    sides = (below[:, max(left - wide, 0) : max(left - 4, 0)], below[:, right + 4 : right + wide])
    return behind.mean() - np.concatenate([side.ravel() for side in sides]).mean()


@pytest.mark.parametrize("label", CLASSES)
def test_same_seed_gives_the_same_phantom(label):
    first, second = (phantom(label, seed=3, shape=(96, 120)) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.mask, second.mask)


@pytest.mark.parametrize("label", CLASSES)
def test_seeds_differ_in_speckle_and_in_brightness(label):
    images = [made(label, seed).image.astype(float) for seed in SEEDS]
    correlations = np.corrcoef([image.ravel() for image in images])[np.triu_indices(len(images), 1)]
    assert correlations.max() < 0.9
    assert np.std([image.mean() for image in images]) > 5


@pytest.mark.parametrize("label", ["benign", "malignant"])
def test_seeds_differ_in_size_place_and_contrast(label):
    phantoms = [made(label, seed) for seed in SEEDS]
    widths = [extent(p.mask)[1] / SHAPE[1] for p in phantoms]
    assert max(widths) / min(widths) > 1.8
    centres = np.array([ndimage.center_of_mass(p.mask) for p in phantoms]) / SHAPE
    assert centres[:, 0].std() > 0.03
    assert centres[:, 1].std() > 0.15
    assert np.std([p.image[p.mask > 0].mean() for p in phantoms]) > 10


@pytest.mark.parametrize("label", CLASSES)
@pytest.mark.parametrize("shape", [(64, 64), (64, 400), (400, 64), (97, 131)])
def test_any_shape_from_64_pixels_works(label, shape):
    for seed in range(4):
        made_phantom = phantom(label, seed=seed, shape=shape)
        assert made_phantom.image.shape == made_phantom.mask.shape == shape
        assert made_phantom.image.dtype == made_phantom.mask.dtype == np.uint8
        assert made_phantom.image.std() > 15
        assert made_phantom.mask.any() == (label != "normal")


@pytest.mark.parametrize("label", ["benign", "malignant"])
@pytest.mark.parametrize("seed", SEEDS)
def test_lesion_is_one_whole_region_inside_the_image(label, seed):
    mask = made(label, seed).mask
    assert set(np.unique(mask)) == {0, 1}
    assert ndimage.label(mask, structure=np.ones((3, 3)))[1] == 1
    np.testing.assert_array_equal(ndimage.binary_fill_holes(mask), mask)
    rows, columns = np.nonzero(mask)
    margins = rows.min(), columns.min(), SHAPE[0] - 1 - rows.max(), SHAPE[1] - 1 - columns.max()
    assert min(margins) >= 5
    assert 0.075 < extent(mask)[1] / SHAPE[1] < 0.26


@pytest.mark.parametrize("seed", SEEDS)
def test_benign_is_wider_than_tall_and_malignant_taller_than_wide(seed):
    tall, wide = extent(made("benign", seed).mask)
    assert 0.45 < tall / wide < 0.8
    tall, wide = extent(made("malignant", seed).mask)
    assert tall > wide


def test_benign_outline_is_smooth_and_malignant_is_not():
    benign = [solidity(made("benign", seed).mask) for seed in SEEDS]
    malignant = [solidity(made("malignant", seed).mask) for seed in SEEDS]
    assert min(benign) > 0.9
    assert np.mean(malignant) < 0.85
    assert np.mean(np.greater.outer(benign, malignant)) > 0.98


@pytest.mark.parametrize("seed", SEEDS)
def test_normal_has_no_lesion(seed):
    assert not made("normal", seed).mask.any()


def test_normal_has_fewer_dark_lumps_than_any_lesion_class():
    def darkest_lump(made_phantom):
        smooth = ndimage.uniform_filter(made_phantom.image.astype(float), (14, 22))[67:101]  # in every gland
        return (np.median(smooth, axis=1, keepdims=True) - smooth).max()

    lumps = {label: [darkest_lump(made(label, seed)) for seed in SEEDS] for label in CLASSES}
    assert np.mean(np.less.outer(lumps["normal"], lumps["benign"])) > 0.85
    assert max(lumps["normal"]) < min(lumps["malignant"])


@pytest.mark.parametrize("label", ["benign", "malignant"])
@pytest.mark.parametrize("seed", SEEDS)
def test_mask_traces_a_margin_that_can_be_seen(label, seed):
    image, mask = made(label, seed).image, made(label, seed).mask > 0
    inside = image[ndimage.binary_erosion(mask, iterations=2)].mean()
    ring = ndimage.binary_dilation(mask, iterations=8) & ~ndimage.binary_dilation(mask, iterations=2)
    assert inside < image[ring].mean() - 25


def test_sound_is_enhanced_behind_benign_and_shadowed_behind_malignant():
    assert np.mean([behind_against_beside(made("benign", seed)) for seed in SEEDS]) > 8
    assert np.mean([behind_against_beside(made("malignant", seed)) for seed in SEEDS]) < -8


def homogeneous(looks=1, lateral=2.0, seed=0):
    amplitude = np.full((300, 300), 0.5, np.float32)
    rng = np.random.default_rng(seed)
    return envelope(amplitude, np.zeros_like(amplitude), rng, axial=1.3, lateral=lateral, looks=looks)


def test_speckle_is_rayleigh():
    values = homogeneous()
    assert values.mean() / values.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.03)  # 1.91
    assert np.sqrt(np.mean(values**2)) == pytest.approx(0.5, rel=0.03)
    # The share above t is exp(-t^2 / mean square).
    assert np.mean(values > 0.75) == pytest.approx(np.exp(-2.25), rel=0.1)


def test_looks_average_speckle_away():
    values = homogeneous(looks=4)
    assert values.mean() / values.std() == pytest.approx(2 * 1.91, rel=0.06)
    assert values.mean() == pytest.approx(0.5 * np.sqrt(np.pi) / 2, rel=0.03)


def test_speckle_is_as_wide_as_the_lateral_width_of_its_depth():
    widths = np.linspace(1.5, 5, 300, dtype=np.float32)[:, None]
    intensity = homogeneous(lateral=widths) ** 2
    intensity -= intensity.mean()

    def neighbours(rows):
        return np.mean(rows[:, 3:] * rows[:, :-3]) / np.mean(rows**2)

    # For circular Gaussian echoes the correlation of intensities is exp(-d^2 / (2 sigma^2)).
    assert neighbours(intensity[:60]) == pytest.approx(np.exp(-9 / (2 * 1.85**2)), abs=0.08)
    assert neighbours(intensity[-60:]) == pytest.approx(np.exp(-9 / (2 * 4.65**2)), abs=0.08)


def test_interface_is_brighter_than_speckle():
    amplitude, line = np.full((64, 64), 0.1, np.float32), np.zeros((64, 64), np.float32)
    line[30] = 1
    values = envelope(amplitude, line, np.random.default_rng(0), axial=1.3, lateral=2.0)
    assert values.mean(axis=1).argmax() == 30
    assert values[30].min() > 3 * values[:20].mean()


def test_log_compression_spans_the_dynamic_range():
    values = np.float32([0, 1e-3, 1e-2, 1, 5])
    np.testing.assert_array_equal(log_compress(values, dynamic_range=60), [0, 0, 85, 255, 255])


def test_sample_study_has_one_of_each_lesion_class():
    study = sample_study()
    assert [p.label for p in study] == ["benign", "malignant", "normal"]
    assert [int(p.mask.max()) for p in study] == [1, 1, 0]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="'cyst'"):
        phantom("cyst", seed=0)
    with pytest.raises(ValueError, match="-1"):
        phantom("benign", seed=-1)
    with pytest.raises(ValueError, match=r"\(63, 200\)"):
        phantom("benign", seed=0, shape=(63, 200))
