"""Data of one's own: from nothing but point files to labels, boxes, poses and splits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from perception.datasets.readers.custom import (
    DESCRIPTION_KEYS,
    Custom,
    read_trajectory,
    suggest,
)
from perception.datasets.sample import Scans
from perception.geometry import Boxes3D
from perception.io import FormatError, PointCloud, write, write_labels
from perception.io.boxes import write_boxes

RNG = np.random.default_rng(0)
DESCRIPTION = """
classes: {road: 40, car: [10, 252]}
colors: {car: [0, 0, 255]}
ignore: [0]
box_classes: {Car: [Van], Person: []}
ignore_boxes: [Misc]
split: {train: ["a/*"], val: [b/0]}
"""


def write_points(path: Path, count: int = 50, **attributes: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, PointCloud(RNG.uniform(-20, 20, (count, 3)), attributes))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two drives: a with eleven scans, poses, labels and boxes, b with two scans."""
    for i in range(11):
        write_points(tmp_path / "a" / "points" / f"scan_{i}.pcd")
    (tmp_path / "a" / "labels").mkdir()
    (tmp_path / "a" / "boxes").mkdir()
    ids = np.array([0, 10, 40, 252, 40] * 10)
    write_labels(tmp_path / "a" / "labels" / "scan_0.label", ids, np.arange(50))
    np.save(tmp_path / "a" / "labels" / "scan_1.npy", np.where(ids == 0, -1, ids)[:, None])
    (tmp_path / "a" / "labels" / "scan_2.txt").write_text("\n".join(map(str, ids)))
    boxes = Boxes3D(
        np.array([[5, 1, 0, 4, 2, 1.5, 0.3], [9, 1, 0, 1, 1, 2, 0]]), np.array([1, 0]),
        np.ones((2, 2), np.float32), np.array([7, 8]),
    )  # fmt: skip
    write_boxes(tmp_path / "a" / "boxes" / "scan_0.json", boxes, names=("Misc", "Van"))
    (tmp_path / "a" / "boxes" / "scan_1.txt").write_text(
        "1 2 3 4 2 1.5 0.1 Car\n0 0 0 1 1 2 0 Person\n"
    )
    rows = [f"1 0 0 {i} 0 1 0 0 0 0 1 0" for i in range(11)]
    (tmp_path / "a" / "poses.txt").write_text("\n".join(rows))
    for i in range(2):
        write_points(tmp_path / "b" / "points" / f"{i}.npz")
    (tmp_path / "dataset.yaml").write_text(DESCRIPTION)
    return tmp_path


def test_nothing_but_point_files(tmp_path: Path) -> None:
    for i in (10, 9, 1):
        write_points(tmp_path / f"{i}.ply")
    (tmp_path / "notes.txt").write_text("nothing to see")
    data = Custom(tmp_path)
    assert isinstance(data, Scans)
    assert data.names == ("1", "9", "10")
    assert data.classes == data.box_classes == ()
    assert data.colors.shape == (0, 3)
    assert data.sequences == [range(0, 1), range(1, 2), range(2, 3)]
    sample = data[2]
    assert len(sample.cloud) == 50
    assert sample.labels is sample.boxes is sample.pose is None


def test_labels_boxes_and_poses(root: Path) -> None:
    data = Custom(root)
    assert data.names[:3] == ("a/scan_0", "a/scan_1", "a/scan_2")
    assert data.names[-3:] == ("a/scan_10", "b/0", "b/1")
    assert data.sequences == [range(0, 11), range(11, 12), range(12, 13)]
    assert data.classes == ("road", "car")
    assert data.colors[1].tolist() == [0, 0, 255]
    expected = [255, 1, 0, 1, 0] * 10
    for i in range(3):
        sample = data[i]
        assert sample.labels is not None
        assert sample.labels.tolist() == expected
    instances = data[0].instances
    assert instances is not None
    assert instances.tolist() == list(range(50))
    boxes = data[0].boxes
    assert boxes is not None
    assert [data.box_classes[i] for i in boxes.labels] == ["Car"]  # a Van; Misc is left out
    assert boxes.track_ids is not None
    assert boxes.track_ids.tolist() == [7]
    np.testing.assert_allclose(boxes.boxes[0], [5, 1, 0, 4, 2, 1.5, 0.3])
    second = data[1].boxes
    assert second is not None
    assert [data.box_classes[i] for i in second.labels] == ["Car", "Person"]
    pose = data[3].pose
    assert pose is not None
    assert pose[:3, 3].tolist() == [3, 0, 0]
    assert data[11].labels is data[11].boxes is data[11].pose is None


def test_splits(root: Path) -> None:
    assert len(Custom(root, "train")) == 11
    assert Custom(root, "val").names == ("b/0",)
    (root / "tiny.txt").write_text("a/scan_3\na/scan_4\na/scan_7\n")
    tiny = Custom(root, "tiny")
    assert tiny.sequences == [range(0, 2), range(2, 3)]
    pose = tiny[2].pose
    assert pose is not None
    assert pose[0, 3] == 7
    with pytest.raises(ValueError, match=r"no split 'test' \(but all, train, val, tiny\)"):
        Custom(root, "test")
    (root / "tiny.txt").write_text("nobody\n")
    with pytest.raises(FormatError, match=r"lists 'nobody', which no scan is called.*'a/scan_0'"):
        Custom(root, "tiny")


def test_labels_beside_and_inside_the_points(tmp_path: Path) -> None:
    write_points(tmp_path / "0.bin")
    write_labels(tmp_path / "0.label", np.ones(50, int))
    write_boxes(tmp_path / "0.json", Boxes3D(np.ones((1, 7)), np.array([1])))
    write_points(tmp_path / "1.ply", label=np.arange(50) % 3, instance=np.arange(50))
    (tmp_path / "dataset.yaml").write_text(
        "classes: [a, b, c]\nbox_classes: [x, y]\nlayout: kitti\n"
    )
    data = Custom(tmp_path)
    first, second = data[0], data[1]
    assert first.labels is not None
    assert first.labels.tolist() == [1] * 50
    assert first.boxes is not None
    assert first.boxes.labels.tolist() == [1]
    assert second.labels is not None
    assert second.labels.tolist() == (np.arange(50) % 3).tolist()
    assert second.instances is not None
    assert second.instances[-1] == 49


def test_points_that_are_no_numbers_take_their_labels_along(tmp_path: Path) -> None:
    rows = np.ones((4, 4), np.float32)
    rows[1] = np.nan
    (tmp_path / "0.bin").write_bytes(rows.tobytes())
    write_labels(tmp_path / "0.label", np.array([0, 1, 2, 2]))
    (tmp_path / "dataset.yaml").write_text("classes: [a, b, c]\n")
    with pytest.warns(UserWarning, match="dropped 1 of 4"):
        sample = Custom(tmp_path)[0]
    assert sample.labels is not None
    assert sample.labels.tolist() == [0, 2, 2]


def test_tum_poses(tmp_path: Path) -> None:
    file = tmp_path / "poses.txt"
    half = np.sqrt(0.5)
    file.write_text(f"# time x y z qx qy qz qw\n0.5 1 2 3 0 0 {half} {half}\n")
    times, poses = read_trajectory(file)
    assert times is not None
    assert times.tolist() == [0.5]
    np.testing.assert_allclose(
        poses[0], [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], atol=1e-9
    )
    write_points(tmp_path / "points" / "0.npy")
    sample = Custom(tmp_path)[0]
    assert sample.time == 0.5
    assert sample.pose is not None


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[", "is no YAML"),
        ("- 1", "holds no keys"),
        ("clases: [a]", "unknown key 'clases'; known are classes"),
        ("classes: 3", "classes of another form; expected names"),
        ("classes: {a: x}", "classes of another form"),
        ("classes: {a: 1, b: 1}", "gives the id 1 to a and b"),
        ("classes: [a]\nignore: [a]", "ignore of another form"),
        ("classes: [a]\ncolors: {b: [1, 2, 3]}", "has the colour b"),
        ("classes: [a]\ncolors: {a: [1, 2, 300]}", "has the colour a"),
        ("box_classes: 1", "box_classes of another form"),
        ("layout: 7", "layout that is no name"),
        ("classes: [a]\nbox_classes: [b]\nsplit: 7", "split of another form"),
        ("", "does not name the classes of a/labels/scan_0.label; .*perception doctor"),
        ("classes: {a: [0, 10, 40, 252]}", "does not name the box_classes of a/boxes/scan_0.json"),
    ],
)
def test_a_wrong_description_names_its_cause(root: Path, text: str, cause: str) -> None:
    (root / "dataset.yaml").write_text(text)
    with pytest.raises(FormatError, match=cause) as caught:
        Custom(root, "train")
    assert caught.value.path == str(root / "dataset.yaml")
    assert caught.value.remedy


def test_unknown_classes_and_other_counts_are_refused(root: Path) -> None:
    labels = root / "a" / "labels" / "scan_0.label"
    write_labels(labels, np.array([77] * 30 + [40] * 20))
    with pytest.raises(
        FormatError, match=r"unknown class 77 \(30 points\); add it to classes or to"
    ):
        Custom(root)[0]
    write_labels(labels, np.zeros(49, int))
    with pytest.raises(FormatError, match="labels 49 points, the cloud has 50"):
        Custom(root)[0]
    labels.write_bytes(b"123")
    with pytest.raises(FormatError, match="3 bytes long"):
        Custom(root)[0]
    write_labels(labels, np.zeros(50, int))
    boxes = root / "a" / "boxes" / "scan_1.txt"
    for text, cause in (
        ("1 2 3 4 2 1.5 0.1 Tram\n", "unknown class 'Tram'; add it to box_classes or to ignore"),
        ("1 2 3 4 2 1.5 0.1\n", "has the box 1"),
        ("1 2 3 4 2 nan 0.1 Car\n", "finite"),
        ("1 2 3 -4 2 1 0.1 Car\n", r"box 0 is \[1.0, 2.0, 3.0, -4.0"),
        ("1 2 x 4 2 1 0.1 Car\n", "cannot be read as boxes"),
    ):
        boxes.write_text(text)
        with pytest.raises(FormatError, match=cause):
            Custom(root)[1]
    boxes.write_text("")
    empty = Custom(root)[1].boxes
    assert empty is not None
    assert len(empty) == 0
    json_boxes = root / "a" / "boxes" / "scan_0.json"
    json_boxes.write_text(json.dumps({"boxes": [[1] * 7], "box_labels": [5], "classes": ["Car"]}))
    with pytest.raises(FormatError, match="box_labels beyond its 1 classes"):
        Custom(root)[0]
    (root / "dataset.yaml").write_text(
        "classes: [a]\nignore: others\nbox_classes: [Car]\nignore_boxes: others\n"
    )
    (root / "a" / "labels" / "scan_0.label").write_bytes(np.full(50, 9, "<u4").tobytes())
    json_boxes.write_text(json.dumps({"boxes": [[1] * 7], "classes": ["Tram"]}))
    sample = Custom(root)[0]
    assert sample.labels is not None
    assert set(sample.labels.tolist()) == {255}
    assert sample.boxes is not None
    assert len(sample.boxes) == 0


def test_poses_must_be_as_many_as_scans(root: Path) -> None:
    file = root / "a" / "poses.txt"
    for text, cause in (
        ("1 0 0 0 0 1 0 0 0 0 1 0\n" * 3, "has 3 poses for 11 scans; line i belongs to scan i"),
        ("1 0 0\n" * 11, "has 3 columns; expected 12"),
        ("2 0 0 0 0 1 0 0 0 0 1 0\n" * 11, "no rigid motion"),
        ("0 1 2 3 0 0 0 0\n" * 11, "broken rotation"),
        ("hello\n", "no table of numbers"),
    ):
        file.write_text(text)
        with pytest.raises(FormatError, match=cause) as caught:
            Custom(root)
        assert caught.value.path == str(file)


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Custom(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"holds no point file; expected points/NAME.pcd"):
        Custom(tmp_path)
    write_points(tmp_path / "points" / "0.pcd")
    write_points(tmp_path / "points" / "0.ply")
    with pytest.raises(FormatError, match=r"same name as 0.pcd; keep one format"):
        Custom(tmp_path)


def test_a_first_description_reads_everything(root: Path) -> None:
    (root / "dataset.yaml").unlink()
    said = suggest(root)
    assert said == {
        "ignore": [0],
        "classes": {"car": [10, 252], "road": [40]},
        "colors": {"car": [100, 150, 245], "road": [255, 0, 255]},
        "box_classes": ["Car", "Misc", "Person", "Van"],
    }
    data = Custom(root, description=said)
    assert data.classes == ("car", "road")
    for i in range(3):
        assert data[i].labels is not None
    write_labels(root / "a" / "labels" / "scan_3.label", np.full(50, 7))
    assert suggest(root)["classes"]["class 7"] == 7


def test_the_description_in_the_guide_is_a_description(tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "custom-data.md"
    (example,) = re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.S | re.M)
    (tmp_path / "dataset.yaml").write_text(example)
    for name in ("monday", "tuesday"):
        for number in range(2):
            write_points(tmp_path / name / "points" / f"{number:06d}.bin")
    data = Custom(tmp_path, "val")
    assert data.names == ("tuesday/000000", "tuesday/000001")
    assert data.classes == ("road", "car")
    assert data.box_classes == ("Car", "Pedestrian")
    assert len(data[0].cloud) == 50
    assert set(DESCRIPTION_KEYS) == set(yaml.safe_load(example))
