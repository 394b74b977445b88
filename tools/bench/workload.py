"""The scans that everything is measured on. Never uniform random points: they have no neighbours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perception.io import PointCloud, read
from perception.io.files import suffix_of
from perception.sparse import SparseTensor
from perception.sparse.sites import Sites

__all__ = ["CHANNELS", "Sequence4D", "Workload", "from_path", "simulated", "simulated_sequence"]

CHANNELS = 4
"""Features of a point: x, y, z, intensity."""
FRAMES = 4
SEQUENCE_VOXEL = 0.2
"""Metres; with four frames at 10 Hz about as many sites as one scan at 0.05 m."""


@dataclass(frozen=True)
class Workload:
    """One scan at one voxel size.

    Attributes:
        name: to show.
        points: ``[N, 3] float32`` metres.
        features: ``[N, 4] float32``.
        voxel_size: metres.
    """

    name: str
    points: Tensor
    features: Tensor
    voxel_size: float

    def tensor(self) -> SparseTensor:
        """The voxels ``[M, 4]``, with no plan made yet."""
        return SparseTensor.from_points(self.points, self.features, self.voxel_size)


@dataclass(frozen=True)
class Sequence4D:
    """Scans in one frame with time as the fourth axis.

    Attributes:
        points: ``[N, 4] float32``: x, y, z in metres, frame number.
    """

    name: str
    points: Tensor
    voxel_size: float = SEQUENCE_VOXEL

    def sites(self) -> Sites:
        size = (self.voxel_size,) * 3 + (1.0,)
        return SparseTensor.from_points(self.points, self.points, size, reduce="first").sites


def fresh(sites: Sites) -> Sites:
    """The same sites without any plan or index."""
    return Sites(sites.coords, sites.stride, sites.batch_size, is_sorted=sites.is_sorted)


def simulated(voxel_size: float, *, seed: int = 0) -> Workload:
    """The embedded street scan of a 64-beam LiDAR."""
    from perception.datasets.street import scan

    return _workload(f"simulated street {seed}", scan(seed).cloud, voxel_size)


def simulated_sequence(*, seed: int = 0, frames: int = FRAMES) -> Sequence4D:
    """Consecutive street scans, registered by their poses."""
    from perception.datasets.street import Street

    clouds = []
    for sample in Street(seed).sequence(frames):
        pose = np.eye(4) if sample.pose is None else sample.pose
        clouds.append(sample.cloud.points @ pose[:3, :3].T + pose[:3, 3])
    return _sequence(f"simulated street {seed}, {frames} frames", clouds)


def from_path(path: str | Path, voxel_size: float) -> tuple[Workload, Sequence4D | None]:
    """A point file, or a folder of them: the first file, and the first frames as a sequence.

    The frames of a folder stay in the sensor's own frame; nothing registers them.

    Raises:
        FileNotFoundError: no such path, or a folder without point files.
        perception.io.FormatError: not a point file.
    """
    path = Path(path)
    if not path.is_dir():
        return _workload(_short(path), read(path), voxel_size), None
    # A .txt beside scans holds poses or times.
    files = [f for f in sorted(path.iterdir()) if suffix_of(f) not in ("", ".txt")]
    if not files:
        raise FileNotFoundError(
            f"{path}: no point files in this folder; name a file or another one"
        )
    clouds = [read(file) for file in files[:FRAMES]]
    scan = _workload(_short(files[0]), clouds[0], voxel_size)
    if len(clouds) < 2:
        return scan, None
    name = f"{path.name}, {len(clouds)} frames, not registered"
    return scan, _sequence(name, [cloud.points for cloud in clouds])


def _short(path: Path) -> str:
    return "/".join(path.parts[-2:])


def _workload(name: str, cloud: PointCloud, voxel_size: float) -> Workload:
    points = np.ascontiguousarray(cloud.points, np.float32)
    finite = np.isfinite(points).all(1)
    intensity = np.asarray(cloud.attributes.get("intensity", np.ones(len(points))), np.float32)
    features = np.concatenate([points / 50, intensity[:, None]], 1)[finite]
    return Workload(name, torch.from_numpy(points[finite]), torch.from_numpy(features), voxel_size)


def _sequence(name: str, clouds: Iterable[np.ndarray]) -> Sequence4D:
    frames = [
        np.concatenate([points, np.full((len(points), 1), frame)], 1)
        for frame, points in enumerate(clouds)
    ]
    points = np.concatenate(frames).astype(np.float32)
    return Sequence4D(name, torch.from_numpy(points[np.isfinite(points).all(1)]))
