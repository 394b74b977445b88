"""From recorded windows to the sites, features and labels that all networks of the study share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from torch import Tensor

from perception.datasets.encode import HEIGHT_SCALE, RANGE_SCALE
from perception.datasets.sample import IGNORE
from perception.datasets.street import CLASSES
from perception.sparse import SparseTensor, voxelize
from perception.tools.study.noise import LEVELS, Draws, Level, between, measured
from perception.tools.study.windows import UNIT, Windows

__all__ = ["CHANNELS", "VOXEL", "Batch", "evaluation_batch", "training_batch"]

VOXEL: Final = 0.3
"""Edge of a voxel, m."""
CHANNELS: Final = 6
"""Features of a site: intensity, height over the sensor, range, place in the voxel."""


@dataclass(frozen=True)
class Batch:
    """Some windows, voxelized frame by frame in the coordinates of their newest frames.

    coords: `[M, 5] int32`: window, x, y, z, frame (the newest is `frames - 1`), lexicographic.
    features: `[M, 6] float32`, of the points of one frame alone, seen from its own sensor.
    labels: `[M] int64`, the most frequent of a site's points, 255 where none is labelled.
    point_to_voxel: `[N] int64`, the row of each point; point_labels: `[N] int64`.
    windows, frames: how many, and scans in each.
    """

    coords: Tensor
    features: Tensor
    labels: Tensor
    point_to_voxel: Tensor
    point_labels: Tensor
    windows: int
    frames: int

    @cached_property
    def in_time(self) -> SparseTensor:
        """All frames of a window as one 4D sample."""
        return SparseTensor(self.features, self.coords, batch_size=self.windows)

    @cached_property
    def in_space(self) -> SparseTensor:
        """Every frame as a 3D sample of its own: the same rows."""
        c = self.coords
        scan = c[:, :1] * self.frames + c[:, 4:]
        coords = torch.cat([scan, c[:, 1:4]], 1)
        return SparseTensor(self.features, coords, batch_size=self.windows * self.frames)

    @cached_property
    def newest(self) -> Tensor:
        """`[M] bool`: the sites of the newest frames."""
        return self.coords[:, 4] == self.frames - 1

    def newest_scan(self) -> SparseTensor:
        """The newest frame of a batch of one window as a 3D sample, alone."""
        coords = self.coords[self.newest, :4].contiguous()
        return SparseTensor(self.features[self.newest], coords, batch_size=1)


def training_batch(data: Windows, numbers: Sequence[int], seed: Sequence[int]) -> Batch:
    """Windows with fresh noise, each of a level anywhere between the best and the worst, turned about
    z, mirrored, scaled and shifted at random.

    All that is random is a function of `seed` (on one kind of device).
    """
    rng = np.random.default_rng(list(seed))
    change = torch.eye(4).repeat(len(numbers), 1, 1)
    for one in change:
        angle, scale = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(0.95, 1.05)
        mirror = rng.choice((-1.0, 1.0))
        cos, sin = math.cos(angle), math.sin(angle)
        one[:2, :2] = torch.tensor([[cos, -sin * mirror], [sin, cos * mirror]])
        one[:3, :3] *= scale
        one[:3, 3] = torch.from_numpy(rng.uniform(0.0, VOXEL, 3))
    levels = [between(rng.uniform(0.0, len(LEVELS) - 1)) for _ in numbers]
    count = sum(int(data.counts[number].sum()) for number in numbers)
    draws = Draws.make(count, int(rng.integers(2**62)), data.points.device)
    return _batch(data, numbers, levels, draws, change)


def evaluation_batch(data: Windows, number: int, level: Level) -> Batch:
    """One window as it is, with the noise that it always has."""
    count = int(data.counts[number].sum())
    draws = Draws.make(count, number, torch.device("cpu")).to(data.points.device)
    return _batch(data, [number], [level], draws, torch.eye(4)[None])


def _batch(
    data: Windows,
    numbers: Sequence[int],
    levels: Sequence[Level],
    draws: Draws,
    change: Tensor,
) -> Batch:
    device, frames = data.points.device, data.frames
    rows = torch.cat(
        [
            torch.arange(int(data.first[number]), int(data.first[number + 1]), device=device)
            for number in numbers
        ]
    )
    counts = torch.from_numpy(data.counts[list(numbers)].reshape(-1)).to(device)
    scan = torch.repeat_interleave(counts, output_size=len(rows))
    noise = torch.tensor(levels, device=device)[torch.div(scan, frames, rounding_mode="floor")]
    kept, points, intensity = measured(
        data.points[rows].float() * UNIT, data.intensity[rows].float() / 100.0, noise, draws
    )
    rows, scan = rows[kept], scan[kept]

    motion = (change[:, None] @ data.poses[list(numbers)]).reshape(-1, 4, 4).to(device)
    turn, shift = motion[:, :3, :3], motion[:, :3, 3]
    places = (turn[scan] @ points[:, :, None])[:, :, 0] + shift[scan]
    cells = places / VOXEL
    features = torch.stack(
        [
            intensity,
            points[:, 2] / HEIGHT_SCALE,
            torch.hypot(points[:, 0], points[:, 1]) / RANGE_SCALE,
            *(cells - cells.floor() - 0.5).unbind(1),
        ],
        1,
    )
    frame = (scan % frames).to(places.dtype) + 0.5
    voxels = voxelize(
        torch.cat([places, frame[:, None]], 1),
        (VOXEL, VOXEL, VOXEL, 1.0),
        features=features,
        batch=torch.div(scan, frames, rounding_mode="floor"),
    )
    labels = data.labels[rows].long()
    return Batch(
        coords=voxels.coords,
        features=voxels.features,
        labels=_majority(labels, voxels.point_to_voxel, len(voxels.coords)),
        point_to_voxel=voxels.point_to_voxel,
        point_labels=labels,
        windows=len(numbers),
        frames=frames,
    )


def _majority(labels: Tensor, rows: Tensor, sites: int) -> Tensor:
    """As `perception.datasets.collate.voxel_labels`, on any device."""
    known = labels != IGNORE
    flat = rows[known] * len(CLASSES) + labels[known]
    votes = torch.bincount(flat, minlength=sites * len(CLASSES)).reshape(sites, len(CLASSES))
    # Among equals the lowest class, on every device: ranks are unique.
    rank = votes * len(CLASSES) + torch.arange(len(CLASSES) - 1, -1, -1, device=votes.device)
    return torch.where(votes.sum(1) > 0, rank.argmax(1), IGNORE)
