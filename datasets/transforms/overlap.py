"""Points in boxes and boxes in each other's way, compiled."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["counts_in", "first_box", "membership_changes", "overlaps"]


@njit(cache=True, nogil=True, inline="always")
def _inside(x: float, y: float, z: float, box: NDArray[np.float64]) -> bool:
    # box: centre (3), half sizes (3), cos, sin of the yaw; as Boxes3D.contains computes it.
    dx, dy, dz = x - box[0], y - box[1], z - box[2]
    return (
        abs(dz) <= box[5]
        and abs(box[6] * dx + box[7] * dy) <= box[3]
        and abs(box[6] * dy - box[7] * dx) <= box[4]
    )


def _prepared(boxes: NDArray[np.float32], margin: float) -> NDArray[np.float64]:
    values = np.empty((len(boxes), 8))
    values[:, :3] = boxes[:, :3]
    values[:, 3:6] = boxes[:, 3:6].astype(np.float64) / 2 + margin
    values[:, 6], values[:, 7] = (
        np.cos(boxes[:, 6].astype(np.float64)),
        np.sin(boxes[:, 6].astype(np.float64)),
    )
    return values


def first_box(
    points: NDArray[np.float32], boxes: NDArray[np.float32], margin: float = 0.0
) -> NDArray[np.int32]:
    """``[N] int32``: the first of the boxes ``[M, 7]``, grown by ``margin`` m, around each point; -1: none."""
    return _first_box(points, _prepared(boxes, margin))


@njit(cache=True, nogil=True)
def _first_box(points: NDArray[np.float32], boxes: NDArray[np.float64]) -> NDArray[np.int32]:
    found = np.full(len(points), -1, np.int32)
    for i in range(len(points)):
        x, y, z = float(points[i, 0]), float(points[i, 1]), float(points[i, 2])
        for m in range(len(boxes)):
            if _inside(x, y, z, boxes[m]):
                found[i] = m
                break
    return found


def counts_in(points: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.int64]:
    """``[M] int64``: how many of the points lie in each of the boxes ``[M, 7]``."""
    return _counts_in(points, _prepared(boxes, 0.0))


@njit(cache=True, nogil=True)
def _counts_in(points: NDArray[np.float32], boxes: NDArray[np.float64]) -> NDArray[np.int64]:
    counts = np.zeros(len(boxes), np.int64)
    for i in range(len(points)):
        x, y, z = float(points[i, 0]), float(points[i, 1]), float(points[i, 2])
        for m in range(len(boxes)):
            counts[m] += _inside(x, y, z, boxes[m])
    return counts


def membership_changes(
    old: NDArray[np.float32], new: NDArray[np.float32], boxes: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """``[N]``: whether moving a point from ``old`` to ``new`` takes it out of or into one of ``boxes``."""
    return _membership_changes(old, new, _prepared(boxes, 0.0))


@njit(cache=True, nogil=True)
def _membership_changes(
    old: NDArray[np.float32], new: NDArray[np.float32], boxes: NDArray[np.float64]
) -> NDArray[np.bool_]:
    changed = np.zeros(len(old), np.bool_)
    for i in range(len(old)):
        x, y, z = float(old[i, 0]), float(old[i, 1]), float(old[i, 2])
        u, v, w = float(new[i, 0]), float(new[i, 1]), float(new[i, 2])
        for m in range(len(boxes)):
            if _inside(x, y, z, boxes[m]) != _inside(u, v, w, boxes[m]):
                changed[i] = True
                break
    return changed


def overlaps(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.bool_]:
    """``[M, K]``: which of the boxes ``[M, 7]`` and ``[K, 7]`` overlap seen from above.

    Two rectangles are apart if and only if one of their four edge directions separates them.
    """
    return _overlaps(_prepared(a, 0.0), _prepared(b, 0.0))


@njit(cache=True, nogil=True)
def _overlaps(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    result = np.zeros((len(a), len(b)), np.bool_)
    for i in range(len(a)):
        for j in range(len(b)):
            dx, dy = b[j, 0] - a[i, 0], b[j, 1] - a[i, 1]
            cos = abs(a[i, 6] * b[j, 6] + a[i, 7] * b[j, 7])
            sin = abs(a[i, 6] * b[j, 7] - a[i, 7] * b[j, 6])
            result[i, j] = (
                abs(a[i, 6] * dx + a[i, 7] * dy) < a[i, 3] + b[j, 3] * cos + b[j, 4] * sin
                and abs(a[i, 6] * dy - a[i, 7] * dx) < a[i, 4] + b[j, 3] * sin + b[j, 4] * cos
                and abs(b[j, 6] * dx + b[j, 7] * dy) < b[j, 3] + a[i, 3] * cos + a[i, 4] * sin
                and abs(b[j, 6] * dy - b[j, 7] * dx) < b[j, 4] + a[i, 3] * sin + a[i, 4] * cos
            )
    return result
