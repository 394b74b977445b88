"""People on the pavement, alone and in groups, and cyclists on it.

Everybody in a band of the pavement walks at the same speed along the same course, so nobody ever
walks through anybody. A course follows the pavement of the main road and turns into the side
streets: no road is crossed. Places follow from the time in closed form.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from random import Random
from typing import Final

from perception.datasets.street import objects as ob
from perception.datasets.street.course import Place, Polyline, bend
from perception.datasets.street.style import Style

__all__ = ["Walkers"]

#: How far up the side streets people walk, m.
DEEP: Final = 62.0
#: Pitch of the places in a band in which somebody may walk, m; no stride is longer.
PITCH: Final = 1.6
#: Width that a person takes, m.
WIDE: Final = 0.85
#: Nobody walks farther than this; between side streets farther apart people come and go, m.
BLOCK: Final = 880.0
#: People farther along the street than this are left out, m.
SIGHT: Final = 95.0


@dataclass(slots=True)
class Band:
    """A strip of pavement, one or more people wide."""

    away: float  # of its middle from the kerb, m
    columns: int
    speed: float  # along the course, m/s
    cyclists: bool
    crowd: float  # share of the places with somebody


class Walkers:
    """Everybody on the pavements of a street.

    Args:
        style: the street.
    """

    def __init__(self, style: Style) -> None:
        self.style = style
        self._bands = {side: self._draw(side) for side in (1.0, -1.0)}
        self._courses: dict[tuple[float, float, float, float], Polyline] = {}

    def _draw(self, side: float) -> list[Band]:
        style = self.style
        r = Random(f"walkers {style.seed} {side}")
        bands: list[Band] = []
        at = style.verge + (0.15 if style.verge else 0.75)
        # The back of a wide pavement is left to benches, bins and bicycles.
        end = style.verge + style.pavement - (0.8 if style.furnished else 0.1)
        if end - at > 1.2 and r.random() < 0.5:
            speed = r.uniform(2.5, 6.0) * r.choice((-1.0, 1.0))
            bands.append(Band(at + 0.45, 1, speed, True, r.uniform(0.0, 0.12)))
            at += 1.1
        while end - at >= WIDE - 0.2:
            columns = min(int((end - at + 0.2) / WIDE), r.choice((1, 2, 2, 3)))
            speed = r.uniform(0.7, 1.7) * r.choice((-1.0, 1.0))
            crowd = 0.03 * style.people * r.uniform(0.1, 1.3)
            bands.append(Band(at + 0.5 * columns * WIDE, columns, speed, False, crowd))
            at += columns * WIDE + 0.1
        return bands

    def _blocks(self, side: float, x: float) -> list[tuple[float, float]]:
        """Pieces of pavement on one side in sight of x, from one end to the next (x of each)."""
        reach = 1.5 * BLOCK
        ends = [
            row[0] for row in self.style.junctions(x - reach, x + reach) if row[3] in (0.0, side)
        ]
        first, last = math.ceil((x - reach) / BLOCK - 0.5), math.floor((x + reach) / BLOCK - 0.5)
        ends = sorted({*ends, *((k + 0.5) * BLOCK for k in range(first, last + 1))})
        return [(a, b) for a, b in itertools.pairwise(ends) if b > x - SIGHT and a < x + SIGHT]

    def _course(self, side: float, away: float, a: float, b: float) -> Polyline:
        """Along the pavement of one piece, and up the side streets at its ends."""
        key = (side, away, a, b)
        if key in self._courses:
            return self._courses[key]
        style = self.style
        lateral = side * (style.half_width + away)
        ends: list[tuple[float, list[Place]]] = []
        for end, flank in ((a, 1.0), (b, -1.0)):
            row = next((row for row in style.junctions(end, end)), None)
            if row is None:
                ends.append((end, []))
                continue
            # As far from that kerb as from this one, so that bands stay beside each other.
            beside = flank * (row[2] + row[4] + away - style.verge)
            near = style.half_width + away + 3.0 + 0.3 * row[6]
            leg = [style.on_crossing(row, side * v, beside) for v in (DEEP, 40.0, 25.0, near)]
            corner = style.on_crossing(row, lateral, beside)[0]
            ends.append((corner + flank * (3.0 + 0.3 * row[6]), leg))
        (first, before), (last, after) = ends
        points: list[tuple[float, float]] = []
        if before:
            x, y, heading = before[-1]
            down = (x, y, heading if side < 0.0 else heading + math.pi)
            points = [(p[0], p[1]) for p in before[:-1]]
            points += bend(down, style.on_road(first, lateral)).points
        steps = max(int((last - first) / 6.0), 1)
        for k in range(steps + 1):
            x, y, _ = style.on_road(first + (last - first) * k / steps, lateral)
            points.append((x, y))
        if after:
            x, y, heading = after[-1]
            up = (x, y, heading if side > 0.0 else heading + math.pi)
            points += bend(style.on_road(last, lateral), up).points
            points += [(p[0], p[1]) for p in after[-2::-1]]
        self._courses[key] = Polyline(points)
        return self._courses[key]

    def append_to(
        self,
        time: float,
        x: float,
        items: list[ob.Item],
        poses: list[Place],
        velocities: list[tuple[float, float]],
        tracks: list[int],
    ) -> None:
        """Add everybody within sight of x at a time to the lists of ``Traffic.states``."""
        for side, bands in self._bands.items():
            for a, b in self._blocks(side, x):
                for number, band in enumerate(bands):
                    if band.crowd <= 0.0:
                        continue
                    course = self._course(side, band.away, a, b)
                    name = f"{self.style.seed} {side} {number} {a:.3f} {b:.3f}"
                    self._walk(time, x, band, course, name, items, poses, velocities, tracks)

    def _walk(
        self,
        time: float,
        x: float,
        band: Band,
        course: Polyline,
        name: str,
        items: list[ob.Item],
        poses: list[Place],
        velocities: list[tuple[float, float]],
        tracks: list[int],
    ) -> None:
        pitch = 2.4 if band.cyclists else PITCH
        travelled = band.speed * time
        # Only the part of a long course that can be seen.
        low, high = 0.0, course.length
        if course.length > 300.0:
            middle = _nearest(course, x)
            low, high = max(middle - SIGHT, 0.0), min(middle + SIGHT, course.length)
        first = math.ceil((low - travelled) / pitch)
        last = math.floor((high - travelled) / pitch)
        back = math.pi if band.speed < 0.0 else 0.0
        for n in range(first, last + 1):
            group = Random(f"group {name} {n // 3}")
            busy = group.random()
            if busy > 2.5 * band.crowd:
                continue
            share = group.choice((0.25, 0.25, 0.6, 0.95))
            s = n * pitch + travelled
            px, _, _ = course.at(s)
            if abs(px - x) > SIGHT:
                continue
            for column in range(band.columns):
                who = f"{name} {n} {column}"
                r = Random(f"walker {who}")
                if r.random() > share:
                    continue
                beside = (column + 0.5 - 0.5 * band.columns) * WIDE
                slip = r.uniform(-0.12, 0.12)
                qx, qy, yaw = course.at(s + slip)
                ax, ay, ayaw = course.at(s + slip + 0.1 * band.speed)
                qx, qy = qx - beside * math.sin(yaw), qy + beside * math.cos(yaw)
                ax, ay = ax - beside * math.sin(ayaw), ay + beside * math.cos(ayaw)
                if band.cyclists:
                    item = ob.cyclist(r, 1.1 * s * math.copysign(1.0, band.speed))
                else:
                    item = ob.person(r, r.uniform(0.0, 6.0) + abs(travelled) * 4.3)
                items.append(item)
                poses.append((qx, qy, yaw + back))
                velocities.append(((ax - qx) * 10.0, (ay - qy) * 10.0))
                tracks.append(20_000 + Random(f"track {who}").randrange(70_000))


def _nearest(course: Polyline, x: float) -> float:
    """Distance along a course of its point with the nearest x."""
    k = min(range(len(course.points)), key=lambda i: abs(course.points[i][0] - x))
    return course.s[k]
