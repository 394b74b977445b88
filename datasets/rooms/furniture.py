"""Tables, seats, beds, shelves and cabinets, each from a random source and the look of a room."""

from __future__ import annotations

import math
from random import Random

from perception.datasets.rooms import distance as ds
from perception.datasets.rooms.look import Look
from perception.datasets.rooms.shapes import Item

__all__ = [
    "armchair",
    "bed",
    "bookshelf",
    "chair",
    "coffee_table",
    "counter",
    "desk",
    "dining_table",
    "drawers",
    "fridge",
    "hanging_cabinet",
    "nightstand",
    "office_chair",
    "sideboard",
    "sofa",
    "stool",
    "wardrobe",
]


def dining_table(r: Random, look: Look, length: float, width: float, *, round_: bool) -> Item:
    """A table with its length along y; round ones are ``length`` across."""
    item = Item("table", r)
    high = r.uniform(0.72, 0.77)
    thick = r.uniform(0.022, 0.045)
    top = look.body()
    base = r.choice((top, look.metal, look.dark, look.white))
    z = high - 0.5 * thick
    if round_:
        radius = 0.5 * length
        item.cylinder(top, radius, thick, (0, 0, z), edge=r.choice((0.0, 0.01)))
        if r.random() < 0.6:
            item.rod(base, (0, 0, 0.02), (0, 0, high - thick), r.uniform(0.04, 0.07))
            item.cone(base, 0.5 * radius, 0.06, 0.05, (0, 0, 0.026))
        else:
            item.legs(base, 0.6 * radius, 0.6 * radius, high - thick, 0.05, splay=0.05)
        item.tops.append((0.0, 0.0, 0.62 * radius, 0.62 * radius, high))
        return item
    item.box(top, (width, length, thick), (0, 0, z), edge=r.choice((0.0, 0.006)))
    x, y = 0.5 * width - 0.06, 0.5 * length - 0.06
    style = r.random()
    if style < 0.6:
        item.legs(base, x, y, high - thick, r.uniform(0.045, 0.08))
        for s in (-1.0, 1.0):  # apron
            item.box(base, (0.02, 2 * y, 0.07), (s * x, 0, high - thick - 0.035))
            item.box(base, (2 * x, 0.02, 0.07), (0, s * y, high - thick - 0.035))
    elif style < 0.8:
        item.legs(base, x - 0.1, y - 0.15, high - thick, 0.045, splay=0.08)
    else:
        for s in (-1.0, 1.0):
            item.box(base, (width - 0.2, 0.04, high - thick), (0, s * (y - 0.1), 0.5 * high - 0.02))
        item.box(base, (0.03, 2 * (y - 0.1), 0.12), (0, 0, 0.35))
    item.tops.append((0.0, 0.0, 0.5 * width - 0.03, 0.5 * length - 0.03, high))
    return item


def desk(r: Random, look: Look, length: float, width: float) -> Item:
    """A desk with its back at -x; one sits at +x."""
    item = Item("table", r)
    high = r.uniform(0.71, 0.76)
    top = look.body()
    item.box(top, (width, length, 0.028), (0, 0, high - 0.014), edge=0.004)
    under = high - 0.028
    if r.random() < 0.5:
        base = r.choice((look.metal, look.dark, look.white))
        for s in (-1.0, 1.0):
            y = s * (0.5 * length - 0.12)
            item.box(base, (0.06, 0.06, under - 0.03), (-0.05, y, 0.5 * under + 0.015))
            item.box(base, (width - 0.1, 0.06, 0.03), (0, y, 0.015))
        item.box(base, (0.03, length - 0.3, 0.05), (-0.05, 0, under - 0.025))
    else:
        side = r.choice((-1.0, 1.0))
        y = side * (0.5 * length - 0.02)
        item.box(top, (width - 0.04, 0.025, under), (0, -y, 0.5 * under))
        wide = 0.4
        y = side * (0.5 * length - 0.5 * wide - 0.01)
        item.box(top, (width - 0.08, wide, under - 0.03), (0, y, 0.5 * under + 0.015))
        _fronts(item, look, 0.5 * width - 0.04, y, wide, 0.04, under - 0.01, rows=3, columns=1)
        item.box(top, (0.02, length - wide - 0.05, 0.35), (-0.4 * width, -0.5 * side * wide, 0.5))
    item.tops.append((-0.12 * width, 0.0, 0.36 * width, 0.5 * length - 0.04, high))
    return item


def coffee_table(r: Random, look: Look) -> Item:
    """A low table, long along y."""
    item = Item("table", r)
    length, width, high = r.uniform(0.75, 1.25), r.uniform(0.5, 0.65), r.uniform(0.34, 0.46)
    top = look.body()
    base = r.choice((top, look.metal, look.dark))
    if r.random() < 0.3:
        radius = 0.5 * r.uniform(0.7, 0.95)
        item.cylinder(top, radius, 0.03, (0, 0, high - 0.015))
        item.legs(base, 0.5 * radius, 0.5 * radius, high - 0.03, 0.035, splay=0.06)
        item.tops.append((0, 0, 0.6 * radius, 0.6 * radius, high))
        return item
    item.box(top, (width, length, 0.03), (0, 0, high - 0.015), edge=r.choice((0.0, 0.008)))
    x, y = 0.5 * width - 0.05, 0.5 * length - 0.05
    if r.random() < 0.5:
        item.legs(base, x, y, high - 0.03, 0.05)
        item.box(top, (width - 0.1, length - 0.1, 0.02), (0, 0, 0.14))
    else:
        item.legs(base, x - 0.06, y - 0.1, high - 0.03, 0.04, splay=0.05)
    item.tops.append((0, 0, 0.5 * width - 0.03, 0.5 * length - 0.03, high))
    return item


class ChairStyle:
    """Chairs of a set are alike: what they share, drawn once."""

    def __init__(self, r: Random, look: Look) -> None:
        self.frame = r.choice((look.wood(0), look.wood(1), look.dark, look.white, look.chrome))
        self.seat = r.choice((look.cloth(r.randrange(4)), self.frame, look.paint()))
        self.kind = r.choice(("panel", "slats", "rungs", "shell"))
        self.seat_high = r.uniform(0.44, 0.47)
        self.top = r.uniform(0.8, 1.0)
        self.width = r.uniform(0.4, 0.46)
        self.lean = r.uniform(0.08, 0.2)


def chair(r: Random, look: Look, style: ChairStyle) -> Item:
    """A dining chair."""
    item = Item("chair", r)
    w, h = style.width, style.seat_high
    x = 0.5 * w - 0.025
    depth = w + 0.01
    item.box(style.seat, (depth, w, 0.045), (0, 0, h - 0.0225), edge=0.015)
    if style.kind == "shell":
        item.legs(style.frame, x - 0.08, x - 0.08, h - 0.045, 0.03, splay=0.09)
    else:
        item.legs(style.frame, x, x, h - 0.045, 0.035)
    rise = style.top - h
    a = style.lean
    foot = (-x, h - 0.02)

    def on_back(t: float) -> tuple[float, float]:
        """Along the back from the seat (0) to its top (1): x, z."""
        return foot[0] - math.sin(a) * t * rise, foot[1] + math.cos(a) * t * rise

    if style.kind != "shell":
        for s in (-1.0, 1.0):
            bx, bz = on_back(0.5)
            item.box(style.frame, (0.03, 0.035, rise), (bx, s * x, bz), turn=(0, -a, 0))
    if style.kind == "panel":
        bx, bz = on_back(0.62)
        item.box(style.seat, (0.03, w - 0.07, 0.7 * rise), (bx, 0, bz), edge=0.012, turn=(0, -a, 0))
    elif style.kind == "slats":
        bx, bz = on_back(0.55)
        for k in range(4):
            y = (k - 1.5) * (w - 0.1) / 4.0
            item.box(style.frame, (0.015, 0.035, 0.8 * rise), (bx, y, bz), turn=(0, -a, 0))
        bx, bz = on_back(0.95)
        item.box(style.frame, (0.028, w - 0.07, 0.06), (bx, 0, bz), turn=(0, -a, 0))
    elif style.kind == "rungs":
        for t in (0.45, 0.7, 0.94):
            bx, bz = on_back(t)
            item.box(style.frame, (0.02, w - 0.07, 0.06), (bx, 0, bz), turn=(0, -a, 0))
    else:
        bx, bz = on_back(0.5)
        item.box(style.seat, (0.035, w, rise + 0.04), (bx, 0, bz), edge=0.016, turn=(0, -a, 0))
    return item


def office_chair(r: Random, look: Look, cloth: int) -> Item:
    """A swivel chair on five castors."""
    item = Item("chair", r)
    h = r.uniform(0.44, 0.52)
    spin = r.uniform(0, 1.2)
    for k in range(5):
        a = spin + k * 0.4 * math.pi
        c, s = math.cos(a), math.sin(a)
        item.rod(look.dark, (0.03 * c, 0.03 * s, 0.1), (0.29 * c, 0.29 * s, 0.075), 0.02)
        item.cylinder(look.dark, 0.03, 0.04, (0.28 * c, 0.28 * s, 0.03), turn=(a, 0, 0.5 * math.pi))
    item.rod(look.chrome, (0, 0, 0.08), (0, 0, h - 0.07), 0.028)
    item.box(cloth, (0.48, 0.48, 0.09), (0.02, 0, h - 0.045), edge=0.04)
    a = r.uniform(0.08, 0.2)
    rise = r.uniform(0.45, 0.65)
    item.box(
        cloth,
        (0.07, 0.44, rise),
        (-0.25 - 0.5 * rise * math.sin(a), 0, h + 0.06 + 0.5 * rise),
        edge=0.034,
        turn=(0, -a, 0),
    )
    item.box(look.dark, (0.03, 0.08, 0.25), (-0.25, 0, h + 0.02), turn=(0, -a, 0))
    if r.random() < 0.6:
        for s in (-1.0, 1.0):
            item.box(look.dark, (0.05, 0.025, 0.22), (-0.02, s * 0.265, h + 0.06))
            item.box(look.dark, (0.26, 0.06, 0.025), (0, s * 0.265, h + 0.18), edge=0.01)
            item.box(look.dark, (0.05, 0.1, 0.02), (-0.02, s * 0.22, h - 0.05))
    return item


def stool(r: Random, look: Look) -> Item:
    """A round stool or a pouf."""
    item = Item("chair", r)
    if r.random() < 0.5:
        high = r.uniform(0.36, 0.45)
        item.cylinder(look.cushion(), r.uniform(0.2, 0.27), high, (0, 0, 0.5 * high), edge=0.08)
        return item
    high = r.uniform(0.44, 0.5)
    item.cylinder(look.cloth(1), 0.17, 0.05, (0, 0, high - 0.025), edge=0.02)
    item.legs(look.wood(1), 0.09, 0.09, high - 0.05, 0.03, splay=0.06)
    return item


class SofaStyle:
    """A sofa and its armchairs share this."""

    def __init__(self, r: Random, look: Look) -> None:
        self.cloth = look.cloth(0)
        self.deep = r.uniform(0.82, 0.98)
        self.seat = r.uniform(0.38, 0.45)
        self.back = r.uniform(0.72, 0.9)
        self.arm = r.uniform(0.1, 0.22)
        self.arm_high = r.uniform(0.52, 0.64)
        self.legs = r.choice((0.03, 0.06, 0.12))


def sofa(r: Random, look: Look, style: SofaStyle, length: float, *, seats: int) -> Item:
    """A sofa with its back at -x."""
    item = Item("sofa", r)
    d, leg, cloth = style.deep, style.legs, style.cloth
    inner = length - 2.0 * style.arm
    body = style.seat - 0.14
    item.legs(look.dark, 0.5 * d - 0.08, 0.5 * length - 0.1, leg, 0.05)
    item.box(cloth, (d - 0.04, length, body - leg), (0, 0, 0.5 * (body + leg)), edge=0.03)
    back = 0.22
    for s in (-1.0, 1.0):
        y = s * 0.5 * (length - style.arm)
        high = style.arm_high - leg
        item.box(cloth, (d, style.arm, high), (0, y, leg + 0.5 * high), edge=0.05)
    high = style.back - leg
    item.box(cloth, (back - 0.04, length, high), (-0.5 * d + 0.09, 0, leg + 0.5 * high), edge=0.05)
    each = inner / seats
    for k in range(seats):
        y = -0.5 * inner + (k + 0.5) * each
        item.box(
            cloth, (d - back, each - 0.01, 0.15), (0.5 * back, y, style.seat - 0.075), edge=0.05
        )
        item.box(
            cloth,
            (0.18, each - 0.02, 0.44),
            (-0.5 * d + back + 0.05, y, style.seat + 0.2),
            edge=0.07,
            turn=(0, -0.18, 0),
        )
    for s in (-1.0, 1.0):
        if r.random() < 0.65:
            item.box(
                look.cushion(),
                (0.13, 0.4, 0.4),
                (-0.5 * d + back + 0.22, s * (0.5 * inner - 0.22), style.seat + 0.17),
                edge=0.06,
                turn=(-s * r.uniform(0.1, 0.5), -r.uniform(0.3, 0.5), r.uniform(-0.15, 0.15)),
            )
    return item


def armchair(r: Random, look: Look, style: SofaStyle) -> Item:
    """A sofa for one."""
    return sofa(r, look, style, 0.62 + 2.0 * style.arm, seats=1)


def bed(r: Random, look: Look, width: float) -> Item:
    """A bed with its head at -x."""
    item = Item("bed", r)
    length = 2.08
    frame = look.body()
    low, thick = r.uniform(0.24, 0.34), r.uniform(0.16, 0.24)
    sheet = look.palette.add((0.9, 0.89, 0.87), noise=0.08)
    cover = look.cushion() if r.random() < 0.5 else look.cloth(r.randrange(4))
    item.box(frame, (length, width + 0.06, 0.14), (0, 0, low - 0.07), edge=0.01)
    item.legs(frame, 0.5 * length - 0.08, 0.5 * width - 0.05, low - 0.1, 0.07)
    soft = r.random() < 0.4
    head = r.uniform(0.85, 1.2)
    item.box(
        look.cloth(1) if soft else frame,
        (0.09 if soft else 0.045, width + 0.1, head - 0.1),
        (-0.5 * length - 0.02, 0, 0.5 * head + 0.05),
        edge=0.035 if soft else 0.01,
    )
    top = low + thick
    item.box(sheet, (length - 0.08, width, thick), (0.02, 0, low + 0.5 * thick), edge=0.05)
    cover_long = r.uniform(1.25, 1.5)
    hang = r.uniform(0.1, 0.22)
    item.box(
        cover,
        (cover_long, width + 0.07, hang + 0.05),
        (0.5 * length - 0.5 * cover_long + 0.02, 0, top + 0.045 - 0.5 * hang),
        edge=0.045,
    )
    item.box(
        sheet,
        (0.22, width + 0.06, 0.09),
        (0.5 * length - cover_long + 0.04, 0, top + 0.035),
        edge=0.04,
    )
    count = 2 if width > 1.3 else 1
    pillow = r.choice((sheet, cover))
    for k in range(count):
        y = (k - 0.5 * (count - 1)) * 0.5 * width
        item.box(
            pillow,
            (0.42, min(0.68, width / count - 0.08), 0.15),
            (-0.5 * length + 0.27, y, top + 0.08),
            edge=0.07,
            turn=(r.gauss(0, 0.06), -r.uniform(0.1, 0.35), 0),
        )
    return item


def _fronts(
    item: Item,
    look: Look,
    x: float,
    y: float,
    width: float,
    low: float,
    high: float,
    *,
    rows: int,
    columns: int,
    front: int | None = None,
) -> None:
    """Doors or drawers on a face at x, with handles."""
    material = int(item.rows[-1][ds.MATERIAL]) if front is None else front
    wide, tall = width / columns, (high - low) / rows
    knob = item.random.random() < 0.4
    for i in range(rows):
        for j in range(columns):
            cy = y - 0.5 * width + (j + 0.5) * wide
            cz = low + (i + 0.5) * tall
            item.box(material, (0.018, wide - 0.006, tall - 0.006), (x + 0.009, cy, cz))
            if tall > wide * 1.1:  # a door: the handle at the side where two meet
                side = -1.0 if j % 2 else 1.0
                hy, hz = cy + side * (0.5 * wide - 0.05), min(cz + 0.25 * tall, 1.1)
                size = (0.02, 0.015, 0.14)
            else:
                hy, hz, size = cy, cz + 0.2 * tall, (0.02, 0.14, 0.015)
            if knob:
                item.ellipsoid(look.chrome, (0.016, 0.014, 0.014), (x + 0.03, hy, hz))
            else:
                item.box(look.metal, size, (x + 0.03, hy, hz))


def sideboard(r: Random, look: Look, length: float, *, high: float) -> Item:
    """A low cabinet with its back at -x: sideboard, dresser or television stand."""
    item = Item("cabinet", r)
    deep = r.uniform(0.38, 0.48)
    leg = r.choice((0.0, 0.08, 0.15))
    body = look.body()
    if leg:
        item.legs(look.dark, 0.5 * deep - 0.05, 0.5 * length - 0.06, leg, 0.035)
    low = leg or 0.001
    item.box(body, (deep, length, high - low), (0, 0, 0.5 * (high + low)))
    columns = max(1, round(length / r.uniform(0.4, 0.6)))
    rows = r.choice((1, 2, 3)) if high > 0.6 else 1
    front = r.choice((body, body, look.paint()))
    _fronts(
        item, look, 0.5 * deep, 0.0, length - 0.04, low + 0.03, high - 0.03,
        rows=rows, columns=columns, front=front,
    )  # fmt: skip
    item.tops.append((0.0, 0.0, 0.5 * deep - 0.03, 0.5 * length - 0.03, high))
    return item


def nightstand(r: Random, look: Look) -> Item:
    """A small cabinet for the side of a bed."""
    return sideboard(r, look, r.uniform(0.4, 0.5), high=r.uniform(0.45, 0.58))


def drawers(r: Random, look: Look) -> Item:
    """A chest of drawers."""
    item = Item("cabinet", r)
    deep, length, high = 0.45, r.uniform(0.6, 1.0), r.uniform(0.75, 1.15)
    body = look.body()
    item.box(body, (deep, length, high), (0, 0, 0.5 * high + 0.001))
    front = r.choice((body, look.paint()))
    _fronts(
        item, look, 0.5 * deep, 0.0, length - 0.03, 0.06, high - 0.03,
        rows=r.choice((3, 4, 5)), columns=r.choice((1, 2)), front=front,
    )  # fmt: skip
    item.tops.append((0.0, 0.0, 0.5 * deep - 0.03, 0.5 * length - 0.03, high + 0.001))
    return item


def wardrobe(r: Random, look: Look) -> Item:
    """A tall cabinet with doors."""
    item = Item("cabinet", r)
    columns = r.choice((2, 2, 3, 4))
    length, high, deep = columns * r.uniform(0.45, 0.55), r.uniform(1.85, 2.2), 0.6
    body = look.body()
    item.box(body, (deep, length, high), (0, 0, 0.5 * high + 0.001))
    front = r.choice((body, body, look.paint()))
    _fronts(
        item, look, 0.5 * deep, 0.0, length - 0.02, 0.09, high - 0.02,
        rows=1, columns=columns, front=front,
    )  # fmt: skip
    return item


def fridge(r: Random, look: Look) -> Item:
    """A refrigerator."""
    item = Item("cabinet", r)
    body = r.choice((look.white, look.white, look.chrome, look.paint(strong=True)))
    high = r.uniform(1.5, 1.9)
    item.box(body, (0.6, 0.6, high), (0, 0, 0.5 * high + 0.001), edge=0.02)
    split = r.uniform(0.5, 0.75) * high
    for low, top in ((0.06, split - 0.004), (split + 0.004, high - 0.01)):
        middle = 0.5 * (low + top)
        item.box(body, (0.04, 0.59, top - low), (0.325, 0, middle), edge=0.015)
        item.box(look.metal, (0.03, 0.02, 0.6 * (top - low)), (0.36, 0.25, middle))
    return item


def counter(r: Random, look: Look, length: float, front: int, top: int) -> Item:
    """A run of kitchen cabinets with a worktop, a sink and a hob."""
    item = Item("cabinet", r)
    deep, high = 0.6, 0.9
    item.box(look.dark, (deep - 0.08, length - 0.01, 0.1), (-0.03, 0, 0.051))
    basin: list[list[float]] = []
    if length > 1.4:
        y = 0.25 * length * r.choice((-1.0, 1.0))
        basin = item.box(look.chrome, (0.36, 0.46, 0.34), (0.02, y, high), edge=0.04).last()
        item.box(look.chrome, (0.38, 0.48, 0.185), (0.02, y, high - 0.0905), cuts=basin)
        item.rod(look.chrome, (-0.22, y, high), (-0.22, y, high + 0.26), 0.012)
        item.rod(look.chrome, (-0.22, y, high + 0.25), (-0.06, y, high + 0.25), 0.011, round_=True)
        item.box(look.screen, (0.5, 0.56, 0.008), (0, -y, high + 0.004))
        for k in range(4):
            spot = (0.12 * (1 if k & 1 else -1), -y + 0.14 * (1 if k & 2 else -1), high + 0.009)
            item.cylinder(look.metal, 0.085, 0.004, spot)
        item.tops.append((0.05, 0.0, 0.2, 0.25 * length - 0.32, high))
    else:
        item.tops.append((0.0, 0.0, 0.25, 0.5 * length - 0.05, high))
    item.box(top, (deep + 0.02, length, 0.04), (0, 0, high - 0.02), cuts=basin)
    middle = 0.5 * high + 0.03
    item.box(front, (deep - 0.02, length, high - 0.14), (-0.01, 0, middle), cuts=basin)
    columns = max(1, round(length / 0.55))
    _fronts(
        item, look, 0.5 * deep - 0.02, 0.0, length - 0.01, 0.13, high - 0.06,
        rows=1, columns=columns, front=front,
    )  # fmt: skip
    return item


def hanging_cabinet(r: Random, look: Look, length: float, front: int) -> Item:
    """Kitchen cabinets to hang above a counter, their underside at z = 0."""
    item = Item("cabinet", r)
    item.box(front, (0.3, length, 0.62), (0, 0, 0.31))
    _fronts(
        item, look, 0.15, 0.0, length, 0.01, 0.61,
        rows=1, columns=max(1, round(length / 0.5)), front=front,
    )  # fmt: skip
    return item


def bookshelf(r: Random, look: Look, length: float, high: float) -> Item:
    """Shelves full of books and things, with its back at -x."""
    item = Item("bookshelf", r)
    deep = r.uniform(0.26, 0.34)
    wood = look.body()
    board = 0.022
    for s in (-1.0, 1.0):
        item.box(wood, (deep, board, high), (0, s * 0.5 * (length - board), 0.5 * high + 0.001))
    item.box(
        wood, (0.008, length - 2 * board, high - 0.04), (-0.5 * deep + 0.004, 0, 0.5 * high + 0.02)
    )
    count = max(2, round(high / r.uniform(0.3, 0.42)))
    pitch = (high - 0.05 - board) / count
    columns = max(1, round(length / 0.85))
    wide = (length - board) / columns
    for j in range(1, columns):
        y = -0.5 * length + 0.5 * board + j * wide
        item.box(wood, (deep - 0.01, board, high - 0.03), (0.004, y, 0.5 * high))
    covers = [look.book() for _ in range(14)]
    fullness = r.uniform(0.55, 0.95)
    for i in range(count + 1):
        z = 0.05 + i * pitch
        item.box(wood, (deep - 0.008, length - 2 * board, board), (0.004, 0, z + 0.5 * board))
        if i == count:
            break
        for j in range(columns):
            left = -0.5 * length + board + j * wide
            _fill_shelf(
                item, look, covers, left, left + wide - board, z + board, pitch - board, deep,
                fullness,
            )  # fmt: skip
    item.tops.append(
        (0.0, 0.0, 0.5 * deep - 0.03, 0.5 * length - 0.05, 0.05 + count * pitch + board)
    )
    return item


def _fill_shelf(
    item: Item,
    look: Look,
    covers: list[int],
    left: float,
    right: float,
    z: float,
    room: float,
    deep: float,
    fullness: float,
) -> None:
    """Books upright and lying, boxes and gaps between y = left and right on a board at z."""
    r = item.random
    y = left + 0.004
    back = -0.5 * deep + 0.015
    tall = min(room - 0.03, r.uniform(0.2, 0.3))
    while y < right - 0.03:
        kind = r.random()
        if kind > fullness:
            gap = min(r.uniform(0.08, 0.3), right - y)
            if gap > 0.14 and r.random() < 0.45:
                middle = (0.0, y + 0.5 * gap, z)
                if r.random() < 0.5:
                    radius = min(0.06, 0.4 * gap)
                    item.cone(look.ceramic(), 0.7 * radius, radius, 0.14, (0, middle[1], z + 0.07))
                else:
                    size = min(0.22, gap - 0.02)
                    item.box(
                        look.paint(),
                        (0.8 * deep, size, 0.7 * room),
                        (0, middle[1], z + 0.35 * room),
                    )
            y += gap
        elif kind > 0.9 * fullness and right - y > 0.26:
            h = 0.0
            for _ in range(r.randrange(2, 5)):
                thick = r.uniform(0.015, 0.04)
                if h + thick > room - 0.03:
                    break
                book = (r.uniform(0.14, 0.19), r.uniform(0.18, 0.24), thick)
                at = (back + 0.5 * book[0], y + 0.125, z + h + 0.5 * thick)
                item.box(r.choice(covers), book, at, turn=(r.gauss(0, 0.03), 0, 0))
                h += thick
            y += 0.26
        else:
            for _ in range(r.randrange(3, 10)):
                thick = r.uniform(0.012, 0.045)
                if y + thick > right - 0.004:
                    return
                h = min(tall * r.uniform(0.78, 1.1), room - 0.015)
                d = min(0.68 * h, deep - 0.03) * r.uniform(0.9, 1.0)
                at = (back + 0.5 * d, y + 0.5 * thick, z + 0.5 * h)
                item.box(r.choice(covers), (d, thick - 0.001, h), at)
                y += thick
