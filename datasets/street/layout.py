"""Standing things, chunk by chunk: what is put where along 20 metres of street.

A chunk depends on the seed and its index alone, so the street is endless and a sequence may drive
through it; chunks are laid out when a scan first reaches them.
"""

from __future__ import annotations

import math
from random import Random
from typing import Final

from perception.datasets.street import furniture as fu
from perception.datasets.street import objects as ob
from perception.datasets.street import structures as st
from perception.datasets.street import vegetation as vg
from perception.datasets.street import vehicles as ve
from perception.datasets.street.classes import ROAD
from perception.datasets.street.pen import Chunk, Ground, Pen
from perception.datasets.street.plots import Frontage, fill_plot, times
from perception.datasets.street.style import CHUNK, Style

__all__ = ["lay_out"]

#: Plots that begin without a fence, a wall or a hedge.
OPEN_PLOTS: Final = ("block", "field", "car park", "plaza")


def _pavement(f: Frontage) -> None:
    """Trees, poles, people, bicycles and what else stands on the verge and the pavement."""
    r, style = f.r, f.style
    strip = f.kerb + (0.5 * style.verge if style.verge else 0.45)
    if style.bays is not None and style.bays[0] == f.side:
        strip = f.kerb + style.verge - 0.3
    if style.avenue:
        at = style.avenue * math.ceil((f.x - 10.0) / style.avenue) - f.x
        while at < 10.0:
            kin = Random(f"avenue {style.seed} {f.side} {r.randrange(4)}")
            if r.random() < 0.92:
                item = vg.tree(kin, 0.9 * style.tree_size, kin.uniform(1.8, 3.5), style.bare > 0.4)
                f.put(item, at, strip + 0.1, r.uniform(0, 6), 0.3)
            at += style.avenue
    elif r.random() < style.street_trees:
        f.put(f.tree(0.8, r.uniform(2.0, 3.5)), r.uniform(-9, 9), strip + 0.1, r.uniform(0, 6), 0.3)
    for _ in range(times(r, 0.55 * style.poles)):
        away = strip if r.random() < 0.7 else f.edge + 0.3
        f.put(fu.pole(r), r.uniform(-10, 10), away, f.out - 0.5 * math.pi, 0.2)
    if r.random() < 0.06 * style.poles:
        first, gain = r.uniform(-9, 0), r.uniform(0.7, 1.5)
        for i in range(r.randint(3, 9)):
            f.put(fu.bollard(gain), first + 1.5 * i, f.kerb + 0.35, 0.0, 0.2)
    room = style.furnished
    back = f.edge - 0.4 if room else f.edge + 0.4
    f.people(0.12, back, back + 0.1)
    f.clutter(0.4, back, back + 0.1)
    if room and r.random() < 0.07:
        f.seat(back, back + 0.05)
    if room and r.random() < 0.03:
        at = r.uniform(-7, 7)
        f.put(fu.bus_stop(r), at, f.edge + 0.2, f.out - 0.5 * math.pi)
        f.people(0.5, f.edge + 0.1, f.edge + 0.3)
    for _ in range(times(r, 0.05 + 0.08 * style.people)):
        if not room and style.plot(f.chunk, f.side) not in OPEN_PLOTS:
            break
        at, turn = r.uniform(-9, 9), r.choice((0.0, 1.4, math.pi))
        build = ve.motorcycle if r.random() < 0.25 else ob.bicycle
        deep = 0.9 if turn == 1.4 else 0.4
        for i in range(r.choice((1, 1, 1, 2, 5))):
            step = 0.75 if turn == 1.4 else 2.1
            # Where there is no room in front of fences and hedges, only where none stand.
            f.put(build(r), at + step * i, f.edge + (-deep - 0.1 if room else deep), turn)


def _bays(f: Frontage) -> None:
    """Cars at an angle to the kerb, on a paved verge."""
    r, style = f.r, f.style
    if style.bays is None or style.bays[0] != f.side:
        return
    f.pen.strips.append((f.x, 10.0, f.side, style.verge, float(ROAD), 0.0, 0.0))
    angle = style.bays[1]
    at = -9.0
    while at < 9.5:
        if r.random() < style.parked:
            turn = angle + r.choice((0.0, math.pi)) + r.gauss(0.0, 0.03)
            f.put(ve.car(r), at, f.kerb + 2.6 + r.gauss(0.0, 0.1), turn, 0.4, 2.0)
        at += 2.75 / math.sin(angle)


def _parking_lane(f: Frontage) -> None:
    """Cars and now and then a van, a motorcycle or a trailer along the kerb."""
    r, style = f.r, f.style
    if not (style.parking_left if f.side > 0 else style.parking_right):
        return
    along = f.x - 10.0 + r.uniform(2.5, 4.0)
    # Where there is a verge, wheels go farther up; a pavement stays passable.
    up = min(style.on_kerb, 1.2 if style.verge > 1.3 else 0.4)
    while along < f.x + 8.0:
        if r.random() < style.parked:
            chance = r.random()
            build = ve.car if chance < 0.84 else ve.truck if chance < 0.95 else ve.trailer
            vehicle = build(r)
            if vehicle.size is not None and vehicle.size[0] < 7.0:
                turn = (0.0 if r.random() < 0.9 else math.pi) + r.gauss(0.0, 0.02)
                if f.side * style.hand > 0:
                    turn += math.pi
                away = f.kerb - 0.5 * vehicle.size[1] - 0.15 + up + abs(r.gauss(0.0, 0.08))
                f.pen.park(vehicle, along, f.side * away, turn)
                along += 0.5 * max(vehicle.size[0] - 4.5, 0.0)
        along += r.uniform(5.6, 6.6)


def _side_street(pen: Pen, r: Random, kind: str, junction: tuple[float, ...], side: float) -> None:
    """What stands along a side street on one side of the main road, and who waits at its mouth;
    ``kind`` is the plot at the corner."""
    style = pen.style
    half, verge, pavement = junction[2], junction[4], junction[5]
    walk = half + verge + pavement
    back = 0.0 if side > 0.0 else math.pi

    def put(
        item: ob.Item,
        away: float,
        along: float,
        turned: float = 0.0,
        clear: float = 0.2,
        half_length: float = 0.0,
    ) -> None:
        """``away`` metres beside the centre line, ``along`` metres up the street."""
        x, y, heading = style.on_crossing(junction, side * along, away)
        pen.put_at(item, x, y, heading + turned, clear, half_length)

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
                item = vg.green_hedge(r, 16.0, r.uniform(0.8, 2.0)) if green else st.fence(r, 16.0)
                put(item, flank * (walk + 0.6), along, 0.0, 0.5, 8.0)
                plant = vg.tree(r, style.tree_size, bare=r.random() < style.bare)
                put(plant, flank * (walk + r.uniform(2, 9)), along)
            else:
                plant = vg.tree(r, style.tree_size, bare=r.random() < style.bare)
                for item in (plant, vg.bush(r, r.uniform(0.5, 1.5))):
                    put(item, flank * (walk + r.uniform(1, 6)), along + r.uniform(-8, 8))
            if r.random() < style.parked and style.parked_across(junction):
                with_traffic = flank * style.hand * side > 0.0
                turned = back if with_traffic else back + math.pi
                put(ve.car(r), flank * (half - 1.1), along, turned, -half - 9.0)
            if r.random() < 0.3 * style.poles:
                put(fu.pole(r), flank * (half + 0.4), along)
        along += 19.0


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
        _bays(frontage)
    for junction in style.junctions(chunk * CHUNK, (chunk + 1) * CHUNK):
        for side in (-1.0, 1.0):
            if junction[3] in (0.0, side):
                _side_street(pen, r, style.plot(chunk, side), junction, side)
    return pen.done()
