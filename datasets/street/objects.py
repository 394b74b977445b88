"""People and cyclists, and what every builder of objects returns.

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
from perception.datasets.street.shapes import Row, box, cylinder, ellipsoid, spokes

__all__ = ["Item", "bicycle", "cyclist", "person", "sitter"]


@dataclass(slots=True)
class Item:
    """Primitives of one object and the size (l, w, h) of its box, if it has one."""

    rows: list[Row] = field(default_factory=list)
    size: tuple[float, float, float] | None = None
    label: int = 255


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


def person(r: Random, phase: float | None = None) -> Item:
    """A person who stands, or walks: ``phase`` is that of the gait, 2 pi for two steps."""
    height = r.uniform(1.5, 1.92) if r.random() < 0.85 else r.uniform(1.0, 1.5)
    gain = r.uniform(0.6, 1.4)
    hip = 0.5 * height
    leg = r.uniform(0.06, 0.1)
    pace = r.uniform(0.3, 0.42) * height  # length of a step
    stance = r.uniform(0.06, 0.12)
    trousers = r.uniform(0.6, 1.2)
    skirt = r.random() < 0.12
    swing = r.uniform(0.5, 1.0)
    rows: list[Row] = []
    for y, turn in ((-stance, 0.0), (stance, math.pi)):
        if phase is None:
            foot, lift, bent = r.uniform(-0.06, 0.06), 0.0, 0.0
        else:
            # The foot goes back with the ground and forward through the air.
            foot = 0.5 * pace * math.cos(phase + turn)
            lift = 0.12 * max(-math.sin(phase + turn), 0.0)
            bent = 0.16 * max(-math.sin(phase + turn), 0.0)
        knee = (0.5 * foot + bent + 0.03, y, 0.52 * hip + 0.4 * lift)
        rows.append(
            cylinder(k.PERSON, m.CLOTH, (foot, y, 0.03 + lift), knee, 0.75 * leg, gain=trousers)
        )
        rows.append(cylinder(k.PERSON, m.CLOTH, knee, (0.0, y, hip), leg, gain=trousers))
        rows.append(box(k.PERSON, m.TYRE, (foot - 0.1, foot + 0.16), 0.1, (lift, lift + 0.09), y=y))
        side = math.copysign(1.0, y)
        hand = 0.0 if phase is None else -0.45 * swing * pace * math.cos(phase + turn)
        elbow = (0.3 * hand - 0.04, 0.25 * side, 0.63 * height)
        shoulder = (0.0, 0.2 * side, 0.8 * height)
        rows.append(cylinder(k.PERSON, m.CLOTH, elbow, shoulder, 0.05, gain=gain))
        palm = (hand + 0.05, 0.24 * side, 0.48 * height)
        rows.append(cylinder(k.PERSON, m.CLOTH, palm, elbow, 0.04, gain=gain))
    if skirt:
        rows.append(
            box(k.PERSON, m.CLOTH, (-0.19, 0.19), 0.4, (0.3 * height, hip + 0.1), gain=gain,
                top=(-0.12, 0.12), top_width=0.3)
        )  # fmt: skip
    _body(rows, r, k.PERSON, height, (0.0, hip), 0.05, gain)
    load = r.random()
    if load < 0.25:  # rucksack
        rows.append(
            box(k.PERSON, m.CLOTH, (-0.32, -0.12), 0.3, (hip, hip + 0.4), gain=r.uniform(0.4, 1.5))
        )
    elif load < 0.4:  # bag in one hand
        rows.append(
            box(k.PERSON, m.CLOTH, (-0.15, 0.15), 0.12, (0.2 * height, 0.44 * height),
                y=r.choice((-0.27, 0.27)), gain=r.uniform(0.4, 1.5))
        )  # fmt: skip
    return Item(
        rows, (0.7 if phase is None else min(max(0.7, pace + 0.3), 0.95), 0.66, height), k.PERSON
    )


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


def sitter(r: Random) -> Item:
    """A person who sits on something half a metre high, looking along x."""
    gain = r.uniform(0.6, 1.4)
    height = r.uniform(1.15, 1.35)
    rows: list[Row] = []
    for y in (-0.1, 0.1):
        rows.append(cylinder(k.PERSON, m.CLOTH, (0.42, y, 0.03), (0.42, y, 0.5), 0.06))
        rows.append(cylinder(k.PERSON, m.CLOTH, (0.42, y, 0.5), (0.0, y, 0.52), 0.08))
        rows.append(
            cylinder(k.PERSON, m.CLOTH, (0.2, 2.3 * y, 0.65), (0.0, 2.1 * y, 1.0), 0.05, gain=gain)
        )
    _body(rows, r, k.PERSON, height, (-0.05, 0.5), r.uniform(-0.1, 0.2), gain)
    return Item(rows, (0.95, 0.66, height), k.PERSON)
