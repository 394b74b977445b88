"""The drawing pen of the layout: puts items on the ground and turns them into arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perception.datasets.street import objects as ob
from perception.datasets.street import raycast as rc
from perception.datasets.street.ground import CROSSING, STRIP, ground_heights, road_distance
from perception.datasets.street.shapes import Row, place
from perception.datasets.street.style import Style

__all__ = ["Chunk", "Ground", "Pen"]

#: Nothing above this touches a car, m.
LOW: Final = 1.9


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
class Footprint:
    """The rectangle that an item takes up to the height of a car, in the world."""

    x: float
    y: float
    cos: float
    sin: float
    length: float  # half
    width: float  # half
    boxed: bool

    @classmethod
    def of(cls, item: ob.Item, x: float, y: float, yaw: float) -> Footprint | None:
        """None for what begins above the height of a car."""
        c, s = math.cos(yaw), math.sin(yaw)
        if item.size is not None:
            return cls(x, y, c, s, 0.5 * item.size[0], 0.5 * item.size[1], True)
        low_x = low_y = math.inf
        high_x = high_y = -math.inf
        for row in item.rows:
            a, b, c_a, c_b = _extent(row)
            if a < b:
                low_x, high_x = min(low_x, a), max(high_x, b)
                low_y, high_y = min(low_y, c_a), max(high_y, c_b)
        if low_x > high_x:
            return None
        mx, my = 0.5 * (low_x + high_x), 0.5 * (low_y + high_y)
        return cls(
            x + c * mx - s * my, y + s * mx + c * my, c, s,
            0.5 * (high_x - low_x), 0.5 * (high_y - low_y), False,
        )  # fmt: skip

    def touches(self, other: Footprint) -> bool:
        """Whether two rectangles overlap."""
        dx, dy = other.x - self.x, other.y - self.y
        reach = self.length + self.width + other.length + other.width
        if abs(dx) > reach or abs(dy) > reach:
            return False
        dot = abs(self.cos * other.cos + self.sin * other.sin)
        cross = abs(self.cos * other.sin - self.sin * other.cos)
        return (
            abs(dx * self.cos + dy * self.sin)
            < self.length + other.length * dot + other.width * cross
            and abs(dy * self.cos - dx * self.sin)
            < self.width + other.length * cross + other.width * dot
            and abs(dx * other.cos + dy * other.sin)
            < other.length + self.length * dot + self.width * cross
            and abs(dy * other.cos - dx * other.sin)
            < other.width + self.length * cross + self.width * dot
        )


def _extent(row: Row) -> tuple[float, float, float, float]:
    """Extent of a primitive along x and y in the frame of its item; empty when it is too high."""
    kind = int(row[rc.KIND])
    x, y, z = row[rc.X], row[rc.Y], row[rc.Z]
    if kind <= rc.HEDGE:
        if z > LOW:
            return 1.0, 0.0, 1.0, 0.0
        back, front = min(row[6], row[8]), max(row[7], row[9])
        half, c, s = max(row[10], row[11]), row[rc.COS], row[rc.SIN]
        middle, long = 0.5 * (back + front), 0.5 * (front - back)
        x, y = x + c * middle, y + s * middle
        wide, deep = long * abs(c) + half * abs(s), long * abs(s) + half * abs(c)
        return x - wide, x + wide, y - deep, y + deep
    if kind <= rc.CROWN:
        if z - row[8] > LOW:
            return 1.0, 0.0, 1.0, 0.0
        return x - row[6], x + row[6], y - row[7], y + row[7]
    if min(z, z + row[8]) > LOW:
        return 1.0, 0.0, 1.0, 0.0
    r = row[9]
    return (
        min(x, x + row[6]) - r, max(x, x + row[6]) + r,
        min(y, y + row[7]) - r, max(y, y + row[7]) + r,
    )  # fmt: skip


@dataclass(slots=True)
class Pen:
    """Collects placed items of one chunk. Cars and people stand free: what would touch the box of
    one is left out, whichever comes first."""

    style: Style
    ground: Ground
    base: int  # first track id
    items: list[ob.Item] = field(default_factory=list)
    poses: list[tuple[float, float, float]] = field(default_factory=list)
    strips: list[tuple[float, ...]] = field(default_factory=list)
    taken: list[Footprint] = field(default_factory=list)

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
        self.put_at(item, wx, wy, heading + turn, clear, half_length)

    def put_at(
        self,
        item: ob.Item,
        wx: float,
        wy: float,
        yaw: float,
        clear: float,
        half_length: float = 0.0,
    ) -> None:
        """The same at a place in the world."""
        for e in (-half_length, 0.0, half_length) if half_length else (0.0,):
            if self.ground.kerb(wx + e * math.cos(yaw), wy + e * math.sin(yaw)) < clear:
                return
        self._add(item, wx, wy, yaw)

    def _add(self, item: ob.Item, x: float, y: float, yaw: float) -> None:
        footprint = Footprint.of(item, x, y, yaw)
        if footprint is not None:
            for other in self.taken:
                if (footprint.boxed or other.boxed) and footprint.touches(other):
                    return
            self.taken.append(footprint)
        self.items.append(item)
        self.poses.append((x, y, yaw))

    def park(self, item: ob.Item, x: float, lateral: float, turn: float) -> None:
        """Place a vehicle on the main road, away from junctions."""
        for cx, _, half, *_ in self.ground.crossings:
            if abs(cx - x) < half + 7.0:
                return
        wx, wy, heading = self.style.on_road(x, lateral)
        self._add(item, wx, wy, heading + turn)

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
