"""Vehicles: cars, vans, lorries with and without trailers, buses, motorcycles.

The builders work as those of ``objects.py``.
"""

from __future__ import annotations

from random import Random
from typing import Final

from perception.datasets.street import classes as k
from perception.datasets.street import materials as m
from perception.datasets.street.objects import Item
from perception.datasets.street.shapes import Row, box, cylinder

__all__ = ["car", "motorcycle", "trailer", "truck"]

CARS: Final = ("hatch", "saloon", "estate", "suv", "van", "pickup", "tiny")


def _paint(r: Random) -> tuple[int, float]:
    """Material and intensity factor of a lacquer; dark lacquers hardly return anything."""
    if r.random() < 0.35:
        return m.DARK_PAINT, r.uniform(0.6, 1.6)
    return m.PAINT, r.uniform(0.5, 1.7)


def car(r: Random) -> Item:
    """A hatchback, saloon, estate, SUV, van, pickup or something tiny."""
    style = r.choices(CARS, (3, 2, 2, 2, 2, 0.5, 0.5))[0]
    length, width, height = {
        "hatch": (r.uniform(3.5, 4.3), r.uniform(1.62, 1.8), r.uniform(1.42, 1.55)),
        "saloon": (r.uniform(4.3, 4.9), r.uniform(1.72, 1.88), r.uniform(1.38, 1.48)),
        "estate": (r.uniform(4.4, 4.9), r.uniform(1.72, 1.86), r.uniform(1.42, 1.53)),
        "suv": (r.uniform(4.2, 4.8), r.uniform(1.78, 1.95), r.uniform(1.6, 1.78)),
        "van": (r.uniform(4.2, 5.2), r.uniform(1.75, 1.98), r.uniform(1.78, 2.05)),
        "pickup": (r.uniform(4.9, 5.5), r.uniform(1.8, 1.95), r.uniform(1.7, 1.85)),
        "tiny": (r.uniform(2.6, 3.4), r.uniform(1.5, 1.63), r.uniform(1.45, 1.58)),
    }[style]
    paint, gain = _paint(r)
    h = 0.5 * length
    w = width - 0.04
    floor = r.uniform(0.18, 0.26)
    belt = height * r.uniform(0.58, 0.64)
    hood = belt * r.uniform(0.88, 0.96)
    bonnet = length * (r.uniform(0.12, 0.2) if style in ("van", "tiny") else r.uniform(0.22, 0.28))
    boot = length * {"saloon": r.uniform(0.12, 0.17), "pickup": r.uniform(0.3, 0.4)}.get(
        style, 0.01
    )
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
    extra = r.random()
    if extra < 0.06:  # roof box or rack
        top = box(
            k.CAR,
            m.DARK_PAINT,
            (roof[0] + 0.1, roof[1] - 0.1),
            0.6,
            (height, height + r.uniform(0.08, 0.38)),
        )
        rows.append(top)
        height = top[3]
    return Item(rows, (length, width, height), k.CAR)


def truck(r: Random) -> Item:
    """A delivery van, a lorry with a box or a flat bed, one with a trailer, or a bus."""
    style = r.choice(
        (
            "delivery",
            "delivery",
            "delivery",
            "lorry",
            "lorry",
            "flatbed",
            "bus",
            "semi",
            "road train",
        )
    )
    if style in ("semi", "road train"):
        return _articulated(r, style == "semi")
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


def _axle(rows: list[Row], x: float, width: float, radius: float) -> None:
    for y in (-1.0, 1.0):
        rows.append(
            cylinder(k.TRUCK, m.TYRE, (x, y * (0.5 * width - 0.35), radius),
                     (x, y * (0.5 * width - 0.01), radius), radius)
        )  # fmt: skip


def _load(r: Random, rows: list[Row], back: float, front: float, width: float, top: float) -> None:
    """What a lorry carries between two x: a box, a curtain, a container, a tank or a low bed."""
    kind = r.choice(("box", "box", "box", "tank", "bed"))
    gain = r.uniform(0.5, 1.8)
    if kind == "tank":
        radius = 0.5 * width - 0.12
        z = top - radius
        rows.append(
            cylinder(
                k.TRUCK, m.METAL, (back + 0.1, 0.0, z), (front - 0.1, 0.0, z), radius, gain=gain
            )
        )
        rows.append(box(k.TRUCK, m.METAL, (back, front), 1.0, (0.9, 1.3)))
    elif kind == "bed":
        rows.append(box(k.TRUCK, m.WOOD, (back, front), width, (1.0, 1.5)))
        rows.append(box(k.TRUCK, m.METAL, (front - 0.15, front), width, (1.0, top)))
    else:
        rows.append(
            box(k.TRUCK, m.PAINT, (back, front), width, (r.uniform(0.6, 1.1), top), gain=gain)
        )


def _articulated(r: Random, semi: bool) -> Item:
    """A tractor with a semitrailer, or a lorry that draws a trailer: one box around both."""
    paint, gain = _paint(r)
    width, height = r.uniform(2.45, 2.55), r.uniform(3.3, 4.0)
    length = r.uniform(12.0, 16.0) if semi else r.uniform(13.0, 17.0)
    h = 0.5 * length
    cab = r.uniform(1.9, 2.3)
    rows = [
        box(k.TRUCK, paint, (h - cab, h), width - 0.1, (0.45, 1.6), gain=gain),
        box(k.TRUCK, m.CABIN, (h - cab, h - 0.05), width - 0.1, (1.6, min(height, 3.2)),
            top=(h - cab, h - 0.3), gain=gain, extra=(0.0, paint, 0.0, 0.0)),
        box(k.TRUCK, m.METAL, (h - 5.5, h - cab), 0.9, (0.6, 1.0)),
    ]  # fmt: skip
    if semi:
        _load(r, rows, -h, h - cab - 0.6, width, height)
        axles = [h - 1.3, h - 4.2, -h + 1.4, -h + 2.7, -h + 4.0]
    else:
        middle = h - cab - r.uniform(5.5, 6.5)
        _load(r, rows, middle, h - cab - 0.25, width, height)
        _load(r, rows, -h, middle - 1.6, width, height)
        rows.append(cylinder(k.TRUCK, m.METAL, (middle - 1.7, 0.0, 0.7), (middle, 0.0, 0.7), 0.06))
        axles = [h - 1.3, middle + 1.5, -h + 1.3, middle - 2.6]
    for x in axles:
        _axle(rows, x, width, 0.48)
    return Item(rows, (length, width, height), k.TRUCK)


def trailer(r: Random) -> Item:
    """A caravan or a car trailer, parked without a car."""
    caravan = r.random() < 0.5
    length = r.uniform(4.2, 6.5) if caravan else r.uniform(2.4, 4.0)
    width = r.uniform(2.0, 2.3) if caravan else r.uniform(1.4, 1.8)
    height = r.uniform(2.4, 2.65) if caravan else r.uniform(0.9, 2.1)
    h = 0.5 * length
    body = h - 0.9
    rows = [
        box(k.TRUCK, m.PAINT, (-h, body), width, (0.45, height), top=(-h + 0.1, body - 0.25),
            gain=r.uniform(0.8, 1.9)),
        cylinder(k.TRUCK, m.METAL, (body, 0.3, 0.45), (h, 0.0, 0.45), 0.04),
        cylinder(k.TRUCK, m.METAL, (body, -0.3, 0.45), (h, 0.0, 0.45), 0.04),
    ]  # fmt: skip
    _axle(rows, -0.4, width, 0.32)
    return Item(rows, (length, width, height), k.TRUCK)


def motorcycle(r: Random) -> Item:
    """A parked motorcycle or scooter; real labels put it beside bicycles, and so does this one."""
    length, height = r.uniform(1.8, 2.2), r.uniform(1.05, 1.25)
    h, w = 0.5 * length, r.uniform(0.25, 0.32)
    rows = [cylinder(k.CYCLIST, m.TYRE, (x, -0.07, w), (x, 0.07, w), w) for x in (-h + w, h - w)]
    rows += [
        box(k.CYCLIST, m.DARK_PAINT, (-0.35, 0.4), 0.36, (0.3, 0.75), gain=2.0),
        box(k.CYCLIST, m.PAINT, (0.0, 0.5), 0.3, (0.7, 0.95), top=(0.05, 0.4), top_width=0.2),
        box(k.CYCLIST, m.CLOTH, (-h + 0.2, 0.05), 0.28, (0.7, 0.82), gain=0.4),
        cylinder(k.CYCLIST, m.METAL, (h - w, 0.0, w), (0.4, 0.0, height - 0.15), 0.05),
        cylinder(
            k.CYCLIST, m.METAL, (0.38, -0.36, height - 0.12), (0.38, 0.36, height - 0.12), 0.025
        ),
    ]
    return Item(rows, (length, 0.76, height), k.CYCLIST)
