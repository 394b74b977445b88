"""Standing things, chunk by chunk: what is put where along 20 metres of street.

A chunk depends on the seed and its index alone, so the street is endless and a sequence may drive
through it; chunks are laid out when a scan first reaches them.
"""

from __future__ import annotations

import math
from random import Random

from perception.datasets.street import objects as ob
from perception.datasets.street import structures as st
from perception.datasets.street.pen import Chunk, Ground, Pen
from perception.datasets.street.plots import Frontage, fill_plot, times
from perception.datasets.street.style import CHUNK, Style

__all__ = ["lay_out"]


def _pavement(f: Frontage) -> None:
    """Trees, poles, people and bicycles on the verge and the pavement."""
    r, style = f.r, f.style
    strip = f.kerb + (0.5 * style.verge if style.verge else 0.45)
    if r.random() < style.street_trees:
        item = ob.tree(r, 0.8 * style.tree_size, r.uniform(2.0, 3.5))
        f.put(item, r.uniform(-9, 9), strip + 0.1, r.uniform(0, 6), 0.3)
    for _ in range(times(r, 0.55 * style.poles)):
        away = strip if r.random() < 0.7 else f.edge - 0.3
        f.put(st.pole(r), r.uniform(-10, 10), away, f.out - 0.5 * math.pi, 0.2)
    if style.pavement > 1.0:
        f.people(0.35, f.edge - style.pavement + 0.3, f.edge)
        for _ in range(times(r, 0.08 * style.people)):
            turn = r.choice((0.0, 1.4, math.pi))
            f.put(ob.bicycle(r), r.uniform(-10, 10), f.edge - 0.5, turn)


def _parking_lane(f: Frontage) -> None:
    """Cars and now and then a delivery van along the kerb."""
    r, style = f.r, f.style
    if not (style.parking_left if f.side > 0 else style.parking_right):
        return
    along = f.x - 10.0 + r.uniform(2.5, 4.0)
    while along < f.x + 8.0:
        if r.random() < style.parked:
            vehicle = ob.car(r) if r.random() < 0.9 else ob.truck(r)
            if vehicle.size is not None and vehicle.size[0] < 7.0:
                turn = (0.0 if r.random() < 0.9 else math.pi) + r.gauss(0.0, 0.02)
                if f.side * style.hand > 0:
                    turn += math.pi
                away = f.kerb - 1.15 + r.gauss(0.0, 0.08)
                f.pen.park(vehicle, along, f.side * away, turn)
                along += 0.5 * max(vehicle.size[0] - 4.5, 0.0)
        along += r.uniform(5.6, 6.6)


def _side_street(pen: Pen, r: Random, kind: str, junction: tuple[float, ...], side: float) -> None:
    """What stands along a side street on one side of the main road, and who waits at its mouth;
    ``kind`` is the plot at the corner."""
    style = pen.style
    cx, skew, half, _, verge, pavement, _ = junction
    turn = 0.5 * math.pi - math.atan(skew)
    walk = half + verge + pavement

    def put(
        item: ob.Item,
        away: float,
        along: float,
        turned: float = 0.0,
        clear: float = 0.2,
        half_length: float = 0.0,
    ) -> None:
        x = cx + skew * side * along + away
        pen.put(item, x, side * along, turn + turned, clear, half_length)

    along = style.half_width + 20.0
    while along < 78.0:
        for flank in (-1.0, 1.0):
            if kind in ("block", "plaza", "yard wall") and r.random() < 0.8:
                depth = r.uniform(8.0, 12.0)
                item = st.building(r, 18.0, depth, 3.1 * style.storeys)
                away = flank * (walk + 1.5 + 0.5 * depth)
                put(item, away, along, math.pi if flank > 0 else 0.0, style.pavement, 9.0)
            elif r.random() < 0.5:
                green = r.random() < 0.6
                item = st.green_hedge(r, 16.0, r.uniform(0.8, 2.0)) if green else st.fence(r, 16.0)
                put(item, flank * (walk + 0.6), along, 0.0, 0.5, 8.0)
                put(ob.tree(r, style.tree_size), flank * (walk + r.uniform(2, 9)), along)
            else:
                for item in (ob.tree(r, style.tree_size), ob.bush(r, r.uniform(0.5, 1.5))):
                    put(item, flank * (walk + r.uniform(1, 6)), along + r.uniform(-8, 8))
            if r.random() < style.parked and half > 3.0:
                put(ob.car(r), flank * (half - 1.1), along, 0.0, -half - 9.0)
            if r.random() < 0.3 * style.poles:
                put(st.pole(r), flank * (half + 0.4), along)
        along += 19.0
    own = style.mouth is not None and style.mouth[0] == cx and style.mouth[2] == side
    if not own and r.random() < 0.6:
        vehicle = ob.car(r) if r.random() < 0.9 else ob.truck(r)
        lane = -side * style.hand * 0.45 * half
        back = style.half_width + r.uniform(5.0, 9.0)
        put(vehicle, lane, back, math.pi if side > 0 else 0.0, -half - 9.0)


def lay_out(style: Style, chunk: int) -> Chunk:
    """The standing things of chunk ``chunk`` (x from 20 chunk to 20 chunk + 20)."""
    r = Random(f"chunk {style.seed} {chunk}")
    ground = Ground.around(style, (chunk + 0.5) * CHUNK)
    pen = Pen(style, ground, base=100_000 + (chunk % 10_000) * 200)
    for side in (1.0, -1.0):
        frontage = Frontage(pen, r, (chunk + 0.5) * CHUNK, side)
        fill_plot(frontage, style.plot(chunk, side))
        _pavement(frontage)
        _parking_lane(frontage)
    for junction in style.junctions(chunk * CHUNK, (chunk + 1) * CHUNK):
        for side in (-1.0, 1.0):
            if junction[3] in (0.0, side):
                _side_street(pen, r, style.plot(chunk, side), junction, side)
    return pen.done()
