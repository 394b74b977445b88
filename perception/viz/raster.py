"""A software rasterizer: z-buffered discs and lines, shaded by depth. No system library needed.

The depth shading is eye-dome lighting (Boucheny 2009): a pixel darkens by how far it lies behind
its neighbours, so that edges and shapes read without normals.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@njit(cache=True, nogil=True)
def splat_points(
    pixels: FloatArray,
    depth: FloatArray,
    radius: FloatArray,
    colors: FloatArray,
    image: FloatArray,
    zbuffer: FloatArray,
) -> None:
    """Draw one disc per point where it is nearest.

    Args:
        pixels: ``[N, 2]`` column and row of the centres.
        depth: ``[N]``, larger is farther.
        radius: ``[N]`` in pixels.
        colors: ``[N, 3]``.
        image: ``[H, W, 3]``, written.
        zbuffer: ``[H, W]``, infinite where nothing was drawn; read and written.
    """
    height, width = zbuffer.shape
    for i in range(pixels.shape[0]):
        x, y, r, z = pixels[i, 0], pixels[i, 1], radius[i], depth[i]
        first_row, last_row = max(0, int(np.ceil(y - r))), min(height - 1, int(np.floor(y + r)))
        first, last = max(0, int(np.ceil(x - r))), min(width - 1, int(np.floor(x + r)))
        for row in range(first_row, last_row + 1):
            for column in range(first, last + 1):
                inside = (row - y) ** 2 + (column - x) ** 2 <= r * r
                if inside and z < zbuffer[row, column]:
                    zbuffer[row, column] = z
                    image[row, column, 0] = colors[i, 0]
                    image[row, column, 1] = colors[i, 1]
                    image[row, column, 2] = colors[i, 2]


@njit(cache=True, nogil=True)
def draw_lines(
    starts: FloatArray,
    ends: FloatArray,
    colors: FloatArray,
    radius: float,
    image: FloatArray,
    zbuffer: FloatArray,
) -> None:
    """Draw segments; a part behind what is drawn shines through at a quarter of its strength.

    Args:
        starts: ``[M, 3]`` column, row, depth.
        ends: ``[M, 3]`` likewise.
        colors: ``[M, 3]``.
        radius: half the width in pixels.
        image: ``[H, W, 3]``, written.
        zbuffer: ``[H, W]``, read only, so that lines do not hide each other.
    """
    height, width = zbuffer.shape
    reach = int(np.ceil(radius))
    for i in range(starts.shape[0]):
        dx, dy = ends[i, 0] - starts[i, 0], ends[i, 1] - starts[i, 1]
        # A segment that leaves the picture far away is cut to what can be seen.
        enter, leave = 0.0, 1.0
        for delta, start, limit in ((dx, starts[i, 0], width), (dy, starts[i, 1], height)):
            if abs(delta) < 1e-6:
                if start < -reach or start > limit + reach:
                    leave = -1.0
                continue
            a, b = (-reach - start) / delta, (limit + reach - start) / delta
            enter, leave = max(enter, min(a, b)), min(leave, max(a, b))
        if leave <= enter:
            continue
        steps = int(max(abs(dx), abs(dy)) * (leave - enter)) + 1
        for step in range(steps + 1):
            t = enter + (leave - enter) * step / steps
            x, y = starts[i, 0] + t * dx, starts[i, 1] + t * dy
            # Depth is linear on the screen in its inverse.
            z = 1.0 / ((1.0 - t) / starts[i, 2] + t / ends[i, 2])
            for row in range(int(y) - reach, int(y) + reach + 1):
                for column in range(int(x) - reach, int(x) + reach + 1):
                    if row < 0 or row >= height or column < 0 or column >= width:
                        continue
                    if (row - y) ** 2 + (column - x) ** 2 > radius * radius:
                        continue
                    share = 1.0 if z <= zbuffer[row, column] * 1.01 else 0.02
                    for channel in range(3):
                        old = image[row, column, channel]
                        image[row, column, channel] = old + share * (colors[i, channel] - old)


@njit(cache=True, nogil=True)
def shade(image: FloatArray, depth: FloatArray, reach: int, strength: float, floor: float) -> None:
    """Darken pixels that lie behind their neighbours (eye-dome lighting).

    Args:
        image: ``[H, W, 3]``, written.
        depth: ``[H, W]`` in units in which 1 is a clear step; infinite where nothing was drawn.
        reach: distance of the neighbours in pixels.
        strength: how much a step of 1 darkens.
        floor: the least brightness that stays, 0..1.
    """
    height, width = depth.shape
    for row in range(height):
        for column in range(width):
            z = depth[row, column]
            if not np.isfinite(z):
                continue
            total = 0.0
            for dy in (-reach, 0, reach):
                for dx in (-reach, 0, reach):
                    y, x = row + dy, column + dx
                    if 0 <= y < height and 0 <= x < width and np.isfinite(depth[y, x]):
                        total += min(max(0.0, z - depth[y, x]), 1.0)
            light = floor + (1.0 - floor) * np.exp(-strength * total / 8.0)
            for channel in range(3):
                image[row, column, channel] *= light


@njit(cache=True, nogil=True)
def nearest_distances(points: FloatArray, picked: NDArray[np.int64]) -> FloatArray:
    """The distance from each picked point ``[K]`` to the nearest other of ``points [N, 3]``."""
    result = np.empty(picked.size, dtype=np.float32)
    for k in range(picked.size):
        i = picked[k]
        best = np.inf
        for j in range(points.shape[0]):
            dx = points[i, 0] - points[j, 0]
            dy = points[i, 1] - points[j, 1]
            dz = points[i, 2] - points[j, 2]
            square = dx * dx + dy * dy + dz * dz
            if 0.0 < square < best:
                best = square
        result[k] = np.sqrt(best)
    return result
