"""Scans on a lattice that stands still."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_drive import FEATURES, drive, ground, pose

from perception.datasets.encode import Encoder
from perception.geometry import invert, transform
from perception.inference.window import Lattice, joined


def test_at_the_sensor_a_lattice_is_the_encoders() -> None:
    cloud = ground(2000, 12.0)
    encoder = Encoder(0.2, (*FEATURES, "height"))
    expected, placed = encoder(cloud), encoder.placed(cloud, np.eye(4), positions=True)
    torch.testing.assert_close(placed.coords, expected.coords)
    torch.testing.assert_close(placed.features, expected.features, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(placed.point_to_voxel, expected.point_to_voxel)
    assert placed.positions is not None
    torch.testing.assert_close(placed.positions.float(), encoder.positions(cloud))


def test_sites_stay_where_they_are_and_features_of_the_sensor_are_its_own() -> None:
    cloud = ground(2000, 12.0)
    encoder = Encoder((0.2, 0.2, 0.1), ("range", "z", "offset"), time="frame")
    where = pose(3)
    lattice = Lattice(encoder, pose(0), np.eye(4))
    frame = lattice.frame(cloud, where, 0.3)
    here = transform(invert(pose(0)) @ where, cloud.points.astype(np.float64))
    cells = np.floor(here / [0.2, 0.2, 0.1]).astype(np.int32)
    sites = frame.encoded.coords[frame.encoded.point_to_voxel].numpy()
    np.testing.assert_array_equal(sites[:, 1:4], cells)
    assert (sites[:, 4] == 0).all()
    counts = np.bincount(frame.encoded.point_to_voxel.numpy())
    alone = counts[frame.encoded.point_to_voxel.numpy()] == 1
    values = frame.encoded.features[frame.encoded.point_to_voxel].numpy()[alone]
    own = cloud.points[alone]
    np.testing.assert_allclose(values[:, 0], np.hypot(own[:, 0], own[:, 1]) / 50, atol=1e-5)
    np.testing.assert_allclose(values[:, 1], own[:, 2] / 3, atol=1e-5)
    offset = here[alone] / [0.2, 0.2, 0.1]
    np.testing.assert_allclose(values[:, 2:], offset - np.floor(offset) - 0.5, atol=1e-5)


def test_far_from_its_zero_a_lattice_is_as_fine() -> None:
    cloud = ground(500, 8.0)
    encoder = Encoder(0.05, ("offset",))
    near, far = np.eye(4), np.eye(4)
    far[0, 3] = 0.05 * 10_000_000  # 500 km along the lattice
    a = Lattice(encoder, np.eye(4), np.eye(4)).frame(cloud, near).encoded
    b = Lattice(encoder, np.eye(4), np.eye(4)).frame(cloud, far).encoded
    moved = a.coords + torch.tensor([0, 10_000_000, 0, 0], dtype=torch.int32)
    torch.testing.assert_close(b.coords, moved)
    torch.testing.assert_close(b.features, a.features, atol=1e-4, rtol=0)


def test_joined_frames_have_times_ages_and_the_points_of_all() -> None:
    frames = drive(3, 300)
    encoder = Encoder(0.2, ("age", "intensity"), time="frame")
    assert encoder.age_channel == 0
    lattice = Lattice(encoder, pose(0), np.eye(4), points=True)
    placed = [lattice.frame(s.cloud, s.pose, s.time) for s in frames]  # type: ignore[arg-type]
    both = joined([placed[0], placed[2]], [3, 5], encoder)
    assert both.coords[:, 4].unique().tolist() == [3, 5]
    ages = both.features[both.point_to_voxel, 0]
    np.testing.assert_allclose(ages[:300], 0.2, atol=1e-6)
    np.testing.assert_allclose(ages[300:], 0)
    assert both.positions is not None
    assert both.positions.shape == (600, 4)
    sites = both.coords[both.point_to_voxel, 1:]
    torch.testing.assert_close(both.positions.floor().int(), sites)
    rows = both.coords.tolist()
    assert rows == sorted(rows)
    assert (placed[0].encoded.coords[:, 4] == 0).all()  # what is kept is not written to


def test_a_pose_must_be_one() -> None:
    with pytest.raises(ValueError, match="anchor must be"):
        Lattice(Encoder(0.2, ("one",)), np.eye(3), np.eye(4))
