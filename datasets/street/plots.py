"""What stands on a plot beside the road: blocks, houses with gardens, parks, thickets, car parks.

One function a kind of plot; each takes a ``Frontage``, the 20 metres of one side of the street
that it fills.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from perception.datasets.street import furniture as fu
from perception.datasets.street import objects as ob
from perception.datasets.street import structures as st
from perception.datasets.street import vegetation as vg
from perception.datasets.street import vehicles as ve
from perception.datasets.street.classes import ROAD, SIDEWALK
from perception.datasets.street.pen import Pen
from perception.datasets.street.style import CHUNK, Style

__all__ = ["Frontage", "fill_plot", "times"]


def times(r: Random, mean: float) -> int:
    """How often something with the given mean happens."""
    whole = int(mean)
    return whole + (r.random() < mean - whole)


@dataclass(slots=True)
class Frontage:
    """One side of one chunk.

    Attributes:
        pen: where the items go.
        r: the source of chance.
        x: the middle of the chunk.
        side: +1 left, -1 right.
    """

    pen: Pen
    r: Random
    x: float
    side: float

    @property
    def chunk(self) -> int:
        return math.floor(self.x / CHUNK)

    @property
    def style(self) -> Style:
        return self.pen.style

    @property
    def kerb(self) -> float:
        """Distance of the kerb from the centre line."""
        return self.style.half_width

    @property
    def edge(self) -> float:
        """Distance of the back of the pavement from the centre line."""
        return self.style.half_width + self.style.verge + self.style.pavement

    @property
    def out(self) -> float:
        """The turn that makes a front face the street."""
        return 0.0 if self.side > 0 else math.pi

    def put(
        self,
        item: ob.Item,
        at: float,
        away: float,
        turn: float = 0.0,
        clear: float = 0.2,
        half_length: float = 0.0,
    ) -> None:
        """Place an item ``at`` metres along and ``away`` metres from the centre line."""
        self.pen.put(item, self.x + at, self.side * away, turn, clear, half_length)

    def scatter(
        self, build: Callable[[], ob.Item], mean: float, near: float, far: float, clear: float = 0.2
    ) -> None:
        """On average ``mean`` items anywhere between two distances, turned anyhow."""
        for _ in range(times(self.r, mean)):
            at, away = self.r.uniform(-10, 10), self.r.uniform(near, far)
            self.put(build(), at, away, self.r.uniform(0, 6), clear)

    def tree(self, size: float = 1.0, low: float | None = None) -> ob.Item:
        """A tree of this street, in leaf or bare."""
        r, style = self.r, self.style
        return vg.tree(r, size * style.tree_size, low, bare=r.random() < style.bare)

    def green(self, near: float, far: float, trees: float, bushes: float) -> None:
        """Trees, bushes, beds and rough grass between two distances."""
        r, style = self.r, self.style
        self.scatter(self.tree, trees * style.greenery, near, far, 1.0)
        self.scatter(lambda: vg.tall_grass(r), style.rough_grass, near, far, 1.0)
        self.scatter(lambda: vg.bed(r), 0.25 * bushes, near, far, 1.0)
        self.scatter(
            lambda: vg.bush(r, r.uniform(0.5, 1.6)), bushes * style.greenery, near, far, 0.8
        )

    def driveway(self, length: float) -> float | None:
        """Lay the driveway of the chunk, if it has one; returns where, along the chunk."""
        edge = self.style.edge(self.chunk, self.side)
        if edge.drive is None:
            return None
        surface = float(self.r.choice((SIDEWALK, ROAD)))
        at = self.x + edge.drive
        self.pen.strips.append((at, edge.half, self.side, length, surface, 0.0, 0.0))
        return edge.drive

    def sheds(self, mean: float, near: float, far: float) -> None:
        """Sheds, garages, kiosks and pavilions between two distances, square to the street or not."""
        r = self.r
        for _ in range(times(r, mean)):
            turn = r.choice((0.0, 0.5 * math.pi, math.pi, r.uniform(0.0, 6.0)))
            self.put(st.shed(r), r.uniform(-8, 8), r.uniform(near, far), turn, 3.5)

    def path(self) -> None:
        """Lay a footpath that leads away from the street, askew and winding."""
        r = self.r
        width = r.choice((r.uniform(0.5, 1.3), r.uniform(1.0, 2.6)))
        at, skew, bend = self.x + r.uniform(-9, 9), r.gauss(0.0, 0.5), r.gauss(0.0, 2.0)
        self.pen.strips.append(
            (at, width, self.side, r.uniform(25.0, 70.0), float(SIDEWALK), skew, bend)
        )

    def people(self, mean: float, near: float, far: float) -> None:
        """People standing about, alone or in a group that talks."""
        r = self.r
        for _ in range(times(r, mean * self.style.people)):
            at, away = r.uniform(-9, 9), r.uniform(near, far)
            count = r.choice((1, 1, 1, 2, 2, 3, 4))
            turn = r.uniform(0.0, 2.0 * math.pi)
            ring = 0.0 if count == 1 else 0.35 + 0.16 * count
            for i in range(count):
                a = turn + 2.0 * math.pi * i / count
                dx, dy = ring * math.cos(a), ring * math.sin(a)
                facing = self.out + a if self.side < 0 else a
                self.put(ob.person(r), at + dx, away + self.side * dy, facing + math.pi)

    def clutter(self, mean: float, near: float, far: float) -> None:
        """What stands about."""
        r = self.r
        for _ in range(times(r, mean * self.style.clutter)):
            at, away = r.uniform(-9, 9), r.uniform(near, far)
            item = fu.bin_(r) if r.random() < 0.45 else fu.clutter(r)
            self.put(item, at, away, self.out - 0.5 * math.pi + r.choice((0.0, 0.0, 1.57, 0.4)))

    def seat(self, near: float, far: float) -> None:
        """A bench towards the street, and who sits on it."""
        r = self.r
        at, away = r.uniform(-9, 9), r.uniform(near, far)
        turn = self.out - 0.5 * math.pi
        self.put(fu.bench(r), at, away, turn)
        if r.random() < 0.3 * self.style.people:
            self.put(ob.sitter(r), at + r.uniform(-0.4, 0.4), away, turn)

    def enclose(self) -> None:
        """A fence, wall or hedge along the back of the pavement, or nothing."""
        r = self.r
        kind = r.random()
        length = CHUNK * r.uniform(0.5, 1.0)
        if kind < 0.38:
            item = vg.green_hedge(r, length, r.uniform(0.7, 2.2))
        elif kind < 0.66:
            item = st.fence(r, length)
        elif kind < 0.9:
            item = st.wall(r, length)
        else:
            return
        at = r.uniform(-0.5, 0.5) * (CHUNK - length)
        self.put(item, at, self.edge + 0.5, clear=0.6, half_length=0.5 * length)


def _block(f: Frontage) -> None:
    r = f.r
    length = CHUNK * (r.uniform(0.55, 0.9) if r.random() < 0.3 else 1.0)
    depth = r.uniform(8.0, 14.0)
    setback = f.edge + f.style.setback * r.uniform(0.7, 1.0) + r.choice((0.0, 0.0, 0.8))
    height = 3.1 * max(1.0, f.style.storeys + r.gauss(0.0, 1.0))
    item = st.building(r, length, depth, height)
    f.put(item, 0.0, setback + 0.5 * depth, f.out, f.style.pavement, 0.5 * length)
    if r.random() < 0.05:
        item = fu.scaffold(r, 0.8 * length, min(height, 8.0))
        f.put(item, 0.0, setback - 0.7, f.out, 0.5, 0.5 * length)
    f.clutter(0.3, setback - 0.5, setback - 0.3)
    drive = f.driveway(setback + 3.0 - f.kerb)
    if drive is not None and setback - f.edge > 3.0 and r.random() < f.style.parked:
        f.put(ve.car(r), drive, setback - 2.5, r.choice((0.5, -0.5)) * math.pi, 1.0)
    f.green(setback + depth + 3.0, 55.0, 1.0, 0.5)


def _houses(f: Frontage) -> None:
    r = f.r
    depth = r.uniform(7.0, 11.0)
    garden = f.edge + 2.0 + f.style.setback
    length = r.uniform(8.0, 13.0)
    house = st.house(r, length, depth)
    f.put(house, 0.0, garden + 0.5 * depth, f.out, 2.0, 0.5 * length + 3.0)
    f.enclose()
    f.green(f.edge + 0.8, garden, 0.6, 3.0)
    f.green(garden + depth + 1.0, 45.0, 1.5, 2.0)
    for end in (-9.9, 9.9):  # between the gardens
        kind = r.random()
        deep = garden + depth - f.edge
        if kind < 0.3:
            item = vg.green_hedge(r, deep, r.uniform(0.8, 2.0))
        elif kind < 0.55:
            item = st.fence(r, deep)
        else:
            continue
        f.put(item, end, f.edge + 0.8 + 0.5 * deep, 0.5 * math.pi, 0.8, 0.5 * deep)
    f.clutter(0.5, f.edge + 0.3, garden - 0.5)
    f.sheds(0.25, garden + depth + 3.0, garden + depth + 12.0)
    drive = f.driveway(garden - f.kerb + 4.0)
    if drive is not None and r.random() < f.style.parked:
        item = ve.car(r) if r.random() < 0.93 else ve.trailer(r)
        f.put(item, drive, f.edge + 3.2, r.choice((0.5, -0.5)) * math.pi, 1.0)


def _park(f: Frontage) -> None:
    r = f.r
    f.green(f.edge + 0.8, f.edge + 9.0, 1.8, 1.8)
    f.green(f.edge + 10.0, 65.0, 3.0, 2.5)
    if r.random() < 0.3:
        f.enclose()
    for _ in range(times(r, 0.6)):
        f.path()
    if r.random() < 0.4:
        f.seat(f.edge + 0.6, f.edge + 6.0)
    f.clutter(0.25, f.edge + 0.3, f.edge + 8.0)
    f.scatter(lambda: fu.pole(r), 0.2 * f.style.poles, f.edge + 0.5, f.edge + 14.0)
    if r.random() < 0.25:
        f.put(st.building(r, 20.0, 12.0, 9.0), 0.0, r.uniform(40.0, 62.0), f.out, 6.0, 10.0)
    f.sheds(0.2, f.edge + 5.0, f.edge + 25.0)
    f.people(0.3, f.edge + 1.0, f.edge + 15.0)


def _thicket(f: Frontage) -> None:
    r = f.r
    near = f.edge + r.uniform(0.4, 4.0)
    f.green(near, near + 4.0, 2.0, 0.0)
    f.scatter(
        lambda: vg.bush(r, r.uniform(0.6, 2.4)), 8.0 * f.style.greenery, near, near + 5.0, 1.0
    )
    f.green(near + 2.0, near + 16.0, 4.0, 5.0)


def _field(f: Frontage) -> None:
    f.green(f.edge + 1.0, 60.0, 0.5, 1.0)
    f.scatter(lambda: vg.tall_grass(f.r), 4.0 * f.style.rough_grass, f.edge + 0.5, f.edge + 25.0)
    if f.r.random() < 0.4:
        f.enclose()
    if f.r.random() < 0.3:
        f.path()


def _car_park(f: Frontage) -> None:
    r = f.r
    angle = r.choice((0.5, 0.5, 0.5, 0.35, 0.28)) * math.pi
    pitch = 2.75 / math.sin(angle)
    for row in (f.edge + 3.5, f.edge + 14.0):
        at = -9.0
        while at < 9.0:
            if r.random() < f.style.parked:
                turn = r.choice((0.0, math.pi)) + angle + r.gauss(0.0, 0.03)
                item = ve.car(r) if r.random() < 0.95 else ve.trailer(r)
                f.put(item, at, row + r.gauss(0.0, 0.15), turn, 1.0)
            at += pitch
    f.clutter(0.4, f.edge + 0.4, f.edge + 1.0)
    f.sheds(0.25, f.edge + 19.0, f.edge + 26.0)
    f.green(f.edge + 18.0, 50.0, 1.0, 2.0)
    if r.random() < 0.5:
        f.put(st.building(r, 20.0, 14.0, 7.0), 0.0, f.edge + 32.0, f.out, 4.0, 10.0)


def _plaza(f: Frontage) -> None:
    r = f.r
    depth = r.uniform(8.0, 14.0)
    setback = f.edge + r.uniform(6.0, 18.0)
    item = st.building(r, CHUNK, depth, 3.1 * f.style.storeys)
    f.put(item, 0.0, setback + 0.5 * depth, f.out, 3.0, 10.0)
    f.green(f.edge + 1.0, setback - 1.5, 1.0, 0.4)
    if setback - f.edge > 10.0:
        f.sheds(0.25, f.edge + 4.5, setback - 4.0)
    f.people(0.8, f.edge + 0.8, setback - 1.0)
    f.scatter(lambda: fu.pole(r), 0.7, f.edge, setback - 1.0)
    f.clutter(0.8, f.edge + 0.6, setback - 0.8)
    for _ in range(times(r, 0.6)):
        f.seat(f.edge + 0.8, setback - 0.8)


def _yard_wall(f: Frontage) -> None:
    r = f.r
    f.put(st.wall(r, CHUNK), 0.0, f.edge + 0.3, 0.0, 0.8, 10.0)
    f.green(f.edge + 1.5, f.edge + 12.0, 1.0, 2.5)
    f.sheds(0.2, f.edge + 3.0, f.edge + 7.0)
    if r.random() < 0.6:
        item = st.building(r, 16.0, 10.0, 7.0)
        f.put(item, 0.0, f.edge + r.uniform(9.0, 16.0), f.out, 4.0, 8.0)


def _horizon(f: Frontage) -> None:
    """What closes the view where nothing nearer does: woods, tree lines, buildings."""
    r = f.r
    kind = r.random()
    away = r.uniform(32.0, 70.0)
    if kind < 0.5:
        for _ in range(4):
            low = r.uniform(0.2, 1.5)
            item = vg.tree(r, r.uniform(1.0, 1.9), low, bare=r.random() < f.style.bare)
            f.put(item, r.uniform(-10, 10), away + r.uniform(-4, 8), 0.0, 4.0)
            f.put(vg.bush(r, r.uniform(1.0, 2.6)), r.uniform(-10, 10), away, 0.0, 4.0)
    elif kind < 0.94:
        item = st.building(r, r.uniform(12.0, 20.0), 12.0, r.uniform(5.0, 14.0))
        f.put(item, 0.0, away + 6.0, f.out + r.choice((0.0, 0.3, -0.3)), 8.0, 10.0)


#: In the order of ``style.PLOTS``.
_KINDS: Final[dict[str, Callable[[Frontage], None]]] = {
    "block": _block,
    "houses": _houses,
    "park": _park,
    "thicket": _thicket,
    "field": _field,
    "car park": _car_park,
    "plaza": _plaza,
    "yard wall": _yard_wall,
}


def fill_plot(f: Frontage, kind: str) -> None:
    """Everything behind the pavement, out to the horizon; ``kind`` is one of ``style.PLOTS``."""
    _KINDS[kind](f)
    _horizon(f)
