"""Which points are there: drop-out and crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perception.datasets.sample import Sample
from perception.datasets.transforms.base import Transform
from perception.datasets.transforms.overlap import first_box
from perception.datasets.transforms.rows import select
from perception.geometry import Boxes3D

__all__ = ["Crop", "CropNearest", "DropFrustum", "DropPoints", "DropSparseBoxes", "Forget"]


@dataclass(frozen=True)
class DropPoints(Transform):
    """Leaves points out, each by itself.

    share: the largest share; the share of a sample is drawn from 0..share.
    """

    share: float = 0.2

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        share = np.float32(rng.uniform(0.0, self.share))
        return select(sample, rng.random(len(sample.cloud), np.float32) >= share)


@dataclass(frozen=True)
class DropFrustum(Transform):
    """Leaves out what lies in a wedge as seen from the sensor, as behind dirt or a blinding light.

    The wedge is centred on a random point of the scan.

    azimuth: largest width in degrees.
    elevation: largest height in degrees.
    share: of the points in the wedge that go.
    probability: of doing it at all.
    """

    azimuth: float = 45.0
    elevation: float = 20.0
    share: float = 1.0
    probability: float = 0.5

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        points = sample.cloud.points
        if len(points) == 0 or rng.random() >= self.probability:
            return sample
        half_width, half_height = np.deg2rad(rng.uniform(0, (self.azimuth, self.elevation))) / 2
        x, y, z = points[int(rng.integers(len(points)))].astype(np.float64)
        turn = np.arctan2(points[:, 1], points[:, 0]) - np.float32(np.arctan2(y, x))
        rise = np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))
        gone = np.abs((turn + np.pi) % (2 * np.pi) - np.pi) <= half_width
        gone &= np.abs(rise - np.arctan2(z, np.hypot(x, y))) <= half_height
        if self.share < 1:
            gone &= rng.random(len(points), np.float32) < np.float32(self.share)
        return select(sample, ~gone)


@dataclass(frozen=True)
class Crop(Transform):
    """Keeps what lies in a region; boxes whose centre lies in it stay.

    max_range: horizontal distance from the origin in metres; None for any.
    box: smallest x, y, z and largest x, y, z in metres, the largest excluded; None for any.
    """

    max_range: float | None = None
    box: tuple[float, float, float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.box is not None and not all(a < b for a, b in zip(self.box[:3], self.box[3:])):  # noqa: B905
            raise ValueError(f"Crop: box={self.box} must be the smallest x, y, z, then the largest")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        cropped = select(sample, self.within(sample.cloud.points))
        if sample.boxes is None:
            return cropped
        return replace(cropped, boxes=sample.boxes[self.within(sample.boxes.boxes[:, :3])])

    def within(
        self, places: NDArray[np.float32], margin: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> NDArray[np.bool_]:
        """``[N]``: which of the places ``[N, 3]`` lie in the region.

        margin: metres along x, y and z at the border of `box` that do not count as in it.
        """
        inside = np.ones(len(places), bool)
        if self.max_range is not None:
            x, y = places[:, 0], places[:, 1]
            inside &= x * x + y * y <= np.float32(self.max_range) ** 2
        for axis in range(3) if self.box is not None else ():
            assert self.box is not None
            inside &= places[:, axis] >= np.float32(self.box[axis] + margin[axis])
            inside &= places[:, axis] < np.float32(self.box[axis + 3] - margin[axis])
        return inside


@dataclass(frozen=True)
class CropNearest(Transform):
    """Keeps the points nearest to a random one of them, where there are too many.

    points: the most that stay. Boxes whose centre is farther away than the last of them go.
    """

    points: int = 100_000

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        points = sample.cloud.points
        if len(points) <= self.points:
            return sample
        centre = points[int(rng.integers(len(points)))]
        square = np.square(points - centre).sum(axis=1)
        farthest = np.partition(square, self.points - 1)[self.points - 1]
        keep = np.flatnonzero(square <= farthest)[: self.points]
        cropped = select(sample, keep)
        if sample.boxes is None:
            return cropped
        near = np.square(sample.boxes.boxes[:, :3] - centre).sum(axis=1) <= farthest
        return replace(cropped, boxes=sample.boxes[near])


@dataclass(frozen=True)
class DropSparseBoxes(Transform):
    """Removes boxes with too few points in them for anybody to find: after drop-out and crops.

    points: the fewest that a box may have; a point in several boxes counts for the first.
    """

    points: int = 1

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        boxes: Boxes3D | None = sample.boxes
        if boxes is None or len(boxes) == 0:
            return sample
        inside = first_box(sample.cloud.points, boxes.boxes)
        counts = np.bincount(inside[inside >= 0], minlength=len(boxes))
        return replace(sample, boxes=boxes[counts >= self.points])


@dataclass(frozen=True)
class Forget(Transform):
    """Leaves out annotations that a task does not use, so that nothing has to keep them true.

    what: which of them.
    """

    what: Sequence[Literal["boxes", "instances", "flow", "images"]] = ("boxes", "images")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return replace(sample, **{name: () if name == "images" else None for name in self.what})  # type: ignore[arg-type]
