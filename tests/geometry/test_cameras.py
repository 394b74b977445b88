"""Poses and cameras: motions compose and invert, rays and projections are each other's inverse."""

from __future__ import annotations

import numpy as np
import pytest

from perception.geometry import Camera, as_pose, interpolate, invert, transform


def turn(yaw: float, shift: tuple[float, float, float]) -> np.ndarray:
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    pose[:3, 3] = shift
    return pose


def test_a_motion_and_its_inverse_leave_points_where_they_are() -> None:
    points = np.random.default_rng(0).normal(size=(100, 3)) * 50
    pose = turn(0.7, (100, -20, 3))
    np.testing.assert_allclose(transform(invert(pose), transform(pose, points)), points, atol=1e-12)
    assert transform(pose, points.astype(np.float32)).dtype == np.float32


def test_poses_between_known_ones_turn_at_constant_speed() -> None:
    poses = np.stack([turn(0.0, (0, 0, 0)), turn(1.0, (10, 0, 0)), turn(1.0, (10, 5, 0))])
    between = interpolate(np.array([0.0, 1.0, 2.0]), poses, np.array([-1, 0.25, 1.0, 1.5, 9.0]))
    expected = [
        turn(0, (0, 0, 0)),
        turn(0.25, (2.5, 0, 0)),
        turn(1, (10, 0, 0)),
        turn(1, (10, 2.5, 0)),
        turn(1, (10, 5, 0)),
    ]
    np.testing.assert_allclose(between, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("distortion", "fisheye"),
    [((), False), ((-0.3, 0.1, 0.001, -0.002, 0.01), False), ((0.02, -0.01, 0.003, 0.0), True)],
)
def test_the_ray_of_a_pixel_projects_onto_it(distortion: tuple[float, ...], fisheye: bool) -> None:
    matrix = np.array([[400.0, 0, 330], [0, 410.0, 236], [0, 0, 1]])
    camera = Camera(matrix, 640, 480, turn(0.3, (1, 2, 3)), np.array(distortion), fisheye)
    pixels = np.random.default_rng(0).uniform([0, 0], [640, 480], (500, 2))
    origin, directions = camera.rays(pixels)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    back, depth = camera.project(origin + 7.0 * directions)
    assert (depth > 0).all()
    np.testing.assert_allclose(back, pixels, atol=1e-3)


def test_resizing_scales_pixels_and_moving_composes_poses() -> None:
    camera = Camera.from_field_of_view(640, 480, np.pi / 2, np.eye(4))
    point = np.array([[0.3, -0.2, 2.0]])
    np.testing.assert_allclose(
        camera.resized(320, 240).project(point)[0], camera.project(point)[0] / 2
    )
    motion = turn(0.4, (1, 0, 0))
    np.testing.assert_allclose(
        camera.moved(motion).project(transform(motion, point))[0], camera.project(point)[0]
    )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.eye(3), r"\[4, 4\]"),
        (np.full((4, 4), np.nan), "finite"),
        (np.diag([2.0, 1, 1, 1]), "rotation"),
        (np.diag([-1.0, 1, 1, 1]), "rotation"),
    ],
)
def test_what_is_no_pose_is_refused(bad: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_pose(bad)


def test_what_is_no_camera_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        Camera(np.diag([0.0, 1, 1]), 640, 480, np.eye(4))
    with pytest.raises(ValueError, match="distortion"):
        Camera(np.eye(3), 640, 480, np.eye(4), np.zeros(3))
