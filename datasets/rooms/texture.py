"""What colour a material has at a point: patterns that fill space, computed, never stored."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.datasets.rooms.distance import HALF, MATERIAL, OFFSET, to_local

__all__ = ["albedo", "hash01"]

Array = NDArray[np.float64]

# Columns of a material; colours are linear, 0..1.
PATTERN: Final = 0
FIRST: Final = 1  # main colour: 1, 2, 3
SECOND: Final = 4  # other colour: 4, 5, 6
SIZE: Final = 7  # period of the pattern, m
STRENGTH: Final = 8  # of the noise on top
GLOW: Final = 9  # light that it gives off itself, times its colour
WORLD: Final = 10  # 1: the pattern lies in the frame of the scene, 0: in that of each primitive
SEED: Final = 11
COLUMNS: Final = 12

PLAIN: Final = 0
CHECKER: Final = 1
STRIPES: Final = 2
WOOD: Final = 3
MARBLE: Final = 4
PLANKS: Final = 5
TILES: Final = 6
PICTURE: Final = 7
OUTDOORS: Final = 8
DOTS: Final = 9
RUG: Final = 10
SPINE: Final = 11
BRICKS: Final = 12


@njit(nogil=True, cache=True)
def hash01(x: int, y: int, z: int) -> float:
    """A number in [0, 1) for three integers."""
    h = np.uint64(x) * np.uint64(0x9E3779B97F4A7C15)
    h ^= np.uint64(y) * np.uint64(0xC2B2AE3D27D4EB4F)
    h ^= np.uint64(z) * np.uint64(0x165667B19E3779F9)
    h = (h ^ (h >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(32))) * np.uint64(0x94D049BB133111EB)
    return float((h ^ (h >> np.uint64(31))) >> np.uint64(11)) / 9007199254740992.0


@njit(nogil=True, cache=True)
def _noise(x: float, y: float, z: float) -> float:
    """Smooth noise, 0..1, of period one."""
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    i, j, k = int(fx), int(fy), int(fz)
    x, y, z = x - fx, y - fy, z - fz
    x, y, z = x * x * (3.0 - 2.0 * x), y * y * (3.0 - 2.0 * y), z * z * (3.0 - 2.0 * z)
    value = 0.0
    for c in range(8):
        u, v, w = c & 1, (c >> 1) & 1, c >> 2
        weight = (x if u else 1.0 - x) * (y if v else 1.0 - y) * (z if w else 1.0 - z)
        value += weight * hash01(i + u, j + v, k + w)
    return value


@njit(nogil=True, cache=True)
def _stripe(x: float, soft: float) -> float:
    """A wave of period one between 0 and 1 with flanks ``soft`` wide."""
    x = abs(x - np.floor(x) - 0.5) - 0.25
    return min(max(0.5 + x / soft, 0.0), 1.0)


@njit(nogil=True, cache=True)
def _face(
    p: Array, x: float, y: float, z: float, nx: float, ny: float, nz: float
) -> tuple[float, float, float, float]:
    """Coordinates on the face that a normal points out of (v upward where there is an upward), and
    the half extents of that face."""
    a, b, c = abs(nx), abs(ny), abs(nz)
    if c >= a and c >= b:
        return x, y, p[HALF], p[HALF + 1]
    if a >= b:
        return (y if nx > 0.0 else -y), z, p[HALF + 1], p[HALF + 2]
    return (-x if ny > 0.0 else x), z, p[HALF], p[HALF + 2]


@njit(nogil=True, cache=True)
def _picture(s: int, u: float, v: float) -> tuple[float, float, float]:
    """An abstract painting or a landscape over [-1, 1]²: RGB."""
    r, g, b = hash01(s, 1, 1), hash01(s, 1, 2), hash01(s, 1, 3)
    kind = hash01(s, 2, 0)
    if kind < 0.4:  # hills in front of each other
        t = 0.5 + 0.5 * v
        r, g, b = 0.75 - 0.35 * t + 0.2 * r, 0.65 - 0.2 * t, 0.5 + 0.35 * t
        for k in range(4):
            height = 0.45 - 0.33 * k
            height += 0.5 * (_noise(1.4 * u + 10.0 * k, float(s % 97), float(k)) - 0.5)
            height += 0.12 * (_noise(6.0 * u, float(s % 97), 5.0 + k) - 0.5)
            if v < height:
                f = 0.25 + 0.18 * k
                r = 0.55 * (1.0 - f) + f * 0.3 * hash01(s, 3, k)
                g = 0.6 * (1.0 - f) + f * (0.2 + 0.3 * hash01(s, 4, k))
                b = 0.7 * (1.0 - f) + f * 0.25 * hash01(s, 5, k)
        return r, g, b
    for k in range(9):
        cu, cv = 2.0 * hash01(s, 10 + k, 0) - 1.0, 2.0 * hash01(s, 10 + k, 1) - 1.0
        size = 0.12 + 0.45 * hash01(s, 10 + k, 2)
        du, dv = u - cu, v - cv
        if kind < 0.7:
            inside = du * du + dv * dv < size * size
        else:
            inside = abs(du) < size and abs(dv) < size * (0.3 + hash01(s, 10 + k, 6))
        if inside:
            f = 0.85
            r += f * (hash01(s, 10 + k, 3) - r)
            g += f * (hash01(s, 10 + k, 4) - g)
            b += f * (hash01(s, 10 + k, 5) - b)
    return r * r, g * g, b * b


@njit(nogil=True, cache=True)
def _outdoors(s: int, u: float, v: float) -> tuple[float, float, float]:
    """A view out of a window over metres u, v from its middle: sky, houses or trees, ground."""
    horizon = -0.25 + 0.1 * _noise(0.8 * u, 3.0, float(s % 31))
    cloud = _noise(1.5 * u + 7.0, 4.0 * v, float(s % 53))
    cloud = min(max(2.2 * (cloud - 0.5), 0.0), 1.0)
    t = min(max(0.5 + 0.5 * v, 0.0), 1.0)
    r, g, b = 0.75 - 0.4 * t, 0.85 - 0.25 * t, 1.0
    r, g, b = r + cloud * (1.0 - r), g + cloud * (1.0 - g), b
    if hash01(s, 0, 7) < 0.5:
        cell = np.floor(2.5 * u)
        top = horizon + 0.12 + 0.5 * hash01(int(cell), s, 3)
        if v < top:
            f = 0.3 + 0.5 * hash01(int(cell), s, 4)
            lit = _stripe(10.0 * u, 0.1) * _stripe(9.0 * (v - top) + 0.2, 0.1)
            f -= 0.2 * lit
            r, g, b = f, 0.92 * f, 0.85 * f
    elif v < horizon + 0.55 * _noise(2.2 * u, 1.0, float(s % 29)):
        f = 0.25 + 0.5 * _noise(14.0 * u, 14.0 * v, 2.0)
        r, g, b = 0.5 * f, 0.75 * f, 0.3 * f
    if v < horizon - 0.1:
        f = 0.7 + 0.3 * _noise(5.0 * u, 16.0 * v, 9.0)
        r, g, b = 0.3 * f, 0.42 * f, 0.2 * f
    return r, g, b


@njit(nogil=True, cache=True)
def _mix(m: Array, f: float) -> tuple[float, float, float]:
    return m[1] + f * (m[4] - m[1]), m[2] + f * (m[5] - m[2]), m[3] + f * (m[6] - m[3])


@njit(nogil=True, cache=True)
def albedo(
    p: Array, materials: Array, x: float, y: float, z: float, nx: float, ny: float, nz: float
) -> tuple[float, float, float, float]:
    """Linear RGB and glow of a primitive at a point of its surface with unit normal n."""
    m = materials[int(p[MATERIAL])]
    pattern = int(m[PATTERN])
    seed = int(m[SEED])
    if m[WORLD] == 0.0:
        x, y, z = to_local(p, x - p[0], y - p[1], z - p[2])
        nx, ny, nz = to_local(p, nx, ny, nz)
    ox, oy, oz = p[OFFSET], p[OFFSET + 1], p[OFFSET + 2]
    u, v, hu, hv = _face(p, x, y, z, nx, ny, nz)
    size = m[SIZE]
    fine = 1.0
    if m[STRENGTH] > 0.0:
        # Two octaves of noise: weave, dirt, unevenness.
        q = _noise(9.0 * (x + ox), 9.0 * (y + oy), 9.0 * (z + oz))
        w = _noise(61.0 * (x + ox), 61.0 * (y + oy), 61.0 * (z + oz))
        fine = 1.0 + m[STRENGTH] * (q + 0.8 * w - 0.9)
    f = 0.0
    if pattern == CHECKER:
        f = float((int(np.floor(u / size)) + int(np.floor(v / size))) & 1)
    elif pattern == STRIPES:
        f = _stripe(u / size, 0.06)
    elif pattern == WOOD:
        # The grain runs along the longest side.
        a, b, c = p[HALF], p[HALF + 1], p[HALF + 2]
        if a >= b and a >= c:
            along, s, t = x, y, z
        elif b >= c:
            along, s, t = y, x, z
        else:
            along, s, t = z, x, y
        s, t = s + oy, t + oz
        warp = _noise(0.9 * along + ox, 5.0 * s, 5.0 * t)
        ring = s / size + 0.7 * t / size + 2.6 * warp
        f = 0.75 * _stripe(ring, 0.45) + 0.25 * _noise(5.0 * along, 140.0 * s, 140.0 * t)
    elif pattern == MARBLE:
        w = _noise(x / size + ox, y / size + oy, z / size + oz)
        w += 0.5 * _noise(2.3 * x / size + oy, 2.3 * y / size + oz, 2.3 * z / size)
        f = _stripe((x + 0.6 * y + 0.8 * z) / size + 1.6 * w, 0.5)
    elif pattern == PLANKS:
        row = np.floor(v / size)
        shift = 1.7 * hash01(int(row), seed, 11)
        length = 9.0 * size
        board = np.floor((u + shift) / length)
        tone = hash01(int(row), int(board), seed)
        s, t = v / size - row, (u + shift) / length - board
        gap = min(s, 1.0 - s) * size < 0.0025 or min(t, 1.0 - t) * length < 0.0025
        grain = _noise(2.2 * u + 31.0 * tone, 46.0 * v, tone)
        f = min(max(0.15 + 0.45 * tone + 0.5 * (grain - 0.3), 0.0), 1.0)
        if gap:
            fine *= 0.45
    elif pattern == TILES:
        i, j = np.floor(u / size), np.floor(v / size)
        s, t = u / size - i, v / size - j
        edge = min(min(s, 1.0 - s), min(t, 1.0 - t)) * size
        if edge < 0.004:
            f = 1.0
        fine *= 0.9 + 0.2 * hash01(int(i), int(j), seed)
    elif pattern == BRICKS:
        j = np.floor(v / size)
        i = np.floor(u / (3.0 * size) + 0.5 * (int(j) & 1))
        s, t = u / (3.0 * size) + 0.5 * (int(j) & 1) - i, v / size - j
        if min(3.0 * min(s, 1.0 - s), min(t, 1.0 - t)) * size < 0.006:
            f = 1.0
        else:
            fine *= 0.75 + 0.5 * hash01(int(i), int(j), seed)
    elif pattern == PICTURE:
        r, g, b = _picture(seed, u / max(hu, 1e-6), v / max(hv, 1e-6))
        return r * fine, g * fine, b * fine, m[GLOW]
    elif pattern == OUTDOORS:
        r, g, b = _outdoors(seed, u, v)
        return r, g, b, m[GLOW]
    elif pattern == DOTS:
        s, t = u / size, v / size
        t -= 0.5 * (int(np.floor(s)) & 1)
        s, t = s - np.floor(s) - 0.5, t - np.floor(t) - 0.5
        f = 1.0 if s * s + t * t < 0.08 else 0.0
    elif pattern == RUG:
        edge = min(hu - abs(u), hv - abs(v))
        if edge < 0.06:
            f = 1.0
        elif edge > 0.12:
            a, b = abs(u) / size, abs(v) / size
            f = _stripe(a + b, 0.1) * (0.4 + 0.6 * _stripe(3.0 * (a - b), 0.2))
    elif pattern == SPINE:
        t = v / max(hv, 1e-6)
        f = 1.0 if 0.62 < abs(t) < 0.7 or (0.1 < t < 0.45 and abs(u) < 0.5 * hu) else 0.0
    r, g, b = _mix(m, f)
    return max(r * fine, 0.0), max(g * fine, 0.0), max(b * fine, 0.0), m[GLOW]
