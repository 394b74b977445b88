"""Pictures: what is near hides what is far, classes have their colours, any extent fits."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perception.geometry import Boxes3D
from perception.io import FormatError, PointCloud, read
from perception.viz import picture, render, save_picture
from perception.viz.camera import above, fit_box, look
from perception.viz.palette import class_colors

RED, BLUE = np.array([255, 0, 0], np.uint8), np.array([0, 0, 255], np.uint8)


def wall(x: float, half: float = 1.0) -> np.ndarray:
    """A wall across the x axis."""
    side = np.linspace(-half, half, 60)
    y, z = np.meshgrid(side, side)
    return np.stack([np.full(y.size, x), y.ravel(), z.ravel()], axis=1)


def test_cameras_see_forward_left_and_up() -> None:
    camera = look((0, 0, 0), azimuth=0, elevation=0, distance=10, size=(200, 100))
    points = [(0, 0, 0), (0, 1, 0), (0, 0, 1), (5, 0, 0), (-20, 0, 0)]
    pixels, depth, scale = camera.project(points)
    np.testing.assert_allclose(pixels[0], [100, 50])
    assert pixels[1, 0] < 100  # +y is to the left
    assert pixels[2, 1] < 50  # +z is up
    np.testing.assert_allclose(depth[:4], [10, 10, 10, 15], rtol=1e-6)
    assert np.isnan(depth[4])  # behind the camera
    np.testing.assert_allclose(scale[0], camera.focal / 10, rtol=1e-6)
    top = above((-10, -10, 0), (10, 10, 2), (100, 100))
    pixels, depth, _ = top.project([(5, 0, 0), (0, 5, 0), (0, 0, 2)])
    assert pixels[0, 1] < 50  # x forward is up in the picture
    assert pixels[1, 0] < 50  # y is to the left
    assert depth[2] < depth[0]


@pytest.mark.parametrize("azimuth", [0.0, 65.0, 200.0])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e4])
def test_a_fitted_box_is_seen_whole_and_large(azimuth: float, scale: float) -> None:
    low, high = np.array([-3, 5, 0]) * scale, np.array([4, 9, 2]) * scale
    camera = fit_box(low, high, azimuth, 35, (320, 200))
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True)), -1).reshape(-1, 3)
    pixels, depth, _ = camera.project(corners)
    assert np.isfinite(depth).all()
    assert (pixels > -16).all()
    assert (pixels < [336, 210]).all()
    assert (np.ptp(pixels, axis=0) > [160, 100]).any()


def test_the_nearer_wall_hides_the_farther() -> None:
    points = np.concatenate([wall(0.0), wall(3.0, half=1.2)])
    colors = np.concatenate([np.tile(RED, (3600, 1)), np.tile(BLUE, (3600, 1))])
    for order in (slice(None), slice(None, None, -1)):
        camera = look((0, 0, 0), 0, 0, 5, (200, 200), view_angle=30)
        image = render(PointCloud(points[order]), colors[order], camera).astype(int)
        centre = image[90:110, 90:110].reshape(-1, 3)
        assert (centre[:, 0] > 150).all()
        assert (centre[:, 2] < 60).all()


def test_depth_shading_darkens_behind_an_edge() -> None:
    points = np.concatenate([wall(0.0, 0.5), wall(2.0, 3.0), wall(2.0, 1.5), wall(2.0, 1.0)])
    colors = np.full((len(points), 3), 200, np.uint8)
    camera = look((0, 0, 0), 0, 0, 6, (300, 300), view_angle=25)
    grey = render(PointCloud(points), colors, camera)[:, :, 0].astype(float)
    front, edge = grey[150, 150], grey[150, :].min()
    assert front > 180
    assert edge < 0.7 * front


def test_boxes_are_drawn_over_points_and_seen_through() -> None:
    cloud = PointCloud(wall(0.0))
    camera = look((0, 0, 0), 0, 0, 6, (300, 300))
    grey = np.full((len(cloud), 3), 90, np.uint8)
    bare = render(cloud, grey, camera)
    for x, strength in ((-1.5, 200), (1.5, 95)):
        boxes = Boxes3D(np.array([[x, 0, 0, 1, 1, 1, 0]]), np.array([0]))
        drawn = render(cloud, grey, camera, boxes=boxes, box_colors=RED[None])
        changed = (drawn != bare).any(axis=2)
        assert changed.sum() > 100
        assert drawn[changed][:, 0].max() > strength


def test_legend_and_labels() -> None:
    rng = np.random.default_rng(0)
    cloud = PointCloud(rng.uniform(-10, 10, (5000, 3)) * [1, 1, 0.1])
    labels = np.where(cloud.points[:, 0] > 0, 1, 255)
    colors = [(0, 255, 0), (255, 0, 255), (0, 0, 255)]
    image = picture(cloud, labels=labels, names=["a", "b", "c"], colors=colors, title="two")
    assert image.size == (1600, 900)
    pixels = np.asarray(image).astype(int)
    magenta = (pixels[..., 0] > 150) & (pixels[..., 2] > 150) & (pixels[..., 1] < 60)
    blue = (pixels[..., 2] > 150) & (pixels[..., 0] < 60)
    assert magenta.sum() > 3000
    assert blue.sum() == 0
    foot = pixels[850:]
    assert (np.abs(foot - [255, 0, 255]).max(axis=2) < 3).sum() > 100  # the class's chip
    assert picture(cloud, labels=labels % 7).size == (1600, 900)  # no names


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_tiny_clouds(count: int) -> None:
    points = np.random.default_rng(0).normal(size=(count, 3))
    assert picture(PointCloud(points), labels=np.zeros(count, int)).size == (1600, 900)
    assert picture(PointCloud(np.zeros((count, 3))), title="same").size == (1600, 900)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e5])
def test_any_extent_fills_the_picture(scale: float) -> None:
    points = np.random.default_rng(0).uniform(0, scale, (20000, 3)) * [1, 1, 0.05]
    pixels = np.asarray(picture(PointCloud(points, frame="world")))
    assert (pixels.max(axis=2) > 70).mean() > 0.1


def test_errors(tmp_path: Path) -> None:
    cloud = PointCloud(np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"expected integers \[3\]"):
        picture(cloud, labels=np.zeros(4, int))
    with pytest.raises(ValueError, match=r"colors has shape \[1, 3\] for 2 names"):
        picture(cloud, labels=np.zeros(3, int), names=["a", "b"], colors=[[0, 0, 0]])
    with pytest.raises(ValueError, match="640x360"):
        picture(cloud, size=(10, 10))
    image = picture(cloud)
    save_picture(tmp_path / "deep" / "a.png", image)
    assert Image.open(tmp_path / "deep" / "a.png").size == (1600, 900)
    with pytest.raises(FormatError, match=r"name a \.png"):
        save_picture(tmp_path / "a.unknown", image)


def test_class_colors_differ() -> None:
    colors = class_colors(20).astype(int)
    gaps = np.abs(colors[:, None] - colors[None]).sum(axis=2) + 1000 * np.eye(20, dtype=int)
    assert gaps.min() > 20
    assert colors.max(axis=1).min() > 150


def test_a_real_scan_takes_about_a_second(shared_data: Path) -> None:
    cloud = read(shared_data / "semantickitti_spvnas" / "000000.bin")
    picture(cloud)  # compiles
    start = time.perf_counter()
    pixels = np.asarray(picture(cloud, labels=np.zeros(len(cloud), int), names=["all"]))
    # About 0.3 s on one core; the bound leaves room for a busy machine.
    assert time.perf_counter() - start < 5
    assert (pixels.max(axis=2) > 70).mean() > 0.08


def test_a_room_is_seen_from_above_without_its_ceiling(shared_data: Path) -> None:
    cloud = read(shared_data / "pcl_room" / "room_scan1.pcd")
    highest = cloud.points[:, 2] > np.percentile(cloud.points[:, 2], 90)
    colors = [(0, 200, 0), (200, 0, 0)]
    image = picture(cloud, labels=highest.astype(int), colors=colors, names=["room", "ceiling"])
    pixels = np.asarray(image)[:800, 1000:]
    red = (pixels[..., 0] > 100) & (pixels[..., 1] < 50)
    green = (pixels[..., 1] > 100) & (pixels[..., 0] < 50)
    assert green.sum() > 10 * red.sum()


def test_labels_of_a_scan_are_drawn_with_its_colours_alone() -> None:
    """As data sets give them: uint8, 255 for none, and not every class occurs."""
    cloud = PointCloud(np.random.default_rng(0).normal(size=(50, 3)))
    labels = np.full(50, 255, np.uint8)
    labels[:10] = 2
    colors = np.arange(12 * 3).reshape(12, 3)
    assert picture(cloud, labels=labels, colors=colors).size == (1600, 900)
