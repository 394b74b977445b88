"""Points on surfaces, evenly: where random straight lines cross them."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.datasets.rooms.distance import HALF, distance
from perception.datasets.rooms.texture import hash01
from perception.datasets.rooms.tree import Tree

__all__ = ["crossings"]

Array = NDArray[np.float64]


@njit(nogil=True, cache=True)
def crossings(tree: Tree, density: float, seed: int) -> tuple[Array, NDArray[np.int32]]:
    """``density`` points a square metre on the surface of each primitive, and which it is.

    A line drawn evenly from those that meet a sphere of radius R crosses a surface of area A in it
    A / (2 pi R²) times in the mean, wherever that surface lies.
    """
    rows, cuts = tree[0], tree[1]
    room = 1024
    points = np.empty((room, 3))
    who = np.empty(room, np.int32)
    n = 0
    for i in range(len(rows)):
        p = rows[i]
        radius = 1.0001 * np.sqrt(p[HALF] ** 2 + p[HALF + 1] ** 2 + p[HALF + 2] ** 2)
        expected = density * 2.0 * np.pi * radius * radius
        lines = int(expected + hash01(seed, i, 12345))
        for j in range(lines):
            # An even direction, and an even point of the disc across it.
            z = 2.0 * hash01(seed, i, 4 * j) - 1.0
            a = 2.0 * np.pi * hash01(seed, i, 4 * j + 1)
            s = np.sqrt(max(1.0 - z * z, 0.0))
            dx, dy, dz = s * np.cos(a), s * np.sin(a), z
            r = radius * np.sqrt(hash01(seed, i, 4 * j + 2))
            b = 2.0 * np.pi * hash01(seed, i, 4 * j + 3)
            ux, uy, uz = -np.sin(a), np.cos(a), 0.0
            vx, vy, vz = dy * uz - dz * uy, dz * ux - dx * uz, dx * uy - dy * ux
            u, v = r * np.cos(b), r * np.sin(b)
            h = np.sqrt(max(radius * radius - r * r, 0.0))
            ox = p[0] + u * ux + v * vx - h * dx
            oy = p[1] + u * uy + v * vy - h * dy
            oz = p[2] + u * uz + v * vz - h * dz
            t, last, before = 0.0, 0.0, 1.0
            while t < 2.0 * h:
                d = distance(p, cuts, ox + t * dx, oy + t * dy, oz + t * dz)
                if d * before < 0.0:
                    low, high = last, t  # one crossing between: halve
                    for _ in range(40):
                        m = 0.5 * (low + high)
                        e = distance(p, cuts, ox + m * dx, oy + m * dy, oz + m * dz)
                        if e * before > 0.0:
                            low = m
                        else:
                            high = m
                    if n == room:
                        room *= 2
                        more = np.empty((room, 3))
                        more[:n] = points
                        points = more
                        owners = np.empty(room, np.int32)
                        owners[:n] = who
                        who = owners
                    t_hit = 0.5 * (low + high)
                    points[n, 0] = ox + t_hit * dx
                    points[n, 1] = oy + t_hit * dy
                    points[n, 2] = oz + t_hit * dz
                    who[n] = i
                    n += 1
                    before = d
                last = t
                t += abs(d) + 2e-4
    return points[:n].copy(), who[:n].copy()
