"""S3DIS as it lies on disk: objects, areas, the released files' stray characters, the cache."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from perception.datasets.readers.s3dis import S3DIS
from perception.datasets.sample import Scans
from perception.io import FormatError

OBJECTS = {
    "ceiling_1": ["0 0 3.0 1 2 3", "1 0 3.0 1 2 3"],
    "chair_1": ["2.5 1.0 0.0 255 0 9", "3.5 2.0 1.0 255 0 9", "3.0 1.5 0.5 255 0 9"],
    "chair_2": ["5 5 0 9 9 9", "6 6 1 9 9 9"],
    "stairs_1": ["7 7 0 9 9 9"],
}


def write_room(folder: Path, objects: dict[str, list[str]] = OBJECTS) -> None:
    (folder / "Annotations").mkdir(parents=True)
    for name, lines in objects.items():
        (folder / "Annotations" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    every = [line for lines in objects.values() for line in lines]
    (folder / f"{folder.name}.txt").write_text("\n".join(every) + "\n")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for room in ("Area_1/office_1", "Area_1/hallway_2", "Area_5/hallway_6"):
        write_room(tmp_path / "data" / room)
    (tmp_path / "data" / "Area_1" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "data" / "Area_1" / "office_1" / "Annotations" / "chair_1 (1).txt").write_text("x")
    return tmp_path / "data"


def test_a_room_has_classes_instances_and_boxes(root: Path) -> None:
    data = S3DIS(root)
    assert isinstance(data, Scans)
    assert tuple(data.names) == ("Area_1/hallway_2", "Area_1/office_1")
    sample = data[1]
    assert sample.labels is not None
    assert [data.classes[i] for i in sample.labels] == (
        ["ceiling"] * 2 + ["chair"] * 5 + ["clutter"]
    )
    assert sample.instances is not None
    assert sample.instances.tolist() == [1, 1, 2, 2, 2, 3, 3, 4]
    np.testing.assert_array_equal(sample.cloud.points[2], [2.5, 1.0, 0.0])
    assert sample.cloud.attributes["red"].tolist() == [1, 1, 255, 255, 255, 9, 9, 9]
    assert sample.boxes is not None
    assert [data.box_classes[i] for i in sample.boxes.labels] == ["chair", "chair"]
    np.testing.assert_allclose(sample.boxes.boxes[0], [3, 1.5, 0.5, 1, 1, 1, 0], atol=1e-3)


def test_areas_are_the_splits(root: Path) -> None:
    assert S3DIS(root, split="val").names == ("Area_5/hallway_6",)
    assert len(S3DIS(root, split="val", validation_area=1)) == 2
    assert len(S3DIS(root, split="all")) == 3
    with pytest.raises(
        FileNotFoundError, match="holds only Area_1, Area_5, nothing of split 'val'"
    ):
        S3DIS(root, split="val", validation_area=2)
    with pytest.raises(ValueError, match="validation_area 7"):
        S3DIS(root, validation_area=7)
    with pytest.raises(ValueError, match="split 'test' is none of"):
        S3DIS(root, split="test")
    with pytest.raises(FileNotFoundError, match="no S3DIS room; expected Area_1/office_1"):
        S3DIS(root / "Area_1")


def test_stray_characters_of_the_release_are_mended(root: Path) -> None:
    """A control character (0x10) stands for a space, or for a digit that nobody knows."""
    file = root / "Area_5" / "hallway_6" / "Annotations" / "ceiling_1.txt"
    file.write_bytes(
        b"22.35 6.69 3.04 185\x10187 182\n19.302 -9.1\x100 1.785 146 137 106\n1 2 3 4 5 6\n"
    )
    with pytest.warns(UserWarning, match=r"ceiling_1.txt: mended stray.*left out 1 points"):
        sample = S3DIS(root, split="val")[0]
    np.testing.assert_allclose(sample.cloud.points[:2], [[22.35, 6.69, 3.04], [1, 2, 3]])
    assert sample.cloud.attributes["green"][0] == 187


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is empty"),
        (b"1 2 3 4 5 6\n1 2 3 4\n", r"has the line 2 '1 2 3 4'"),
        (b"1 2 3\n", "has the line 1"),
        (b"1 2 3 x 5 6\n", "has the line 1"),
        (b"1 2 nan 4 5 6\n", "not finite"),
        (b"1 2 1e999 4 5 6\n", "not finite"),
        (b"\x10\n", "no line of points"),
        (b"\xff\xfe\x00", "has the line|no line"),
    ],
)
def test_damaged_rooms_name_file_cause_and_remedy(root: Path, content: bytes, cause: str) -> None:
    file = root / "Area_5" / "hallway_6" / "Annotations" / "chair_1.txt"
    file.write_bytes(content)
    with pytest.raises(FormatError, match=cause) as caught:
        S3DIS(root, split="val")[0]
    assert caught.value.path == str(file)
    assert caught.value.remedy


def test_text_is_parsed_once(root: Path, cache: Path) -> None:
    first = S3DIS(root, split="val")[0]
    (cached,) = cache.rglob("*.npz")
    file = root / "Area_5" / "hallway_6" / "Annotations" / "ceiling_1.txt"
    status, text = file.stat(), file.read_bytes()
    file.write_bytes(b"x" * len(text))  # same size, same time: nobody looks
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = S3DIS(root, split="val")[0]
    np.testing.assert_array_equal(again.cloud.points, first.cloud.points)
    file.write_bytes(text + b"9 9 9 1 1 1\n")  # another file: parsed anew
    assert len(S3DIS(root, split="val")[0].cloud) == len(first.cloud) + 1
    cached.write_bytes(cached.read_bytes()[:100])  # damaged: parsed anew
    assert len(S3DIS(root, split="val")[0].cloud) == len(first.cloud) + 1


def test_prepare_parses_all(root: Path, cache: Path) -> None:
    S3DIS(root, split="all").prepare()
    assert len(list(cache.rglob("*.npz"))) == 3


def test_a_room_without_annotations_has_points_only(root: Path) -> None:
    shutil.rmtree(root / "Area_5" / "hallway_6" / "Annotations")
    for _ in range(2):  # from text, from the cache
        sample = S3DIS(root, split="val")[0]
        assert len(sample.cloud) == 8
        assert sample.labels is sample.instances is sample.boxes is None


def test_the_prepared_form_of_the_real_room(shared_data: Path) -> None:
    data = S3DIS(shared_data / "mmdet3d_tiny" / "s3dis", split="all")
    assert tuple(data.names) == ("Area_1/office_2",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample = data[0]
    assert len(sample.cloud) == 100
    assert sample.labels is not None
    assert sorted(set(sample.labels.tolist())) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12]
    assert sample.instances is not None
    assert sample.instances.min() == 1
    # The heights are those of a room: ceiling above everything, floor below.
    height = sample.cloud.points[:, 2]
    assert height[sample.labels == 0].min() > height[sample.labels == 1].max() + 2
