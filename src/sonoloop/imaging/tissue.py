"""A random breast in cross-section: skin, fat, gland, muscle, and how each echoes and attenuates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sonoloop.imaging.speckle import Array, smooth_field

SKIN, FAT, GLAND, DEEP_FAT, MUSCLE, CHEST = range(6)
_ECHO_DB = np.array([2, -11, 0, -9, -8, -22], np.float32)  # against gland
_ATTENUATION_DB = np.array([20, 14, 24, 14, 26, 50], np.float32)  # over the image's height
_INTERFACE = (1.2, 0.5, 0.2, 0.3, 0.4), (2.5, 1.8, 1.0, 1.2, 2.0)  # weakest and strongest, by layer


@dataclass(slots=True, kw_only=True)
class Tissue:
    """What the sound meets, pixel by pixel.

    Parameters
    ----------
    echo : numpy.ndarray
        Echogenicity in dB against gland, float32 (H, W).
    specular : numpy.ndarray
        Amplitude of the interfaces against the scatterers of gland, float32 (H, W).
    attenuation : numpy.ndarray
        Loss in dB over one pixel of depth, there and back, float32 (H, W).
    gland : tuple of float
        Mean depth of the gland's upper and lower boundary in pixels.
    """

    echo: Array
    specular: Array
    attenuation: Array
    gland: tuple[float, float]


def breast(rng: np.random.Generator, shape: tuple[int, int]) -> Tissue:
    """Draw layers with wavy boundaries and fill them with their textures."""
    height, width = shape
    unit = height / 448
    thickness = rng.uniform((0.035, 0.08, 0.36, 0.03, 0.12), (0.055, 0.20, 0.52, 0.09, 0.22)) * height
    waviness = np.array((0.003, 0.02, 0.02, 0.012, 0.012)) * height * rng.uniform(0.6, 1.4)
    depths = np.cumsum(thickness)
    slope = rng.normal(0, 0.05) * np.linspace(-0.5, 0.5, width) * width
    shared = _wave(rng, width, 0.2) * rng.uniform(0.005, 0.035) * height
    tilt = np.minimum(depths / depths[2], 1.0)[:, None] * (slope + shared)
    detail = np.stack([_wave(rng, width, 0.07) for _ in depths]) * waviness[:, None]
    boundaries = np.maximum.accumulate(depths[:, None] + tilt + detail, axis=0).astype(np.float32)

    rows = np.arange(height, dtype=np.float32)[:, None]
    layer = (rows[None] >= boundaries[:, None]).sum(axis=0)
    # Fibres run along the layers: textures are drawn flat and bent by the tilt.
    bend = np.rint(slope + shared).astype(np.intp)
    along = (np.arange(height)[:, None] - bend) % height, np.arange(width)[None]

    def texture(depth: float, across: float) -> Array:
        flat: Array = smooth_field(rng, shape, (depth * unit, across * unit))[along]
        return flat

    regional, coarse, strand = texture(60, 120), texture(14, 44), texture(4.5, 24)
    fine, fibre = texture(2.2, 9), texture(2.2, 45)
    gland, muscle, fat = layer == GLAND, layer == MUSCLE, np.isin(layer, (FAT, DEEP_FAT))
    echo = _ECHO_DB[layer] + 1.5 * regional + 0.8 * coarse + fine
    echo += gland * (rng.uniform(1, 2.5) * coarse + rng.uniform(1.5, 3) * strand + 1.5 * fine)
    # Ducts and fat between the lobules: thin and flat, so that no normal breast shows a dark lump.
    echo -= gland * rng.uniform(2, 8) * _ridge(texture(6, 40), 2.5 * unit)[0] * np.clip(coarse, 0, 1)
    echo += fat * (1.2 * coarse + 1.2 * strand + fine)
    echo += muscle * (3.5 * fibre + 1.5 * strand) + (layer == CHEST) * 2.0 * fibre

    specular = np.zeros(shape, np.float32)
    for where, walls, bright in (
        (fat, texture(12, 38), rng.uniform(0.3, 0.9)),
        (gland, texture(7, 50), rng.uniform(0.5, 1.6)),
        (gland, texture(4, 22), rng.uniform(0.3, 1.0)),
        (muscle, texture(5, 90), rng.uniform(0.6, 1.4)),
    ):
        ridge, square = _ridge(walls, 0.8 * unit)
        specular += where * bright * ridge * square * np.clip(0.3 + 0.8 * coarse + 0.7 * strand, 0, 2)
    for boundary, bright in zip(boundaries, rng.uniform(_INTERFACE[0], _INTERFACE[1]), strict=True):
        specular += _interface(rng, rows, boundary, bright, unit)
    specular += _interface(rng, rows, np.full(width, 2 * unit, np.float32), 4, unit)
    specular *= np.clip(0.7 + 0.5 * fine + 0.4 * texture(1, 4), 0.1, 2)

    attenuation = _ATTENUATION_DB[layer] / np.float32(height)
    return Tissue(
        echo=echo.astype(np.float32),
        specular=specular.astype(np.float32),
        attenuation=attenuation,
        gland=(float(boundaries[FAT].mean()), float(boundaries[GLAND].mean())),
    )


def _wave(rng: np.random.Generator, width: int, scale: float) -> Array:
    """Draw a smooth curve over the width, of unit variance; `scale` is a share of the width."""
    doubled = smooth_field(rng, (1, 2 * width), (0.0, scale * width))
    curve: Array = doubled[0, :width]
    return curve


def _ridge(field: Array, thick: float) -> tuple[Array, Array]:
    """Zero crossings of a field as thin lines, and how square to the beam each lies, both in [0, 1]."""
    along, across = np.gradient(field)
    steep = np.hypot(along, across) + np.float32(1e-6)
    ridge: Array = np.exp(-0.5 * (field / steep / max(thick, 0.5)) ** 2)
    square: Array = (along / steep) ** 2
    return ridge, square


def _interface(rng: np.random.Generator, rows: Array, depth: Array, bright: float, unit: float) -> Array:
    """Draw a line at each column's `depth`, brightest where it lies square to the beam."""
    square = np.exp(-((np.gradient(depth) / 0.35) ** 2))
    uneven = np.clip(0.8 + 0.5 * _wave(rng, depth.size, 0.05) + 0.4 * _wave(rng, depth.size, 0.012), 0, 2.5)
    thick = max(0.9 * unit, 0.5)
    line: Array = bright * square * uneven * np.exp(-0.5 * ((rows - depth) / thick) ** 2)
    return line
