"""Random changes of what was measured: intensity and colour."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.datasets.sample import Sample
from perception.datasets.transforms.base import Transform

__all__ = ["Color", "Intensity"]

CHANNELS = ("red", "green", "blue")
LUMA = np.array([0.299, 0.587, 0.114])
"""Share of red, green and blue in brightness (ITU-R BT.601)."""


@dataclass(frozen=True)
class Intensity(Transform):
    """Another calibration of the sensor: ``gain * intensity ** gamma``, cut off at 0 and 1.

    gain: lower and upper bound of the factor.
    gamma: lower and upper bound of the exponent.
    missing: probability that the intensity reads zero, as in files without it.
    """

    gain: tuple[float, float] = (0.8, 1.2)
    gamma: tuple[float, float] = (0.8, 1.25)
    missing: float = 0.1

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        gain, gamma = rng.uniform(*self.gain), rng.uniform(*self.gamma)
        missing = rng.random() < self.missing
        if "intensity" not in sample.cloud.attributes:
            return sample
        values = np.asarray(sample.cloud.attributes["intensity"], np.float32)
        changed = np.zeros_like(values)
        if not missing:
            _gamma(values, np.float32(gain), np.float32(gamma), changed)
        return replace(sample, cloud=sample.cloud.with_attributes({"intensity": changed}))


@njit(cache=True, nogil=True)
def _gamma(
    values: NDArray[np.float32], gain: np.float32, gamma: np.float32, out: NDArray[np.float32]
) -> None:
    for i in range(len(values)):
        value = min(max(values[i], np.float32(0)), np.float32(1))
        out[i] = min(max(gain * value**gamma, np.float32(0)), np.float32(1))


@dataclass(frozen=True)
class Color(Transform):
    """Another light and another camera: one affine change of red, green and blue, then cut off.

    brightness: largest change of all channels, as a share of the full range.
    contrast: largest change of the distance from the mean brightness, as a share of it.
    saturation: largest change of the distance from grey, as a share of it.
    hue: largest turn about the grey axis in degrees.
    noise: standard deviation of noise on every value, as a share of the full range.
    drop: probability that the colours read black, as in files without them.
    """

    brightness: float = 0.1
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 10.0
    noise: float = 0.02
    drop: float = 0.1

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        attributes = sample.cloud.attributes
        limits = (self.brightness, self.contrast, self.saturation, self.hue)
        brightness, contrast, saturation, hue = rng.uniform(-1, 1, 4) * limits
        dropped = rng.random() < self.drop
        if any(name not in attributes for name in CHANNELS) or len(sample.cloud) == 0:
            return sample
        dtype = attributes["red"].dtype
        full = float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0
        colors = np.stack([attributes[name] for name in CHANNELS], 1).astype(np.float32)
        if dropped:
            colors[:] = 0
        else:
            matrix = _turn_about_grey(np.deg2rad(hue))
            matrix = (1 + saturation) * matrix + (1 - (1 + saturation)) * np.tile(LUMA, (3, 1))
            matrix *= 1 + contrast
            mean = float(colors.mean(axis=0) @ LUMA)
            shift = brightness * full - contrast * mean
            colors = colors @ matrix.T.astype(np.float32) + np.float32(shift)
            if self.noise > 0:
                colors += rng.standard_normal(colors.shape, np.float32) * (self.noise * full)
            colors = colors.clip(0, full)
        if dtype.kind == "u":
            colors += np.float32(0.5)
        changed = {name: colors[:, i].astype(dtype) for i, name in enumerate(CHANNELS)}
        return replace(sample, cloud=sample.cloud.with_attributes(changed))


def _turn_about_grey(angle: float) -> NDArray[np.float64]:
    """``[3, 3]``: the rotation of colours about red = green = blue (Rodrigues)."""
    axis = np.full(3, 3**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
