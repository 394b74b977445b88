"""What a data set yields: one scan with everything that is known about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.geometry import Boxes3D
from perception.io import PointCloud

__all__ = ["IGNORE", "Sample"]

#: Label of points that take no part in training or evaluation.
IGNORE = 255


@dataclass(slots=True)
class Sample:
    """One point cloud with its annotations.

    Attributes:
        cloud: points and measured attributes in the LiDAR frame (x forward, y left, z up).
        labels: ``[N] uint8`` class ids, 255 = ignore; None when not annotated.
        instances: ``[N] int32``: the track id of the object a point belongs to, 0 = none.
        boxes: boxes of the objects, in the frame of the cloud.
        pose: ``[4, 4] float64`` ``world_from_sensor``.
        name: a stable identifier, used for output files.

    Raises:
        ValueError: an annotation does not have one entry a point, or the pose is not 4x4.
    """

    cloud: PointCloud
    labels: NDArray[np.uint8] | None = None
    instances: NDArray[np.int32] | None = None
    boxes: Boxes3D | None = None
    pose: NDArray[np.float64] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        n = len(self.cloud.points)
        for field in ("labels", "instances"):
            value = getattr(self, field)
            if value is not None and value.shape != (n,):
                raise ValueError(
                    f"Sample: {field} has shape {list(value.shape)}, the cloud {n} points"
                )
        if self.pose is not None and self.pose.shape != (4, 4):
            raise ValueError(f"Sample: pose must be [4, 4], got {list(self.pose.shape)}")
