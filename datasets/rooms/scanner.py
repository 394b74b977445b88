"""Sensors: what a depth camera carried about, or a laser on a tripod, makes of a scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.datasets.posed import PosedImages
from perception.datasets.posed.collection import every_eighth
from perception.datasets.rooms.scene import Scene
from perception.datasets.sample import IGNORE
from perception.geometry import Camera

__all__ = ["Points", "fuse", "posed", "sweep", "thin"]


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """A cloud with annotations.

    Attributes:
        points: ``[N, 3] float32``.
        colors: ``[N, 3] uint8``.
        labels, instances: ``[N]`` uint8, int32.
    """

    points: NDArray[np.float32]
    colors: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    instances: NDArray[np.int32]


def posed(
    scene: Scene,
    cameras: Sequence[Camera],
    *,
    samples: int = 1,
    alpha: bool = False,
    layout: str = "",
) -> PosedImages:
    """What cameras see of a scene, in memory, with depth; every eighth image is for test."""
    images = tuple(
        scene.image(camera, samples=samples, alpha=alpha, name=f"{k:04d}")
        for k, camera in enumerate(cameras)
    )
    near_far = np.zeros((len(images), 2))
    for k, image in enumerate(images):
        assert image.depth is not None
        seen = image.depth[image.depth > 0]
        near_far[k] = (seen.min(), seen.max()) if len(seen) else (0.1, 1.0)
    return PosedImages(images, every_eighth(len(images)), near_far, layout=layout)


def thin(
    points: NDArray[np.float64], cell: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Numbers of the points that stay when one, drawn at random, remains in each cubic cell."""
    order = generator.permutation(len(points))
    grid = np.floor(points[order] / cell).astype(np.int64)
    grid -= grid.min(axis=0, initial=0)
    size = grid.max(axis=0, initial=0) + 1
    key = (grid[:, 0] * size[1] + grid[:, 1]) * size[2] + grid[:, 2]
    return order[np.unique(key, return_index=True)[1]]


def fuse(
    scene: Scene,
    cameras: Sequence[Camera],
    count: int,
    generator: np.random.Generator,
    *,
    cell: float = 0.02,
    far: float = 4.5,
    noise: float = 1.0,
) -> Points:
    """At most ``count`` points as from the fused frames of a depth camera.

    A frame sees what is between 0.4 m and ``far`` and not at a grazing angle; glass and lights give
    it nothing. Axial noise is that of Nguyen, Izadi and Lovell ("Modeling Kinect sensor noise",
    2012), 1.2 mm + 1.9 mm (z - 0.4 m)², here per point and, as large again, smooth over a frame as
    what fusion leaves; poses are a few millimetres and milliradians out. One point a cell stays.

    Args:
        scene: what is scanned.
        cameras: one a frame; their resolution says how many rays there are.
        count: of points, at most.
        generator: of what is random.
        cell: edge of the cells, m.
        far: m.
        noise: factor on all noise.
    """
    starts, hits, seen, frames = [], [], [], []
    for number, camera in enumerate(cameras):
        rays = camera.width * camera.height
        jitter = generator.uniform(0.0, 1.0, (rays, 2))
        pixels = np.stack(np.divmod(np.arange(rays), camera.width)[::-1], axis=1) + jitter
        origin, ways = camera.rays(pixels)
        ranges, who = scene.cast(origin, ways, far)
        keep = (who >= 0) & (ranges > 0.4)
        starts.append(origin)
        hits.append(origin + ranges[keep, None] * ways[keep])
        seen.append(who[keep])
        frames.append(np.full(int(keep.sum()), number))
    true, who, frame = np.concatenate(hits), np.concatenate(seen), np.concatenate(frames)
    stay = thin(true, cell, generator)  # ordered in space, which the caches like
    true, who, frame = true[stay], who[stay], frame[stay]

    ways = true - np.array(starts).reshape(-1, 3)[frame]
    ranges = np.linalg.norm(ways, axis=1)
    ways /= np.maximum(ranges, 1e-9)[:, None]
    draw = generator.random(len(true))
    cosine = np.abs((scene.normals(true, who) * ways).sum(axis=1))
    keep = draw < np.clip((cosine - 0.06) * 6.0, 0.0, 0.98)
    keep &= ~scene.lost(who) | (draw < 0.05)
    if keep.sum() > count:
        keep[generator.permutation(np.flatnonzero(keep))[count:]] = False
    true, who, frame, ranges, ways = true[keep], who[keep], frame[keep], ranges[keep], ways[keep]

    axes = np.array([camera.pose[:3, 2] for camera in cameras]).reshape(-1, 3)[frame]
    depth = ranges * (ways * axes).sum(axis=1)
    spread = noise * (0.0012 + 0.0019 * (depth - 0.4) ** 2)
    shape = (len(cameras), 3)
    wave = generator.normal(0.0, 2.5, shape)[frame]
    phase = generator.uniform(0.0, 6.3, len(cameras))[frame]
    error = 0.7 * generator.normal(0.0, 1.0, len(true)) + np.sin((true * wave).sum(axis=1) + phase)
    drift = generator.normal(0.0, 0.0015 * noise, shape)[frame]
    turn = generator.normal(0.0, 0.0008 * noise, shape)[frame]
    points = true + (spread * error)[:, None] * ways + drift
    points += np.cross(ranges[:, None] * ways, turn)
    labels, instances = scene.annotate(who)
    colors = _grain(scene.paint(true, who)[0], generator, 2.5 * noise)
    return Points(points.astype(np.float32), colors, labels, instances)


def sweep(
    scene: Scene,
    stations: Sequence[NDArray[np.float64]],
    count: int,
    generator: np.random.Generator,
    *,
    far: float = 30.0,
    noise: float = 1.0,
) -> Points:
    """About ``count`` points as from a laser scanner on a tripod, all stations in one frame.

    Beams go out at even angles from 60 degrees below to 90 above the horizon. A range is 2 mm out,
    more at grazing angles, where it may be lost; glass lets most beams through; at the edge of a
    thing a beam may hit both it and what is behind and report a range between (label 255).
    """
    clean, found, seen, mixed = [], [], [], []
    each = 1.12 * count / max(len(stations), 1)
    rows = max(8, round(math.sqrt(each * 150.0 / 360.0)))
    columns = max(8, round(each / rows))
    for station in stations:
        turn = generator.uniform(0.0, 2.0 * np.pi)
        low = np.deg2rad(-60.0)
        up = low + (np.arange(rows) + 0.5) / rows * (0.5 * np.pi - low)
        round_ = turn + np.arange(columns) / columns * 2.0 * np.pi
        e, a = (grid.ravel() for grid in np.meshgrid(up, round_))
        ways = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], axis=1)
        ranges, who = scene.cast(station, ways, far)
        keep = (who >= 0) & (ranges > 0.3)
        near = np.where(keep, ranges, 0.0)
        points = station + near[:, None] * ways
        cosine = np.zeros(len(ways))
        facing = scene.normals(points[keep], who[keep]) * ways[keep]
        cosine[keep] = np.abs(facing.sum(axis=1))
        draw = generator.random(len(ways))
        keep &= draw < np.clip(0.3 + cosine * 9.0, 0.0, 0.995)
        keep &= ~scene.lost(who) | (draw < 0.1)
        near += (
            noise * 0.002 * generator.normal(0.0, 1.0, len(ways)) / np.sqrt(np.maximum(cosine, 0.1))
        )
        # The neighbour below in the raster, if what it meets is far before or behind.
        other = np.roll(ranges, 1)
        both = np.isfinite(ranges) & np.isfinite(other) & (np.arange(len(e)) % rows > 0)
        step = np.zeros(len(ways))
        step[both] = other[both] - ranges[both]
        edge = (draw < 0.12 * noise) & (np.abs(step) > 0.05)
        near[edge] += generator.random(int(edge.sum())) * step[edge]
        clean.append(points[keep])
        found.append((station + near[:, None] * ways)[keep])
        seen.append(who[keep])
        mixed.append(edge[keep])
    true, points = np.concatenate(clean), np.concatenate(found)
    who, blurred = np.concatenate(seen), np.concatenate(mixed)
    if len(points) > count:
        stay = np.sort(generator.permutation(len(points))[:count])
        true, points, who, blurred = true[stay], points[stay], who[stay], blurred[stay]
    labels, instances = scene.annotate(who)
    labels[blurred] = IGNORE
    instances[blurred] = 0
    colors = _grain(scene.paint(true, who)[0], generator, 3.0 * noise)
    return Points(points.astype(np.float32), colors, labels, instances)


def _grain(
    colors: NDArray[np.uint8], generator: np.random.Generator, level: float
) -> NDArray[np.uint8]:
    """Noise of an image sensor."""
    noisy = colors + generator.normal(0.0, 1.0, colors.shape).astype(np.float32) * level
    return np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
