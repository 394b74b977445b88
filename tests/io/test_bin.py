"""Recognition of headerless scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.io import FormatError, PointCloud, read, write


def scan(count: int = 1000) -> PointCloud:
    rng = np.random.default_rng(1)
    points = rng.normal(0, 20, (count, 3)).astype(np.float32)
    attributes = {
        "intensity": (rng.integers(0, 256, count) / 255).astype(np.float32),
        "ring": rng.integers(0, 32, count),
        "time": rng.random(count).astype(np.float32) * 0.45,
    }
    return PointCloud(points, attributes)


@pytest.mark.parametrize("layout", ["kitti", "nuscenes", "nuscenes-fp16"])
# 40 points of 20 bytes are 50 of 16 and 80 of 10: only the values tell.
@pytest.mark.parametrize("count", [40, 1000, 997])
def test_layouts_are_recognised(tmp_path: Path, layout: str, count: int) -> None:
    cloud = scan(count)
    write(tmp_path / "a.bin", cloud, layout=layout)
    found = read(tmp_path / "a.bin")
    stated = read(tmp_path / "a.bin", layout=layout)
    assert len(found) == count
    np.testing.assert_array_equal(found.points, stated.points)
    tolerance = 0.05 if layout.endswith("16") else 0
    np.testing.assert_allclose(found.points, cloud.points, atol=tolerance)
    intensity = cloud.attributes["intensity"]
    np.testing.assert_allclose(found.attributes["intensity"], intensity, atol=1e-6)
    if layout == "nuscenes":
        np.testing.assert_array_equal(found.attributes["ring"], cloud.attributes["ring"])


def test_kitti_with_bytes_of_intensity(tmp_path: Path) -> None:
    rows = np.concatenate([scan().points, scan().attributes["intensity"][:, None] * 255], axis=1)
    rows.astype(np.float32).tofile(tmp_path / "a.bin")
    assert 0.9 < read(tmp_path / "a.bin").attributes["intensity"].max() <= 1


def test_sweep_name_is_nuscenes(tmp_path: Path) -> None:
    write(tmp_path / "a.pcd.bin", scan())
    assert read(tmp_path / "a.pcd.bin").attributes["ring"].max() == 31
    write(tmp_path / "b.bin", scan())
    (tmp_path / "b.bin").rename(tmp_path / "b.pcd.bin")
    with pytest.raises(FormatError, match="nuscenes"):
        read(tmp_path / "b.pcd.bin")


def test_ambiguous_files_ask_for_the_layout(tmp_path: Path) -> None:
    (tmp_path / "zeros.bin").write_bytes(bytes(80 * 10))
    with pytest.raises(FormatError, match=r"ambiguous.*layout=kitti\|nuscenes"):
        read(tmp_path / "zeros.bin")
    assert len(read(tmp_path / "zeros.bin", layout="nuscenes")) == 40


def test_stated_layouts_are_checked(tmp_path: Path) -> None:
    rows = np.tile(np.array([1, 2, 3, 255, 0, 128], np.float32), (7, 1))
    rows.tofile(tmp_path / "a.bin")
    cloud = read(tmp_path / "a.bin", layout="xyzrgb")
    assert (cloud.attributes["red"] == 255).all()
    assert (cloud.attributes["blue"] == 128).all()
    with pytest.raises(FormatError, match="no multiple of the 16 bytes of layout kitti"):
        read(tmp_path / "a.bin", layout="kitti")
    with pytest.raises(FormatError, match="layout 'velodyne' is unknown"):
        read(tmp_path / "a.bin", layout="velodyne")
    write(tmp_path / "a.ply", cloud)
    with pytest.raises(FormatError, match="takes no layout"):
        read(tmp_path / "a.ply", layout="kitti")


def test_geo_referenced_clouds_do_not_fit(tmp_path: Path) -> None:
    cloud = scan().replace(origin=np.array([5e5, 5e6, 0]))
    with pytest.raises(FormatError, match="geo-referenced"):
        write(tmp_path / "a.bin", cloud)
