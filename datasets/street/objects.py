"""What moves or grows in the street: cars, trucks, people, cyclists, trees, bushes.

Every builder draws its proportions from the ``random.Random`` it is given and returns an
``Item``: primitives in the frame of the object (x forward, z up from the ground, origin on the
ground below the centre) and, for what has a box, its length, width and height.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

from perception.datasets.street import classes as k
from perception.datasets.street import materials as m
from perception.datasets.street.shapes import Row, box, crown, cylinder, ellipsoid, spokes

__all__ = ["Item", "bicycle", "bush", "car", "cyclist", "person", "tree", "truck"]


@dataclass(slots=True)
class Item:
    """Primitives of one object and the size (l, w, h) of its box, if it has one."""

    rows: list[Row] = field(default_factory=list)
    size: tuple[float, float, float] | None = None
    label: int = 255


def _paint(r: Random) -> tuple[int, float]:
    """Material and intensity factor of a lacquer; dark lacquers hardly return anything."""
    if r.random() < 0.35:
        return m.DARK_PAINT, r.uniform(0.6, 1.6)
    return m.PAINT, r.uniform(0.5, 1.7)


def car(r: Random) -> Item:
    """A hatchback, saloon, estate, SUV or van."""
    style = r.choice(("hatch", "hatch", "saloon", "estate", "suv", "van"))
    length, width, height = {
        "hatch": (r.uniform(3.5, 4.3), r.uniform(1.62, 1.8), r.uniform(1.42, 1.55)),
        "saloon": (r.uniform(4.3, 4.9), r.uniform(1.72, 1.88), r.uniform(1.38, 1.48)),
        "estate": (r.uniform(4.4, 4.9), r.uniform(1.72, 1.86), r.uniform(1.42, 1.53)),
        "suv": (r.uniform(4.2, 4.8), r.uniform(1.78, 1.95), r.uniform(1.6, 1.78)),
        "van": (r.uniform(4.2, 5.0), r.uniform(1.75, 1.95), r.uniform(1.78, 2.0)),
    }[style]
    paint, gain = _paint(r)
    h = 0.5 * length
    w = width - 0.04
    floor = r.uniform(0.18, 0.26)
    belt = height * r.uniform(0.58, 0.64)
    hood = belt * r.uniform(0.88, 0.96)
    bonnet = length * {"van": r.uniform(0.14, 0.2)}.get(style, r.uniform(0.22, 0.28))
    boot = length * (r.uniform(0.12, 0.17) if style == "saloon" else 0.01)
    shield = h - bonnet  # foot of the windscreen
    rear = -h + boot
    slant = height - belt
    roof = (rear + slant * r.uniform(0.25, 0.9), shield - slant * r.uniform(0.8, 1.5))
    rows = [
        box(k.CAR, paint, (-h, shield), w, (floor, belt), top=(-h + 0.1, shield), top_width=w - 0.06, gain=gain),
        box(k.CAR, paint, (shield - 0.1, h), w, (floor, 0.6 * hood), top=(shield - 0.1, h - 0.04), gain=gain),
        box(
            k.CAR, paint, (shield - 0.1, h - 0.04), w, (0.6 * hood, hood),
            top=(shield - 0.1, h - 0.28), top_width=w - 0.14, gain=gain,
        ),
        box(
            k.CAR, m.CABIN, (rear, shield + 0.05), w - 0.06, (belt, height), top=roof,
            top_width=w * r.uniform(0.72, 0.8), gain=gain,
            extra=(1.0 if paint == m.DARK_PAINT else 0.0, m.PAINT, 0.0, 0.0),
        ),
    ]  # fmt: skip
    wheel = r.uniform(0.29, 0.36)
    for x in (-h + 0.19 * length, h - 0.18 * length):
        for y in (-1.0, 1.0):
            rows.append(
                cylinder(
                    k.CAR,
                    m.TYRE,
                    (x, y * (0.5 * w - 0.2), wheel),
                    (x, y * (0.5 * w + 0.012), wheel),
                    wheel,
                )
            )
    for x, sign in ((h, 1.0), (-h, -1.0)):  # number plates
        rows.append(
            box(
                k.CAR,
                m.PLATE,
                (min(x, x - 0.03 * sign), max(x, x - 0.03 * sign)),
                0.5,
                (0.42, 0.53),
            )
        )
    for y in (-1.0, 1.0):  # mirrors
        rows.append(
            box(
                k.CAR,
                paint,
                (shield - 0.25, shield - 0.08),
                0.18,
                (belt, belt + 0.14),
                y=y * (0.5 * w - 0.07),
                gain=gain,
            )
        )
    return Item(rows, (length, width, height), k.CAR)


def truck(r: Random) -> Item:
    """A delivery van, a lorry with a box or a flat bed, or a bus."""
    style = r.choice(("delivery", "delivery", "lorry", "lorry", "flatbed", "bus"))
    paint, gain = _paint(r)
    if style == "bus":
        length, width, height = r.uniform(9.0, 12.5), r.uniform(2.4, 2.55), r.uniform(2.9, 3.2)
        h = 0.5 * length
        rows = [
            box(k.TRUCK, paint, (-h, h), width, (0.3, 1.15), gain=gain),
            box(
                k.TRUCK,
                m.CABIN,
                (-h, h),
                width,
                (1.15, height),
                gain=gain,
                extra=(0.0, paint, 0.0, 0.0),
            ),
        ]
    elif style == "delivery":
        length, width, height = r.uniform(5.2, 6.8), r.uniform(1.95, 2.15), r.uniform(2.3, 2.8)
        h = 0.5 * length
        nose = r.uniform(0.8, 1.2)
        rows = [
            box(k.TRUCK, paint, (-h, h - nose - 0.9), width, (0.3, height), gain=gain),
            box(k.TRUCK, paint, (h - nose - 0.9, h), width, (0.3, 1.2), top=(h - nose - 0.9, h - 0.15), gain=gain),
            box(
                k.TRUCK, m.CABIN, (h - nose - 0.9, h - 0.3), width - 0.05, (1.2, height - 0.1),
                top=(h - nose - 0.9, h - nose - 0.4), top_width=width - 0.3, gain=gain,
                extra=(0.0, paint, 0.0, 0.0),
            ),
        ]  # fmt: skip
    else:
        length, width, height = r.uniform(6.5, 10.5), r.uniform(2.3, 2.55), r.uniform(2.9, 3.8)
        h = 0.5 * length
        cab = r.uniform(1.7, 2.2)
        rows = [
            box(k.TRUCK, paint, (h - cab, h), width - 0.1, (0.45, 1.5), gain=gain),
            box(
                k.TRUCK, m.CABIN, (h - cab, h), width - 0.1, (1.5, min(height, 2.8)),
                top=(h - cab, h - 0.2), gain=gain, extra=(0.0, paint, 0.0, 0.0),
            ),
            box(k.TRUCK, m.METAL, (-h, h - cab), 0.9, (0.6, 1.0)),
        ]  # fmt: skip
        if style == "lorry":
            rows.append(
                box(
                    k.TRUCK,
                    m.PAINT,
                    (-h, h - cab - 0.25),
                    width,
                    (1.0, height),
                    gain=r.uniform(0.6, 1.8),
                )
            )
        else:
            height = 2.8
            rows.append(box(k.TRUCK, m.WOOD, (-h, h - cab - 0.2), width, (1.0, 1.5)))
    wheel = r.uniform(0.36, 0.5)
    for x in (-h + 0.2 * length, h - 0.14 * length):
        for y in (-1.0, 1.0):
            rows.append(
                cylinder(
                    k.TRUCK,
                    m.TYRE,
                    (x, y * (0.5 * width - 0.3), wheel),
                    (x, y * (0.5 * width - 0.01), wheel),
                    wheel,
                )
            )
    return Item(rows, (length, width, height), k.TRUCK)


def _body(
    rows: list[Row],
    r: Random,
    label: int,
    height: float,
    hip: tuple[float, float],
    lean: float,
    gain: float,
) -> None:
    """Torso, shoulders and head above the hip at (x, z)."""
    x, z = hip
    trunk = 0.30 * height
    top = (x + math.sin(lean) * trunk, z + math.cos(lean) * trunk)
    girth = r.uniform(0.13, 0.18)
    for y in (-0.4, 0.4):
        rows.append(
            cylinder(
                label,
                m.CLOTH,
                (x, y * girth, z - 0.05),
                (top[0], 1.3 * y * girth, top[1]),
                girth,
                gain=gain,
            )
        )
    rows.append(
        ellipsoid(
            label,
            m.CLOTH,
            (top[0] + 0.04, 0.0, min(top[1] + 0.13 * height, height - 0.13)),
            (0.1, 0.085, 0.13),
            gain=1.1,
        )
    )


def person(r: Random, stride: float = 0.0) -> Item:
    """A person, standing (``stride`` 0) or with the legs ``stride`` metres apart."""
    height = r.uniform(1.5, 1.92) if r.random() < 0.88 else r.uniform(1.05, 1.5)
    gain = r.uniform(0.6, 1.4)
    hip = 0.5 * height
    leg = r.uniform(0.07, 0.1)
    rows: list[Row] = []
    for y, side in ((-0.1, -1.0), (0.1, 1.0)):
        foot = 0.5 * side * stride
        rows.append(
            cylinder(
                k.PERSON, m.CLOTH, (foot, y, 0.02), (0.0, y, hip), leg, gain=r.uniform(0.6, 1.2)
            )
        )
        rows.append(box(k.PERSON, m.TYRE, (foot - 0.1, foot + 0.16), 0.1, (0.0, 0.09), y=y))
        arm = -0.6 * foot
        rows.append(
            cylinder(
                k.PERSON,
                m.CLOTH,
                (arm, 2.3 * y, 0.9 * hip),
                (0.0, 2.2 * y, 0.8 * height),
                0.05,
                gain=gain,
            )
        )
    _body(rows, r, k.PERSON, height, (0.0, hip), 0.05, gain)
    if r.random() < 0.3:
        rows.append(
            box(k.PERSON, m.CLOTH, (-0.32, -0.12), 0.3, (hip, hip + 0.4), gain=r.uniform(0.4, 1.5))
        )
    return Item(rows, (max(0.75, stride + 0.35), 0.66, height), k.PERSON)


def _frame(r: Random, label: int) -> list[Row]:
    """A bicycle, wheels on the ground, rolling along x."""
    w = r.uniform(0.32, 0.36)
    b = r.uniform(0.5, 0.54)
    ends = (
        ((-b, 0.0, w), (0.0, 0.0, w)),
        ((0.0, 0.0, w), (-0.15, 0.0, 0.95)),
        ((-b, 0.0, w), (-0.1, 0.0, 0.8)),
        ((0.0, 0.0, w), (0.38, 0.0, 0.85)),
        ((-0.1, 0.0, 0.8), (0.38, 0.0, 0.85)),
        ((b, 0.0, w), (0.36, 0.0, 1.05)),
        ((0.36, -0.28, 1.05), (0.36, 0.28, 1.05)),
    )
    rows = [cylinder(label, m.METAL, a, e, 0.022) for a, e in ends]
    rows += [spokes(label, m.TYRE, (x, 0.0, w), w, 0.35) for x in (-b, b)]
    rows.append(box(label, m.CLOTH, (-0.28, -0.02), 0.16, (0.93, 1.0)))
    return rows


def bicycle(r: Random) -> Item:
    """A parked bicycle."""
    return Item(_frame(r, k.CYCLIST), (1.8, 0.6, 1.1), k.CYCLIST)


def cyclist(r: Random, crank: float = 0.0) -> Item:
    """A person on a bicycle; ``crank`` is the angle of the pedals, radians."""
    rows = _frame(r, k.CYCLIST)
    gain = r.uniform(0.6, 1.4)
    height = r.uniform(1.6, 1.85)
    for y, phase in ((-0.11, crank), (0.11, crank + math.pi)):
        foot = (0.05 + 0.17 * math.cos(phase), y, 0.3 + 0.17 * math.sin(phase))
        knee = (0.28, y, 0.5 * (foot[2] + 1.0) + 0.08)
        rows.append(cylinder(k.CYCLIST, m.CLOTH, foot, knee, 0.06))
        rows.append(cylinder(k.CYCLIST, m.CLOTH, knee, (-0.15, y, 0.98), 0.08))
        rows.append(
            cylinder(
                k.CYCLIST, m.CLOTH, (0.36, 2.0 * y, 1.08), (0.08, 1.8 * y, 1.38), 0.045, gain=gain
            )
        )
    _body(rows, r, k.CYCLIST, height, (-0.15, 1.0), r.uniform(0.2, 0.55), gain)
    return Item(rows, (1.85, 0.66, height), k.CYCLIST)


def tree(r: Random, size: float = 1.0, low: float | None = None) -> Item:
    """A tree: a trunk, sometimes forked, and a crown of leafy clumps; or a conifer.
    The crown begins ``low`` metres above the ground (by default where it likes)."""
    rows: list[Row] = []
    radius = size * r.choice((r.uniform(0.06, 0.18), r.uniform(0.15, 0.4)))
    clear = low
    if clear is None:
        clear = (
            r.uniform(0.3, 1.3) if r.random() < 0.2 else r.uniform(1.3, 3.2) * (0.6 + 0.4 * size)
        )
    height = size * r.uniform(5.0, 12.0)
    gain = r.uniform(0.8, 1.2)
    lean = (r.gauss(0.0, 0.06), r.gauss(0.0, 0.06))
    bark = r.uniform(0.8, 1.3)
    stems = 1 if r.random() < 0.8 else r.randint(2, 3)
    for _ in range(stems):
        ax, ay = (0.0, 0.0) if stems == 1 else (r.gauss(0.0, 0.25), r.gauss(0.0, 0.25))
        top = (
            ax * 2 + lean[0] * clear,
            ay * 2 + lean[1] * clear,
            min(clear + 2.0, height * 0.8),
        )
        rows.append(
            cylinder(k.TRUNK, m.BARK, (ax, ay, -0.4), top, radius / math.sqrt(stems), gain=bark)
        )
    if stems == 1:  # flare of the roots
        rows.append(
            box(k.TRUNK, m.BARK, (-1.3 * radius, 1.3 * radius), 2.6 * radius, (-0.4, 0.35),
                top=(-0.7 * radius, 0.7 * radius), top_width=1.4 * radius, gain=bark)
        )  # fmt: skip
    density = r.uniform(0.7, 3.5)
    spread = size * r.uniform(1.4, 4.2)
    if r.random() < 0.14:  # conifer
        foot = r.uniform(0.2, 1.2)
        for level in range(5):
            f = level / 5.0
            z = foot + f * (height - foot)
            rows.append(
                crown(k.VEGETATION, m.LEAF, (0.0, 0.0, z + 0.4),
                      (spread * (1 - f) * 0.8, spread * (1 - f) * 0.8, 0.14 * height), density + 1.0, gain=gain)
            )  # fmt: skip
        return Item(rows, None, k.VEGETATION)
    for _ in range(r.randint(6, 13)):
        a = r.uniform(0.0, 2.0 * math.pi)
        d = spread * r.uniform(0.15, 0.75)
        s = spread * r.uniform(0.35, 0.62)
        z = clear + s * r.uniform(0.2, 0.9) + abs(r.gauss(0.0, 0.25)) * (height - clear)
        rows.append(
            crown(
                k.VEGETATION, m.LEAF,
                (d * math.cos(a) + lean[0] * z, d * math.sin(a) + lean[1] * z, min(z, height)),
                (s, s, s * r.uniform(0.55, 0.9)), density * r.uniform(0.7, 1.4), gain=gain,
            )
        )  # fmt: skip
    rows.append(
        crown(k.VEGETATION, m.LEAF, (0.0, 0.0, 0.5 * (clear + height) + 0.5),
              (0.8 * spread, 0.8 * spread, 0.5 * (height - clear)), 0.7 * density, gain=gain)
    )  # fmt: skip
    for _ in range(r.randint(0, 4)):  # low branches
        a = r.uniform(0.0, 2.0 * math.pi)
        d = spread * r.uniform(0.4, 0.9)
        rows.append(
            cylinder(
                k.VEGETATION, m.BARK, (0.0, 0.0, clear * r.uniform(0.7, 1.0)),
                (d * math.cos(a), d * math.sin(a), clear + r.uniform(0.0, 1.5)), 0.2 * radius + 0.015,
            )
        )  # fmt: skip
    return Item(rows, None, k.VEGETATION)


def bush(r: Random, size: float = 1.0) -> Item:
    """A shrub of leafy clumps on the ground, loose or dense, sometimes with shoots above."""
    rows: list[Row] = []
    density = r.uniform(2.0, 9.0)
    gain = r.uniform(0.8, 1.2)
    for _ in range(r.randint(3, 8)):
        s = size * r.uniform(0.25, 0.75)
        rows.append(
            crown(
                k.VEGETATION,
                m.LEAF,
                (r.gauss(0.0, 0.6 * size), r.gauss(0.0, 0.6 * size), s * r.uniform(0.5, 1.6)),
                (s, s * r.uniform(0.7, 1.3), s * r.uniform(0.8, 1.4)),
                density,
                gain=gain,
            )
        )
    for _ in range(r.randint(0, 3)):
        x, y = r.gauss(0.0, 0.5 * size), r.gauss(0.0, 0.5 * size)
        tip = (1.5 * x, 1.5 * y, size * r.uniform(1.2, 2.2))
        rows.append(cylinder(k.VEGETATION, m.BARK, (x, y, 0.0), tip, 0.02))
    return Item(rows, None, k.VEGETATION)
