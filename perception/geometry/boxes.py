"""Oriented 3D boxes of one scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Boxes3D"]


@dataclass(frozen=True, slots=True)
class Boxes3D:
    """Upright boxes in one right-handed frame (x forward, y left, z up; metres, radians).

    Attributes:
        boxes: ``[M, 7] float32``: x, y, z of the geometric centre, length (along the box's x),
            width (along its y), height, yaw counter-clockwise from +x.
        labels: ``[M] int64`` class ids.
        velocity: ``[M, 2] float32`` speed over ground in m/s along the axes of the same frame,
            or None where it is not known.
        track_ids: ``[M] int64``, the same for the same object in every frame of a sequence,
            or None.

    Raises:
        ValueError: shapes disagree.

    Example:
        >>> b = Boxes3D(np.array([[10, 0, 0, 4, 2, 1.5, 0]]), np.array([8]))
        >>> b.contains(np.array([[11.9, 0.9, 0.7], [12.1, 0.0, 0.0]]))[0].tolist()
        [True, False]
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    velocity: NDArray[np.float32] | None = None
    track_ids: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        boxes = np.ascontiguousarray(self.boxes, dtype=np.float32)
        labels = np.ascontiguousarray(self.labels, dtype=np.int64)
        if boxes.ndim != 2 or boxes.shape[1] != 7:
            raise ValueError(f"Boxes3D: boxes must be [M, 7], got {list(boxes.shape)}")
        if labels.shape != (len(boxes),):
            raise ValueError(f"Boxes3D: {len(boxes)} boxes but labels {list(labels.shape)}")
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "labels", labels)
        if self.velocity is not None:
            velocity = np.ascontiguousarray(self.velocity, dtype=np.float32)
            if velocity.shape != (len(boxes), 2):
                raise ValueError(
                    f"Boxes3D: velocity must be [{len(boxes)}, 2], got {list(velocity.shape)}"
                )
            object.__setattr__(self, "velocity", velocity)
        if self.track_ids is not None:
            track_ids = np.ascontiguousarray(self.track_ids, dtype=np.int64)
            if track_ids.shape != (len(boxes),):
                raise ValueError(
                    f"Boxes3D: track_ids must be [{len(boxes)}], got {list(track_ids.shape)}"
                )
            object.__setattr__(self, "track_ids", track_ids)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: NDArray[np.bool_] | NDArray[np.integer] | slice) -> Boxes3D:
        """The boxes chosen by a mask, an index array or a slice, with all their attributes."""
        return Boxes3D(
            self.boxes[index],
            self.labels[index],
            None if self.velocity is None else self.velocity[index],
            None if self.track_ids is None else self.track_ids[index],
        )

    def corners(self) -> NDArray[np.float32]:
        """``[M, 8, 3]`` corners: the four of the bottom counter-clockwise from front left, then
        the four of the top in the same order."""
        x = np.array([1, -1, -1, 1, 1, -1, -1, 1], dtype=np.float32) * 0.5
        y = np.array([1, 1, -1, -1, 1, 1, -1, -1], dtype=np.float32) * 0.5
        z = np.array([-1, -1, -1, -1, 1, 1, 1, 1], dtype=np.float32) * 0.5
        local = np.stack([x, y, z], axis=1)[None] * self.boxes[:, None, 3:6]
        cos, sin = np.cos(self.boxes[:, 6, None]), np.sin(self.boxes[:, 6, None])
        rotated = np.stack(
            [
                cos * local[..., 0] - sin * local[..., 1],
                sin * local[..., 0] + cos * local[..., 1],
                local[..., 2],
            ],
            axis=2,
        )
        return rotated + self.boxes[:, None, :3]

    def contains(self, points: NDArray[np.floating], margin: float = 0.0) -> NDArray[np.bool_]:
        """``[M, N]``: which of the points ``[N, 3]`` lie inside each box grown by ``margin`` m
        on every side."""
        points = np.asarray(points)
        inside = np.empty((len(self), len(points)), dtype=bool)
        for i, (x, y, z, length, width, height, yaw) in enumerate(self.boxes.astype(np.float64)):
            dx, dy, dz = points[:, 0] - x, points[:, 1] - y, points[:, 2] - z
            cos, sin = np.cos(yaw), np.sin(yaw)
            inside[i] = np.abs(cos * dx + sin * dy) <= length / 2 + margin
            inside[i] &= np.abs(cos * dy - sin * dx) <= width / 2 + margin
            inside[i] &= np.abs(dz) <= height / 2 + margin
        return inside
