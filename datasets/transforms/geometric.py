"""Random changes of where things are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.datasets.sample import Sample
from perception.datasets.transforms.base import Geometric, Transform
from perception.datasets.transforms.overlap import membership_changes
from perception.datasets.transforms.similarity import Similarity, move
from perception.geometry import Boxes3D

__all__ = ["Center", "Elastic", "Flip", "Jitter", "Rotate", "Scale", "Translate"]

LARGEST_GRID = 20_000_000
"""Nodes of a grid of elastic noise; beyond, the granularity is too fine for the scene."""


@dataclass(frozen=True)
class Flip(Geometric):
    """A mirror image.

    x: probability of x to -x (back and front).
    y: probability of y to -y (left and right).
    """

    x: float = 0.0
    y: float = 0.5

    def draw(self, rng: np.random.Generator) -> Similarity:
        """Each axis by itself."""
        signs = np.where(rng.random(2) < (self.x, self.y), -1.0, 1.0)
        return Similarity(np.diag([*signs, 1.0]))


@dataclass(frozen=True)
class Rotate(Geometric):
    """A turn about z, and a slight one about x and y.

    degrees: the largest turn about z, drawn from -degrees..degrees.
    tilt: the largest turn about x and about y in degrees; only where there are no boxes.
    """

    degrees: float = 180.0
    tilt: float = 0.0

    def draw(self, rng: np.random.Generator) -> Similarity:
        """About x, then y, then z."""
        turn = Similarity.about_z(np.deg2rad(rng.uniform(-self.degrees, self.degrees)))
        if self.tilt == 0:
            return turn
        about_x, about_y = np.deg2rad(rng.uniform(-self.tilt, self.tilt, 2))
        cos, sin = np.cos(about_x), np.sin(about_x)
        roll = np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
        cos, sin = np.cos(about_y), np.sin(about_y)
        pitch = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
        return turn @ Similarity(pitch @ roll)


@dataclass(frozen=True)
class Scale(Geometric):
    """One factor on all lengths, drawn evenly from `factor`."""

    factor: tuple[float, float] = (0.95, 1.05)

    def draw(self, rng: np.random.Generator) -> Similarity:
        """The factor about the origin."""
        return Similarity(np.eye(3), float(rng.uniform(*self.factor)))


@dataclass(frozen=True)
class Translate(Geometric):
    """A shift; it also moves the scan against the voxel grid.

    metres: the largest along x and y.
    up: the largest along z; None for the same.
    """

    metres: float = 0.2
    up: float | None = None

    def draw(self, rng: np.random.Generator) -> Similarity:
        """Each axis evenly."""
        most = np.array([self.metres, self.metres, self.metres if self.up is None else self.up])
        return Similarity(np.eye(3), shift=rng.uniform(-most, most))


@dataclass(frozen=True)
class Center(Transform):
    """Moves a scene with no natural origin (a room): middle of its extent in the plane, floor at z = 0.

    floor: the share of points below the floor, against stray points.
    """

    floor: float = 0.001

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        points = sample.cloud.points
        if len(points) == 0:
            return sample
        low, high = sample.cloud.bounds()
        middle = (low[:2] + high[:2]) / 2
        rank = int(self.floor * (len(points) - 1))
        ground = np.partition(points[:, 2], rank)[rank]
        return move(sample, Similarity(np.eye(3), shift=-np.array([*middle, ground])))


@dataclass(frozen=True)
class Jitter(Transform):
    """Noise on every point. A point that would leave or enter a box by it stays where it is.

    sigma: standard deviation along each axis in metres.
    clip: the largest displacement along an axis in metres.
    """

    sigma: float = 0.01
    clip: float = 0.05

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        points = sample.cloud.points
        noise = rng.standard_normal(points.shape, np.float32) * np.float32(self.sigma)
        return _settled(sample, points + noise.clip(-self.clip, self.clip))


@dataclass(frozen=True)
class Elastic(Transform):
    """A smooth random deformation: noise on a coarse grid, blurred, interpolated to the points.

    A point that would leave or enter a box by it stays where it is. After Simard, Steinkraus and
    Platt (2003), in 3D as in Choy, Gwak and Savarese (2019).

    granularity: distances of the grid's nodes in metres, one for each deformation.
    magnitude: standard deviation of the noise of each in metres, before it is blurred.
    probability: of deforming at all.
    """

    granularity: Sequence[float] = (0.2, 0.8)
    magnitude: Sequence[float] = (0.4, 1.6)
    probability: float = 0.95

    def __post_init__(self) -> None:
        if len(self.granularity) != len(self.magnitude):
            raise ValueError(
                f"Elastic: {len(self.granularity)} granularities and {len(self.magnitude)} "
                "magnitudes; give one each"
            )

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        points = sample.cloud.points
        if len(points) == 0 or rng.random() >= self.probability:
            return sample
        moved = points
        for spacing, size in zip(self.granularity, self.magnitude, strict=True):
            low = moved.min(axis=0)
            shape = tuple(((np.ptp(moved, axis=0)) // spacing).astype(int) + 3)
            if np.prod(shape) > LARGEST_GRID:
                raise ValueError(
                    f"Elastic: a granularity of {spacing} m is too fine for a scene of "
                    f"{np.ptp(moved, axis=0).round(1).tolist()} m; take a coarser one, or crop first"
                )
            grid = rng.standard_normal((*shape, 3), np.float32) * np.float32(size)
            for axis in (0, 1, 2, 0, 1, 2):
                grid = _blurred(grid, axis)
            out = np.empty_like(moved)
            _interpolate(moved, low, np.float32(1 / spacing), grid, out)
            moved = out
        return _settled(sample, moved)


def _blurred(grid: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """The mean of three neighbours along an axis; nothing beyond the ends."""
    total = grid.copy()
    inner: list[slice] = [slice(None)] * 4
    lower, upper = list(inner), list(inner)
    lower[axis], upper[axis] = slice(None, -1), slice(1, None)
    total[tuple(upper)] += grid[tuple(lower)]
    total[tuple(lower)] += grid[tuple(upper)]
    total /= 3
    return total


def _settled(sample: Sample, moved: NDArray[np.float32]) -> Sample:
    """`sample` with points moved one by one, except those whose boxes would change."""
    boxes: Boxes3D | None = sample.boxes
    if boxes is not None and len(boxes):
        back = membership_changes(sample.cloud.points, moved, boxes.boxes)
        moved = np.where(back[:, None], sample.cloud.points, moved)
    return replace(sample, cloud=sample.cloud.replace(points=moved))


@njit(cache=True, nogil=True)
def _interpolate(
    points: NDArray[np.float32],
    low: NDArray[np.float32],
    inverse: np.float32,
    grid: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Adds the trilinear value of `grid` at each point to it."""
    for i in range(len(points)):
        fx = (points[i, 0] - low[0]) * inverse
        fy = (points[i, 1] - low[1]) * inverse
        fz = (points[i, 2] - low[2]) * inverse
        x, y, z = int(fx), int(fy), int(fz)
        fx, fy, fz = fx - x, fy - y, fz - z
        for d in range(3):
            value = np.float32(0)
            for a in range(2):
                wx = fx if a else 1 - fx
                for b in range(2):
                    wy = fy if b else 1 - fy
                    for c in range(2):
                        wz = fz if c else 1 - fz
                        value += wx * wy * wz * grid[x + a, y + b, z + c, d]
            out[i, d] = points[i, d] + value
