"""The encoder against direct definitions of what its features mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from perception.datasets.encode import Encoder, ground_height
from perception.io import PointCloud


def random_cloud(count: int = 500, seed: int = 0) -> PointCloud:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-3, 3, (count, 3)).astype(np.float32)
    return PointCloud(points, {"intensity": rng.random(count, dtype=np.float32)})


def test_sites_are_the_floors_of_the_points() -> None:
    cloud = random_cloud()
    encoded = Encoder(0.5, ["one"])(cloud)
    sites = np.floor(cloud.points / np.float32(0.5)).astype(np.int64)
    assert encoded.coords.dtype == torch.int32
    assert encoded.point_to_voxel.dtype == torch.int64
    assert (encoded.coords[:, 0] == 0).all()
    assert len(encoded.coords) == len(np.unique(sites, axis=0))
    np.testing.assert_array_equal(encoded.coords[encoded.point_to_voxel, 1:].numpy(), sites)


def test_features_are_means_over_the_points_of_a_site() -> None:
    cloud = random_cloud()
    encoder = Encoder(0.5, ["intensity", "z", "range", "offset", "one"])
    encoded = encoder(cloud)
    assert encoder.channels == 7
    assert encoded.features.shape == (len(encoded.coords), 7)
    assert encoded.features.dtype == torch.float32
    for row in range(0, len(encoded.coords), 37):
        mine = (encoded.point_to_voxel == row).numpy()
        p = cloud.points[mine].astype(np.float64)
        centre = (encoded.coords[row, 1:].numpy() + 0.5) * 0.5
        expected = [
            cloud.attributes["intensity"][mine].mean(),
            p[:, 2].mean() / 3,
            np.sqrt(p[:, 0] ** 2 + p[:, 1] ** 2).mean() / 50,
            *((p - centre) / 0.5).mean(axis=0),
            1.0,
        ]
        np.testing.assert_allclose(encoded.features[row].numpy(), expected, atol=1e-5)


def test_colours_are_read_in_order_red_green_blue() -> None:
    points = np.zeros((1, 3), np.float32)
    cloud = PointCloud(
        points, {"blue": np.array([0.5]), "red": np.array([1]), "green": np.array([0.0])}
    )
    encoded = Encoder(1.0, ["color"])(cloud)
    assert encoded.features.tolist() == [[1.0, 0.0, 0.5]]


def test_byte_colours_become_fractions() -> None:
    values = {"red": np.uint8([255]), "green": np.uint8([0]), "blue": np.uint8([51])}
    encoded = Encoder(1.0, ["color"])(PointCloud(np.zeros((1, 3), np.float32), values))
    torch.testing.assert_close(encoded.features, torch.tensor([[1.0, 0.0, 0.2]]))


def test_missing_intensity_reads_zero_and_says_so() -> None:
    cloud = PointCloud(np.zeros((3, 3), np.float32))
    with pytest.warns(UserWarning, match="no intensity"):
        encoded = Encoder(0.1, ["intensity", "one"])(cloud)
    assert encoded.features.tolist() == [[0.0, 1.0]]


def test_empty_cloud_gives_no_sites() -> None:
    cloud = PointCloud(np.zeros((0, 3), np.float32), {"intensity": np.zeros(0, np.float32)})
    encoded = Encoder(0.1, ["intensity", "height", "offset"])(cloud)
    assert encoded.coords.shape == (0, 4)
    assert encoded.features.shape == (0, 5)
    assert encoded.point_to_voxel.shape == (0,)


def test_metadata_rebuilds_the_encoder() -> None:
    encoder = Encoder(0.2, ("height", "one"))
    again = Encoder(**encoder.metadata())
    cloud = random_cloud()
    assert torch.equal(again(cloud).features, encoder(cloud).features)


@pytest.mark.parametrize("features", [["echo"], []])
def test_unknown_features_are_named(features: list[str]) -> None:
    with pytest.raises(ValueError, match="choose at least one of"):
        Encoder(0.1, features)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan")])
def test_voxel_size_must_be_positive(size: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Encoder(size, ["one"])


def sloped_street(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points on a sloped road, a wall and a car roof, and the height of the road under them."""
    ground = np.c_[rng.uniform(-30, 30, (20000, 2)), np.zeros(20000)]
    wall = np.c_[np.full(3000, 12.0), rng.uniform(-30, 30, 3000), rng.uniform(0.5, 8, 3000)]
    roof = np.c_[rng.uniform(-2, 2, 800), rng.uniform(4, 6, 800), np.full(800, 1.5)]
    above = np.concatenate([ground, wall, roof])
    road = 0.08 * above[:, 0] - 0.03 * above[:, 1] - 1.7
    points = above.copy()
    points[:, 2] += road
    return points.astype(np.float32), road


def test_ground_height_follows_a_slope_below_walls_and_cars() -> None:
    points, road = sloped_street(np.random.default_rng(0))
    # Of a 4 m cell the lowest corner counts: 4 * (8 % + 3 %) below its highest; border cells and
    # those behind the wall take a neighbour's.
    error = ground_height(points) - road
    assert np.abs(error).max() < 1.0
    assert np.median(np.abs(error)) < 0.25


def test_ground_height_ignores_reflections_below_the_road() -> None:
    rng = np.random.default_rng(1)
    points, _ = sloped_street(rng)
    clean = ground_height(points)
    ghosts = rng.uniform([5, 5, -14], [7, 7, -12], (60, 3)).astype(np.float32)
    lone = rng.uniform([-25, -25, -9], [25, 25, -6], (30, 3)).astype(np.float32)
    dirty = ground_height(np.concatenate([points, ghosts, lone]))
    assert np.abs(dirty[: len(points)] - clean).max() < 0.8


def test_ground_height_moves_with_the_points() -> None:
    points, _ = sloped_street(np.random.default_rng(2))
    moved = points + np.array([400, -800, 25], np.float32)  # a multiple of the 4 m cells
    np.testing.assert_allclose(ground_height(moved), ground_height(points) + 25, atol=2e-3)


def test_ground_height_of_few_points_is_finite() -> None:
    for count in (0, 1, 2, 7):
        height = ground_height(np.arange(3 * count, dtype=np.float32).reshape(count, 3))
        assert height.shape == (count,)
        assert np.isfinite(height).all()
