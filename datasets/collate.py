"""Batches: several encoded scans as one sparse tensor, with the labels of sites and points.

In a worker process the tensors of a batch are made in shared memory and written once: the training
process maps them, and nothing is copied on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from perception.datasets.encode import Encoded
from perception.datasets.sample import IGNORE
from perception.sparse import SparseTensor

__all__ = [
    "IGNORE",
    "SegmentationBatch",
    "SegmentationItem",
    "collate_segmentation",
    "joined_sites",
    "voxel_labels",
]


@dataclass(frozen=True)
class SegmentationItem:
    """One encoded scan.

    encoded: its sites and features, in space or in space and time.
    labels: `[N] uint8` of its points, 255 ignored.
    name: of the scan.
    frames: `[N] int16`, the frame of each point where the scan is several; None where it is one.
    positions: `[N, D] float32`, of the points in voxels (`Encoder.positions`), for a network that takes
        points; None for others.
    """

    encoded: Encoded
    labels: NDArray[np.uint8]
    name: str
    frames: NDArray[np.int16] | None = None
    positions: torch.Tensor | None = None


@dataclass(frozen=True)
class SegmentationBatch:
    """Scans for semantic segmentation, on one device.

    x: features of all sites, 3D or 4D; the batch column of its sites is the scan.
    labels: `[num_sites] int64`, the most frequent label of a site's points (`voxel_labels`).
    point_labels: `[N] int64`, the labels of all points, scan after scan.
    point_to_voxel: `[N] int64`, the row of `x` of each point.
    names: one name a scan.
    points: number of points of each scan, in order; they sum to N.
    sites: number of sites of each scan, likewise.
    point_frames: `[N] int16`, the frame of each point, the newest the highest; None for single scans.
    point_positions: `[N, D] float32`, of the points in voxels; None where nobody asked for them.
    """

    x: SparseTensor
    labels: torch.Tensor
    point_labels: torch.Tensor
    point_to_voxel: torch.Tensor
    names: tuple[str, ...]
    points: tuple[int, ...]
    sites: tuple[int, ...]
    point_frames: torch.Tensor | None = None
    point_positions: torch.Tensor | None = None

    def to(
        self, device: torch.device | str | int, *, non_blocking: bool = False
    ) -> SegmentationBatch:
        """The same batch on `device`."""
        frames, positions = self.point_frames, self.point_positions
        return replace(
            self,
            x=self.x.to(device),
            labels=self.labels.to(device, non_blocking=non_blocking),
            point_labels=self.point_labels.to(device, non_blocking=non_blocking),
            point_to_voxel=self.point_to_voxel.to(device, non_blocking=non_blocking),
            point_frames=None if frames is None else frames.to(device, non_blocking=non_blocking),
            point_positions=(
                None if positions is None else positions.to(device, non_blocking=non_blocking)
            ),
        )

    def pin_memory(self) -> SegmentationBatch:
        """The same batch in memory that a GPU reads while the processor goes on."""
        frames, positions = self.point_frames, self.point_positions
        return replace(
            self,
            x=self.x.pin_memory(),
            labels=self.labels.pin_memory(),
            point_labels=self.point_labels.pin_memory(),
            point_to_voxel=self.point_to_voxel.pin_memory(),
            point_frames=None if frames is None else frames.pin_memory(),
            point_positions=None if positions is None else positions.pin_memory(),
        )


def collate_segmentation(items: Sequence[SegmentationItem]) -> SegmentationBatch:
    """Joins scans; scan i gets batch index i.

    Raises:
        ValueError: no scans, or scans whose sites or features have different widths.
    """
    if not items:
        raise ValueError("collate_segmentation: no scans to join")
    x = joined_sites([item.encoded for item in items])
    points = sum(len(item.labels) for item in items)
    labels = _buffer((len(x),), torch.int64)
    point_labels = _buffer((points,), torch.int64)
    rows = _buffer((points,), torch.int64)
    several = all(item.frames is not None for item in items)
    frames = _buffer((points,), torch.int16) if several else None
    placed = all(item.positions is not None for item in items)
    positions = _buffer((points, x.dim), torch.float32) if placed else None
    site = point = 0
    for item in items:
        encoded = item.encoded
        to_site, to_point = site + len(encoded.coords), point + len(item.labels)
        torch.add(encoded.point_to_voxel, site, out=rows[point:to_point])
        point_labels[point:to_point] = torch.from_numpy(item.labels)
        _vote(
            item.labels,
            encoded.point_to_voxel.numpy(),
            labels[site:to_site].numpy(),
        )
        if frames is not None and item.frames is not None:
            frames[point:to_point] = torch.from_numpy(item.frames)
        if positions is not None and item.positions is not None:
            positions[point:to_point] = item.positions
        site, point = to_site, to_point
    return SegmentationBatch(
        x=x,
        labels=labels,
        point_labels=point_labels,
        point_to_voxel=rows,
        names=tuple(item.name for item in items),
        points=tuple(len(item.labels) for item in items),
        sites=tuple(len(item.encoded.coords) for item in items),
        point_frames=frames,
        point_positions=positions,
    )


def joined_sites(encoded: Sequence[Encoded]) -> SparseTensor:
    """The sites of several scans; scan i gets batch index i.

    Raises:
        ValueError: no scans, or scans whose sites or features have different widths.
    """
    widths = {(one.coords.shape[1], one.features.shape[1]) for one in encoded}
    if len(widths) != 1:
        raise ValueError(f"joined_sites: no scans, or of different encoders, widths {widths}")
    ((columns, channels),) = widths
    sites = sum(len(one.coords) for one in encoded)
    coords = _buffer((sites, columns), torch.int32)
    features = _buffer((sites, channels), torch.float32)
    site = 0
    for index, one in enumerate(encoded):
        to_site = site + len(one.coords)
        coords[site:to_site] = one.coords
        coords[site:to_site, 0] = index
        features[site:to_site] = one.features
        site = to_site
    return SparseTensor(features, coords, batch_size=len(encoded))


def _buffer(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Memory for a part of a batch; shared where another process will read it."""
    if get_worker_info() is None or 0 in shape:
        return torch.empty(shape, dtype=dtype)
    count = int(np.prod(shape)) * dtype.itemsize
    storage = torch.UntypedStorage._new_shared(count)
    return torch.empty(0, dtype=dtype).set_(storage).reshape(shape)


def voxel_labels(
    point_labels: torch.Tensor, point_to_voxel: torch.Tensor, num_voxels: int
) -> torch.Tensor:
    """The most frequent label among the labelled points of each voxel.

    Args:
        point_labels: `[N] int64`, 255 is ignored; on the CPU.
        point_to_voxel: `[N] int64`, rows 0..M-1.
        num_voxels: number of voxels M.

    Returns:
        `[M] int64`; the lowest of equally frequent labels; 255 where no point is labelled.
    """
    winners = torch.empty(num_voxels, dtype=torch.int64)
    _vote(point_labels.numpy().astype(np.uint8), point_to_voxel.numpy(), winners.numpy())
    return winners


@njit(cache=True, nogil=True)
def _vote(labels: NDArray, rows: NDArray, out: NDArray) -> None:
    """Points in the order of their voxels, by counting; then one small vote a voxel."""
    starts = np.zeros(len(out) + 1, np.int32)
    for i in range(len(rows)):
        if labels[i] != IGNORE:
            starts[rows[i] + 1] += 1
    for m in range(len(out)):
        starts[m + 1] += starts[m]
    ballots = np.empty(starts[len(out)], np.uint8)
    for i in range(len(rows)):
        if labels[i] != IGNORE:
            ballots[starts[rows[i]]] = labels[i]
            starts[rows[i]] += 1  # becomes the end of the voxel, the start of the next one
    votes = np.zeros(256, np.int32)
    begin = 0
    for m in range(len(out)):
        end, winner = starts[m], np.int64(IGNORE)
        for p in range(begin, end):
            votes[ballots[p]] += 1
        for p in range(begin, end):
            label = np.int64(ballots[p])
            if (
                winner == IGNORE
                or votes[label] > votes[winner]
                or (votes[label] == votes[winner] and label < winner)
            ):
                winner = label
        for p in range(begin, end):
            votes[ballots[p]] = 0
        out[m], begin = winner, end
