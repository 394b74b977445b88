"""From a point cloud to the sites and features of a network, in training and inference alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from perception.io import PointCloud
from perception.sparse import voxelize

RANGE_SCALE = 50.0
"""Metres that the feature "range" calls 1, so that inputs are of order one."""
HEIGHT_SCALE = 3.0
"""Metres that the features "z" and "height" call 1."""
MIRROR_DEPTH = 3.0
"""Metres below its surroundings at which a 4 m cell is a reflection: no street is that steep."""


@dataclass(frozen=True)
class Encoded:
    """One cloud as sparse sites.

    coords: `[M, 4] int32`, (batch = 0, x, y, z), unique, in lexicographic order.
    features: `[M, C] float32`, the mean over the points of a site.
    point_to_voxel: `[N] int64`, the row of each point's site.
    """

    coords: torch.Tensor
    features: torch.Tensor
    point_to_voxel: torch.Tensor


class Encoder:
    """Voxelizes a cloud and computes the input features of its sites.

    Args:
        voxel_size: edge of a voxel in metres.
        features: any of the names in `Encoder.CHANNELS`, in the order of the channels:

            - "intensity": the attribute of that name, 0..1;
            - "color": red, green, blue, 0..1; unsigned integers count to their largest value
              (3 channels);
            - "z": height over the sensor frame's origin, in units of 3 m;
            - "height": height over the local ground (`ground_height`), in units of 3 m: does not
              depend on where the sensor is mounted, nor on the slope of the road;
            - "range": horizontal distance from the sensor in units of 50 m;
            - "offset": position in the voxel relative to its centre, -0.5..0.5 (3 channels);
            - "one": the constant 1.

    An attribute that the cloud lacks is read as zero, with a warning: train with
    `Augment.missing_intensity` where that shall work well.

    Raises:
        ValueError: an unknown feature name, or a voxel size that is not positive.
    """

    CHANNELS: ClassVar[dict[str, int]] = {
        "intensity": 1,
        "color": 3,
        "z": 1,
        "height": 1,
        "range": 1,
        "offset": 3,
        "one": 1,
    }

    def __init__(self, voxel_size: float, features: Sequence[str]) -> None:
        unknown = [name for name in features if name not in self.CHANNELS]
        if unknown or not features:
            raise ValueError(
                f"Encoder: unknown features {unknown}; choose at least one of {list(self.CHANNELS)}"
            )
        if not voxel_size > 0:
            raise ValueError(f"Encoder: voxel_size={voxel_size} must be positive metres")
        self.voxel_size = float(voxel_size)
        self.features = tuple(features)

    @property
    def channels(self) -> int:
        """Features of a site, C."""
        return sum(self.CHANNELS[name] for name in self.features)

    def metadata(self) -> dict[str, float | list[str]]:
        """JSON values that rebuild this encoder: ``Encoder(**metadata)``."""
        return {"voxel_size": self.voxel_size, "features": list(self.features)}

    def __call__(self, cloud: PointCloud) -> Encoded:
        """Sites and features of `cloud`."""
        points = cloud.points
        columns = [
            self._attribute(cloud, name)
            if name in ("intensity", "color")
            else _GEOMETRY[name](points, self.voxel_size)
            for name in self.features
        ]
        features = torch.from_numpy(np.concatenate(columns, axis=1, dtype=np.float32))
        voxels = voxelize(torch.from_numpy(points), self.voxel_size, features=features)
        return Encoded(voxels.coords, voxels.features, voxels.point_to_voxel)

    def _attribute(self, cloud: PointCloud, name: str) -> np.ndarray:
        names = ("red", "green", "blue") if name == "color" else (name,)
        missing = [n for n in names if n not in cloud.attributes]
        if missing:
            warnings.warn(
                f"the point cloud has no {', '.join(missing)}; the network reads zeros instead",
                stacklevel=3,
            )
            return np.zeros((len(cloud.points), len(names)), np.float32)
        columns = []
        for n in names:
            values = np.asarray(cloud.attributes[n])
            full = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
            columns.append(values.astype(np.float32) / full)
        return np.nan_to_num(np.stack(columns, axis=1), copy=False)


def ground_height(points: np.ndarray, *, cell: float = 4.0, share: float = 0.05) -> np.ndarray:
    """Height of the local ground under each point, metres.

    The plane is cut into square cells. The ground of a cell is the `share` quantile of the heights in
    it, and never one of its two lowest points: reflections lie below the road. A morphological opening
    over 3 x 3 cells follows (lowest of the nine, then highest of those nine lowest), so that a cell
    that shows only a wall or the roof of a car takes the ground beside it, and a slope stays as it is.
    Cells of fewer than 8 points, and cells that lie `MIRROR_DEPTH` below the median of those around,
    have no say where others have one. Between the centres of cells the ground is interpolated.

    Args:
        points: `[N, 3] float32`, metres, z up.
        cell: edge of a cell in metres.
        share: quantile, 0..1.

    Returns:
        `[N] float32`, metres, in the frame of `points`.
    """
    if len(points) == 0:
        return np.zeros(0, np.float32)
    scaled = points[:, :2] / np.float32(cell)
    floors = np.floor(scaled)
    cells = floors.astype(np.int64)
    cells -= cells.min(axis=0) - 1
    span = int(cells[:, 1].max()) + 2
    keys = cells[:, 0] * span + cells[:, 1]

    # One sort of one integer a point gives the cells and the heights in each in order.
    lowest = float(points[:, 2].min())
    unit = max(float(points[:, 2].max()) - lowest, 1e-3) / ((1 << 20) - 1)
    levels = ((points[:, 2] - lowest) / unit).astype(np.int64)
    packed = np.sort((keys << 20) | levels)
    packed_cells = packed >> 20
    first = np.flatnonzero(np.diff(packed_cells, prepend=-1))
    occupied = packed_cells[first]
    counts = np.diff(first, append=len(packed))
    pick = np.minimum(np.maximum((share * counts).astype(np.int64), 2), counts - 1)
    own = (packed[first + pick] & ((1 << 20) - 1)) * unit + lowest

    offsets = [dx * span + dy for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
    wanted = occupied[:, None] + np.array(offsets)
    at = np.minimum(np.searchsorted(occupied, wanted), len(occupied) - 1)
    there = (occupied[at] == wanted) & (counts[at] >= 8)
    around = np.where(there, own[at], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN rows are meant
        usual = np.nanmedian(around, axis=1)
        # Mirror images in wet roads and car bodies come in groups, metres below everything else.
        sunken = own < usual - MIRROR_DEPTH
        around[sunken[at]] = np.nan
        eroded = np.nanmin(around, axis=1)
        ground = np.nanmax(np.where(there, eroded[at], np.nan), axis=1)
    ground = np.where(np.isfinite(ground), ground, own)

    # Bilinear between the centres of the four nearest cells; the point's own where one is empty.
    beside = np.where(occupied[at] == wanted, ground[at], ground[:, None])
    rows = np.searchsorted(occupied, keys)
    from_centre = scaled - floors - np.float32(0.5)
    step = np.where(from_centre < 0, -1, 1)
    weight = np.abs(from_centre)
    result = np.zeros(len(points), np.float32)
    for along_x in (0, 1):
        for along_y in (0, 1):
            column = 3 * (1 + along_x * step[:, 0]) + 1 + along_y * step[:, 1]
            share_x = weight[:, 0] if along_x else 1 - weight[:, 0]
            share_y = weight[:, 1] if along_y else 1 - weight[:, 1]
            result += (share_x * share_y * beside[rows, column]).astype(np.float32)
    return result


def _z(points: np.ndarray, voxel_size: float) -> np.ndarray:
    return points[:, 2:3] / HEIGHT_SCALE


def _height(points: np.ndarray, voxel_size: float) -> np.ndarray:
    return (points[:, 2] - ground_height(points))[:, None] / HEIGHT_SCALE


def _range(points: np.ndarray, voxel_size: float) -> np.ndarray:
    return np.hypot(points[:, 0:1], points[:, 1:2]) / RANGE_SCALE


def _offset(points: np.ndarray, voxel_size: float) -> np.ndarray:
    scaled = points / voxel_size
    return scaled - np.floor(scaled) - 0.5


def _one(points: np.ndarray, voxel_size: float) -> np.ndarray:
    return np.ones((len(points), 1), np.float32)


_GEOMETRY: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "z": _z,
    "height": _height,
    "range": _range,
    "offset": _offset,
    "one": _one,
}
