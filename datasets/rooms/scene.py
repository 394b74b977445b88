"""A scene: solids with colours under lamps, exact in what it shows and in where it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perception.datasets.rooms import distance as ds
from perception.datasets.rooms import texture as tx
from perception.datasets.rooms.crossings import crossings
from perception.datasets.rooms.mesh import surface_net
from perception.datasets.rooms.render import cast, distances, outward, paint
from perception.datasets.rooms.tree import Tree, bounds, build
from perception.datasets.sample import IGNORE, Image
from perception.geometry import Camera

__all__ = ["Scene", "Surface", "View"]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What a camera sees, exactly, at the centres of its pixels.

    Attributes:
        color: ``[H, W, 3] uint8`` sRGB, black where nothing is.
        alpha: ``[H, W] uint8`` the share of the pixel that something covers, times 255.
        depth: ``[H, W] float32`` metres along the camera's z axis, 0 where nothing is.
        normals: ``[H, W, 3] float32`` outward unit normals in the scene's frame, 0 where nothing is.
        labels: ``[H, W] uint8`` class ids, 255 where nothing is.
        instances: ``[H, W] int32``, 0 where no object is.
    """

    color: NDArray[np.uint8]
    alpha: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    labels: NDArray[np.uint8]
    instances: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """Points spread evenly over all surfaces.

    Attributes:
        points: ``[N, 3] float64``.
        normals: ``[N, 3] float32`` outward.
        labels, instances: ``[N]`` uint8, int32.
    """

    points: NDArray[np.float64]
    normals: NDArray[np.float32]
    labels: NDArray[np.uint8]
    instances: NDArray[np.int32]


@dataclass(eq=False)
class Scene:
    """Solids, their materials and the light on them. z is up; metres.

    Attributes:
        rows: ``[M, 28] float64`` primitives, see ``distance.py``; column OBJECT counts objects.
        cuts: ``[C, 28]`` primitives cut out of them.
        materials: ``[K, 12]``, see ``texture.py``.
        lamps: ``[L, 10]`` samples of the lamps: position, direction (zero: all round), colour,
            squared size.
        ambient: ``[3]`` light from all sides.
        labels: ``[O] uint8`` class of each object.
        instances: ``[O] int32`` instance of each object, 0 = none.
        inside: ``[B, 2, 3]`` low and high corners of the boxes that can be seen into; surfaces out
            of them are no part of ``surface``.
    """

    rows: NDArray[np.float64]
    cuts: NDArray[np.float64]
    materials: NDArray[np.float64]
    lamps: NDArray[np.float64]
    ambient: NDArray[np.float64]
    labels: NDArray[np.uint8]
    instances: NDArray[np.int32]
    inside: NDArray[np.float64]
    tree: Tree = field(init=False, repr=False)

    def __post_init__(self) -> None:
        order, boxes, children = build(bounds(self.rows))
        self.rows = np.ascontiguousarray(self.rows[order])
        self.cuts = np.ascontiguousarray(self.cuts.reshape(-1, ds.ROW))
        self.tree = (self.rows, self.cuts, boxes, children)
        # The last entry is what a ray that meets nothing finds.
        self._object = np.append(self.rows[:, ds.OBJECT].astype(np.int64), len(self.labels))
        self._label = np.append(self.labels, np.uint8(IGNORE))
        self._instance = np.append(self.instances, np.int32(0))

    def sdf(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Signed distance ``[N]`` in metres of ``points [N, 3]`` to the nearest surface.

        Positive in free space, where it is exact except near the inside of hollow things (cups,
        bowls), where it is a lower bound; inside solids negative and an upper bound.
        """
        return distances(self.tree, _points(points), ds.MISS)[0]

    def nearest(self, points: NDArray[np.floating]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Label and instance ``[N]`` of the nearest surface of ``points [N, 3]``."""
        return self.annotate(distances(self.tree, _points(points), ds.MISS)[1])

    def annotate(self, who: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Label and instance ``[N]`` of primitives ``who [N]``; -1: none."""
        which = self._object[who]
        return self._label[which], self._instance[which]

    def cast(
        self,
        origins: NDArray[np.floating],
        directions: NDArray[np.floating],
        far: float = 1e3,
    ) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Range ``[N]`` along unit ``directions [N, 3]`` and the primitive met; inf and -1 where
        there is none within ``far``. ``origins``: ``[3]`` or ``[N, 3]``."""
        start = np.ascontiguousarray(np.asarray(origins, np.float64).reshape(-1, 3))
        ranges, who = cast(self.tree, start, _points(directions), float(far))
        ranges[who < 0] = np.inf
        return ranges, who

    def normals(self, points: NDArray[np.floating], who: NDArray[np.int32]) -> NDArray[np.float64]:
        """Outward unit normals ``[N, 3]`` of points on primitives ``who [N]``, none of them -1."""
        return outward(self.tree, _points(points), who)

    def lost(self, who: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which primitives ``who [N]`` are panes or lights, that depth sensors do not see."""
        glow = self.materials[self.rows[:, ds.MATERIAL].astype(np.int64), tx.GLOW] >= 1.0
        return np.append(glow, False)[who]

    def paint(
        self, points: NDArray[np.floating], who: NDArray[np.int32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """sRGB ``[N, 3]`` and outward normals ``[N, 3]`` of points on primitives ``who [N]``."""
        return paint(self.tree, self.materials, self.lamps, self.ambient, _points(points), who)

    def part(self, instances: Sequence[int]) -> Scene:
        """The scene of some objects alone, under the same lamps.

        Raises:
            ValueError: there are no such objects.
        """
        keep = np.isin(self._instance[self._object[:-1]], np.asarray(instances))
        if not keep.any():
            raise ValueError(f"Scene: no instance of {list(instances)}; see Scene.instances")
        return dataclasses.replace(self, rows=self.rows[keep])

    def render(self, camera: Camera, *, samples: int = 1, far: float = 100.0) -> View:
        """The view of a camera whose pose is in the scene's frame.

        Args:
            camera: any; its lens is honoured.
            samples: colour is the mean of ``samples`` x ``samples`` rays a pixel; depth, normals and
                annotations are those of the ray through the pixel's centre.
            far: beyond it, metres along the ray, nothing is seen.
        """
        height, width = camera.height, camera.width
        origin, directions = camera.rays()
        ranges, who = cast(self.tree, origin[None], directions, far)
        met = who >= 0
        points = origin + np.where(met, ranges, 0.0)[:, None] * directions
        color, normals = self.paint(points, who)
        alpha = np.where(met, 255, 0).astype(np.uint8)
        depth = np.where(met, ranges * (directions @ camera.pose[:3, 2]), 0.0)
        if samples > 1:
            color, alpha = self._fine(camera, samples, far)
        labels, instances = self.annotate(who)
        return View(
            color.reshape(height, width, 3),
            alpha.reshape(height, width),
            depth.astype(np.float32).reshape(height, width),
            normals.reshape(height, width, 3),
            labels.reshape(height, width),
            instances.reshape(height, width),
        )

    def _fine(
        self, camera: Camera, samples: int, far: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        v, u = np.mgrid[0 : camera.height, 0 : camera.width]
        corner = np.stack([u.ravel(), v.ravel()], axis=1)
        total, cover = np.zeros((len(corner), 3)), np.zeros(len(corner))
        for i in range(samples):
            for j in range(samples):
                origin, directions = camera.rays(corner + (np.array([i, j]) + 0.5) / samples)
                ranges, who = cast(self.tree, origin[None], directions, far)
                points = origin + np.where(who >= 0, ranges, 0.0)[:, None] * directions
                total += self.paint(points, who)[0]
                cover += who >= 0
        color = total / np.maximum(cover, 1.0)[:, None]
        alpha = cover * (255.0 / samples**2)
        return (color + 0.5).astype(np.uint8), (alpha + 0.5).astype(np.uint8)

    def image(
        self, camera: Camera, *, samples: int = 1, alpha: bool = False, name: str = ""
    ) -> Image:
        """The view of a camera as an ``Image`` with RGB or, with ``alpha``, RGBA, and depth."""
        view = self.render(camera, samples=samples)
        pixels = view.color
        if alpha:
            pixels = np.concatenate([view.color, view.alpha[..., None]], axis=2)
        return Image(camera, pixels, view.depth, name=name)

    def mesh(self, voxel: float = 0.02) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Corners ``[V, 3]`` and triangles ``[T, 3]``, seen from outside counter-clockwise, of the
        surfaces within ``inside``.

        What is thinner than ``voxel`` metres is lost. See ``mesh.py``.
        """
        if not voxel > 0:
            raise ValueError(f"Scene: voxel is {voxel}; give its edge in metres")
        low, high = self.inside[:, 0].min(axis=0), self.inside[:, 1].max(axis=0)

        def distance(points: NDArray[np.float64], far: float) -> NDArray[np.float64]:
            return distances(self.tree, points, far)[0]

        return surface_net(distance, low - voxel, high + voxel, voxel)

    def surface(self, density: float = 500.0, seed: int = 0) -> Surface:
        """``density`` points a square metre over every surface that borders on free space.

        Drawn as the crossings of random straight lines with each primitive (evenly spread by
        Crofton's formula), less those inside another solid or out of ``inside``.
        """
        points, who = crossings(self.tree, float(density), int(seed))
        keep = np.zeros(len(points), bool)
        for low, high in self.inside:
            keep |= ((points > low) & (points < high)).all(axis=1)
        points, who = points[keep], who[keep]
        normals = outward(self.tree, points, who)
        # Free space has to begin above it: where two solids touch there is none.
        keep = distances(self.tree, points + 2e-4 * normals, ds.MISS)[0] > 5e-5
        keep &= distances(self.tree, points, ds.MISS)[0] > -1e-6
        labels, instances = self.annotate(who[keep])
        return Surface(points[keep], normals[keep].astype(np.float32), labels, instances)


def _points(points: NDArray[np.floating]) -> NDArray[np.float64]:
    array = np.ascontiguousarray(points, np.float64)
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"Scene: points must be [N, 3], got {list(array.shape)}")
    return array
