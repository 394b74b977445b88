"""Light on surfaces, and what rays bring back: compiled, one thread, without the GIL.

The light at a point is ambient light dimmed by what stands near (from the distances of two points
on the normal, after Evans, "Fast approximations for global illumination on dynamic scenes") plus the
direct light of small lamps behind shadow rays. It depends on the point and its normal alone, never
on the observer.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.datasets.rooms.distance import CUTS, intersect, normal
from perception.datasets.rooms.texture import albedo
from perception.datasets.rooms.tree import DEPTH, Tree, nearest, occluded, trace

__all__ = ["cast", "distances", "outward", "paint"]

Array = NDArray[np.float64]

# Columns of a lamp sample: position 0..2, direction 3..5 (zero: all round), colour 6..8, radius² 9.
LAMP: Final = 10
FAINT: Final = 2.5e-3  # light below what 8 bits show is left out
LIFT: Final = 1e-4  # m: shadow rays start so far above the surface


@njit(nogil=True, cache=True)
def cast(
    tree: Tree, origins: Array, directions: Array, far: float
) -> tuple[Array, NDArray[np.int32]]:
    """Range along unit ``directions [N, 3]`` from ``origins`` (``[1, 3]`` or ``[N, 3]``) and the
    primitive met: (1e9, -1) where none is nearer than ``far``."""
    n = len(directions)
    ranges = np.empty(n)
    who = np.empty(n, np.int32)
    stack = np.empty(DEPTH, np.int64)
    several = len(origins) > 1
    for i in range(n):
        o = origins[i if several else 0]
        d = directions[i]
        ranges[i], who[i] = trace(tree, stack, o[0], o[1], o[2], d[0], d[1], d[2], far)
    return ranges, who


@njit(nogil=True, cache=True)
def distances(tree: Tree, points: Array, far: float) -> tuple[Array, NDArray[np.int32]]:
    """Signed distances of ``points [N, 3]`` to the union, and the nearest primitives."""
    n = len(points)
    out = np.empty(n)
    who = np.empty(n, np.int32)
    stack = np.empty(DEPTH, np.int64)
    for i in range(n):
        out[i], who[i] = nearest(tree, stack, points[i, 0], points[i, 1], points[i, 2], far)
    return out, who


@njit(nogil=True, cache=True)
def outward(tree: Tree, points: Array, who: NDArray[np.int32]) -> Array:
    """Outward unit normals ``[N, 3]`` of points on primitives ``who [N]``, none of them -1."""
    out = np.empty((len(points), 3))
    for i in range(len(points)):
        p = points[i]
        out[i, 0], out[i, 1], out[i, 2] = normal(tree[0][who[i]], tree[1], p[0], p[1], p[2])
    return out


@njit(nogil=True, cache=True)
def _encode(x: float) -> int:
    """Linear light to 8 bits: highlights rolled off, then gamma 2.2."""
    if x > 0.7:
        x = 0.7 + 0.3 * (1.0 - np.exp(-(x - 0.7) / 0.3))
    return int(255.0 * x ** (1.0 / 2.2) + 0.5)


@njit(nogil=True, cache=True)
def paint(
    tree: Tree,
    materials: Array,
    lamps: Array,
    ambient: Array,
    points: Array,
    who: NDArray[np.int32],
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Colours ``[N, 3]`` and outward normals ``[N, 3]`` of points on primitives ``who [N]``; black
    and zero where that is -1. ``ambient [3]``; ``lamps [L, 10]``."""
    n = len(points)
    colors = np.zeros((n, 3), np.uint8)
    normals = np.zeros((n, 3), np.float32)
    stack = np.empty(DEPTH, np.int64)
    # Neighbours are mostly in the shadow of the same thing: try that first.
    shade = np.full(len(lamps), -1, np.int64)
    rows, cuts = tree[0], tree[1]
    for i in range(n):
        if who[i] < 0:
            continue
        p = rows[who[i]]
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        nx, ny, nz = normal(p, cuts, x, y, z)
        normals[i, 0], normals[i, 1], normals[i, 2] = nx, ny, nz
        r, g, b, glow = albedo(p, materials, x, y, z, nx, ny, nz)
        if glow >= 1.0:
            colors[i, 0], colors[i, 1] = _encode(glow * r), _encode(glow * g)
            colors[i, 2] = _encode(glow * b)
            continue
        open_ = 1.0
        reach, weight = 0.07, 0.45
        for _ in range(2):
            d = nearest(tree, stack, x + reach * nx, y + reach * ny, z + reach * nz, reach)[0]
            open_ -= weight * (1.0 - max(d, 0.0) / reach)
            reach *= 5.0
            weight *= 0.9
        open_ = max(open_, 0.1) * (0.85 + 0.15 * nz)
        lr, lg, lb = ambient[0] * open_, ambient[1] * open_, ambient[2] * open_
        sx, sy, sz = x + LIFT * nx, y + LIFT * ny, z + LIFT * nz
        skip = who[i] if p[CUTS] == 0.0 else -1
        for k in range(len(lamps)):
            lamp = lamps[k]
            dx, dy, dz = lamp[0] - sx, lamp[1] - sy, lamp[2] - sz
            square = dx * dx + dy * dy + dz * dz
            length = np.sqrt(square)
            dx, dy, dz = dx / length, dy / length, dz / length
            cosine = nx * dx + ny * dy + nz * dz
            if cosine <= 0.0:
                continue
            if lamp[3] != 0.0 or lamp[4] != 0.0 or lamp[5] != 0.0:
                cosine *= max(-(lamp[3] * dx + lamp[4] * dy + lamp[5] * dz), 0.0)
            f = cosine / (square + lamp[9])
            if f * max(lamp[6], max(lamp[7], lamp[8])) < FAINT:
                continue
            far = length - 2.0 * LIFT
            if shade[k] >= 0 and shade[k] != skip:
                j = shade[k]
                if _blocks(tree, j, sx, sy, sz, dx, dy, dz, far):
                    continue
            shade[k] = occluded(tree, stack, skip, sx, sy, sz, dx, dy, dz, far)
            if shade[k] >= 0:
                continue
            lr, lg, lb = lr + f * lamp[6], lg + f * lamp[7], lb + f * lamp[8]
        colors[i, 0] = _encode(r * (lr + glow))
        colors[i, 1] = _encode(g * (lg + glow))
        colors[i, 2] = _encode(b * (lb + glow))
    return colors, normals


@njit(nogil=True, cache=True)
def _blocks(
    tree: Tree,
    i: int,
    ox: float,
    oy: float,
    oz: float,
    dx: float,
    dy: float,
    dz: float,
    far: float,
) -> bool:
    return intersect(tree[0][i], tree[1], ox, oy, oz, dx, dy, dz, far) < far
