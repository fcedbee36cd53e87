"""Changing a picture's intensities: exposure, noise, blur, and the artefacts of each modality.

Every function takes `(C, H, W)` float32 in [0, 1], its one value and a seed for whatever else it
draws, and may leave [0, 1]: `apply_photometric` clips. None reduces the number of grey levels,
except "posterise", which is that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from medtl.errors import MedtlError
from medtl.preprocess import intensity
from medtl.preprocess.albu import ALBUMENTATIONS, apply_albumentations
from medtl.preprocess.warp import smooth_field

Unit = NDArray[np.float32]

HED_FROM_RGB = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])
"""Absorption of haematoxylin, eosin and DAB (rows) in red, green and blue (Ruifrok 2001)."""

JPEG_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
"""Quantisation of 8 x 8 DCT coefficients at quality 50 (ITU-T T.81, table K.1)."""


def _contrast(unit: Unit, factor: float, _: int) -> Unit:
    mean = unit.mean(dtype=np.float64)
    return (unit - np.float32(mean)) * np.float32(factor) + np.float32(mean)


def _blur(unit: Unit, sigma_px: float, _: int) -> Unit:
    import cv2

    planes: list[Unit] = [cv2.GaussianBlur(plane, (0, 0), sigma_px) for plane in unit]
    return np.stack(planes)


def _noise(unit: Unit, sigma: float, seed: int) -> Unit:
    return unit + np.float32(sigma) * _normal(seed, unit.shape)


def _rician_noise(unit: Unit, sigma: float, seed: int) -> Unit:
    real, imaginary = np.float32(sigma) * _normal(seed, (2, *unit.shape))
    return np.asarray(np.hypot(unit + real, imaginary))


def _speckle(unit: Unit, sigma: float, seed: int) -> Unit:
    return unit * (1 + np.float32(sigma) * _normal(seed, unit.shape))


def _bias_field(unit: Unit, strength: float, seed: int) -> Unit:
    nodes = np.random.default_rng(seed).uniform(-strength, strength, (4, 4)).astype(np.float32)
    return unit * np.exp(smooth_field(nodes, unit.shape[-2:]))


def _motion(unit: Unit, shift: float, seed: int) -> Unit:
    """The patient moves along the rows soon after the centre of k-space is read."""
    rows = unit.shape[-2]
    moved_from = int(rows * np.random.default_rng(seed).uniform(0.51, 0.6))
    k_space = np.fft.fftshift(np.fft.fft2(unit), axes=-2)
    frequency = np.arange(rows) - rows // 2
    phase = np.exp(-2j * np.pi * frequency[moved_from:] * shift)
    k_space[..., moved_from:, :] *= phase[:, None]
    return np.abs(np.fft.ifft2(np.fft.ifftshift(k_space, axes=-2))).astype(np.float32)


def _gibbs(unit: Unit, kept: float, _: int) -> Unit:
    """Keep the low frequencies of both axes: edges ring."""
    k_space = np.fft.fft2(unit)
    for axis in (-2, -1):
        length = unit.shape[axis]
        shape = (-1, 1) if axis == -2 else (-1,)
        k_space *= (np.abs(np.fft.fftfreq(length)) <= kept / 2).reshape(shape)
    return np.fft.ifft2(k_space).real.astype(np.float32)


def _compression(unit: Unit, quality: float, _: int) -> Unit:
    """JPEG's loss, the rounding of 8 x 8 DCT coefficients, without its 256 grey levels."""
    percent = 5000 / quality if quality < 50 else 200 - 2 * quality
    steps = np.maximum(JPEG_LUMINANCE * percent / 100, 1) / 255
    k = np.arange(8)
    basis = (
        np.cos(np.pi * (2 * k + 1) * k[:, None] / 16)
        * np.where(k == 0, 0.125, 0.25)[:, None] ** 0.5
    )
    channels, rows, columns = unit.shape
    padding = ((0, 0), (0, -rows % 8), (0, -columns % 8))
    padded = np.pad(unit, padding, mode="edge")
    blocks = padded.reshape(channels, padded.shape[1] // 8, 8, -1, 8).swapaxes(2, 3)
    coefficients = np.rint(basis @ blocks @ basis.T / steps) * steps
    result = (basis.T @ coefficients @ basis).swapaxes(2, 3).reshape(padded.shape)
    return result[:, :rows, :columns].astype(np.float32)


def _low_resolution(unit: Unit, factor: float, _: int) -> Unit:
    import cv2

    rows, columns = unit.shape[-2:]
    small = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    planes = [cv2.resize(plane, small, interpolation=cv2.INTER_AREA) for plane in unit]
    enlarged: list[Unit] = [cv2.resize(plane, (columns, rows)) for plane in planes]
    return np.stack(enlarged)


def _pca_colour(unit: Unit, strength: float, seed: int) -> Unit:
    """Shift along the image's own colour axes, by fractions of its spread (Krizhevsky 2012)."""
    spread, axes = np.linalg.eigh(np.cov(unit.reshape(3, -1)))
    draw = np.random.default_rng(seed).uniform(-strength, strength, 3)
    shift = axes @ (draw * np.sqrt(np.maximum(spread, 0)))
    return np.asarray(unit + shift.astype(np.float32)[:, None, None])


def _stain(unit: Unit, strength: float, seed: int) -> Unit:
    """Vary the amount of each stain by a factor of 1 +- strength (Tellez et al. 2018)."""
    density = -np.log(np.clip(unit, 1e-3, 1))
    factors = 1 + np.random.default_rng(seed).uniform(-strength, strength, 3)
    stains = HED_FROM_RGB / np.linalg.norm(HED_FROM_RGB, axis=1, keepdims=True)
    change = stains.T @ np.diag(factors) @ np.linalg.inv(stains.T)
    return np.exp(-np.tensordot(change, density, 1)).astype(np.float32)


def _posterise(unit: Unit, levels: float, _: int) -> Unit:
    steps = max(int(levels), 2) - 1
    return (np.rint(unit * steps) / steps).astype(np.float32)


def _normal(seed: int, shape: tuple[int, ...]) -> Unit:
    """Standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


PHOTOMETRIC: dict[str, Callable[[Unit, float, int], Unit]] = {
    "brightness": lambda unit, shift, _: unit + np.float32(shift),
    "contrast": _contrast,
    "gamma": lambda unit, exponent, _: np.power(unit, np.float32(exponent)),
    "blur": _blur,
    "noise": _noise,
    "rician_noise": _rician_noise,
    "speckle": _speckle,
    "bias_field": _bias_field,
    "motion": _motion,
    "gibbs": _gibbs,
    "compression": _compression,
    "low_resolution": _low_resolution,
    "pca_colour": _pca_colour,
    "stain": _stain,
    "clahe": lambda unit, clip_limit, _: intensity.clahe(unit, clip_limit),
    "equalise": lambda unit, _, __: intensity.clahe(unit, intensity.CLAHE_BINS, 1),
    "invert": lambda unit, _, __: 1 - unit,
    "solarise": lambda unit, threshold, _: np.where(unit > threshold, 1 - unit, unit),
    "posterise": _posterise,
    **{name: partial(apply_albumentations, name) for name in ALBUMENTATIONS},
}
"""Name in the safety table -> function of (image, value, seed)."""

COLOUR = frozenset({"hue", "saturation", "pca_colour", "stain"})
"""Transforms that mean nothing to a grey image."""


def apply_photometric(name: str, unit: Unit, value: float, seed: int) -> Unit:
    """Return the image after one photometric transform, in [0, 1].

    Args:
        name: One of `PHOTOMETRIC`.
        unit: `(C, H, W)` in [0, 1].
        value: The transform's one parameter, as in the safety table.
        seed: Of whatever else it draws.

    Raises:
        MedtlError: When a colour transform is given anything but three channels.

    >>> apply_photometric("brightness", np.array([[[0.2, 0.95]]], np.float32), 0.1, seed=0)
    array([[[0.3, 1. ]]], dtype=float32)
    >>> apply_photometric("hue", np.zeros((1, 2, 2), np.float32), 0.1, seed=0)
    Traceback (most recent call last):
    medtl.errors.MedtlError: 'hue' on an image of 1 channel(s); expected red, green and ...
    """
    if name in COLOUR and len(unit) != 3:
        raise MedtlError(
            f"{name!r} on an image of {len(unit)} channel(s)",
            expected="red, green and blue",
            fix=f"Take {name!r} out of augment.transforms",
        )
    result = PHOTOMETRIC[name](unit, value, seed)
    return np.clip(result, 0, 1).astype(np.float32, copy=False)
