"""Builders of single primitives: one row of float64 each, in the frame of their object.

The columns are described in ``raycast.py``. A row is placed in the world by
``place`` (turn by a yaw, then move).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perception.datasets.street import raycast as rc

__all__ = [
    "Row",
    "box",
    "crown",
    "cylinder",
    "ellipsoid",
    "facade",
    "hedge",
    "paling",
    "place",
    "spokes",
]

Row = list[float]


def box(
    label: int,
    material: int,
    x: tuple[float, float],
    width: float,
    z: tuple[float, float],
    *,
    top: tuple[float, float] | None = None,
    top_width: float | None = None,
    y: float = 0.0,
    yaw: float = 0.0,
    gain: float = 1.0,
    kind: int = rc.BOX,
    extra: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
    at: tuple[float, float] = (0.0, 0.0),
) -> Row:
    """A box from x[0] to x[1], ``width`` wide around ``y``, from z[0] to z[1]; ``top`` and
    ``top_width`` taper it. ``at`` and ``yaw`` place it in the frame of its object."""
    back, front = x
    top_back, top_front = top if top is not None else x
    half = 0.5 * width
    top_half = half if top_width is None else 0.5 * top_width
    c, s = math.cos(yaw), math.sin(yaw)
    return [
        at[0] - s * y, at[1] + c * y, z[0], z[1], c, s,
        back, front, top_back, top_front, half, top_half,
        extra[0], extra[1], extra[2], extra[3],
        kind, label, material, gain,
    ]  # fmt: skip


def facade(
    label: int,
    material: int,
    x: tuple[float, float],
    width: float,
    z: tuple[float, float],
    *,
    pitch: float,
    window: float,
    storey: float,
    recess: float,
    y: float = 0.0,
    gain: float = 1.0,
) -> Row:
    """A building block with windows ``window`` wide every ``pitch`` metres on each storey."""
    return box(
        label,
        material,
        x,
        width,
        z,
        y=y,
        gain=gain,
        kind=rc.FACADE,
        extra=(pitch, window, storey, recess),
    )


def paling(
    label: int,
    material: int,
    length: float,
    height: float,
    *,
    pitch: float,
    pale: float,
    share: float = 1.0,
    gain: float = 1.0,
) -> Row:
    """A fence along x: pales ``pale`` wide every ``pitch`` metres with two rails, or (``pale`` 0)
    a mesh that stops ``share`` of the rays."""
    return box(
        label,
        material,
        (-0.5 * length, 0.5 * length),
        0.05,
        (-0.2, height),
        kind=rc.PALING,
        extra=(pitch, pale, share, 0.0),
        gain=gain,
    )


def hedge(
    label: int,
    material: int,
    x: tuple[float, float],
    width: float,
    z: tuple[float, float],
    density: float,
    *,
    gain: float = 1.0,
    top: tuple[float, float] | None = None,
    top_width: float | None = None,
) -> Row:
    """A box filled with leaves; ``density`` is the mean number of leaves a metre of ray."""
    return box(
        label,
        material,
        x,
        width,
        z,
        top=top,
        top_width=top_width,
        kind=rc.HEDGE,
        extra=(density, 0.0, 0.0, 0.0),
        gain=gain,
    )


def ellipsoid(
    label: int,
    material: int,
    centre: tuple[float, float, float],
    axes: tuple[float, float, float],
    *,
    gain: float = 1.0,
    kind: int = rc.ELLIPSOID,
    density: float = 0.0,
) -> Row:
    """A solid ellipsoid."""
    return [
        centre[0], centre[1], centre[2], 0.0, 1.0, 0.0,
        axes[0], axes[1], axes[2], 0.0, 0.0, 0.0,
        density, 0.0, 0.0, 0.0,
        kind, label, material, gain,
    ]  # fmt: skip


def crown(
    label: int,
    material: int,
    centre: tuple[float, float, float],
    axes: tuple[float, float, float],
    density: float,
    *,
    gain: float = 1.0,
) -> Row:
    """An ellipsoid filled with leaves; ``density`` is the mean number of leaves a metre of ray."""
    return ellipsoid(label, material, centre, axes, gain=gain, kind=rc.CROWN, density=density)


def cylinder(
    label: int,
    material: int,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    radius: float,
    *,
    gain: float = 1.0,
    kind: int = rc.CYLINDER,
    share: float = 1.0,
) -> Row:
    """A capped cylinder between two points."""
    return [
        start[0], start[1], start[2], 0.0, 1.0, 0.0,
        end[0] - start[0], end[1] - start[1], end[2] - start[2], radius, 0.0, 0.0,
        share, 0.0, 0.0, 0.0,
        kind, label, material, gain,
    ]  # fmt: skip


def spokes(
    label: int, material: int, centre: tuple[float, float, float], radius: float, share: float
) -> Row:
    """A bicycle wheel rolling along x: a thin disc that stops ``share`` of the rays."""
    start = (centre[0], centre[1] - 0.02, centre[2])
    end = (centre[0], centre[1] + 0.02, centre[2])
    return cylinder(label, material, start, end, radius, kind=rc.SPOKES, share=share)


def place(
    rows: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    z: NDArray[np.float64],
    yaw: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Rows ``[M, 20]`` turned by ``yaw [M]`` about their object's origin and moved to x, y, z."""
    placed = rows.copy()
    c, s = np.cos(yaw), np.sin(yaw)
    placed[:, rc.X] = c * rows[:, rc.X] - s * rows[:, rc.Y] + x
    placed[:, rc.Y] = s * rows[:, rc.X] + c * rows[:, rc.Y] + y
    placed[:, rc.Z] += z
    placed[:, rc.Z_TOP] += z
    placed[:, rc.COS] = c * rows[:, rc.COS] - s * rows[:, rc.SIN]
    placed[:, rc.SIN] = s * rows[:, rc.COS] + c * rows[:, rc.SIN]
    long = rows[:, rc.KIND] >= rc.CYLINDER
    placed[long, 6] = c[long] * rows[long, 6] - s[long] * rows[long, 7]
    placed[long, 7] = s[long] * rows[long, 6] + c[long] * rows[long, 7]
    return placed
