"""Rays against primitives, and which primitives a ray can meet at all.

All rays of a spinning scanner start at (almost) one point. So instead of a grid or a tree, every
primitive is entered into the azimuth bins that its footprint covers, nearest first: a ray looks
through the short list of its own bin and stops at the first primitive that begins behind its best
hit. The cost of a scan is rays x (primitives a bin, about 20-80) interval tests of a few
nanoseconds, plus a handful of exact intersections a ray.

Every primitive is one row of float64 (columns below) and upright, i.e. turned by a yaw only.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.datasets.street.ground import value_noise
from perception.datasets.street.materials import CABIN, DARK_PAINT, GLASS

__all__ = ["bin_primitives", "intersect", "random01"]

# Columns common to all kinds.
X: Final = 0  # reference point, m
Y: Final = 1
Z: Final = 2  # bottom (boxes), centre (ellipsoids) or first end (cylinders)
Z_TOP: Final = 3  # top (boxes)
COS: Final = 4  # of the yaw
SIN: Final = 5
KIND: Final = 16
LABEL: Final = 17
MATERIAL: Final = 18
GAIN: Final = 19  # factor on the intensity
ROW: Final = 20

# Boxes have tapered sides: extents along the own x at the bottom (6, 7) and at the top (8, 9),
# half widths along the own y at the bottom (10) and at the top (11).
BOX: Final = 0
FACADE: Final = 1  # + 12 window pitch, 13 window width, 14 storey height, 15 depth of the recess
PALING: Final = 2  # + 12 pitch of the pales, 13 width of a pale (0: wire mesh), 14 share that hits
HEDGE: Final = 3  # + 12 density, 1/m
ELLIPSOID: Final = 4  # 6, 7, 8 semi-axes
CROWN: Final = 5  # 6, 7, 8 semi-axes, 12 density, 1/m
CYLINDER: Final = 6  # 6, 7, 8 vector from the first to the second end, 9 radius
SPOKES: Final = 7  # as a cylinder, but only a share (12) of the rays is stopped

MISS: Final = 1e9
#: Side of the cells of space that a leaf fills or leaves free, m.
LEAF_SIZE: Final = 0.05


@njit(nogil=True, cache=True)
def random01(state: NDArray[np.uint64]) -> float:
    """Uniform in (0, 1): splitmix64 on the one-element state."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (float(z >> np.uint64(12)) + 0.5) * (1.0 / 4503599627370496.0)


@njit(nogil=True, cache=True)
def _bounds(
    p: NDArray[np.float64], ox: float, oy: float
) -> tuple[float, float, float, float, float, float]:
    """Azimuth interval (start, width), distances (near, far) and heights (low, high) of a
    primitive as seen from (ox, oy)."""
    kind = int(p[KIND])
    dx, dy = p[X] - ox, p[Y] - oy
    if kind <= HEDGE:
        back, front = min(p[6], p[8]), max(p[7], p[9])
        half = max(p[10], p[11])
        c, s = p[COS], p[SIN]
        lx, ly = -(c * dx + s * dy), -(c * dy - s * dx)  # the observer in the box's frame
        gap_x = max(max(back - lx, lx - front), 0.0)
        gap_y = max(abs(ly) - half, 0.0)
        near = np.sqrt(gap_x * gap_x + gap_y * gap_y)
        low, high = p[Z], p[Z_TOP]
        reference = np.arctan2(dy + s * 0.5 * (back + front), dx + c * 0.5 * (back + front))
        first, last, far = 0.0, 0.0, 0.0
        for k in range(4):
            ex = back if k % 2 == 0 else front
            ey = half if k < 2 else -half
            wx, wy = dx + c * ex - s * ey, dy + s * ex + c * ey
            a = np.arctan2(wy, wx) - reference
            if a > np.pi:
                a -= 2.0 * np.pi
            elif a < -np.pi:
                a += 2.0 * np.pi
            first, last = min(first, a), max(last, a)
            far = max(far, wx * wx + wy * wy)
        if near == 0.0:
            first, last = 0.0, 2.0 * np.pi
        return reference + first, last - first, near, np.sqrt(far), low, high
    if kind >= CYLINDER:
        radius = 0.5 * np.sqrt(p[6] * p[6] + p[7] * p[7]) + p[9]
        dx += 0.5 * p[6]
        dy += 0.5 * p[7]
        low, high = min(p[Z], p[Z] + p[8]) - p[9], max(p[Z], p[Z] + p[8]) + p[9]
        if p[6] == 0.0 and p[7] == 0.0:
            low, high = low + p[9], high - p[9]
    else:
        radius = max(p[6], p[7])
        low, high = p[Z] - p[8], p[Z] + p[8]
    distance = np.sqrt(dx * dx + dy * dy)
    if distance <= radius:
        return 0.0, 2.0 * np.pi, 0.0, distance + radius, low, high
    half_angle = np.arcsin(radius / distance)
    azimuth = np.arctan2(dy, dx)
    return azimuth - half_angle, 2.0 * half_angle, distance - radius, distance + radius, low, high


@njit(nogil=True, cache=True)
def bin_primitives(
    primitives: NDArray[np.float64], ox: float, oy: float, bins: int, max_range: float
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    """Sort primitives ``[M, 20]`` into azimuth bins around (ox, oy).

    Returns ``start [bins + 1]`` and ``members``: the primitives of bin b are
    ``members[start[b]:start[b + 1]]``, nearest first; and ``extent [M, 4]``: horizontal distances
    (near, far) and heights (low, high) of each.
    """
    m = len(primitives)
    extent = np.empty((m, 4))
    first = np.empty(m, np.int64)
    count = np.zeros(m, np.int64)
    size = np.zeros(bins + 1, np.int64)
    scale = bins / (2.0 * np.pi)
    for i in range(m):
        start, width, near, far, low, high = _bounds(primitives[i], ox, oy)
        extent[i, 0], extent[i, 1], extent[i, 2], extent[i, 3] = near, far, low, high
        if near > max_range:
            continue
        a = int(np.floor(start * scale))
        b = int(np.floor((start + width) * scale))
        first[i] = a
        count[i] = min(b - a + 1, bins)
        for k in range(count[i]):
            size[(a + k) % bins + 1] += 1
    begin = np.cumsum(size)
    fill = begin[:-1].copy()
    members = np.empty(begin[-1], np.int32)
    for i in np.argsort(extent[:, 0]):
        for k in range(count[i]):
            b = (first[i] + k) % bins
            members[fill[b]] = i
            fill[b] += 1
    return begin, members, extent


@njit(nogil=True, cache=True)
def _clip_box(
    p: NDArray[np.float64], x: float, y: float, z: float, dx: float, dy: float, dz: float
) -> tuple[float, float, int, float]:
    """Entry, exit, face (0 front, 1 back, 2 left, 3 right, 4 bottom, 5 top) and cosine of the
    incidence of a ray given in the box's own frame (z from the bottom)."""
    height = p[Z_TOP] - p[Z]
    front, back = (p[9] - p[7]) / height, (p[8] - p[6]) / height
    side = (p[11] - p[10]) / height
    enter, leave = -MISS, MISS
    face, cosine = -1, 0.0
    for k in range(6):
        if k == 0:
            a, b, n = x - front * z - p[7], dx - front * dz, front
        elif k == 1:
            a, b, n = back * z + p[6] - x, back * dz - dx, back
        elif k == 2:
            a, b, n = y - side * z - p[10], dy - side * dz, side
        elif k == 3:
            a, b, n = -y - side * z - p[10], -dy - side * dz, side
        elif k == 4:
            a, b, n = -z, -dz, 0.0
        else:
            a, b, n = z - height, dz, 0.0
        if b < -1e-12:
            t = -a / b
            if t > enter:
                enter, face, cosine = t, k, -b / np.sqrt(1.0 + n * n)
        elif b > 1e-12:
            leave = min(leave, -a / b)
        elif a > 0.0:
            return MISS, -MISS, -1, 0.0
    return enter, leave, face, cosine


@njit(nogil=True, cache=True)
def _facade(
    p: NDArray[np.float64],
    face: int,
    t: float,
    x: float,
    y: float,
    z: float,
    dx: float,
    dy: float,
    dz: float,
) -> tuple[float, bool]:
    """Push a hit on a wall into the window it falls on: (t, is glass)."""
    if face > 3:
        return t, False
    along, d_along = (y, dy) if face < 2 else (x, dx)
    inward = abs(dx) if face < 2 else abs(dy)
    pitch, width, storey = p[12], p[13], p[14]
    u = (along + t * d_along + 1000.0 * pitch) % pitch - 0.5 * (pitch - width)
    v = (z + t * dz) % storey - 0.32 * storey
    high = 0.48 * storey
    if not (0.0 < u < width and 0.0 < v < high) or z + t * dz > p[Z_TOP] - p[Z] - 0.4:
        return t, False
    # From the opening to the pane, or to the reveal if that comes first.
    step = p[15] / max(inward, 1e-3)
    if d_along != 0.0:
        to_side = (width - u if d_along > 0.0 else -u) / d_along
        if to_side < step:
            return t + to_side, False
    if dz != 0.0:
        to_sill = (high - v if dz > 0.0 else -v) / dz
        if to_sill < step:
            return t + to_sill, False
    return t + step, True


@njit(nogil=True, cache=True)
def _leaf(
    x: float,
    y: float,
    z: float,
    dx: float,
    dy: float,
    dz: float,
    enter: float,
    leave: float,
    density: float,
) -> float:
    """Where between ``enter`` and ``leave`` a ray meets a leaf (1e9: nowhere), if on average it
    passes ``density`` of them a metre. Leaves fill cells of space that stay the same, so that all
    rays of all sensors in all frames meet the same ones."""
    share = 1.0 - np.exp(-density * LEAF_SIZE)
    t = enter
    while t < leave:
        ix = np.uint32(int(np.floor((x + t * dx) * (1.0 / LEAF_SIZE))))
        iy = np.uint32(int(np.floor((y + t * dy) * (1.0 / LEAF_SIZE))))
        iz = np.uint32(int(np.floor((z + t * dz) * (1.0 / LEAF_SIZE))))
        h = ix * np.uint32(0x9E3779B1) ^ iy * np.uint32(0x85EBCA77) ^ iz * np.uint32(0xC2B2AE3D)
        h = np.uint32(h ^ (h >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
        h = np.uint32(h ^ (h >> np.uint32(12))) * np.uint32(0x297A2D39)
        h = np.uint32(h ^ (h >> np.uint32(15)))
        if float(h) * (1.0 / 4294967296.0) < share:
            return t + LEAF_SIZE * float(h & np.uint32(0xFF)) * (1.0 / 255.0)
        t += LEAF_SIZE
    return MISS


@njit(nogil=True, cache=True)
def intersect(
    p: NDArray[np.float64],
    ox: float,
    oy: float,
    oz: float,
    dx: float,
    dy: float,
    dz: float,
    state: NDArray[np.uint64],
) -> tuple[float, float, int]:
    """First hit of the ray o + t d (d of length one) with a primitive: (t, cosine of the incidence,
    material); t = 1e9 when it misses or passes through a porous one. Primitives around the origin
    are missed."""
    kind = int(p[KIND])
    material = int(p[MATERIAL])
    c, s = p[COS], p[SIN]
    rx, ry = ox - p[X], oy - p[Y]
    if kind <= HEDGE:
        x, y, z = c * rx + s * ry, c * ry - s * rx, oz - p[Z]
        ex, ey = c * dx + s * dy, c * dy - s * dx
        enter, leave, face, cosine = _clip_box(p, x, y, z, ex, ey, dz)
        if enter >= leave or enter <= 0.0:
            return MISS, 0.0, material
        if kind == FACADE:
            enter, glass = _facade(p, face, enter, x, y, z, ex, ey, dz)
            return enter, cosine, GLASS if glass else material
        if kind == PALING:
            along = x + enter * ex
            height = z + enter * dz
            if p[13] > 0.0:
                top = p[Z_TOP] - p[Z]
                rail = 0.2 < height < 0.3 or top - 0.35 < height < top - 0.25
                if not rail and (along + 100.0) % p[12] > p[13]:
                    return MISS, 0.0, material
            elif random01(state) > p[14]:
                return MISS, 0.0, material
            return enter, cosine, material
        if kind == HEDGE:
            ragged = 0.12 * (
                1.0 + value_noise(2.5 * (rx + p[X] + enter * dx), 3.1 * (oz + enter * dz), 7)
            )
            t = _leaf(ox, oy, oz, dx, dy, dz, enter + ragged, leave, p[12])
            if t < MISS:
                return t, 0.35 + 0.6 * random01(state), material
            return MISS, 0.0, material
        if material == CABIN:
            height = (z + enter * dz) / (p[Z_TOP] - p[Z])
            material = DARK_PAINT if p[12] > 0.0 else int(p[13])
            if face < 4 and height < 0.84:
                along = x + enter * ex if face >= 2 else y + enter * ey
                if face < 2 or (along + 100.0) % 1.05 > 0.12:
                    material = GLASS
            return enter, cosine, material
        return enter, cosine, material
    rz = oz - p[Z]
    if kind <= CROWN:
        x, y, z = (c * rx + s * ry) / p[6], (c * ry - s * rx) / p[7], rz / p[8]
        ex, ey, ez = (c * dx + s * dy) / p[6], (c * dy - s * dx) / p[7], dz / p[8]
        a = ex * ex + ey * ey + ez * ez
        b = x * ex + y * ey + z * ez
        h = b * b - a * (x * x + y * y + z * z - 1.0)
        if h <= 0.0:
            return MISS, 0.0, material
        h = np.sqrt(h)
        enter, leave = (-b - h) / a, (-b + h) / a
        if enter <= 0.0:
            return MISS, 0.0, material
        if kind == ELLIPSOID:
            nx, ny, nz = (x + enter * ex) / p[6], (y + enter * ey) / p[7], (z + enter * ez) / p[8]
            lx, ly = c * dx + s * dy, c * dy - s * dx
            cosine = abs(nx * lx + ny * ly + nz * dz) / np.sqrt(nx * nx + ny * ny + nz * nz)
            return enter, cosine, material
        # The outline is lumpy: the ellipsoid shrinks by up to half depending on where the ray comes
        # nearest to its middle. Leaves fill the rest in clumps: the mean free path varies in space.
        # Both are fixed in the world, so they are the same from frame to frame.
        nearest = -b / a
        qx, qy, qz = ox + nearest * dx, oy + nearest * dy, 2.6 * (oz + nearest * dz)
        # Two slices of noise across each other: one would show in slanting ribs.
        lump = value_noise(2.1 * qx + 1.6 * qy, qz, 5) + value_noise(1.6 * qx - 2.1 * qy, qz, 6)
        lump *= 0.7
        radius = min(0.84 + 0.32 * lump, 1.0)
        h = b * b - a * (x * x + y * y + z * z - radius * radius)
        if h <= 0.0:
            return MISS, 0.0, material
        h = np.sqrt(h)
        enter, leave = (-b - h) / a, (-b + h) / a
        if enter <= 0.0:
            return MISS, 0.0, material
        wx, wy, wz = ox + enter * dx, oy + enter * dy, oz + enter * dz
        clump = value_noise(1.3 * wx + 0.9 * wz, 1.3 * wy - 0.8 * wz, 11)
        density = p[12] * (1.0 + 0.85 * clump)
        t = _leaf(ox, oy, oz, dx, dy, dz, enter, leave, density)
        if t < MISS:
            return t, 0.35 + 0.6 * random01(state), material
        return MISS, 0.0, material
    bx, by, bz = p[6], p[7], p[8]
    radius = p[9]
    baba = bx * bx + by * by + bz * bz
    bard = bx * dx + by * dy + bz * dz
    baoc = bx * rx + by * ry + bz * rz
    k2 = baba - bard * bard
    if k2 < 1e-9:
        return MISS, 0.0, material
    k1 = baba * (rx * dx + ry * dy + rz * dz) - baoc * bard
    k0 = baba * (rx * rx + ry * ry + rz * rz) - baoc * baoc - radius * radius * baba
    h = k1 * k1 - k2 * k0
    if h <= 0.0:
        return MISS, 0.0, material
    if kind == SPOKES and random01(state) > p[12]:
        return MISS, 0.0, material
    h = np.sqrt(h)
    t = (-k1 - h) / k2
    along = baoc + t * bard
    if 0.0 < along < baba:
        if t <= 0.0:
            return MISS, 0.0, material
        f = along / baba
        nx, ny, nz = rx + t * dx - bx * f, ry + t * dy - by * f, rz + t * dz - bz * f
        return t, abs(nx * dx + ny * dy + nz * dz) / radius, material
    if abs(bard) < 1e-9:
        return MISS, 0.0, material
    t = ((0.0 if along < 0.0 else baba) - baoc) / bard
    if t > 0.0 and abs(k1 + k2 * t) < h:
        return t, abs(bard) / np.sqrt(baba), material
    return MISS, 0.0, material
