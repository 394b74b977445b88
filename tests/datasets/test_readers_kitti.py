"""KITTI object, KITTI odometry and SemanticKITTI: real scans, official layouts, damaged copies."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit, prange
from PIL import Image as PILImage

from perception.datasets.readers import KittiObject, KittiOdometry, SemanticKitti
from perception.datasets.readers.kitti_calibration import KittiCalibration, read_calibration
from perception.datasets.readers.kitti_labels import (
    KITTI_CLASSES,
    KittiLabels,
    boxes_from_kitti,
    format_kitti,
    kitti_from_boxes,
    read_kitti_labels,
)
from perception.datasets.readers.semantic_kitti import CLASSES, RAW_TO_CLASS, raw_labels
from perception.datasets.sample import IGNORE, Scans
from perception.geometry import Boxes3D, transform
from perception.io import FormatError


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def link(target: Path, source: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)


# ---- the object benchmark, real scans


def points_inside(
    labels: KittiLabels, calibration: KittiCalibration, points: np.ndarray
) -> list[int]:
    """Points in the boxes as KITTI gives them: in the rectified camera frame."""
    local = transform(calibration.rect_from_lidar, points.astype(np.float64))
    counts = []
    for size, centre, turn in zip(labels.sizes, labels.centres, labels.rotation_y, strict=True):
        height, width, length = size
        x, y, z = (local - centre).T
        along = np.cos(turn) * x - np.sin(turn) * z
        across = np.sin(turn) * x + np.cos(turn) * z
        inside = (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2)
        counts.append(int((inside & (y <= 0) & (y >= -height)).sum()))
    return counts


@pytest.mark.parametrize(
    ("index", "count", "kinds", "inside"),
    [
        (0, 115384, ["Pedestrian"], [376]),
        (1, 120268, ["Truck", "Car", "Cyclist"], [70, 9, 18]),
    ],
)
def test_real_object_scans(
    shared_data: Path, index: int, count: int, kinds: list[str], inside: list[int]
) -> None:
    scans = KittiObject(shared_data / "kitti_object")
    assert isinstance(scans, Scans)
    assert list(scans.names) == ["000000", "000001"]
    assert list(scans.sequences) == [range(0, 1), range(1, 2)]
    sample = scans[index]
    assert len(sample.cloud) == count
    assert sample.cloud.attributes["intensity"].min() >= 0
    assert sample.cloud.attributes["intensity"].max() <= 1
    boxes = sample.boxes
    assert boxes is not None
    assert [scans.box_classes[label] for label in boxes.labels] == kinds
    # Our boxes stand upright in the LiDAR frame, KITTI's in the camera's, half a degree off.
    assert np.abs(boxes.contains(sample.cloud.points).sum(1) - inside).max() <= 1
    # Written back as KITTI's, they hold exactly the points that KITTI's own lines hold.
    calibration = scans.calibration(index)
    back = kitti_from_boxes(boxes, calibration)
    assert points_inside(back, calibration, sample.cloud.points) == inside
    theirs = scans.labels(index)
    cared = [i for i, name in enumerate(theirs.names) if name != "DontCare"]
    assert len(theirs) - len(cared) == (0 if index == 0 else 4)
    assert [theirs.names[i] for i in cared] == list(back.names)
    np.testing.assert_allclose(back.centres, theirs.centres[cared], atol=1e-4)
    np.testing.assert_allclose(back.sizes, theirs.sizes[cared], atol=1e-4)
    np.testing.assert_allclose(back.rotation_y, theirs.rotation_y[cared], atol=1e-4)
    np.testing.assert_allclose(
        back.alpha, theirs.alpha[cared], atol=0.02
    )  # two decimals in the file
    # The box in the image was drawn by hand around what is seen of the projected one.
    np.testing.assert_allclose(back.image_boxes, theirs.image_boxes[cared], atol=10)


def test_boxes_lie_on_the_objects_in_the_image(shared_data: Path) -> None:
    scans = KittiObject(shared_data / "kitti_object")
    sample = scans[0]
    (image,) = sample.images
    assert image.name == "image_2"
    assert image.pixels().shape == (image.camera.height, image.camera.width, 3)
    assert sample.boxes is not None
    inside = sample.cloud.points[sample.boxes.contains(sample.cloud.points)[0]]
    pixels, depth = image.camera.project(inside)
    left, top, right, bottom = scans.labels(0).image_boxes[0]
    assert (depth > 7).all()
    assert ((pixels >= (left - 3, top - 3)) & (pixels <= (right + 3, bottom + 3))).all(
        1
    ).mean() > 0.99
    # Against the projection matrix of the file itself.
    calibration = scans.calibration(0)
    rect = transform(calibration.rect_from_lidar, inside.astype(np.float64))
    row = np.concatenate([rect, np.ones((len(rect), 1))], 1) @ calibration.projections[2].T
    np.testing.assert_allclose(pixels, row[:, :2] / row[:, 2:], atol=1e-2)


def test_reading_a_scan_costs_little_more_than_reading_the_file(shared_data: Path) -> None:
    from time import perf_counter

    scans = KittiObject(shared_data / "kitti_object", boxes=False, cameras=[])
    scans[0]
    spent = []
    for _ in range(20):
        start = perf_counter()
        scans[0]
        spent.append(perf_counter() - start)
    # About 0.4 ms; the bound leaves room for a machine that is busy.
    assert min(spent) < 4e-3


# ---- the object benchmark, made by hand

CALIBRATION = """P0: 700 0 600 0 0 700 180 0 0 0 1 0
P1: 700 0 600 -380 0 700 180 0 0 0 1 0
P2: 700 0 600 45 0 700 180 -0.3 0 0 1 0.005
P3: 700 0 600 -340 0 700 180 2.3 0 0 1 0.003
R0_rect: 1 0 0 0 1 0 0 0 1
Tr_velo_to_cam: 0 -1 0 0 0 0 -1 -0.08 1 0 0 -0.27
Tr_imu_to_velo: 1 0 0 -0.8 0 1 0 0.3 0 0 1 -0.8

"""
CAR = "Car 0.00 0 -1.57 600.00 150.00 640.00 180.00 1.50 1.60 4.00 -2.00 1.70 20.00 0.00"
AWAY = "DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10"


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    """Three scans in KITTI's layout, the calibration without any tilt."""
    rng = np.random.default_rng(0)
    training = tmp_path / "kitti" / "training"
    for folder in ("velodyne", "calib", "label_2", "image_2"):
        (training / folder).mkdir(parents=True)
    for number in range(3):
        rows = rng.uniform(0, 1, (200, 4)).astype("<f4") * [50, 20, 3, 1]
        rows.astype("<f4").tofile(training / "velodyne" / f"{number:06d}.bin")
        (training / "calib" / f"{number:06d}.txt").write_text(CALIBRATION)
        (training / "label_2" / f"{number:06d}.txt").write_text(f"{CAR}\n{AWAY}\n")
        PILImage.new("RGB", (120, 40)).save(training / "image_2" / f"{number:06d}.png")
    return tmp_path / "kitti"


def test_a_box_by_hand(kitti: Path) -> None:
    """A car 20 m ahead and 2 m to the left, its bottom 1.7 m below camera 0, turned to the right."""
    boxes = KittiObject(kitti)[0].boxes
    assert boxes is not None
    # x = z_cam + 0.27; y = -x_cam; z = -y_cam - 0.08 + half the height; -ry - 90 degrees.
    expected = [20.27, 2.0, -1.7 - 0.08 + 0.75, 4.0, 1.6, 1.5, -np.pi / 2]
    np.testing.assert_allclose(boxes.boxes, [expected], atol=1e-5)
    assert boxes.labels.tolist() == [KITTI_CLASSES.index("Car")]


def test_splits_are_listed_or_everything(kitti: Path) -> None:
    assert list(KittiObject(kitti).names) == ["000000", "000001", "000002"]
    with pytest.raises(
        FileNotFoundError, match=r"val\.txt: no such file; KITTI itself has no valid"
    ):
        KittiObject(kitti, "val")
    (kitti / "ImageSets").mkdir()
    (kitti / "ImageSets" / "train.txt").write_text("000002\n000000\n")
    (kitti / "ImageSets" / "val.txt").write_text("000001\n")
    assert list(KittiObject(kitti, "train").names) == ["000002", "000000"]
    assert list(KittiObject(kitti, "val").names) == ["000001"]
    assert len(KittiObject(kitti, "trainval")) == 3
    assert KittiObject(kitti, "train")[-1].name == "000000"
    (kitti / "ImageSets" / "val.txt").write_text("000001\n000009\n")
    with pytest.raises(FormatError, match=r"val\.txt: lists 1 scans that .* first 000009"):
        KittiObject(kitti, "val")


def test_the_test_split_needs_no_labels(kitti: Path) -> None:
    shutil.copytree(kitti / "training", kitti / "testing")
    shutil.rmtree(kitti / "testing" / "label_2")
    sample = KittiObject(kitti, "test")[0]
    assert sample.boxes is None
    assert len(sample.images) == 1


def test_classes_can_be_chosen(kitti: Path) -> None:
    scans = KittiObject(kitti, classes=["Pedestrian", "Car"])
    assert scans.box_classes == ("Pedestrian", "Car")
    boxes = scans[0].boxes
    assert boxes is not None
    assert boxes.labels.tolist() == [1]
    boxes = KittiObject(kitti, classes=["Cyclist"])[0].boxes
    assert boxes is not None
    assert boxes.boxes.shape == (0, 7)
    with pytest.raises(ValueError, match="unknown class 'Cars'; known are Car"):
        KittiObject(kitti, classes=["Cars"])


def test_readers_survive_pickling(kitti: Path) -> None:
    scans = pickle.loads(pickle.dumps(KittiObject(kitti)))
    np.testing.assert_array_equal(scans[1].cloud.points, KittiObject(kitti)[1].cloud.points)
    with pytest.raises(IndexError, match="sample 3 of a data set of 3"):
        scans[3]
    assert len(list(scans)) == 3  # iteration ends


def missing(folder: str) -> Callable[[Path], object]:
    return lambda training: shutil.rmtree(training / folder)


def rewritten(name: str, text: str | bytes) -> Callable[[Path], object]:
    content = text if isinstance(text, bytes) else text.encode()
    return lambda training: (training / name).write_bytes(content)


SCAN, LABEL, CALIB = "velodyne/000000.bin", "label_2/000000.txt", "calib/000000.txt"
HOLED = np.full((10, 4), 1, "<f4")
HOLED[3, 1] = np.nan
FAR = np.full((10, 4), 1, "<f4")
FAR[4, 0] = 1e20


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            missing("velodyne"),
            FileNotFoundError,
            "velodyne: no such folder; it should hold KITTI's scans",
        ),
        (
            missing("label_2"),
            FileNotFoundError,
            "label_2: no such folder; unpack KITTI's label_2 archive",
        ),
        (
            missing("calib"),
            FileNotFoundError,
            "calib: no such folder; unpack KITTI's calib archive",
        ),
        (lambda t: (t / LABEL).unlink(), FileNotFoundError, r"label_2/000000.txt: no such file"),
        (lambda t: (t / CALIB).unlink(), FileNotFoundError, r"calib/000000.txt: no such file"),
        (
            lambda t: (t / "image_2/000000.png").unlink(),
            FileNotFoundError,
            "no such image; unpack it",
        ),
        (rewritten("image_2/000000.png", "no image"), FormatError, "is no readable image"),
        (
            rewritten(SCAN, b"\0" * 33),
            FormatError,
            r"000000.bin: is 33 bytes long, no multiple of 16",
        ),
        (rewritten(SCAN, b""), FormatError, r"000000.bin: is empty; .* copy it again"),
        (rewritten(SCAN, HOLED.tobytes()), FormatError, "1 of 10 points that are not finite"),
        (rewritten(SCAN, FAR.tobytes()), FormatError, "1 of 10 points with values beyond 1000"),
        (rewritten(LABEL, CAR.replace("Car", "Boat")), FormatError, "line 1: unknown class 'Boat'"),
        (rewritten(LABEL, CAR[:60]), FormatError, "line 1 has 11 columns, expected 15"),
        (rewritten(LABEL, CAR.replace("20.00", "x")), FormatError, "line 1: could not convert"),
        (rewritten(LABEL, CAR.replace("20.00", "nan")), FormatError, "line 1: a box of size"),
        (rewritten(LABEL, CAR.replace("1.50", "-1.5")), FormatError, "line 1: a box of size"),
        (rewritten(LABEL, b"\xff\xfe\x80"), FormatError, "is no text"),
        (rewritten(CALIB, "P2: 1 2 3\n"), FormatError, "P2 has 3 numbers, expected 12"),
        (rewritten(CALIB, CALIBRATION.replace("R0_rect", "R")), FormatError, "has no line R_rect:"),
        (
            rewritten(CALIB, CALIBRATION.replace("0 -1 0 0 0", "0 -3 0 0 0")),
            FormatError,
            "no rigid",
        ),
        (rewritten(CALIB, "P2: a b"), FormatError, "is no calibration"),
    ],
)
def test_damaged_object_data(
    kitti: Path, damage: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    damage(kitti / "training")
    with pytest.raises(error, match=message) as caught:
        KittiObject(kitti)[0]
    assert "\n" not in str(caught.value)


def test_wrong_arguments(kitti: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown split 'validation'; known are train, val"):
        KittiObject(kitti, "validation")
    (tmp_path / "training.zip").touch()
    with pytest.raises(
        FileNotFoundError, match=r"has no folder training \(but kitti, training.zip\)"
    ):
        KittiObject(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder; root= should be"):
        KittiObject(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="image_3: no such folder"):
        KittiObject(kitti, cameras=["image_3"])
    with pytest.raises(ValueError, match="unknown camera 'front'"):
        KittiObject(kitti, cameras=["front"])
    assert KittiObject(kitti, cameras=[])[0].images == ()


@given(
    rows=st.lists(
        st.tuples(
            *[st.floats(-80, 80) for _ in range(2)],
            st.floats(-3, 3),
            *[st.floats(0.2, 15) for _ in range(3)],
            st.floats(-3.14, 3.14),
        ),
        max_size=5,
    )
)
@settings(max_examples=50, deadline=None)
def test_boxes_survive_the_way_through_a_label_file(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, ...]]
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    (folder / "calib.txt").write_text(TILTED)
    calibration = read_calibration(folder / "calib.txt")
    boxes = Boxes3D(np.array(rows, np.float64).reshape(-1, 7), np.arange(len(rows)) % 8)
    text = format_kitti(kitti_from_boxes(boxes, calibration, scores=np.full(len(rows), 0.5)))
    (folder / "result.txt").write_text(text)
    lines = read_kitti_labels(folder / "result.txt")
    back = boxes_from_kitti(lines, calibration)
    np.testing.assert_allclose(back.boxes[:, :6], boxes.boxes[:, :6], atol=1e-4)
    turn = (back.boxes[:, 6] - boxes.boxes[:, 6] + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(turn, 0, atol=1e-4)
    np.testing.assert_array_equal(back.labels, boxes.labels)


TILTED = """P2: 707.0493 0 604.0814 45.75831 0 707.0493 180.5066 -0.3454157 0 0 1 0.004981016
R0_rect: 0.9999128 0.01009263 -0.008511932 -0.01012729 0.9999406 -0.004037671 0.008470675 0.004123522 0.9999556
Tr_velo_to_cam: 0.006927964 -0.9999722 -0.002757829 -0.02457729 -0.001162982 0.002749836 -0.9999955 -0.06127237 0.9999753 0.006931141 -0.001143899 -0.3321029
"""  # noqa: E501


def test_a_result_file_is_cut_to_the_image(tmp_path: Path) -> None:
    (tmp_path / "calib.txt").write_text(CALIBRATION)
    calibration = read_calibration(tmp_path / "calib.txt")
    boxes = Boxes3D(np.array([[3.0, 0, -1, 4, 2, 1.5, 0.3]]), np.array([0]))
    labels = kitti_from_boxes(boxes, calibration, image_size=(1242, 375))
    left, top, right, bottom = labels.image_boxes[0]
    assert 0 <= left < right <= 1241
    assert 0 <= top < bottom <= 374


def test_the_tiny_kitti_fixture(shared_data: Path, tmp_path: Path) -> None:
    tiny = shared_data / "mmdet3d_tiny" / "kitti" / "training" / "velodyne"
    link(tmp_path / "training" / "velodyne", tiny)
    assert len(KittiObject(tmp_path, boxes=False)[0].cloud) == 800


# ---- odometry


@pytest.fixture
def drive(shared_data: Path, tmp_path: Path) -> Path:
    """The six real scans in the layout of the odometry benchmark."""
    real = shared_data / "kitti_odometry_00"
    folder = tmp_path / "dataset" / "sequences" / "00"
    link(folder / "velodyne", real / "velodyne")
    link(folder / "calib.txt", real / "calib.txt")
    link(folder / "times.txt", real / "times_first20.txt")
    link(tmp_path / "dataset" / "poses" / "00.txt", real / "poses_first20.txt")
    return tmp_path / "dataset"


@njit(cache=True, parallel=True)
def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    result = np.empty(len(points), np.float32)
    for i in prange(len(points)):
        best = np.float32(1e12)
        for j in range(len(others)):
            dx = points[i, 0] - others[j, 0]
            dy = points[i, 1] - others[j, 1]
            dz = points[i, 2] - others[j, 2]
            best = min(best, dx * dx + dy * dy + dz * dz)
        result[i] = best
    return np.sqrt(result)


def raised(points: np.ndarray) -> np.ndarray:
    """What stands on the ground within 40 m: it tells registered scans from others."""
    return points[(points[:, 2] > -1.0) & (np.abs(points[:, :2]) < 40).all(1)]


def test_real_odometry_scans_align_by_their_poses(drive: Path) -> None:
    scans = KittiOdometry(drive, drives=["00"])
    assert isinstance(scans, Scans)
    assert [len(scans[i].cloud) for i in range(6)] == [
        124668,
        124605,
        124478,
        124167,
        123969,
        123924,
    ]
    assert list(scans.sequences) == [range(0, 6)]
    assert scans.names[5] == "00/000005"
    first, last = scans[0], scans[5]
    assert first.pose is not None
    assert last.pose is not None
    np.testing.assert_allclose(first.pose, np.eye(4), atol=1e-5)
    assert 0.8 < last.pose[0, 3] / 5 < 0.9  # the car drives 0.86 m a frame
    assert last.time == pytest.approx(0.52, abs=0.02)
    assert last.cloud.time == last.time
    here, there = raised(first.cloud.points), raised(last.cloud.points)[::8]
    before = np.median(_nearest(there, here))
    after = np.median(_nearest(transform(last.pose, there).astype(np.float32), here))
    assert before == pytest.approx(0.47, abs=0.1)
    assert after == pytest.approx(0.17, abs=0.04)


def test_the_folder_above_does_too_and_missing_drives_are_named(drive: Path) -> None:
    with pytest.warns(UserWarning, match="drives 01, 02, .* are not there; reading 00"):
        assert len(KittiOdometry(drive.parent)) == 6
    with pytest.raises(FileNotFoundError, match="sequences/11/velodyne: no such folder"):
        KittiOdometry(drive, "test")
    with pytest.raises(FileNotFoundError, match="sequences/03/velodyne"):
        KittiOdometry(drive, drives=["00", "03"])


# ---- SemanticKITTI


@pytest.fixture
def semantic(shared_data: Path, tmp_path: Path) -> Path:
    real = shared_data / "semantickitti_spvnas"
    folder = tmp_path / "semantic" / "sequences" / "08"
    link(folder / "velodyne" / "000000.bin", real / "000000.bin")
    link(folder / "labels" / "000000.label", real / "000000.label")
    link(folder / "calib.txt", shared_data / "kitti_odometry_00" / "calib.txt")
    return tmp_path / "semantic"


def test_a_real_labelled_scan(semantic: Path) -> None:
    scans = SemanticKitti(semantic, "val")
    assert scans.classes == CLASSES
    assert scans.colors.shape == (19, 3)
    sample = scans[0]
    assert len(sample.cloud) == 123389
    assert sample.labels is not None
    assert sample.instances is not None
    count = dict(zip(CLASSES, np.bincount(sample.labels, minlength=256)[:19].tolist(), strict=True))
    assert count["vegetation"] == 24514
    assert count["terrain"] == 30925
    assert count["sidewalk"] == 30092
    assert count["road"] >= 20975  # lane markings are road
    assert count["car"] == 544 + 990  # standing and moving
    assert count["person"] >= 138
    assert (sample.labels == IGNORE).sum() >= 4458
    assert len(np.unique(sample.instances)) == 12
    assert sample.pose is None
    assert sample.time is None


def test_learning_map_is_that_of_the_api(shared_data: Path) -> None:
    import yaml

    official = yaml.safe_load(
        (shared_data / "semantickitti_spvnas/semantic-kitti.yaml").read_text()
    )
    known = sorted(official["learning_map"])
    for raw in known:
        there = official["learning_map"][raw]
        assert RAW_TO_CLASS[raw] == (IGNORE if there == 0 else there - 1), raw
    assert (np.delete(RAW_TO_CLASS, known) == 254).all()
    for here in range(19):
        back = official["learning_map_inv"][here + 1]
        assert official["labels"][back] == CLASSES[here]
        assert official["color_map"][back][::-1] == SemanticKitti.colors[here].tolist()
        assert raw_labels(np.array([here, 255])).tolist() == [back, 0]
    splits = SemanticKitti.splits
    assert splits["train"] == tuple(f"{i:02d}" for i in official["split"]["train"])
    assert splits["val"] == tuple(f"{i:02d}" for i in official["split"]["valid"])
    assert splits["test"] == tuple(f"{i:02d}" for i in official["split"]["test"])


def test_the_tiny_semantic_fixture(shared_data: Path, tmp_path: Path) -> None:
    tiny = shared_data / "mmdet3d_tiny" / "semantickitti" / "sequences" / "00"
    folder = tmp_path / "sequences" / "00"
    link(folder / "velodyne", tiny / "velodyne")
    link(folder / "labels", tiny / "labels")
    link(folder / "calib.txt", shared_data / "kitti_odometry_00" / "calib.txt")
    sample = SemanticKitti(tmp_path, drives=["00"])[0]
    assert len(sample.cloud) == 50
    assert sample.labels is not None
    assert set(np.unique(sample.labels)) <= {*range(19), IGNORE}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A drive of three scans of ten points."""
    folder = tmp_path / "small" / "sequences" / "08"
    (folder / "velodyne").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number in range(3):
        np.full((10, 4), 0.5 + number, "<f4").tofile(folder / "velodyne" / f"{number:06d}.bin")
        np.full(10, 40, "<u4").tofile(folder / "labels" / f"{number:06d}.label")
    (folder / "calib.txt").write_text(
        "P2: 7 0 6 0 0 7 2 0 0 0 1 0\nTr: 0 -1 0 0 0 0 -1 0 1 0 0 0\n"
    )
    # Camera 0 moves 1 m a frame along its z: the LiDAR along its x.
    rows = [f"1 0 0 0 0 1 0 0 0 0 1 {number}" for number in range(3)]
    (folder / "poses.txt").write_text("\n".join(rows))
    (folder / "times.txt").write_text("0\n0.1\n0.2\n")
    return tmp_path / "small"


def test_poses_by_hand(small: Path) -> None:
    scans = SemanticKitti(small, "val")
    pose = scans[2].pose
    assert pose is not None
    np.testing.assert_allclose(pose, [[1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert scans[2].time == pytest.approx(0.2)
    assert scans.names == ["08/000000", "08/000001", "08/000002"]
    copy = pickle.loads(pickle.dumps(scans))
    np.testing.assert_array_equal(copy[2].cloud.points, scans[2].cloud.points)


def test_a_scan_keeps_its_pose_when_others_are_missing(small: Path) -> None:
    (small / "sequences/08/velodyne/000001.bin").unlink()
    scans = SemanticKitti(small, "val")
    assert scans.names == ["08/000000", "08/000002"]
    pose = scans[1].pose
    assert pose is not None
    assert pose[0, 3] == 2


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            missing("labels"),
            FileNotFoundError,
            "labels: no such folder; unpack SemanticKITTI's labels",
        ),
        (
            lambda f: (f / "labels/000000.label").unlink(),
            FileNotFoundError,
            "000000.label: no such",
        ),
        (
            rewritten("labels/000000.label", b"\0" * 39),
            FormatError,
            "39 bytes long, no uint32 a point",
        ),
        (
            rewritten("labels/000000.label", b"\0" * 36),
            FormatError,
            "labels 9 points, the cloud has 10",
        ),
        (
            rewritten("labels/000000.label", b"\7" * 40),
            FormatError,
            "has class 1799, which is none",
        ),
        (rewritten("velodyne/000000.bin", b"\0" * 30), FormatError, "no multiple of 16"),
        (rewritten("velodyne/000000.bin", b""), FormatError, "is empty"),
        (rewritten("velodyne/a.bin", b"\0" * 32), FormatError, "a.bin: is not named by a number"),
        (
            rewritten("poses.txt", "1 0 0 0 0 1 0 0 0 0 1 0"),
            FormatError,
            "has 1 lines, scan 2 needs 3",
        ),
        (rewritten("poses.txt", "1 0 0 0\n" * 3), FormatError, "has 4 columns, expected 12"),
        (
            rewritten("poses.txt", "2 0 0 0 0 1 0 0 0 0 1 0\n" * 3),
            FormatError,
            "line 1 is no rigid",
        ),
        (rewritten("poses.txt", "x" * 30), FormatError, "is no table of numbers"),
        (rewritten("times.txt", "0\nnan\n0.2"), FormatError, "expected 1 finite numbers a line"),
        (
            rewritten("calib.txt", "P2: 7 0 6 0 0 7 2 0 0 0 1 0\n"),
            FormatError,
            "has no line R_rect",
        ),
        (lambda f: (f / "calib.txt").unlink(), FileNotFoundError, "calib.txt: no such file"),
    ],
)
def test_damaged_drives(
    small: Path, damage: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    damage(small / "sequences" / "08")
    with pytest.raises(error, match=message) as caught:
        SemanticKitti(small, "val")[0]
    assert "\n" not in str(caught.value)


def test_labels_can_be_left_out(small: Path) -> None:
    shutil.rmtree(small / "sequences/08/labels")
    sample = SemanticKitti(small, "val", labels=False)[0]
    assert sample.labels is None
    assert sample.instances is None
