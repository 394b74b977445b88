"""The scans that everything is measured on. Never uniform random points: they have no neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from perception.io import PointCloud, read
from perception.io.files import suffix_of
from perception.sparse import SparseTensor
from perception.sparse.sites import Sites
from perception.tools.bench.timing import CPU

__all__ = [
    "CHANNELS",
    "Sequence4D",
    "VoxelSize",
    "Workload",
    "fresh",
    "from_path",
    "simulated",
    "simulated_sequence",
]

CHANNELS = 4
"""Features of a point: x, y, z, intensity."""
FRAMES = 4
SEQUENCE_VOXEL = 0.2
"""Metres; with four frames at 10 Hz about as many sites as one scan at 0.05 m."""
VoxelSize = tuple[float, float, float]


@dataclass(frozen=True)
class Workload:
    """Scans of one batch at one voxel size.

    Attributes:
        name: to show.
        points: ``[N, 3] float32`` metres.
        features: ``[N, 4] float32``.
        batch: ``[N] int64``, the scan of each point.
        voxel_size: metres along x, y and z.
    """

    name: str
    points: Tensor
    features: Tensor
    batch: Tensor
    voxel_size: VoxelSize

    @property
    def voxel_text(self) -> str:
        """The voxel size to read: one number where all three are the same."""
        sizes = self.voxel_size if len(set(self.voxel_size)) > 1 else self.voxel_size[:1]
        return "x".join(f"{size:g}" for size in sizes) + " m"

    def tensor(self, device: torch.device = CPU) -> SparseTensor:
        """The voxels ``[M, 4]``, with no plan made yet."""
        voxels = SparseTensor.from_points(
            self.points, self.features, self.voxel_size, batch=self.batch
        )
        return voxels.to(device)


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


def simulated(voxel_size: VoxelSize, *, batch: int = 1, seed: int = 0) -> Workload:
    """The embedded street scan of a 64-beam LiDAR, and those of the next seeds in a batch."""
    from perception.datasets.street import scan

    clouds = [scan(number).cloud for number in range(seed, seed + batch)]
    return _workload(f"simulated street {seed}", clouds, voxel_size)


def simulated_sequence(*, seed: int = 0, frames: int = FRAMES) -> Sequence4D:
    """Consecutive street scans, registered by their poses."""
    from perception.datasets.street import Street

    clouds = []
    for sample in Street(seed).sequence(frames):
        pose = np.eye(4) if sample.pose is None else sample.pose
        clouds.append(sample.cloud.points @ pose[:3, :3].T + pose[:3, 3])
    return _sequence(f"simulated street {seed}, {frames} frames", clouds)


def from_path(
    path: str | Path, voxel_size: VoxelSize, *, batch: int = 1
) -> tuple[Workload, Sequence4D | None]:
    """A point file, or a folder of them: the first file, and the first frames as a sequence.

    The frames of a folder stay in the sensor's own frame; nothing registers them. A batch takes the
    folder's files in order, and again from the first where there are too few (a file: copies of it).

    Raises:
        FileNotFoundError: no such path, or a folder without point files.
        perception.io.FormatError: not a point file.
    """
    path = Path(path)
    if not path.is_dir():
        return _workload(_short(path), [read(path)] * batch, voxel_size), None
    # A .txt beside scans holds poses or times.
    files = [f for f in sorted(path.iterdir()) if suffix_of(f) not in ("", ".txt")]
    if not files:
        raise FileNotFoundError(
            f"{path}: no point files in this folder; name a file or another one"
        )
    clouds = [read(file) for file in files[: max(FRAMES, batch)]]
    scan = _workload(_short(files[0]), list(islice(cycle(clouds), batch)), voxel_size)
    frames = [cloud.points for cloud in clouds[:FRAMES]]
    if len(frames) < 2:
        return scan, None
    return scan, _sequence(f"{path.name}, {len(frames)} frames, not registered", frames)


def _short(path: Path) -> str:
    return "/".join(path.parts[-2:])


def _workload(name: str, clouds: Sequence[PointCloud], voxel_size: VoxelSize) -> Workload:
    points, features, batch = [], [], []
    for number, cloud in enumerate(clouds):
        place = np.ascontiguousarray(cloud.points, np.float32)
        finite = np.isfinite(place).all(1)
        intensity = np.asarray(cloud.attributes.get("intensity", np.ones(len(place))), np.float32)
        points.append(place[finite])
        features.append(np.concatenate([place / 50, intensity[:, None]], 1)[finite])
        batch.append(np.full(int(finite.sum()), number))
    return Workload(
        name if len(clouds) == 1 else f"{name}, batch of {len(clouds)}",
        torch.from_numpy(np.concatenate(points)),
        torch.from_numpy(np.concatenate(features)),
        torch.from_numpy(np.concatenate(batch)),
        voxel_size,
    )


def _sequence(name: str, clouds: Iterable[np.ndarray]) -> Sequence4D:
    frames = [
        np.concatenate([points, np.full((len(points), 1), frame)], 1)
        for frame, points in enumerate(clouds)
    ]
    points = np.concatenate(frames).astype(np.float32)
    return Sequence4D(name, torch.from_numpy(points[np.isfinite(points).all(1)]))
