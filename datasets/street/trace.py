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
def _meet_ground(
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
    filled: NDArray[np.bool_],
    g: NDArray[np.float64],
    table: NDArray[np.float64],
    crossings: NDArray[np.float64],
) -> tuple[float, float]:
    """Horizontal distance (1e9: none) at which the ray o + r (u, slope) meets the ground, and how
    fast it sinks into it there, m/m."""
    count = len(radii)
    if not filled[column]:
        filled[column] = True
        middle = (column + 0.5) * (2.0 * np.pi / COLUMNS)
        mx, my = np.cos(middle), np.sin(middle)
        steepest = -MISS
        for k in range(count):
            h = ground_height(g, table, crossings, ox + radii[k] * mx, oy + radii[k] * my)
            steepest = max(steepest, (h - base) / radii[k])
            heights[column, k] = h
            climb[column, k] = steepest
    if climb[column, count - 1] < slope:
        return MISS, 0.0
    first, last = 0, count - 1
    while first < last:
        half = (first + last) // 2
        if climb[column, half] >= slope:
            last = half
        else:
            first = half + 1
    # The column was seen from ``base``; a laser mounted higher lands farther out.
    at = max(first, 1)
    while at < count and heights[column, at] < oz + slope * radii[at]:
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
    filled: NDArray[np.bool_],
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
        heights, climb, filled: ``[COLUMNS, len(radii)]`` twice and ``[COLUMNS]``, zeros at first:
            the ground as seen from here, filled in on the way.
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
    r, fall = _meet_ground(
        ox, oy, oz, dx / flat, dy / flat, slope, base, min(int(turn * COLUMNS), COLUMNS - 1),
        radii, heights, climb, filled, g, table, crossings,
    )  # fmt: skip
    if r < MISS:
        best, hit = r / flat, ON_GROUND
        cosine = min(abs(fall) * flat + 0.02, 1.0)
    bins = len(begin) - 1
    bin_ = min(int(turn * bins), bins - 1)
    for k in range(begin[bin_], begin[bin_ + 1]):
        i = members[k]
        near = extent[i, 0]
        if near >= best * flat:
            break
        z_near, z_far = oz + slope * near, oz + slope * extent[i, 1]
        if min(z_near, z_far) > extent[i, 3] or max(z_near, z_far) < extent[i, 2]:
            continue
        t, c, m = intersect(primitives[i], ox, oy, oz, dx, dy, dz, state)
        if t < best:
            best, cosine, material, hit = t, c, m, i
    return best, cosine, material, hit
