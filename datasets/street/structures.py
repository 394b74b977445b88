"""What is built along the street: buildings, houses, fences, walls.

The builders work as those of ``objects.py``; things with a front have it towards -y.
"""

from __future__ import annotations

from random import Random

from perception.datasets.street import classes as k
from perception.datasets.street import materials as m
from perception.datasets.street import raycast as rc
from perception.datasets.street.objects import Item
from perception.datasets.street.shapes import box, cylinder, facade, paling

__all__ = ["building", "fence", "house", "shed", "wall"]


def fence(r: Random, length: float) -> Item:
    """A wooden or metal fence or a wire mesh with posts, along x."""
    if r.random() < 0.22:
        return _rails(r, length)
    height = r.uniform(0.8, 1.9)
    if r.random() < 0.35:
        rows = [
            paling(
                k.FENCE, m.METAL, length, height, pitch=0.1, pale=0.0, share=r.uniform(0.15, 0.5)
            )
        ]
        posts = max(int(length / 2.5), 1)
        rows += [
            cylinder(k.FENCE, m.METAL, (x, 0.0, -0.2), (x, 0.0, height + 0.05), 0.035)
            for x in (-0.5 * length + length * i / posts for i in range(posts + 1))
        ]
        return Item(rows, None, k.FENCE)
    pitch = r.uniform(0.1, 0.25)
    row = paling(
        k.FENCE,
        r.choice((m.WOOD, m.METAL)),
        length,
        height,
        pitch=pitch,
        pale=pitch * r.uniform(0.3, 0.95),
        gain=r.uniform(0.7, 1.4),
    )
    return Item([row], None, k.FENCE)


def _rails(r: Random, length: float) -> Item:
    """Posts, thick or thin, and between them no rail, or one to three."""
    height, count = r.uniform(0.5, 1.3), r.choice((0, 1, 1, 2, 2, 3))
    thick, material, gain = r.uniform(0.03, 0.1), r.choice((m.WOOD, m.METAL)), r.uniform(0.7, 1.3)
    posts = max(int(length / r.uniform(1.2, 2.8)), 1)
    rows = [
        cylinder(k.FENCE, material, (x, 0.0, -0.2), (x, 0.0, height), thick, gain=gain)
        for x in (-0.5 * length + length * i / posts for i in range(posts + 1))
    ]
    half, rail = 0.5 * length, r.uniform(0.04, 0.16)
    for i in range(count):
        z = height * (1.0 - 0.35 * i) - 0.03
        rows.append(box(k.FENCE, material, (-half, half), 0.05, (z - rail, z), gain=gain))
    return Item(rows, None, k.FENCE)


def wall(r: Random, length: float) -> Item:
    """A low garden wall along x."""
    height = r.uniform(0.5, 1.9)
    half = 0.5 * length
    material = r.choice((m.BRICK, m.PLASTER))
    thick = r.choice((0.2, 0.25, 0.4))
    rows = [box(k.FENCE, material, (-half, half), thick, (-0.5, height), gain=r.uniform(0.7, 1.3))]
    if height < 1.0 and r.random() < 0.4:  # railing on top
        rows.append(
            paling(k.FENCE, m.METAL, length, height + r.uniform(0.5, 0.9), pitch=0.14, pale=0.03)
        )
    return Item(rows, None, k.FENCE)


def building(r: Random, length: float, depth: float, height: float) -> Item:
    """A block of flats or shops along x, front towards -y: facade with recessed windows,
    plinth, balconies, bays and doors."""
    half, deep = 0.5 * length, 0.5 * depth
    material = r.choice((m.PLASTER, m.PLASTER, m.BRICK))
    gain = r.uniform(0.6, 1.3)
    pitch = r.uniform(1.6, 3.6)
    window = pitch * r.uniform(0.35, 0.65)
    storey = r.uniform(2.7, 3.5)
    rows = [
        facade(
            k.BUILDING, material, (-half, half), depth, (-storey, height),
            pitch=pitch, window=window, storey=storey, recess=r.uniform(0.08, 0.35), gain=gain,
        )
    ]  # fmt: skip
    if r.random() < 0.5:
        rows.append(
            box(
                k.BUILDING,
                m.BRICK,
                (-half - 0.08, half + 0.08),
                depth + 0.16,
                (-1.5, r.uniform(0.3, 0.9)),
            )
        )
    for _ in range(r.randint(0, 3)):  # bays and stair towers
        w = r.uniform(1.5, 4.0)
        x = r.uniform(-half + w, half - w) if half > w else 0.0
        out = r.uniform(0.3, 1.6)
        rows.append(
            box(k.BUILDING, material, (x - 0.5 * w, x + 0.5 * w), out + 0.2, (-1.0, height * r.uniform(0.5, 1.0)),
                y=-deep - 0.5 * out + 0.1, gain=gain)
        )  # fmt: skip
    if r.random() < 0.5:
        out = r.uniform(0.8, 1.5)
        for _ in range(r.randint(1, 4)):
            w = r.uniform(2.0, 4.0)
            x = r.uniform(-half + w, half - w) if half > w else 0.0
            z = storey * r.randint(1, 2)
            rows.append(
                box(
                    k.BUILDING,
                    m.PLASTER,
                    (x - w / 2, x + w / 2),
                    out,
                    (z - 0.2, z),
                    y=-deep - out / 2,
                )
            )
            rail = paling(k.BUILDING, m.METAL, w, z + 0.95, pitch=0.14, pale=0.05)
            rail[rc.Y] = -deep - out
            rail[rc.Z] = z
            rows.append(rail)
    if r.random() < 0.4:  # a canopy or porch
        w = r.uniform(1.2, 3.0)
        x = r.uniform(-half + w, half - w) if half > w else 0.0
        rows.append(
            box(k.BUILDING, m.METAL, (x - w / 2, x + w / 2), 1.2, (2.5, 2.7), y=-deep - 0.6)
        )
        rows.append(
            box(k.BUILDING, m.PAVING, (x - w / 2, x + w / 2), 1.4, (-0.6, 0.3), y=-deep - 0.7)
        )
    for _ in range(r.randint(0, 3)):  # downpipes
        x = r.uniform(-half, half)
        rows.append(
            cylinder(k.BUILDING, m.METAL, (x, -deep - 0.08, -0.5), (x, -deep - 0.08, height), 0.06)
        )
    return Item(rows, None, k.BUILDING)


def shed(r: Random) -> Item:
    """A garden shed, a kiosk, a detached garage, or an open pavilion."""
    w, deep, high = r.uniform(1.8, 4.5), r.uniform(1.3, 6.0), r.uniform(1.5, 2.8)
    if r.random() < 0.25:
        return _pavilion(r, w + 2.0, deep + 1.0, high + 0.7)
    half = 0.5 * w
    rows = [
        box(k.BUILDING, r.choice((m.WOOD, m.PLASTER)), (-half, half), deep, (-0.5, high)),
        box(k.BUILDING, m.ROOF, (-half - 0.2, half + 0.2), deep + 0.4, (high, high + r.uniform(0.1, 0.9)),
            top_width=r.choice((0.1, deep)))
    ]  # fmt: skip
    return Item(rows, None, k.BUILDING)


def _pavilion(r: Random, w: float, deep: float, high: float) -> Item:
    """A roof on columns, with a wall on some sides: a market stand, a terrace, a shelter."""
    half, back = 0.5 * w, 0.5 * deep
    count = r.randint(2, 4)
    thick, column = r.uniform(0.04, 0.15), r.choice((m.METAL, m.WOOD))
    rows = [
        cylinder(k.BUILDING, column, (x, y, -0.3), (x, y, high), thick)
        for x in (-half + w * i / (count - 1) for i in range(count))
        for y in (-back, back)
    ]
    rows.append(
        box(k.BUILDING, m.ROOF, (-half - 0.3, half + 0.3), deep + 0.6, (high, high + r.uniform(0.1, 1.0)),
            top_width=r.choice((0.1, deep)))
    )  # fmt: skip
    wall = r.choice((m.WOOD, m.PLASTER, m.GLASS))
    if r.random() < 0.7:
        rows.append(box(k.BUILDING, wall, (-half, half), 0.1, (-0.3, high), y=back))
    for x in (-half, half):
        if r.random() < 0.4:
            rows.append(box(k.BUILDING, wall, (x - 0.05, x + 0.05), deep, (-0.3, high)))
    if r.random() < 0.5:  # a counter or a parapet
        rows.append(box(k.BUILDING, wall, (-half, half), 0.2, (-0.3, r.uniform(0.7, 1.2)), y=-back))
    return Item(rows, None, k.BUILDING)


def house(r: Random, length: float, depth: float) -> Item:
    """A detached house with a gabled roof, front towards -y, sometimes with a garage."""
    eaves = r.uniform(2.7, 5.8)
    item = building(r, length, depth, eaves)
    half = 0.5 * length + 0.4
    flat = r.random() < 0.12
    rise = 0.3 if flat else 0.5 * depth * r.uniform(0.5, 1.1)
    hip = (-0.6 * half, 0.6 * half) if r.random() < 0.25 else (-half, half)
    item.rows.append(
        box(k.BUILDING, m.ROOF, (-half, half), depth + 0.9, (eaves - 0.15, eaves + rise), top=hip,
            top_width=depth if flat else 0.05, gain=r.uniform(0.7, 1.3))
    )  # fmt: skip
    if r.random() < 0.5:  # a chimney
        x, y = r.uniform(-0.3, 0.3) * length, r.uniform(-0.2, 0.2) * depth
        item.rows.append(
            box(k.BUILDING, m.BRICK, (x - 0.3, x + 0.3), 0.6, (eaves, eaves + rise + 0.6), y=y)
        )
    if r.random() < 0.4:
        w = r.uniform(2.8, 3.5)
        x = half + 0.5 * w
        item.rows.append(
            box(k.BUILDING, m.PLASTER, (x - 0.5 * w, x + 0.5 * w), 5.5, (-1.0, r.uniform(2.3, 2.8)),
                y=-0.5 * depth + r.uniform(0.5, 3.5))
        )  # fmt: skip
    return item
