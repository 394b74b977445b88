"""``perception doctor DATA``: what it recognises, what it finds wrong, what it draws."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from perception.cli import suspicions
from perception.cli.layouts import layout_at, layouts_below
from perception.cli.main import main
from perception.datasets.sample import Image, Sample
from perception.geometry import Boxes3D, Camera, invert
from perception.io import PointCloud, write, write_labels
from perception.io.boxes import write_boxes

RNG = np.random.default_rng(0)


def doctor(path: Path, capsys: pytest.CaptureFixture[str], picture: Path) -> tuple[int, str]:
    code = main(["doctor", str(path), "--picture", str(picture)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def street(offset: float = 0.0, count: int = 6) -> Sample:
    """A ground, two walls, poles, and cars whose sides are full of points, seen from x = offset."""
    ground = np.column_stack([RNG.uniform(-40, 40, (8000, 2)), RNG.normal(-1.7, 0.02, 8000)])
    along = RNG.uniform(-60, 60, 3000)
    walls = np.column_stack([along, np.where(along > 0, 15, -15), RNG.uniform(-1.7, 4, 3000)])
    places = np.random.default_rng(1).uniform(-35, 35, (40, 2))  # the same world from everywhere
    poles = np.column_stack([np.repeat(places, 50, axis=0), np.tile(np.linspace(-1.7, 3, 50), 40)])
    rows = np.zeros((count, 7), np.float32)
    rows[:, 0], rows[:, 1] = np.arange(count) * 8 - 20, 6 * (-1) ** np.arange(count)
    rows[:, 2], rows[:, 3:6], rows[:, 6] = -0.9, (4.4, 1.8, 1.6), np.linspace(0.3, 1.2, count)
    cars = []
    for x, y, z, length, width, height, yaw in rows.astype(float):
        side = RNG.uniform(-0.5, 0.5, (300, 3))
        face = RNG.integers(0, 2, 300)
        side[np.arange(300), face] = np.sign(side[np.arange(300), face]) * 0.49
        side *= [length, width, height]
        cars.append(np.column_stack([np.cos(yaw) * side[:, 0] - np.sin(yaw) * side[:, 1] + x,
                                     np.sin(yaw) * side[:, 0] + np.cos(yaw) * side[:, 1] + y,
                                     side[:, 2] + z]))  # fmt: skip
    points = np.concatenate([ground, walls, poles, *cars]) - [offset, 0, 0]
    pose = np.eye(4)
    pose[0, 3] = offset
    rows[:, 0] -= offset
    cloud = PointCloud(points.astype(np.float32), {"intensity": RNG.random(len(points))})
    return Sample(cloud, boxes=Boxes3D(rows, np.zeros(count, np.int64)), pose=pose)


def changed(sample: Sample, change: Callable[[np.ndarray], None]) -> Sample:
    assert sample.boxes is not None
    rows = sample.boxes.boxes.copy()
    change(rows)
    return dataclasses.replace(sample, boxes=Boxes3D(rows, sample.boxes.labels))


def exchange(rows: np.ndarray) -> None:
    rows[:, [3, 4]] = rows[:, [4, 3]]


def add(column: int, value: float, per: int | None = None) -> Callable[[np.ndarray], None]:
    def change(rows: np.ndarray) -> None:
        rows[:, column] += value * (1 if per is None else rows[:, per])

    return change


def times(column: int, value: float) -> Callable[[np.ndarray], None]:
    def change(rows: np.ndarray) -> None:
        rows[:, column] *= value

    return change


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (exchange, "length and width exchanged"),
        (add(6, np.pi / 2), "yaw turned by 90 degrees"),
        (times(6, -1), "yaw of the other sign"),
        (add(2, -0.5, per=5), "z moved up by half the height"),
        (add(2, 0.5, per=5), "z moved down by half the height"),
        (times(6, 180 / np.pi), "yaw in degrees"),
        (add(0, 500), "none of the 6 boxes holds a point: are boxes and points in one frame"),
    ],
)
def test_frequent_mistakes_of_boxes_are_named(
    change: Callable[[np.ndarray], None], line: str
) -> None:
    assert suspicions.boxes([street()]) == []
    found = suspicions.boxes([changed(street(), change)])
    assert any(line in text for text in found), found


def test_frequent_mistakes_of_axes_are_named() -> None:
    cloud = street().cloud
    assert suspicions.axes(cloud) == []
    for points, line in (
        (cloud.points[:, [0, 2, 1]], "is y the axis that points up"),
        (cloud.points[:, [2, 1, 0]], "is x the axis that points up"),
        (cloud.points * [1, 1, -1], "does z point down"),
        (cloud.points * 1000, "are these millimetres"),
    ):
        found = suspicions.axes(cloud.replace(points=points))
        assert any(line in text for text in found), found
    constant = cloud.with_attributes({"intensity": np.zeros(len(cloud))})
    assert "intensity is 0 everywhere" in suspicions.axes(constant)[0]


def test_a_room_is_not_upside_down() -> None:
    low, high = np.array([0.0, 0, 0]), np.array([5.0, 4, 2.6])
    points = RNG.uniform(low, high, (6000, 3))
    points[:2500, 2], points[2500:3500, 2] = 2.6, 0  # much ceiling, little floor
    assert suspicions.axes(PointCloud(points)) == []


def test_frequent_mistakes_of_poses_are_named() -> None:
    first, later = street(0.0), street(4.0)
    assert suspicions.poses(first, later) == []

    def with_pose(sample: Sample, pose: np.ndarray) -> Sample:
        return dataclasses.replace(sample, pose=pose)

    assert first.pose is not None
    assert later.pose is not None
    inverted = suspicions.poses(
        with_pose(first, invert(first.pose)), with_pose(later, invert(later.pose))
    )
    assert "overlap better by the inverse" in inverted[0]
    camera = np.eye(4)
    camera[2, 3] = 14.0  # forward is z in a camera's frame
    assert "without their poses" in suspicions.poses(first, with_pose(later, camera))[0]


def test_labels_and_cameras() -> None:
    cloud = street().cloud
    labels = np.zeros(len(cloud), np.uint8)
    labels[:5] = 7
    sample = Sample(cloud, labels)
    assert (
        "5 points have labels outside the 3 classes, such as 7"
        in suspicions.labels([sample], "abc")[0]
    )
    sample.labels = np.full(len(cloud), 255, np.uint8)
    assert "100% of the points have no class" in suspicions.labels([sample], "abc")[0]
    forward = np.eye(4)
    forward[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    camera = Camera.from_field_of_view(64, 48, 1.2, forward)
    assert suspicions.images(cloud, [Image(camera, Path("x"))]) == []
    away = Camera.from_field_of_view(64, 48, 0.2, forward @ np.diag([1, -1, -1, 1.0]))
    away = away.moved(np.array([[1, 0, 0, -900.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    assert (
        "sees none of the points" in suspicions.images(cloud, [Image(away, Path("x"), name="a")])[0]
    )


def own_data(root: Path) -> None:
    for i in range(3):
        sample = street(float(2 * i))
        write(root / "points" / f"{i}.ply", sample.cloud)
        (root / "labels").mkdir(exist_ok=True)
        (root / "boxes").mkdir(exist_ok=True)
        write_labels(root / "labels" / f"{i}.label", np.arange(len(sample.cloud)) % 3)
        assert sample.boxes is not None
        write_boxes(root / "boxes" / f"{i}.json", sample.boxes, names=("Car",))
    (root / "poses.txt").write_text("".join(f"1 0 0 {2 * i} 0 1 0 0 0 0 1 0\n" for i in range(3)))


def test_own_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "mine"
    own_data(root)
    picture = tmp_path / "a.png"
    code, text = doctor(root, capsys, picture)
    assert code == 0
    # What is missing, ready to be saved as dataset.yaml.
    assert "class 1: [1]" in text or "class 1: 1" in text
    assert "box_classes: [Car]" in text
    assert "3 scans in 1 drives" in text
    assert "18 in 3 scans: Car 18" in text
    assert "4.00 m in 2 frames" in text
    assert "WARN" not in text
    assert "none of      images" in text
    assert PILImage.open(picture).size == (1600, 900)
    (root / "dataset.yaml").write_text(
        "classes: [a, b, c]\nbox_classes: [Car]\nsplit: {train: ['0', '1'], val: ['2']}\n"
    )
    code, text = doctor(root, capsys, picture)
    assert code == 0
    assert "dataset.yaml" not in text
    assert "a 33.3%" in text
    (root / "labels" / "1.label").write_bytes(b"123")
    code, text = doctor(root, capsys, picture)
    assert code == 1
    assert f"BAD   sample       1: {root}/labels/1.label: is 3 bytes long" in text
    assert picture.is_file()
    (root / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    code, text = doctor(root, capsys, picture)
    assert code == 1
    assert "has 1 poses for 3 scans" in text


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, line in ((tmp_path / "none", "no such file or folder"), (tmp_path, "holds no point")):
        assert main(["doctor", str(path)]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert line in captured.err
        assert len(captured.err.strip().splitlines()) == 1
    assert main(["doctor", str(tmp_path), "--frobnicate"]) == 2


def test_layouts_are_known_by_their_marks(tmp_path: Path) -> None:
    marks = {
        "nuScenes": "v1.0-mini/sample_data.json",
        "Argoverse 2 sensor": "val/7fab/city_SE3_egovehicle.feather",
        "SemanticKITTI": "dataset/sequences/00/labels/x",
        "KITTI odometry": "sequences/00/velodyne/x",
        "KITTI object": "testing/velodyne/000000.bin",
        "ScanNet": "scans/scene0000_00/x",
        "S3DIS": "Area_3/office_1/Annotations/x",
    }
    for name, mark in marks.items():
        file = tmp_path / name / mark
        file.parent.mkdir(parents=True)
        file.write_text("")
        layout = layout_at(tmp_path / name)
        assert layout is not None
        assert layout.name == name
    (tmp_path / "other" / "points").mkdir(parents=True)
    assert layout_at(tmp_path / "other") is None
    assert {name for _, name in layouts_below(tmp_path)} == {*marks, "point files"}


def test_posed_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = []
    (tmp_path / "shots").mkdir()
    for i, angle in enumerate(np.linspace(0, 5, 8)):
        back = np.array([np.cos(angle), np.sin(angle), 0.0])
        pose = np.eye(4)
        pose[:3] = np.stack([np.cross([0, 0, 1.0], back), [0, 0, 1.0], back, 3 * back], axis=1)
        PILImage.new("RGB", (40, 30), (40 * i, 90, 90)).save(tmp_path / "shots" / f"{i}.png")
        frames.append({"file_path": f"images/{i}.png", "transform_matrix": pose.tolist()})
    file = tmp_path / "transforms.json"
    file.write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    code, text = doctor(tmp_path, capsys, tmp_path / "a.png")
    assert code == 0
    assert "not where the file says, but in shots" in text
    assert "8 (train 8, val 0, test 0)" in text
    assert "from 3 away" in text
    assert "WARN" not in text
    # The same poses with OpenCV's axes in a file that should have OpenGL's: they look outwards.
    for frame in frames:
        frame["transform_matrix"] = (
            np.array(frame["transform_matrix"]) @ np.diag([1, -1, -1, 1])
        ).tolist()
    file.write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    assert "look away from where their axes meet" in doctor(tmp_path, capsys, tmp_path / "a.png")[1]
    (tmp_path / "shots" / "0.png").write_bytes(b"no image")
    code, text = doctor(tmp_path, capsys, tmp_path / "a.png")
    assert code == 1
    assert "0.png: is no readable image" in text


def test_real_data(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = {
        "kitti_object": ("KITTI object", "Pedestrian 1, Truck 1, Car 1, Cyclist 1"),
        "lego": ("posed images", "100 (train 100"),
        "mmdet3d_tiny/scannet": ("ScanNet", "split all"),
        "mmdet3d_tiny/s3dis": ("S3DIS", "wall 39.0%"),
        "semantickitti_spvnas": ("Custom", "terrain 25.1%"),
    }
    for folder, parts in expected.items():
        picture = tmp_path / f"{Path(folder).name}.png"
        code, text = doctor(shared_data / folder, capsys, picture)
        assert code == 0, text
        assert all(part in text for part in parts), text
        assert "WARN" not in text
        assert PILImage.open(picture).width == 1600
    code, text = doctor(shared_data / "kitti_object" / "training", capsys, tmp_path / "a.png")
    assert "part of      KITTI object in" in text
    code, text = doctor(shared_data, capsys, tmp_path / "a.png")
    assert code == 0
    assert "posed images" in text
    code, text = doctor(shared_data / "mmdet3d_tiny" / "kitti", capsys, tmp_path / "a.png")
    assert code == 1
    assert "label_2: no such folder" in text
