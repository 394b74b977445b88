"""The spinning 64-beam scanner: beam pattern, own car in the way, and what comes back.

The pattern follows the HDL-64E: two blocks of 32 lasers a third and half a degree apart, the
upper block looking from +2 to -8.5 degrees and mounted higher than the lower one, each laser at
its own fraction of the azimuth step. Beams that see the roof of the own car never return.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.datasets.street.classes import BUILDING
from perception.datasets.street.ground import ground_height, ground_surface
from perception.datasets.street.materials import DARK_PAINT, GLASS, GRASS, PAINT
from perception.datasets.street.raycast import (
    GAIN,
    LABEL,
    MISS,
    bin_primitives,
    intersect,
    random01,
)

__all__ = ["Sensor", "cast"]

BLIND_AZIMUTHS = 720


@dataclass(frozen=True)
class Sensor:
    """A spinning LiDAR. The defaults are an HDL-64E at 10 Hz on the roof of a car.

    Attributes:
        columns: firings a turn; 2160 are 0.167 degrees apart.
        height: of the sensor above the ground, m.
        pitch, roll: tilt of the sensor against the ground below it, radians.
        max_range, min_range: m.
        range_noise: standard deviation of the range, m.
        dropout: share of pulses lost for no visible reason.
        gain: factor on all intensities.
        unit: which device: seeds the small differences from laser to laser.
        own_car: whether the roof of the own car hides part of the lowest beams.
    """

    columns: int = 2160
    height: float = 1.73
    pitch: float = 0.0
    roll: float = 0.0
    max_range: float = 80.0
    min_range: float = 1.3
    range_noise: float = 0.009
    dropout: float = 0.004
    gain: float = 1.0
    unit: int = 0
    own_car: bool = True

    def __post_init__(self) -> None:
        if self.columns < 8:
            raise ValueError(f"Sensor: columns is {self.columns}; give at least 8 firings a turn")
        if not 0.0 < self.min_range < self.max_range:
            raise ValueError(
                f"Sensor: min_range {self.min_range} and max_range {self.max_range} must be "
                "0 < min_range < max_range"
            )
        if self.height <= 0.3:
            raise ValueError(f"Sensor: height {self.height} m; mount it above 0.3 m")

    @property
    def beams(self) -> int:
        """Number of lasers (rings)."""
        return 64

    def elevations(self) -> NDArray[np.float64]:
        """``[64]`` elevation of each beam, radians, from the highest (ring 0) down."""
        upper = np.linspace(2.05, -8.5, 32)
        lower = np.linspace(-8.83, -24.8, 32)
        # Lasers are not glued in perfectly evenly, a little differently in every device.
        wobble = np.random.default_rng([64, self.unit]).normal(0.0, 0.035, 64)
        return np.radians(np.concatenate([upper, lower]) + wobble)

    def offsets(self) -> NDArray[np.float64]:
        """``[64]`` height of each laser above the sensor's origin, m."""
        return np.repeat([0.17, 0.09], 32)

    def phases(self) -> NDArray[np.float64]:
        """``[64]`` azimuth of each laser within the step, as a fraction of the step."""
        return np.random.default_rng([65, self.unit]).uniform(0.0, 1.0, 64)

    def gains(self) -> NDArray[np.float64]:
        """``[64]`` intensity factor of each laser, which makes the known striping."""
        return np.random.default_rng([66, self.unit]).normal(1.0, 0.07, 64).clip(0.8, 1.2)

    def blind_below(self, seed: int) -> NDArray[np.float64]:
        """``[720]`` elevation under which the own car blocks the view, radians, one entry each
        half degree of azimuth from 0 counter-clockwise. The seed varies the car a little."""
        blind = np.full(BLIND_AZIMUTHS, -90.0)
        if not self.own_car:
            return np.radians(blind)
        rng = np.random.default_rng([67, seed])
        azimuth = np.arange(BLIND_AZIMUTHS) * (360.0 / BLIND_AZIMUTHS)
        # Centre, half width, elevation at the centre (degrees): bonnet and roof in front, roof
        # behind, roof rack posts, antennas.
        for centre, half, top in (
            (0.0, 18.5, -20.3),
            (183.0, 29.0, -16.0),
            (160.0, 7.5, -13.0),
            (201.0, 7.5, -13.0),
            (134.0, 6.0, -20.0),
            (235.0, 6.0, -19.5),
            (289.0, 13.0, -15.0),
        ):
            if rng.random() < 0.12:
                continue
            centre += rng.normal(0.0, 2.0)
            half *= rng.uniform(0.8, 1.15)
            top += rng.normal(0.0, 0.8)
            off = (np.abs((azimuth - centre + 180.0) % 360.0 - 180.0)) / half
            edge = top - 6.0 * off**1.6
            blind = np.maximum(blind, np.where(off < 1.0, edge, -90.0))
        return np.radians(blind)

    def tilt(self) -> NDArray[np.float64]:
        """``[3, 3]`` rotation from the sensor to the level frame below it."""
        cp, sp = math.cos(self.pitch), math.sin(self.pitch)
        cr, sr = math.cos(self.roll), math.sin(self.roll)
        pitch = np.array([[cp, 0.0, sp], [0.0, 1.0, 0.0], [-sp, 0.0, cp]])
        roll = np.array([[1.0, 0.0, 0.0], [0.0, cr, -sr], [0.0, sr, cr]])
        return pitch @ roll


@njit(nogil=True, cache=True)
def _gauss(state: NDArray[np.uint64]) -> float:
    """Standard normal, from the sum of four uniforms (light tails suit a range gate)."""
    total = random01(state) + random01(state) + random01(state) + random01(state)
    return (total - 2.0) * 1.7320508


@njit(nogil=True, cache=True)
def _profile_radii(max_range: float) -> NDArray[np.float64]:
    """Horizontal distances at which the ground is sampled along a column."""
    radii = np.empty(600)
    r, n = 1.0, 0
    while r < max_range and n < 599:
        radii[n] = r
        n += 1
        r += max(0.07, 0.011 * r)
    radii[n] = max_range
    return radii[: n + 1]


@njit(nogil=True, cache=True)
def cast(
    rotation: NDArray[np.float64],
    origin: NDArray[np.float64],
    elevations: NDArray[np.float64],
    offsets: NDArray[np.float64],
    phases: NDArray[np.float64],
    gains: NDArray[np.float64],
    blind: NDArray[np.float64],
    columns: int,
    limits: NDArray[np.float64],
    materials: NDArray[np.float64],
    primitives: NDArray[np.float64],
    instances: NDArray[np.int32],
    g: NDArray[np.float64],
    table: NDArray[np.float64],
    crossings: NDArray[np.float64],
    strips: NDArray[np.float64],
    seed: int,
    points: NDArray[np.float32],
    intensity: NDArray[np.float32],
    ring: NDArray[np.uint8],
    column_of: NDArray[np.int32],
    labels: NDArray[np.uint8],
    instance: NDArray[np.int32],
) -> int:
    """Cast one turn and write what comes back into the output arrays (in firing order).

    Args:
        rotation, origin: world_from_sensor.
        elevations, offsets, phases, gains: of the beams, highest beam first.
        blind: elevation under which the own car blocks the view, by half degree of azimuth.
        limits: min_range, max_range, range noise, dropout, gain.
        materials: the table of ``materials.py``.
        primitives, instances: the objects, in the world frame.
        g, table, crossings, strips: the ground.
        seed: of noise, drop-outs and foliage.

    Returns:
        The number of points written.
    """
    min_range, max_range, noise, dropout, gain = (
        limits[0],
        limits[1],
        limits[2],
        limits[3],
        limits[4],
    )
    beams = len(elevations)
    bins = 720
    begin, members, extent = bin_primitives(primitives, origin[0], origin[1], bins, max_range)
    state = np.array([np.uint64(seed)], dtype=np.uint64)
    radii = _profile_radii(max_range)
    heights = np.empty(len(radii))
    step = 2.0 * np.pi / columns
    cos_e, sin_e = np.cos(elevations), np.sin(elevations)
    ox, oy = origin[0], origin[1]
    n = 0
    for column in range(columns):
        # The ground along the middle of the column; each beam finds its stretch of it by walking
        # outwards, because a higher beam never lands nearer than a lower one.
        middle = (column + 0.5) * step
        sx, sy = np.cos(middle), np.sin(middle)
        ux = rotation[0, 0] * sx + rotation[0, 1] * sy
        uy = rotation[1, 0] * sx + rotation[1, 1] * sy
        norm = 1.0 / np.sqrt(ux * ux + uy * uy)
        ux, uy = ux * norm, uy * norm
        sampled = 0
        at = 1
        previous = MISS
        for b in range(beams - 1, -1, -1):
            azimuth = (column + phases[b]) * step
            if (
                elevations[b]
                < blind[int(azimuth * (BLIND_AZIMUTHS / (2.0 * np.pi))) % BLIND_AZIMUTHS]
            ):
                continue
            cx, cy = np.cos(azimuth) * cos_e[b], np.sin(azimuth) * cos_e[b]
            cz = sin_e[b]
            dx = rotation[0, 0] * cx + rotation[0, 1] * cy + rotation[0, 2] * cz
            dy = rotation[1, 0] * cx + rotation[1, 1] * cy + rotation[1, 2] * cz
            dz = rotation[2, 0] * cx + rotation[2, 1] * cy + rotation[2, 2] * cz
            oz = origin[2] + offsets[b]
            flat = np.sqrt(dx * dx + dy * dy)
            slope = dz / flat
            if oz != previous:
                previous = oz
                at = 1
            best, cosine, material, hit = MISS, 1.0, 0, -2
            # Ground.
            while at < len(radii):
                while sampled <= at:
                    heights[sampled] = ground_height(
                        g, table, crossings, ox + radii[sampled] * ux, oy + radii[sampled] * uy
                    )
                    sampled += 1
                if heights[at] >= oz + slope * radii[at]:
                    break
                at += 1
            if at < len(radii):
                # The column's middle gives the stretch; the beam's own azimuth gives the point.
                gx, gy = dx / flat, dy / flat
                r1 = radii[at]
                f1 = (
                    oz + slope * r1 - ground_height(g, table, crossings, ox + r1 * gx, oy + r1 * gy)
                )
                r0 = radii[at - 1]
                f0 = (
                    oz + slope * r0 - ground_height(g, table, crossings, ox + r0 * gx, oy + r0 * gy)
                )
                width = r1 - r0
                for _ in range(4):
                    if f1 <= 0.0:
                        break
                    r0, f0 = r1, f1
                    r1 += width
                    f1 = (
                        oz
                        + slope * r1
                        - ground_height(g, table, crossings, ox + r1 * gx, oy + r1 * gy)
                    )
                for _ in range(4):
                    if f0 >= 0.0:
                        break
                    r1, f1 = r0, f0
                    r0 -= width
                    f0 = (
                        oz
                        + slope * r0
                        - ground_height(g, table, crossings, ox + r0 * gx, oy + r0 * gy)
                    )
                if f0 >= 0.0 >= f1:
                    for _ in range(3):
                        r = r0 + (r1 - r0) * f0 / max(f0 - f1, 1e-12)
                        f = (
                            oz
                            + slope * r
                            - ground_height(g, table, crossings, ox + r * gx, oy + r * gy)
                        )
                        if f > 0.0:
                            r0, f0 = r, f
                        else:
                            r1, f1 = r, f
                    r = r0 + (r1 - r0) * f0 / max(f0 - f1, 1e-12)
                    best = r / flat
                    hit = -1
                    fall = (f0 - f1) / max(r1 - r0, 1e-9) * flat
                    cosine = min(abs(fall) + 0.02, 1.0)
            # Objects.
            bin_ = int(np.arctan2(dy, dx) * (bins / (2.0 * np.pi)) + bins) % bins
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
            if hit == -2 or best > max_range or best < min_range:
                continue
            strength = 1.0
            if hit >= 0:
                label = int(primitives[hit, LABEL])
                strength = primitives[hit, GAIN]
            else:
                label, material = ground_surface(
                    g, table, crossings, strips, ox + best * dx, oy + best * dy
                )
                if material == GRASS:
                    # Blades stop the beam before it reaches the soil, at flat angles long before.
                    blade = -0.03 * np.log(random01(state))
                    best -= min(blade / max(cosine, 0.02), 0.012 * best + 0.1)
            # What comes back.
            weak = (1.0 - 0.75 * cosine) * (best / max_range) ** 2
            lost = dropout + materials[material, 2] + 0.35 * weak
            if random01(state) < lost:
                if material != GLASS or random01(state) > 0.12:
                    continue
                # A return from inside: a room is deep, a car is not.
                inside = random01(state)
                best += 0.3 - 1.5 * np.log(inside) if label == BUILDING else 0.2 + 0.5 * inside
                if best > max_range:
                    continue
            # Intensities are calibrated, hence flat up to about 20 m; then the echo of a surface seen
            # at a flat angle fades before that of one seen squarely.
            fade = 1.0 - min(max((best - 18.0) / (20.0 + 38.0 * cosine), 0.0), 1.0)
            value = materials[material, 0] * (0.88 + 0.16 * cosine) * strength
            value = (value + materials[material, 1] * _gauss(state)) * gains[b] * gain * fade
            lacquer = material in (PAINT, DARK_PAINT)
            if lacquer and random01(state) < 0.65 - 0.5 * cosine:
                value = 0.0  # mirrored away
            best += noise * _gauss(state) + materials[material, 3] * (random01(state) - 0.5)
            points[n, 0] = best * cx
            points[n, 1] = best * cy
            points[n, 2] = best * cz + offsets[b]
            intensity[n] = np.float32(round(min(max(value, 0.0), 1.0) * 100.0) / 100.0)
            ring[n] = b
            column_of[n] = column
            labels[n] = label
            instance[n] = instances[hit] if hit >= 0 else 0
            n += 1
    return n
