"""Builders of primitives and materials: an ``Item`` is a thing in its own frame.

The frame of an item: x to its front, y to its left, z up, the origin on the floor below its middle.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
from numpy.typing import NDArray

from perception.datasets.rooms import distance as ds
from perception.datasets.rooms import texture as tx

__all__ = ["Item", "Palette", "Vector", "hsv", "place"]

Vector = tuple[float, float, float]
Row = list[float]


def hsv(hue: float, saturation: float, value: float) -> Vector:
    """sRGB of a hue (0..1, wraps), saturation and value."""
    s, v = min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0)
    return colorsys.hsv_to_rgb(hue % 1.0, s, v)


class Palette:
    """Collects materials; each is known by its number."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []

    def add(
        self,
        color: Vector,
        other: Vector | None = None,
        *,
        pattern: int = tx.PLAIN,
        size: float = 0.1,
        noise: float = 0.0,
        glow: float = 0.0,
        world: bool = False,
        seed: int = 0,
    ) -> int:
        """A material of sRGB colours; see ``texture.py`` for the patterns."""
        first = [c**2.2 for c in color]
        second = [c**2.2 for c in (color if other is None else other)]
        self.rows.append(
            [float(pattern), *first, *second, size, noise, glow, float(world), float(seed)]
        )
        return len(self.rows) - 1

    def array(self) -> NDArray[np.float64]:
        """``[K, 12]``."""
        return np.array(self.rows, np.float64).reshape(-1, tx.COLUMNS)


def _turn(yaw: float, pitch: float, roll: float) -> Row:
    """local_from_item, row after row, of a primitive rolled about x, pitched about y, turned about
    z, in this order."""
    cy, sy = math.cos(yaw), math.sin(yaw)
    cp, sp = math.cos(pitch), math.sin(pitch)
    cr, sr = math.cos(roll), math.sin(roll)
    return [
        cy * cp, sy * cp, -sp,
        cy * sp * sr - sy * cr, sy * sp * sr + cy * cr, cp * sr,
        cy * sp * cr + sy * sr, sy * sp * cr - cy * sr, cp * cr,
    ]  # fmt: skip


@dataclass(slots=True)
class Item:
    """A thing made of primitives.

    Attributes:
        label: its class.
        random: draws where its textures begin.
        rows: primitives, ``ROW`` numbers each.
        cuts: primitives cut out of them.
        tops: surfaces to put things on: (x, y of the middle, half length, half width, z).
    """

    label: str
    random: Random
    rows: list[Row] = field(default_factory=list)
    cuts: list[Row] = field(default_factory=list)
    tops: list[tuple[float, float, float, float, float]] = field(default_factory=list)

    def _row(
        self,
        kind: int,
        material: int,
        at: Vector,
        measures: tuple[float, float, float, float],
        half: Vector,
        turn: Row,
    ) -> Row:
        r = self.random.random
        offset = (7.0 * r(), 7.0 * r(), 7.0 * r())
        return [*at, *turn, *measures, kind, material, 0.0, 0.0, 0.0, *half, *offset, 0.0]

    def _add(self, row: Row, cuts: Sequence[Row]) -> Item:
        row[ds.CUT], row[ds.CUTS] = float(len(self.cuts)), float(len(cuts))
        self.cuts += cuts
        self.rows.append(row)
        return self

    def box(
        self,
        material: int,
        size: Vector,
        at: Vector,
        *,
        edge: float = 0.0,
        turn: Vector = (0.0, 0.0, 0.0),
        cuts: Sequence[Row] = (),
    ) -> Item:
        """A box of a size around ``at``; ``edge``: radius of its edges; ``turn``: yaw, pitch, roll."""
        a, b, c = 0.5 * size[0], 0.5 * size[1], 0.5 * size[2]
        edge = min(edge, 0.999 * min(a, b, c))
        row = self._row(ds.BOX, material, at, (a, b, c, edge), (a, b, c), _turn(*turn))
        return self._add(row, cuts)

    def ellipsoid(
        self,
        material: int,
        axes: Vector,
        at: Vector,
        *,
        turn: Vector = (0.0, 0.0, 0.0),
        cuts: Sequence[Row] = (),
    ) -> Item:
        """An ellipsoid of semi-axes around ``at``."""
        row = self._row(ds.ELLIPSOID, material, at, (*axes, 0.0), axes, _turn(*turn))
        return self._add(row, cuts)

    def cylinder(
        self,
        material: int,
        radius: float,
        height: float,
        at: Vector,
        *,
        edge: float = 0.0,
        turn: Vector = (0.0, 0.0, 0.0),
        cuts: Sequence[Row] = (),
    ) -> Item:
        """An upright cylinder around ``at``."""
        h = 0.5 * height
        edge = min(edge, radius, h)
        row = self._row(
            ds.CYLINDER, material, at, (radius, h, 0.0, edge), (radius, radius, h), _turn(*turn)
        )
        return self._add(row, cuts)

    def cone(
        self,
        material: int,
        low: float,
        top: float,
        height: float,
        at: Vector,
        *,
        turn: Vector = (0.0, 0.0, 0.0),
        cuts: Sequence[Row] = (),
    ) -> Item:
        """An upright truncated cone around ``at`` with radii ``low`` and ``top``."""
        r, h = max(low, top), 0.5 * height
        row = self._row(ds.CONE, material, at, (low, top, h, 0.0), (r, r, h), _turn(*turn))
        return self._add(row, cuts)

    def torus(
        self,
        material: int,
        ring: float,
        tube: float,
        at: Vector,
        *,
        turn: Vector = (0.0, 0.0, 0.0),
        cuts: Sequence[Row] = (),
    ) -> Item:
        """A flat ring around ``at``."""
        r = ring + tube
        row = self._row(ds.TORUS, material, at, (ring, tube, 0.0, 0.0), (r, r, tube), _turn(*turn))
        return self._add(row, cuts)

    def rod(
        self, material: int, start: Vector, end: Vector, radius: float, *, round_: bool = False
    ) -> Item:
        """A cylinder, or with ``round_`` a capsule, from a point to another."""
        dx, dy, dz = (e - s for s, e in zip(start, end, strict=True))
        length = math.sqrt(dx * dx + dy * dy + dz * dz)
        yaw, pitch = math.atan2(dy, dx), math.acos(max(-1.0, min(1.0, dz / length)))
        middle = (
            0.5 * (start[0] + end[0]),
            0.5 * (start[1] + end[1]),
            0.5 * (start[2] + end[2]),
        )
        return self.cylinder(
            material,
            radius,
            length + (2.0 * radius if round_ else 0.0),
            middle,
            edge=radius if round_ else 0.0,
            turn=(yaw, pitch, 0.0),
        )

    def legs(
        self, material: int, x: float, y: float, height: float, width: float, *, splay: float = 0.0
    ) -> Item:
        """Four legs around (±x, ±y), square, or round and leaning outward by ``splay`` m."""
        for sx in (-1.0, 1.0):
            for sy in (-1.0, 1.0):
                if splay > 0.0:
                    foot = (sx * (x + splay), sy * (y + splay), 0.006)
                    self.rod(material, foot, (sx * x, sy * y, height), 0.5 * width)
                else:
                    self.box(material, (width, width, height), (sx * x, sy * y, 0.5 * height))
        return self

    def add(self, other: Item, at: Vector, yaw: float = 0.0) -> Item:
        """Take over the primitives of another item, placed."""
        if not other.rows:
            return self
        moved = place(np.array(other.rows), at, yaw).tolist()
        for row in moved:
            row[ds.CUT] += len(self.cuts)
        self.rows += moved
        if other.cuts:
            self.cuts += place(np.array(other.cuts), at, yaw).tolist()
        return self

    def last(self, count: int = 1) -> list[Row]:
        """Take the last primitives back, to be cut out of another."""
        taken = self.rows[-count:]
        del self.rows[-count:]
        return taken

    def extent(self) -> tuple[Vector, Vector]:
        """Low and high corner of the upright box around the item, cuts left out."""
        from perception.datasets.rooms.tree import bounds

        around = bounds(np.array(self.rows))
        low, high = around[:, :3].min(axis=0).tolist(), around[:, 3:].max(axis=0).tolist()
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def place(rows: NDArray[np.float64], at: Vector, yaw: float) -> NDArray[np.float64]:
    """Rows ``[M, 28]`` turned about the z axis of their item and moved."""
    placed = rows.copy()
    c, s = math.cos(yaw), math.sin(yaw)
    placed[:, 0] = c * rows[:, 0] - s * rows[:, 1] + at[0]
    placed[:, 1] = s * rows[:, 0] + c * rows[:, 1] + at[1]
    placed[:, 2] += at[2]
    for k in (3, 6, 9):
        placed[:, k] = c * rows[:, k] - s * rows[:, k + 1]
        placed[:, k + 1] = s * rows[:, k] + c * rows[:, k + 1]
    return placed
