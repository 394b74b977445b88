"""The street at one moment: everything that a ray can meet, and the boxes around what has one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perception.datasets.street.layout import lay_out
from perception.datasets.street.pen import Chunk, Ground
from perception.datasets.street.raycast import X, Y
from perception.datasets.street.shapes import place
from perception.datasets.street.style import CHUNK, Style
from perception.datasets.street.traffic import Traffic

__all__ = ["World", "around"]


@dataclass(frozen=True, slots=True)
class World:
    """Everything within reach at one moment, in the world frame.

    Attributes:
        rows: ``[M, 20]`` primitives, see ``raycast.py``.
        instances: ``[M] int32`` track id of the object of each, 0 = none.
        motion: ``[M, 2]`` velocity of each, m/s.
        ground: of the window.
        strips: ``[S, 5]`` driveways and paths, see ``ground.py``.
        boxes: ``[K, 7]`` of cars, trucks, people, cyclists.
        labels, tracks: ``[K] int64``.
        velocity: ``[K, 2]`` m/s.
    """

    rows: NDArray[np.float64]
    instances: NDArray[np.int32]
    motion: NDArray[np.float64]
    ground: Ground
    strips: NDArray[np.float64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    tracks: NDArray[np.int64]
    velocity: NDArray[np.float64]

    def after(self, seconds: float) -> World:
        """The primitives a fraction of a second later, moved straight on; boxes stay."""
        rows = self.rows.copy()
        rows[:, (X, Y)] += seconds * self.motion
        return replace(self, rows=rows)


def around(
    style: Style, traffic: Traffic, laid: dict[int, Chunk], x: float, reach: float, time: float
) -> World:
    """The world within ``reach`` of x at a time.

    Args:
        style: of the street.
        traffic: on it.
        laid: chunks that have been laid out before, by number; what is added and what falls out of
            use is changed in place.
        x: along the street, m.
        reach: m.
        time: s.
    """
    first, last = math.floor((x - reach) / CHUNK), math.floor((x + reach) / CHUNK)
    for index in range(first, last + 1):
        if index not in laid:
            laid[index] = lay_out(style, index)
    for index in [i for i in laid if not first - 2 <= i <= last + 2]:
        del laid[index]
    chunks = [laid[index] for index in range(first, last + 1)]
    ground = Ground.around(style, x)

    items, poses, velocities, tracks = traffic.states(time)
    z = ground.heights(poses[:, :2])
    rows = [chunk.rows for chunk in chunks]
    instances = [chunk.instances for chunk in chunks]
    boxes = [chunk.boxes for chunk in chunks]
    motion = np.zeros((sum(map(len, rows)), 2))
    if items:
        who = np.repeat(np.arange(len(items)), [len(item.rows) for item in items])
        moving = np.array([row for item in items for row in item.rows])
        rows.append(place(moving, poses[who, 0], poses[who, 1], z[who], poses[who, 2]))
        instances.append(tracks[who].astype(np.int32))
        motion = np.concatenate([motion, velocities[who]])
        size = np.array([item.size for item in items], dtype=np.float64)
        centre = np.stack([poses[:, 0], poses[:, 1], z + 0.5 * size[:, 2]], 1)
        boxes.append(np.concatenate([centre, size, poses[:, 2:]], 1))
    standing = sum(len(c.boxes) for c in chunks)
    return World(
        rows=np.ascontiguousarray(np.concatenate(rows)),
        instances=np.concatenate(instances).astype(np.int32),
        motion=motion,
        ground=ground,
        strips=np.ascontiguousarray(np.concatenate([c.strips for c in chunks])),
        boxes=np.concatenate(boxes),
        labels=np.concatenate([*(c.labels for c in chunks), [item.label for item in items]]).astype(
            np.int64
        ),
        tracks=np.concatenate([*(c.tracks for c in chunks), tracks]),
        velocity=np.concatenate([np.zeros((standing, 2)), velocities]),
    )
