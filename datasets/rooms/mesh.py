"""A mesh of a signed distance: naive surface nets (after Gibson, "Constrained elastic surface nets",
1998), whose corners are then drawn onto the surface."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["surface_net"]

#: Signed distances of points ``[N, 3]``; those farther than a limit may be given as the limit.
Distance = Callable[[NDArray[np.float64], float], NDArray[np.float64]]
#: Corners of a block in each direction: distances are asked for block by block.
BLOCK = 16


def _sample(
    distance: Distance, low: NDArray[np.float64], shape: NDArray[np.int64], voxel: float
) -> NDArray[np.float32]:
    """Distances on a grid, exact near the surface; blocks without one are asked once."""
    grid = np.empty(shape, np.float32)
    reach = voxel * np.sqrt(3.0) * (0.5 * BLOCK + 1.0)
    starts = [np.arange(0, n, BLOCK) for n in shape]
    corner = np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 3)
    middle = distance(low + (corner + 0.5 * (BLOCK - 1)) * voxel, 2.0 * reach)
    for (i, j, k), d in zip(corner, middle, strict=True):
        block = grid[i : i + BLOCK, j : j + BLOCK, k : k + BLOCK]
        if abs(d) > reach:
            block[:] = d
            continue
        index = np.stack(np.meshgrid(*(np.arange(n) for n in block.shape), indexing="ij"), axis=-1)
        points = low + (index.reshape(-1, 3) + np.array([i, j, k])) * voxel
        block[:] = distance(points, 2.0 * voxel).reshape(block.shape)
    return grid


def surface_net(
    distance: Distance, low: NDArray[np.float64], high: NDArray[np.float64], voxel: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Corners ``[V, 3]`` and triangles ``[T, 3]`` of the surface in a box, counter-clockwise seen
    from where the distance is positive.

    One corner lies in each voxel that the surface passes through: the mean of where it crosses the
    voxel's edges, moved onto the surface along the gradient. It is closed but where the box cuts it.
    """
    shape = np.maximum(np.ceil((high - low) / voxel).astype(np.int64) + 1, 2)
    grid = _sample(distance, low, shape, voxel)
    inside = grid < 0.0
    cells = shape - 1
    total = np.zeros((*cells, 3), np.float32)
    count = np.zeros(cells, np.uint8)
    edges = []
    for axis in range(3):
        first = [slice(None)] * 3
        second = [slice(None)] * 3
        first[axis], second[axis] = slice(0, -1), slice(1, None)
        a, b = inside[tuple(first)], inside[tuple(second)]
        at = np.argwhere(a != b)
        values = grid[tuple(first)][a != b], grid[tuple(second)][a != b]
        cross = at.astype(np.float32)
        cross[:, axis] += values[0] / (values[0] - values[1])
        edges.append((at, a[a != b]))
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for du in (0, 1):
            for dv in (0, 1):  # the four voxels around an edge
                cell = at.copy()
                cell[:, u] -= du
                cell[:, v] -= dv
                ok = ((cell >= 0) & (cell < cells)).all(axis=1)
                where = tuple(cell[ok].T)
                np.add.at(count, where, 1)
                np.add.at(total, where, cross[ok])
    number = np.full(cells, -1, np.int64)
    has = count > 0
    number[has] = np.arange(has.sum())
    corners = low + voxel * (total[has] / count[has][:, None]).astype(np.float64)

    triangles = []
    for axis, (at, leaves) in enumerate(edges):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        ring = []
        for du, dv in ((1, 1), (0, 1), (0, 0), (1, 0)):
            cell = at.copy()
            cell[:, u] -= du
            cell[:, v] -= dv
            ok = ((cell >= 0) & (cell < cells)).all(axis=1)
            ring.append(np.where(ok, number[tuple(np.clip(cell, 0, cells - 1).T)], -1))
        quad = np.stack(ring, axis=1)
        quad[~leaves] = quad[~leaves][:, ::-1]
        quad = quad[(quad >= 0).all(axis=1)]
        triangles += [quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]]

    step = 1e-4 * voxel * np.eye(3)
    for _ in range(2):
        d = distance(corners, 4.0 * voxel)
        slope = np.stack(
            [distance(corners + e, 4.0 * voxel) - distance(corners - e, 4.0 * voxel) for e in step],
            axis=1,
        )
        slope /= np.linalg.norm(slope, axis=1, keepdims=True) + 1e-15
        corners = corners - np.clip(d, -0.7 * voxel, 0.7 * voxel)[:, None] * slope
    return corners, np.concatenate(triangles)
