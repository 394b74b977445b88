"""Turned and mirrored copies of a cloud, whose predictions are averaged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.io import PointCloud

__all__ = ["Variant", "variants"]


@dataclass(frozen=True)
class Variant:
    """A copy of a cloud: turned around z by `angle` radians, then mirrored (y to -y)."""

    angle: float = 0.0
    mirrored: bool = False

    @property
    def plain(self) -> bool:
        """Whether the copy is the cloud."""
        return self.angle == 0 and not self.mirrored

    def motion(self) -> NDArray[np.float64]:
        """``[4, 4]``: from the cloud to the copy."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        matrix = np.eye(4)
        matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
        if self.mirrored:
            matrix[1] = -matrix[1]
        return matrix

    def __call__(self, cloud: PointCloud) -> PointCloud:
        """The copy; attributes are shared."""
        if self.plain:
            return cloud
        turn = self.motion()[:3, :3]
        points = (cloud.points.astype(np.float64) @ turn.T).astype(np.float32)
        return cloud.replace(points=points)


def variants(count: int) -> tuple[Variant, ...]:
    """The copies that `count` stands for: copy k is turned by ``360 k / count`` degrees, odd ones
    are mirrored as well; the first is the cloud itself.

    Raises:
        ValueError: `count` is not positive.
    """
    if count < 1:
        raise ValueError(f"augment={count} copies; give 1 (the cloud alone) or more")
    return tuple(Variant(2 * np.pi * k / count, k % 2 == 1) for k in range(count))
