"""Smaller things: lamps, plants, pictures, people, and what lies about."""

from __future__ import annotations

import math
from random import Random

from perception.datasets.rooms import texture as tx
from perception.datasets.rooms.look import Look
from perception.datasets.rooms.shapes import Item, hsv

__all__ = [
    "SMALL",
    "basket",
    "board",
    "book_pile",
    "ceiling_lamp",
    "curtain",
    "floor_lamp",
    "monitor",
    "person",
    "picture",
    "plant",
    "pot_plant",
    "radiator",
    "small_thing",
    "table_lamp",
    "television",
]


def floor_lamp(r: Random, look: Look) -> Item:
    """A lamp on a pole."""
    item = Item("lamp", r)
    high = r.uniform(1.4, 1.75)
    metal = r.choice((look.dark, look.chrome, look.metal))
    item.cylinder(metal, r.uniform(0.12, 0.16), 0.025, (0, 0, 0.0125))
    item.rod(metal, (0, 0, 0.02), (0, 0, high - 0.1), 0.012)
    low, top = r.uniform(0.16, 0.22), r.uniform(0.1, 0.16)
    item.cone(look.glowing(r.uniform(0.5, 0.9), 0.3), low, top, 0.26, (0, 0, high - 0.13))
    return item


def table_lamp(r: Random, look: Look) -> Item:
    """A lamp to stand on something."""
    item = Item("lamp", r)
    foot = look.ceramic()
    high = r.uniform(0.14, 0.24)
    if r.random() < 0.5:
        item.ellipsoid(foot, (0.07, 0.07, 0.5 * high), (0, 0, 0.5 * high))
        item.cylinder(foot, 0.05, 0.02, (0, 0, 0.01))
    else:
        item.cone(foot, 0.07, 0.03, high, (0, 0, 0.5 * high))
    item.rod(look.metal, (0, 0, high - 0.01), (0, 0, high + 0.05), 0.008)
    shade = look.glowing(r.uniform(0.5, 0.9), 0.3)
    item.cone(shade, r.uniform(0.11, 0.15), r.uniform(0.07, 0.11), 0.17, (0, 0, high + 0.12))
    return item


def ceiling_lamp(r: Random, look: Look, drop: float) -> Item:
    """A lamp below the ceiling (z = 0 is its lowest point), ``drop`` metres down to it."""
    item = Item("lamp", r)
    glow = look.glowing(r.uniform(1.0, 1.2))
    if drop < 0.2:
        if r.random() < 0.5:
            item.cylinder(glow, r.uniform(0.16, 0.24), drop, (0, 0, 0.5 * drop), edge=0.3 * drop)
        else:
            item.box(look.white, (0.3, 1.2, 0.5 * drop), (0, 0, 0.75 * drop))
            item.box(glow, (0.26, 1.16, 0.5 * drop), (0, 0, 0.26 * drop), edge=0.01)
        return item
    item.rod(look.dark, (0, 0, 0.15), (0, 0, drop), 0.006)
    item.cylinder(look.dark, 0.05, 0.03, (0, 0, drop - 0.015))
    if r.random() < 0.5:
        item.ellipsoid(glow, (0.15, 0.15, 0.15), (0, 0, 0.15))
    else:
        shade = look.paint()
        item.cone(shade, 0.22, 0.05, 0.17, (0, 0, 0.115))
        item.ellipsoid(glow, (0.06, 0.06, 0.05), (0, 0, 0.05))
    return item


def plant(r: Random, look: Look, high: float) -> Item:
    """A plant in a pot, ``high`` metres with its leaves."""
    item = Item("plant", r)
    pot = 0.22 * high + 0.05
    radius = 0.11 * high + 0.05
    shade = look.ceramic()
    hole = item.cone(look.soil, 0.9 * radius, 0.9 * radius, 0.3 * pot, (0, 0, pot)).last()
    item.cone(shade, 0.72 * radius, radius, pot, (0, 0, 0.5 * pot), cuts=hole)
    item.cylinder(look.soil, 0.86 * radius, 0.02, (0, 0, 0.84 * pot))
    green = look.leaves()
    kind = r.random()
    if kind < 0.4:  # broad leaves on stems
        for k in range(int(7 + 9 * r.random())):
            a, lean = 2.4 * k + r.gauss(0, 0.2), r.uniform(0.15, 0.75)
            up = (high - pot) * r.uniform(0.45, 0.85)
            out = up * math.sin(lean) * 0.7 + 0.02
            c, s = math.cos(a), math.sin(a)
            tip = (out * c, out * s, 0.84 * pot + up)
            item.rod(green, (0.02 * c, 0.02 * s, 0.8 * pot), tip, 0.006)
            size = high * r.uniform(0.11, 0.17)
            at = (tip[0] + 0.7 * size * c, tip[1] + 0.7 * size * s, tip[2])
            droop = r.uniform(-0.1, 0.6)
            item.ellipsoid(green, (size, 0.6 * size, 0.008), at, turn=(a, droop, r.gauss(0, 0.3)))
    elif kind < 0.75:  # long leaves out of the earth
        for k in range(int(12 + 10 * r.random())):
            a, lean = 2.4 * k + r.gauss(0, 0.3), r.uniform(0.05, 0.6)
            long = (high - 0.8 * pot) * r.uniform(0.6, 1.0)
            half = 0.5 * long
            s = math.sin(lean)
            at = (half * s * math.cos(a), half * s * math.sin(a), 0.8 * pot + half * math.cos(lean))
            item.ellipsoid(green, (0.006, 0.028 + 0.02 * high, half), at, turn=(a, lean, 0))
    else:  # a small tree
        crown = 0.2 * high + 0.05
        bark = look.wood(1)
        item.rod(bark, (0, 0, 0.8 * pot), (0.01, 0, high - crown), 0.015)
        for k in range(int(30 + 20 * r.random())):
            a, e = 2.4 * k, math.asin(r.uniform(-0.9, 0.95))
            d = crown * r.uniform(0.45, 0.85)
            size = 0.05 + 0.04 * high
            at = (
                d * math.cos(a) * math.cos(e),
                d * math.sin(a) * math.cos(e),
                high - crown + d * math.sin(e),
            )
            turn = (a, r.uniform(-0.6, 0.9), r.gauss(0, 0.5))
            item.ellipsoid(green, (size, 0.45 * size, 0.006), at, turn=turn)
    return item


def pot_plant(r: Random, look: Look) -> Item:
    """A plant for a table or a sill."""
    return plant(r, look, r.uniform(0.2, 0.38))


def picture(r: Random, look: Look, width: float, height: float) -> Item:
    """A framed picture; its back is the plane x = 0, its lower edge z = 0."""
    item = Item("picture", r)
    frame = r.choice((look.dark, look.wood(1), look.white, look.wood(0)))
    edge = r.uniform(0.015, 0.045)
    z = 0.5 * height
    for s in (-1.0, 1.0):
        item.box(frame, (0.028, edge, height), (0.014, s * 0.5 * (width - edge), z))
        at = (0.014, 0, z + s * 0.5 * (height - edge))
        item.box(frame, (0.028, width - 2 * edge, edge), at)
    inner = (width - 2 * edge, height - 2 * edge)
    if r.random() < 0.4:
        item.box(look.white, (0.014, *inner), (0.007, 0, z))
        inner = (0.72 * inner[0], 0.72 * inner[1])
        item.box(look.picture(), (0.016, *inner), (0.008, 0, z))
    else:
        item.box(look.picture(), (0.016, *inner), (0.008, 0, z))
    return item


def board(r: Random, look: Look, width: float) -> Item:
    """A whiteboard or a pinboard."""
    item = Item("picture", r)
    height = r.uniform(0.9, 1.2)
    z = 0.5 * height
    face = look.white
    if r.random() < 0.3:
        face = look.palette.add((0.72, 0.55, 0.36), noise=0.3)
    item.box(look.metal, (0.02, width, height), (0.01, 0, z))
    item.box(face, (0.024, width - 0.04, height - 0.04), (0.012, 0, z))
    if face == look.white:
        item.box(look.metal, (0.06, 0.5 * width, 0.015), (0.05, 0, 0.01))
        for k in range(3):
            pen = look.paint(strong=True)
            y = 0.2 * width * (k - 1) * r.random()
            item.rod(pen, (0.055, y - 0.06, 0.025), (0.055, y + 0.06, 0.025), 0.008)
        for _ in range(r.randrange(0, 4)):
            note = look.paint(strong=True)
            at = (0.025, r.uniform(-0.4, 0.4) * width, z + r.uniform(-0.3, 0.35) * height)
            item.box(note, (0.002, 0.08, 0.08), at, turn=(0, 0, r.gauss(0, 0.06)))
    else:
        for _ in range(r.randrange(4, 10)):
            sheet = r.choice((look.white, look.picture(), look.paint()))
            at = (0.025, r.uniform(-0.4, 0.4) * width, z + r.uniform(-0.33, 0.33) * height)
            size = r.uniform(0.1, 0.2)
            item.box(sheet, (0.004, size, 1.3 * size), at, turn=(0, 0, r.gauss(0, 0.05)))
    return item


def radiator(r: Random, look: Look, width: float) -> Item:
    """A radiator; its back is at x = 0, hung 0.12 m above the floor."""
    item = Item("clutter", r)
    high = 0.55
    count = max(4, int(width / 0.08))
    item.box(look.white, (0.03, width, high - 0.06), (0.05, 0, 0.12 + 0.5 * high))
    for k in range(count):
        y = -0.5 * width + (k + 0.5) * width / count
        item.cylinder(look.white, 0.03, high, (0.065, y, 0.12 + 0.5 * high), edge=0.02)
    return item


def curtain(r: Random, look: Look, cloth: int, high: float, width: float) -> Item:
    """A gathered curtain hanging from z = ``high`` nearly to the floor, its back at x = 0."""
    item = Item("window", r)
    low = 0.03
    folds = max(3, int(width / 0.07))
    for k in range(folds):
        y = -0.5 * width + (k + 0.5) * width / folds
        x = 0.05 + (0.012 if k & 1 else -0.012)
        item.cylinder(
            cloth, 0.55 * width / folds, high - low, (x, y, 0.5 * (high + low)), edge=0.012
        )
    return item


def person(r: Random, look: Look, *, sitting: bool) -> Item:
    """Somebody standing, or sitting on a seat 0.46 m high whose middle is the origin."""
    item = Item("person", r)
    skin = look.skin()
    shirt = look.cushion() if r.random() < 0.3 else look.paint()
    trousers = look.palette.add(hsv(0.6, r.uniform(0.1, 0.5), r.uniform(0.15, 0.5)), noise=0.15)
    hair = look.palette.add((r.uniform(0.05, 0.5), r.uniform(0.05, 0.3), 0.06), noise=0.2)
    k = r.uniform(0.94, 1.06)
    hip = 0.58 if sitting else 0.92 * k
    lean = 0.0
    for s in (-1.0, 1.0):
        y = 0.1 * s
        if sitting:
            knee, foot = (0.42 * k, 1.2 * y, 0.55), (0.44 * k, 1.2 * y, 0.1)
        else:
            stride = 0.08 * s * r.uniform(0.0, 1.0)
            knee, foot = (0.5 * stride + 0.02, y, 0.48 * k), (stride, y, 0.09)
        item.rod(trousers, (0, y, hip), knee, 0.078, round_=True)
        item.rod(trousers, knee, foot, 0.055, round_=True)
        item.box(look.dark, (0.26, 0.095, 0.08), (foot[0] + 0.06, foot[1], 0.041), edge=0.03)
    chest = hip + 0.46 * k
    item.rod(shirt, (lean, 0, hip + 0.09), (lean, 0, chest - 0.1), 0.145, round_=True)
    item.rod(shirt, (lean, -0.14, chest), (lean, 0.14, chest), 0.08, round_=True)
    item.rod(skin, (lean, 0, chest), (lean + 0.01, 0, chest + 0.13), 0.05, round_=True)
    head = chest + 0.24 * k
    item.ellipsoid(skin, (0.095, 0.075, 0.12), (lean + 0.02, 0, head))
    item.ellipsoid(hair, (0.1, 0.085, 0.115), (lean - 0.005, 0, head + 0.03))
    for s in (-1.0, 1.0):
        shoulder = (lean, 0.2 * s, chest - 0.01)
        out = r.uniform(0.02, 0.06)
        elbow = (lean + (0.06 if sitting else 0.0), (0.2 + out) * s, chest - 0.28 * k)
        bend = 0.24 if sitting else r.choice((0.04, 0.08, 0.2))
        hand = (elbow[0] + bend, 0.19 * s, elbow[2] - math.sqrt(0.26**2 - bend**2))
        item.rod(shirt, shoulder, elbow, 0.05, round_=True)
        item.rod(skin, elbow, hand, 0.04, round_=True)
    return item


def television(r: Random, look: Look, width: float) -> Item:
    """A flat screen on its foot."""
    item = Item("clutter", r)
    height = 0.57 * width
    z = 0.06 + 0.5 * height
    face = look.screen if r.random() < 0.6 else look.picture()
    item.box(look.dark, (0.04, width, height), (0, 0, z), edge=0.005)
    item.box(face, (0.042, width - 0.03, height - 0.03), (0.001, 0, z))
    item.box(look.dark, (0.16, 0.35 * width, 0.015), (0, 0, 0.008))
    item.box(look.dark, (0.04, 0.08, 0.08), (-0.01, 0, 0.045))
    return item


def monitor(r: Random, look: Look) -> Item:
    """A screen with its keyboard before it (+x)."""
    item = television(r, look, r.uniform(0.5, 0.65))
    for row in item.rows[:2]:
        row[2] += 0.08
    item.box(look.dark, (0.03, 0.05, 0.2), (-0.02, 0, 0.11))
    keys = r.choice((look.dark, look.white))
    item.box(keys, (0.13, 0.42, 0.018), (0.27, 0, 0.01), edge=0.004)
    item.box(keys, (0.1, 0.06, 0.03), (0.27, -0.3, 0.016), edge=0.014)
    return item


def laptop(r: Random, look: Look) -> Item:
    """An open laptop, its screen at -x."""
    item = Item("clutter", r)
    body = r.choice((look.metal, look.dark, look.chrome))
    item.box(body, (0.23, 0.33, 0.018), (0, 0, 0.01), edge=0.004)
    a = r.uniform(0.1, 0.4)
    at = (-0.115 - 0.11 * math.sin(a), 0, 0.02 + 0.11 * math.cos(a))
    item.box(body, (0.008, 0.33, 0.22), at, turn=(0, -a, 0))
    face = look.picture() if r.random() < 0.6 else look.screen
    at = (at[0] + 0.0035, 0, at[2] + 0.002)
    item.box(face, (0.004, 0.31, 0.2), at, turn=(0, -a, 0))
    return item


def book_pile(r: Random, look: Look) -> Item:
    """One to five books on top of each other."""
    item = Item("clutter", r)
    z = 0.0005
    for _ in range(r.randrange(1, 6)):
        thick = r.uniform(0.012, 0.045)
        size = (r.uniform(0.13, 0.2), r.uniform(0.19, 0.28), thick)
        item.box(look.book(), size, (0, 0, z + 0.5 * thick), turn=(r.gauss(0, 0.15), 0, 0))
        z += thick + 0.0005
    return item


def mug(r: Random, look: Look) -> Item:
    """A mug with a handle."""
    item = Item("clutter", r)
    glaze = look.ceramic()
    radius, high = r.uniform(0.035, 0.045), r.uniform(0.08, 0.11)
    hole = item.cylinder(glaze, radius - 0.005, high, (0, 0, 0.5 * high + 0.008)).last()
    item.cylinder(glaze, radius, high, (0, 0, 0.5 * high + 0.0005), edge=0.003, cuts=hole)
    at = (0, radius + 0.008, 0.52 * high)
    item.torus(glaze, 0.026, 0.006, at, turn=(0, 0.5 * math.pi, 0), cuts=hole)
    return item


def bowl(r: Random, look: Look) -> Item:
    """A bowl, perhaps with fruit."""
    item = Item("clutter", r)
    glaze = look.ceramic()
    radius = r.uniform(0.11, 0.16)
    hole = item.ellipsoid(glaze, (0.93 * radius, 0.93 * radius, 0.5 * radius), (0, 0, 0.6 * radius))
    lid = item.box(glaze, (4 * radius, 4 * radius, radius), (0, 0, 1.07 * radius)).last()
    cuts = [*hole.last(), *lid]
    item.ellipsoid(glaze, (radius, radius, 0.57 * radius), (0, 0, 0.58 * radius), cuts=cuts)
    if r.random() < 0.7:
        for k in range(r.randrange(3, 6)):
            skin = look.palette.add(
                r.choice(((0.8, 0.15, 0.1), (0.95, 0.6, 0.1), (0.5, 0.7, 0.15), (0.9, 0.85, 0.2))),
                noise=0.1,
            )
            a = 2.1 * k
            at = (0.38 * radius * math.cos(a), 0.38 * radius * math.sin(a), 0.5 * radius)
            item.ellipsoid(skin, (0.3 * radius, 0.3 * radius, 0.28 * radius), at)
    return item


def vase(r: Random, look: Look) -> Item:
    """A vase, perhaps with flowers."""
    item = Item("clutter", r)
    glaze = look.ceramic()
    high = r.uniform(0.16, 0.3)
    belly = r.uniform(0.05, 0.09)
    item.ellipsoid(glaze, (belly, belly, 0.4 * high), (0, 0, 0.4 * high + 0.0005))
    item.cylinder(glaze, 0.6 * belly, 0.02, (0, 0, 0.0105))
    item.cone(glaze, 0.35 * belly, 0.55 * belly, 0.4 * high, (0, 0, 0.8 * high))
    if r.random() < 0.6:
        green = look.leaves()
        petal = look.paint(strong=True)
        for k in range(r.randrange(4, 9)):
            a, out = 2.4 * k, r.uniform(0.02, 0.1)
            tip = (out * math.cos(a), out * math.sin(a), high + r.uniform(0.1, 0.22))
            item.rod(green, (0, 0, high - 0.02), tip, 0.004)
            item.ellipsoid(petal, (0.03, 0.03, 0.018), tip, turn=(a, 0.5, 0))
    return item


def carton(r: Random, look: Look) -> Item:
    """A parcel or a box."""
    item = Item("clutter", r)
    brown = look.palette.add((0.72, 0.55, 0.38), noise=0.1)
    paper = r.choice((brown, look.paint(), look.cushion()))
    size = (r.uniform(0.12, 0.35), r.uniform(0.15, 0.4), r.uniform(0.08, 0.3))
    item.box(paper, size, (0, 0, 0.5 * size[2] + 0.0005))
    if paper == brown:
        item.box(look.white, (size[0], 0.05, 0.001), (0, 0, size[2] + 0.001))
    return item


def bottle(r: Random, look: Look) -> Item:
    """A bottle with a label."""
    item = Item("clutter", r)
    glass = look.palette.add(r.choice(((0.1, 0.3, 0.15), (0.35, 0.18, 0.08), (0.6, 0.75, 0.8))))
    item.cylinder(glass, 0.037, 0.19, (0, 0, 0.0955), edge=0.012)
    item.cone(glass, 0.036, 0.014, 0.05, (0, 0, 0.205))
    item.cylinder(glass, 0.014, 0.08, (0, 0, 0.255))
    item.cylinder(look.paint(), 0.0375, 0.07, (0, 0, 0.09))
    return item


def toy(r: Random, look: Look) -> Item:
    """A ball or a pile of blocks."""
    item = Item("clutter", r)
    if r.random() < 0.5:
        radius = r.uniform(0.04, 0.1)
        item.ellipsoid(look.cushion(), (radius, radius, radius), (0, 0, radius + 0.0005))
        return item
    z = 0.0005
    for _ in range(r.randrange(2, 5)):
        a = r.uniform(0.04, 0.07)
        turn = (r.uniform(0, 1.5), 0.0, 0.0)
        item.box(look.paint(strong=True), (a, a, a), (0, 0, z + 0.5 * a), turn=turn)
        z += a + 0.0005
    return item


def small_frame(r: Random, look: Look) -> Item:
    """A photograph on its stand."""
    item = Item("clutter", r)
    w, h = r.choice(((0.13, 0.18), (0.18, 0.13), (0.2, 0.25)))
    frame = r.choice((look.dark, look.wood(1), look.chrome))
    a = 0.2
    z = 0.5 * h * math.cos(a) + 0.005
    item.box(frame, (0.015, w, h), (0, 0, z), turn=(0, -a, 0))
    at = (0.0085 * math.cos(a), 0, z + 0.0085 * math.sin(a))
    item.box(look.picture(), (0.002, w - 0.03, h - 0.03), at, turn=(0, -a, 0))
    return item


def basket(r: Random, look: Look) -> Item:
    """An open bin or basket for the floor."""
    item = Item("clutter", r)
    weave = look.palette.add(
        (0.65, 0.5, 0.32), (0.45, 0.32, 0.2), pattern=tx.CHECKER, size=0.025, noise=0.15
    )
    skin = r.choice((weave, look.dark, look.metal, look.paint()))
    low, top, high = r.uniform(0.1, 0.15), r.uniform(0.14, 0.2), r.uniform(0.26, 0.42)
    hole = item.cone(skin, low - 0.012, top - 0.012, high, (0, 0, 0.5 * high + 0.016)).last()
    item.cone(skin, low, top, high, (0, 0, 0.5 * high + 0.001), cuts=hole)
    return item


#: What may stand on a top.
SMALL = (book_pile, mug, bowl, vase, carton, bottle, toy, small_frame, laptop)


def small_thing(r: Random, look: Look) -> Item:
    """One of ``SMALL``."""
    return r.choice(SMALL)(r, look)
