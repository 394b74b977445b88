"""What stands about on pavements and squares: poles and signs, bins, benches, bus stops, cabinets.

The builders work as those of ``objects.py``. Only poles have a class; real labels call the rest
"other object" or leave it out, so it is 255 here.
"""

from __future__ import annotations

import math
from random import Random

from perception.datasets.sample import IGNORE
from perception.datasets.street import classes as k
from perception.datasets.street import materials as m
from perception.datasets.street.objects import Item
from perception.datasets.street.shapes import Row, box, crown, cylinder, paling

__all__ = ["bench", "bin_", "bollard", "bus_stop", "clutter", "pole", "scaffold"]


def bollard(gain: float, height: float = 0.9, radius: float = 0.06) -> Item:
    """A bollard; rows of them are alike."""
    row = cylinder(k.POLE, m.METAL, (0, 0, -0.2), (0, 0, height), radius, gain=gain)
    return Item([row], None, k.POLE)


def pole(r: Random) -> Item:
    """A street lamp, traffic sign, traffic light, wooden pole, mast or bollard."""
    style = r.choice(
        (
            "lamp",
            "lamp",
            "lamp",
            "sign",
            "sign",
            "sign",
            "sign",
            "light",
            "bollard",
            "wooden",
            "mast",
            "board",
            "board",
            "pillar",
        )
    )
    rows: list[Row] = []
    gain = r.uniform(0.7, 1.5)
    if style == "bollard":
        return bollard(gain, r.uniform(0.7, 1.1), r.uniform(0.05, 0.1))
    if style in ("wooden", "mast"):
        height, radius = r.uniform(6.0, 10.0), r.uniform(0.08, 0.13)
        material = m.WOOD if style == "wooden" else m.METAL
        rows.append(cylinder(k.POLE, material, (0, 0, -0.3), (0, 0, height), radius, gain=gain))
        return Item(rows, None, k.POLE)
    if style == "board":  # a board between two legs
        w, top = r.choice((r.uniform(0.15, 0.6), r.uniform(0.5, 1.4))), r.uniform(1.2, 2.6)
        foot = top - r.uniform(0.3, 1.1)
        material = r.choice((m.PLATE, m.PAINT, m.METAL))
        rows = [
            cylinder(k.POLE, m.METAL, (0, y, -0.2), (0, y, top), 0.03, gain=gain)
            for y in (-0.5 * w, 0.5 * w)
        ]
        deep = r.uniform(0.02, 0.08)
        rows.append(box(k.POLE, material, (-deep, deep), w, (foot, top), gain=gain))
        return Item(rows, None, k.POLE)
    if style == "pillar":  # a square post, sometimes with a box on it
        half, top = r.uniform(0.05, 0.12), r.uniform(1.2, 2.4)
        rows = [box(k.POLE, m.METAL, (-half, half), 2.0 * half, (-0.2, top), gain=gain)]
        if r.random() < 0.5:
            rows.append(
                box(k.POLE, m.PAINT, (-half - 0.05, half + 0.05), 2.0 * half + 0.1,
                    (top - r.uniform(0.2, 0.9), top), gain=gain)
            )  # fmt: skip
        return Item(rows, None, k.POLE)
    height = {
        "lamp": r.uniform(4.5, 9.0),
        "sign": r.uniform(2.2, 3.2),
        "light": r.uniform(2.8, 3.6),
    }[style]
    radius = {
        "lamp": r.uniform(0.06, 0.12),
        "sign": r.uniform(0.03, 0.045),
        "light": r.uniform(0.05, 0.08),
    }[style]
    rows.append(cylinder(k.POLE, m.METAL, (0, 0, -0.3), (0, 0, height), radius, gain=gain))
    if style == "lamp":
        rows.append(cylinder(k.POLE, m.METAL, (0, 0, -0.3), (0, 0, 1.0), radius * 1.4, gain=gain))
        if r.random() < 0.7:
            rows.append(
                cylinder(
                    k.POLE, m.METAL, (0, 0, height), (r.uniform(0.6, 1.8), 0, height + 0.3), 0.04
                )
            )
        if r.random() < 0.3:
            rows.append(
                box(k.POLE, m.PLATE, (-0.03, 0.03), 0.6, (2.1, 2.7), at=(radius + 0.03, 0.0))
            )
    elif style == "sign":
        for i in range(r.randint(1, 2)):
            z = height - 0.05 - 0.7 * i
            s = r.uniform(0.45, 0.75)
            yaw = r.choice((0.0, math.pi, 0.5 * math.pi))
            if r.random() < 0.5:
                rows.append(
                    box(
                        k.POLE,
                        m.PLATE,
                        (0.0, 0.04),
                        s,
                        (z - s, z),
                        yaw=yaw,
                        at=(0.05 * math.cos(yaw), 0.05 * math.sin(yaw)),
                    )
                )
            else:
                c = (0.05, 0.0, z - 0.5 * s)
                rows.append(cylinder(k.POLE, m.PLATE, c, (0.08, 0.0, c[2]), 0.5 * s))
        if r.random() < 0.3:  # a large board between two posts, high or low
            w = r.uniform(1.0, 2.8)
            top = height if r.random() < 0.5 else r.uniform(1.2, 2.2)
            board = box(
                k.POLE, r.choice((m.PLATE, m.PAINT)), (0.05, 0.09), w + 0.3,
                (top - r.uniform(0.5, 1.2), top), y=0.5 * w, gain=r.uniform(0.4, 1.2),
            )  # fmt: skip
            post = cylinder(k.POLE, m.METAL, (0, 0, -0.3), (0, 0, top), 1.3 * radius)
            rows = [post, cylinder(k.POLE, m.METAL, (0, w, -0.3), (0, w, top), 1.3 * radius), board]
    else:
        rows.append(box(k.POLE, m.DARK_PAINT, (0.08, 0.32), 0.3, (height - 0.95, height), gain=2.0))
        if r.random() < 0.3:  # another one on an arm above the lanes
            reach, top = r.uniform(2.0, 5.0), r.uniform(5.0, 6.0)
            rows.append(cylinder(k.POLE, m.METAL, (0, 0, height), (0, 0, top), radius, gain=gain))
            rows.append(
                cylinder(k.POLE, m.METAL, (0, 0, top), (reach, 0, top + 0.2), 0.06, gain=gain)
            )
            rows.append(
                box(
                    k.POLE,
                    m.DARK_PAINT,
                    (reach - 0.2, reach),
                    0.4,
                    (top - 0.9, top + 0.1),
                    gain=2.0,
                )
            )
    return Item(rows, None, k.POLE)


def bin_(r: Random) -> Item:
    """A litter bin, a wheeled bin or a container for glass or paper."""
    kind = r.random()
    gain = r.uniform(0.4, 1.6)
    if kind < 0.35:
        radius = r.uniform(0.18, 0.28)
        rows = [
            cylinder(IGNORE, m.METAL, (0, 0, 0), (0, 0, r.uniform(0.7, 1.1)), radius, gain=gain)
        ]
    elif kind < 0.75:
        rows = []
        for i in range(r.randint(1, 4)):
            high = r.uniform(0.95, 1.15)
            rows.append(
                box(IGNORE, m.PAINT, (-0.3, 0.3), 0.5, (0.0, high), top=(-0.36, 0.36), top_width=0.58,
                    y=0.68 * i, gain=gain)
            )  # fmt: skip
    else:
        rows = []
        for i in range(r.randint(1, 3)):
            rows.append(
                box(IGNORE, m.PAINT, (-0.6, 0.6), 1.1, (0.0, r.uniform(1.2, 1.9)), y=1.4 * i,
                    top=(-0.45, 0.45), top_width=0.9, gain=gain)
            )  # fmt: skip
    return Item(rows, None, IGNORE)


def bench(r: Random) -> Item:
    """A bench, looking along x."""
    w = r.uniform(1.2, 2.2)
    rows = [box(IGNORE, m.WOOD, (-0.2, 0.25), w, (0.38, 0.47))]
    rows += [box(IGNORE, m.METAL, (-0.18, 0.2), 0.07, (0.0, 0.4), y=y) for y in (-0.4 * w, 0.4 * w)]
    if r.random() < 0.7:
        rows.append(box(IGNORE, m.WOOD, (-0.22, -0.16), w, (0.5, 0.9)))
    return Item(rows, None, IGNORE)


def bus_stop(r: Random) -> Item:
    """A shelter of glass, open towards x."""
    w, deep, high = r.uniform(2.5, 5.0), r.uniform(1.2, 1.7), r.uniform(2.3, 2.7)
    half, rear = 0.5 * w, -0.5 * deep
    rows = [
        box(IGNORE, m.METAL, (rear, -rear), w + 0.2, (high, high + 0.12)),
        box(IGNORE, m.GLASS, (rear, rear + 0.03), w, (0.25, high)),
        box(IGNORE, m.WOOD, (rear + 0.1, rear + 0.45), 0.7 * w, (0.4, 0.47)),
        box(
            IGNORE,
            m.PAINT,
            (rear + 0.2, 0.4),
            0.1,
            (0.3, high - 0.2),
            y=half,
            gain=r.uniform(0.5, 1.8),
        ),
    ]
    rows += [
        cylinder(IGNORE, m.METAL, (x, y, 0.0), (x, y, high), 0.05)
        for x in (rear, -rear)
        for y in (-half, half)
    ]
    rows.append(cylinder(k.POLE, m.METAL, (0.5, half + 1.0, 0.0), (0.5, half + 1.0, 2.8), 0.04))
    return Item(rows, None, IGNORE)


def clutter(r: Random) -> Item:
    """Something that stands about: a cabinet, hydrant, letter box, planter, pillar, barrier, rack,
    pallet, heap."""
    kind = r.choice(
        (
            "cabinet",
            "cabinet",
            "hydrant",
            "letters",
            "planter",
            "pillar",
            "barrier",
            "rack",
            "box",
            "heap",
        )
    )
    gain = r.uniform(0.5, 1.5)
    if kind == "cabinet":
        w, high = r.uniform(0.5, 1.6), r.uniform(0.9, 1.5)
        rows = [box(IGNORE, m.PAINT, (-0.18, 0.18), w, (0.0, high), gain=gain)]
    elif kind == "hydrant":
        rows = [cylinder(IGNORE, m.METAL, (0, 0, 0), (0, 0, r.uniform(0.5, 0.9)), 0.12, gain=gain)]
    elif kind == "letters":
        rows = [
            cylinder(IGNORE, m.METAL, (0, 0, 0), (0, 0, 0.9), 0.05),
            box(IGNORE, m.PAINT, (-0.2, 0.2), 0.45, (0.85, 1.5), gain=gain),
        ]
    elif kind == "planter":
        s = r.uniform(0.3, 0.6)
        rows = [
            box(IGNORE, m.PLASTER, (-s, s), 2.0 * s, (0.0, 0.6), gain=gain),
            crown(k.VEGETATION, m.LEAF, (0, 0, 0.85), (s, s, 0.45), r.uniform(3.0, 9.0)),
        ]
    elif kind == "pillar":
        rows = [
            cylinder(
                IGNORE,
                m.PLASTER,
                (0, 0, 0),
                (0, 0, r.uniform(2.4, 3.4)),
                r.uniform(0.35, 0.65),
                gain=gain,
            )
        ]
    elif kind == "barrier":
        rows = []
        for i in range(r.randint(1, 5)):
            rail = paling(IGNORE, m.METAL, 2.0, 1.05, pitch=0.15, pale=0.03, gain=gain)
            rail[0] = 2.15 * i
            rows.append(rail)
    elif kind == "rack":
        rows = []
        for i in range(r.randint(3, 8)):
            x = 0.9 * i
            rows += [
                cylinder(IGNORE, m.METAL, (x, -0.35, 0), (x, -0.35, 0.8), 0.025),
                cylinder(IGNORE, m.METAL, (x, 0.35, 0), (x, 0.35, 0.8), 0.025),
                cylinder(IGNORE, m.METAL, (x, -0.35, 0.8), (x, 0.35, 0.8), 0.025),
            ]
    elif kind == "box":
        rows = [
            box(IGNORE, r.choice((m.WOOD, m.CLOTH, m.PAINT)), (-0.4, 0.4), r.uniform(0.4, 1.2),
                (0.0, r.uniform(0.2, 1.2)), gain=gain)
        ]  # fmt: skip
    else:
        rows = [
            box(IGNORE, m.SOIL, (-1.2, 1.2), 2.0, (-0.1, r.uniform(0.3, 0.9)), top=(-0.2, 0.2),
                top_width=0.4, gain=gain)
        ]  # fmt: skip
    return Item(rows, None, IGNORE)


def scaffold(r: Random, length: float, height: float) -> Item:
    """Tubes and planks in front of a facade, along x."""
    rows: list[Row] = []
    bays = max(int(length / 2.5), 1)
    for i in range(bays + 1):
        x = -0.5 * length + length * i / bays
        for y in (-0.5, 0.4):
            rows.append(cylinder(IGNORE, m.METAL, (x, y, 0.0), (x, y, height), 0.025))
    half = 0.5 * length
    for level in range(1, int(height / 2.0) + 1):
        rows.append(box(IGNORE, m.WOOD, (-half, half), 0.8, (2.0 * level - 0.05, 2.0 * level)))
        rows.append(
            cylinder(
                IGNORE,
                m.METAL,
                (-half, -0.5, 2.0 * level + 1.0),
                (half, -0.5, 2.0 * level + 1.0),
                0.025,
            )
        )
    return Item(rows, None, IGNORE)
