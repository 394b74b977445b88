"""The shell of a room: its outline, walls, doors, windows, and what keeps free of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

import numpy as np
from numpy.typing import NDArray

from perception.datasets.rooms.look import Look
from perception.datasets.rooms.shapes import Item, Vector

__all__ = ["Opening", "Plan", "Wall"]

THICK = 0.16  # of the walls, m
RECESS = 0.1  # of windows, m


@dataclass(slots=True)
class Opening:
    """A hole in a wall: from ``start`` to ``end`` along it, from ``low`` to ``high``.

    Behind a door that is not shut lies a hall: ``hall`` is how deep it is, and how far it goes to
    the sides along the wall.
    """

    kind: str  # "door" or "window"
    start: float
    end: float
    low: float
    high: float
    hall: tuple[float, float, float] | None = None


@dataclass(slots=True)
class Wall:
    """A straight piece of the outline, the room to the left of its direction.

    Attributes:
        start: x, y of its beginning.
        along: unit vector of its direction.
        length: m.
        corners: whether the outline turns inward (an ordinary corner) at its start and end.
        openings: from its start to its end.
    """

    start: tuple[float, float]
    along: tuple[float, float]
    length: float
    corners: tuple[bool, bool]
    openings: list[Opening] = field(default_factory=list)

    @property
    def yaw(self) -> float:
        """Heading of the inward normal."""
        return math.atan2(self.along[0], -self.along[1])

    def at(self, s: float, off: float, z: float = 0.0) -> Vector:
        """The point ``s`` along the wall and ``off`` into the room."""
        (x, y), (u, v) = self.start, self.along
        return x + s * u - off * v, y + s * v + off * u, z


class Plan:
    """Measures, outline and openings of a room; the middle of its floor is the origin.

    Args:
        r: where everything random comes from.
        kind: ``"living"``, ``"bedroom"``, ``"office"``, ``"dining"`` or ``"meeting"``.
    """

    def __init__(self, r: Random, kind: str) -> None:
        sizes = {
            "living": ((4.6, 7.0), (3.8, 5.4)),
            "bedroom": ((3.6, 5.2), (3.2, 4.4)),
            "office": ((4.0, 7.0), (3.4, 5.2)),
            "dining": ((4.2, 6.2), (3.6, 4.8)),
            "meeting": ((4.6, 7.0), (3.8, 5.0)),
        }
        long, wide = sizes[kind]
        self.length, self.width = r.uniform(*long), r.uniform(*wide)
        self.height = r.choice((2.45, 2.5, 2.6, 2.7, 2.9)) + r.uniform(-0.03, 0.03)
        self.corner: tuple[float, float] | None = None
        if self.length > 5.0 and r.random() < 0.35:
            self.corner = (r.uniform(0.8, 1.8), r.uniform(0.7, 1.4))
        self.walls = self._outline()
        self._openings(r)

    def _outline(self) -> list[Wall]:
        a, b = 0.5 * self.length, 0.5 * self.width
        points = [(-a, -b), (a, -b), (a, b), (-a, b)]
        turns = [True] * 4
        if self.corner is not None:
            cx, cy = self.corner
            points[2:3] = [(a, b - cy), (a - cx, b - cy), (a - cx, b)]
            turns = [True, True, True, False, True, True]
        walls = []
        for i, start in enumerate(points):
            j = (i + 1) % len(points)
            dx, dy = points[j][0] - start[0], points[j][1] - start[1]
            length = math.hypot(dx, dy)
            along = (round(dx / length), round(dy / length))
            walls.append(Wall(start, along, length, (turns[i], turns[j])))
        return walls

    def _openings(self, r: Random) -> None:
        walls = [w for w in self.walls if w.length > 2.2]
        for _ in range(1 if r.random() < 0.75 else 2):
            wide = r.uniform(0.82, 0.95)
            wall = r.choice(walls)
            if self._open(r, wall, "door", wide, 0.0, r.uniform(2.0, 2.1)):
                self._hallway(r, wall, next(o for o in wall.openings if o.hall is None))
        low, high = r.uniform(0.75, 0.95), min(self.height - 0.2, r.uniform(2.1, 2.3))
        for wall in r.sample(walls, min(len(walls), r.choice((1, 1, 2, 2)))):
            for _ in range(r.choice((1, 1, 2)) if wall.length > 3.5 else 1):
                self._open(r, wall, "window", r.uniform(0.9, 1.9), low, high)
        if not any(o.kind == "window" for w in self.walls for o in w.openings):
            for wall in walls:
                if self._open(r, wall, "window", 0.9, low, high):
                    break

    def _open(self, r: Random, wall: Wall, kind: str, wide: float, low: float, high: float) -> bool:
        for _ in range(8):
            start = r.uniform(0.25, wall.length - wide - 0.25) if wall.length > wide + 0.6 else -1.0
            if start < 0.0:
                return False
            free = all(start > o.end + 0.35 or start + wide < o.start - 0.35 for o in wall.openings)
            if free:
                wall.openings.append(Opening(kind, start, start + wide, low, high))
                wall.openings.sort(key=lambda o: o.start)
                return True
        return False

    def _hallway(self, r: Random, wall: Wall, door: Opening) -> None:
        if r.random() < 0.45 and all(wall.corners):
            left = max(door.start - r.uniform(0.1, 1.5), 0.0)
            right = min(door.end + r.uniform(0.1, 1.5), wall.length)
            door.hall = (r.uniform(0.9, 1.7), left, right)

    def spaces(self) -> NDArray[np.float64]:
        """``[B, 2, 3]``: low and high corners of the room and of halls, a little into their walls."""
        a, b = 0.5 * self.length, 0.5 * self.width
        boxes = [[[-a, -b, 0.0], [a, b, self.height]]]
        for wall, hall in self._halls():
            deep, left, right = hall
            ends = [wall.at(left, -THICK), wall.at(right, -THICK - deep)]
            low = [min(ends[0][k], ends[1][k]) for k in (0, 1)]
            high = [max(ends[0][k], ends[1][k]) for k in (0, 1)]
            boxes.append([[*low, 0.0], [*high, self.height]])
        spaces = np.array(boxes)
        spaces[:, 0] -= 0.12
        spaces[:, 1] += 0.12
        spaces[:, 0, 2], spaces[:, 1, 2] = -0.05, self.height + 0.04
        return spaces

    def _halls(self) -> list[tuple[Wall, tuple[float, float, float]]]:
        return [(w, o.hall) for w in self.walls for o in w.openings if o.hall is not None]

    def inside(self, x: float, y: float, margin: float = 0.0) -> bool:
        """Whether a point of the floor is in the room and ``margin`` from its walls."""
        a, b = 0.5 * self.length - margin, 0.5 * self.width - margin
        if abs(x) > a or abs(y) > b:
            return False
        if self.corner is None:
            return True
        cx, cy = self.corner
        return x < a - cx or y < b - cy

    def shell(self, r: Random, look: Look, *, ceiling: bool) -> list[Item]:
        """Wall, floor and, with ``ceiling``, ceiling: one item each, in the frame of the room."""
        wall = Item("wall", r)
        plain = look.wall()
        accent = look.wall(strong=True) if r.random() < 0.55 else plain
        chosen = r.randrange(len(self.walls))
        skirt = r.choice((look.white, look.wood(0), None))
        for i, piece in enumerate(self.walls):
            material = accent if i == chosen else plain
            self._wall(wall, piece, material, skirt)
        if self.corner is not None:
            cx, cy = self.corner
            size = (cx - 0.01, cy - 0.01, self.height)
            at = (0.5 * (self.length - cx + 0.01), 0.5 * (self.width - cy + 0.01))
            wall.box(plain, size, (*at, 0.5 * self.height))
        floor = Item("floor", r)
        size = (self.length + 2 * THICK, self.width + 2 * THICK, 0.1)
        floor.box(look.floor(), size, (0, 0, -0.05))
        items = [wall, floor]
        around = [(plain, look.floor()) for _ in self._halls()]
        # Drawn either way, so that the room is the same without it.
        top = Item("ceiling", r)
        white = look.palette.add((0.95, 0.95, 0.94), noise=0.02, world=True)
        top.box(white, size, (0, 0, self.height + 0.05))
        for (piece, (deep, left, right)), (paint, ground) in zip(
            self._halls(), around, strict=True
        ):
            turn = (piece.yaw, 0.0, 0.0)
            wide, middle = right - left, 0.5 * (left + right)
            off = -THICK - 0.5 * deep
            z = 0.5 * self.height
            far = piece.at(middle, -1.5 * THICK - deep, z)
            wall.box(paint, (THICK, wide + 2 * THICK, self.height), far, turn=turn)
            for s in (left - 0.5 * THICK, right + 0.5 * THICK):
                wall.box(paint, (deep, THICK, self.height), piece.at(s, off, z), turn=turn)
            size = (deep + 2 * THICK, wide + 2 * THICK, 0.1)
            floor.box(ground, size, piece.at(middle, off - THICK, -0.05), turn=turn)
            top.box(white, size, piece.at(middle, off - THICK, self.height + 0.05), turn=turn)
        return [*items, top] if ceiling else items

    def _wall(self, item: Item, wall: Wall, material: int, skirt: int | None) -> None:
        # Where the outline turns outward, a wall must not end in the very plane of the next one.
        first = -THICK if wall.corners[0] else 1e-3
        last = wall.length + (THICK if wall.corners[1] else -1e-3)
        top = self.height

        def piece(s0: float, s1: float, z0: float, z1: float) -> None:
            if s1 - s0 > 1e-6 and z1 - z0 > 1e-6:
                at = wall.at(0.5 * (s0 + s1), -0.5 * THICK, 0.5 * (z0 + z1))
                turn = (wall.yaw, 0.0, 0.0)
                item.box(material, (THICK, s1 - s0, z1 - z0), at, turn=turn)

        s = first
        for o in wall.openings:
            piece(s, o.start, 0.0, top)
            piece(o.start, o.end, 0.0, o.low)
            piece(o.start, o.end, o.high, top)
            s = o.end
        piece(s, last, 0.0, top)
        if skirt is None:
            return
        edges = [0.0]
        for o in wall.openings:
            if o.kind == "door":
                edges += [o.start - 0.06, o.end + 0.06]
        edges.append(wall.length)
        for s0, s1 in zip(edges[::2], edges[1::2], strict=True):
            if s1 - s0 > 0.02:
                at = wall.at(0.5 * (s0 + s1), 0.006, 0.035)
                item.box(skirt, (0.012, s1 - s0, 0.07), at, turn=(wall.yaw, 0.0, 0.0))

    def doors(self, r: Random, look: Look) -> list[Item]:
        """Doors in their frames, in the frame of the room; before a hall open or without a leaf."""
        items = []
        leaf, frame = look.paint(), r.choice((look.white, look.wood(0), look.wood(1)))
        if r.random() < 0.5:
            leaf = r.choice((frame, look.wood(0)))
        panels = r.choice((0, 0, 2, 3))
        for wall in self.walls:
            for o in (o for o in wall.openings if o.kind == "door"):
                item = Item("door", r)
                wide, middle = o.end - o.start, 0.5 * (o.start + o.end)
                for s in (-1.0, 1.0):
                    item.box(frame, (0.12, 0.06, o.high), (-0.045, s * (0.5 * wide), 0.5 * o.high))
                item.box(frame, (0.12, wide + 0.06, 0.06), (-0.045, 0, o.high))
                # The leaf in a frame of its own: hinged at y = 0, shut along +y.
                door = Item("door", r)
                across, tall = wide - 0.06, o.high - 0.04
                door.box(leaf, (0.04, across, tall), (0, 0.5 * across, 0.5 * tall + 0.005))
                for k in range(panels):
                    each = (tall - 0.26) / panels
                    at = (0.0, 0.5 * across, 0.13 + (k + 0.5) * each)
                    door.box(leaf, (0.048, 0.72 * across, each - 0.12), at, edge=0.003)
                y = across - 0.07
                for s in (-1.0, 1.0):
                    door.rod(look.chrome, (0, y, 1.05), (s * 0.06, y, 1.05), 0.01)
                    grip = (s * 0.06, y - 0.11, 1.05)
                    door.rod(look.chrome, (s * 0.06, y, 1.05), grip, 0.01, round_=True)
                side = r.choice((-1.0, 1.0))
                swing = 0.0
                if o.hall is not None:
                    swing = r.uniform(1.2, 1.75)
                if o.hall is None or r.random() < 0.75:
                    hinge = (-0.06 if swing == 0.0 else 0.03, -side * (0.5 * wide - 0.03), 0.0)
                    if side > 0.0:
                        item.add(door, hinge, -swing)
                    else:
                        item.add(door, hinge, math.pi + swing)
                moved = Item("door", r)
                moved.add(item, wall.at(middle, 0.0), wall.yaw)
                items.append(moved)
        return items

    def windows(
        self, r: Random, look: Look
    ) -> tuple[list[Item], list[tuple[Vector, float, float, float]]]:
        """Windows in the frame of the room, and for each pane its middle, width, height and the
        heading in which it gives light."""
        items, panes = [], []
        frame = r.choice((look.white, look.white, look.dark, look.wood(0)))
        for wall in self.walls:
            for o in (o for o in wall.openings if o.kind == "window"):
                item = Item("window", r)
                wide, tall = o.end - o.start, o.high - o.low
                z = 0.5 * (o.low + o.high)
                pane = (0.02, wide, tall)
                item.box(look.outdoors(), pane, (-RECESS - 0.01, 0, z))
                bar = 0.05
                for s in (-1.0, 1.0):
                    item.box(frame, (0.06, bar, tall), (-RECESS, s * 0.5 * (wide - bar), z))
                    at = (-RECESS, 0, z + s * 0.5 * (tall - bar))
                    item.box(frame, (0.06, wide, bar), at)
                for k in range(1, max(1, round(wide / 0.75))):
                    y = wide * (k / max(1, round(wide / 0.75)) - 0.5)
                    item.box(frame, (0.06, bar, tall), (-RECESS, y, z))
                item.box(look.white, (0.2, wide + 0.1, 0.03), (0.04, 0, o.low - 0.015))
                moved = Item("window", r)
                moved.add(item, wall.at(0.5 * (o.start + o.end), 0.0), wall.yaw)
                items.append(moved)
                middle = wall.at(0.5 * (o.start + o.end), -RECESS + 0.05, z)
                panes.append((middle, wide, tall, wall.yaw))
        return items, panes
