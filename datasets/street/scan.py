"""From a seed and a frame to an annotated scan."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from random import Random
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from perception.datasets.sample import Image, Sample
from perception.datasets.street.camera import SIGHT, Lens, Picture, take
from perception.datasets.street.echo import cast
from perception.datasets.street.pen import Chunk, Ground
from perception.datasets.street.rig import Rig
from perception.datasets.street.sensor import Lidar, rotation
from perception.datasets.street.style import Style
from perception.datasets.street.traffic import Traffic
from perception.datasets.street.weather import CLEAR, Weather
from perception.datasets.street.world import World, around
from perception.geometry import Boxes3D, invert, transform
from perception.io import PointCloud

__all__ = ["RATE", "Motion", "Street", "scan"]

#: Scans a second.
RATE: Final = 10.0
#: Boxes with fewer points are not reported.
MIN_POINTS: Final = 5
#: Parts of a turn within which nothing moves, when there is motion within the turn.
SECTORS: Final = 60

#: What motion within a turn does: "none": the scan is taken as if in an instant; "raw": every point
#: is where its LiDAR saw it from where it was then; "compensated": the motion of the own car has
#: been taken out again, that of the others has not.
Motion = Literal["none", "raw", "compensated"]


class Street:
    """One endless simulated street with its traffic, seen from a car that drives along it.

    A street is a pure function of its seed: ``Street(3).scan(7)`` is the same in every process,
    and frames may be asked for in any order, through any sensors and in any weather. World frame:
    x roughly along the street, z up; frame f is at f / 10 s.

    Args:
        seed: any integer.
        sensor: the LiDAR; by default a spinning one of 64 beams whose mounting and calibration
            vary with the seed (height 1.6 to 1.9 m, slight tilt, noise, intensity gain).

    Example:
        >>> sample = Street(0).scan(0)
        >>> sample.cloud.points.shape[1], sample.labels.shape == (len(sample.cloud.points),)
        (3, True)
    """

    def __init__(self, seed: int, *, sensor: Lidar | None = None) -> None:
        self.seed = int(seed)
        self.style = Style(self.seed)
        self.sensor: Lidar = self.style.sensor if sensor is None else sensor
        self._chunks: dict[int, Chunk] = {}
        self._traffic = Traffic(self.style)

    def vehicle(self, time: float) -> NDArray[np.float64]:
        """``[4, 4] float64`` world_from_vehicle: the ground point below the middle of the own car,
        which stands on its four wheels."""
        x, y, yaw = self._traffic.own(time)
        c, s = math.cos(yaw), math.sin(yaw)
        wheels = np.array([[1.35, 0.8], [1.35, -0.8], [-1.35, 0.8], [-1.35, -0.8]])
        xy = np.stack(
            [x + c * wheels[:, 0] - s * wheels[:, 1], y + s * wheels[:, 0] + c * wheels[:, 1]], 1
        )
        z = Ground.around(self.style, x).heights(xy)
        pitch = math.atan2(z[2] + z[3] - z[0] - z[1], 5.4)
        roll = math.atan2(z[0] + z[2] - z[1] - z[3], 3.2)
        pose = np.eye(4)
        pose[:3, :3] = rotation(yaw, pitch, roll)
        pose[:3, 3] = (x, y, z.mean())
        return pose

    def pose(self, frame: int) -> NDArray[np.float64]:
        """``[4, 4] float64`` world_from_sensor of a frame."""
        return np.asarray(self.vehicle(frame / RATE) @ self.sensor.mount())

    def scan(
        self,
        frame: int = 0,
        *,
        rig: Rig | None = None,
        weather: Weather = CLEAR,
        motion: Motion = "none",
        range_noise: float | None = None,
        dropout: float | None = None,
    ) -> Sample:
        """The annotated scan of one frame.

        Args:
            frame: the scan is taken (or begins, see ``motion``) at ``frame / 10`` s; -40 or later, for
                traffic begins there.
            rig: the sensors; by default the one LiDAR of the street.
            weather: rain, fog.
            motion: whether things move while the LiDARs turn, see ``Motion``. Labels are right
                either way; boxes are those of the beginning, and so are the pictures.
            range_noise: standard deviation of the ranges of all LiDARs, m, instead of their own.
            dropout: share of pulses that all LiDARs lose, instead of their own. With more of it
                the same scan has fewer points and no other difference.

        Returns:
            A ``Sample`` in the frame of the rig's first LiDAR. The cloud of the default sensor has
            about 110 000 to 125 000 points; attributes are ``intensity`` (float32, 0..1 in steps
            of 0.01), ``ring`` (uint8, 0 = highest beam), ``time`` (float32, seconds since the first
            pulse of the frame) and, with a ``rig``, ``sensor`` (uint8, number of the LiDAR). Boxes
            are those of cars, trucks, people and cyclists with at least 5 points; their velocity
            is over ground, along the sensor's axes. ``instances`` are the boxes' track ids. Points
            on drops of rain and fog have label 255. ``images`` has one picture a camera of the
            rig, with depth, its pose in the frame of the cloud.

        Raises:
            ValueError: ``motion`` is none of the three, or a noise that no sensor has.
        """
        if motion not in ("none", "raw", "compensated"):
            raise ValueError(f"Street.scan: motion {motion!r}; choose none, raw or compensated")
        frame = int(frame)
        time = frame / RATE
        lidars = (self.sensor,) if rig is None else rig.lidars
        given: dict[str, Any] = {"range_noise": range_noise, "dropout": dropout}
        changes = {key: value for key, value in given.items() if value is not None}
        if changes:
            lidars = tuple(replace(lidar, **changes) for lidar in lidars)
        lenses = () if rig is None else rig.cameras
        reach = max(lidar.max_range for lidar in lidars)
        vehicle = self.vehicle(time)
        world = self._world(time, vehicle, max(reach, SIGHT) if lenses else reach)

        clouds = [
            self._turn(world, lidar, number, frame, vehicle, lidars[0], weather, motion)
            for number, lidar in enumerate(lidars)
        ]
        points, intensity, ring, seconds, point_labels, point_instances = (
            parts[0] if len(parts) == 1 else np.concatenate(parts)
            for parts in zip(*clouds, strict=True)
        )
        attributes = {"intensity": intensity, "ring": ring, "time": seconds}
        if rig is not None:
            counts = [len(cloud[0]) for cloud in clouds]
            attributes["sensor"] = np.repeat(np.arange(len(lidars), dtype=np.uint8), counts)
        pose = vehicle @ lidars[0].mount()
        ids, count = np.unique(point_instances, return_counts=True)
        seen = np.isin(world.tracks, ids[count >= MIN_POINTS])
        return Sample(
            PointCloud(points, attributes, time=time),
            labels=point_labels,
            instances=point_instances,
            boxes=Boxes3D(
                _to_sensor(world.boxes[seen], pose),
                world.labels[seen],
                (world.velocity[seen] @ pose[:2, :2]).astype(np.float32),
                world.tracks[seen],
            ),
            pose=pose,
            name=f"street_{self.seed}_{frame:06d}",
            images=tuple(
                self._image(world, lens, frame, vehicle, lidars[0], weather) for lens in lenses
            ),
            time=time,
        )

    def picture(self, frame: int, lens: Lens, *, weather: Weather = CLEAR) -> Picture:
        """Colour, depth, classes and instances that a camera sees in a frame."""
        vehicle = self.vehicle(int(frame) / RATE)
        world = self._world(int(frame) / RATE, vehicle, SIGHT)
        return self._take(world, lens, int(frame), vehicle, weather)

    def sequence(self, frames: int | Iterable[int], **options: Any) -> Iterator[Sample]:
        """Scans at 10 Hz: the first ``frames`` ones, or those of the given numbers; ``options`` are
        those of ``scan``."""
        for frame in range(frames) if isinstance(frames, int) else frames:
            yield self.scan(frame, **options)

    def _world(self, time: float, vehicle: NDArray[np.float64], reach: float) -> World:
        return around(
            self.style, self._traffic, self._chunks, float(vehicle[0, 3]), reach + 12.0, time
        )

    def _take(
        self, world: World, lens: Lens, frame: int, vehicle: NDArray[np.float64], weather: Weather
    ) -> Picture:
        noise = Random(f"picture {self.seed} {frame} {lens.name}").getrandbits(62)
        return take(world, lens, vehicle, weather, self.seed, noise)

    def _image(
        self,
        world: World,
        lens: Lens,
        frame: int,
        vehicle: NDArray[np.float64],
        main: Lidar,
        weather: Weather,
    ) -> Image:
        picture = self._take(world, lens, frame, vehicle, weather)
        camera = lens.camera(invert(main.mount()))
        return Image(camera, picture.rgb, picture.depth, frame / RATE, lens.name)

    def _turn(
        self,
        world: World,
        lidar: Lidar,
        number: int,
        frame: int,
        vehicle: NDArray[np.float64],
        main: Lidar,
        weather: Weather,
        motion: Motion,
    ) -> tuple[NDArray[Any], ...]:
        """Points (in the frame of ``main``), intensity, ring, time, labels and instances of one
        frame of LiDAR ``number``."""
        noise = Random(f"noise {self.seed} {frame} {number}").getrandbits(60)
        rays = lidar.rays(frame / RATE, abs(self.seed))
        limits = np.array(
            [
                lidar.min_range,
                lidar.max_range,
                lidar.range_noise,
                lidar.dropout,
                lidar.gain,
                lidar.divergence,
            ]
        )
        cuts = [0, len(rays.time)]
        if motion != "none":
            cuts = [round(k * len(rays.time) / SECTORS) for k in range(SECTORS + 1)]
        parts = []
        for sector, (start, stop) in enumerate(itertools.pairwise(cuts)):
            part = rays[start:stop]
            if len(part.time) == 0:
                continue
            here, there = world, vehicle
            if motion != "none":
                seconds = 0.5 * float(part.time[0] + part.time[-1])
                here, there = world.after(seconds), self.vehicle(frame / RATE + seconds)
            pose = there @ lidar.mount()
            room = len(part.time)
            points = np.empty((room, 3), np.float32)
            intensity = np.empty(room, np.float32)
            pulse = np.empty(room, np.int32)
            labels = np.empty(room, np.uint8)
            instances = np.empty(room, np.int32)
            n = cast(
                np.ascontiguousarray(pose[:3, :3]),
                np.ascontiguousarray(pose[:3, 3]),
                part.directions,
                part.beam,
                lidar.offsets(),
                lidar.gains(),
                lidar.losses(),
                lidar.biases(),
                limits,
                weather.pulse(),
                self.style.materials,
                here.rows,
                here.instances,
                here.ground.g,
                here.ground.table,
                here.ground.crossings,
                here.strips,
                noise + (sector << 40),
                points,
                intensity,
                pulse,
                labels,
                instances,
            )
            seen = points[:n].copy()
            if motion == "compensated":
                seen = transform(invert(vehicle @ main.mount()) @ pose, seen)
            elif lidar is not main:
                seen = transform(invert(main.mount()) @ lidar.mount(), seen)
            at = pulse[:n]
            parts.append(
                (
                    seen,
                    intensity[:n].copy(),
                    part.beam[at],
                    part.time[at],
                    labels[:n].copy(),
                    instances[:n].copy(),
                )
            )
        if len(parts) == 1:
            return parts[0]
        return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


def _to_sensor(boxes: NDArray[np.float64], pose: NDArray[np.float64]) -> NDArray[np.float32]:
    """World boxes ``[M, 7]`` in the sensor's frame. Boxes stay upright in that frame, so the tilt
    of the sensor (a degree or two) shifts their corners by centimetres."""
    out = boxes.copy()
    out[:, :3] = (boxes[:, :3] - pose[:3, 3]) @ pose[:3, :3]
    out[:, 6] -= math.atan2(pose[1, 0], pose[0, 0])
    out[:, 6] = (out[:, 6] + math.pi) % (2.0 * math.pi) - math.pi
    return out.astype(np.float32)


def scan(seed: int, frame: int = 0, *, sensor: Lidar | None = None, **options: Any) -> Sample:
    """The scan of frame ``frame`` of street ``seed``: ``Street(seed, sensor=sensor).scan(frame)``;
    ``options`` are those of ``Street.scan``.

    Example:
        >>> a, b = scan(5), scan(5)
        >>> bool((a.cloud.points == b.cloud.points).all())
        True
    """
    return Street(seed, sensor=sensor).scan(frame, **options)
