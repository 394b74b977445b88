"""Puts items into a room so that none touches another; turns them into a scene."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.datasets.rooms import distance as ds
from perception.datasets.rooms.classes import BOX_CLASSES, CLASSES
from perception.datasets.rooms.distance import box_distance, reach
from perception.datasets.rooms.plan import Plan, Wall
from perception.datasets.rooms.shapes import Item, Vector, place
from perception.geometry import Boxes3D

__all__ = ["Placed", "Placer", "tight_box"]


@njit(nogil=True, cache=True)
def _clear(rows: NDArray[np.float64], others: NDArray[np.float64], gap: float, count: int) -> bool:
    """Whether the oriented boxes of all rows are ``gap`` away from those of the first others."""
    for j in range(count):
        q = others[j]
        size = np.sqrt(q[ds.HALF] ** 2 + q[ds.HALF + 1] ** 2 + q[ds.HALF + 2] ** 2)
        for i in range(len(rows)):
            p = rows[i]
            near = size + np.sqrt(p[ds.HALF] ** 2 + p[ds.HALF + 1] ** 2 + p[ds.HALF + 2] ** 2)
            dx, dy, dz = p[0] - q[0], p[1] - q[1], p[2] - q[2]
            near += max(gap, 0.0)
            if dx * dx + dy * dy + dz * dz < near * near and box_distance(p, q) < gap:
                return False
    return True


@njit(nogil=True, cache=True)
def _spread(rows: NDArray[np.float64], cos: float, sin: float) -> NDArray[np.float64]:
    """``[6]``: extent of rows along (cos, sin), (-sin, cos) and z: lows, then highs."""
    out = np.full(6, 1e9)
    out[3:] = -1e9
    for i in range(len(rows)):
        p = rows[i]
        for k in range(3):
            x = cos if k == 0 else (-sin if k == 1 else 0.0)
            y = sin if k == 0 else (cos if k == 1 else 0.0)
            z = 1.0 if k == 2 else 0.0
            middle = x * p[0] + y * p[1] + z * p[2]
            out[k] = min(out[k], middle - reach(p, -x, -y, -z))
            out[k + 3] = max(out[k + 3], middle + reach(p, x, y, z))
    return out


def tight_box(rows: NDArray[np.float64], yaw: float) -> list[float]:
    """x, y, z, length, width, height, yaw of the least upright box of that heading around rows."""
    c, s = math.cos(yaw), math.sin(yaw)
    low, high = np.split(_spread(rows, c, s), 2)
    u, v, z = (0.5 * (low + high)).tolist()
    return [c * u - s * v, s * u + c * v, z, *(high - low).tolist(), yaw]


@dataclass(slots=True)
class Placed:
    """An item where it stands."""

    item: Item
    rows: NDArray[np.float64]
    at: Vector
    yaw: float
    structure: bool = False  # walls, floor, ceiling
    built_in: bool = False  # given in the frame of the room; ``yaw`` is that of its box


class Placer:
    """What has been put into a room so far.

    Args:
        r: where everything random comes from.
        plan: the room.
    """

    def __init__(self, r: Random, plan: Plan) -> None:
        self.r = r
        self.plan = plan
        self.placed: list[Placed] = []
        self._solid = np.empty((256, ds.ROW))
        self._solids = 0
        self._zones = np.empty((32, ds.ROW))
        self._zone_count = 0

    def build_in(self, item: Item) -> None:
        """Add a part of the room itself, in the frame of the room, unchecked."""
        rows = np.array(item.rows)
        structure = item.label in ("wall", "floor", "ceiling")
        if item.rows:
            yaw = math.atan2(rows[0, ds.TURN + 1], rows[0, ds.TURN])
            self.placed.append(Placed(item, rows, (0.0, 0.0, 0.0), yaw, structure, True))
        if item.label != "floor":
            self._occupy(rows)

    def _occupy(self, rows: NDArray[np.float64]) -> None:
        need = self._solids + len(rows)
        if need > len(self._solid):
            more = np.empty((2 * need, ds.ROW))
            more[: self._solids] = self._solid[: self._solids]
            self._solid = more
        self._solid[self._solids : need] = rows
        self._solids = need

    def keep_free(self, size: Vector, at: Vector, yaw: float) -> None:
        """No later thing may stand in this box."""
        box = Item("", self.r).box(0, size, (0.0, 0.0, 0.0)).rows
        if self._zone_count == len(self._zones):
            self._zones = np.concatenate([self._zones, np.empty_like(self._zones)])
        self._zones[self._zone_count] = place(np.array(box), at, yaw)[0]
        self._zone_count += 1

    def free_again(self) -> None:
        """Take back the last ``keep_free``."""
        self._zone_count -= 1

    def put(
        self,
        item: Item,
        at: Vector,
        yaw: float,
        *,
        gap: float = 0.0,
        coarse: bool = False,
        zones: bool = True,
    ) -> bool:
        """Put an item there if it keeps ``gap`` metres from all others and lies in the room.

        ``coarse`` things count as the box around them.
        """
        rows = place(np.array(item.rows), at, yaw)
        probe = rows
        if coarse:
            low, high = item.extent()
            size = (high[0] - low[0], high[1] - low[1], high[2] - low[2])
            middle = tuple(0.5 * (a + b) for a, b in zip(low, high, strict=True))
            box = Item("", self.r).box(0, size, middle)  # type: ignore[arg-type]
            probe = place(np.array(box.rows), at, yaw)
        for p in probe:
            if not self.plan.inside(p[0], p[1]):
                return False
        if not _clear(probe, self._solid, max(gap, 1e-5), self._solids):
            return False
        if zones and not _clear(probe, self._zones, 0.0, self._zone_count):
            return False
        self._occupy(probe)
        self.placed.append(Placed(item, rows, at, yaw))
        return True

    def against(
        self,
        item: Item,
        *,
        walls: list[Wall] | None = None,
        front: float = 0.0,
        gap: float = 0.02,
        tries: int = 14,
        z: float = 0.0,
        beside: float = 0.0,
        coarse: bool = True,
    ) -> Placed | None:
        """Put an item with its back to a wall; keep ``front`` metres before it free, and
        ``beside`` metres to its left and right at the time."""
        low, high = item.extent()
        deep, wide = high[0] - low[0], high[1] - low[1]
        choice = [w for w in (walls or self.plan.walls) if w.length > wide + 2 * gap]
        if not choice:
            return None
        for k in range(tries):
            wall = self.r.choice(choice)
            room = wall.length - wide - 2 * gap
            s = gap + 0.5 * wide + room * self.r.random()
            if k % 3 == 0:  # in a corner
                s = gap + 0.5 * wide + room * self.r.choice((0.0, 1.0))
            # y of an item runs against the direction of the wall.
            at = wall.at(s + 0.5 * (low[1] + high[1]), gap - low[0], z)
            if front > 0.0 or beside > 0.0:
                size = (deep + front, wide + 2 * beside - 0.01, high[2] - low[2])
                middle = wall.at(s, gap + 0.001 + 0.5 * size[0], z + 0.5 * size[2] + 0.02)
                probe = Item("", self.r).box(0, size, (0.0, 0.0, 0.0))
                rows = place(np.array(probe.rows), middle, wall.yaw)
                if not _clear(rows, self._solid, -0.05, self._solids):
                    continue
            if self.put(item, at, wall.yaw, coarse=coarse):
                if front > 0.0:
                    middle = wall.at(s, gap + deep + 0.5 * front, z + 0.5)
                    self.keep_free((front, wide, 1.0), middle, wall.yaw)
                return self.placed[-1]
        return None

    def on_top(self, support: Placed, items: list[Item], *, tries: int = 6) -> int:
        """Put things on a top of something placed, turned at will; how many found room."""
        done = 0
        c, s = math.cos(support.yaw), math.sin(support.yaw)
        for item in items:
            if not support.item.tops:
                return done
            for _ in range(tries):
                tx, ty, half_x, half_y, z = self.r.choice(support.item.tops)
                low, high = item.extent()
                radius = max(-low[0], high[0], -low[1], high[1])
                if radius > min(half_x, half_y):
                    break
                x = tx + self.r.uniform(-1.0, 1.0) * (half_x - radius)
                y = ty + self.r.uniform(-1.0, 1.0) * (half_y - radius)
                at = (
                    support.at[0] + c * x - s * y,
                    support.at[1] + s * x + c * y,
                    support.at[2] + z + 0.0005,
                )
                yaw = support.yaw + self.r.gauss(0.0, 0.4)
                if self.put(item, at, yaw, gap=2e-4, coarse=True, zones=False):
                    done += 1
                    break
        return done

    def arrays(
        self,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8], NDArray[np.int32]]:
        """Primitives, cuts, and class and instance of each object."""
        rows, cuts, labels, instances = [], [], [], []
        count, instance = 0, 0
        for k, placed in enumerate(self.placed):
            part = placed.rows.copy()
            part[:, ds.OBJECT] = k
            part[:, ds.CUT] += count
            rows.append(part)
            if placed.item.cuts:
                yaw = 0.0 if placed.built_in else placed.yaw
                cuts.append(place(np.array(placed.item.cuts), placed.at, yaw))
                count += len(placed.item.cuts)
            labels.append(CLASSES.index(placed.item.label))
            instance += not placed.structure
            instances.append(0 if placed.structure else instance)
        return (
            np.concatenate(rows),
            np.concatenate(cuts) if cuts else np.empty((0, ds.ROW)),
            np.array(labels, np.uint8),
            np.array(instances, np.int32),
        )

    def boxes(self) -> Boxes3D:
        """Tight boxes of what has a box; labels count in ``BOX_CLASSES``, track ids are instances."""
        boxes, labels, tracks = [], [], []
        instance = 0
        for placed in self.placed:
            instance += not placed.structure
            if placed.item.label in BOX_CLASSES:
                boxes.append(tight_box(placed.rows, placed.yaw))
                labels.append(BOX_CLASSES.index(placed.item.label))
                tracks.append(instance)
        return Boxes3D(
            np.array(boxes, np.float32).reshape(-1, 7),
            np.array(labels, np.int64),
            track_ids=np.array(tracks, np.int64),
        )
