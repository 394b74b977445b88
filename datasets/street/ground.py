"""The ground of the street as one analytic function of x and y: height, class and material.

The main road follows a curve that is tabulated along the world's x axis; other roads join or cross
it, with verges, pavements and corners of their own.
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

#: Grass too short to stop a beam: trodden earth, with the intensity of grass in most streets.
LAWN: Final = SOIL

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
WALK_SLOPE: Final = 20  # rise of verge and pavement away from the road, m/m
KERB_WIDTH: Final = 21  # over which the kerb rises, m
ROUGH_ROAD: Final = 22  # grain of the carriageway, m from lowest to highest
ROUGH_WALK: Final = 23  # grain of the pavement, m
MOWN: Final = 24  # share of the grass that is too short to stop a beam
DROPPED: Final = 25  # by how much kerbs are lowered at corners, 0..1
PATH_HALF: Final = 26  # half the width of the footpath, m
ZEBRA: Final = 27  # 1 = zebra crossings over the main road beside junctions
RUT: Final = 28  # depth of the wheel tracks, m
LANE: Final = 29  # width of a lane, m
GROUND_SIZE: Final = 30

# Columns of the table, one row a metre along x.
T_CENTRE: Final = 0  # y of the centre line
T_SLOPE: Final = 1  # its derivative
T_HEIGHT: Final = 2  # z of the centre line
T_BANK_LEFT: Final = 3  # height of the bank on the left
T_BANK_RIGHT: Final = 4
T_PLOT_LEFT: Final = 5  # what lies behind the pavement: 0 terrain, 1 paved, 2 asphalt, 3 soil
T_PLOT_RIGHT: Final = 6
T_KERB_LEFT: Final = 7  # factor on the height of the kerb, small at driveways
T_KERB_RIGHT: Final = 8
T_SIZE: Final = 9

#: How far plots reach behind the pavement, m.
PLOT_DEPTH: Final = 25.0

# Columns of the other roads ("crossings"): x of the junction, skew dx/dy, half width,
# side (+1 left, -1 right, 0 both), verge, pavement, corner radius.
CROSSING: Final = 7
# Columns of the strips (driveways, footpaths): x at the kerb, half width, side, length, class,
# skew dx/d(distance), bend (m).
STRIP: Final = 7


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


@njit(inline="always")
def _where(
    g: NDArray[np.float64],
    table: NDArray[np.float64],
    crossings: NDArray[np.float64],
    x: float,
    y: float,
    i: int,
    f: float,
) -> tuple[float, float, float, float, float]:
    """Distance to the nearest kerb, signed distance to the main centre line, width of the verge
    and of the pavement there, and how much this is a corner (0..1)."""
    slope = table[i, T_SLOPE]
    lateral = (y - (table[i, T_CENTRE] * (1.0 - f) + table[i + 1, T_CENTRE] * f)) / np.sqrt(
        1.0 + slope * slope
    )
    distance = abs(lateral) - g[HALF_WIDTH]
    verge, pavement, corner = g[VERGE], g[PAVEMENT], 0.0
    for k in range(len(crossings)):
        skew = crossings[k, 1]
        across = abs(x - crossings[k, 0] - skew * lateral) / np.sqrt(1.0 + skew * skew)
        across -= crossings[k, 2]
        if crossings[k, 3] != 0.0:
            across = max(across, -lateral * crossings[k, 3])
        if across > 45.0:
            continue
        # Between two roads their verges and pavements blend.
        mine = min(max(0.5 + (distance - across) * 0.12, 0.0), 1.0)
        verge += mine * (crossings[k, 4] - verge)
        pavement += mine * (crossings[k, 5] - pavement)
        h = max(crossings[k, 6] - abs(distance - across), 0.0) / crossings[k, 6]
        corner = max(corner, h)
        distance = min(distance, across) - h * h * crossings[k, 6] * 0.25
    return distance, lateral, verge, pavement, corner


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
    distance, lateral, _, _, _ = _where(g, table, crossings, x, y, i, f)
    return distance, lateral


@njit(inline="always")
def _smoothstep(t: float) -> float:
    t = min(max(t, 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@njit(inline="always")
def _paved(plot: float) -> float:
    return 1.0 if plot == 1.0 or plot == 2.0 else 0.0


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
    distance, lateral, verge, pavement, corner = _where(g, table, crossings, x, y, i, f)
    z = table[i, T_HEIGHT] * (1.0 - f) + table[i + 1, T_HEIGHT] * f + g[CROSS_SLOPE] * lateral
    grain = _hash01(int(np.floor(x * 6.0)), int(np.floor(y * 6.0)), int(g[NOISE_SEED])) - 0.5
    away = abs(lateral)
    if distance < 0.0:
        if g[RUT] > 0.0 and away < 2.0 * g[LANE]:
            track = abs(away % g[LANE] - 0.5 * g[LANE]) - 0.75
            z -= g[RUT] * max(1.0 - track * track * 12.0, 0.0)
        return z - g[CAMBER] * min(away, g[HALF_WIDTH]) + g[ROUGH_ROAD] * grain
    column = T_KERB_LEFT if lateral > 0.0 else T_KERB_RIGHT
    kerb = g[KERB] * (table[i, column] * (1.0 - f) + table[i + 1, column] * f)
    kerb *= 1.0 - g[DROPPED] * corner
    walk = verge + pavement
    z += -g[CAMBER] * g[HALF_WIDTH] + kerb * min(distance / g[KERB_WIDTH], 1.0)
    z += g[WALK_SLOPE] * min(distance, walk + 6.0)
    behind = distance - walk
    if behind <= 0.0:
        return z + g[ROUGH_WALK] * grain
    column = T_BANK_LEFT if lateral > 0.0 else T_BANK_RIGHT
    bank = table[i, column] * (1.0 - f) + table[i + 1, column] * f
    z += bank * _smoothstep((behind - g[BANK_START]) / g[BANK_LENGTH])
    seed = int(g[NOISE_SEED])
    ramp = min(behind * 0.5, 1.0)
    if behind < PLOT_DEPTH:
        # Squares and car parks are made level.
        column = T_PLOT_LEFT if lateral > 0.0 else T_PLOT_RIGHT
        level = (1.0 - f) * _paved(table[i, column]) + f * _paved(table[i + 1, column])
        level *= min((PLOT_DEPTH - behind) * 0.5, 1.0)
        ramp *= 1.0 - 0.9 * level
        z += level * g[ROUGH_WALK] * grain
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
def _carriageway(
    g: NDArray[np.float64],
    crossings: NDArray[np.float64],
    x: float,
    distance: float,
    lateral: float,
) -> int:
    """Material of the carriageway: asphalt or setts, and what is painted on it."""
    for k in range(len(crossings)):
        gap = abs(x - crossings[k, 0] - crossings[k, 1] * lateral) - crossings[k, 2]
        if abs(lateral) < g[HALF_WIDTH] and 0.0 < gap < 0.5 * crossings[k, 6] + 6.0:
            # Beside a junction there are no lines along the road, but perhaps a zebra crossing.
            stripe = gap - 0.5 * crossings[k, 6] - 1.5
            if g[ZEBRA] > 0.0 and 0.0 < stripe < 3.0 and lateral % 1.0 < 0.5:
                return MARKING
            return int(g[ROAD_MATERIAL])
        if gap < 0.0 and crossings[k, 3] * lateral >= 0.0:
            return int(g[ROAD_MATERIAL])
    if g[LANES] > 0.0 and distance < -1.2 and abs(lateral) < 0.07 and x % 9.0 < 4.5:
        return MARKING
    if g[LANES] > 1.0 and -0.45 < distance < -0.31:
        return MARKING
    return int(g[ROAD_MATERIAL])


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
    i, f = _row(g, table, x)
    distance, lateral, verge, pavement, _ = _where(g, table, crossings, x, y, i, f)
    if distance < 0.0:
        return ROAD, _carriageway(g, crossings, x, distance, lateral)
    behind = distance - verge - pavement
    if -pavement <= behind < 0.0 or distance < 0.12:
        return SIDEWALK, int(g[PAVEMENT_MATERIAL])
    side = 1.0 if lateral > 0.0 else -1.0
    for k in range(len(strips)):
        if strips[k, 2] == side and distance < strips[k, 3]:
            along = x - strips[k, 0] - strips[k, 5] * distance
            if strips[k, 6] != 0.0:
                along -= strips[k, 6] * np.sin(0.15 * distance)
            if abs(along) < strips[k, 1]:
                return int(strips[k, 4]), PAVING if strips[k, 4] == SIDEWALK else ASPHALT
    # Short grass returns like long grass, but only long grass stops a beam above the soil.
    grass = GRASS
    if g[MOWN] > 0.5 + 0.5 * value_noise(x * 0.11, y * 0.11, int(g[NOISE_SEED]) + 3):
        grass = LAWN
    if behind < 0.0:
        if g[VERGE_GRASS] > 0.0:
            return TERRAIN, grass
        return SIDEWALK, int(g[PAVEMENT_MATERIAL])
    if g[PATH] > 0.0:
        course = g[PATH] + 2.0 * value_noise(x * 0.05, 0.5, int(g[NOISE_SEED]) + 4)
        if abs(behind - course) < g[PATH_HALF]:
            return SIDEWALK, PAVING
    plot = table[i, T_PLOT_LEFT] if lateral > 0.0 else table[i, T_PLOT_RIGHT]
    if behind < PLOT_DEPTH:
        if plot == 1.0:
            return SIDEWALK, PAVING
        if plot == 2.0:
            return ROAD, ASPHALT
        if plot == 3.0:
            return TERRAIN, SOIL
    return TERRAIN, grass
