"""The simulated street beside real 64-beam scans: voxel statistics, classes, scans a second.

    python -m perception.tools.bench.street [--seeds 24] [SCAN.bin ...]

The real columns are the three scans of ``perception.datasets.street.REAL_SCANS``; files given on
the command line (anything ``perception.io.read`` knows) are measured and printed as well.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.datasets.street import CLASSES, REAL_SCANS, Street, scan, voxel_statistics
from perception.datasets.street.statistics import VOXEL_SIZES
from perception.io import read

__all__ = ["main", "speed", "table"]


def table(seeds: Sequence[int]) -> tuple[dict[float, NDArray[np.float64]], dict[str, float]]:
    """Statistics ``[seeds, stride, (sites, taps)]`` by voxel size, and mean points per class."""
    clouds = []
    counts = np.zeros(len(CLASSES))
    for seed in seeds:
        sample = scan(seed)
        assert sample.labels is not None
        clouds.append(sample.cloud.points)
        counts += np.bincount(sample.labels, minlength=256)[: len(CLASSES)]
    statistics = {
        size: np.array([voxel_statistics(points, size) for points in clouds])
        for size in VOXEL_SIZES
    }
    classes = dict(zip(CLASSES, (counts / len(clouds)).tolist(), strict=True))
    return statistics, {"points": float(np.mean([len(c) for c in clouds])), **classes}


def speed(seeds: Sequence[int]) -> tuple[float, float]:
    """Scans per second of processor time of one thread: a new street every time (as in training),
    and consecutive frames of one street."""
    scan(seeds[0])  # compile, or load what was compiled
    start = time.process_time()
    for seed in seeds:
        scan(seed)
    fresh = len(seeds) / (time.process_time() - start)
    street = Street(seeds[0])
    street.scan(0)
    start = time.process_time()
    for frame in range(len(seeds)):
        street.scan(frame)
    return fresh, len(seeds) / (time.process_time() - start)


def _report(statistics: dict[float, NDArray[np.float64]], files: Sequence[Path]) -> list[str]:
    real = {
        name: {size: np.array(rows) for size, rows in known.items()}
        for name, known in REAL_SCANS.items()
    }
    extra = {
        path.name: {
            size: np.array(voxel_statistics(read(path).points, size)) for size in VOXEL_SIZES
        }
        for path in files
    }
    lines = []
    for size, simulated in statistics.items():
        mean = np.mean([columns[size] for columns in real.values()], axis=0)
        for stride in range(simulated.shape[1]):
            for what, kind in ((0, "sites"), (1, "taps")):
                values = simulated[:, stride, what]
                cell = (lambda v: f"{v:.0f}") if kind == "sites" else (lambda v: f"{v:.2f}")
                row = [
                    f"{size} m",
                    str(2**stride),
                    kind,
                    f"{cell(values.mean())} ({cell(values.min())} to {cell(values.max())})",
                    cell(mean[stride, what]),
                    f"{values.mean() / mean[stride, what]:.2f}",
                ]
                for columns in (real | extra).values():
                    one = columns[size][stride, what]
                    row.append(f"{cell(one)} ({values.mean() / one:.2f})")
                lines.append("| " + " | ".join(row) + " |")
    names = ["voxel", "stride", "", "simulated (range)", "real mean", "ratio", *real, *extra]
    return [
        "| " + " | ".join(names) + " |",
        "|" + "---|" * len(names),
        *lines,
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Print everything as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=24, help="streets 0 ... SEEDS - 1")
    parser.add_argument("files", nargs="*", type=Path, help="real scans to measure as well")
    options = parser.parse_args(argv)
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    seeds = range(options.seeds)
    statistics, classes = table(seeds)
    print(*_report(statistics, options.files), sep="\n")
    print("\nMean points a scan:", ", ".join(f"{k} {v:.0f}" for k, v in classes.items()))
    fresh, frames = speed(seeds)
    print(f"Scans a second on one core: {fresh:.1f} (new streets), {frames:.1f} (one sequence)")


if __name__ == "__main__":
    main()
