"""Box files: what is written comes back, text in two forms, damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from perception.geometry import Boxes3D
from perception.io import FormatError
from perception.io.boxes import read_boxes, write_boxes

ROWS = np.array([[1, 2, 3, 4, 2, 1.5, 0.25], [-5, 0, 0, 1, 1, 2, -3]], np.float32)


def test_json_keeps_everything(tmp_path: Path) -> None:
    boxes = Boxes3D(ROWS, np.array([1, 0]), np.array([[1, 2], [0, -1.5]]), np.array([9, 8]))
    write_boxes(tmp_path / "a.json", boxes, scores=np.ones(2), names=("Car", "Person"))
    found, names = read_boxes(tmp_path / "a.json")
    assert names == ("Car", "Person")
    np.testing.assert_allclose(found.boxes, ROWS)
    assert found.labels.tolist() == [1, 0]
    assert found.velocity is not None
    np.testing.assert_allclose(found.velocity, [[1, 2], [0, -1.5]])
    assert found.track_ids is not None
    assert found.track_ids.tolist() == [9, 8]


def test_text_and_arrays(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# comment\n1 2 3 4 2 1.5 0.25 Car\n-5 0 0 1 1 2 -3 Person\n")
    found, names = read_boxes(tmp_path / "a.txt")
    assert [names[i] for i in found.labels] == ["Car", "Person"]
    np.testing.assert_allclose(found.boxes, ROWS)
    np.save(tmp_path / "a.npy", ROWS)
    found, names = read_boxes(tmp_path / "a.npy")
    assert names == ()
    np.testing.assert_allclose(found.boxes, ROWS)
    (tmp_path / "b.txt").write_text("\n")
    assert len(read_boxes(tmp_path / "b.txt").boxes) == 0


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ({"boxes": None}, "holds no boxes"),
        ({}, "cannot be read as boxes"),
        (3, "cannot be read as boxes"),
        ({"boxes": [[1, 2, 3]]}, r"shape \[1, 3\]; expected finite numbers"),
        ({"boxes": [[1, 2, 3, 4, 5, 6, float("nan")]]}, "finite"),
        ({"boxes": [[1, 2, 3, -4, 5, 6, 0]]}, "box 0 is"),
        ({"boxes": [[1e30, 2, 3, 4, 5, 6, 0]]}, "box 0 is"),
        ({"boxes": [[1] * 7], "box_labels": [1, 2]}, "cannot be read as boxes"),
        ({"boxes": [[1] * 7], "box_labels": ["car"]}, "cannot be read as boxes"),
        ({"boxes": [[1] * 7], "box_labels": [4], "classes": ["a"]}, "beyond its 1 classes"),
        ({"boxes": [[1] * 7], "velocity": [[1, 2], [3, 4]]}, "cannot be read as boxes"),
        ({"boxes": [[1] * 7], "track_ids": "x"}, "cannot be read as boxes"),
    ],
)
def test_damaged_json_names_its_cause(tmp_path: Path, content: object, cause: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=cause) as caught:
        read_boxes(file)
    assert caught.value.path == str(file)
    assert caught.value.remedy
