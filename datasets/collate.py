"""Batches: several encoded scans as one sparse tensor, with the labels of sites and points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from perception.datasets.encode import Encoded
from perception.sparse import SparseTensor

IGNORE = 255
"""The label that means: not labelled, no loss, not counted."""


@dataclass(frozen=True)
class SegmentationItem:
    """One encoded scan: `encoded`, `labels [N] uint8` of its points (255 ignored), and its name."""

    encoded: Encoded
    labels: np.ndarray
    name: str


@dataclass(frozen=True)
class SegmentationBatch:
    """Scans for semantic segmentation, on one device.

    x: features of all sites; the batch column of its sites is the scan.
    labels: `[num_sites] int64`, the most frequent label of a site's points (`voxel_labels`).
    point_labels: `[N] int64`, the labels of all points, scan after scan.
    point_to_voxel: `[N] int64`, the row of `x` of each point.
    names: one name a scan.
    points: number of points of each scan, in order; they sum to N.
    """

    x: SparseTensor
    labels: torch.Tensor
    point_labels: torch.Tensor
    point_to_voxel: torch.Tensor
    names: tuple[str, ...]
    points: tuple[int, ...]

    def to(
        self, device: torch.device | str | int, *, non_blocking: bool = False
    ) -> SegmentationBatch:
        """The same batch on `device`."""
        return replace(
            self,
            x=self.x.to(device),
            labels=self.labels.to(device, non_blocking=non_blocking),
            point_labels=self.point_labels.to(device, non_blocking=non_blocking),
            point_to_voxel=self.point_to_voxel.to(device, non_blocking=non_blocking),
        )


def collate_segmentation(items: Sequence[SegmentationItem]) -> SegmentationBatch:
    """Joins scans; scan i gets batch index i.

    Raises:
        ValueError: no scans.
    """
    if not items:
        raise ValueError("collate_segmentation: no scans to join")
    coords, features, labels, rows = [], [], [], []
    start = 0
    for index, item in enumerate(items):
        sites = item.encoded.coords.clone()
        sites[:, 0] = index
        rows.append(item.encoded.point_to_voxel + start)
        labels.append(torch.from_numpy(item.labels.astype(np.int64)))
        coords.append(sites)
        features.append(item.encoded.features)
        start += len(sites)
    point_labels, point_to_voxel = torch.cat(labels), torch.cat(rows)
    return SegmentationBatch(
        x=SparseTensor(torch.cat(features), torch.cat(coords), batch_size=len(items)),
        labels=voxel_labels(point_labels, point_to_voxel, start),
        point_labels=point_labels,
        point_to_voxel=point_to_voxel,
        names=tuple(item.name for item in items),
        points=tuple(len(item.labels) for item in items),
    )


def voxel_labels(
    point_labels: torch.Tensor, point_to_voxel: torch.Tensor, num_voxels: int
) -> torch.Tensor:
    """The most frequent label among the labelled points of each voxel.

    Args:
        point_labels: `[N] int64`, 255 is ignored.
        point_to_voxel: `[N] int64`, rows 0..M-1.
        num_voxels: number of voxels M.

    Returns:
        `[M] int64`; the lowest of equally frequent labels; 255 where no point is labelled.
    """
    valid = point_labels != IGNORE
    labels, rows = point_labels[valid], point_to_voxel[valid]
    if len(labels) == 0:
        return torch.full((num_voxels,), IGNORE, dtype=torch.int64, device=point_labels.device)
    classes = int(labels.max()) + 1
    votes = torch.bincount(rows * classes + labels, minlength=num_voxels * classes)
    votes = votes.view(num_voxels, classes)
    winner = votes.argmax(dim=1)  # the first of equal maxima
    return torch.where(votes.amax(dim=1) > 0, winner, IGNORE)
