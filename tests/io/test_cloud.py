"""The point cloud's invariants."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from perception.io import FormatError, PointCloud, normalise_intensity


def test_invariants_are_checked() -> None:
    with pytest.raises(ValueError, match=r"shape \[4, 4\], expected \[N, 3\]"):
        PointCloud(np.zeros((4, 4)))
    with pytest.raises(ValueError, match="1 of 2 points are not finite"):
        PointCloud(np.array([[0, 0, 0], [np.nan, 0, 0]]))
    with pytest.raises(ValueError, match=r"attribute 'a' has shape \[3\] for 4 points"):
        PointCloud(np.zeros((4, 3)), {"a": np.zeros(3)})
    with pytest.raises(ValueError, match="origin"):
        PointCloud(np.zeros((4, 3)), origin=np.zeros(2))
    with pytest.raises(ValueError, match="valid marks 2 rows for 4 points"):
        PointCloud(np.zeros((4, 3)), valid=np.array([True, True]))


def test_an_empty_cloud_flows() -> None:
    cloud = PointCloud(np.zeros((0, 3)))
    assert len(cloud) == 0
    assert len(cloud[[]]) == 0
    with pytest.raises(ValueError, match="no bounds"):
        cloud.bounds()


def test_selection_takes_attributes_along() -> None:
    cloud = PointCloud(np.arange(12).reshape(4, 3), {"label": np.arange(4)}, origin=[1, 2, 3])
    for index in (np.array([True, False, True, False]), slice(0, 3, 2), [0, 2]):
        part = cloud[index]
        assert part.attributes["label"].tolist() == [0, 2]
        np.testing.assert_array_equal(part.points, [[0, 1, 2], [6, 7, 8]])
        np.testing.assert_array_equal(part.world()[0], [1, 3, 5])


def test_from_array_keeps_millimetres_far_from_zero() -> None:
    far = np.array([4.5e5, 5.4e6, 100.0]) + np.random.default_rng(0).random((50, 3))
    cloud = PointCloud.from_array(far)
    assert cloud.frame == "world"
    np.testing.assert_allclose(cloud.points + cloud.origin, far, atol=1e-4)
    given = PointCloud.from_array(far - 4.5e5, origin=[1.0, 2.0, 3.0])
    np.testing.assert_array_equal(given.origin, [1.0, 2.0, 3.0])


def test_from_array() -> None:
    array = np.array([[1, 2, 3, 255, 31], [4, 5, 6, 0, 2]], dtype=np.float64)
    cloud = PointCloud.from_array(array, frame="world")
    assert cloud.points.dtype == np.float32
    assert cloud.frame == "world"
    assert cloud.attributes["intensity"].tolist() == [1, 0]
    assert cloud.attributes["ring"].tolist() == [31, 2]
    with pytest.raises(ValueError, match=r"\[N, 3\+\]"):
        PointCloud.from_array(np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0.0, 0.5]), [0, 0.5]),
        (np.array([0.0, 255.0]), [0, 1]),
        (np.array([0, 1]), [0, 1 / 255]),
        (np.array([0, 4095]), [0, 1]),
        (np.array([0, 65535], np.uint16), [0, 1]),
        (np.array([-1.0, np.nan]), [0, 0]),
        (np.array([0.0, 131070.0]), [0, 1]),
    ],
)
def test_intensity_rule(values: np.ndarray, expected: list[float]) -> None:
    np.testing.assert_allclose(normalise_intensity(values), expected, rtol=1e-6)


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(FormatError("a.bin", "is\nempty", "copy it")))
    assert str(error) == "a.bin: is empty; copy it"
    assert isinstance(error, ValueError)
