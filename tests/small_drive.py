"""A small drive past boxes on a bumpy plane, and small networks to label it with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from perception.datasets.encode import Encoder
from perception.datasets.sample import Sample
from perception.io import PointCloud
from perception.models import SPVCNN, MinkUNet
from perception.pipeline import Pipeline

NAMES = ("road", "car", "tree")
COLORS = [[128, 64, 128], [40, 80, 255], [16, 130, 40]]
FEATURES = ("intensity", "z", "range", "offset")


def ground(count: int, edge: float, seed: int = 0) -> PointCloud:
    """A bumpy plane of `edge` metres with walls on it."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-edge / 2, edge / 2, (count, 3))
    points[:, 2] = 0.3 * np.sin(points[:, 0]) + rng.normal(0, 0.02, count)
    walls = rng.random(count) < 0.3
    points[walls, 0] = np.round(points[walls, 0] / 4) * 4
    points[walls, 2] = rng.uniform(0, 2, walls.sum())
    return PointCloud(points, {"intensity": rng.random(count).astype(np.float32)})


def pose(number: int) -> np.ndarray:
    """The sensor after `number` frames: it drives a curve, uphill."""
    angle = 0.05 * number
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = [0.8 * number + 300, 0.1 * number**2, 0.05 * number]
    return matrix


def drive(frames: int, count: int = 1500, edge: float = 12.0) -> list[Sample]:
    """Scans of a drive, each with its own points, in its sensor's frame."""
    return [
        Sample(ground(count, edge, seed), pose=pose(seed), name=f"{seed:06d}", time=0.1 * seed)
        for seed in range(frames)
    ]


def pipeline(
    *,
    channels: Sequence[int] = (8, 8, 12, 8, 8),
    features: Sequence[str] = FEATURES,
    voxel_size: float = 0.2,
    time: Any = None,
    kernel: Any = "cube",
    time_stride: int = 1,
    points: bool = False,
    frames: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Pipeline:
    """A network of random weights whose scores and statistics are not degenerate."""
    torch.manual_seed(seed)
    encoder = Encoder(voxel_size, features, time)
    shape: dict[str, Any] = {"channels": channels, "kernel": kernel, "dim": encoder.dim}
    if time is not None:
        shape["stride"] = (2, 2, 2, time_stride)
    if points:
        net: MinkUNet = SPVCNN(encoder.channels, len(NAMES), needs_points=True, **shape)
    else:
        net = MinkUNet(encoder.channels, len(NAMES), depth=14, **shape)
    for module in net.modules():
        if hasattr(module, "running_var"):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return Pipeline(net, encoder, NAMES, COLORS, name="small", frames=frames, **options)
