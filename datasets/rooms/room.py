"""A simulated room: one exact description, scanned or photographed at will."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from perception.datasets.posed import PosedImages
from perception.datasets.rooms.classes import BOX_CLASSES, CLASSES, COLORS
from perception.datasets.rooms.layout import KINDS, Furnished, furnish
from perception.datasets.rooms.scanner import fuse, posed, sweep
from perception.datasets.rooms.scene import Scene
from perception.datasets.sample import Sample
from perception.geometry import Camera
from perception.io import PointCloud

__all__ = ["DEVICES", "Room", "Rooms", "look_at"]

#: Ways to scan a room: a depth camera carried about, or a laser on a tripod.
Device = Literal["rgbd", "laser"]
DEVICES: Final[tuple[Device, ...]] = ("rgbd", "laser")
#: Boxes with fewer points are not reported.
MIN_POINTS: Final = 20


def look_at(eye: Sequence[float], target: Sequence[float]) -> NDArray[np.float64]:
    """``[4, 4]`` world_from_camera of a camera at ``eye`` that looks at ``target``, upright."""
    start = np.asarray(eye, np.float64)
    forward = np.asarray(target, np.float64) - start
    forward /= np.linalg.norm(forward)
    up = (0.0, 0.0, 1.0) if abs(forward[2]) < 0.999 else (1.0, 0.0, 0.0)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = right, np.cross(forward, right), forward
    pose[:3, 3] = start
    return pose


class Room:
    """One furnished room, a pure function of its arguments.

    Frame: the middle of the floor is the origin, x along the longer side, z up.

    Args:
        seed: any integer.
        kind: ``"living"``, ``"bedroom"``, ``"office"``, ``"dining"`` or ``"meeting"``; by default
            the seed says.
        people: whether somebody is there; by default in one room of five.
        ceiling: whether there is a ceiling.

    Attributes:
        scene: the exact description.
        boxes: tight boxes of all objects, hidden or not; labels count in ``BOX_CLASSES``, track ids
            are instances.

    Raises:
        ValueError: there is no such kind of room.

    Example:
        >>> sample = Room(3).scan(points=2000)
        >>> len(sample.cloud) <= 2000, sample.boxes.boxes.shape[1]
        (True, 7)
    """

    def __init__(
        self,
        seed: int,
        *,
        kind: str | None = None,
        people: bool | None = None,
        ceiling: bool = True,
    ) -> None:
        self.seed = int(seed)
        r = Random(f"choice {self.seed}")
        drawn = r.choice(KINDS)
        somebody = r.random() < 0.2
        self.kind = drawn if kind is None else kind
        if self.kind not in KINDS:
            raise ValueError(f"Room: no kind {kind!r}; choose one of {', '.join(KINDS)}")
        made = furnish(
            self.seed, self.kind, people=somebody if people is None else people, ceiling=ceiling
        )
        self._plan = made.plan
        self.boxes = made.placer.boxes()
        self.scene = _light(made, r)

    @property
    def size(self) -> tuple[float, float, float]:
        """Length, width and height, m."""
        return self._plan.length, self._plan.width, self._plan.height

    def path(self, count: int, *, walk: int = 0) -> NDArray[np.float64]:
        """``[count, 4, 4]`` world_from_camera along a closed walk through the room.

        The walker goes round the middle at the height of the eyes, keeps a quarter of a metre from
        everything, looks across the room and slowly up and down.

        Args:
            count: poses, evenly along the walk.
            walk: which walk; each number is another one.
        """
        if count < 1:
            raise ValueError(f"Room: {count} poses along a path; ask for one or more")
        r = Random(f"walk {self.seed} {walk}")
        a, b, _ = self.size
        corners = r.choice((4, 5, 6))
        begin, sense = r.uniform(0.0, 2.0 * math.pi), r.choice((-1.0, 1.0))
        knots = []
        for k in range(corners):
            angle = begin + sense * (k + r.uniform(-0.2, 0.2)) * 2.0 * math.pi / corners
            reach = r.uniform(0.22, 0.36)
            knots.append([reach * a * math.cos(angle), reach * b * math.sin(angle)])
        t = np.arange(count) / count
        xy = _round_spline(np.array(knots), t * corners)
        z = r.uniform(1.35, 1.6) + 0.12 * np.sin(2.0 * np.pi * (t * 2.0 + r.random()))
        eyes = self._freed(np.concatenate([xy, z[:, None]], axis=1))
        inward = np.arctan2(-xy[:, 1], -xy[:, 0])
        yaw = inward + 0.5 * np.sin(2.0 * np.pi * (t * r.choice((2, 3)) + r.random()))
        pitch = -0.36 + 0.3 * np.sin(2.0 * np.pi * (t * r.choice((3, 4, 5)) + r.random()))
        ways = np.stack(
            [np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], axis=1
        )
        return np.stack([look_at(eye, eye + way) for eye, way in zip(eyes, ways, strict=True)])

    def _freed(self, eyes: NDArray[np.float64], room: float = 0.25) -> NDArray[np.float64]:
        """Points pushed away from what is nearer than ``room``, and into the outline."""
        eyes = eyes.copy()
        step = 1e-4 * np.eye(3)
        for _ in range(24):
            near = self.scene.sdf(eyes)
            close = near < room
            if not close.any():
                break
            slope = np.stack([self.scene.sdf(eyes[close] + s) - near[close] for s in step], axis=1)
            slope[:, 2] *= 0.3
            slope[:, :2] -= 2e-6 * eyes[close][:, :2]  # out of a deadlock: to the middle
            slope /= np.linalg.norm(slope, axis=1, keepdims=True) + 1e-12
            eyes[close] += (room - near[close] + 0.01)[:, None] * slope
            eyes[:, 2] = np.clip(eyes[:, 2], 0.9, self.size[2] - 0.3)
        return eyes

    def cameras(
        self,
        count: int,
        *,
        width: int = 200,
        height: int = 150,
        field_of_view: float = 75.0,
        walk: int = 0,
    ) -> tuple[Camera, ...]:
        """Pinhole cameras along ``path``; ``field_of_view`` is horizontal, in degrees."""
        angle = math.radians(field_of_view)
        return tuple(
            Camera.from_field_of_view(width, height, angle, pose)
            for pose in self.path(count, walk=walk)
        )

    def views(
        self,
        count: int,
        *,
        width: int = 200,
        height: int = 150,
        field_of_view: float = 75.0,
        walk: int = 0,
        samples: int = 1,
    ) -> PosedImages:
        """Pictures with exact depth along a walk; their cameras' poses are in the room's frame.

        Every eighth picture is for test.

        Args:
            count: pictures.
            width, height: pixels.
            field_of_view: horizontal, degrees.
            walk: which walk, see ``path``.
            samples: colour is the mean of ``samples`` x ``samples`` rays a pixel.

        See ``Scene.render`` for normals, labels and instances of the same view.
        """
        cameras = self.cameras(
            count, width=width, height=height, field_of_view=field_of_view, walk=walk
        )
        return posed(self.scene, cameras, samples=samples, layout="room")

    def scan(self, *, device: Device = "rgbd", points: int = 100_000, walk: int = 0) -> Sample:
        """A coloured, annotated cloud of the room.

        Args:
            device: ``"rgbd"``: the fused frames of a depth camera carried along ``path``;
                ``"laser"``: one to three stations of a laser scanner.
            points: how many, at most.
            walk: which walk, and which noise.

        Returns:
            A ``Sample`` in the room's frame: ``red``, ``green``, ``blue`` (uint8); labels count in
            ``CLASSES``, boxes (of objects with at least 20 points) in ``BOX_CLASSES``.
        """
        if device not in DEVICES:
            raise ValueError(f"Room: no device {device!r}; choose one of {', '.join(DEVICES)}")
        if points < 1:
            raise ValueError(f"Room: a scan of {points} points; ask for one or more")
        r = Random(f"scan {self.seed} {walk} {device}")
        generator = np.random.default_rng(r.getrandbits(64))
        if device == "rgbd":
            frames = 48
            high = max(4, round(math.sqrt(2.1 * points / frames * 0.75)))
            wide = max(4, round(high / 0.75))
            cameras = self.cameras(frames, width=wide, height=high, walk=walk, field_of_view=85.0)
            got = fuse(self.scene, cameras, points, generator)
        else:
            stations = self.path(r.choice((1, 2, 2, 3)), walk=walk)[:, :3, 3]
            got = sweep(self.scene, list(stations), points, generator)
        cloud = PointCloud(
            got.points,
            {name: got.colors[:, k].copy() for k, name in enumerate(("red", "green", "blue"))},
            frame="world",
        )
        assert self.boxes.track_ids is not None
        hits = np.bincount(got.instances, minlength=int(self.boxes.track_ids.max(initial=0)) + 1)
        return Sample(
            cloud,
            labels=got.labels,
            instances=got.instances,
            boxes=self.boxes[hits[self.boxes.track_ids] >= MIN_POINTS],
            pose=np.eye(4),
            name=f"room-{self.seed:06d}",
        )


class Rooms:
    """Simulated rooms as a data set: sample i is the scan of ``Room(first_seed + i)``.

    Args:
        num: how many.
        first_seed: of the first; the others follow.
        device: ``"rgbd"`` or ``"laser"``.
        points: of a scan, at most.
        kinds: of rooms to take, in turn; None: what the seeds say.
        ceiling: whether rooms have one.
        endless: indices beyond ``num`` count on to ever new rooms; ``len()`` stays ``num``.

    Example:
        >>> rooms = Rooms(2, points=1000)
        >>> len(rooms), rooms.names[1], len(rooms[1].cloud)
        (2, 'room-000001', 1000)
    """

    classes: tuple[str, ...] = CLASSES
    colors: NDArray[np.uint8] = COLORS
    box_classes: tuple[str, ...] = BOX_CLASSES

    def __init__(
        self,
        num: int = 1000,
        first_seed: int = 0,
        *,
        device: Device = "rgbd",
        points: int = 100_000,
        kinds: Sequence[str] | None = None,
        ceiling: bool = True,
        endless: bool = False,
    ) -> None:
        if num < 1:
            raise ValueError(f"Rooms: num is {num}; ask for one or more")
        if device not in DEVICES:
            raise ValueError(f"Rooms: no device {device!r}; choose one of {', '.join(DEVICES)}")
        wrong = [kind for kind in kinds or () if kind not in KINDS]
        if wrong:
            raise ValueError(f"Rooms: no kind {wrong[0]!r}; choose among {', '.join(KINDS)}")
        self.first_seed, self.device, self.points = int(first_seed), device, int(points)
        self.kinds = tuple(kinds) if kinds else None
        self.ceiling, self.endless = ceiling, endless
        self.sequences: Sequence[range] = [range(i, i + 1) for i in range(num)]
        self.names: Sequence[str] = [f"room-{self.first_seed + i:06d}" for i in range(num)]

    def __len__(self) -> int:
        return len(self.names)

    def room(self, index: int) -> Room:
        """The room of a sample.

        Raises:
            IndexError: there is no such sample.
        """
        if index < 0:
            index += len(self)
        if index < 0 or (index >= len(self) and not self.endless):
            raise IndexError(f"Rooms: no sample {index}, there are {len(self)}")
        kind = None if self.kinds is None else self.kinds[index % len(self.kinds)]
        return Room(self.first_seed + index, kind=kind, ceiling=self.ceiling)

    def __getitem__(self, index: int) -> Sample:
        return self.room(index).scan(device=self.device, points=self.points)


def _round_spline(knots: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    """The closed Catmull-Rom spline through ``knots [K, D]`` at ``t [N]``, 0..K."""
    k = np.floor(t).astype(np.int64)
    f = (t - k)[:, None]
    p = [knots[(k + i) % len(knots)] for i in (-1, 0, 1, 2)]
    return 0.5 * (
        2.0 * p[1]
        + (p[2] - p[0]) * f
        + (2.0 * p[0] - 5.0 * p[1] + 4.0 * p[2] - p[3]) * f**2
        + (3.0 * p[1] - p[0] - 3.0 * p[2] + p[3]) * f**3
    )


def _light(made: Furnished, r: Random) -> Scene:
    """The scene of a furnished room: daylight through its windows, lamps, light from all sides."""
    rows, cuts, labels, instances = made.placer.arrays()
    plan = made.plan
    warm = np.array([1.0, r.uniform(0.88, 0.97), r.uniform(0.74, 0.9)])
    sky = np.array([r.uniform(0.85, 0.97), 0.97, 1.0])
    day = r.uniform(0.3, 1.0)
    lamps: list[list[float]] = []
    for x, y, z in made.bulbs:
        strength = r.uniform(1.8, 2.4) / len(made.bulbs) ** 0.6 * (1.25 - 0.5 * day)
        count = 4 if len(made.bulbs) == 1 else 3
        for i in range(count):
            a = 2.0 * math.pi * i / count + 0.4
            at = (x + 0.22 * math.cos(a), y + 0.22 * math.sin(a), z - 0.06)
            lamps.append([*at, 0.0, 0.0, 0.0, *(strength / count * warm), 0.3])
    for (x, y, z), wide, tall, yaw in made.panes:
        c, s = math.cos(yaw), math.sin(yaw)
        parts = (-0.25, 0.25) if len(made.panes) < 3 else (0.0,)
        for k in parts:
            at = (x - s * k * wide, y + c * k * wide, z)
            light = 1.1 * day * wide * tall / len(parts) * sky
            lamps.append([*at, c, s, 0.0, *light, 0.4])
    ambient = (0.3 + 0.12 * day) * (0.5 * warm + 0.5 * sky)
    return Scene(
        rows,
        cuts,
        made.look.palette.array(),
        np.array(lamps, np.float64).reshape(-1, 10),
        ambient,
        labels,
        instances,
        plan.spaces(),
    )
