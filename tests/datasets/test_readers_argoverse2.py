"""Argoverse 2: the two real sweeps in the official layout, cameras, scene flow, damage."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from perception.datasets.readers import Argoverse2
from perception.datasets.readers.argoverse2 import (
    CATEGORIES,
    ArgoverseCuboids,
    argoverse_from_boxes,
    boxes_from_argoverse,
)
from perception.datasets.sample import Scans
from perception.geometry import transform
from perception.io import FormatError
from perception.io.feather import read_columns, read_table

pa = pytest.importorskip("pyarrow")

LOG = "7fab2350-7eaf-3b7e-a39d-6937a4c1bede"
FIRST, SECOND = 315966265259836000, 315966265360032000


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(shared_data: Path, tmp_path: Path) -> Path:
    """The real log where the data set has it; links, so that single files can be replaced."""
    real = shared_data / "av2" / "7fab2350"
    log = tmp_path / "av2" / "sensor" / "val" / LOG
    (log / "sensors").mkdir(parents=True)
    (log / "sensors" / "lidar").mkdir()
    (log / "calibration").mkdir()
    for source, target in (("lidar", "sensors/lidar"), ("calibration", "calibration"), (".", ".")):
        for file in (real / source).glob("*.feather"):
            (log / target / file.name).symlink_to(file)
    return tmp_path / "av2"


def store(path: Path, columns: dict[str, object]) -> None:
    path.unlink(missing_ok=True)
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def test_the_real_log(root: Path) -> None:
    scans = Argoverse2(root, "val")
    assert isinstance(scans, Scans)
    assert scans.names == [f"{LOG}/{FIRST}", f"{LOG}/{SECOND}"]
    assert list(scans.sequences) == [range(0, 2)]
    assert [len(scans[i].cloud) for i in range(2)] == [99229, 99466]
    for index in range(2):
        sample = scans[index]
        assert sample.boxes is not None
        assert len(sample.boxes) == 81
        assert set(sample.cloud.attributes) == {"intensity", "ring", "time"}
        assert sample.cloud.attributes["intensity"].dtype == np.float32
        # The annotators counted the points in each box; so do we.
        table = read_columns(
            root / "sensor/val" / LOG / "annotations.feather", ["timestamp_ns", "num_interior_pts"]
        )
        counted = table["num_interior_pts"][table["timestamp_ns"] == (FIRST, SECOND)[index]]
        inside = sample.boxes.contains(sample.cloud.points).sum(1)
        assert np.abs(inside - counted).max() <= 2  # half floats on the boxes' faces
        assert (inside == counted).mean() > 0.95
    assert scans[1].time == pytest.approx(scans[0].time + 0.100196, abs=1e-6)  # type: ignore[operator]
    # Half a car park, and the same objects in both sweeps under the same numbers.
    names = [CATEGORIES[label] for label in sample.boxes.labels]  # type: ignore[union-attr]
    assert names.count("REGULAR_VEHICLE") > 30
    tracks = [set(scans[i].boxes.track_ids.tolist()) for i in range(2)]  # type: ignore[union-attr]
    assert len(tracks[0] & tracks[1]) >= 78
    assert min(tracks[0]) >= 1


def test_boxes_can_be_chosen(root: Path) -> None:
    measured = Argoverse2(root, "val", min_points=1)[0].boxes
    assert measured is not None
    assert len(measured) == 71
    scans = Argoverse2(root, "val", classes=["PEDESTRIAN", "REGULAR_VEHICLE"])
    boxes = scans[0].boxes
    assert boxes is not None
    assert scans.box_classes == ("PEDESTRIAN", "REGULAR_VEHICLE")
    assert set(boxes.labels.tolist()) == {0, 1}
    assert Argoverse2(root, "val", boxes=False)[0].boxes is None


def test_boxes_keep_argoverse_own_convention(root: Path) -> None:
    table = read_columns(
        root / "sensor/val" / LOG / "annotations.feather",
        ["tx_m", "ty_m", "tz_m", "length_m", "width_m", "height_m", "qw", "qx", "qy", "qz"],
    )
    rows = np.stack(list(table.values()), axis=1)
    theirs = ArgoverseCuboids(rows[:, :3], rows[:, 3:6], rows[:, 6:])
    back = argoverse_from_boxes(boxes_from_argoverse(theirs))
    np.testing.assert_allclose(back.centres, theirs.centres, atol=1e-4)
    np.testing.assert_allclose(back.sizes, theirs.sizes, atol=1e-5)
    same = np.abs(np.einsum("ij,ij->i", back.rotations, theirs.rotations))
    np.testing.assert_allclose(same, 1, atol=1e-6)


def test_poses_are_those_of_the_file(root: Path, shared_data: Path) -> None:
    scans = Argoverse2(root, "val")
    with np.load(shared_data / "av2/7fab2350/ego_motion.npz") as file:
        (motion,) = file["ego_motion"]
    first, second = scans[0].pose, scans[1].pose
    assert first is not None
    assert second is not None
    # The file was made in float32, which resolves half a millimetre in a city.
    np.testing.assert_allclose(np.linalg.inv(second) @ first, motion, atol=1e-3)


def test_flow_moves_points_onto_the_next_sweep(root: Path) -> None:
    scans = Argoverse2(root, "val")
    sample, after = scans[0], scans[1]
    assert sample.flow is not None
    assert sample.flow.shape == (99229, 3)
    assert after.flow is None
    assert sample.pose is not None
    assert after.pose is not None
    file = root / "sensor/val" / LOG / "flow_labels.feather"
    table = read_columns(file, ["flow_tx_m", "flow_ty_m", "flow_tz_m", "dynamic", "is_ground_0"])
    dynamic, ground = table["dynamic"], table["is_ground_0"]
    assert ground.sum() == 17374
    # Over ground, what stands still has none.
    speed = np.linalg.norm(sample.flow, axis=1)
    assert speed[~dynamic].max() < 0.06
    assert speed[dynamic].min() > 0.04
    # In the next sweep's frame it is Argoverse's own.
    there = np.linalg.inv(after.pose) @ sample.pose
    moved = transform(there, (sample.cloud.points + sample.flow).astype(np.float64))
    seen = np.stack([table[name] for name in ("flow_tx_m", "flow_ty_m", "flow_tz_m")], 1)
    np.testing.assert_allclose(moved - sample.cloud.points, seen, atol=1e-3)
    # Moving objects meet themselves in the next sweep, as they do not without flow.
    rows = np.flatnonzero(dynamic & ~ground)[::40]
    near = after.cloud.points[np.abs(after.cloud.points[:, :2]).max(1) < 60]
    still = transform(there, sample.cloud.points[rows].astype(np.float64))
    before = np.median(nearest(still, near))
    with_flow = np.median(nearest(moved[rows], near))
    assert with_flow < 0.6 * before
    assert with_flow < 0.15


def nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    result = []
    for block in np.array_split(points, max(1, len(points) // 100)):
        square = ((block[:, None] - others[None]) ** 2).sum(2)
        result.append(np.sqrt(square.min(1)))
    return np.concatenate(result)


def test_flow_from_a_folder(root: Path, tmp_path: Path) -> None:
    flow = tmp_path / "flow" / LOG
    flow.mkdir(parents=True)
    labels = root / "sensor/val" / LOG / "flow_labels.feather"
    (flow / f"{FIRST}.feather").symlink_to(labels.resolve())
    labels.unlink()
    assert Argoverse2(root, "val")[0].flow is None
    assert Argoverse2(root, "val", flow=tmp_path / "flow")[0].flow is not None
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder; flow="):
        Argoverse2(root, "val", flow=tmp_path / "nowhere")


def test_the_nearest_image_with_the_pose_of_its_time(root: Path) -> None:
    log = root / "sensor/val" / LOG
    track = read_columns(log / "city_SE3_egovehicle.feather")
    stamps = track["timestamp_ns"]
    close = int(stamps[np.searchsorted(stamps, FIRST + 12_000_000)])
    folder = log / "sensors/cameras/ring_front_center"
    folder.mkdir(parents=True)
    for stamp in (close, FIRST - 30_000_000, SECOND + 70_000_000):
        PILImage.new("RGB", (1550, 2048)).save(folder / f"{stamp}.jpg")
    scans = Argoverse2(root, "val")
    (image,) = scans[0].images
    assert image.name == "ring_front_center"
    assert isinstance(image.source, Path)
    assert image.source.name == f"{close}.jpg"
    assert image.time == pytest.approx(close * 1e-9)
    assert image.pixels().shape == (2048, 1550, 3)
    assert scans[1].images == ()  # 70 ms are too far
    assert len(image.camera.distortion) == 0

    def matrix(columns: dict[str, np.ndarray], row: int) -> np.ndarray:
        w, x, y, z = (columns[name][row] for name in ("qw", "qx", "qy", "qz"))
        pose = np.eye(4)
        # A vector turned by q v q*, column by column.
        for axis in range(3):
            v, u = np.eye(3)[axis], np.array([x, y, z])
            pose[:3, axis] = v + 2 * np.cross(u, np.cross(u, v) + w * v)
        pose[:3, 3] = [columns[name][row] for name in ("tx_m", "ty_m", "tz_m")]
        return pose

    sensors = read_table(log / "calibration/egovehicle_SE3_sensor.feather")
    mount = matrix(
        {name: sensors[name].to_numpy() for name in sensors.column_names[1:]},
        sensors["sensor_name"].to_pylist().index("ring_front_center"),
    )
    then = matrix(track, int(np.flatnonzero(stamps == close)[0]))
    now = matrix(track, int(np.flatnonzero(stamps == FIRST)[0]))
    np.testing.assert_allclose(image.camera.pose, np.linalg.inv(now) @ then @ mount, atol=1e-6)
    pixels, depth = image.camera.project(np.array([[20.0, 0, 1.4]]))
    assert depth[0] == pytest.approx(18.4, abs=0.3)
    np.testing.assert_allclose(pixels[0], [778, 1013], atol=40)
    with pytest.raises(FileNotFoundError, match="stereo_front_left: no such folder"):
        Argoverse2(root, "val", cameras=["stereo_front_left"])


def test_layouts_splits_and_pickling(root: Path) -> None:
    scans = Argoverse2(root / "sensor", "val", logs=[LOG])
    again = pickle.loads(pickle.dumps(scans))
    np.testing.assert_array_equal(again[1].cloud.points, scans[1].cloud.points)
    shutil.copytree(root / "sensor" / "val", root / "sensor" / "test", symlinks=True)
    (root / "sensor/test" / LOG / "annotations.feather").unlink()
    assert Argoverse2(root, "test")[0].boxes is None
    for arguments, message in (
        ({"split": "valid"}, "unknown split 'valid'"),
        ({"classes": ["CAR"]}, "unknown class 'CAR'; known are ANIMAL"),
        ({"cameras": ["front"]}, "unknown camera 'front'"),
        ({"split": "val", "logs": ["x"]}, "unknown log 'x'"),
    ):
        with pytest.raises(ValueError, match=message):
            Argoverse2(root, **arguments)  # type: ignore[arg-type]
    with pytest.raises(
        FileNotFoundError, match=r"has no folder sensor/train or train \(but sensor\)"
    ):
        Argoverse2(root, "train")


def replaced(name: str, **columns: object) -> Callable[[Path], object]:
    """A file of the log with some columns replaced, or dropped where None."""

    def damage(log: Path) -> None:
        table = read_table(log / name)
        content: dict[str, object] = {n: table[n] for n in table.column_names}
        for column, change in columns.items():
            if change is None:
                del content[column]
            elif callable(change):
                content[column] = change(table[column])
            else:
                content[column] = pa.array([change] * len(table))
        store(log / name, content)

    return damage


def holed(column: object) -> np.ndarray:
    values = np.array(column, np.float32)
    values[5] = np.nan
    return values


def rewritten(name: str, keep: float) -> Callable[[Path], object]:
    def damage(log: Path) -> None:
        data = (log / name).read_bytes()
        (log / name).unlink()
        (log / name).write_bytes(data[: int(len(data) * keep)])

    return damage


def removed(name: str) -> Callable[[Path], object]:
    return lambda log: (log / name).unlink()


SWEEP = f"sensors/lidar/{FIRST}.feather"
POSES = "city_SE3_egovehicle.feather"


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            removed("annotations.feather"),
            FileNotFoundError,
            "annotations.feather: no such file; unpack",
        ),
        (removed(POSES), FileNotFoundError, "egovehicle.feather: no such file; is the data set"),
        (
            lambda log: shutil.rmtree(log / "sensors"),
            FileNotFoundError,
            "no log with a folder sensors/lidar",
        ),
        (rewritten(SWEEP, 0.7), FormatError, "0.feather: cannot be read as Feather"),
        (rewritten(SWEEP, 0), FormatError, "0.feather: cannot be read as Feather"),
        (rewritten(POSES, 0.5), FormatError, "egovehicle.feather: cannot be read as Feather"),
        (rewritten("annotations.feather", 0.9), FormatError, "annotations.feather: cannot be read"),
        (replaced(SWEEP, intensity=None), FormatError, "has no column intensity"),
        (replaced(SWEEP, x=holed), FormatError, "1 of 99229 points that are not finite"),
        (replaced(SWEEP, y=1e6), FormatError, "99229 of 99229 points with values beyond 1000"),
        (replaced("annotations.feather", category="BOAT"), FormatError, "unknown class 'BOAT'"),
        (replaced("annotations.feather", length_m=0.0), FormatError, "without size"),
        (replaced("annotations.feather", category=3), FormatError, "column category has missing"),
        (replaced("annotations.feather", qw=None), FormatError, "has no column qw"),
        (replaced(POSES, tx_m=float("nan")), FormatError, "some are not finite"),
        (replaced(POSES, qw=0.0, qx=0.0, qy=0.0, qz=0.0), FormatError, "quaternions must be"),
        (replaced("flow_labels.feather", flow_tx_m=None), FormatError, "has no column flow_tx_m"),
        (
            replaced("flow_labels.feather", flow_tx_m=float("nan")),
            FormatError,
            "rows for 99229 points",
        ),
        (
            lambda log: (log / "sensors/lidar/a.feather").touch(),
            FormatError,
            "is not named by a time",
        ),
    ],
)
def test_damaged_logs(
    root: Path, damage: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    damage(root / "sensor" / "val" / LOG)
    with pytest.raises(error, match=message) as caught:
        Argoverse2(root, "val")[0]
    assert "\n" not in str(caught.value)
