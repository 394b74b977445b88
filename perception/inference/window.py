"""Frames of a drive on one lattice that stands still in the world."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from perception.datasets.encode import Encoded, Encoder
from perception.geometry import as_pose, invert
from perception.io import PointCloud
from perception.sparse.ops import segment_sum, unique_sites

__all__ = ["Frame", "Lattice", "joined"]


@dataclass(frozen=True)
class Frame:
    """One scan on the lattice, as it is kept for the scans that come.

    Attributes:
        encoded: its sites at time 0 and its features.
        counts: ``[M] int64``, points of each site.
        time: seconds, None where unknown.
    """

    encoded: Encoded
    counts: torch.Tensor
    time: float | None


class Lattice:
    """Where the sites of a drive are.

    A scan's sites are those of its points in the frame of `anchor`, whichever scan is the newest:
    what was computed at the sites of a scan stays true when the sensor moves on. (Training samples
    have the lattice of the newest scan; a network that is trained on turned scans knows no
    difference.) Features that depend on the sensor's frame are those in the scan's own.

    Args:
        encoder: as in training.
        anchor: ``[4, 4]``, world_from_sensor of the scan whose frame the lattice has.
        motion: ``[4, 4]``, applied to the lattice's frame, such as a `Variant`'s.
        points: keep the positions of the points, for networks that take them.
    """

    def __init__(
        self,
        encoder: Encoder,
        anchor: NDArray[np.float64],
        motion: NDArray[np.float64],
        points: bool = False,
    ) -> None:
        self.encoder, self.points = encoder, points
        self._from_world = motion @ invert(as_pose(anchor, "anchor"))

    def frame(
        self, cloud: PointCloud, pose: NDArray[np.float64], time: float | None = None
    ) -> Frame:
        """A scan on the lattice; `pose [4, 4]` is world_from_sensor."""
        motion = self._from_world @ as_pose(pose)
        encoded = self.encoder.placed(cloud, motion, positions=self.points)
        counts = torch.bincount(encoded.point_to_voxel, minlength=len(encoded.coords))
        return Frame(encoded, counts, time)


def joined(
    frames: Sequence[Frame], numbers: Sequence[int], encoder: Encoder, *, period: float = 0.1
) -> Encoded:
    """The sites of several frames, the oldest first, with time where the encoder has it.

    Args:
        numbers: of the frames, rising: their sites' time where that counts frames.
        period: seconds between two numbers, for frames without times.

    Returns:
        Sites in lexicographic order; `point_to_voxel` and `positions` are those of the points of all
        frames, one after the other.
    """
    coords, features, positions = [], [], []
    for frame, number in zip(frames, numbers, strict=True):
        sites, values = frame.encoded.coords, frame.encoded.features
        behind = numbers[-1] - number
        known = frame.time is not None and frames[-1].time is not None
        age = frames[-1].time - frame.time if known else behind * period  # type: ignore[operator]
        age = float(np.float32(age))  # as the attribute that training reads
        if encoder.time is not None:
            unit = encoder.time
            sites = sites.clone()
            sites[:, -1] = number if isinstance(unit, str) else math.floor(0.5 - age / unit)
        if encoder.age_channel is not None and behind:
            values = values.clone()
            values[:, encoder.age_channel] = age
        coords.append(sites)
        features.append(values)
        places = frame.encoded.positions
        if places is not None:
            if encoder.time is not None:
                middle = places.new_full((len(places), 1), float(sites[0, -1]) + 0.5)
                places = torch.cat([places, middle], 1)
            positions.append(places)
    together, inverse, order, ptr = unique_sites(torch.cat(coords))
    rows = torch.cat(features)
    if len(together) == len(rows):
        rows = rows[order.long()]
    else:
        # Frames that share a site: the mean is that over the points, as when they are one cloud.
        counts = torch.cat([frame.counts for frame in frames]).to(rows.dtype)[:, None]
        rows = segment_sum(rows * counts, order, ptr) / segment_sum(counts, order, ptr)
    first, point_rows = 0, []
    for frame in frames:
        point_rows.append(inverse[first + frame.encoded.point_to_voxel])
        first += len(frame.encoded.coords)
    return Encoded(
        together, rows, torch.cat(point_rows), torch.cat(positions) if positions else None
    )
