"""Files to batches: how many scans a second the data loader makes, and what share of memory it uses.

    python -m perception.tools.bench.loader [SCAN.bin ...]

Every scan is read from its file, flipped, rotated, scaled and shifted, encoded (intensity, height,
range, offset), voxelized and joined to batches of two, by as many worker processes as are asked for.
Without files the simulated street is written to a temporary folder first.

Limit: bytes. What must move at the least is counted once: the file, the cloud made of it, the moved
points, the features of points, and the tensors of the batch; it is set against the copy that one
core of the same machine does in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from perception.datasets.collate import SegmentationBatch
from perception.datasets.readers.scan_files import read_velodyne
from perception.datasets.sample import Sample
from perception.datasets.segmentation import SegmentationData
from perception.datasets.transforms import Flip, Rotate, Scale, Translate

__all__ = ["Files", "Speed", "main", "measure"]

FEATURES = ("intensity", "height", "range", "offset")
BATCH = 2
VOXEL_SIZES = (0.05, 0.1)


class Files:
    """KITTI scans, over and over, as a data set of `count` samples; every point has label 0."""

    classes: tuple[str, ...] = ("point",)
    colors = np.zeros((1, 3), np.uint8)
    box_classes: tuple[str, ...] = ()

    def __init__(self, paths: Sequence[Path], count: int) -> None:
        self.paths = list(paths)
        self.names: Sequence[str] = [f"{i}" for i in range(count)]
        self.sequences: Sequence[range] = [range(i, i + 1) for i in range(count)]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        cloud = read_velodyne(self.paths[index % len(self.paths)])
        return Sample(cloud, np.zeros(len(cloud), np.uint8), name=self.names[index])


@dataclass(frozen=True)
class Speed:
    """What a loader does.

    Attributes:
        voxel_size: metres.
        scans: a second of wall-clock time, the median of the repeats.
        core_seconds: processor time of one scan in one process, without a loader; the median.
        bytes: that must move for one scan.
        points: of one scan.
    """

    voxel_size: float
    scans: float
    core_seconds: float
    bytes: float
    points: float


def measure(
    paths: Sequence[Path], voxel_size: float, *, workers: int = 2, scans: int = 60, repeats: int = 3
) -> Speed:
    """Loads `scans` scans `repeats` times, with workers that are started before.

    Raises:
        FileNotFoundError, FormatError: a file is not there or no scan of KITTI.
    """
    data = SegmentationData(
        Files(paths, scans),
        Files(paths, 1),
        voxel_size=voxel_size,
        features=FEATURES,
        transforms=[Flip(x=0.5, y=0.5), Rotate(180.0), Scale((0.95, 1.05)), Translate(0.2)],
        batch_size=BATCH,
        num_workers=workers,
    )
    alone = SegmentationData(
        data.train_scans,
        data.val_scans,
        voxel_size=voxel_size,
        features=FEATURES,
        transforms=data.transform.steps,
        batch_size=BATCH,
        num_workers=0,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        core, moved, points = [], 0.0, 0.0
        batches: Iterator[SegmentationBatch] = iter(alone.train_dataloader())
        next(batches)  # compiles
        for _ in range(min(10, scans // BATCH - 1)):
            begin = time.process_time()
            batch = next(batches)
            core.append((time.process_time() - begin) / BATCH)
            moved, points = _bytes(batch) / BATCH, len(batch.point_labels) / BATCH
    finally:
        torch.set_num_threads(threads)

    loader, rates = data.train_dataloader(), []
    for repeat in range(repeats + 1):
        loader.sampler.set_epoch(repeat)
        begin, seen = time.perf_counter(), 0
        for batch in loader:
            seen += len(batch.names)
        rates.append(seen / (time.perf_counter() - begin))
    # The first epoch starts the workers.
    return Speed(voxel_size, statistics.median(rates[1:]), statistics.median(core), moved, points)


def _bytes(batch: SegmentationBatch) -> float:
    """Read and written for the scans of a batch, everything once."""
    n, channels = len(batch.point_labels), batch.x.num_channels
    file, cloud, moved = 16 * n, 16 * n, 12 * n
    tensors = (
        batch.x.coords,
        batch.x.features,
        batch.labels,
        batch.point_labels,
        batch.point_to_voxel,
    )
    read_again = cloud + moved + 4 * channels * n  # by the motion, the encoder, the voxelization
    written = cloud + moved + 4 * channels * n + sum(t.nbytes for t in tensors)
    return float(file + read_again + written)


def copy_rate() -> float:
    """GB/s that a copy of 256 MiB on one core reads and writes together, by its processor time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        source = torch.ones(1 << 26)
        target = torch.empty_like(source)
        best = float("inf")
        for _ in range(10):
            begin = time.process_time()
            target.copy_(source)
            best = min(best, time.process_time() - begin)
    finally:
        torch.set_num_threads(threads)
    return 2 * source.nbytes / best / 1e9


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "files", nargs="*", type=Path, help="scans of KITTI (.bin), or folders of them"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes of the loader")
    parser.add_argument("--scans", type=int, default=60, help="scans in a repeat")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(argv)
    if options.workers < 0 or options.scans < 2 * BATCH or options.repeats < 1:
        parser.error(f"--workers from 0, --scans from {2 * BATCH}, --repeats from 1")
    with tempfile.TemporaryDirectory() as folder:
        named = [sorted(f.glob("*.bin")) if f.is_dir() else [f] for f in options.files]
        paths = [file for files in named for file in files] or _simulated(Path(folder))
        cores = max(options.workers, 1)
        copy = copy_rate()
        print(f"copy: {copy:.1f} GB/s on one core; {cores} load")
        # Other processes lengthen the wall clock and not the processor time: the second figure is
        # what the cores give when they have nothing else to do.
        head = [
            "voxel",
            "scans/s by the clock",
            "by processor time",
            "ms of a core a scan",
            "GB/s a core",
        ]
        print("| " + " | ".join([*head, "share of the copy"]) + " |")
        print("|" + "---|" * (len(head) + 1))
        for size in VOXEL_SIZES:
            speed = measure(
                paths,
                size,
                workers=options.workers,
                scans=options.scans,
                repeats=options.repeats,
            )
            free = cores / speed.core_seconds
            rate = speed.bytes / speed.core_seconds / 1e9
            print(
                f"| {size} m | {speed.scans:.1f} | {free:.1f} | {1e3 * speed.core_seconds:.1f} | "
                f"{rate:.2f} | {100 * rate / copy:.1f} % |"
            )


def _simulated(folder: Path) -> list[Path]:
    from perception.datasets.street import scan
    from perception.io import write

    paths = [folder / f"{seed}.bin" for seed in range(4)]
    for seed, path in enumerate(paths):
        write(path, scan(seed).cloud)
    return paths


if __name__ == "__main__":
    main()
