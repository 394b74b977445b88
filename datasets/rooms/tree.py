"""A tree of boxes over the primitives of a scene: the nearest hit of a ray, and of a point."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.datasets.rooms.distance import MISS, distance, intersect, reach

__all__ = ["Tree", "bounds", "build", "nearest", "occluded", "trace"]

Array = NDArray[np.float64]
#: (primitives ``[M, 28]``, cuts ``[C, 28]``, boxes of the nodes ``[K, 6]``, children ``[K, 2]``);
#: a leaf has (first primitive, -count).
Tree = tuple[Array, Array, Array, NDArray[np.int64]]

BINS: Final = 12
LEAF: Final = 3
DEPTH: Final = 96


@njit(nogil=True, cache=True)
def bounds(rows: Array) -> Array:
    """``[M, 6]``: low and high corners of the upright boxes around primitives ``[M, 28]``."""
    out = np.empty((len(rows), 6))
    for i in range(len(rows)):
        p = rows[i]
        for k in range(3):
            x, y, z = 1.0 * (k == 0), 1.0 * (k == 1), 1.0 * (k == 2)
            out[i, k] = p[k] - reach(p, -x, -y, -z)
            out[i, k + 3] = p[k] + reach(p, x, y, z)
    return out


@njit(nogil=True, cache=True)
def _area(low: Array, high: Array) -> float:
    x, y, z = high[0] - low[0], high[1] - low[1], high[2] - low[2]
    return x * y + y * z + z * x


@njit(nogil=True, cache=True)
def build(around: Array) -> tuple[NDArray[np.int64], Array, NDArray[np.int64]]:
    """Order of the primitives, boxes and children of a tree over boxes ``[M, 6]``, M > 0, split
    where the surface-area heuristic (binned) is least."""
    m = len(around)
    order = np.arange(m)
    boxes = np.empty((2 * m, 6))
    children = np.zeros((2 * m, 2), np.int64)
    stack = [(0, 0, m)]
    count = 1
    middle = 0.5 * (around[:, :3] + around[:, 3:])
    while len(stack) > 0:
        node, first, last = stack.pop()
        for k in range(3):
            boxes[node, k] = MISS
            boxes[node, k + 3] = -MISS
        c_low, c_high = np.full(3, MISS), np.full(3, -MISS)
        for i in order[first:last]:
            for k in range(3):
                boxes[node, k] = min(boxes[node, k], around[i, k])
                boxes[node, k + 3] = max(boxes[node, k + 3], around[i, k + 3])
                c_low[k] = min(c_low[k], middle[i, k])
                c_high[k] = max(c_high[k], middle[i, k])
        children[node, 0] = first
        children[node, 1] = first - last
        if last - first <= LEAF:
            continue
        best, best_axis, best_cut = MISS, -1, 0.0
        for k in range(3):
            width = c_high[k] - c_low[k]
            if width < 1e-6:
                continue
            size = np.zeros(BINS, np.int64)
            low = np.full((BINS, 3), MISS)
            high = np.full((BINS, 3), -MISS)
            for i in order[first:last]:
                b = min(int((middle[i, k] - c_low[k]) / width * BINS), BINS - 1)
                size[b] += 1
                for j in range(3):
                    low[b, j] = min(low[b, j], around[i, j])
                    high[b, j] = max(high[b, j], around[i, j + 3])
            right = np.zeros(BINS)
            l, h, n = np.full(3, MISS), np.full(3, -MISS), 0
            for b in range(BINS - 1, 0, -1):
                l, h = np.minimum(l, low[b]), np.maximum(h, high[b])
                n += size[b]
                right[b] = n * _area(l, h) if n > 0 else 0.0
            l, h, n = np.full(3, MISS), np.full(3, -MISS), 0
            for b in range(BINS - 1):
                l, h = np.minimum(l, low[b]), np.maximum(h, high[b])
                n += size[b]
                if n == 0 or n == last - first:
                    continue
                cost = n * _area(l, h) + right[b + 1]
                if cost < best:
                    best, best_axis, best_cut = cost, k, c_low[k] + width * (b + 1) / BINS
        if best_axis < 0:
            cut = (first + last) // 2
        else:
            part = order[first:last].copy()
            cut = first
            for i in part:
                if middle[i, best_axis] < best_cut:
                    order[cut] = i
                    cut += 1
            end = cut
            for i in part:
                if not middle[i, best_axis] < best_cut:
                    order[end] = i
                    end += 1
            if cut in (first, last):
                cut = (first + last) // 2
        children[node, 0] = count
        children[node, 1] = count + 1
        stack.append((count, first, cut))
        stack.append((count + 1, cut, last))
        count += 2
    return order, boxes[:count].copy(), children[:count].copy()


@njit(nogil=True, cache=True)
def _enter(
    b: Array, ox: float, oy: float, oz: float, ix: float, iy: float, iz: float, far: float
) -> float:
    """Where a ray (with its inverted direction) enters a box, 1e9 if it does not before ``far``."""
    t0, t1 = 0.0, far
    u, v = (b[0] - ox) * ix, (b[3] - ox) * ix
    t0, t1 = max(t0, min(u, v)), min(t1, max(u, v))
    u, v = (b[1] - oy) * iy, (b[4] - oy) * iy
    t0, t1 = max(t0, min(u, v)), min(t1, max(u, v))
    u, v = (b[2] - oz) * iz, (b[5] - oz) * iz
    t0, t1 = max(t0, min(u, v)), min(t1, max(u, v))
    return t0 if t0 <= t1 else MISS


@njit(nogil=True, cache=True)
def _inverse(d: float) -> float:
    return 1.0 / d if abs(d) > 1e-12 else (1e12 if d >= 0.0 else -1e12)


@njit(nogil=True, cache=True)
def trace(
    tree: Tree,
    stack: NDArray[np.int64],
    ox: float,
    oy: float,
    oz: float,
    dx: float,
    dy: float,
    dz: float,
    far: float,
) -> tuple[float, int]:
    """First hit of the ray o + t d, t < far: (t, primitive), or (1e9, -1).

    ``stack [96]`` is room to work in.
    """
    rows, cuts, boxes, children = tree
    ix, iy, iz = _inverse(dx), _inverse(dy), _inverse(dz)
    best, who = far, -1
    stack[0] = 0
    top = 1
    while top > 0:
        top -= 1
        node = stack[top]
        if _enter(boxes[node], ox, oy, oz, ix, iy, iz, best) >= MISS:
            continue
        left, right = children[node, 0], children[node, 1]
        if right <= 0:
            for i in range(left, left - right):
                t = intersect(rows[i], cuts, ox, oy, oz, dx, dy, dz, best)
                if t < best:
                    best, who = t, i
            continue
        a = _enter(boxes[left], ox, oy, oz, ix, iy, iz, best)
        b = _enter(boxes[right], ox, oy, oz, ix, iy, iz, best)
        if a > b:
            left, right, a, b = right, left, b, a
        if b < MISS:
            stack[top] = right
            top += 1
        if a < MISS:
            stack[top] = left
            top += 1
    return (best, who) if who >= 0 else (MISS, -1)


@njit(nogil=True, cache=True)
def occluded(
    tree: Tree,
    stack: NDArray[np.int64],
    skip: int,
    ox: float,
    oy: float,
    oz: float,
    dx: float,
    dy: float,
    dz: float,
    far: float,
) -> int:
    """A primitive other than ``skip`` that the ray o + t d meets for t < far, or -1."""
    rows, cuts, boxes, children = tree
    ix, iy, iz = _inverse(dx), _inverse(dy), _inverse(dz)
    stack[0] = 0
    top = 1
    while top > 0:
        top -= 1
        node = stack[top]
        if _enter(boxes[node], ox, oy, oz, ix, iy, iz, far) >= MISS:
            continue
        left, right = children[node, 0], children[node, 1]
        if right <= 0:
            for i in range(left, left - right):
                if i != skip and intersect(rows[i], cuts, ox, oy, oz, dx, dy, dz, far) < far:
                    return i
            continue
        stack[top] = left
        stack[top + 1] = right
        top += 2
    return -1


@njit(nogil=True, cache=True)
def _gap(b: Array, x: float, y: float, z: float) -> float:
    """Distance to a box, -1e9 inside."""
    u = max(b[0] - x, max(0.0, x - b[3]))
    v = max(b[1] - y, max(0.0, y - b[4]))
    w = max(b[2] - z, max(0.0, z - b[5]))
    d = np.sqrt(u * u + v * v + w * w)
    return d if d > 0.0 else -MISS


@njit(nogil=True, cache=True)
def nearest(
    tree: Tree, stack: NDArray[np.int64], x: float, y: float, z: float, far: float
) -> tuple[float, int]:
    """Signed distance of a point to the union of all primitives, and the primitive that it is of;
    (far, -1) when none is nearer than ``far``."""
    rows, cuts, boxes, children = tree
    best, who = far, -1
    stack[0] = 0
    top = 1
    while top > 0:
        top -= 1
        node = stack[top]
        if _gap(boxes[node], x, y, z) >= best:
            continue
        left, right = children[node, 0], children[node, 1]
        if right <= 0:
            for i in range(left, left - right):
                d = distance(rows[i], cuts, x, y, z)
                if d < best:
                    best, who = d, i
            continue
        if _gap(boxes[left], x, y, z) > _gap(boxes[right], x, y, z):
            left, right = right, left
        stack[top] = right
        stack[top + 1] = left
        top += 2
    return best, who
