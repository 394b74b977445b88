"""What is often wrong with a data set, and how it shows in the numbers of a few samples.

Each check returns lines that say what is suspicious and what to try; none where all looks well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from perception.datasets.sample import IGNORE, Image, Sample
from perception.geometry import Boxes3D, invert, transform
from perception.io import PointCloud

__all__ = ["axes", "boxes", "images", "labels", "poses"]

Points = NDArray[np.float32]
CELL = 0.4  # metres; coarser than the spacing of neighbouring beams at 30 m


def axes(cloud: PointCloud) -> list[str]:
    """Whether z points up and coordinates are metres."""
    points = cloud.points
    if len(points) < 50:
        return []
    found = []
    low, high = np.percentile(points, [5, 95], axis=0)
    extent = np.maximum(high - low, 1e-6)
    flat = int(extent.argmin())
    if flat != 2 and extent[2] > 4 * extent[flat] and float(np.median(extent)) > 4 * extent[flat]:
        found.append(
            f"the cloud is flat along {'xy'[flat]} ({extent[flat]:.3g} m) and {extent[2]:.3g} m high: "
            f"is {'xy'[flat]} the axis that points up? x is forward, y left, z up here"
        )
    elif _upside_down(points[:, 2]):
        found.append(
            "the densest layer has much below it and little above, as if the ground were the sky: does z "
            "point down? z is up here"
        )
    if cloud.frame == "lidar" and float(np.median(np.abs(points[:, :2]))) > 500:
        found.append(
            f"half of the points are farther than {np.median(np.abs(points[:, :2])):.0f} from the "
            "sensor: are these millimetres? divide by 1000"
        )
    intensity = cloud.attributes.get("intensity")
    if intensity is not None and len(intensity) and intensity.min() == intensity.max():
        found.append(f"intensity is {intensity[0]:.3g} everywhere: it tells a network nothing")
    return found


def _upside_down(z: NDArray[np.floating]) -> bool:
    """A ground with much below and little above it, and no floor at the bottom that would make it
    a ceiling."""
    low, high = np.percentile(z, [0.5, 99.5])
    if high - low < 2:
        return False
    counts, edges = np.histogram(z, bins=max(int((high - low) / 0.3), 8), range=(low, high))
    peak = int(counts.argmax())
    above = float((z > edges[peak + 1] + 0.3).mean())
    below = float((z < edges[peak] - 0.3).mean())
    floor = counts[: max(len(counts) // 5, 1)].max()
    return bool(below > 0.1 and above < below / 5 and floor < 0.3 * counts[peak])


def labels(samples: Sequence[Sample], classes: Sequence[str]) -> list[str]:
    """Whether labels are in the class list and say anything."""
    found = []
    known = [sample.labels for sample in samples if sample.labels is not None]
    if not known:
        return []
    joined = np.concatenate(known)
    beyond = joined[(joined >= len(classes)) & (joined != IGNORE)]
    if len(beyond):
        found.append(
            f"{len(beyond):,} points have labels outside the {len(classes)} classes, such as "
            f"{beyond[0]}: extend the class list or map them to {IGNORE}"
        )
    if len(joined) and (joined == IGNORE).mean() > 0.9:
        found.append(
            f"{(joined == IGNORE).mean():.0%} of the points have no class: is the mapping of ids right?"
        )
    elif len(np.unique(joined)) == 1:
        found.append("all points have the same class")
    return found


def boxes(samples: Sequence[Sample]) -> list[str]:
    """Whether boxes hold points, and whether another reading of their numbers holds more.

    The readings are the frequent mistakes: length and width exchanged (or yaw off by 90°), yaw with
    the other sign, z of the bottom instead of the centre, degrees instead of radians.
    """
    found = []
    total = empty = 0
    given = dict.fromkeys(READINGS, 0)
    read = dict.fromkeys(READINGS, 0)
    steep = False
    for sample in samples:
        if sample.boxes is None or not len(sample.boxes):
            continue
        rows = sample.boxes.boxes
        total += len(rows)
        empty += int((_inside(rows, sample.cloud.points) == 0).sum())
        steep |= bool(np.abs(rows[:, 6]).max() > 2 * np.pi + 0.01)
        points = _above_ground(sample.cloud.points, rows)
        now = _inside(rows, points)
        for name, (differs, reading) in READINGS.items():
            told = differs(rows)  # the boxes that this reading changes
            given[name] += int(now[told].sum())
            read[name] += int(_inside(reading(rows[told]), points).sum())
    if not total:
        return []
    best = max(READINGS, key=lambda name: read[name] - given[name])
    if read[best] > 1.25 * given[best] + 20:
        found.append(
            f"boxes hold {given[best]:,} points above the ground, but {read[best]:,} with {best}: "
            "check the convention of the boxes"
        )
    if steep:
        found.append("some |yaw| exceed 2 pi: are they degrees? yaw is in radians here")
    if empty == total:
        found.append(
            f"none of the {total} boxes holds a point: are boxes and points in one frame (LiDAR, metres)?"
        )
    elif empty > total / 2:
        found.append(f"{empty} of {total} boxes hold no point")
    return found


def _with(rows: Points, column: int, values: NDArray[np.floating]) -> Points:
    changed = rows.copy()
    changed[:, column] = values
    return changed


def _any(rows: Points) -> NDArray[np.bool_]:
    return np.ones(len(rows), bool)


# Which boxes a reading changes, and how it reads them.
READINGS: dict[str, tuple[Callable[[Points], NDArray[np.bool_]], Callable[[Points], Points]]] = {
    "length and width exchanged (or yaw turned by 90 degrees)": (
        lambda rows: np.maximum(rows[:, 3], rows[:, 4]) > 1.3 * np.minimum(rows[:, 3], rows[:, 4]),
        lambda rows: rows[:, [0, 1, 2, 4, 3, 5, 6]],
    ),
    "yaw of the other sign (clockwise instead of counter-clockwise)": (
        lambda rows: np.abs(np.sin(2 * rows[:, 6])) > 0.3,
        lambda rows: _with(rows, 6, -rows[:, 6]),
    ),
    "z moved up by half the height (the file gives the bottom, not the centre)": (
        _any,
        lambda rows: _with(rows, 2, rows[:, 2] + rows[:, 5] / 2),
    ),
    "z moved down by half the height (the file gives the top, not the centre)": (
        _any,
        lambda rows: _with(rows, 2, rows[:, 2] - rows[:, 5] / 2),
    ),
    "yaw in degrees taken for radians": (
        lambda rows: np.abs(rows[:, 6]) > np.pi,
        lambda rows: _with(rows, 6, np.radians(rows[:, 6])),
    ),
}


def _inside(rows: NDArray[np.floating], points: Points) -> NDArray[np.int64]:
    """How many points each box holds, ``[M]``."""
    return np.asarray(
        Boxes3D(rows.astype(np.float32), np.zeros(len(rows), np.int64)).contains(points).sum(axis=1)
    )


def _above_ground(points: Points, rows: NDArray[np.floating]) -> Points:
    """The points around boxes that are higher than 0.3 m over the lowest ones near their box."""
    chosen = np.zeros(len(points), bool)
    for row in rows:
        reach = np.hypot(row[3], row[4]) / 2 + 2
        near = np.hypot(points[:, 0] - row[0], points[:, 1] - row[1]) < reach
        if near.any():
            chosen |= near & (points[:, 2] > np.percentile(points[near, 2], 2) + 0.3)
    return points[chosen]


def poses(first: Sample, later: Sample) -> list[str]:
    """Whether the poses of two frames of one drive bring their scans together.

    The share of the later scan's points that fall into cells with points of the first: moved by the
    poses, left where they are, and moved by the inverse.
    """
    if first.pose is None or later.pose is None:
        return []
    motion = invert(first.pose) @ later.pose
    if np.linalg.norm(motion[:3, 3]) < 0.5:
        return []
    here, there = _raised(first.cloud.points), _raised(later.cloud.points)
    if len(here) < 100 or len(there) < 100:
        return []
    cells = np.unique(_cells(here))
    shares = [
        float(np.isin(_cells(transform(move, there)), cells).mean())
        for move in (motion, np.eye(4), invert(motion))
    ]
    if max(shares[1:]) <= shares[0] + 0.05:
        return []
    if shares[2] > shares[1]:
        return [
            f"scans overlap better by the inverse of their poses ({shares[2]:.0%}, not "
            f"{shares[0]:.0%}): poses are world_from_sensor here"
        ]
    return [
        f"scans overlap better without their poses ({shares[1]:.0%}, not {shares[0]:.0%}): are the "
        "poses a camera's, or of other frames?"
    ]


def _raised(points: Points) -> Points:
    near = points[np.abs(points[:, :2]).max(axis=1) < 40]
    if not len(near):
        return near
    raised = near[near[:, 2] > np.percentile(near[:, 2], 5) + 0.7]
    return raised[:: max(len(raised) // 30_000, 1)]


def _cells(points: NDArray[np.floating]) -> NDArray[np.int64]:
    cells = np.floor(points / CELL).astype(np.int64) + 2**19
    return np.asarray((cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2])


def images(cloud: PointCloud, pictures: Sequence[Image]) -> list[str]:
    """Whether any camera sees any point."""
    found = []
    for image in pictures:
        pixels, depth = image.camera.project(cloud.points)
        size = np.array([image.camera.width, image.camera.height])
        seen = (depth > 0.1) & (pixels >= 0).all(axis=1) & (pixels < size).all(axis=1)
        if len(cloud) and not seen.any():
            found.append(
                f"camera {image.name} sees none of the points: is its pose lidar_from_camera?"
            )
    return found
