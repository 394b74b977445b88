"""Standing things, chunk by chunk: what is put where along 20 metres of street.

A chunk depends on the seed and its index alone, so the street is endless and a sequence may drive
through it; chunks are laid out when a scan first reaches them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

import numpy as np
from numpy.typing import NDArray

from perception.datasets.street import objects as ob
from perception.datasets.street.classes import ROAD, SIDEWALK
from perception.datasets.street.ground import ground_heights, road_distance
from perception.datasets.street.shapes import Row, place
from perception.datasets.street.style import CHUNK, Style

__all__ = ["Chunk", "Ground", "lay_out"]


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
            np.array(crossings, dtype=np.float64).reshape(-1, 4),
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
        strips: ``[S, 5]`` driveways and paths, see ``ground.py``.
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
    strips: list[tuple[float, float, float, float, float]] = field(default_factory=list)

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
        for cx, _, half, _ in self.ground.crossings:
            if abs(cx - x) < half + 7.0:
                return
        wx, wy, heading = self.style.on_road(x, lateral)
        self.items.append(item)
        self.poses.append((wx, wy, heading + turn))

    def done(self) -> Chunk:
        """The chunk as arrays."""
        strips = np.array(self.strips, dtype=np.float64).reshape(-1, 5)
        if not self.items:
            empty = np.empty(0, np.int64)
            return Chunk(
                np.empty((0, 20)), np.empty(0, np.int32), np.empty((0, 7)), empty, empty, strips
            )
        poses = np.array(self.poses)
        z = self.ground.heights(poses[:, :2])
        rows: list[Row] = []
        owner: list[int] = []
        boxes, labels, tracks = [], [], []
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


def _times(r: Random, mean: float) -> int:
    """How often something with the given mean happens."""
    n = int(mean)
    return n + (r.random() < mean - n)


def _front(pen: Pen, r: Random, x: float, edge: float, side: float) -> None:
    """A fence, wall or hedge along the back of the pavement."""
    kind = r.random()
    length = CHUNK * r.uniform(0.5, 1.0)
    at = x + r.uniform(-0.5, 0.5) * (CHUNK - length)
    lateral = side * (edge + 0.5)
    if kind < 0.38:
        item = ob.green_hedge(r, length, r.uniform(0.7, 2.2))
    elif kind < 0.66:
        item = ob.fence(r, length)
    elif kind < 0.9:
        item = ob.wall(r, length)
    else:
        return
    pen.put(item, at, lateral, clear=0.6, half_length=0.5 * length)


def _green(
    pen: Pen, r: Random, x: float, near: float, far: float, side: float, trees: float, bushes: float
) -> None:
    """Trees and bushes scattered between two distances from the centre line."""
    style = pen.style
    for _ in range(_times(r, trees * style.greenery)):
        pen.put(
            ob.tree(r, style.tree_size),
            x + r.uniform(-10, 10),
            side * r.uniform(near, far),
            r.uniform(0, 6),
            1.0,
        )
    for _ in range(_times(r, bushes * style.greenery)):
        pen.put(
            ob.bush(r, r.uniform(0.5, 1.6)),
            x + r.uniform(-10, 10),
            side * r.uniform(near, far),
            r.uniform(0, 6),
            0.8,
        )


def _horizon(pen: Pen, r: Random, x: float, side: float) -> None:
    """What closes the view where nothing nearer does: woods, tree lines, buildings."""
    kind = r.random()
    away = r.uniform(32.0, 70.0)
    if kind < 0.5:
        for _ in range(4):
            item = ob.tree(r, r.uniform(1.0, 1.9), low=r.uniform(0.2, 1.5))
            pen.put(item, x + r.uniform(-10, 10), side * (away + r.uniform(-4, 8)), 0.0, 4.0)
            pen.put(ob.bush(r, r.uniform(1.0, 2.6)), x + r.uniform(-10, 10), side * away, 0.0, 4.0)
    elif kind < 0.94:
        out = 0.0 if side > 0 else math.pi
        item = ob.building(r, r.uniform(12.0, 20.0), 12.0, r.uniform(5.0, 14.0))
        pen.put(item, x, side * (away + 6.0), out + r.choice((0.0, 0.3, -0.3)), 8.0, 10.0)


def _side(pen: Pen, r: Random, chunk: int, side: float) -> None:
    """Everything behind the kerb on one side of a chunk."""
    style = pen.style
    x = (chunk + 0.5) * CHUNK
    kerb = style.half_width
    edge = kerb + style.verge + style.pavement
    plot = style.plot(chunk, side)
    out = 0.0 if side > 0 else math.pi  # buildings' fronts look to the street
    if plot == "block":
        length = CHUNK * (r.uniform(0.55, 0.9) if r.random() < 0.3 else 1.0)
        depth = r.uniform(8.0, 14.0)
        setback = edge + style.setback * r.uniform(0.7, 1.0) + r.choice((0.0, 0.0, 0.8))
        height = 3.1 * max(1.0, style.storeys + r.gauss(0.0, 1.0))
        # Blocks keep off side streets: the part that does not fit is left open.
        item = ob.building(r, length, depth, height)
        pen.put(item, x, side * (setback + 0.5 * depth), out, style.pavement, 0.5 * length)
        _green(pen, r, x, setback + depth + 3, 55.0, side, 1.0, 0.5)
    elif plot == "houses":
        depth = r.uniform(7.0, 11.0)
        garden = edge + 2.0 + style.setback
        length = r.uniform(8.0, 13.0)
        pen.put(
            ob.house(r, length, depth),
            x,
            side * (garden + 0.5 * depth),
            out,
            2.0,
            0.5 * length + 3.0,
        )
        _front(pen, r, x, edge, side)
        _green(pen, r, x, edge + 0.8, garden, side, 0.5, 1.8)
        _green(pen, r, x, garden + depth + 1, 45.0, side, 1.5, 2.0)
        drive = x + r.choice((-8.5, 8.5))
        pen.strips.append(
            (drive, r.uniform(1.3, 2.2), side, garden - kerb + 4.0, r.choice((SIDEWALK, ROAD)))
        )
        if r.random() < style.parked:
            pen.put(ob.car(r), drive, side * (edge + 3.2), r.choice((0.5, -0.5)) * math.pi, 1.0)
    elif plot == "park":
        _green(pen, r, x, edge + 1.0, edge + 12.0, side, 1.2, 0.6)
        _green(pen, r, x, edge + 10.0, 65.0, side, 3.0, 2.5)
        if r.random() < 0.3:
            _front(pen, r, x, edge, side)
        if r.random() < 0.35:
            pen.strips.append((x + r.uniform(-9, 9), r.uniform(0.6, 1.6), side, 60.0, SIDEWALK))
        if r.random() < 0.25:
            pen.put(
                ob.building(r, 20.0, 12.0, 9.0), x, side * r.uniform(40.0, 62.0), out, 6.0, 10.0
            )
        for _ in range(_times(r, 0.3 * style.people)):
            pen.put(
                ob.person(r),
                x + r.uniform(-10, 10),
                side * r.uniform(edge, edge + 15),
                r.uniform(0, 6),
            )
    elif plot == "thicket":
        near = edge + r.uniform(0.4, 4.0)
        _green(pen, r, x, near, near + 4.0, side, 2.0, 0.0)
        for _ in range(_times(r, 8.0 * style.greenery)):
            lateral = side * (near + r.uniform(0.0, 5.0))
            pen.put(ob.bush(r, r.uniform(0.6, 2.4)), x + r.uniform(-10, 10), lateral, 0.0, 1.0)
        _green(pen, r, x, near + 2.0, near + 16.0, side, 4.0, 5.0)
    elif plot == "field":
        _green(pen, r, x, edge + 1.0, 60.0, side, 0.5, 1.0)
        if r.random() < 0.4:
            _front(pen, r, x, edge, side)
    elif plot == "car park":
        for row in (edge + 3.5, edge + 14.0):
            for i in range(7):
                if r.random() < style.parked:
                    turn = r.choice((0.5, -0.5)) * math.pi + r.gauss(0, 0.03)
                    pen.put(ob.car(r), x - 9.0 + 2.8 * i, side * row, turn, 1.0)
        _green(pen, r, x, edge + 18.0, 50.0, side, 1.0, 2.0)
        if r.random() < 0.5:
            pen.put(ob.building(r, 20.0, 14.0, 7.0), x, side * (edge + 32.0), out, 4.0, 10.0)
    elif plot == "plaza":
        depth = r.uniform(8.0, 14.0)
        setback = edge + r.uniform(6.0, 18.0)
        pen.put(
            ob.building(r, CHUNK, depth, 3.1 * style.storeys),
            x,
            side * (setback + 0.5 * depth),
            out,
            3.0,
            10.0,
        )
        _green(pen, r, x, edge + 1.0, setback - 1.5, side, 1.0, 0.4)
        for _ in range(_times(r, style.people)):
            pen.put(
                ob.person(r),
                x + r.uniform(-10, 10),
                side * r.uniform(edge, setback - 1),
                r.uniform(0, 6),
            )
        for _ in range(_times(r, 0.7)):
            pen.put(
                ob.pole(r),
                x + r.uniform(-10, 10),
                side * r.uniform(edge, setback - 1),
                r.uniform(0, 6),
            )
    else:  # a yard behind a wall
        pen.put(ob.wall(r, CHUNK), x, side * (edge + 0.3), 0.0, 0.8, 10.0)
        _green(pen, r, x, edge + 1.5, edge + 12.0, side, 1.0, 2.0)
        if r.random() < 0.6:
            pen.put(
                ob.building(r, 16.0, 10.0, 7.0),
                x,
                side * (edge + r.uniform(9.0, 16.0)),
                out,
                4.0,
                8.0,
            )
    _horizon(pen, r, x, side)
    # On the verge and the pavement.
    strip = kerb + 0.5 * style.verge if style.verge else kerb + 0.45
    if r.random() < style.street_trees:
        pen.put(
            ob.tree(r, 0.8 * style.tree_size, r.uniform(2.0, 3.5)),
            x + r.uniform(-9, 9),
            side * (strip + 0.1),
            r.uniform(0, 6),
            0.3,
        )
    for _ in range(_times(r, 0.55 * style.poles)):
        lateral = strip if r.random() < 0.7 else edge - 0.3
        pen.put(ob.pole(r), x + r.uniform(-10, 10), side * lateral, out - 0.5 * math.pi, 0.2)
    if style.pavement > 1.0:
        for _ in range(_times(r, 0.35 * style.people)):
            pen.put(
                ob.person(r),
                x + r.uniform(-10, 10),
                side * r.uniform(edge - style.pavement + 0.3, edge),
                r.uniform(0, 6),
            )
        for _ in range(_times(r, 0.08 * style.people)):
            pen.put(
                ob.bicycle(r),
                x + r.uniform(-10, 10),
                side * (edge - 0.5),
                r.choice((0.0, 1.4, math.pi)),
            )
    parking = style.parking_left if side > 0 else style.parking_right
    if parking:
        along = x - 10.0 + r.uniform(2.5, 4.0)
        while along < x + 8.0:
            if r.random() < style.parked:
                vehicle = ob.car(r) if r.random() < 0.94 else ob.truck(r)
                if vehicle.size is not None and vehicle.size[0] < 7.0:
                    turn = (0.0 if r.random() < 0.9 else math.pi) + r.gauss(0.0, 0.02)
                    shift = side * (kerb - 1.15 + r.gauss(0.0, 0.08))
                    pen.park(
                        vehicle, along, shift, turn + (math.pi if side * style.hand > 0 else 0.0)
                    )
                    along += 0.5 * max(vehicle.size[0] - 4.5, 0.0)
            along += r.uniform(5.6, 6.6)


def _side_streets(pen: Pen, r: Random, chunk: int) -> None:
    """What stands along the side streets that join in this chunk, and cars waiting there."""
    style = pen.style
    for cx, skew, half, only in style.junctions(chunk * CHUNK, (chunk + 1) * CHUNK):
        for side in (-1.0, 1.0):
            if only != 0.0 and side != only:
                continue
            turn = 0.5 * math.pi - math.atan(skew)
            walk = half + style.verge + style.pavement
            kind = style.plot(chunk, side)
            lateral = style.half_width + 20.0
            while lateral < 78.0:
                for flank in (-1.0, 1.0):

                    def x_of(away: float, lat: float = lateral, flank: float = flank) -> float:
                        return cx + skew * side * lat + flank * away

                    if kind in ("block", "plaza", "yard wall") and r.random() < 0.8:
                        depth = r.uniform(8, 12)
                        item = ob.building(r, 18.0, depth, 3.1 * style.storeys)
                        pen.put(
                            item,
                            x_of(walk + 1.5 + 0.5 * depth),
                            side * lateral,
                            turn + (math.pi if flank > 0 else 0.0),
                            style.pavement,
                            9.0,
                        )
                    elif r.random() < 0.5:
                        item = (
                            ob.green_hedge(r, 16.0, r.uniform(0.8, 2.0))
                            if r.random() < 0.6
                            else ob.fence(r, 16.0)
                        )
                        pen.put(item, x_of(walk + 0.6), side * lateral, turn, 0.5, 8.0)
                        pen.put(
                            ob.tree(r, style.tree_size),
                            x_of(walk + r.uniform(2, 9)),
                            side * lateral,
                        )
                    else:
                        pen.put(
                            ob.tree(r, style.tree_size),
                            x_of(walk + r.uniform(1, 6)),
                            side * (lateral + r.uniform(-8, 8)),
                        )
                        pen.put(
                            ob.bush(r, r.uniform(0.5, 1.5)),
                            x_of(walk + r.uniform(1, 6)),
                            side * (lateral + r.uniform(-8, 8)),
                        )
                    if r.random() < style.parked and half > 3.0:
                        pen.put(ob.car(r), x_of(half - 1.1), side * lateral, turn, -half - 9.0)
                    if r.random() < 0.3 * style.poles:
                        pen.put(ob.pole(r), x_of(half + 0.4), side * lateral, turn)
                lateral += 19.0
            own = style.mouth is not None and style.mouth[0] == cx and style.mouth[2] == side
            if not own and r.random() < 0.6:  # waiting at the mouth
                lane = -side * style.hand * 0.45 * half
                back = style.half_width + r.uniform(5.0, 9.0)
                vehicle = ob.car(r) if r.random() < 0.9 else ob.truck(r)
                pen.put(
                    vehicle,
                    cx + skew * side * back + lane,
                    side * back,
                    turn + (math.pi if side > 0 else 0.0),
                    -half - 9.0,
                )


def lay_out(style: Style, chunk: int) -> Chunk:
    """The standing things of chunk ``chunk`` (x from 20 chunk to 20 chunk + 20)."""
    r = Random(f"chunk {style.seed} {chunk}")
    ground = Ground.around(style, (chunk + 0.5) * CHUNK)
    pen = Pen(style, ground, base=100_000 + (chunk % 10_000) * 200)
    for side in (1.0, -1.0):
        _side(pen, r, chunk, side)
    _side_streets(pen, r, chunk)
    return pen.done()
