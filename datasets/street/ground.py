"""The ground of the street as one analytic function of x and y: height, class and material.

The main road follows a curve that is tabulated along the world's x axis; side streets join it.
``road_distance`` is the distance to the nearest kerb (negative on the carriageway), and everything
else is laid out by that distance: kerb, verge, pavement, plots, banks. A function instead of a
height map costs nothing to build, has sharp kerbs, and has no border.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.datasets.street.classes import ROAD, SIDEWALK, TERRAIN
from perception.datasets.street.materials import ASPHALT, GRASS, MARKING, PAVING, SOIL

__all__ = ["ground_height", "ground_heights", "ground_surface", "road_distance", "value_noise"]

# Entries of the parameter vector ("G").
X_START: Final = 0  # x of the first row of the table, m
HALF_WIDTH: Final = 1  # of the carriageway, m
VERGE: Final = 2  # width of the strip between kerb and pavement, m (0 = none)
PAVEMENT: Final = 3  # width of the pavement, m
KERB: Final = 4  # height of the kerb, m
CROSS_SLOPE: Final = 5  # dz/dy of everything
CAMBER: Final = 6  # fall of the carriageway from the crown, m/m
BANK_START: Final = 7  # m behind the pavement
BANK_LENGTH: Final = 8  # m over which the bank rises
BUMP: Final = 9  # height of the unevenness of terrain, m
BUMP_LENGTH: Final = 10  # its wavelength, m
TUFT: Final = 11  # height of the small-scale unevenness of terrain, m
NOISE_SEED: Final = 12
PATH: Final = 13  # distance of a footpath behind the pavement, m (0 = none)
CORNER: Final = 14  # smoothing of street corners, m
VERGE_GRASS: Final = 15  # 1 = the verge is grass, 0 = paved
LANES: Final = 16  # 1 = a painted centre line, 2 = edge lines too, 0 = none
PAVEMENT_MATERIAL: Final = 17
ROAD_MATERIAL: Final = 18
HILL: Final = 19  # height of the wide undulation away from the road, m
GROUND_SIZE: Final = 20

# Columns of the table, one row a metre along x.
T_CENTRE: Final = 0  # y of the centre line
T_SLOPE: Final = 1  # its derivative
T_HEIGHT: Final = 2  # z of the centre line
T_BANK_LEFT: Final = 3  # height of the bank on the left
T_BANK_RIGHT: Final = 4
T_PLOT_LEFT: Final = 5  # what lies behind the pavement: 0 terrain, 1 paved, 2 asphalt, 3 soil
T_PLOT_RIGHT: Final = 6
T_SIZE: Final = 7

# Columns of the side streets: x of the junction, skew dx/dy, half width,
# side (+1 left, -1 right, 0 both).
# Columns of the strips (driveways, footpaths): x, half width, side, length, class.


@njit(inline="always")
def _hash01(ix: int, iy: int, seed: int) -> float:
    h = np.uint32(ix) * np.uint32(0x9E3779B1) ^ np.uint32(iy) * np.uint32(0x85EBCA77)
    h ^= np.uint32(seed) * np.uint32(0xC2B2AE3D)
    h = np.uint32(h ^ (h >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    h = np.uint32(h ^ (h >> np.uint32(12))) * np.uint32(0x297A2D39)
    h = np.uint32(h ^ (h >> np.uint32(15)))
    return float(h) * (1.0 / 4294967296.0)


@njit(nogil=True, cache=True)
def value_noise(x: float, y: float, seed: int) -> float:
    """Smooth noise in -1..1 with lattice spacing 1."""
    fx, fy = np.floor(x), np.floor(y)
    ix, iy = int(fx), int(fy)
    u, v = x - fx, y - fy
    u = u * u * (3.0 - 2.0 * u)
    v = v * v * (3.0 - 2.0 * v)
    a = _hash01(ix, iy, seed)
    b = _hash01(ix + 1, iy, seed)
    c = _hash01(ix, iy + 1, seed)
    d = _hash01(ix + 1, iy + 1, seed)
    return 2.0 * ((a + (b - a) * u) * (1.0 - v) + (c + (d - c) * u) * v) - 1.0


@njit(inline="always")
def _row(g: NDArray[np.float64], table: NDArray[np.float64], x: float) -> tuple[int, float]:
    s = x - g[X_START]
    s = min(max(s, 0.0), len(table) - 1.001)
    i = int(s)
    return i, s - i


@njit(nogil=True, cache=True)
def road_distance(
    g: NDArray[np.float64],
    table: NDArray[np.float64],
    crossings: NDArray[np.float64],
    x: float,
    y: float,
) -> tuple[float, float]:
    """Distance to the nearest kerb (negative on the road) and signed distance to the centre line
    of the main road (positive on the left), metres."""
    i, f = _row(g, table, x)
    slope = table[i, T_SLOPE]
    lateral = (y - (table[i, T_CENTRE] * (1.0 - f) + table[i + 1, T_CENTRE] * f)) / np.sqrt(
        1.0 + slope * slope
    )
    distance = abs(lateral) - g[HALF_WIDTH]
    for k in range(len(crossings)):
        skew = crossings[k, 1]
        across = abs(x - crossings[k, 0] - skew * lateral) / np.sqrt(1.0 + skew * skew)
        across -= crossings[k, 2]
        if crossings[k, 3] != 0.0:
            across = max(across, -lateral * crossings[k, 3])
        h = max(g[CORNER] - abs(distance - across), 0.0) / g[CORNER]
        distance = min(distance, across) - h * h * g[CORNER] * 0.25
    return distance, lateral


@njit(inline="always")
def _smoothstep(t: float) -> float:
    t = min(max(t, 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@njit(nogil=True, cache=True)
def ground_height(
    g: NDArray[np.float64],
    table: NDArray[np.float64],
    crossings: NDArray[np.float64],
    x: float,
    y: float,
) -> float:
    """Height of the ground at (x, y), metres in the world frame."""
    i, f = _row(g, table, x)
    distance, lateral = road_distance(g, table, crossings, x, y)
    z = table[i, T_HEIGHT] * (1.0 - f) + table[i + 1, T_HEIGHT] * f + g[CROSS_SLOPE] * lateral
    if distance < 0.0:
        return z - g[CAMBER] * min(abs(lateral), g[HALF_WIDTH])
    z += -g[CAMBER] * g[HALF_WIDTH] + g[KERB] * min(distance * 25.0, 1.0)
    behind = distance - g[VERGE] - g[PAVEMENT]
    if behind > 0.0:
        column = T_BANK_LEFT if lateral > 0.0 else T_BANK_RIGHT
        bank = table[i, column] * (1.0 - f) + table[i + 1, column] * f
        z += bank * _smoothstep((behind - g[BANK_START]) / g[BANK_LENGTH])
        seed = int(g[NOISE_SEED])
        ramp = min(behind * 0.5, 1.0)
        w = g[BUMP_LENGTH]
        z += ramp * g[BUMP] * value_noise(x / w, y / w, seed)
        z += ramp * g[TUFT] * value_noise(x * 2.1, y * 2.1, seed + 1)
        if behind > 8.0 and g[HILL] > 0.0:
            ramp = _smoothstep((behind - 8.0) / 25.0)
            z += ramp * g[HILL] * value_noise(x * 0.04, y * 0.04, seed + 2)
    return z


@njit(nogil=True, cache=True)
def ground_heights(
    g: NDArray[np.float64],
    table: NDArray[np.float64],
    crossings: NDArray[np.float64],
    xy: NDArray[np.float64],
) -> NDArray[np.float64]:
    """``ground_height`` of every row of ``xy [N, 2]``: ``[N]``."""
    z = np.empty(len(xy))
    for i in range(len(xy)):
        z[i] = ground_height(g, table, crossings, xy[i, 0], xy[i, 1])
    return z


@njit(nogil=True, cache=True)
def ground_surface(
    g: NDArray[np.float64],
    table: NDArray[np.float64],
    crossings: NDArray[np.float64],
    strips: NDArray[np.float64],
    x: float,
    y: float,
) -> tuple[int, int]:
    """Class and material of the ground at (x, y)."""
    distance, lateral = road_distance(g, table, crossings, x, y)
    if distance < 0.0:
        material = int(g[ROAD_MATERIAL])
        if g[LANES] > 0.0 and distance < -1.2 and abs(lateral) < 0.07 and x % 9.0 < 4.5:
            material = MARKING
        if g[LANES] > 1.0 and -0.45 < distance < -0.31:
            material = MARKING
        return ROAD, material
    behind = distance - g[VERGE] - g[PAVEMENT]
    if -g[PAVEMENT] <= behind < 0.0 or distance < 0.12:
        return SIDEWALK, int(g[PAVEMENT_MATERIAL])
    side = 1.0 if lateral > 0.0 else -1.0
    for k in range(len(strips)):
        if (
            strips[k, 2] == side
            and abs(x - strips[k, 0]) < strips[k, 1]
            and distance < strips[k, 3]
        ):
            return int(strips[k, 4]), PAVING if strips[k, 4] == SIDEWALK else ASPHALT
    if behind < 0.0:
        if g[VERGE_GRASS] > 0.0:
            return TERRAIN, GRASS
        return SIDEWALK, int(g[PAVEMENT_MATERIAL])
    if g[PATH] > 0.0 and abs(behind - g[PATH]) < 0.9:
        return SIDEWALK, PAVING
    i, _ = _row(g, table, x)
    plot = table[i, T_PLOT_LEFT] if lateral > 0.0 else table[i, T_PLOT_RIGHT]
    if behind < 25.0:
        if plot == 1.0:
            return SIDEWALK, PAVING
        if plot == 2.0:
            return ROAD, ASPHALT
        if plot == 3.0:
            return TERRAIN, SOIL
    return TERRAIN, GRASS
