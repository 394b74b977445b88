"""What grows: trees in leaf and bare ones, conifers, bushes, hedges, tall grass, flower beds.

The builders work as those of ``objects.py``. Leaves, twigs and blades are random media, see
``raycast.py``.
"""

from __future__ import annotations

import math
from random import Random

from perception.datasets.street import classes as k
from perception.datasets.street import materials as m
from perception.datasets.street.objects import Item
from perception.datasets.street.shapes import Row, box, crown, cylinder, hedge

__all__ = ["bed", "bush", "green_hedge", "tall_grass", "tree"]


def _trunk(
    r: Random, radius: float, clear: float, height: float, lean: tuple[float, float], bark: float
) -> list[Row]:
    """Straight, leaning, forked near the ground or in several stems."""
    rows: list[Row] = []

    def limb(start: tuple[float, float, float], end: tuple[float, float, float], r0: float) -> None:
        # Real labels call the stem a trunk up to the crown, and what is in the crown vegetation.
        leafy = min(max(clear + 0.3, start[2] + 0.2), end[2] - 0.1)
        f = (leafy - start[2]) / (end[2] - start[2])
        middle = tuple(a + f * (b - a) for a, b in zip(start, end, strict=True))
        bend = (middle[0] + r.gauss(0.0, 0.03), middle[1] + r.gauss(0.0, 0.03), leafy)
        rows.append(cylinder(k.TRUNK, m.BARK, start, bend, r0, gain=bark))
        rows.append(cylinder(k.VEGETATION, m.BARK, bend, end, 0.8 * r0, gain=bark))

    top = min(clear + 2.0, 0.8 * height)
    form = r.random()
    if radius > 0.22 and form < 0.35:  # an old tree: a stout foot, limbs that fan out above it
        foot, stout = r.uniform(0.4, 1.2), radius * r.uniform(1.1, 1.5)
        rows.append(cylinder(k.TRUNK, m.BARK, (0.0, 0.0, -0.4), (0.0, 0.0, foot), stout, gain=bark))
        a = r.uniform(0.0, 6.0)
        count = r.randint(3, 7)
        for i in range(count):
            b = a + 2.0 * math.pi * i / count + r.gauss(0.0, 0.3)
            out = r.uniform(0.15, 0.55) * (top - foot)
            base = (0.6 * stout * math.cos(b), 0.6 * stout * math.sin(b), foot - 0.2)
            tip = (base[0] + out * math.cos(b), base[1] + out * math.sin(b), top)
            limb(base, tip, stout * r.uniform(0.3, 0.55))
        return rows
    if form < 0.62:
        limb((0.0, 0.0, -0.4), (lean[0] * top, lean[1] * top, top), radius)
    elif form < 0.85:  # a fork
        fork = r.uniform(0.3, 0.75) * clear
        at = (lean[0] * fork, lean[1] * fork, fork)
        rows.append(cylinder(k.TRUNK, m.BARK, (0.0, 0.0, -0.4), at, radius, gain=bark))
        count, a = r.randint(2, 4), r.uniform(0.0, 6.0)
        for i in range(count):
            b = a + 2.0 * math.pi * i / count + r.gauss(0.0, 0.2)
            out = r.uniform(0.15, 0.5) * (top - fork)
            tip = (at[0] + out * math.cos(b), at[1] + out * math.sin(b), top)
            limb(at, tip, radius * r.uniform(0.5, 0.75))
    else:  # several stems
        count = r.randint(2, 5)
        for _ in range(count):
            ax, ay = r.gauss(0.0, 0.22), r.gauss(0.0, 0.22)
            limb((ax, ay, -0.4), (2.5 * ax, 2.5 * ay, top), radius / math.sqrt(count))
    if form < 0.85 and r.random() < 0.7:  # flare of the roots
        rows.append(
            box(k.TRUNK, m.BARK, (-1.3 * radius, 1.3 * radius), 2.6 * radius, (-0.4, 0.35),
                top=(-0.7 * radius, 0.7 * radius), top_width=1.4 * radius, gain=bark)
        )  # fmt: skip
    return rows


def _bare(
    r: Random, rows: list[Row], clear: float, height: float, spread: float, radius: float
) -> None:
    """Branches, and twigs as a thin medium."""
    gain = r.uniform(0.7, 1.2)
    for _ in range(r.randint(6, 12)):
        a, foot = (
            r.uniform(0.0, 2.0 * math.pi),
            clear * r.uniform(0.7, 1.0) + 0.2 * height * r.random(),
        )
        d, rise = spread * r.uniform(0.4, 1.0), (height - foot) * r.uniform(0.3, 0.95)
        tip = (d * math.cos(a), d * math.sin(a), foot + rise)
        elbow = (0.5 * tip[0], 0.5 * tip[1], foot + 0.4 * rise)
        thick = radius * r.uniform(0.2, 0.4) + 0.01
        rows.append(cylinder(k.VEGETATION, m.BARK, (0.0, 0.0, foot), elbow, thick, gain=gain))
        rows.append(cylinder(k.VEGETATION, m.BARK, elbow, tip, 0.6 * thick, gain=gain))
    middle = 0.5 * (clear + height)
    rows.append(
        crown(k.VEGETATION, m.BARK, (0.0, 0.0, middle), (spread, spread, height - middle),
              r.uniform(0.08, 0.4), gain=gain)
    )  # fmt: skip


def tree(r: Random, size: float = 1.0, low: float | None = None, bare: bool = False) -> Item:
    """A tree: a trunk and a crown of leafy clumps, or in winter its branches; or a conifer.
    The crown begins ``low`` metres above the ground (by default where it likes)."""
    radius = size * r.choice((r.uniform(0.07, 0.16), r.uniform(0.12, 0.25), r.uniform(0.18, 0.45)))
    clear = low
    if clear is None:
        clear = (
            r.uniform(0.3, 1.3) if r.random() < 0.2 else r.uniform(1.3, 3.4) * (0.6 + 0.4 * size)
        )
    height = size * r.uniform(5.0, 12.0)
    gain = r.uniform(0.8, 1.2)
    tilt = r.choice((0.04, 0.04, 0.16))
    lean = (r.gauss(0.0, tilt), r.gauss(0.0, tilt))
    bark = r.uniform(0.7, 1.3)
    conifer = r.random() < 0.14
    foot = r.uniform(0.2, 1.2)  # where a conifer's branches begin
    rows = _trunk(
        r, radius, foot if conifer else clear, height, (0.0, 0.0) if conifer else lean, bark
    )
    density = r.choice((r.uniform(0.3, 1.0), r.uniform(0.7, 3.5)))
    spread = size * r.uniform(1.4, 4.2)
    if conifer:
        for level in range(5):
            f = level / 5.0
            z = foot + f * (height - foot)
            rows.append(
                crown(k.VEGETATION, m.LEAF, (0.0, 0.0, z + 0.4),
                      (spread * (1 - f) * 0.8, spread * (1 - f) * 0.8, 0.14 * height), density + 1.0, gain=gain)
            )  # fmt: skip
        return Item(rows, None, k.VEGETATION)
    if r.random() < 0.07:  # ivy
        rows.append(
            hedge(k.VEGETATION, m.LEAF, (-1.4 * radius - 0.1, 1.4 * radius + 0.1), 2.8 * radius + 0.2,
                  (0.0, clear * r.uniform(0.4, 1.0)), r.uniform(4.0, 12.0), gain=gain)
        )  # fmt: skip
    if bare:
        _bare(r, rows, clear, height, spread, radius)
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


def green_hedge(r: Random, length: float, height: float) -> Item:
    """A hedge along x, clipped, or grown out into a row of bushes."""
    gain = r.uniform(0.8, 1.2)
    density = r.uniform(3.0, 14.0)
    half = 0.5 * length
    if r.random() < 0.35:
        rows = []
        x = -half + 0.3
        while x < half:
            s = height * r.uniform(0.35, 0.75)
            at = (x, r.gauss(0.0, 0.15), s * r.uniform(0.5, 1.0))
            rows.append(
                crown(
                    k.VEGETATION,
                    m.LEAF,
                    at,
                    (s, s * r.uniform(0.6, 1.0), height - 0.5 * s),
                    density,
                    gain=gain,
                )
            )
            x += s * r.uniform(0.9, 1.6)
        return Item(rows, None, k.VEGETATION)
    width = r.uniform(0.5, 1.3)
    taper = r.uniform(0.0, 0.15)
    row = hedge(
        k.VEGETATION, m.LEAF, (-half, half), width, (-0.3, height), density, gain=gain,
        top=(-half + taper, half - taper), top_width=width - 2 * taper,
    )  # fmt: skip
    return Item([row], None, k.VEGETATION)


def tall_grass(r: Random) -> Item:
    """An unmown patch: terrain while it is low, vegetation where it hides the ground."""
    height = r.uniform(0.2, 0.9)
    label = k.TERRAIN if height < 0.4 else k.VEGETATION
    rows = []
    for _ in range(r.randint(1, 4)):
        a, b = r.uniform(0.8, 3.0), r.uniform(0.6, 2.0)
        x, y = r.gauss(0.0, 1.0), r.gauss(0.0, 0.8)
        rows.append(
            crown(label, m.LEAF, (x, y, 0.0), (a, b, height * r.uniform(0.7, 1.0)),
                  r.uniform(1.0, 5.0), gain=r.uniform(0.8, 1.1))
        )  # fmt: skip
    return Item(rows, None, label)


def bed(r: Random) -> Item:
    """A flower bed or ground cover, sometimes in a frame of stone (which real labels leave out)."""
    length, width, height = r.uniform(1.0, 5.0), r.uniform(0.6, 1.8), r.uniform(0.2, 0.6)
    half = 0.5 * length
    rows = []
    if r.random() < 0.4:
        rows.append(box(255, m.PLASTER, (-half, half), width, (-0.2, 0.5 * height)))
    for _ in range(r.randint(2, 5)):
        s = r.uniform(0.25, 0.5) * width
        at = (r.uniform(-half, half) * 0.8, r.gauss(0.0, 0.2 * width), 0.4 * height)
        rows.append(
            crown(
                k.VEGETATION,
                m.LEAF,
                at,
                (2.0 * s, s, height),
                r.uniform(3.0, 9.0),
                gain=r.uniform(0.8, 1.2),
            )
        )
    return Item(rows, None, k.VEGETATION)
