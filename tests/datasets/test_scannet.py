"""ScanNet as it lies on disk: classes, instances, alignment, lists, and damaged copies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from perception.datasets.readers.scannet import ScanNet
from perception.datasets.sample import IGNORE, Scans
from perception.io import FormatError

# nyu40 ids of twelve vertices: wall, floor, chair, chair, ceiling (no class), nothing, ...
NYU = np.array([1, 2, 5, 5, 22, 0, 39, 16, 24, 28, 36, 40], np.uint16)
CLASSES = [0, 1, 4, 4, 255, 255, 19, 13, 14, 15, 18, 255]


def write_ply(path: Path, points: np.ndarray, labels: np.ndarray | None = None) -> None:
    kind = [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
    kind += [("alpha", "u1")] + ([] if labels is None else [("label", "u2")])
    vertex = np.zeros(len(points), kind)
    for axis, name in enumerate("xyz"):
        vertex[name] = points[:, axis]
    vertex["red"], vertex["alpha"] = np.arange(len(points)), 255
    if labels is not None:
        vertex["label"] = labels
    face = np.zeros(2, [("vertex_indices", "i4", (3,))])
    elements = [PlyElement.describe(vertex, "vertex"), PlyElement.describe(face, "face")]
    PlyData(elements, byte_order="<").write(str(path))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two scenes of train, one of test (without labels)."""
    points = np.arange(36, dtype=np.float32).reshape(12, 3)
    for folder, name in (("scans", "scene0000_00"), ("scans", "scene0001_01"),
                         ("scans_test", "scene0707_00")):  # fmt: skip
        scene = tmp_path / folder / name
        scene.mkdir(parents=True)
        write_ply(scene / f"{name}_vh_clean_2.ply", points)
        if folder == "scans":
            write_ply(scene / f"{name}_vh_clean_2.labels.ply", points, NYU)
            segments = [7, 7, 3, 3, 9, 9, 5, 5, 5, 5, 5, 5]
            (scene / f"{name}_vh_clean_2.0.010000.segs.json").write_text(
                json.dumps({"sceneId": name, "segIndices": segments})
            )
            groups = [{"objectId": 0, "segments": [3], "label": "chair"},
                      {"objectId": 4, "segments": [5, 9], "label": "cupboard"}]  # fmt: skip
            (scene / f"{name}.aggregation.json").write_text(json.dumps({"segGroups": groups}))
            turn = "0 -1 0 10 1 0 0 20 0 0 1 -1 0 0 0 1"
            (scene / f"{name}.txt").write_text(f"sceneType = Office\naxisAlignment = {turn}\n")
    (tmp_path / "scannetv2_train.txt").write_text("scene0000_00\nscene0001_01\nscene0002_00\n")
    (tmp_path / "scannetv2_test.txt").write_text("scene0707_00\n")
    return tmp_path


def test_a_scene_has_classes_instances_and_boxes(root: Path) -> None:
    data = ScanNet(root, split="all")
    assert isinstance(data, Scans)
    assert tuple(data.names) == ("scene0000_00", "scene0001_01", "scene0707_00")
    assert len(data.classes) == len(data.colors) == 20
    sample = data[0]
    assert sample.labels is not None
    assert sample.labels.tolist() == CLASSES
    assert sample.instances is not None
    assert sample.instances.tolist() == [0, 0, 1, 1, 5, 5, 5, 5, 5, 5, 5, 5]
    assert list(sample.cloud.attributes) == ["red", "green", "blue"]
    np.testing.assert_array_equal(sample.cloud.attributes["red"], np.arange(12))
    # Turned by a quarter and moved, as the scene's text says.
    np.testing.assert_allclose(sample.cloud.points[1], [10 - 4, 20 + 3, 5 - 1])
    assert sample.boxes is not None
    assert sample.boxes.track_ids is not None
    assert sample.boxes.track_ids.tolist() == [1, 5]
    assert data.box_classes[sample.boxes.labels[0]] == "chair"
    np.testing.assert_allclose(
        sample.boxes.boxes[0], [10 - 8.5, 20 + 7.5, 8.5, 3, 3, 3, 0], atol=1e-3
    )
    assert sample.boxes.contains(sample.cloud.points)[0].nonzero()[0].tolist() == [2, 3]
    raw = ScanNet(root, split="all", align=False)[0]
    np.testing.assert_array_equal(raw.cloud.points[1], [3, 4, 5])


def test_lists_choose_the_scenes(root: Path) -> None:
    with pytest.warns(UserWarning, match="1 of 3 scenes of split 'train' are not here.*scene0002"):
        assert ScanNet(root).names == ("scene0000_00", "scene0001_01")
    test = ScanNet(root, split="test")
    assert test.names == ("scene0707_00",)
    assert test[0].labels is test[0].instances is test[0].boxes is None
    with pytest.raises(FileNotFoundError, match=r"scannetv2_val.txt: no such list.*github"):
        ScanNet(root, split="val")
    (root / "scannetv2_val.txt").write_text("scene0999_00\n")
    with pytest.raises(FileNotFoundError, match="none of the 1 scenes of split 'val'"):
        ScanNet(root, split="val")
    (root / "scannetv2_val.txt").write_text("<html>")
    with pytest.raises(FormatError, match=r"html.*no scene"):
        ScanNet(root, split="val")
    with pytest.raises(ValueError, match="none of train, val"):
        ScanNet(root, split="valid")
    with pytest.raises(FileNotFoundError, match=r"no ScanNet scene.*expected"):
        ScanNet(root / "scans" / "scene0000_00", split="all")


def damaged(root: Path, name: str, change: object) -> Path:
    file = root / "scans" / "scene0000_00" / f"scene0000_00{name}"
    if isinstance(change, bytes):
        file.write_bytes(change)
    elif isinstance(change, int):
        file.write_bytes(file.read_bytes()[:change])
    return file


SEGMENTS, GROUPS = "_vh_clean_2.0.010000.segs.json", ".aggregation.json"


@pytest.mark.parametrize(
    ("name", "change", "cause"),
    [
        ("_vh_clean_2.ply", b"", "is empty"),
        ("_vh_clean_2.ply", 300, "holds 3 of 12 vertices"),
        ("_vh_clean_2.labels.ply", 200, "end_header|too short"),
        (SEGMENTS, 20, "segIndices"),
        (SEGMENTS, b'{"segIndices": [1, 2]}', r"segments \[2\] for 12 points"),
        (SEGMENTS, b'{"segIndices": [1.5, NaN]}', "segments"),
        (SEGMENTS, b"[]", "segIndices"),
        (GROUPS, b'{"segGroups": 3}', "no list 'segGroups'"),
        (GROUPS, b'{"segGroups": [{"objectId": "x"}]}', "broken group"),
        (GROUPS, b'{"segGroups": [{"objectId": -5, "segments": []}]}', "broken object"),
        (".txt", b"axisAlignment = 1 2 3", "axisAlignment"),
    ],
)
def test_damaged_scenes_name_file_cause_and_remedy(
    root: Path, name: str, change: object, cause: str
) -> None:
    file = damaged(root, name, change)
    with pytest.raises(FormatError, match=cause) as caught:
        ScanNet(root, split="all")[0]
    assert caught.value.path == str(file)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_unknown_classes_and_other_counts_are_refused(root: Path) -> None:
    labels = root / "scans" / "scene0000_00" / "scene0000_00_vh_clean_2.labels.ply"
    write_ply(labels, np.zeros((12, 3)), NYU + 100)
    with pytest.raises(FormatError, match="has the class 101, nyu40 ends at 40"):
        ScanNet(root, split="all")[0]
    write_ply(labels, np.zeros((5, 3)), NYU[:5])
    with pytest.raises(FormatError, match="labels 5 points, the scene has 12"):
        ScanNet(root, split="all")[0]
    write_ply(labels, np.zeros((12, 3)))
    with pytest.raises(FormatError, match="no integer property 'label'"):
        ScanNet(root, split="all")[0]


def test_points_that_are_no_numbers_take_their_labels_along(root: Path) -> None:
    points = np.arange(36, dtype=np.float32).reshape(12, 3)
    points[3] = np.nan
    for name, labels in (("", None), (".labels", NYU)):
        write_ply(
            root / "scans" / "scene0000_00" / f"scene0000_00_vh_clean_2{name}.ply", points, labels
        )
    with pytest.warns(UserWarning, match="dropped 1 of 12"):
        sample = ScanNet(root, split="all")[0]
    assert sample.labels is not None
    assert sample.labels.tolist() == CLASSES[:3] + CLASSES[4:]
    assert sample.instances is not None
    assert sample.instances.tolist() == [0, 0, 1, 5, 5, 5, 5, 5, 5, 5, 5]


def test_the_prepared_form_of_the_real_scene(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "mmdet3d_tiny" / "scannet"
    sample = ScanNet(source, split="all")[0]
    assert sample.name == "scene0000_00"
    assert len(sample.cloud) == 100
    assert sample.labels is not None
    raw = np.fromfile(source / "semantic_mask" / "scene0000_00.bin", np.int64)
    assert ((sample.labels == IGNORE) == np.isin(raw, [0, 15, 18, 22, 25, 38, 40])).all()
    assert sample.instances is not None
    assert len(np.unique(sample.instances)) == 33
    copy = shutil.copytree(source, tmp_path / "copy")
    mask = copy / "semantic_mask" / "scene0000_00.bin"
    mask.write_bytes(mask.read_bytes()[:799])
    with pytest.raises(FormatError, match="799 bytes long, 100 points need 800"):
        ScanNet(copy, split="all")[0]
    mask.write_bytes(np.full(100, 77, np.int64).tobytes())
    with pytest.raises(FormatError, match="class 77"):
        ScanNet(copy, split="all")[0]
