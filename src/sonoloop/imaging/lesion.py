"""Benign and malignant lesions: their outline, their echoes, and what they do to the sound behind them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sonoloop.imaging.speckle import Array, smooth_field
from sonoloop.imaging.tissue import Tissue

_ANGLES = 720


def add_benign(rng: np.random.Generator, tissue: Tissue) -> NDArray[np.bool_]:
    """Put an oval, wider than tall, smooth and homogeneous lesion with a thin capsule into the tissue.

    It attenuates less than its surroundings, so what lies behind it is brighter, and refracts at its sides,
    which leaves a thin shadow below each. The tissue is changed in place.

    Returns
    -------
    numpy.ndarray
        The lesion, bool (H, W).
    """
    height, width = tissue.echo.shape
    wide = min(rng.uniform(0.09, 0.25) * width, 0.5 * height)
    radius = 1 + _harmonics(rng, (2, 3, 4), 0.05)
    mask = _place(rng, tissue, radius, (wide * rng.uniform(0.5, 0.75), wide))
    inner, outer = _distances(mask)
    unit = height / 448

    cyst = rng.random() < 0.3
    contrast = rng.uniform(24, 32) if cyst else rng.uniform(11, 17)
    inside: Array = ndimage.gaussian_filter(mask.astype(np.float32), 0.8 * unit)
    surrounding = _surrounding(tissue, mask, outer, 0.3 * wide)
    texture = 0.7 * smooth_field(rng, mask.shape, (4 * unit, 6 * unit))
    tissue.echo += inside * (surrounding - contrast + texture - tissue.echo)
    tissue.specular *= 1 - inside

    across, along = _normals(mask, 2 * unit + 0.5)
    edge = np.exp(-0.5 * ((inner + outer - 1) / (0.5 * unit + 0.3)) ** 2)
    uneven = np.clip(0.6 + 0.5 * smooth_field(rng, mask.shape, (3 * unit, 7 * unit)), 0, 2)
    tissue.specular += edge * uneven * along**2 * rng.uniform(0.15, 0.7)
    gain = rng.uniform(4, 9)  # dB behind the middle
    tissue.attenuation -= mask * np.float32(gain / _tall(mask))
    rim = (outer < 3 * unit + 1) & (inner < 3 * unit + 1)
    tissue.attenuation += (rim * across**8 * rng.uniform(0.1, 0.3) / unit).astype(np.float32)
    return mask


def add_malignant(rng: np.random.Generator, tissue: Tissue) -> NDArray[np.bool_]:
    """Put a spiculated, taller than wide, uneven and markedly dark lesion into the tissue.

    It has an echogenic halo, sometimes microcalcifications, and attenuates more than its surroundings, so a
    shadow lies behind it. The tissue is changed in place.

    Returns
    -------
    numpy.ndarray
        The lesion, bool (H, W).
    """
    height, width = tissue.echo.shape
    aspect = rng.uniform(1.12, 1.5)
    wide = min(rng.uniform(0.10, 0.25) * width, 0.42 * height / aspect)
    tall = aspect * wide
    radius = 1 + _harmonics(rng, (2, 3, 4, 5, 6, 7), 0.12) + _spicules(rng)
    mask = _place(rng, tissue, radius, (tall, wide))
    inner, outer = _distances(mask)
    unit = height / 448

    inside: Array = ndimage.gaussian_filter(mask.astype(np.float32), 2.4 * unit)
    surrounding = _surrounding(tissue, mask, outer, 0.3 * wide)
    texture = smooth_field(rng, mask.shape, (7 * unit, 8 * unit))
    halo = np.exp(-outer / (rng.uniform(0.08, 0.16) * wide)) * (1 - inside)
    tissue.echo += halo * (rng.uniform(4, 8) + 2.0 * texture)
    dark = surrounding - rng.uniform(13, 21) + rng.uniform(1.5, 3.0) * texture
    tissue.echo += inside * (dark - tissue.echo)
    tissue.specular *= 1 - inside
    if rng.random() < 0.5:
        depths, columns = np.nonzero(inner > 3 * unit)
        if depths.size:
            picked = rng.integers(depths.size, size=rng.integers(4, 12))
            tissue.specular[depths[picked], columns[picked]] += rng.uniform(0.8, 2.5, picked.size)
    tissue.attenuation += mask * np.float32(rng.uniform(9, 18) / _tall(mask))
    return mask


def _harmonics(rng: np.random.Generator, orders: tuple[int, ...], size: float) -> Array:
    angle = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    order = np.array(orders)[:, None]
    height = rng.normal(0, size, order.shape) * 2 / order
    waves = height * np.cos(order * angle + rng.uniform(0, 2 * np.pi, order.shape))
    outline: Array = waves.sum(axis=0).astype(np.float32)
    return outline


def _spicules(rng: np.random.Generator) -> Array:
    angle = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    count = int(rng.integers(6, 12))
    centres = (np.arange(count) + rng.uniform(-0.35, 0.35, count)) * 2 * np.pi / count
    apart = np.abs((angle - centres[:, None] + np.pi) % (2 * np.pi) - np.pi)
    width, length = rng.uniform(0.06, 0.3, (count, 1)), rng.uniform(0.05, 0.55, (count, 1))
    outline: Array = (length * np.exp(-apart / width)).sum(axis=0).astype(np.float32)
    return outline


def _place(
    rng: np.random.Generator, tissue: Tissue, radius: Array, size: tuple[float, float]
) -> NDArray[np.bool_]:
    """Scale a polar outline to `size` (height, width), and fill it somewhere in the gland."""
    height, width = tissue.echo.shape
    angle = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    scale_y, scale_x = size[0] / np.ptp(y), size[1] / np.ptp(x)
    top, bottom = tissue.gland
    free = max(bottom - top - size[0], 0.0)
    start_y = (top + bottom - size[0] - free) / 2 + rng.uniform(0.1, 0.8) * free
    start_y = float(np.clip(start_y, 0.1 * height, 0.9 * height - size[0]))
    start_x = rng.uniform(0.06 * width, 0.94 * width - size[1])
    v = (np.arange(height)[:, None] - start_y) / scale_y + y.min()
    u = (np.arange(width)[None] - start_x) / scale_x + x.min()
    turn = np.arctan2(v, u) % (2 * np.pi)
    reach = np.interp(turn, np.append(angle, 2 * np.pi), np.append(radius, radius[0]))
    parts, count = ndimage.label(np.hypot(u, v) < reach, structure=np.ones((3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    mask: NDArray[np.bool_] = parts == 1 + np.argmax(sizes[1:])
    return mask


def _distances(mask: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Distance in pixels to the margin, from inside and from outside; zero on the other side."""
    inner = ndimage.distance_transform_edt(mask)
    outer = ndimage.distance_transform_edt(~mask)
    return inner.astype(np.float32), outer.astype(np.float32)


def _normals(mask: NDArray[np.bool_], sigma: float) -> tuple[Array, Array]:
    """Size of the margin's unit normal across and along the beam."""
    smooth = mask.astype(np.float32)
    along: Array = ndimage.gaussian_filter(smooth, sigma, order=(1, 0))
    across: Array = ndimage.gaussian_filter(smooth, sigma, order=(0, 1))
    length: Array = np.hypot(along, across) + np.float32(1e-6)
    across /= length
    along /= length
    return np.abs(across), np.abs(along)


def _surrounding(tissue: Tissue, mask: NDArray[np.bool_], outer: Array, reach: float) -> float:
    ring = (outer > 0) & (outer < max(reach, 3.0))
    return float(tissue.echo[ring].mean())


def _tall(mask: NDArray[np.bool_]) -> int:
    return int(mask.any(axis=1).sum())
