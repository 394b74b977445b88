"""The drawing pen of the layout: puts items on the ground and turns them into arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perception.datasets.street import objects as ob
from perception.datasets.street.ground import CROSSING, STRIP, ground_heights, road_distance
from perception.datasets.street.shapes import Row, place
from perception.datasets.street.style import Style

__all__ = ["Chunk", "Ground", "Pen"]


@dataclass(slots=True)
class Ground:
    """Arguments of the functions in ``ground.py`` for a window of the street."""

    g: NDArray[np.float64]
    table: NDArray[np.float64]
    crossings: NDArray[np.float64]

    @classmethod
    def around(cls, style: Style, x: float, reach: int = 130) -> Ground:
        """The window within ``reach`` metres of x."""
        first = math.floor(x) - reach
        g = style.ground.copy()
        g[0] = first
        crossings = style.junctions(x - reach, x + reach)
        return cls(
            g,
            style.table(first, 2 * reach + 2),
            np.array(crossings, dtype=np.float64).reshape(-1, CROSSING),
        )

    def kerb(self, x: float, y: float) -> float:
        """Distance to the nearest kerb, negative on the road."""
        return float(road_distance(self.g, self.table, self.crossings, x, y)[0])

    def heights(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Heights ``[N]`` at ``xy [N, 2]``."""
        return np.asarray(ground_heights(self.g, self.table, self.crossings, xy))


@dataclass(slots=True)
class Chunk:
    """Placed primitives of a piece of street.

    Attributes:
        rows: ``[M, 20]`` primitives in the world frame.
        instances: ``[M] int32`` track id of the object of each, 0 = none.
        boxes: ``[K, 7]`` boxes of standing cars, trucks, people, cyclists, world frame.
        labels, tracks: ``[K]``.
        strips: ``[S, 7]`` driveways and paths, see ``ground.py``.
    """

    rows: NDArray[np.float64]
    instances: NDArray[np.int32]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    tracks: NDArray[np.int64]
    strips: NDArray[np.float64]


@dataclass(slots=True)
class Pen:
    """Collects placed items of one chunk."""

    style: Style
    ground: Ground
    base: int  # first track id
    items: list[ob.Item] = field(default_factory=list)
    poses: list[tuple[float, float, float]] = field(default_factory=list)
    strips: list[tuple[float, ...]] = field(default_factory=list)

    def put(
        self,
        item: ob.Item,
        x: float,
        lateral: float,
        turn: float = 0.0,
        clear: float = 0.2,
        half_length: float = 0.0,
    ) -> None:
        """Place an item beside the road, unless some street comes nearer than ``clear`` to its
        middle or its ends; ``turn`` is against the road's heading."""
        wx, wy, heading = self.style.on_road(x, lateral)
        yaw = heading + turn
        for e in (-half_length, 0.0, half_length) if half_length else (0.0,):
            if self.ground.kerb(wx + e * math.cos(yaw), wy + e * math.sin(yaw)) < clear:
                return
        self.items.append(item)
        self.poses.append((wx, wy, yaw))

    def park(self, item: ob.Item, x: float, lateral: float, turn: float) -> None:
        """Place a vehicle on the main road, away from junctions."""
        for cx, _, half, *_ in self.ground.crossings:
            if abs(cx - x) < half + 7.0:
                return
        wx, wy, heading = self.style.on_road(x, lateral)
        self.items.append(item)
        self.poses.append((wx, wy, heading + turn))

    def done(self) -> Chunk:
        """The chunk as arrays."""
        strips = np.array(self.strips, dtype=np.float64).reshape(-1, STRIP)
        if not self.items:
            empty = np.empty(0, np.int64)
            return Chunk(
                np.empty((0, 20)), np.empty(0, np.int32), np.empty((0, 7)), empty, empty, strips
            )
        poses = np.array(self.poses)
        z = self.ground.heights(poses[:, :2])
        rows: list[Row] = []
        owner: list[int] = []
        boxes: list[tuple[float, ...]] = []
        labels: list[int] = []
        tracks: list[int] = []
        track_of = np.zeros(len(self.items), np.int32)
        for i, item in enumerate(self.items):
            rows += item.rows
            owner += [i] * len(item.rows)
            if item.size is not None:
                x, y, yaw = self.poses[i]
                length, width, height = item.size
                boxes.append((x, y, z[i] + 0.5 * height, length, width, height, yaw))
                labels.append(item.label)
                track_of[i] = self.base + len(tracks)
                tracks.append(self.base + len(tracks))
        who = np.array(owner)
        placed = place(np.array(rows), poses[who, 0], poses[who, 1], z[who], poses[who, 2])
        return Chunk(
            placed,
            track_of[who],
            np.array(boxes, dtype=np.float64).reshape(-1, 7),
            np.array(labels, dtype=np.int64),
            np.array(tracks, dtype=np.int64),
            strips,
        )
