"""From a seed and a frame to an annotated scan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perception.datasets.sample import Sample
from perception.datasets.street.layout import lay_out
from perception.datasets.street.pen import Chunk, Ground
from perception.datasets.street.sensor import Sensor, cast
from perception.datasets.street.shapes import place
from perception.datasets.street.style import CHUNK, Style
from perception.datasets.street.traffic import Traffic
from perception.geometry import Boxes3D
from perception.io import PointCloud

__all__ = ["RATE", "Street", "scan"]

#: Scans a second.
RATE: Final = 10.0
#: Boxes with fewer points are not reported.
MIN_POINTS: Final = 5


class Street:
    """One endless simulated street with its traffic, seen from a car that drives along it.

    A street is a pure function of its seed: ``Street(3).scan(7)`` is the same in every process,
    and frames may be asked for in any order. World frame: x roughly along the street, z up; the
    scan of frame f is taken at f / 10 s as if in an instant (there is no motion within a sweep).

    Args:
        seed: any integer.
        sensor: the LiDAR; by default one whose mounting and calibration vary with the seed
            (height 1.6 to 1.9 m, slight tilt, noise, intensity gain).

    Example:
        >>> sample = Street(0).scan(0)
        >>> sample.cloud.points.shape[1], sample.labels.shape == (len(sample.cloud.points),)
        (3, True)
    """

    def __init__(self, seed: int, *, sensor: Sensor | None = None) -> None:
        self.seed = int(seed)
        self.style = Style(self.seed)
        self.sensor = self.style.sensor if sensor is None else sensor
        self._chunks: dict[int, Chunk] = {}
        self._traffic = Traffic(self.style)

    def _ground(self, x: float) -> Ground:
        return Ground.around(self.style, x)

    def pose(self, frame: int) -> NDArray[np.float64]:
        """``[4, 4] float64`` world_from_sensor of a frame."""
        x, y, yaw = self._traffic.own(frame / RATE)
        c, s = math.cos(yaw), math.sin(yaw)
        # The car stands on its four wheels.
        wheels = np.array([[1.35, 0.8], [1.35, -0.8], [-1.35, 0.8], [-1.35, -0.8]])
        xy = np.stack(
            [x + c * wheels[:, 0] - s * wheels[:, 1], y + s * wheels[:, 0] + c * wheels[:, 1]], 1
        )
        z = self._ground(x).heights(xy)
        pitch = math.atan2(z[2] + z[3] - z[0] - z[1], 5.4)
        roll = math.atan2(z[0] + z[2] - z[1] - z[3], 3.2)
        level = Sensor(pitch=pitch, roll=roll).tilt()
        about_z = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        pose = np.eye(4)
        pose[:3, :3] = about_z @ level @ self.sensor.tilt()
        pose[:3, 3] = (x, y, z.mean() + self.sensor.height)
        return pose

    def scan(self, frame: int = 0) -> Sample:
        """The annotated scan of one frame.

        Args:
            frame: any integer; the scan is taken at ``frame / 10`` s.

        Returns:
            A ``Sample``. The cloud has about 110 000 to 125 000 points with ``intensity``
            (float32, 0..1 in steps of 0.01), ``ring`` (uint8, 0 = highest beam) and ``time``
            (float32, seconds since the first firing of the turn). Boxes are those of cars, trucks,
            people and cyclists with at least 5 points, in the sensor's frame; their velocity is
            over ground, along the sensor's axes. ``instances`` are the boxes' track ids.
        """
        frame = int(frame)
        time = frame / RATE
        pose = self.pose(frame)
        x = float(pose[0, 3])
        reach = self.sensor.max_range + 12.0
        first, last = math.floor((x - reach) / CHUNK), math.floor((x + reach) / CHUNK)
        chunks = []
        for index in range(first, last + 1):
            if index not in self._chunks:
                self._chunks[index] = lay_out(self.style, index)
            chunks.append(self._chunks[index])
        for index in [i for i in self._chunks if not first - 2 <= i <= last + 2]:
            del self._chunks[index]
        ground = self._ground(x)

        items, poses, velocities, tracks = self._traffic.states(time)
        z = ground.heights(poses[:, :2])
        rows = [chunk.rows for chunk in chunks]
        instances = [chunk.instances for chunk in chunks]
        boxes = [chunk.boxes for chunk in chunks]
        if items:
            who = np.repeat(np.arange(len(items)), [len(item.rows) for item in items])
            moving = np.array([row for item in items for row in item.rows])
            rows.append(place(moving, poses[who, 0], poses[who, 1], z[who], poses[who, 2]))
            instances.append(tracks[who].astype(np.int32))
            size = np.array([item.size for item in items], dtype=np.float64)
            centre = np.stack([poses[:, 0], poses[:, 1], z + 0.5 * size[:, 2]], 1)
            boxes.append(np.concatenate([centre, size, poses[:, 2:]], 1))
        labels = np.concatenate([*(c.labels for c in chunks), [item.label for item in items]])
        track_ids = np.concatenate([*(c.tracks for c in chunks), tracks])
        standing = sum(len(c.boxes) for c in chunks)
        velocity = np.concatenate([np.zeros((standing, 2)), velocities])

        cloud, point_labels, point_instances = self._cast(
            pose,
            np.concatenate(rows),
            np.concatenate(instances),
            ground,
            np.concatenate([c.strips for c in chunks]),
            frame,
        )
        ids, counts = np.unique(point_instances, return_counts=True)
        seen = np.isin(track_ids, ids[counts >= MIN_POINTS])
        return Sample(
            cloud,
            labels=point_labels,
            instances=point_instances,
            boxes=Boxes3D(
                _to_sensor(np.concatenate(boxes)[seen], pose),
                labels[seen].astype(np.int64),
                (velocity[seen] @ pose[:2, :2]).astype(np.float32),
                track_ids[seen],
            ),
            pose=pose,
            name=f"street_{self.seed}_{frame:06d}",
        )

    def _cast(
        self,
        pose: NDArray[np.float64],
        rows: NDArray[np.float64],
        instances: NDArray[np.int32],
        ground: Ground,
        strips: NDArray[np.float64],
        frame: int,
    ) -> tuple[PointCloud, NDArray[np.uint8], NDArray[np.int32]]:
        sensor = self.sensor
        capacity = sensor.columns * sensor.beams
        points = np.empty((capacity, 3), np.float32)
        intensity = np.empty(capacity, np.float32)
        ring = np.empty(capacity, np.uint8)
        column = np.empty(capacity, np.int32)
        labels = np.empty(capacity, np.uint8)
        instance = np.empty(capacity, np.int32)
        noise_seed = Random(f"noise {self.seed} {frame}").getrandbits(62)
        n = cast(
            np.ascontiguousarray(pose[:3, :3]),
            np.ascontiguousarray(pose[:3, 3]),
            sensor.elevations(),
            sensor.offsets(),
            sensor.phases(),
            sensor.gains(),
            sensor.blind_below(abs(self.seed)),
            sensor.columns,
            np.array(
                [
                    sensor.min_range,
                    sensor.max_range,
                    sensor.range_noise,
                    sensor.dropout,
                    sensor.gain,
                ]
            ),
            self.style.materials,
            np.ascontiguousarray(rows),
            np.ascontiguousarray(instances, dtype=np.int32),
            ground.g,
            ground.table,
            ground.crossings,
            np.ascontiguousarray(strips),
            noise_seed,
            points,
            intensity,
            ring,
            column,
            labels,
            instance,
        )
        seconds = column[:n].astype(np.float32) / np.float32(sensor.columns * RATE)
        cloud = PointCloud(
            points[:n].copy(),
            {"intensity": intensity[:n].copy(), "ring": ring[:n].copy(), "time": seconds},
            time=frame / RATE,
        )
        return cloud, labels[:n].copy(), instance[:n].copy()

    def sequence(self, frames: int | Iterable[int]) -> Iterator[Sample]:
        """Scans at 10 Hz: the first ``frames`` ones, or those of the given numbers."""
        for frame in range(frames) if isinstance(frames, int) else frames:
            yield self.scan(frame)


def _to_sensor(boxes: NDArray[np.float64], pose: NDArray[np.float64]) -> NDArray[np.float32]:
    """World boxes ``[M, 7]`` in the sensor's frame. Boxes stay upright in that frame, so the tilt
    of the sensor (a degree or two) shifts their corners by centimetres."""
    out = boxes.copy()
    out[:, :3] = (boxes[:, :3] - pose[:3, 3]) @ pose[:3, :3]
    out[:, 6] -= math.atan2(pose[1, 0], pose[0, 0])
    out[:, 6] = (out[:, 6] + math.pi) % (2.0 * math.pi) - math.pi
    return out.astype(np.float32)


def scan(seed: int, frame: int = 0, *, sensor: Sensor | None = None) -> Sample:
    """The scan of frame ``frame`` of street ``seed``: ``Street(seed, sensor=sensor).scan(frame)``.

    Example:
        >>> a, b = scan(5), scan(5)
        >>> bool((a.cloud.points == b.cloud.points).all())
        True
    """
    return Street(seed, sensor=sensor).scan(frame)
