"""SemanticKITTI label files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.io import FormatError, read_labels, write_labels


def test_round_trip(tmp_path: Path) -> None:
    semantic, instance = np.array([0, 10, 255, 65535]), np.array([0, 1, 2, 65535])
    write_labels(tmp_path / "a.label", semantic, instance)
    raw = np.fromfile(tmp_path / "a.label", np.uint32)
    np.testing.assert_array_equal(raw & 0xFFFF, semantic)
    np.testing.assert_array_equal(raw >> 16, instance)
    back = read_labels(tmp_path / "a.label", count=4)
    np.testing.assert_array_equal(back.semantic, semantic)
    np.testing.assert_array_equal(back.instance, instance)


def test_errors(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.label", np.zeros(4, np.uint8))
    with pytest.raises(FormatError, match="labels 4 points, the cloud has 5"):
        read_labels(tmp_path / "a.label", count=5)
    (tmp_path / "a.label").write_bytes(b"12345")
    with pytest.raises(FormatError, match="5 bytes"):
        read_labels(tmp_path / "a.label")
    with pytest.raises(FormatError, match="65535"):
        write_labels(tmp_path / "a.label", np.array([-1]))
    with pytest.raises(FormatError, match="integers"):
        write_labels(tmp_path / "a.label", np.array([0.5]))
    with pytest.raises(FileNotFoundError):
        read_labels(tmp_path / "b.label")


def test_real_labels(shared_data: Path) -> None:
    labels = read_labels(shared_data / "semantickitti_spvnas" / "000000.label", count=123389)
    assert int((labels.semantic == 70).sum()) == 24514  # vegetation
    assert int((labels.semantic == 252).sum()) == 990  # moving car
