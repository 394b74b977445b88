"""Feather files: Argoverse 2's sweeps, tables of one's own, and what is wrong with others."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from perception.io import FormatError, PointCloud, read, write

pa = pytest.importorskip("pyarrow")


def store(path: Path, **columns: object) -> Path:
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return path


def test_a_real_sweep(shared_data: Path) -> None:
    for file, count in (("315966265259836000", 99229), ("315966265360032000", 99466)):
        cloud = read(shared_data / "av2" / "7fab2350" / "lidar" / f"{file}.feather")
        assert len(cloud) == count
        assert set(cloud.attributes) == {"intensity", "ring", "time"}
        assert 0.9 < cloud.attributes["intensity"].max() <= 1
        assert cloud.attributes["ring"].max() == 63
        assert 0 <= cloud.attributes["time"].min() < cloud.attributes["time"].max() < 0.11
        assert np.abs(cloud.points).max() < 260


def test_columns_get_their_names_and_units(tmp_path: Path) -> None:
    path = store(
        tmp_path / "a.feather",
        x=np.array([1, 2], np.float16),
        y=np.array([3, 4], np.float16),
        z=np.array([5, 6], np.float16),
        intensity=np.array([0, 255], np.uint8),
        laser_number=np.array([7, 63], np.uint8),
        offset_ns=np.array([0, 100_000_000], np.int32),
        name=["a", "b"],
    )
    cloud = read(path)
    np.testing.assert_array_equal(cloud.points, [[1, 3, 5], [2, 4, 6]])
    assert cloud.attributes["intensity"].tolist() == [0, 1]
    assert cloud.attributes["ring"].tolist() == [7, 63]
    np.testing.assert_allclose(cloud.attributes["time"], [0, 0.1])
    assert "name" not in cloud.attributes


def test_everything_but_vectors_is_kept(tmp_path: Path) -> None:
    attributes = {"intensity": np.array([0.25, 1], np.float32), "normal": np.eye(2, 3)}
    cloud = PointCloud(np.ones((2, 3)), attributes, origin=np.array([5e5, 5e6, 100.0]))
    write(tmp_path / "a.feather", cloud)
    back = read(tmp_path / "a.feather")
    np.testing.assert_allclose(back.world(), cloud.world())
    assert set(back.attributes) == {"intensity"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as Feather"),
        (b"ARROW1", "cannot be read as Feather"),
        (b"FEA1 and more that is not what it should be", "cannot be read as Feather"),
    ],
)
def test_what_is_no_feather_file(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.feather").write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read(tmp_path / "a.feather")


def test_a_truncated_sweep(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = store(tmp_path / "a.feather", x=rng.random(500), y=rng.random(500), z=rng.random(500))
    data = path.read_bytes()
    for keep in (0.2, 0.5, 0.99):
        path.write_bytes(data[: int(len(data) * keep)])
        with pytest.raises(FormatError, match="damaged or truncated"):
            read(path)


def test_tables_of_other_things(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="has no column z"):
        read(store(tmp_path / "a.feather", x=[1.0], y=[2.0]))
    with pytest.raises(FormatError, match="holds no points"):
        read(
            store(
                tmp_path / "b.feather",
                x=pa.array([], "f4"),
                y=pa.array([], "f4"),
                z=pa.array([], "f4"),
            )
        )
    with pytest.raises(FormatError, match="has no column z"):
        read(store(tmp_path / "c.feather", x=[1.0], y=[2.0], z=[None]))
    with pytest.warns(UserWarning, match="dropped 1 of 2 points"):
        read(store(tmp_path / "d.feather", x=[1.0, np.nan], y=[2.0, 2.0], z=[0.0, 0.0]))


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store(tmp_path / "a.feather", x=[1.0], y=[2.0], z=[3.0])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"sparse-perception\[argoverse\]"):
        read(path)
