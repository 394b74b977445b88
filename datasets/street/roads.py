"""The lanes of a street and the routes through them.

Lanes are one-dimensional: ``u`` grows in the direction of travel. On the main road u is x or -x, on
a crossing road the distance from the main centre line or its opposite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Final

from perception.datasets.street import objects as ob
from perception.datasets.street.course import Course, Line, Place, bend, join
from perception.datasets.street.style import Style

__all__ = ["Junction", "Lane", "Roads", "Route", "Vehicle"]

TURNING: Final = 5.0  # highest speed in a bend, m/s
ALL_RED: Final = 4.0  # time between two greens, s

# ("main", side, lane) or ("cross", x of the junction, direction)
Lane = tuple[str, float, float]


@dataclass(slots=True)
class Route:
    """A course and the lanes that it runs in: ``lane`` with u = s + offset, and after the bend from
    s1 to s2, if there is one, ``next_lane`` with u = s + next_offset."""

    course: Course
    lane: Lane
    offset: float = 0.0
    s1: float = math.inf
    s2: float = math.inf
    next_lane: Lane | None = None
    next_offset: float = 0.0

    @property
    def bend_speed(self) -> float:
        """What passengers put up with in the bend, m/s."""
        return min(math.sqrt((self.s2 - self.s1) * 1.0), TURNING)


@dataclass(slots=True)
class Vehicle:
    """Somebody on the road."""

    name: str
    kind: str
    item: ob.Item
    track: int
    route: Route
    shift: float  # to the left of the lane, m
    wish: float  # m/s
    s: float
    v: float
    committed: float | None = None  # the junction that it has begun to pass from a stop line

    @property
    def length(self) -> float:
        assert self.item.size is not None
        return self.item.size[0]

    def lanes(self) -> list[tuple[Lane, float]]:
        """Lanes that it stands in, with the place in each."""
        route = self.route
        if self.s < route.s1 or route.next_lane is None:
            return [(route.lane, self.s + route.offset)]
        merged = (route.next_lane, self.s + route.next_offset)
        if self.s < route.s2:
            return [(route.lane, route.s1 + route.offset + 0.5 * (self.s - route.s1)), merged]
        return [merged]


@dataclass(slots=True)
class Junction:
    """A crossing road and how it is regulated."""

    row: tuple[float, ...]
    signal: bool
    main_green: float
    cross_green: float
    phase: float
    zone_x: float  # half the length of main road that crossing vehicles sweep
    zone_v: float  # half the width of the main road

    @property
    def x(self) -> float:
        return self.row[0]

    def green(self, time: float, main: bool) -> bool:
        """Whether the lights let the main or the crossing road go."""
        cycle = self.main_green + self.cross_green + 2.0 * ALL_RED
        t = (time + self.phase) % cycle
        if main:
            return t < self.main_green
        return self.main_green + ALL_RED <= t < cycle - ALL_RED


class Roads:
    """The lanes of one street.

    Args:
        style: the street.
    """

    def __init__(self, style: Style) -> None:
        self.style = style
        self.junctions: dict[float, Junction] = {}
        # Who turns swings out; where lanes are narrow nobody does, but for the own car.
        self.tight = style.lane < 2.4 and not style.single

    def main_lanes(self) -> list[Lane]:
        """All lanes of the main road."""
        style = self.style
        sides = (-style.hand,) if style.single else (-style.hand, style.hand)
        return [("main", side, float(n)) for side in sides for n in range(style.lanes)]

    def direction(self, lane: Lane) -> float:
        """Of a main lane along x."""
        return 1.0 if lane[1] == -self.style.hand else -1.0

    def main(self, lane: Lane) -> Line:
        """The course of a lane of the main road."""
        style, d = self.style, self.direction(lane)
        lateral = style.lane_at(lane[1], int(lane[2]))

        def at(u: float) -> Place:
            x, y, heading = style.on_road(d * u, lateral)
            return x, y, heading if d > 0.0 else heading + math.pi

        return Line(at)

    def cross(self, junction: Junction, d: float) -> Line:
        """The course of the lane of a crossing road in its direction d (+1: to the left of the
        main road)."""
        style = self.style
        right = style.hand * d * style.cross_lane(junction.row)

        def at(u: float) -> Place:
            x, y, heading = style.on_crossing(junction.row, d * u, right)
            return x, y, heading if d > 0.0 else heading + math.pi

        return Line(at)

    def into_main(self, junction: Junction, d: float, near: bool) -> Route | None:
        """From a crossing road, driving in its direction d, into the main road."""
        style = self.style
        side = -d  # where it comes from
        lane = ("main", side if near else -side, 0.0 if not near else style.lanes - 1.0)
        if style.single:
            lane = ("main", -style.hand, 0.0)
        across, along = self.cross(junction, d), self.main(lane)
        m = self.direction(lane)
        s1 = -(style.half_width + 1.0)
        begin = across.at(s1)
        u1 = m * begin[0] + max(5.0, 0.6 * junction.row[6], abs(-s1 - style.lane))
        curve = bend(begin, along.at(u1))
        course = join(across, s1, curve, along, u1)
        s2 = s1 + curve.length
        return Route(course, ("cross", junction.x, d), 0.0, s1, s2, lane, u1 - s2)

    def out_of_main(self, junction: Junction, lane: Lane) -> Route | None:
        """From the outermost lane of the main road into a crossing road on the same side."""
        d = lane[1]  # away from the main road
        tight = junction.row[2] < 3.2 or self.tight
        if junction.row[3] == -d or lane[2] != self.style.lanes - 1.0 or tight:
            return None
        along, away = self.main(lane), self.cross(junction, d)
        m = self.direction(lane)
        u1 = self.style.half_width + 1.5
        end = away.at(u1)
        s1 = m * end[0] - max(5.0, 0.6 * junction.row[6], u1)
        curve = bend(along.at(s1), end)
        course = join(along, s1, curve, away, u1)
        s2 = s1 + curve.length
        return Route(course, lane, 0.0, s1, s2, ("cross", junction.x, d), u1 - s2)

    def line(self, junction: Junction) -> float:
        """Where to stop on a crossing road, metres from the main centre line: farther back where
        it is narrow and others swing out when they turn into it."""
        return self.style.half_width + (3.0 if junction.row[2] < 3.8 else 1.0)

    def junction(self, row: tuple[float, ...]) -> Junction:
        """The junction of a crossing road."""
        if row[0] not in self.junctions:
            style = self.style
            r = Random(f"lights {self.style.seed} {row[0]}")
            signal = r.random() < style.signals and row[2] > 2.8 and not style.single
            zone_x = row[2] * math.hypot(1.0, row[1]) + abs(row[1]) * style.half_width + 0.8
            self.junctions[row[0]] = Junction(
                row, signal, r.uniform(10.0, 20.0), r.uniform(8.0, 14.0), r.uniform(0.0, 50.0),
                zone_x, style.half_width + 0.5,
            )  # fmt: skip
        return self.junctions[row[0]]
