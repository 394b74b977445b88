"""Courses: the lines that vehicles drive and people walk along, parametrised by distance."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

__all__ = ["Course", "Line", "Polyline", "bend", "join"]

Place = tuple[float, float, float]  # world x, y, heading


class Course(Protocol):
    """A line in the world."""

    def at(self, s: float) -> Place:
        """World x, y and heading at the distance s."""
        ...


class Line:
    """A course given by a function."""

    def __init__(self, at: Callable[[float], Place]) -> None:
        self._at = at

    def at(self, s: float) -> Place:
        return self._at(s)


class Polyline:
    """A course through points, the first at s = 0."""

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        self.points = points
        self.s = [0.0]
        for (ax, ay), (bx, by) in itertools.pairwise(points):
            self.s.append(self.s[-1] + math.hypot(bx - ax, by - ay))

    @property
    def length(self) -> float:
        return self.s[-1]

    def point(self, s: float) -> tuple[float, float]:
        """World x and y; the ends go on straight."""
        k = min(max(bisect.bisect_right(self.s, s) - 1, 0), len(self.s) - 2)
        f = (s - self.s[k]) / max(self.s[k + 1] - self.s[k], 1e-9)
        (ax, ay), (bx, by) = self.points[k], self.points[k + 1]
        return ax + f * (bx - ax), ay + f * (by - ay)

    def at(self, s: float) -> Place:
        x, y = self.point(s)
        # The heading is that of a chord, so it turns smoothly over the corners of the line.
        (ax, ay), (bx, by) = self.point(s - 0.6), self.point(s + 0.6)
        return x, y, math.atan2(by - ay, bx - ax)


def bend(start: Place, end: Place) -> Polyline:
    """A smooth curve from one place and heading to another."""
    reach = 0.5 * math.hypot(end[0] - start[0], end[1] - start[1])
    bx, by = start[0] + reach * math.cos(start[2]), start[1] + reach * math.sin(start[2])
    cx, cy = end[0] - reach * math.cos(end[2]), end[1] - reach * math.sin(end[2])
    points = []
    for k in range(33):
        t = k / 32.0
        u = 1.0 - t
        a, b, c, d = u * u * u, 3.0 * u * u * t, 3.0 * u * t * t, t * t * t
        points.append(
            (
                a * start[0] + b * bx + c * cx + d * end[0],
                a * start[1] + b * by + c * cy + d * end[1],
            )
        )
    return Polyline(points)


def join(before: Course, s1: float, curve: Polyline, after: Course, u1: float) -> Line:
    """``before`` up to s1, then the curve, then ``after`` from its distance u1 on."""
    s2 = s1 + curve.length

    def at(s: float) -> Place:
        if s < s1:
            return before.at(s)
        if s < s2:
            return curve.at(s - s1)
        return after.at(u1 + s - s2)

    return Line(at)
