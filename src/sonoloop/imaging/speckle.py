"""From tissue to grey levels: scatterers, the point-spread function, the envelope and its compression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Array = NDArray[np.float32]


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, int], sigma: tuple[float | Array, float | Array]
) -> Array:
    """Draw Gaussian noise of unit variance, correlated over `sigma` pixels along depth and width.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the noise comes from.
    shape : tuple of int
        Depth and width in pixels.
    sigma : tuple of float
        Standard deviation of the smoothing kernel in pixels along depth and width.
    """
    noise = rng.standard_normal(shape, dtype=np.float32)
    return _blur(_blur(noise.astype(np.complex64), sigma[0], axis=0), sigma[1], axis=1).real


def envelope(
    amplitude: Array,
    specular: Array,
    rng: np.random.Generator,
    *,
    axial: float,
    lateral: float | Array,
    looks: int = 1,
) -> Array:
    """Image scatterers and interfaces with a pulse-echo point-spread function and detect the envelope.

    The echo is the convolution of random point scatterers with the point-spread function (Bamber and
    Dickinson 1980). There is one complex Gaussian scatterer a pixel, so the envelope of a homogeneous
    region is Rayleigh-distributed: fully developed speckle, of mean over standard deviation 1.91 (Wagner
    et al. 1983). Interfaces echo in phase and add to it. The point-spread function is a Gaussian at
    baseband; each depth has its own lateral width, applied exactly to the scatterers of that depth.

    Parameters
    ----------
    amplitude : numpy.ndarray
        Root mean square echo amplitude of the scatterers, float32 (H, W), not negative.
    specular : numpy.ndarray
        In-phase echo amplitude of the interfaces, float32 (H, W).
    rng : numpy.random.Generator
        Where the scatterers come from.
    axial : float
        Standard deviation of the point-spread function along depth, in pixels.
    lateral : float or numpy.ndarray
        The same along width; one value, or one a row, shape (H, 1).
    looks : int
        Envelopes of independent speckle that are averaged, as spatial compounding does.

    Returns
    -------
    numpy.ndarray
        The envelope, float32 (H, W); with one look its mean square is `amplitude` squared where
        that is homogeneous.
    """
    margin = int(np.ceil(3 * np.max(lateral))) + 1
    deep = int(np.ceil(3 * axial)) + 1
    # The filters are periodic: what they wrap around lands in the margins, which are cut off.
    pad = ((deep, deep), (margin, margin))
    amplitude = np.pad(amplitude, pad, mode="edge")
    lateral = np.pad(
        np.broadcast_to(np.float32(lateral), (specular.shape[0], 1)), (pad[0], (0, 0)), mode="edge"
    )
    interfaces = np.pad(specular, pad)
    total = np.zeros_like(amplitude)
    for _ in range(looks):
        scatterers = rng.standard_normal((*amplitude.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
        echo = amplitude * scatterers * np.float32(np.sqrt(0.5)) + interfaces
        total += np.abs(_blur(_blur(echo, lateral, axis=1), axial, axis=0))
    return total[deep:-deep, margin:-margin] / np.float32(looks)


def from_decibels(decibels: Array | float) -> Array:
    """Amplitude ratio of a level in dB."""
    ratio: Array = np.exp(np.asarray(decibels, np.float32) * np.float32(np.log(10) / 20))
    return ratio


def log_compress(values: Array, *, dynamic_range: float) -> NDArray[np.uint8]:
    """Map an envelope to grey levels: 1 is white, `dynamic_range` dB below it and less is black."""
    decibels = 20 * np.log10(np.maximum(values, 1e-6))
    grey = np.rint(255 * (1 + decibels / dynamic_range))
    return np.clip(grey, 0, 255).astype(np.uint8)


def _blur(values: NDArray[np.complex64], sigma: float | Array, *, axis: int) -> NDArray[np.complex64]:
    """Filter with a Gaussian of unit energy, so that white noise keeps its variance."""
    frequency = fft.fftfreq(values.shape[axis]).astype(np.float32)
    frequency = frequency[:, None] if axis == 0 else frequency[None]
    transfer = np.exp(-2 * (np.pi * np.float32(sigma) * frequency) ** 2)
    transfer /= np.sqrt(np.mean(transfer**2, axis=axis, keepdims=True))
    blurred: NDArray[np.complex64] = fft.ifft(fft.fft(values, axis=axis) * transfer, axis=axis)
    return blurred
