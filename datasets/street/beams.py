"""Where the pulses of a LiDAR go: beam tables of spinning scanners, patterns of solid-state ones.

The tables are typical of their class, not copies of one data sheet: 32 beams evenly over 41 degrees
(as the HDL-32E), 64 in two blocks a third and half a degree apart (HDL-64E), 128 of which 80 lie a
ninth of a degree apart around the horizon (VLS-128). Solid-state: a rosette of two turning prisms,
which never repeats (Livox), and a raster of lines (AT128).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["SPINNING", "BeamTable", "Rays", "raster", "rosette", "spinning"]


@dataclass(frozen=True, eq=False)
class Rays:
    """Pulses in the order in which they are fired.

    Attributes:
        directions: ``[R, 3] float64`` unit vectors in the sensor's frame.
        beam: ``[R] uint8`` laser or line, 0 = highest.
        time: ``[R] float32`` seconds since the first pulse.
    """

    directions: NDArray[np.float64]
    beam: NDArray[np.uint8]
    time: NDArray[np.float32]

    def __getitem__(self, part: slice | NDArray[np.bool_]) -> Rays:
        return Rays(self.directions[part], self.beam[part], self.time[part])


@dataclass(frozen=True, eq=False)
class BeamTable:
    """The lasers of a spinning scanner, from the highest down.

    Attributes:
        elevations: ``[B]`` degrees.
        offsets: ``[B]`` height of each laser above the sensor's origin, m.
        wobble: standard deviation of what differs from device to device, degrees.
        columns: firings a turn.
        rate: turns a second.
        max_range: m.
        range_noise: standard deviation of the range, m.
    """

    elevations: NDArray[np.float64]
    offsets: NDArray[np.float64]
    wobble: float
    columns: int
    rate: float
    max_range: float
    range_noise: float


def _dense() -> NDArray[np.float64]:
    """128 elevations: steps grow by the same factor above and below the dense middle."""
    middle = np.linspace(2.4, -6.3, 80)
    up, down = np.cumsum(np.geomspace(0.2, 1.75, 18)), np.cumsum(np.geomspace(0.16, 1.5, 30))
    above, below = 2.4 + up * (12.6 / up[-1]), -6.3 - down * (18.7 / down[-1])
    return np.concatenate([above[::-1], middle, below])


SPINNING: Final[dict[str, BeamTable]] = {
    "spinning-32": BeamTable(
        np.linspace(10.67, -30.67, 32), np.zeros(32), 0.02, 1086, 20.0, 100.0, 0.015
    ),
    "spinning-64": BeamTable(
        np.concatenate([np.linspace(2.05, -8.5, 32), np.linspace(-8.83, -24.8, 32)]),
        np.repeat([0.17, 0.09], 32),
        0.035,
        2160,
        10.0,
        80.0,
        0.009,
    ),
    "spinning-128": BeamTable(_dense(), np.zeros(128), 0.01, 1800, 10.0, 120.0, 0.01),
}


def _directions(
    azimuth: NDArray[np.float64], elevation: NDArray[np.float64]
) -> NDArray[np.float64]:
    flat = np.cos(elevation)
    directions = np.empty((len(azimuth), 3))
    directions[:, 0] = np.cos(azimuth) * flat
    directions[:, 1] = np.sin(azimuth) * flat
    directions[:, 2] = np.sin(elevation)
    return directions


def spinning(
    elevations: NDArray[np.float64], phases: NDArray[np.float64], columns: int, rate: float
) -> Rays:
    """One turn counter-clockwise from straight ahead; lasers fire from the lowest up.

    Args:
        elevations: ``[B]`` radians, highest first.
        phases: ``[B]`` azimuth of each laser within the step between columns, as a share of it.
        columns: firings a turn.
        rate: turns a second.
    """
    beams = len(elevations)
    azimuth = (np.arange(columns)[:, None] + phases[::-1]) * (2.0 * np.pi / columns)
    flat, up = np.cos(elevations[::-1]), np.sin(elevations[::-1])
    directions = np.empty((columns, beams, 3))
    np.multiply(np.cos(azimuth), flat, out=directions[:, :, 0])
    np.multiply(np.sin(azimuth), flat, out=directions[:, :, 1])
    directions[:, :, 2] = up
    beam = np.broadcast_to(np.arange(beams - 1, -1, -1, dtype=np.uint8), (columns, beams))
    seconds = np.arange(columns, dtype=np.float32) / np.float32(columns * rate)
    return Rays(directions.reshape(-1, 3), beam.reshape(-1), np.repeat(seconds, beams))


def rosette(
    horizontal: float, vertical: float, pulses: int, lines: int, rate: float, start: float
) -> Rays:
    """A beam bent by two turning prisms: petals through the middle that never repeat.

    Args:
        horizontal, vertical: full field of view, radians.
        pulses: of one frame, all lines together.
        lines: lasers one above the other, fired in turn, over 0.3 of the vertical field of view.
        rate: frames a second.
        start: seconds at which the frame begins: the prisms have turned on since zero.
    """
    order = np.arange(pulses)
    seconds = order / (pulses * rate)
    # Incommensurable speeds: consecutive frames fill each other's gaps.
    one = 2.0 * np.pi * 121.43 * (start + seconds)
    two = -2.0 * np.pi * 77.61 * (start + seconds)
    spread = 0.3 * vertical * (lines - 1) / lines
    beam = order % lines
    half = 0.5 * (vertical - spread)
    elevation = half * 0.5 * (np.sin(one) + np.sin(two)) + spread * (0.5 - (beam + 0.5) / lines)
    azimuth = 0.5 * horizontal * 0.5 * (np.cos(one) + np.cos(two))
    return Rays(_directions(azimuth, elevation), beam.astype(np.uint8), seconds.astype(np.float32))


def raster(horizontal: float, vertical: float, pulses: int, lines: int, rate: float) -> Rays:
    """Lines one above the other, swept from left to right once a frame.

    Args:
        horizontal, vertical: full field of view, radians.
        pulses: of one frame, all lines together.
        lines: number of them, all fired at once.
        rate: frames a second.
    """
    columns = max(pulses // lines, 1)
    sweep = np.linspace(0.5 * horizontal, -0.5 * horizontal, columns)
    elevations = np.linspace(0.5 * vertical, -0.5 * vertical, lines)
    beam = np.tile(np.arange(lines, dtype=np.uint8), columns)
    seconds = np.arange(columns, dtype=np.float32) / np.float32(columns * rate)
    return Rays(
        _directions(np.repeat(sweep, lines), np.tile(elevations, columns)),
        beam,
        np.repeat(seconds, lines),
    )
