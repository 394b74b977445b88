"""The simulated scans look to a sparse convolution as the real ones do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.datasets.street import REAL_SCANS, scan, voxel_statistics
from perception.datasets.street.statistics import VOXEL_SIZES

SEEDS = range(24)
FILES = {
    "SemanticKITTI 000000": "semantickitti_spvnas/000000.bin",
    "KITTI object 000000": "kitti_object/training/velodyne/000000.bin",
    "KITTI odometry 00 000000": "kitti_odometry_00/velodyne/000000.bin",
}


def test_statistics_of_known_sites() -> None:
    # Two sites side by side and one far off: 2 + 2 + 1 taps. At stride 2 the pair falls together.
    points = np.array([[0.05, 0.05, 0.05], [-0.05, 0.05, 0.05], [5.05, 0.05, 0.05]])
    (one, two) = voxel_statistics(points, 0.1, strides=2)
    assert one == (3, pytest.approx(5 / 3))
    assert two == (3, pytest.approx(5 / 3))  # -1 and 0 halve to -1 and 0
    (_, together) = voxel_statistics(points + np.array([0.2, 0.0, 0.0]), 0.1, strides=2)
    assert together[0] == 3
    solid = np.stack(np.meshgrid(*[np.arange(6)] * 3), -1).reshape(-1, 3) + 0.5
    assert voxel_statistics(solid, 1.0, strides=1) == ((216, pytest.approx((16 / 6) ** 3)),)
    assert voxel_statistics(np.empty((0, 3)), 1.0, strides=1) == ((0, 0.0),)
    with pytest.raises(ValueError, match="2\\^20"):
        voxel_statistics([[1e9, 0.0, 0.0]], 0.1)


@pytest.mark.parametrize("name", FILES)
def test_the_table_is_what_the_real_files_give(name: str, shared_data: Path) -> None:
    points = np.fromfile(shared_data / FILES[name], np.float32).reshape(-1, 4)
    for voxel_size in VOXEL_SIZES:
        measured = voxel_statistics(points, voxel_size)
        for (sites, taps), (known_sites, known_taps) in zip(
            measured, REAL_SCANS[name][voxel_size], strict=True
        ):
            assert sites == known_sites
            assert round(taps, 2) == known_taps


def test_statistics_are_within_15_percent_of_the_real_scans() -> None:
    scans = [scan(seed).cloud.points for seed in SEEDS]
    for voxel_size in VOXEL_SIZES:
        simulated = np.array([voxel_statistics(points, voxel_size) for points in scans])
        real = np.array([table[voxel_size] for table in REAL_SCANS.values()])
        ratio = simulated.mean(axis=0) / real.mean(axis=0)
        assert np.abs(ratio - 1.0).max() < 0.15, f"{voxel_size} m: {ratio.round(2).tolist()}"
    assert 112_000 < np.mean([len(points) for points in scans]) < 127_000
