"""From a point cloud to the sites and features of a network, in training and inference alike."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

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

    coords: `[M, 4] int32`, (batch = 0, x, y, z), or `[M, 5]` with time behind them, unique, in
        lexicographic order.
    features: `[M, C] float32`, the mean over the points of a site.
    point_to_voxel: `[N] int64`, the row of each point's site.
    positions: `[N, 3]` or `[N, 4]` floating, where the points are among the sites (`Encoder.positions`);
        None where nobody asked.
    """

    coords: torch.Tensor
    features: torch.Tensor
    point_to_voxel: torch.Tensor
    positions: torch.Tensor | None = None


class Encoder:
    """Voxelizes a cloud and computes the input features of its sites.

    Args:
        voxel_size: edge of a voxel in metres, or three: along x, y and z.
        features: any of the names in `Encoder.CHANNELS`, in the order of the channels:

            - "intensity": the attribute of that name, 0..1;
            - "color": red, green, blue, 0..1; unsigned integers count to their largest value
              (3 channels);
            - "z": height over the sensor frame's origin, in units of 3 m;
            - "height": height over the local ground (`ground_height`), in units of 3 m: does not
              depend on where the sensor is mounted, nor on the slope of the road;
            - "range": horizontal distance from the sensor in units of 50 m;
            - "offset": position in the voxel relative to its centre, -0.5..0.5 (3 channels);
            - "age": seconds since the point was measured, of several frames (`datasets.sequences`);
              0 for a single scan;
            - "time": the attribute of that name in seconds, in the reader's sense;
            - "one": the constant 1.

        time: None for sites in space. Else they have a fourth coordinate: `"frame"`, the number of
            the frame, of which the newest has the highest; or a time step in seconds: the age in
            steps, rounded, from 0 (the newest) downwards.

    An attribute that the cloud lacks is read as zero, with a warning: train with
    `Intensity.missing` or `Color.drop` where that shall work well.

    Raises:
        ValueError: an unknown feature name, or a voxel size or time step that is not positive; a cloud
            without the frames that `time` asks for.
    """

    CHANNELS: ClassVar[dict[str, int]] = {
        "intensity": 1,
        "color": 3,
        "z": 1,
        "height": 1,
        "range": 1,
        "offset": 3,
        "age": 1,
        "time": 1,
        "one": 1,
    }

    def __init__(
        self,
        voxel_size: float | Sequence[float],
        features: Sequence[str],
        time: Literal["frame"] | float | None = None,
    ) -> None:
        edges = (
            tuple(voxel_size) if isinstance(voxel_size, list | tuple) else (float(voxel_size),) * 3  # type: ignore[arg-type]
        )
        unknown = [name for name in features if name not in self.CHANNELS]
        if unknown or not features:
            raise ValueError(
                f"Encoder: unknown features {unknown}; choose at least one of {list(self.CHANNELS)}"
            )
        if len(edges) != 3 or not all(edge > 0 for edge in edges):
            raise ValueError(
                f"Encoder: voxel_size={voxel_size} must be positive metres, one number or three"
            )
        if time is not None and time != "frame" and not (_is_number(time) and time > 0):
            raise ValueError(
                f'Encoder: time={time!r} must be "frame", a time step in seconds, or None'
            )
        self.edges: tuple[float, ...] = tuple(float(edge) for edge in edges)
        self.features = tuple(features)
        self.time = time

    @property
    def voxel_size(self) -> float:
        """Edge of a voxel in metres; the shortest where they differ."""
        return min(self.edges)

    @property
    def channels(self) -> int:
        """Features of a site, C."""
        return sum(self.CHANNELS[name] for name in self.features)

    @property
    def dim(self) -> int:
        """Coordinates of a site beside the batch: 3, or 4 with time."""
        return 3 if self.time is None else 4

    def metadata(self) -> dict[str, Any]:
        """JSON values that rebuild this encoder: ``Encoder(**metadata)``."""
        cubes = len(set(self.edges)) == 1
        values: dict[str, Any] = {
            "voxel_size": self.voxel_size if cubes else list(self.edges),
            "features": list(self.features),
        }
        return values if self.time is None else {**values, "time": self.time}

    def __call__(self, cloud: PointCloud) -> Encoded:
        """Sites and features of `cloud`."""
        return self._voxels(cloud, cloud.points, None if self.time is None else self._times(cloud))

    def placed(
        self, cloud: PointCloud, motion: NDArray[np.float64], *, positions: bool = False
    ) -> Encoded:
        """Sites and features of one scan on a lattice that is not its sensor's.

        Sites and the feature "offset" are those of the points on the lattice; "z", "height" and
        "range" are those in the scan's own frame, "age" is 0.

        Args:
            cloud: a scan in its sensor's frame.
            motion: ``[4, 4]``, lattice_from_sensor.
            positions: give those as well, in space alone.

        Returns:
            With `time`, all sites at time 0.
        """
        # In float64: sites far from the lattice's zero keep their place to the micrometre.
        places = cloud.points.astype(np.float64) @ motion[:3, :3].T + motion[:3, 3]
        still = None if self.time is None else np.zeros(len(cloud), np.int64)
        encoded = self._voxels(cloud, places, still)
        if not positions:
            return encoded
        return replace(encoded, positions=torch.from_numpy(places / np.array(self.edges)))

    @property
    def age_channel(self) -> int | None:
        """Where the feature "age" is; None without."""
        if "age" not in self.features:
            return None
        before = self.features[: self.features.index("age")]
        return sum(self.CHANNELS[name] for name in before)

    def _voxels(
        self, cloud: PointCloud, places: NDArray[np.floating], times: NDArray[np.integer] | None
    ) -> Encoded:
        features = np.empty((len(cloud), self.channels), np.float32)
        column = 0
        for name in self.features:
            stop = column + self.CHANNELS[name]
            self._write(name, cloud, places, features[:, column:stop])
            column = stop
        size = list(self.edges)
        if times is not None:
            # Half a step inside its cell: whole numbers are exact in float32.
            middle = times.astype(places.dtype) + places.dtype.type(0.5)
            places, size = np.concatenate([places, middle[:, None]], axis=1), [*size, 1.0]
        voxels = voxelize(torch.from_numpy(places), size, features=torch.from_numpy(features))
        return Encoded(voxels.coords, voxels.features, voxels.point_to_voxel)

    def positions(self, cloud: PointCloud) -> torch.Tensor:
        """Where the points of `cloud` are among its sites, `[N, D] float32`: in voxels, the time in steps.

        A point lies in the site that is the floor of its position, in the middle at 0.5.
        """
        places = cloud.points / np.array(self.edges, np.float32)
        if self.time is not None:
            middle = self._times(cloud).astype(np.float32) + np.float32(0.5)
            places = np.concatenate([places, middle[:, None]], axis=1)
        return torch.from_numpy(places)

    def _times(self, cloud: PointCloud) -> NDArray[np.integer]:
        name = "frame" if self.time == "frame" else "age"
        if name not in cloud.attributes:
            raise ValueError(
                f"Encoder: time={self.time!r} needs the attribute {name!r} of several frames; use "
                "perception.datasets.sequences.Frames or merged"
            )
        values = cloud.attributes[name]
        if self.time == "frame":
            return values
        assert not isinstance(self.time, str | None)
        return np.floor(0.5 - values.astype(np.float64) / self.time).astype(np.int64)

    def _write(
        self,
        name: str,
        cloud: PointCloud,
        places: NDArray[np.floating],
        out: NDArray[np.float32],
    ) -> None:
        points = cloud.points
        if name == "z":
            np.divide(points[:, 2], np.float32(HEIGHT_SCALE), out=out[:, 0])
        elif name == "height":
            np.subtract(points[:, 2], ground_height(points), out=out[:, 0])
            out /= np.float32(HEIGHT_SCALE)
        elif name == "range":
            np.hypot(points[:, 0], points[:, 1], out=out[:, 0])
            out /= np.float32(RANGE_SCALE)
        elif name == "offset":
            _offset(places, np.array(self.edges, places.dtype), out)
        elif name == "one":
            out[:] = 1
        elif name == "age":
            out[:, 0] = cloud.attributes.get("age", np.float32(0))
        else:
            _attribute(cloud, name, out)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _attribute(cloud: PointCloud, name: str, out: NDArray[np.float32]) -> None:
    names = ("red", "green", "blue") if name == "color" else (name,)
    missing = [n for n in names if n not in cloud.attributes]
    if missing:
        warnings.warn(
            f"the point cloud has no {', '.join(missing)}; the network reads zeros instead",
            stacklevel=4,
        )
        out[:] = 0
        return
    for column, n in enumerate(names):
        values = np.asarray(cloud.attributes[n])
        full = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
        np.divide(values, np.float32(full), out=out[:, column], casting="unsafe")
    np.nan_to_num(out, copy=False)


@njit(cache=True, nogil=True)
def _offset(points: NDArray, edges: NDArray, out: NDArray) -> None:
    for i in range(len(points)):
        for d in range(3):
            scaled = points[i, d] / edges[d]
            out[i, d] = np.float32(scaled - np.floor(scaled)) - np.float32(0.5)


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
    return ground_at(points, points, cell=cell, share=share)


def ground_at(
    points: np.ndarray, places: np.ndarray, *, cell: float = 4.0, share: float = 0.05
) -> np.ndarray:
    """`ground_height` of a scan at other places than its points.

    Args:
        points: `[N, 3] float32`, metres: the scan.
        places: `[Q, 2+] float32`, x and y in metres; where the scan has no points, the ground of the
            nearest cell with points counts.

    Returns:
        `[Q] float32`, metres; zeros for a scan without points.
    """
    if len(points) == 0 or len(places) == 0:
        return np.zeros(len(places), np.float32)
    x, y, z = points.T  # numpy reduces columns one by one much faster than along the rows
    low = np.floor(np.array([x.min(), y.min()]) / np.float32(cell)).astype(np.int64) - 1
    span = int(np.floor(y.max() / np.float32(cell))) + 2 - int(low[1])

    # One sort of one integer a point gives the cells and the heights in each in order.
    lowest = float(z.min())
    unit = max(float(z.max()) - lowest, 1e-3) / ((1 << 20) - 1)
    packed = np.empty(len(points), np.int64)
    _pack(points, np.float32(cell), low, span, np.float32(lowest), np.float32(unit), packed)
    packed.sort()
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

    # Bilinear between the centres of the four nearest cells; the place's own where one is empty.
    beside = np.where(occupied[at] == wanted, ground[at], ground[:, None])
    result = np.empty(len(places), np.float32)
    _interpolate(
        np.ascontiguousarray(places[:, :2]), np.float32(cell), low, span, occupied, beside, result
    )
    return result


@njit(cache=True, nogil=True)
def _pack(
    points: np.ndarray,
    cell: np.float32,
    low: np.ndarray,
    span: int,
    lowest: np.float32,
    unit: np.float32,
    out: np.ndarray,
) -> None:
    """Cell and height of each point as one number that sorts by cell, then height."""
    for i in range(len(points)):
        x = np.int64(np.floor(points[i, 0] / cell)) - low[0]
        y = np.int64(np.floor(points[i, 1] / cell)) - low[1]
        out[i] = ((x * span + y) << 20) | np.int64((points[i, 2] - lowest) / unit)


@njit(cache=True, nogil=True)
def _interpolate(
    places: np.ndarray,
    cell: np.float32,
    low: np.ndarray,
    span: int,
    occupied: np.ndarray,
    beside: np.ndarray,
    out: np.ndarray,
) -> None:
    last, row = np.int64(-1), np.int64(0)
    for i in range(len(places)):
        sx, sy = places[i, 0] / cell, places[i, 1] / cell
        fx, fy = np.floor(sx), np.floor(sy)
        x, y = np.int64(fx) - low[0], np.int64(fy) - low[1]
        inside = 0 <= y < span
        key = x * span + y
        if not inside or key != last:  # neighbours in a scan mostly share a cell
            row = np.int64(np.searchsorted(occupied, key) if inside else 0)
            if not inside or row == len(occupied) or occupied[row] != key:
                nearest = np.int64(1) << 60
                for m in range(len(occupied)):
                    dx, dy = occupied[m] // span - x, occupied[m] % span - y
                    if dx * dx + dy * dy < nearest:
                        nearest, row = dx * dx + dy * dy, np.int64(m)
                out[i], last = beside[row, 4], np.int64(-1)
                continue
            last = key
        dx, dy = sx - fx - np.float32(0.5), sy - fy - np.float32(0.5)
        step_x, step_y = -1 if dx < 0 else 1, -1 if dy < 0 else 1
        wx, wy = abs(dx), abs(dy)
        value = np.float32(0)
        for along_x in range(2):
            share_x = wx if along_x else 1 - wx
            for along_y in range(2):
                share_y = wy if along_y else 1 - wy
                column = 3 * (1 + along_x * step_x) + 1 + along_y * step_y
                value += np.float32(share_x * share_y * beside[row, column])
        out[i] = value
