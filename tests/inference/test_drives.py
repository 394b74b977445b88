"""Which poses belong to which scans of a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_drive import pose

from perception.inference import find_drive
from perception.io import FormatError


def lines(path: Path, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, [pose(number)[:3].ravel() for number in range(count)], fmt="%.9g")


def scans(folder: Path, numbers: range) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:06d}.bin" for number in numbers]
    for file in files:
        file.touch()
    return files


def test_beside_the_scans_or_their_folder(tmp_path: Path) -> None:
    for name, poses in (
        ("a", "a/poses.txt"),
        ("b/velodyne", "b/poses.txt"),
        ("c/sequences/07/velodyne", "c/poses/07.txt"),
        ("d/lidar", "d/lidar/poses.txt"),
    ):
        files = scans(tmp_path / name, range(3))
        assert find_drive(files) is None
        lines(tmp_path / poses, 3)
        found = find_drive(files)
        assert found is not None
        assert found.source == tmp_path / poses
        assert found.times is None
        np.testing.assert_allclose(found.poses, [pose(n) for n in range(3)], atol=1e-6)


def test_tum_has_times_and_more_lines_go_by_the_number(tmp_path: Path) -> None:
    files = scans(tmp_path, range(2, 5))
    tum = [[0.1 * n, n, 0, 0, 0, 0, 0, 1] for n in range(8)]
    np.savetxt(tmp_path / "poses.tum", tum)
    found = find_drive(files)
    assert found is not None
    assert found.times is not None
    np.testing.assert_allclose(found.times, [0.2, 0.3, 0.4])
    np.testing.assert_allclose(found.poses[:, 0, 3], [2, 3, 4])


def test_errors_name_file_cause_and_remedy(tmp_path: Path) -> None:
    files = scans(tmp_path, range(3))
    with pytest.raises(FileNotFoundError, match=r"none\.txt: no such file of poses"):
        find_drive(files, tmp_path / "none.txt")
    lines(tmp_path / "poses.txt", 2)
    with pytest.raises(FormatError, match="2 lines for 3 scans"):
        find_drive(files)
    lines(tmp_path / "poses.txt", 3)
    (tmp_path / "times.txt").write_text("1\n2\n")
    with pytest.raises(FormatError, match=r"times\.txt: has 2 lines for 3 scans"):
        find_drive(files)
    (tmp_path / "times.txt").write_text("early\n")
    with pytest.raises(FormatError, match="no list of times"):
        find_drive(files)


def test_real_poses_are_moved_from_the_camera_to_the_lidar(shared_data: Path) -> None:
    folder = shared_data / "kitti_odometry_00"
    found = find_drive(sorted((folder / "velodyne").glob("*.bin")), folder / "poses_first20.txt")
    assert found is not None
    assert found.poses.shape == (6, 4, 4)
    step = np.diff(found.poses[:, :3, 3], axis=0)
    np.testing.assert_allclose(step[:, 0], 0.86, atol=0.05)  # x is forward
    assert np.abs(step[:, 1:]).max() < 0.1
