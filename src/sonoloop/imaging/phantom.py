"""Simulated B-mode breast ultrasound with a known lesion: for demonstrations, tests and pretraining."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from sonoloop.values import CLASSES, ClassName

Array = NDArray[np.float32]


_MIN_SIDE = 64
_NOISE_DB = -62.0  # against gland at the skin


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Phantom:
    """A simulated image, uint8 (H, W), the mask of its lesion, uint8 (H, W) of 0 and 1, and its class."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    label: ClassName


def phantom(label: ClassName, *, seed: int, shape: tuple[int, int] = (448, 560)) -> Phantom:
    """Simulate one image.

    Layered tissue is drawn at random, a lesion put into its gland, and both imaged: speckle of random
    scatterers through a point-spread function that widens away from the focus (see
    `sonoloop.imaging.phantom.envelope`), attenuation along the beam with a time-gain compensation that knows
    only the average tissue, electronic noise, and log compression to 50 to 60 dB. The lesions have the signs
    of the BI-RADS lexicon (American College of Radiology): shape, orientation, margin, echo pattern and
    posterior features. The same label, seed and shape (height and width, at least 64) give the same image.
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


SKIN, FAT, GLAND, DEEP_FAT, MUSCLE, CHEST = range(6)
_ECHO_DB = np.array([2, -11, 0, -9, -8, -22], np.float32)  # against gland
_ATTENUATION_DB = np.array([20, 14, 24, 14, 26, 50], np.float32)  # over the image's height
_INTERFACE = (1.2, 0.5, 0.2, 0.3, 0.4), (2.5, 1.8, 1.0, 1.2, 2.0)  # weakest and strongest, by layer


@dataclass(slots=True, kw_only=True)
class Tissue:
    """What the sound meets, pixel by pixel, float32 (H, W)."""

    # echogenicity in dB against gland
    echo: Array
    # amplitude of the interfaces against the scatterers of gland
    specular: Array
    # loss in dB over one pixel of depth, there and back
    attenuation: Array
    # mean depth of the gland's upper and lower boundary in pixels
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


_ANGLES = 720


def add_benign(rng: np.random.Generator, tissue: Tissue) -> NDArray[np.bool_]:
    """Put an oval, wider than tall, smooth and homogeneous lesion with a thin capsule into the tissue.

    It attenuates less than its surroundings, so what lies behind it is brighter, and refracts at its sides,
    which leaves a thin shadow below each. The tissue is changed in place; gives the lesion, bool (H, W).
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
    shadow lies behind it. The tissue is changed in place; gives the lesion, bool (H, W).
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


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, int], sigma: tuple[float | Array, float | Array]
) -> Array:
    """Draw Gaussian noise of unit variance, smoothed by `sigma` pixels along depth and width."""
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
    baseband, of standard deviations `axial` and `lateral` in pixels; each depth may have its own lateral
    width (H, 1), applied exactly to the scatterers of that depth.

    `amplitude` is the root mean square of the scatterers' echo, `specular` the in-phase echo of the
    interfaces, both float32 (H, W). So many `looks`, envelopes of independent speckle, are averaged, as
    spatial compounding does; with one the mean square of the result is that of a homogeneous `amplitude`.
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
