"""LiDARs: how they are mounted, where their pulses go, how far they see and how well they measure."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perception.datasets.street.beams import SPINNING, Rays, raster, rosette, spinning

__all__ = ["Lidar", "Sensor", "SolidState", "rotation"]

BLIND_AZIMUTHS: Final = 720


def rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """``[3, 3]``: about x by ``roll``, then y by ``pitch`` (positive: nose down), then z by ``yaw``."""
    cy, sy = math.cos(yaw), math.sin(yaw)
    cp, sp = math.cos(pitch), math.sin(pitch)
    cr, sr = math.cos(roll), math.sin(roll)
    about_z = np.array([[cy, -sy, 0.0], [sy, cy, 0.0], [0.0, 0.0, 1.0]])
    about_y = np.array([[cp, 0.0, sp], [0.0, 1.0, 0.0], [-sp, 0.0, cp]])
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, cr, -sr], [0.0, sr, cr]])
    return np.asarray(about_z @ about_y @ about_x)


@dataclass(frozen=True, kw_only=True)
class Lidar(ABC):
    """What all LiDARs have in common.

    Attributes:
        x, y: mounting place on the vehicle, m from the ground point below its middle (x forward,
            y left).
        height: of the sensor above the ground, m.
        yaw, pitch, roll: of the sensor on the vehicle, radians; positive pitch looks down.
        max_range, min_range: m.
        range_noise: standard deviation of the range, m.
        dropout: share of pulses lost for no visible reason.
        range_bias: standard deviation of what one laser's range is off all the time, m.
        gain: factor on all intensities.
        divergence: full angle of the beam, radians. Where neighbouring pulses meet surfaces less
            than a metre apart, a beam on the edge returns a point in between. 0: never.
        unit: which device: seeds the small differences from laser to laser.
    """

    x: float = 0.0
    y: float = 0.0
    height: float = 1.73
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    max_range: float = 80.0
    min_range: float = 1.3
    range_noise: float = 0.009
    dropout: float = 0.004
    range_bias: float = 0.0
    gain: float = 1.0
    divergence: float = 0.0
    unit: int = 0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not 0.0 < self.min_range < self.max_range <= 125.0:
            raise ValueError(
                f"{name}: min_range {self.min_range} and max_range {self.max_range} must be "
                "0 < min_range < max_range <= 125"
            )
        if self.height <= 0.3:
            raise ValueError(f"{name}: height {self.height} m; mount it above 0.3 m")
        if not 0.0 <= self.dropout <= 1.0:
            raise ValueError(f"{name}: dropout {self.dropout}; give a share, 0 to 1")
        if min(self.range_noise, self.range_bias, self.divergence) < 0.0:
            raise ValueError(
                f"{name}: range_noise {self.range_noise}, range_bias {self.range_bias} and divergence "
                f"{self.divergence} must not be negative"
            )

    @property
    @abstractmethod
    def beams(self) -> int:
        """Number of lasers or lines (rings)."""

    def mount(self) -> NDArray[np.float64]:
        """``[4, 4]`` vehicle_from_sensor; the vehicle's origin is on the ground below it."""
        pose = np.eye(4)
        pose[:3, :3] = self.tilt()
        pose[:3, 3] = (self.x, self.y, self.height)
        return pose

    def tilt(self) -> NDArray[np.float64]:
        """``[3, 3]`` rotation from the sensor to the vehicle."""
        return rotation(self.yaw, self.pitch, self.roll)

    def offsets(self) -> NDArray[np.float64]:
        """``[beams]`` height of each laser above the sensor's origin, m."""
        return np.zeros(self.beams)

    def gains(self) -> NDArray[np.float64]:
        """``[beams]`` intensity factor of each laser, which makes the known striping."""
        spread = np.random.default_rng([66, self.unit]).normal(1.0, 0.07, self.beams)
        return spread.clip(0.8, 1.2)

    def losses(self) -> NDArray[np.float64]:
        """``[beams]`` what each laser reads too little; some read nothing from what is dark."""
        rng = np.random.default_rng([68, self.unit])
        weak = rng.random(self.beams) < 0.14
        little = np.abs(rng.normal(0.0, 0.02, self.beams))
        return np.where(weak, rng.uniform(0.03, 0.17, self.beams), little)

    def biases(self) -> NDArray[np.float64]:
        """``[beams]`` constant range error of each laser, m."""
        drawn = np.random.default_rng([69, self.unit]).normal(0.0, 1.0, self.beams)
        return self.range_bias * drawn.clip(-2.0, 2.0)

    @abstractmethod
    def rays(self, time: float, car: int) -> Rays:
        """The pulses of the frame that starts at ``time`` seconds, without those that the own car
        stops; ``car`` seeds its shape."""


@dataclass(frozen=True, kw_only=True)
class Sensor(Lidar):
    """A spinning LiDAR. The defaults are an HDL-64E at 10 Hz on the roof of a car.

    Attributes:
        model: a key of ``beams.SPINNING``: "spinning-32", "spinning-64", "spinning-128".
            ``Sensor.preset`` sets range, noise, columns and rate that go with it as well.
        columns: firings a turn; 2160 are 0.167 degrees apart.
        rate: turns a second.
        own_car: whether the roof of the own car hides part of the lowest beams.

    Example:
        >>> Sensor.preset("spinning-32", height=1.84).elevations().shape
        (32,)
    """

    model: str = "spinning-64"
    columns: int = 2160
    rate: float = 10.0
    own_car: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model not in SPINNING:
            raise ValueError(f"Sensor: model {self.model!r}; choose from {', '.join(SPINNING)}")
        if self.columns < 8:
            raise ValueError(f"Sensor: columns is {self.columns}; give at least 8 firings a turn")
        if self.rate <= 0.0:
            raise ValueError(f"Sensor: rate is {self.rate}; give turns a second, such as 10")

    @classmethod
    def preset(cls, model: str, **changes: Any) -> Sensor:
        """The sensor of a beam table with its usual range, noise, columns and rate.

        Raises:
            ValueError: no such model.
        """
        if model not in SPINNING:
            raise ValueError(f"Sensor: model {model!r}; choose from {', '.join(SPINNING)}")
        table = SPINNING[model]
        usual = {
            "columns": table.columns,
            "rate": table.rate,
            "max_range": table.max_range,
            "range_noise": table.range_noise,
        }
        return cls(model=model, **(usual | changes))

    @property
    def beams(self) -> int:
        """Number of lasers (rings)."""
        return len(SPINNING[self.model].elevations)

    def elevations(self) -> NDArray[np.float64]:
        """``[beams]`` elevation of each beam, radians, from the highest (ring 0) down."""
        table = SPINNING[self.model]
        # Lasers are not glued in perfectly evenly, a little differently in every device.
        wobble = np.random.default_rng([64, self.unit]).normal(0.0, table.wobble, self.beams)
        return np.radians(table.elevations + wobble)

    def offsets(self) -> NDArray[np.float64]:
        """``[beams]`` height of each laser above the sensor's origin, m."""
        return SPINNING[self.model].offsets

    def phases(self) -> NDArray[np.float64]:
        """``[beams]`` azimuth of each laser within the step, as a fraction of the step."""
        return np.random.default_rng([65, self.unit]).uniform(0.0, 1.0, self.beams)

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

    def rays(self, time: float, car: int) -> Rays:
        """One turn; every turn is the same."""
        return _turn(self, car)


@lru_cache(maxsize=4)
def _turn(sensor: Sensor, car: int) -> Rays:
    elevations, phases = sensor.elevations(), sensor.phases()
    rays = spinning(elevations, phases, sensor.columns, sensor.rate)
    if not sensor.own_car:
        return rays
    blind = sensor.blind_below(car)
    azimuth = (np.arange(sensor.columns)[:, None] + phases[::-1]) / sensor.columns
    seen = elevations[::-1] >= blind[(azimuth * BLIND_AZIMUTHS).astype(np.int64) % BLIND_AZIMUTHS]
    return rays[seen.reshape(-1)]


@dataclass(frozen=True, kw_only=True)
class SolidState(Lidar):
    """A LiDAR without turning head that looks one way. The defaults: a raster of 120 x 25 degrees.

    Attributes:
        pattern: "raster": lines swept sideways, or "rosette": petals that never repeat.
        horizontal, vertical: full field of view, radians.
        pulses: of one frame, all lines together.
        lines: of the raster; lasers side by side of the rosette.
        rate: frames a second.

    Example:
        >>> SolidState.rosette(yaw=0.5).pulses
        24000
    """

    height: float = 1.5
    max_range: float = 110.0
    min_range: float = 0.8
    range_noise: float = 0.015
    pattern: str = "raster"
    horizontal: float = math.radians(120.0)
    vertical: float = math.radians(25.0)
    pulses: int = 128 * 1200
    lines: int = 128
    rate: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pattern not in ("raster", "rosette"):
            raise ValueError(f"SolidState: pattern {self.pattern!r}; choose raster or rosette")
        if not 0.0 < self.horizontal <= math.pi or not 0.0 < self.vertical <= 0.5 * math.pi:
            raise ValueError(
                f"SolidState: field of view {self.horizontal:g} x {self.vertical:g} rad; at most "
                "pi x pi / 2"
            )
        if not 0 < self.lines <= min(self.pulses, 255) or self.rate <= 0.0:
            raise ValueError(
                f"SolidState: {self.lines} lines, {self.pulses} pulses at {self.rate} Hz; give 1 to "
                "255 lines, at least a pulse a line, and a positive rate"
            )

    @classmethod
    def rosette(cls, **changes: Any) -> SolidState:
        """82 x 25 degrees, 24 000 pulses a frame."""
        usual: dict[str, Any] = {
            "pattern": "rosette",
            "horizontal": math.radians(82.0),
            "pulses": 24_000,
            "lines": 6,
            "range_noise": 0.02,
        }
        return cls(**(usual | changes))

    @property
    def beams(self) -> int:
        """Number of lines (rings)."""
        return self.lines

    def rays(self, time: float, car: int) -> Rays:
        """The pulses of one frame; a rosette has turned on since time zero."""
        view = self.horizontal, self.vertical, self.pulses, self.lines, self.rate
        return raster(*view) if self.pattern == "raster" else rosette(*view, time)
