"""Labels as arrays and text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.io import FormatError, read_labels


def test_arrays_and_text(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([3, -1, 65535, 0]))
    np.save(tmp_path / "b.npy", np.array([[3, 7], [-1, -1]], np.int16))
    np.save(tmp_path / "c.npy", np.array([1.0, 2.0]))
    (tmp_path / "a.txt").write_text("-1\n4\n")
    (tmp_path / "b.csv").write_text("label,instance\n2,9\n3,0\n")
    assert read_labels(tmp_path / "a.npy", 4).semantic.tolist() == [3, 65535, 65535, 0]
    both = read_labels(tmp_path / "b.npy")
    assert both.semantic.tolist() == [3, 65535]
    assert both.instance.tolist() == [7, 0]
    assert read_labels(tmp_path / "c.npy").semantic.tolist() == [1, 2]
    assert read_labels(tmp_path / "a.txt").semantic.tolist() == [65535, 4]
    table = read_labels(tmp_path / "b.csv")
    assert table.semantic.tolist() == [2, 3]
    assert table.instance.tolist() == [9, 0]
    with pytest.raises(FormatError, match="labels 2 points, the cloud has 3"):
        read_labels(tmp_path / "b.csv", 3)


@pytest.mark.parametrize(
    "values",
    [
        np.array([0.5]),
        np.array([np.nan]),
        np.array([70000]),
        np.array([-2]),
        np.array(["a"]),
        np.zeros((0,), int),
        np.zeros((3, 3), int),
        np.zeros((2, 2, 2), int),
        np.array(5),
    ],
    ids=str,
)
def test_what_is_no_label(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(FormatError, match="expected whole numbers"):
        read_labels(tmp_path / "a.npy")


@pytest.mark.parametrize("text", ["", "1\n2 3\n", "1 2 3\n", "1\nx\n", "names only\n"])
def test_what_is_no_text_of_labels(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(FormatError, match="expected whole numbers"):
        read_labels(tmp_path / "a.txt")
