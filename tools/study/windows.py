"""Windows of consecutive scans of the simulated street, recorded once without sensor noise.

A file holds some windows as plain arrays: points in the frame of the sensor that saw them, and the
poses that register the frames of a window into its newest one. Noise is added when a window is used
(`noise.py`), so that training sees fresh noise every time and validation every level of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perception.datasets.street import Street
from perception.datasets.street.style import Style
from perception.datasets.street_scans import TRAIN_SEED, VALIDATION_SEED
from perception.geometry import invert
from perception.io import FormatError

__all__ = ["UNIT", "Windows", "files", "load", "record", "scene"]

UNIT: Final = 0.002
"""Metres that a step of the stored coordinates is; they reach 65 m."""
REACH: Final = 50.0
"""Horizontal metres beyond which points are left out, as in the bundled configurations."""
MODEL: Final = "spinning-32"
COLUMNS: Final = 1086
STARTS: Final = 50
"""A window begins at one of so many frames of its street."""
PER_FILE: Final = 25

Split = Literal["train", "val"]
_FIRST: Final[dict[str, int]] = {"train": TRAIN_SEED, "val": VALIDATION_SEED}


def scene(seed: int, frames: int) -> dict[str, NDArray]:
    """One window: `frames` consecutive scans (10 Hz) of a 32-beam LiDAR on street `seed`.

    Returns:
        `points [N, 3] int16` in steps of `UNIT`, each in the frame of its own sensor, frame after
        frame, the oldest first; `intensity [N] uint8`, hundredths; `labels [N] uint8`;
        `counts [frames] int32`, points of each frame; `poses [frames, 4, 4] float32`,
        newest_from_frame; `seed`, `start`: the street and its first frame.
    """
    own = Style(seed).sensor
    sensor = replace(own, model=MODEL, columns=COLUMNS, range_noise=0.0, dropout=0.0)
    street = Street(seed, sensor=sensor)
    start = int(np.random.default_rng([seed, 4]).integers(STARTS))
    samples = list(street.sequence(range(start, start + frames)))
    newest = samples[-1].pose
    assert newest is not None
    parts: dict[str, list[NDArray]] = {"points": [], "intensity": [], "labels": []}
    counts, poses = [], []
    for sample in samples:
        assert sample.labels is not None
        assert sample.pose is not None
        points = sample.cloud.points
        near = np.hypot(points[:, 0], points[:, 1]) < REACH
        parts["points"].append(np.round(points[near] / UNIT).astype(np.int16))
        shine = np.round(sample.cloud.attributes["intensity"][near] * 100.0)
        parts["intensity"].append(shine.astype(np.uint8))
        parts["labels"].append(sample.labels[near])
        counts.append(int(near.sum()))
        poses.append((invert(newest) @ sample.pose).astype(np.float32))
    return {
        **{name: np.concatenate(arrays) for name, arrays in parts.items()},
        "counts": np.array(counts, np.int32),
        "poses": np.stack(poses),
        "seed": np.array(seed),
        "start": np.array(start),
    }


def _write(path: str, seeds: Sequence[int], frames: int) -> str:
    scenes = [scene(seed, frames) for seed in seeds]
    joined = {
        name: (np.concatenate if name in ("points", "intensity", "labels") else np.stack)(
            [one[name] for one in scenes]
        )
        for name in scenes[0]
    }
    part = f"{path}.part"
    with open(part, "wb") as file:
        np.savez(
            file, allow_pickle=False, **joined
        )  # a file is whole or not there: what was cut off is made again
    os.replace(part, path)
    return path


def files(folder: Path, split: Split, windows: int, frames: int) -> dict[Path, range]:
    """The files that hold so many windows of a split, and the streets in each.

    Window i of a split always shows the same street, whatever the number of windows.
    """
    jobs = {}
    for first in range(0, windows, PER_FILE):
        count = min(PER_FILE, windows - first)
        path = folder / f"{split}-{frames}f-{first:06d}-{count:02d}.npz"
        jobs[path] = range(_FIRST[split] + first, _FIRST[split] + first + count)
    return jobs


def record(
    folder: Path, split: Split, windows: int, frames: int, *, workers: int | None = None
) -> None:
    """Writes the windows of a split into `folder`, in several processes; what is there is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = files(folder, split, windows, frames)
    missing = {path: seeds for path, seeds in jobs.items() if not path.is_file()}
    if missing:
        scene(_FIRST[split], 1)  # compiles once; the processes load what was compiled
        with ProcessPoolExecutor(min(workers or os.cpu_count() or 1, len(missing))) as pool:
            pending = [
                pool.submit(_write, str(path), list(seeds), frames)
                for path, seeds in missing.items()
            ]
            for done in as_completed(pending):
                done.result()


@dataclass(frozen=True)
class Windows:
    """Recorded windows of one split on a device.

    points: `[N, 3] int16`, see `scene`; intensity: `[N] uint8`; labels: `[N] uint8`.
    counts: `[W, T]`, points of every frame; first: `[W + 1]`, the first point of every window.
    poses: `[W, T, 4, 4] float32`, newest_from_frame, on the CPU.
    """

    points: Tensor
    intensity: Tensor
    labels: Tensor
    counts: NDArray[np.int32]
    first: NDArray[np.int64]
    poses: Tensor

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def frames(self) -> int:
        """Scans in a window, T."""
        return int(self.counts.shape[1])


def load(paths: Iterable[Path], device: torch.device) -> Windows:
    """Reads what `record` wrote.

    Raises:
        FileNotFoundError: a file is missing.
        FormatError: a file is not one of these.
    """
    points, intensity, labels, counts, poses = [], [], [], [], []
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: not recorded yet; run the stage generate first")
        try:
            with np.load(path, allow_pickle=False) as file:
                points.append(torch.from_numpy(file["points"]).to(device))
                intensity.append(torch.from_numpy(file["intensity"]).to(device))
                labels.append(torch.from_numpy(file["labels"]).to(device))
                counts.append(file["counts"])
                poses.append(torch.from_numpy(file["poses"]))
        except (ValueError, KeyError, OSError) as error:
            raise FormatError(path, f"holds no windows ({error})", "generate it again") from None
    table = np.concatenate(counts)
    return Windows(
        points=torch.cat(points),
        intensity=torch.cat(intensity),
        labels=torch.cat(labels),
        counts=table,
        first=np.concatenate([[0], np.cumsum(table.sum(1), dtype=np.int64)]),
        poses=torch.cat(poses),
    )
