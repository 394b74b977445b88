"""What comes back to a LiDAR from the first thing that each pulse meets."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.datasets.street.classes import BUILDING
from perception.datasets.street.ground import ground_surface
from perception.datasets.street.materials import (
    ASPHALT,
    CLOTH,
    DARK_PAINT,
    GLASS,
    GRASS,
    LEAF,
    MARKING,
    METAL,
    PAINT,
    PAVING,
    PLATE,
)
from perception.datasets.street.raycast import GAIN, LABEL, MISS, bin_primitives, random01
from perception.datasets.street.trace import (
    COLUMNS,
    NOTHING,
    ON_GROUND,
    first_hit,
    profile_radii,
)

__all__ = ["cast"]

UNKNOWN = 255


@njit(nogil=True, cache=True)
def _gauss(state: NDArray[np.uint64]) -> float:
    """Standard normal, from the sum of four uniforms (light tails suit a range gate)."""
    total = random01(state) + random01(state) + random01(state) + random01(state)
    return (total - 2.0) * 1.7320508


@njit(nogil=True, cache=True)
def _reach(material: int, cosine: float, strength: float, brightness: float) -> float:
    """How far a surface can be and still be seen, as a multiple of the sensor's range."""
    if material == PLATE:
        return 4.0
    return np.sqrt(brightness * strength * (0.3 + 0.7 * cosine) / 0.05)


@njit(nogil=True, cache=True)
def cast(
    rotation: NDArray[np.float64],
    origin: NDArray[np.float64],
    directions: NDArray[np.float64],
    beams: NDArray[np.uint8],
    offsets: NDArray[np.float64],
    gains: NDArray[np.float64],
    losses: NDArray[np.float64],
    biases: NDArray[np.float64],
    limits: NDArray[np.float64],
    weather: NDArray[np.float64],
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
    pulse: NDArray[np.int32],
    labels: NDArray[np.uint8],
    instance: NDArray[np.int32],
) -> int:
    """Send pulses and write what comes back into the output arrays, in the order of the pulses.

    Every pulse has random numbers of its own, so that what happens to one does not change the
    others: with more drop-out the same scan has fewer points, in rain it has the same points less
    some and plus the drops.

    Args:
        rotation, origin: world_from_sensor.
        directions, beams: ``[R, 3]``, ``[R]``: the pulses.
        offsets, gains, losses, biases: of the beams.
        limits: min_range, max_range, range noise, dropout, gain, divergence.
        weather: ``Weather.pulse()``.
        materials: the table of ``materials.py``.
        primitives, instances: the objects, in the world frame.
        g, table, crossings, strips: the ground.
        seed: of noise, drop-outs and foliage.
        points, intensity, pulse, labels, instance: outputs with room for R points; ``pulse`` is the
            row in ``directions``.

    Returns:
        The number of points written.
    """
    min_range, max_range, noise = limits[0], limits[1], limits[2]
    dropout, gain, divergence = limits[3], limits[4], limits[5]
    extinction, drops, near_half, wet, drop_intensity = (
        weather[0],
        weather[1],
        weather[2],
        weather[3],
        weather[4],
    )
    window = weather[5]
    ox, oy = origin[0], origin[1]
    base = origin[2] + offsets.min()
    begin, members, extent = bin_primitives(primitives, ox, oy, 720, max_range)
    radii = profile_radii(max_range)
    heights = np.empty((COLUMNS, len(radii)), np.float32)
    climb = np.empty((COLUMNS, len(radii)), np.float32)
    filled = np.zeros(COLUMNS, np.int64)
    state = np.zeros(1, np.uint64)
    # The last pulse of each beam: range, direction, label, instance; for points on edges.
    last = np.full((len(offsets), 4), MISS)
    last_label = np.zeros(len(offsets), np.uint8)
    last_instance = np.zeros(len(offsets), np.int32)
    n = 0
    for ray in range(len(directions)):
        state[0] = np.uint64(seed) ^ (np.uint64(ray + 1) * np.uint64(0xD1342543DE82EF95))
        b = beams[ray]
        cx, cy, cz = directions[ray, 0], directions[ray, 1], directions[ray, 2]
        dx = rotation[0, 0] * cx + rotation[0, 1] * cy + rotation[0, 2] * cz
        dy = rotation[1, 0] * cx + rotation[1, 1] * cy + rotation[1, 2] * cz
        dz = rotation[2, 0] * cx + rotation[2, 1] * cy + rotation[2, 2] * cz
        if random01(state) < dropout:
            continue
        best, cosine, material, hit = first_hit(
            ox, oy, origin[2] + offsets[b], dx, dy, dz, base, state, radii, heights, climb, filled,
            begin, members, extent, primitives, g, table, crossings,
        )  # fmt: skip
        label, who, strength, value, lacquer = UNKNOWN, 0, 1.0, 0.0, False
        back = hit != NOTHING and min_range <= best <= max_range
        free = min(best, max_range)  # how far the pulse has a free way
        if back:
            if hit == ON_GROUND:
                label, material = ground_surface(
                    g, table, crossings, strips, ox + best * dx, oy + best * dy
                )
                if material == GRASS:
                    # Blades stop the beam before it reaches the soil, at flat angles long before.
                    blade = -0.03 * np.log(random01(state))
                    best -= min(blade / max(cosine, 0.02), 0.012 * best + 0.1)
            else:
                label = int(primitives[hit, LABEL])
                strength = primitives[hit, GAIN]
                who = instances[hit]
            weak = (1.0 - 0.75 * cosine) * (best / max_range) ** 2
            if random01(state) < materials[material, 2] + 0.35 * weak:
                back = material == GLASS and random01(state) < 0.12
                # A return from inside: a room is deep, a car is not.
                inside = random01(state)
                best += 0.3 - 1.5 * np.log(inside) if label == BUILDING else 0.2 + 0.5 * inside
                back = back and best <= max_range
        if back:
            # Intensities are calibrated, hence flat up to about 21 m; then the echo of a surface
            # seen at a flat angle fades before that of one seen squarely.
            fade = 1.0 - min(max((best - 21.0) / (20.0 + 38.0 * cosine), 0.0), 1.0)
            value = materials[material, 0] * (0.88 + 0.16 * cosine) * strength
            value = (value + materials[material, 1] * _gauss(state)) * gains[b] * gain * fade
            value -= losses[b]
            lacquer = material in (PAINT, DARK_PAINT)
            if lacquer and random01(state) < 0.65 - 0.5 * cosine:
                value = 0.0  # mirrored away
            if divergence > 0.0:
                turned = np.sqrt(
                    (cx - last[b, 1]) ** 2 + (cy - last[b, 2]) ** 2 + (cz - last[b, 3]) ** 2
                )
                between = 0.1 < abs(best - last[b, 0]) < 1.0
                straddles = random01(state) * turned < divergence
                share = random01(state)
                own = best, label, who
                if between and straddles:
                    best = share * best + (1.0 - share) * last[b, 0]
                    if share < 0.5:
                        label, who = int(last_label[b]), int(last_instance[b])
                last[b, 0], last_label[b], last_instance[b] = own
                last[b, 1], last[b, 2], last[b, 3] = cx, cy, cz
            best += (
                biases[b] + noise * _gauss(state) + materials[material, 3] * (random01(state) - 0.5)
            )
        else:
            last[b, 0] = MISS
        if wet > 0.0 and back:
            # Water fills the pores of what lets it in: darker, and a mirror at flat angles.
            soaks = material <= 6 and material != GRASS
            if soaks:
                value *= 1.0 - 0.55 * wet
            elif material in (GRASS, LEAF, CLOTH):
                value *= 1.0 - 0.25 * wet
            if hit == ON_GROUND and (material in (ASPHALT, MARKING, PAVING)):
                mirror = wet * (1.0 - cosine) ** 3 * min(max((best - 4.0) / 26.0, 0.0), 1.0)
                back = random01(state) > 0.95 * mirror
            elif material == METAL or lacquer:
                back = random01(state) > 0.15 * wet
        if extinction > 0.0:
            # Light lost on the way makes a target look as weak as one farther off in clear air.
            # What clear air itself takes is in the materials' table already: hence the ratio.
            if back:
                seen = max_range * _reach(material, cosine, strength, materials[material, 0])
                alone = min(seen / best, 1.0)
                faded = min(seen / (best * np.exp(extinction * best)), 1.0)
                back = random01(state) < (1.0 - window) * (faded / alone) ** 4
                value *= np.exp(-2.0 * extinction * best)
            # Echoes of drops: of density 1 / (1 + s^2 / h^2) over the distance s.
            ahead = np.arctan(free / near_half) / (0.5 * np.pi)
            if random01(state) < 1.0 - np.exp(-drops * ahead):
                s = near_half * np.tan(random01(state) * ahead * 0.5 * np.pi)
                if s >= min_range:
                    back, best, label, who = True, s, UNKNOWN, 0
                    value = drop_intensity * gain * (0.4 - 0.6 * np.log(random01(state)))
        if not back:
            continue
        points[n, 0] = best * cx
        points[n, 1] = best * cy
        points[n, 2] = best * cz + offsets[b]
        intensity[n] = np.float32(round(min(max(value, 0.0), 1.0) * 100.0) / 100.0)
        pulse[n] = ray
        labels[n] = label
        instance[n] = who
        n += 1
    return n
