"""Primitives: their exact signed distance, where a ray meets them, how far they reach.

Every primitive is one row of float64 (columns below): a solid in its own frame, turned and moved,
less the solids that are cut from it. Distances outside a primitive without cuts are exact (formulas:
Inigo Quilez, "Distance functions"; the ellipsoid by Newton's iterations); with cuts they are a
lower bound whose zero is exact. So sphere tracing finds every surface to a micrometre.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["box_distance", "distance", "intersect", "normal", "reach", "to_local"]

Array = NDArray[np.float64]

X: Final = 0  # centre, m: 0, 1, 2
TURN: Final = 3  # local_from_world, row after row: 3..11
A: Final = 12  # measures, m
B: Final = 13
C: Final = 14
ROUND: Final = 15  # radius of the edges, m
KIND: Final = 16
MATERIAL: Final = 17
OBJECT: Final = 18
CUT: Final = 19  # first of its cuts
CUTS: Final = 20  # how many
HALF: Final = 21  # half extents in the own frame: 21, 22, 23
OFFSET: Final = 24  # of the texture: 24, 25, 26
ROW: Final = 28

BOX: Final = 0  # half extents A, B, C; ROUND
ELLIPSOID: Final = 1  # semi-axes A, B, C
CYLINDER: Final = 2  # along z: radius A, half height B; ROUND (a capsule when ROUND = A)
CONE: Final = 3  # along z: radius A at the bottom, B at the top, half height C
TORUS: Final = 4  # about z: radius A of the ring, B of the tube

MISS: Final = 1e9
HIT: Final = 2e-6  # m: a traced ray has arrived
STEPS: Final = 160


@njit(nogil=True, cache=True)
def to_local(p: Array, x: float, y: float, z: float) -> tuple[float, float, float]:
    """A vector turned into the frame of a primitive."""
    return (
        p[3] * x + p[4] * y + p[5] * z,
        p[6] * x + p[7] * y + p[8] * z,
        p[9] * x + p[10] * y + p[11] * z,
    )


@njit(nogil=True, cache=True)
def _ellipsoid(a: float, b: float, c: float, x: float, y: float, z: float) -> float:
    """Exact distance: the nearest point is (a²x/(t+a²), ...) for the root t of a convex function,
    which Newton's iterations approach from the left."""
    x, y, z = max(abs(x), 1e-9), max(abs(y), 1e-9), max(abs(z), 1e-9)
    a2, b2, c2 = a * a, b * b, c * c
    t = max(a * x - a2, max(b * y - b2, c * z - c2))
    for _ in range(60):
        u, v, w = a * x / (t + a2), b * y / (t + b2), c * z / (t + c2)
        g = u * u + v * v + w * w - 1.0
        slope = 2.0 * (u * u / (t + a2) + v * v / (t + b2) + w * w / (t + c2))
        step = g / slope
        t += step
        if step < 1e-13:
            break
    dx, dy, dz = x * t / (t + a2), y * t / (t + b2), z * t / (t + c2)
    d = np.sqrt(dx * dx + dy * dy + dz * dz)
    return d if t > 0.0 else -d


@njit(nogil=True, cache=True)
def _solid(p: Array, x: float, y: float, z: float) -> float:
    """Signed distance in the primitive's own frame, cuts left out."""
    kind = int(p[KIND])
    if kind == BOX:
        r = p[ROUND]
        x, y, z = abs(x) - p[A] + r, abs(y) - p[B] + r, abs(z) - p[C] + r
        u, v, w = max(x, 0.0), max(y, 0.0), max(z, 0.0)
        return np.sqrt(u * u + v * v + w * w) + min(max(x, max(y, z)), 0.0) - r
    if kind == ELLIPSOID:
        return _ellipsoid(p[A], p[B], p[C], x, y, z)
    s = np.sqrt(x * x + y * y)
    if kind == CYLINDER:
        r = p[ROUND]
        s, z = s - p[A] + r, abs(z) - p[B] + r
        u, w = max(s, 0.0), max(z, 0.0)
        return np.sqrt(u * u + w * w) + min(max(s, z), 0.0) - r
    if kind == CONE:
        low, top, h = p[A], p[B], p[C]
        # To the nearer disc, and to the slanted side.
        cx = s - min(s, low if z < 0.0 else top)
        cz = abs(z) - h
        ex, ez = top - low, 2.0 * h
        f = ((top - s) * ex + (h - z) * ez) / (ex * ex + ez * ez)
        f = min(max(f, 0.0), 1.0)
        sx, sz = s - top + ex * f, z - h + ez * f
        sign = -1.0 if sx < 0.0 and cz < 0.0 else 1.0
        return sign * np.sqrt(min(cx * cx + cz * cz, sx * sx + sz * sz))
    s -= p[A]
    return np.sqrt(s * s + z * z) - p[B]


@njit(nogil=True, cache=True)
def distance(p: Array, cuts: Array, x: float, y: float, z: float) -> float:
    """Signed distance of a point to a primitive, negative inside, m."""
    lx, ly, lz = to_local(p, x - p[0], y - p[1], z - p[2])
    d = _solid(p, lx, ly, lz)
    first = int(p[CUT])
    for i in range(first, first + int(p[CUTS])):
        q = cuts[i]
        lx, ly, lz = to_local(q, x - q[0], y - q[1], z - q[2])
        d = max(d, -_solid(q, lx, ly, lz))
    return d


@njit(nogil=True, cache=True)
def normal(p: Array, cuts: Array, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Outward unit normal at a point of the surface: the gradient, but for plain boxes by differences."""
    if p[KIND] == BOX and p[ROUND] == 0.0 and p[CUTS] == 0.0:
        lx, ly, lz = to_local(p, x - p[0], y - p[1], z - p[2])
        a, b, c = abs(lx) - p[A], abs(ly) - p[B], abs(lz) - p[C]
        if a >= b and a >= c:
            k, s = TURN, lx
        elif b >= c:
            k, s = TURN + 3, ly
        else:
            k, s = TURN + 6, lz
        s = 1.0 if s > 0.0 else -1.0
        return s * p[k], s * p[k + 1], s * p[k + 2]
    e = 1e-5
    gx = distance(p, cuts, x + e, y, z) - distance(p, cuts, x - e, y, z)
    gy = distance(p, cuts, x, y + e, z) - distance(p, cuts, x, y - e, z)
    gz = distance(p, cuts, x, y, z + e) - distance(p, cuts, x, y, z - e)
    length = np.sqrt(gx * gx + gy * gy + gz * gz)
    if length < 1e-9:
        return 0.0, 0.0, 1.0
    return gx / length, gy / length, gz / length


@njit(nogil=True, cache=True)
def _slab(o: float, d: float, half: float) -> tuple[float, float]:
    if abs(d) < 1e-12:
        return (-MISS, MISS) if abs(o) <= half else (MISS, -MISS)
    a, b = (-half - o) / d, (half - o) / d
    return (a, b) if a < b else (b, a)


@njit(nogil=True, cache=True)
def intersect(
    p: Array,
    cuts: Array,
    ox: float,
    oy: float,
    oz: float,
    dx: float,
    dy: float,
    dz: float,
    far: float,
) -> float:
    """Where the ray o + t d (d of length one) enters a primitive, 0 <= t < far; else 1e9.

    A ray that starts inside misses.
    """
    x, y, z = to_local(p, ox - p[0], oy - p[1], oz - p[2])
    ex, ey, ez = to_local(p, dx, dy, dz)
    t0, t1 = _slab(x, ex, p[HALF])
    a, b = _slab(y, ey, p[HALF + 1])
    t0, t1 = max(t0, a), min(t1, b)
    a, b = _slab(z, ez, p[HALF + 2])
    t0, t1 = max(t0, a), min(t1, b)
    if t0 >= t1 or t1 <= 0.0 or t0 >= far:
        return MISS
    kind = int(p[KIND])
    whole = p[CUTS] == 0.0
    if kind == BOX and whole and p[ROUND] == 0.0:
        return t0 if t0 > 0.0 else MISS
    if kind == ELLIPSOID and whole:
        ux, uy, uz = x / p[A], y / p[B], z / p[C]
        vx, vy, vz = ex / p[A], ey / p[B], ez / p[C]
        q = vx * vx + vy * vy + vz * vz
        h = ux * vx + uy * vy + uz * vz
        disc = h * h - q * (ux * ux + uy * uy + uz * uz - 1.0)
        if disc <= 0.0:
            return MISS
        t = (-h - np.sqrt(disc)) / q
        return t if 0.0 < t < far else MISS
    t = max(t0, 0.0)
    t1 = min(t1, far)
    for step in range(STEPS):
        if whole:
            d = _solid(p, x + t * ex, y + t * ey, z + t * ez)
        else:
            d = distance(p, cuts, ox + t * dx, oy + t * dy, oz + t * dz)
        if d < HIT:
            return MISS if step == 0 and d < -HIT and t == 0.0 else t
        t += d
        if t >= t1:
            return MISS
    return MISS


@njit(nogil=True, cache=True)
def reach(p: Array, x: float, y: float, z: float) -> float:
    """How far a primitive without its cuts extends from its centre along a unit vector, m."""
    x, y, z = to_local(p, x, y, z)
    kind = int(p[KIND])
    if kind == BOX:
        r = p[ROUND]
        return abs(x) * (p[A] - r) + abs(y) * (p[B] - r) + abs(z) * (p[C] - r) + r
    if kind == ELLIPSOID:
        x, y, z = x * p[A], y * p[B], z * p[C]
        return np.sqrt(x * x + y * y + z * z)
    s = np.sqrt(x * x + y * y)
    if kind == CYLINDER:
        r = p[ROUND]
        return s * (p[A] - r) + abs(z) * (p[B] - r) + r
    if kind == CONE:
        return max(s * p[A] - z * p[C], s * p[B] + z * p[C])
    return s * p[A] + p[B]


@njit(nogil=True, cache=True)
def box_distance(p: Array, q: Array) -> float:
    """Largest gap between the oriented bounding boxes of two primitives along a separating axis, m;
    negative when they overlap (theorem of the separating axis: 15 axes)."""
    dx, dy, dz = q[0] - p[0], q[1] - p[1], q[2] - p[2]
    best = -MISS
    for k in range(15):
        if k < 3:
            ax, ay, az = p[3 + 3 * k], p[4 + 3 * k], p[5 + 3 * k]
        elif k < 6:
            j = k - 3
            ax, ay, az = q[3 + 3 * j], q[4 + 3 * j], q[5 + 3 * j]
        else:
            i, j = (k - 6) // 3, (k - 6) % 3
            ux, uy, uz = p[3 + 3 * i], p[4 + 3 * i], p[5 + 3 * i]
            vx, vy, vz = q[3 + 3 * j], q[4 + 3 * j], q[5 + 3 * j]
            ax, ay, az = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
            length = np.sqrt(ax * ax + ay * ay + az * az)
            if length < 1e-6:
                continue
            ax, ay, az = ax / length, ay / length, az / length
        gap = abs(ax * dx + ay * dy + az * dz)
        for i in range(3):
            gap -= p[HALF + i] * abs(ax * p[3 + 3 * i] + ay * p[4 + 3 * i] + az * p[5 + 3 * i])
            gap -= q[HALF + i] * abs(ax * q[3 + 3 * i] + ay * q[4 + 3 * i] + az * q[5 + 3 * i])
        if gap > best:
            best = gap
    return best
