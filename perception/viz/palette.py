"""Colours: of classes, of heights, and of the public SemanticKITTI label ids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.io import PointCloud

Colors = NDArray[np.uint8]

IGNORED = np.array([105, 108, 115], np.uint8)
"""The colour of points without a class."""

# Names and RGB colours of the label ids, https://github.com/PRBonn/semantic-kitti-api
# (config/semantic-kitti.yaml, which lists blue first).
SEMANTIC_KITTI: dict[int, tuple[str, tuple[int, int, int]]] = {
    0: ("unlabeled", (105, 108, 115)),
    1: ("outlier", (255, 0, 0)),
    10: ("car", (100, 150, 245)),
    11: ("bicycle", (100, 230, 245)),
    13: ("bus", (100, 80, 250)),
    15: ("motorcycle", (30, 60, 150)),
    16: ("on-rails", (0, 0, 255)),
    18: ("truck", (80, 30, 180)),
    20: ("other-vehicle", (0, 0, 255)),
    30: ("person", (255, 30, 30)),
    31: ("bicyclist", (255, 40, 200)),
    32: ("motorcyclist", (150, 30, 90)),
    40: ("road", (255, 0, 255)),
    44: ("parking", (255, 150, 255)),
    48: ("sidewalk", (75, 0, 75)),
    49: ("other-ground", (175, 0, 75)),
    50: ("building", (255, 200, 0)),
    51: ("fence", (255, 120, 50)),
    52: ("other-structure", (255, 150, 0)),
    60: ("lane-marking", (150, 255, 170)),
    70: ("vegetation", (0, 175, 0)),
    71: ("trunk", (135, 60, 0)),
    72: ("terrain", (150, 240, 80)),
    80: ("pole", (255, 240, 150)),
    81: ("traffic-sign", (255, 0, 0)),
    99: ("other-object", (50, 255, 255)),
    252: ("moving-car", (100, 150, 245)),
    253: ("moving-bicyclist", (255, 40, 200)),
    254: ("moving-person", (255, 30, 30)),
    255: ("moving-motorcyclist", (150, 30, 90)),
    256: ("moving-on-rails", (0, 0, 255)),
    257: ("moving-bus", (100, 80, 250)),
    258: ("moving-truck", (80, 30, 180)),
    259: ("moving-other-vehicle", (0, 0, 255)),
}


def class_colors(count: int) -> Colors:
    """`count` colours ``[count, 3]`` that differ, light enough for a dark ground."""
    places = np.arange(count, dtype=np.float64)
    hue = np.mod(places * 0.61803398875, 1.0)  # the golden ratio spreads hues evenly
    value = np.where(places % 3 == 1, 0.75, 1.0)
    saturation = np.where(places % 3 == 2, 0.45, 0.75)
    return np.round(255 * _hsv(hue, saturation, value)).astype(np.uint8)


def _hsv(
    hue: NDArray[np.floating], saturation: NDArray[np.floating], value: NDArray[np.floating]
) -> NDArray[np.floating]:
    steps = np.mod(hue[:, None] * 6 + np.array([0.0, 4.0, 2.0]), 6.0)
    full = np.clip(np.abs(steps - 3) - 1, 0, 1)
    return np.asarray(value[:, None] * (1 + saturation[:, None] * (full - 1)))


# Viridis (S. van der Walt, N. Smith, CC0) at nine places, its dark end lightened: it would vanish
# on a dark ground.
_VIRIDIS = np.array(
    [
        [96, 78, 168],
        [80, 100, 178],
        [60, 124, 172],
        [44, 142, 158],
        [31, 158, 137],
        [53, 183, 121],
        [109, 205, 89],
        [180, 222, 44],
        [253, 231, 37],
    ],
    dtype=np.float64,
)


def colormap(values: NDArray[np.floating]) -> Colors:
    """Viridis colours ``[N, 3]`` of values ``[N]`` in 0..1."""
    places = np.linspace(0, 1, len(_VIRIDIS))
    channels = [np.interp(values, places, _VIRIDIS[:, c]) for c in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def cloud_colors(cloud: PointCloud) -> Colors:
    """Colours ``[N, 3]`` of a cloud without labels: its own, else height lit by intensity."""
    own = [cloud.attributes.get(name) for name in ("red", "green", "blue")]
    if all(values is not None and values.any() for values in own):
        return np.stack([np.asarray(values) for values in own], axis=1).astype(np.uint8)
    if len(cloud) == 0:
        return np.zeros((0, 3), np.uint8)
    height = cloud.points[:, 2]
    low, high = np.percentile(height, [2, 97])
    colors = colormap(np.clip((height - low) / max(high - low, 1e-6), 0, 1))
    return (colors * brightness(cloud)[:, None]).astype(np.uint8)


def lifted(colors: Colors, least: int = 140) -> Colors:
    """Colours ``[N, 3]`` with a largest channel of `least` or more: a dark ground shows them."""
    top = np.maximum(colors.max(axis=1, initial=0), 1).astype(np.float64)
    return np.round(colors * np.maximum(least / top, 1.0)[:, None]).clip(0, 255).astype(np.uint8)


def brightness(cloud: PointCloud, least: float = 0.6) -> NDArray[np.float32]:
    """A factor ``[N]`` in `least`..1 by the rank of a point's intensity; 1 without intensity."""
    intensity = cloud.attributes.get("intensity")
    if intensity is None or not len(cloud):
        return np.ones(len(cloud), np.float32)
    low, high = np.percentile(intensity, [5, 95])
    share = np.clip((intensity - low) / max(float(high - low), 1e-6), 0, 1)
    return (least + (1 - least) * share).astype(np.float32)
