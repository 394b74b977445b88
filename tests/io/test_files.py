"""Round trips through every format, the real files, and the errors a user can run into."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from perception.io import SUFFIXES, FormatError, PointCloud, read, write

WITH_EVERYTHING = (".ply", ".pcd", ".npz", ".las", ".laz", ".csv", ".xyz", ".txt")


def make_cloud(count: int = 500, origin: tuple[float, ...] = (0.0, 0.0, 0.0)) -> PointCloud:
    rng = np.random.default_rng(0)
    attributes = {
        "intensity": rng.random(count).astype(np.float32),
        "red": rng.integers(0, 256, count).astype(np.uint8),
        "green": rng.integers(0, 256, count).astype(np.uint8),
        "blue": np.full(count, 255, np.uint8),
        "label": rng.integers(0, 20, count).astype(np.uint8),
        "height": rng.random(count).astype(np.float32),
    }
    points = rng.normal(0, 30, (count, 3)).astype(np.float32)
    return PointCloud(points, attributes, origin=np.array(origin))


@pytest.mark.parametrize("suffix", WITH_EVERYTHING)
@pytest.mark.parametrize("origin", [(0.0, 0.0, 0.0), (451_234.0, 5_412_345.0, 312.0)])
def test_round_trip_keeps_everything(
    tmp_path: Path, suffix: str, origin: tuple[float, ...]
) -> None:
    cloud = make_cloud(origin=origin)
    write(tmp_path / f"cloud{suffix}", cloud)
    back = read(tmp_path / f"cloud{suffix}")
    assert back.points.dtype == np.float32
    # 0.1 mm is LAS's resolution here; float32 itself resolves 8 µm at 100 m.
    np.testing.assert_allclose(back.world(), cloud.world(), atol=1e-4, rtol=0)
    assert bool(back.origin.any()) == any(origin)
    for name, values in cloud.attributes.items():
        np.testing.assert_allclose(back.attributes[name], values, atol=1e-5, err_msg=name)
    assert back.attributes["red"].dtype == np.uint8
    assert back.attributes["intensity"].dtype == np.float32


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_writes_and_reads(tmp_path: Path, suffix: str) -> None:
    cloud = make_cloud()
    write(tmp_path / "deep" / f"cloud{suffix}", cloud)
    back = read(tmp_path / "deep" / f"cloud{suffix}")
    np.testing.assert_allclose(back.points, cloud.points, atol=1e-4)
    intensity = cloud.attributes["intensity"]
    np.testing.assert_allclose(back.attributes["intensity"], intensity, atol=1e-5)


def test_npz_keeps_time_and_vectors(tmp_path: Path) -> None:
    cloud = PointCloud(np.ones((4, 3)), {"normal": np.eye(4, 3)}, time=12.5)
    write(tmp_path / "a.npz", cloud)
    back = read(tmp_path / "a.npz")
    assert back.time == 12.5
    np.testing.assert_array_equal(back.attributes["normal"], np.eye(4, 3))


def test_geo_referenced_points_keep_millimetres(tmp_path: Path) -> None:
    world = np.array([[636000.001, 848935.202, 406.263], [636000.002, 848935.204, 406.266]])
    (tmp_path / "a.xyz").write_text("\n".join(" ".join(map(str, row)) for row in world))
    cloud = read(tmp_path / "a.xyz")
    assert np.abs(cloud.points).max() < 10
    assert cloud.frame == "world"
    np.testing.assert_allclose(cloud.world(), world, atol=1e-6)


def test_points_that_are_not_finite_are_dropped_and_reported(tmp_path: Path) -> None:
    rows = np.ones((10, 4), np.float32)
    rows[:, 3] = np.arange(10) / 10
    rows[3, 1] = np.nan
    rows[7, 0] = np.inf
    rows.tofile(tmp_path / "a.bin")
    with pytest.warns(UserWarning, match="dropped 2 of 10 points"):
        cloud = read(tmp_path / "a.bin", layout="kitti")
    assert len(cloud) == 8
    assert cloud.valid is not None
    assert np.flatnonzero(~cloud.valid).tolist() == [3, 7]
    np.testing.assert_allclose(cloud.attributes["intensity"][3], 0.4)
    rows[:, 0] = np.nan
    rows.tofile(tmp_path / "a.bin")
    with pytest.raises(FormatError, match="no point has finite coordinates"):
        read(tmp_path / "a.bin", layout="kitti")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1 2 3\n4 5 6\n", set()),
        ("1,2,3,0.5\n4,5,6,0.25\n", {"intensity"}),
        ("//X Y Z Scalar_Intensity\n1 2 3 10\n4 5 6 250\n", {"intensity"}),
        ("# x;y;z;r;g;b\n1;2;3;255;0;7\n4;5;6;0;0;0\n", {"red", "green", "blue"}),
        ("x,y,z,Classification\n1,2,3,5\n4,5,6,1\n", {"label"}),
        ("\n# made by hand\n1\t2\t3\n\n4\t5\t6\n", set()),
        ("1 2 3 255 0 0\n4 5 6 0 255 0\n", {"red", "green", "blue"}),
        ("intensity y x z\n0.5 2 1 3\n0.5 5 4 6\n", {"intensity"}),
    ],
)
def test_text_dialects(tmp_path: Path, text: str, names: set[str]) -> None:
    (tmp_path / "a.txt").write_text(text)
    cloud = read(tmp_path / "a.txt")
    np.testing.assert_array_equal(cloud.points, [[1, 2, 3], [4, 5, 6]])
    assert set(cloud.attributes) == names
    if "red" in names:
        assert cloud.attributes["red"][0] == 255


def test_structured_and_named_arrays(tmp_path: Path) -> None:
    rows = np.zeros(3, dtype=[("x", "f8"), ("y", "f8"), ("z", "f8"), ("reflectivity", "u2")])
    rows["x"], rows["reflectivity"] = [1, 2, 3], [0, 100, 255]
    np.save(tmp_path / "a.npy", rows)
    np.testing.assert_allclose(read(tmp_path / "a.npy").attributes["intensity"], [0, 100 / 255, 1])
    np.savez(tmp_path / "b.npz", anything=np.ones((4, 3)), label=np.arange(4))
    assert read(tmp_path / "b.npz").attributes["label"].tolist() == [0, 1, 2, 3]


def test_pcd_packed_colours(tmp_path: Path) -> None:
    header = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\n"
        "WIDTH 2\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 2\nDATA "
    )
    colours = struct.unpack("<ff", struct.pack("<II", 0x0A141E, 0xFF0000))
    body = "".join(f"{i} 0 0 {c!r}\n" for i, c in enumerate(colours))
    (tmp_path / "a.pcd").write_text(header + "ascii\n" + body)
    packed = b"".join(struct.pack("<ffff", i, 0, 0, c) for i, c in enumerate(colours))
    (tmp_path / "b.pcd").write_bytes((header + "binary\n").encode() + packed)
    for name in "ab":
        attributes = read(tmp_path / f"{name}.pcd").attributes
        channels = [attributes[c].tolist() for c in ("red", "green", "blue")]
        assert channels == [[10, 255], [20, 0], [30, 0]]


# --- errors -------------------------------------------------------------------------------------


def write_sample(path: Path) -> None:
    write(path, make_cloud(50))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_and_foreign_files_name_cause_and_remedy(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    for content in (b"", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 5, b"hello, world\n" * 101):
        path.write_bytes(content)
        with pytest.raises(FormatError) as error:
            read(path)
        message = str(error.value)
        assert message.startswith(str(path))
        assert "; " in message
        assert "\n" not in message


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s not in (".xyz", ".txt", ".csv")])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_sample(path)
    whole = path.read_bytes()
    for part in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * part) | 1])  # odd: no whole record
        with pytest.raises(FormatError):
            read(path)


def test_missing_directory_unknown_and_unreadable(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.bin: no such file"):
        read(tmp_path / "nothing.bin")
    with pytest.raises(FormatError, match="is a directory"):
        read(tmp_path)
    (tmp_path / "a.obj").write_text("x")
    with pytest.raises(FormatError, match=r"unknown suffix '.obj'.*\.ply"):
        read(tmp_path / "a.obj")
    with pytest.raises(FormatError, match="unknown suffix"):
        write(tmp_path / "a.obj", make_cloud())
    (tmp_path / "a.label").write_bytes(b"0000")
    with pytest.raises(FormatError, match="read_labels"):
        read(tmp_path / "a.label")
    (tmp_path / "file").write_text("")
    with pytest.raises(FormatError, match="cannot be written"):
        write(tmp_path / "file" / "a.ply", make_cloud())


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", points=np.array([{"x": 1}], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(FormatError, match=r"pickled|allow_pickle"):
            read(tmp_path / name)


def test_coordinates_that_are_no_metres(tmp_path: Path) -> None:
    points = np.array([[0, 0, 0], [1, 1, 1], [1e30, 0, 0]], np.float32)
    np.save(tmp_path / "a.npy", points)
    with pytest.raises(FormatError, match="no metres"):
        read(tmp_path / "a.npy")


def test_impossible_counts_allocate_nothing(tmp_path: Path) -> None:
    ply = "ply\nformat binary_little_endian 1.0\nelement vertex 99999999999\nproperty float x\n"
    (tmp_path / "a.ply").write_text(ply + "property float y\nproperty float z\nend_header\n")
    pcd = "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 99999999999\nDATA "
    for kind in ("ascii", "binary", "binary_compressed"):
        (tmp_path / f"{kind}.pcd").write_text(pcd + kind + "\n12345678")
    np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", shape=(4, 3))
    content = (tmp_path / "a.npy").read_bytes().replace(b"(4, 3), }   ", b"(4000000000, 3), }")
    (tmp_path / "a.npy").write_bytes(content)
    for path in tmp_path.iterdir():
        with pytest.raises(FormatError):
            read(path)


# --- real files ---------------------------------------------------------------------------------

REAL = {
    "kitti_object/training/velodyne/000000.bin": 115384,
    "kitti_odometry_00/velodyne/000005.bin": 123924,
    "semantickitti_spvnas/000000.bin": 123389,
    "nuscenes_10sweep/ff9eff4389a740848f9a56ad749a4ae8.fp16x5.bin": 271156,
    "pcd_ply/source.ply": 69792,
    "pcd_ply/target.ply": 69088,
    "pcd_ply/ndt_omp_251370668.pcd": 69088,
    "pcd_ply/pcl_lamppost.pcd": 1771,
    "pcl_room/room_scan1.pcd": 112586,
    "pcl_room/room_scan2.pcd": 112624,
    "las/autzen_trim.laz": 110000,
    "las/autzen-thin.las": 10653,
    "las/sample_c.las": 14408,
    "las/4_6_crop.las": 23875,
    "las/simple.las": 1065,
    "las/simple.laz": 1065,
    "las/simple.copc.laz": 1065,
    "las/simple1_4.las": 22600,
    "las/extrabytes.las": 1065,
    "spconv_bench/benchmark-pc.npz": 198130,
    "mmdet3d_tiny/kitti/training/velodyne/000000.bin": 800,
    "mmdet3d_tiny/lyft/lidar/host-a017_lidar1_1236118886501000046.bin": 5,
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.filterwarnings("ignore:.*dropped")
def test_real_files(shared_data: Path, name: str) -> None:
    cloud = read(shared_data / name)
    rows = len(cloud) if cloud.valid is None else len(cloud.valid)
    assert rows == REAL[name]
    assert np.abs(cloud.points).max() < 10_000
    if "intensity" in cloud.attributes:
        intensity = cloud.attributes["intensity"]
        assert intensity.dtype == np.float32
        assert 0 <= intensity.min() <= intensity.max() <= 1


def test_real_las_is_exact(shared_data: Path) -> None:
    import laspy

    clouds = [read(shared_data / "las" / f"simple{s}") for s in (".las", ".laz", ".copc.laz")]
    expected = laspy.read(shared_data / "las" / "simple.las").xyz
    np.testing.assert_allclose(clouds[0].world(), expected, atol=1e-3)
    np.testing.assert_array_equal(clouds[0].points, clouds[1].points)
    order = [np.lexsort(cloud.points.T) for cloud in (clouds[0], clouds[2])]
    np.testing.assert_allclose(clouds[0].world()[order[0]], clouds[2].world()[order[1]], atol=1e-3)
    assert set(np.unique(clouds[0].attributes["label"])) <= set(range(32))


def test_two_room_formats_of_one_cloud_agree(shared_data: Path) -> None:
    binary = read(shared_data / "pcd_ply" / "ndt_omp_251370668.pcd")
    other = read(shared_data / "pcd_ply" / "target.ply")
    np.testing.assert_array_equal(binary.points, other.points)


@pytest.mark.parametrize("order", ["<", ">", "text"])
def test_the_vertices_of_a_mesh(tmp_path: Path, order: str) -> None:
    """Between a camera before and faces after them, in each byte order; faces are lists."""
    from plyfile import PlyData, PlyElement

    points = np.random.default_rng(0).normal(size=(50, 3))
    vertex = np.zeros(50, [("x", "f8"), ("y", "f4"), ("z", "f4"), ("Red", "u1"), ("label", "i2")])
    for axis, name in enumerate("xyz"):
        vertex[name] = points[:, axis]
    vertex["Red"], vertex["label"] = np.arange(50), -np.arange(50)
    camera = np.ones(3, [("focal", "f4"), ("id", "u1")])
    face = np.zeros(7, [("vertex_indices", "i4", (3,))])
    elements = [(camera, "camera"), (vertex, "vertex"), (face, "face")]
    described = [PlyElement.describe(*element) for element in elements]
    path = tmp_path / "a.ply"
    PlyData(described, text=order == "text", byte_order="=" if order == "text" else order).write(
        str(path)
    )
    cloud = read(path)
    np.testing.assert_allclose(cloud.points, points, rtol=1e-5)
    np.testing.assert_array_equal(cloud.attributes["red"], np.arange(50))
    np.testing.assert_array_equal(cloud.attributes["label"], -np.arange(50))
    if order != "text":
        path.write_bytes(path.read_bytes()[:-900])
        with pytest.raises(FormatError, match="of 50 vertices"):
            read(path)
