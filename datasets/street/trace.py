"""The first thing that a ray meets, for rays from one place in any direction.

Objects: the azimuth bins of ``raycast.py``. The ground is sampled along columns of azimuth, when a
ray first falls into one. What a column keeps is how steeply each sample, or any before it, is seen:
that never falls, so that bisection finds the stretch in which a ray of a given slope meets the
ground, and a few secant steps at the ray's own azimuth find the point.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.datasets.street.ground import ground_height
from perception.datasets.street.raycast import MISS, intersect

__all__ = ["COLUMNS", "NOTHING", "ON_GROUND", "first_hit", "profile_radii"]

COLUMNS = 2160
_AZIMUTHS = (np.arange(COLUMNS) + 0.5) * (2.0 * np.pi / COLUMNS)
#: Directions of the middles of the columns.
_MIDDLES = np.stack([np.cos(_AZIMUTHS), np.sin(_AZIMUTHS)], axis=1)
#: What ``first_hit`` says instead of the number of a primitive.
ON_GROUND = -1
NOTHING = -2


@njit(nogil=True, cache=True)
def profile_radii(reach: float) -> NDArray[np.float64]:
    """Horizontal distances at which the ground is sampled along a column."""
    radii = np.empty(600)
    r, n = 0.5, 0
    while r < reach and n < 599:
        radii[n] = r
        n += 1
        r += max(0.07, 0.011 * r)
    radii[n] = reach
    return radii[: n + 1]


@njit(nogil=True, cache=True)
def _extend(
    ox: float,
    oy: float,
    base: float,
    column: int,
    slope: float,
    limit: float,
    radii: NDArray[np.float64],
    heights: NDArray[np.float32],
    climb: NDArray[np.float32],
    filled: NDArray[np.int64],
    g: NDArray[np.float64],
    table: NDArray[np.float64],
    crossings: NDArray[np.float64],
) -> int:
    """Sample a column until it is seen as steeply as ``slope`` or reaches ``limit``; takes one
    sample at least, if there are any left. Returns how many there are now."""
    k = filled[column]
    steepest = climb[column, k - 1] if k > 0 else -MISS
    ux, uy = _MIDDLES[column, 0], _MIDDLES[column, 1]
    while k < len(radii):
        r = radii[k]
        h = ground_height(g, table, crossings, ox + r * ux, oy + r * uy)
        steepest = max(steepest, (h - base) / r)
        heights[column, k] = h
        climb[column, k] = steepest
        k += 1
        if steepest >= slope or r >= limit:
            break
    filled[column] = k
    return k


@njit(nogil=True, cache=True)
def _land(
    ox: float,
    oy: float,
    oz: float,
    ux: float,
    uy: float,
    slope: float,
    base: float,
    column: int,
    radii: NDArray[np.float64],
    heights: NDArray[np.float32],
    climb: NDArray[np.float32],
    filled: NDArray[np.int64],
    g: NDArray[np.float64],
    table: NDArray[np.float64],
    crossings: NDArray[np.float64],
) -> tuple[float, float]:
    """Horizontal distance (1e9: none) at which the ray o + r (u, slope) meets the ground, and how
    fast it sinks into it there, m/m; a sample taken so far must be as steep as the ray."""
    count = len(radii)
    first, last = 0, filled[column] - 1
    while first < last:
        half = (first + last) // 2
        if climb[column, half] >= slope:
            last = half
        else:
            first = half + 1
    # The column was seen from ``base``; a laser mounted higher lands farther out.
    at = max(first, 1)
    while at < count:
        if at >= filled[column]:
            _extend(
                ox, oy, base, column, MISS, radii[at],
                radii, heights, climb, filled, g, table, crossings,
            )  # fmt: skip
        if heights[column, at] >= oz + slope * radii[at]:
            break
        at += 1
    if at == count:
        return MISS, 0.0
    # The column's middle gives the stretch; the ray's own azimuth gives the point.
    r1 = radii[at]
    f1 = oz + slope * r1 - ground_height(g, table, crossings, ox + r1 * ux, oy + r1 * uy)
    r0 = radii[at - 1]
    f0 = oz + slope * r0 - ground_height(g, table, crossings, ox + r0 * ux, oy + r0 * uy)
    width = r1 - r0
    for _ in range(4):
        if f1 <= 0.0:
            break
        r0, f0 = r1, f1
        r1 += width
        f1 = oz + slope * r1 - ground_height(g, table, crossings, ox + r1 * ux, oy + r1 * uy)
    for _ in range(4):
        if f0 >= 0.0:
            break
        r1, f1 = r0, f0
        r0 -= width
        f0 = oz + slope * r0 - ground_height(g, table, crossings, ox + r0 * ux, oy + r0 * uy)
    if not f0 >= 0.0 >= f1:
        return MISS, 0.0
    for _ in range(3):
        r = r0 + (r1 - r0) * f0 / max(f0 - f1, 1e-12)
        f = oz + slope * r - ground_height(g, table, crossings, ox + r * ux, oy + r * uy)
        if f > 0.0:
            r0, f0 = r, f
        else:
            r1, f1 = r, f
    return r0 + (r1 - r0) * f0 / max(f0 - f1, 1e-12), (f0 - f1) / max(r1 - r0, 1e-9)


@njit(nogil=True, cache=True)
def first_hit(
    ox: float,
    oy: float,
    oz: float,
    dx: float,
    dy: float,
    dz: float,
    base: float,
    state: NDArray[np.uint64],
    radii: NDArray[np.float64],
    heights: NDArray[np.float32],
    climb: NDArray[np.float32],
    filled: NDArray[np.int64],
    begin: NDArray[np.int64],
    members: NDArray[np.int32],
    extent: NDArray[np.float64],
    primitives: NDArray[np.float64],
    g: NDArray[np.float64],
    table: NDArray[np.float64],
    crossings: NDArray[np.float64],
) -> tuple[float, float, int, int]:
    """What the ray o + t d (d of length one) meets first.

    Args:
        ox, oy, oz: where it starts; all rays of one call of the caller share x and y.
        dx, dy, dz: its direction in the world.
        base: the lowest z from which rays start.
        state: of the random numbers that foliage takes.
        radii: of the samples of the ground, ``profile_radii``.
        heights, climb, filled: ``[COLUMNS, len(radii)]`` twice and ``[COLUMNS]`` zeros at
            first: the ground as seen from here, filled in on the way.
        begin, members, extent: the answer of ``bin_primitives`` for x and y.
        primitives: the objects, ``[M, 20]``.
        g, table, crossings: the ground.

    Returns:
        Distance (1e9: none), cosine of the incidence, material (of an object; undefined for the
        ground) and the number of the primitive, ``ON_GROUND`` or ``NOTHING``.
    """
    flat = max(np.sqrt(dx * dx + dy * dy), 1e-6)
    slope = dz / flat
    turn = np.arctan2(dy, dx) * (0.5 / np.pi)
    if turn < 0.0:
        turn += 1.0
    best, cosine, material, hit = MISS, 1.0, 0, NOTHING
    column = min(int(turn * COLUMNS), COLUMNS - 1)
    # Objects are tested from the nearest on; the ground is sampled no farther than to the next one,
    # so that what an object hides is never sampled, and what the ground hides never tested.
    reached, count = filled[column], len(radii)
    landed = False
    bins = len(begin) - 1
    bin_ = min(int(turn * bins), bins - 1)
    end = begin[bin_ + 1]
    for k in range(begin[bin_], end + 1):
        near = extent[members[k], 0] if k < end else MISS
        limit = min(near, best * flat)
        if not landed:
            if reached == 0 or (
                reached < count
                and climb[column, reached - 1] < slope
                and radii[reached - 1] < limit
            ):
                reached = _extend(
                    ox, oy, base, column, slope, limit,
                    radii, heights, climb, filled, g, table, crossings,
                )  # fmt: skip
            if climb[column, reached - 1] >= slope:
                landed = True
                r, fall = _land(
                    ox, oy, oz, dx / flat, dy / flat, slope, base, column,
                    radii, heights, climb, filled, g, table, crossings,
                )  # fmt: skip
                reached = filled[column]
                if r < best * flat:
                    best, hit = r / flat, ON_GROUND
                    cosine = min(abs(fall) * flat + 0.02, 1.0)
        if near >= best * flat:
            break
        i = members[k]
        z_near, z_far = oz + slope * near, oz + slope * extent[i, 1]
        if min(z_near, z_far) > extent[i, 3] or max(z_near, z_far) < extent[i, 2]:
            continue
        t, c, m = intersect(primitives[i], ox, oy, oz, dx, dy, dz, state)
        if t < best:
            best, cosine, material, hit = t, c, m, i
    return best, cosine, material, hit
