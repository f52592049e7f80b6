"""Simulated B-mode breast ultrasound with a known lesion: for demonstrations, tests and pretraining."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sonoloop.imaging.lesion import add_benign, add_malignant
from sonoloop.imaging.speckle import Array, envelope, from_decibels, log_compress, smooth_field
from sonoloop.imaging.tissue import Tissue, breast
from sonoloop.values import CLASSES, ClassName

_MIN_SIDE = 64
_NOISE_DB = -62.0  # against gland at the skin


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Phantom:
    """A simulated image and its truth.

    Parameters
    ----------
    image : numpy.ndarray
        Grey levels, uint8 (H, W).
    mask : numpy.ndarray
        uint8 (H, W): 0 background, 1 the lesion; all zero where there is none.
    label : str
        Its class, one of `sonoloop.values.CLASSES`.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    label: ClassName


def phantom(label: ClassName, *, seed: int, shape: tuple[int, int] = (448, 560)) -> Phantom:
    """Simulate one image.

    Layered tissue is drawn at random, a lesion put into its gland, and both imaged: speckle of random
    scatterers through a point-spread function that widens away from the focus (see
    `sonoloop.imaging.speckle.envelope`), attenuation along the beam with a time-gain compensation that knows
    only the average tissue, electronic noise, and log compression to 50 to 60 dB. The lesions have the signs
    of the BI-RADS lexicon (American College of Radiology): shape, orientation, margin, echo pattern and
    posterior features.

    Parameters
    ----------
    label : str
        Which class to simulate, one of `sonoloop.values.CLASSES`.
    seed : int
        Not negative; the same label, seed and shape give the same image.
    shape : tuple of int
        Height and width in pixels, each at least 64.

    Returns
    -------
    Phantom
        The image, the lesion's mask and the class.

    Raises
    ------
    ValueError
        If the label is none of the classes, the seed negative or a side shorter than 64 pixels.
    """
    if label not in CLASSES:
        raise ValueError(f"label must be one of {', '.join(CLASSES)}, got {label!r}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    if min(shape) < _MIN_SIDE:
        raise ValueError(f"both sides of shape must be at least {_MIN_SIDE} pixels, got {shape}")
    rng = np.random.default_rng((seed, CLASSES.index(label)))
    tissue = breast(rng, shape)
    mask = np.zeros(shape, bool)
    if label == "benign":
        mask = add_benign(rng, tissue)
    elif label == "malignant":
        mask = add_malignant(rng, tissue)
    return Phantom(image=_scan(rng, tissue), mask=mask.astype(np.uint8), label=label)


def sample_study() -> tuple[Phantom, Phantom, Phantom]:
    """Give one benign, one malignant and one normal phantom, always the same."""
    return phantom("benign", seed=2), phantom("malignant", seed=21), phantom("normal", seed=1)


def _scan(rng: np.random.Generator, tissue: Tissue) -> NDArray[np.uint8]:
    height, width = tissue.echo.shape
    unit = height / 448
    cell = max(unit, 0.6)  # in a small image speckle would shrink below a pixel
    depth = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    focus, spread = rng.uniform(0.3, 0.55), rng.uniform(1.5, 3.0)
    widening = np.sqrt(1 + (spread * (depth - focus)) ** 2)
    signal = envelope(
        from_decibels(tissue.echo),
        tissue.specular,
        rng,
        axial=cell * rng.uniform(1.1, 1.5),
        lateral=(cell * rng.uniform(1.7, 2.5) * widening).astype(np.float32),
        looks=int(rng.integers(3, 6)),
    )
    noise = np.abs(smooth_field(rng, (height, width), (unit, 1.5 * unit))) * from_decibels(_NOISE_DB)

    loss = np.cumsum(tissue.attenuation, axis=0)
    # Shadows blur on their way down: the beam is wide, and compounding looks from several sides.
    sharp: Array = ndimage.gaussian_filter1d(loss, 3 * unit, axis=1)
    soft: Array = ndimage.gaussian_filter1d(loss, 14 * unit, axis=1)
    loss = sharp + depth * (soft - sharp)
    compensation = rng.uniform(0.65, 0.95) * np.median(loss, axis=1, keepdims=True)
    received = signal * from_decibels(-(loss + _contact(rng, width))) + noise
    shown = received * from_decibels(compensation - rng.uniform(22, 32))
    return log_compress(shown, dynamic_range=rng.uniform(50, 60))


def _contact(rng: np.random.Generator, width: int) -> Array:
    """Loss in dB of each column, shape (1, W): uneven contact with the skin, and a weak beam at both ends."""
    uneven = smooth_field(rng, (1, 2 * width), (0.0, 0.06 * width))[:, :width]
    ends = np.abs(np.linspace(-1, 1, width, dtype=np.float32)) ** 6
    return (rng.uniform(0.3, 1.2) * uneven + rng.uniform(0, 5) * ends).astype(np.float32)
