"""Sun and sky: the colour of the sky, which way a surface faces, and what lies in the shade.

Shadow rays are parallel. So all that start in one cell of the plane across the sun meet the same
short list of primitives: the primitives are entered once into a grid on the plane z = 0, shifted by
their height along the light, and a shadow ray tests the list of its cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.datasets.street.ground import value_noise
from perception.datasets.street.raycast import (
    COS,
    CROWN,
    CYLINDER,
    ELLIPSOID,
    HEDGE,
    KIND,
    MISS,
    SIN,
    SPOKES,
    Z_TOP,
    X,
    Y,
    Z,
    intersect,
)
from perception.datasets.street.weather import Weather

__all__ = ["Light", "facing", "in_shade", "shade_grid", "sky"]

#: Cells of the grid, a side, and their width in m.
CELLS = 200
CELL = 1.0


@dataclass(frozen=True, slots=True)
class Light:
    """The light of one street.

    Attributes:
        sun: ``[3]`` unit vector towards it.
        strength: ``[8]``: red, green, blue of the sun, red, green, blue of the sky above, share of
            the sky that is cloud, how grey the whole sky is.
    """

    sun: NDArray[np.float64]
    strength: NDArray[np.float64]

    @classmethod
    def of(cls, seed: int, weather: Weather) -> Light:
        """Drawn from the seed of a street; rain and fog put clouds before the sun."""
        r = Random(f"light {seed}")
        high, turn = math.radians(r.uniform(22.0, 62.0)), r.uniform(0.0, 2.0 * math.pi)
        sun = (
            math.cos(high) * math.cos(turn),
            math.cos(high) * math.sin(turn),
            math.sin(high),
        )
        warm = 1.0 - math.sin(high)
        cloud = r.choice((0.0, r.uniform(0.1, 0.6), r.uniform(0.3, 0.9)))
        grey = max(weather.grey, 0.9 if r.random() < 0.15 else 0.0)
        direct = 3.0 * (1.0 - 0.97 * grey)
        lift = 1.0 - 0.25 * min(weather.rain / 20.0, 1.0)
        bright = [direct, direct * (0.96 - 0.14 * warm), direct * (0.88 - 0.32 * warm)]
        above = [
            lift * (0.30 + 0.60 * grey),
            lift * (0.39 + 0.54 * grey),
            lift * (0.54 + 0.42 * grey),
        ]
        return cls(np.array(sun), np.array([*bright, *above, cloud, grey]))


@njit(nogil=True, cache=True)
def sky(
    dx: float, dy: float, dz: float, sun: NDArray[np.float64], strength: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Radiance of the sky in a direction; below the horizon that of the haze on it."""
    up = max(dz, 0.0)
    grey = strength[7]
    deep = 1.0 - np.exp(-3.2 * up)
    r = (1.0 - deep) * 0.92 + deep * 0.26
    g = (1.0 - deep) * 0.96 + deep * 0.44
    b = (1.0 - deep) * 1.02 + deep * 0.86
    toward = max(dx * sun[0] + dy * sun[1] + dz * sun[2], 0.0)
    glow = (1.0 - grey) * (0.35 * toward**12 + 1.6 * toward**300)
    if strength[6] > 0.0 and dz > 0.02:
        u, v = dx / (dz + 0.15), dy / (dz + 0.15)
        puff = value_noise(1.1 * u, 1.1 * v, 31) + 0.5 * value_noise(2.7 * u, 2.7 * v, 32)
        puff += 0.25 * value_noise(6.1 * u, 6.1 * v, 33)
        cover = min(max((0.5 * puff + strength[6] - 0.35) * 1.8, 0.0), 1.0) * min(dz * 8.0, 1.0)
        white = 1.12 - 0.25 * cover
        r += cover * (white - r)
        g += cover * (white - g)
        b += cover * (white * 1.02 - b)
    dull = 0.86 - 0.14 * up
    r += grey * (dull - r) + glow
    g += grey * (dull * 1.01 - g) + 0.92 * glow
    b += grey * (dull * 1.03 - b) + 0.75 * glow
    return r, g, b


@njit(nogil=True, cache=True)
def facing(p: NDArray[np.float64], x: float, y: float, z: float) -> tuple[float, float, float]:
    """Outward unit normal of a primitive at a point on its surface (or within it, of leaves)."""
    kind = int(p[KIND])
    c, s = p[COS], p[SIN]
    rx, ry, rz = x - p[X], y - p[Y], z - p[Z]
    if kind <= HEDGE:
        lx, ly = c * rx + s * ry, c * ry - s * rx
        height = p[Z_TOP] - p[Z]
        front, back = (p[9] - p[7]) / height, (p[8] - p[6]) / height
        side = (p[11] - p[10]) / height
        over = lx - front * rz - p[7]
        nx, ny, nz = 1.0, 0.0, -front
        if back * rz + p[6] - lx > over:
            over = back * rz + p[6] - lx
            nx, ny, nz = -1.0, 0.0, back
        if ly - side * rz - p[10] > over:
            over = ly - side * rz - p[10]
            nx, ny, nz = 0.0, 1.0, -side
        if -ly - side * rz - p[10] > over:
            over = -ly - side * rz - p[10]
            nx, ny, nz = 0.0, -1.0, -side
        if rz - height > over:
            over = rz - height
            nx, ny, nz = 0.0, 0.0, 1.0
        if -rz > over:
            nx, ny, nz = 0.0, 0.0, -1.0
    elif kind in (ELLIPSOID, CROWN):
        nx = (c * rx + s * ry) / (p[6] * p[6])
        ny = (c * ry - s * rx) / (p[7] * p[7])
        nz = rz / (p[8] * p[8])
    else:
        length2 = p[6] * p[6] + p[7] * p[7] + p[8] * p[8]
        f = (rx * p[6] + ry * p[7] + rz * p[8]) / max(length2, 1e-12)
        if kind == SPOKES or f < 1e-4 or f > 1.0 - 1e-4:
            sign = 1.0 if f > 0.5 else -1.0
            nx, ny, nz = sign * p[6], sign * p[7], sign * p[8]
        else:
            nx, ny, nz = rx - f * p[6], ry - f * p[7], rz - f * p[8]
        norm = 1.0 / max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-12)
        return nx * norm, ny * norm, nz * norm
    norm = 1.0 / max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-12)
    return (c * nx - s * ny) * norm, (s * nx + c * ny) * norm, nz * norm


@njit(nogil=True, cache=True)
def _cells(
    p: NDArray[np.float64], ox: float, oy: float, ax: float, ay: float
) -> tuple[int, int, int, int]:
    """Range of cells (first and last of x, of y) that a primitive shades."""
    kind = int(p[KIND])
    if kind <= HEDGE:
        ex = max(abs(p[6]), abs(p[7]), abs(p[8]), abs(p[9]))
        ey = max(p[10], p[11])
        rx = abs(p[COS]) * ex + abs(p[SIN]) * ey
        ry = abs(p[SIN]) * ex + abs(p[COS]) * ey
        x0, x1, y0, y1 = p[X] - rx, p[X] + rx, p[Y] - ry, p[Y] + ry
        low, high = p[Z], p[Z_TOP]
    elif kind >= CYLINDER:
        x0, x1 = min(p[X], p[X] + p[6]) - p[9], max(p[X], p[X] + p[6]) + p[9]
        y0, y1 = min(p[Y], p[Y] + p[7]) - p[9], max(p[Y], p[Y] + p[7]) + p[9]
        low, high = min(p[Z], p[Z] + p[8]), max(p[Z], p[Z] + p[8])
    else:
        radius = max(p[6], p[7])
        x0, x1, y0, y1 = p[X] - radius, p[X] + radius, p[Y] - radius, p[Y] + radius
        low, high = p[Z] - p[8], p[Z] + p[8]
    x0, x1 = x0 - max(low * ax, high * ax), x1 - min(low * ax, high * ax)
    y0, y1 = y0 - max(low * ay, high * ay), y1 - min(low * ay, high * ay)
    half = 0.5 * CELLS
    return (
        max(int(np.floor((x0 - ox) / CELL + half)), 0),
        min(int(np.floor((x1 - ox) / CELL + half)), CELLS - 1),
        max(int(np.floor((y0 - oy) / CELL + half)), 0),
        min(int(np.floor((y1 - oy) / CELL + half)), CELLS - 1),
    )


@njit(nogil=True, cache=True)
def shade_grid(
    primitives: NDArray[np.float64], ox: float, oy: float, towards: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Which primitives shade which cell around (ox, oy) from light that comes from ``towards [3]``:
    those of cell c are ``members[start[c]:start[c + 1]]``."""
    ax, ay = towards[0] / towards[2], towards[1] / towards[2]
    size = np.zeros(CELLS * CELLS + 1, np.int64)
    for i in range(len(primitives)):
        x0, x1, y0, y1 = _cells(primitives[i], ox, oy, ax, ay)
        for u in range(x0, x1 + 1):
            for v in range(y0, y1 + 1):
                size[u * CELLS + v + 1] += 1
    begin = np.cumsum(size)
    fill = begin[:-1].copy()
    members = np.empty(begin[-1], np.int32)
    for i in range(len(primitives)):
        x0, x1, y0, y1 = _cells(primitives[i], ox, oy, ax, ay)
        for u in range(x0, x1 + 1):
            for v in range(y0, y1 + 1):
                members[fill[u * CELLS + v]] = i
                fill[u * CELLS + v] += 1
    return begin, members


@njit(nogil=True, cache=True)
def in_shade(
    x: float,
    y: float,
    z: float,
    ox: float,
    oy: float,
    towards: NDArray[np.float64],
    begin: NDArray[np.int64],
    members: NDArray[np.int32],
    primitives: NDArray[np.float64],
    state: NDArray[np.uint64],
) -> bool:
    """Whether something stands between a point and the light; outside the grid nothing does."""
    ax, ay = towards[0] / towards[2], towards[1] / towards[2]
    u = int(np.floor((x - z * ax - ox) / CELL + 0.5 * CELLS))
    v = int(np.floor((y - z * ay - oy) / CELL + 0.5 * CELLS))
    if not (0 <= u < CELLS and 0 <= v < CELLS):
        return False
    cell = u * CELLS + v
    for k in range(begin[cell], begin[cell + 1]):
        p = primitives[members[k]]
        # Cheap: whatever ends below the point shades nothing there.
        if p[KIND] <= HEDGE and p[Z_TOP] < z:
            continue
        t, _, _ = intersect(p, x, y, z, towards[0], towards[1], towards[2], state)
        if t < MISS:
            return True
    return False
