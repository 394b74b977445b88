"""Cameras: colour, depth and classes of what the same rays as the LiDAR's meet.

A pixel is one ray (or several, to smooth edges). Its surface gets light from the sun, unless a
shadow ray meets something, and from the sky, less of it under a roof, a crown or a car; glass and
lacquer mirror the sky; the air between adds haze by the same extinction that takes the LiDAR's
pulses in rain and fog.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.datasets.street.colors import ground_color, primitive_colors
from perception.datasets.street.ground import ground_height, ground_surface, value_noise
from perception.datasets.street.light import Light, facing, in_shade, shade_grid, sky
from perception.datasets.street.materials import DARK_PAINT, GLASS, GRASS, LEAF, PAINT
from perception.datasets.street.raycast import (
    COS,
    CROWN,
    FACADE,
    HEDGE,
    KIND,
    LABEL,
    SIN,
    Z_TOP,
    X,
    Y,
    Z,
    bin_primitives,
    random01,
)
from perception.datasets.street.sensor import rotation
from perception.datasets.street.trace import (
    COLUMNS,
    NOTHING,
    ON_GROUND,
    first_hit,
    profile_radii,
)
from perception.datasets.street.weather import Weather
from perception.datasets.street.world import World
from perception.geometry import Camera, invert

__all__ = ["SIGHT", "Lens", "Picture", "take"]

#: How far cameras see, m; beyond lies haze. The ground is laid out a little farther.
SIGHT: Final = 115.0
#: Extinction of clear air, 1/m: a visibility of 3.5 km hides where the laid-out street ends.
CLEAR_AIR: Final = 0.0011


@dataclass(frozen=True, kw_only=True)
class Lens:
    """A camera and where it sits on the vehicle.

    Attributes:
        name: ``"front"``; of the ``Image``.
        size: width and height, pixels.
        field_of_view: horizontal, radians.
        x, y, height: place on the vehicle, m (x forward, y left, height above the ground).
        yaw, pitch, roll: of the optical axis on the vehicle, radians; positive pitch looks down.
        distortion: as in ``perception.geometry.Camera``.
        samples: rays a pixel, a square number; more of them smooth edges.

    Raises:
        ValueError: a size, field of view or number of samples that no camera has.
    """

    name: str = "front"
    size: tuple[int, int] = (800, 448)
    field_of_view: float = math.radians(82.0)
    x: float = 0.4
    y: float = 0.0
    height: float = 1.5
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    distortion: tuple[float, ...] = ()
    samples: int = 1

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"Lens: size {self.size}; give width and height in pixels")
        if not 0.0 < self.field_of_view < math.pi:
            raise ValueError(f"Lens: field_of_view {self.field_of_view} rad; give 0 to pi")
        if self.samples < 1 or math.isqrt(self.samples) ** 2 != self.samples:
            raise ValueError(f"Lens: samples {self.samples}; give a square number: 1, 4, 9")

    def camera(self, frame_from_vehicle: NDArray[np.float64]) -> Camera:
        """The calibrated camera in a frame given by ``[4, 4] frame_from_vehicle``."""
        axes = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
        pose = np.eye(4)
        pose[:3, :3] = rotation(self.yaw, self.pitch, self.roll) @ axes
        pose[:3, 3] = (self.x, self.y, self.height)
        width, height = self.size
        plain = Camera.from_field_of_view(width, height, self.field_of_view, np.eye(4))
        return Camera(
            plain.intrinsics, width, height, frame_from_vehicle @ pose, np.array(self.distortion)
        )


@dataclass(frozen=True, eq=False, slots=True)
class Picture:
    """What a camera sees.

    Attributes:
        rgb: ``[H, W, 3] uint8`` sRGB.
        depth: ``[H, W] float32`` metres along the optical axis, 0 = sky.
        labels: ``[H, W] uint8`` positions in ``CLASSES``, 255 = sky.
        instances: ``[H, W] int32`` track ids, 0 = none.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    labels: NDArray[np.uint8]
    instances: NDArray[np.int32]


@lru_cache(maxsize=8)
def _directions(lens: Lens) -> NDArray[np.float64]:
    """``[samples, H * W, 3]`` rays in the camera's own frame; the first go through the centres
    of the pixels, and depth, labels and instances are theirs."""
    camera = lens.camera(np.eye(4))
    camera = camera.moved(invert(camera.pose))
    width, height = lens.size
    v, u = np.mgrid[0:height, 0:width]
    corner = np.stack([u.ravel(), v.ravel()], axis=1).astype(np.float64)
    steps = math.isqrt(lens.samples)
    shifts = (np.arange(steps) + 0.5) / steps
    grid = [(a, b) for a in shifts for b in shifts]
    grid.sort(key=lambda s: (s[0] - 0.5) ** 2 + (s[1] - 0.5) ** 2)
    if lens.samples > 1:
        grid[0] = (0.5, 0.5)
    return np.stack([camera.rays(corner + np.array(shift))[1] for shift in grid])


def take(
    world: World,
    lens: Lens,
    world_from_vehicle: NDArray[np.float64],
    weather: Weather,
    seed: int,
    noise: int,
) -> Picture:
    """The picture that a camera takes of a world.

    Args:
        world: at the moment of the picture, laid out at least ``SIGHT`` metres around.
        lens: the camera.
        world_from_vehicle: ``[4, 4]``.
        weather: rain, fog.
        seed: of light and colours: one a street.
        noise: seed of the leaves that rays meet.
    """
    camera = lens.camera(world_from_vehicle)
    width, height = lens.size
    light = Light.of(seed, weather)
    rgb = np.empty((height * width, 3), np.uint8)
    depth = np.empty(height * width, np.float32)
    labels = np.empty(height * width, np.uint8)
    instances = np.empty(height * width, np.int32)
    ground = world.ground
    _render(
        np.ascontiguousarray(camera.pose[:3, :3]),
        np.ascontiguousarray(camera.pose[:3, 3]),
        _directions(lens),
        world.rows,
        world.instances,
        primitive_colors(world.rows, seed),
        ground.g,
        ground.table,
        ground.crossings,
        world.strips,
        light.sun,
        light.strength,
        np.array([weather.extinction + CLEAR_AIR, weather.soaked, (seed * 0.618034) % 1.0]),
        noise,
        rgb,
        depth,
        labels,
        instances,
    )
    shape = (height, width)
    return Picture(
        rgb.reshape(*shape, 3),
        depth.reshape(shape),
        labels.reshape(shape),
        instances.reshape(shape),
    )


@njit(nogil=True, cache=True)
def _mirror(
    dx: float, dy: float, dz: float, nx: float, ny: float, nz: float
) -> tuple[float, float, float, float]:
    """Direction of the mirrored ray and how much of the light it carries (Schlick, glass)."""
    along = dx * nx + dy * ny + dz * nz
    share = 0.04 + 0.96 * (1.0 - min(abs(along), 1.0)) ** 5
    return dx - 2.0 * along * nx, dy - 2.0 * along * ny, dz - 2.0 * along * nz, share


@njit(nogil=True, cache=True)
def _pane(p: NDArray[np.float64], x: float, y: float, z: float) -> float:
    """Brightness of what is behind a window of a facade, 0..1: curtains, dark rooms."""
    rx, ry = x - p[X], y - p[Y]
    lx, ly = p[COS] * rx + p[SIN] * ry, p[COS] * ry - p[SIN] * rx
    column = np.floor((lx + 1000.0 * p[12]) / p[12]) + 37.0 * np.floor(
        (ly + 1000.0 * p[12]) / p[12]
    )
    storey = np.floor((z - p[Z]) / p[14])
    h = np.sin(column * 12.9898 + storey * 78.233 + p[X]) * 43758.5453
    return h - np.floor(h)


@njit(nogil=True, cache=True)
def _wall(
    p: NDArray[np.float64], x: float, y: float, z: float, nx: float, ny: float
) -> tuple[float, bool]:
    """How bright a facade is at a point, and whether that is on the frame of a window."""
    rx, ry = x - p[X], y - p[Y]
    across = abs(p[COS] * nx + p[SIN] * ny) < 0.5
    along = p[COS] * rx + p[SIN] * ry if across else p[COS] * ry - p[SIN] * rx
    up = z - p[Z]
    grain = 1.0 + 0.05 * value_noise(0.5 * along, 0.4 * up, 51)
    grain += 0.04 * value_noise(3.1 * along, 1.3 * up, 52)
    u = (along + 1000.0 * p[12]) % p[12] - 0.5 * (p[12] - p[13])
    v = up % p[14] - 0.32 * p[14]
    high = 0.48 * p[14]
    near = -0.07 < u < p[13] + 0.07 and -0.07 < v < high + 0.07
    return grain, near and up < p[Z_TOP] - p[Z] - 0.4


@njit(nogil=True, cache=True)
def _byte(v: float) -> int:
    """Film curve and sRGB gamma."""
    v = (1.0 - np.exp(-1.2 * max(v, 0.0))) ** (1.0 / 2.2)
    v = 0.45 * v + 0.55 * v * v * (3.0 - 2.0 * v)
    return int(min(v, 1.0) * 255.0 + 0.5)


@njit(nogil=True, cache=True)
def _render(
    turn: NDArray[np.float64],
    origin: NDArray[np.float64],
    directions: NDArray[np.float64],
    primitives: NDArray[np.float64],
    owners: NDArray[np.int32],
    colors: NDArray[np.float64],
    g: NDArray[np.float64],
    table: NDArray[np.float64],
    crossings: NDArray[np.float64],
    strips: NDArray[np.float64],
    sun: NDArray[np.float64],
    strength: NDArray[np.float64],
    air: NDArray[np.float64],
    seed: int,
    rgb: NDArray[np.uint8],
    depth: NDArray[np.float32],
    labels: NDArray[np.uint8],
    instances: NDArray[np.int32],
) -> None:
    """Fill the pictures; ``directions [S, P, 3]`` in the camera's frame, ``turn`` and ``origin``
    world_from_camera, ``air``: extinction, wetness, tint of the street."""
    ox, oy, oz = origin[0], origin[1], origin[2]
    begin, members, extent = bin_primitives(primitives, ox, oy, 720, SIGHT)
    radii = profile_radii(SIGHT)
    heights = np.empty((COLUMNS, len(radii)), np.float32)
    climb = np.empty((COLUMNS, len(radii)), np.float32)
    filled = np.zeros(COLUMNS, np.int64)
    sun_begin, sun_members = shade_grid(primitives, ox, oy, sun)
    zenith = np.array([0.0, 0.0, 1.0])
    top_begin, top_members = shade_grid(primitives, ox, oy, zenith)
    state = np.zeros(1, np.uint64)
    samples, pixels = directions.shape[0], directions.shape[1]
    extinction, wet, tint = air[0], air[1], air[2]
    grey = strength[7]
    for pixel in range(pixels):
        red, green, blue = 0.0, 0.0, 0.0
        for sample in range(samples):
            state[0] = np.uint64(seed) ^ (
                np.uint64(pixel * samples + sample + 1) * np.uint64(0xD1342543DE82EF95)
            )
            cx, cy, cz = (
                directions[sample, pixel, 0],
                directions[sample, pixel, 1],
                directions[sample, pixel, 2],
            )
            dx = turn[0, 0] * cx + turn[0, 1] * cy + turn[0, 2] * cz
            dy = turn[1, 0] * cx + turn[1, 1] * cy + turn[1, 2] * cz
            dz = turn[2, 0] * cx + turn[2, 1] * cy + turn[2, 2] * cz
            best, _, material, hit = first_hit(
                ox, oy, oz, dx, dy, dz, oz, state, radii, heights, climb, filled,
                begin, members, extent, primitives, g, table, crossings,
            )  # fmt: skip
            if best > SIGHT:
                hit = NOTHING
            label, owner = 255, 0
            if hit == NOTHING:
                r, gr, b = sky(dx, dy, dz, sun, strength)
                if dz < 0.0:  # land beyond sight
                    r, gr, b = 0.62 * r, 0.66 * gr, 0.62 * b
                # Fog is a layer: the lower the view, the more of it.
                clear = np.exp(-(extinction - CLEAR_AIR) * 60.0 / (max(dz, 0.0) + 0.03))
                sr, sg, sb = sky(dx, dy, 0.01, sun, strength)
                r = r * clear + 0.9 * sr * (1.0 - clear)
                gr = gr * clear + 0.9 * sg * (1.0 - clear)
                b = b * clear + 0.9 * sb * (1.0 - clear)
            else:
                x, y, z = ox + best * dx, oy + best * dy, oz + best * dz
                if hit == ON_GROUND:
                    label, material = ground_surface(g, table, crossings, strips, x, y)
                    r, gr, b = ground_color(material, x, y, best, wet, tint)
                    h = 0.05 + 0.004 * best
                    here = ground_height(g, table, crossings, x, y)
                    nx = here - ground_height(g, table, crossings, x + h, y)
                    ny = here - ground_height(g, table, crossings, x, y + h)
                    norm = 1.0 / np.sqrt(nx * nx + ny * ny + h * h)
                    nx, ny, nz = nx * norm, ny * norm, h * norm
                else:
                    p = primitives[hit]
                    label, owner = int(p[LABEL]), owners[hit]
                    r, gr, b = colors[hit, 0], colors[hit, 1], colors[hit, 2]
                    nx, ny, nz = facing(p, x, y, z)
                    if nx * dx + ny * dy + nz * dz > 0.0:
                        nx, ny, nz = -nx, -ny, -nz
                    kind = int(p[KIND])
                    if kind in (CROWN, HEDGE):
                        # Leaves face anywhere, on the whole outwards.
                        nx += 0.9 * (random01(state) - 0.5)
                        ny += 0.9 * (random01(state) - 0.5)
                        nz += 0.9 * (random01(state) - 0.5) + 0.25
                        norm = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz)
                        nx, ny, nz = nx * norm, ny * norm, nz * norm
                        leaf = 0.55 + 0.9 * random01(state) ** 2
                        across, along = 0.8 * x + 0.6 * y, 0.6 * x - 0.8 * y
                        tufts = value_noise(7.0 * across, 7.0 * z, 41)
                        tufts += value_noise(7.0 * along, 7.0 * z, 42)
                        boughs = value_noise(1.9 * across, 2.2 * z, 43)
                        boughs += value_noise(1.9 * along, 2.2 * z, 44)
                        leaf *= max(1.0 + 0.3 * tufts + 0.25 * boughs, 0.1)
                        if kind == CROWN:  # darker inside
                            rx, ry, rz = (x - p[X]) / p[6], (y - p[Y]) / p[7], (z - p[Z]) / p[8]
                            leaf *= 0.3 + 0.7 * min(rx * rx + ry * ry + rz * rz, 1.0)
                        r, gr, b = leaf * r, leaf * gr, leaf * b
                    elif kind == FACADE and material != GLASS:
                        grain, frame = _wall(p, x, y, z, nx, ny)
                        if frame:
                            r, gr, b = 0.62, 0.62, 0.60
                        r, gr, b = grain * r, grain * gr, grain * b
                # Light.
                lit = nx * sun[0] + ny * sun[1] + nz * sun[2]
                if material == LEAF:
                    lit = 0.65 * lit + 0.35  # leaves let light through
                direct = max(lit, 0.0)
                ex, ey, ez = x + 0.03 * nx, y + 0.03 * ny, z + 0.03 * nz
                if hit == ON_GROUND:
                    ez += 0.01
                if (
                    direct > 0.0
                    and grey < 0.95
                    and in_shade(ex, ey, ez, ox, oy, sun, sun_begin, sun_members, primitives, state)
                ):
                    direct = 0.0
                open_ = 0.62 + 0.38 * nz
                if nz > -0.5 and in_shade(
                    ex, ey, ez, ox, oy, zenith, top_begin, top_members, primitives, state
                ):
                    open_ *= 0.5
                bounce = 0.07 * (1.0 - nz)  # from a grey ground
                lr = strength[0] * direct + strength[3] * open_ + bounce
                lg = strength[1] * direct + strength[4] * open_ + bounce
                lb = strength[2] * direct + strength[5] * open_ + 0.9 * bounce
                r, gr, b = r * lr, gr * lg, b * lb
                # Mirrors.
                gloss = 0.0
                if material == GLASS:
                    behind = 0.012
                    if hit >= 0 and int(primitives[hit, KIND]) == FACADE:
                        curtain = _pane(primitives[hit], x, y, z)
                        behind = 0.02 + (0.22 * curtain if curtain > 0.72 else 0.03 * curtain)
                    r, gr, b = behind * lg, behind * 1.02 * lg, behind * 1.05 * lg
                    gloss = 1.0
                elif material in (PAINT, DARK_PAINT):
                    gloss = 0.8
                elif hit == ON_GROUND and wet > 0.0 and material != GRASS:
                    gloss = 0.55 * wet
                if gloss > 0.0:
                    mx, my, mz, share = _mirror(dx, dy, dz, nx, ny, nz)
                    if material == GLASS:
                        share = 0.10 + 0.9 * share
                    sr, sg, sb = sky(mx, my, mz, sun, strength)
                    if mz < 0.12:  # what stands around, not sky
                        dim = 0.30 + 0.70 * max(mz / 0.12, 0.0) if mz > 0.0 else 0.25
                        sr, sg, sb = dim * sr, dim * sg, dim * sb
                    share *= gloss
                    r += share * (sr - r)
                    gr += share * (sg - gr)
                    b += share * (sb - b)
                # Air.
                clear = np.exp(-extinction * best)
                sr, sg, sb = sky(dx, dy, 0.01, sun, strength)
                r = r * clear + 0.9 * sr * (1.0 - clear)
                gr = gr * clear + 0.9 * sg * (1.0 - clear)
                b = b * clear + 0.9 * sb * (1.0 - clear)
            red += r
            green += gr
            blue += b
            if sample == 0:
                depth[pixel] = np.float32(best * cz) if hit != NOTHING else np.float32(0.0)
                labels[pixel] = label
                instances[pixel] = owner
        rgb[pixel, 0] = _byte(red / samples)
        rgb[pixel, 1] = _byte(green / samples)
        rgb[pixel, 2] = _byte(blue / samples)
