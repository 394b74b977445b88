"""The laws of transforms: what belongs together moves together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perception.datasets import transforms as tf
from perception.datasets.sample import Image, Sample
from perception.geometry import Boxes3D, Camera, transform
from perception.io import PointCloud

seeds = st.integers(0, 2**32 - 1)
# Each with everything on, so that no seed leaves a law untried.
GEOMETRIC = [
    tf.Flip(y=1.0),
    tf.Flip(x=1.0, y=0.5),
    tf.Rotate(180.0),
    tf.Scale((0.8, 1.25)),
    tf.Translate(5.0, up=1.0),
]
LOCAL = [
    tf.Jitter(0.3, 0.5),
    tf.Elastic((2.0,), (5.0,), probability=1.0),
    tf.ObjectNoise(2.0, 40.0),
]
DROPS = [
    tf.DropPoints(0.5),
    tf.DropFrustum(90.0, 90.0, probability=1.0),
    tf.Crop(max_range=15.0),
    tf.Crop(box=(-10, -20, -2, 12, 9, 3)),
    tf.CropNearest(700),
]
VALUES = [tf.Intensity(missing=0.0), tf.Color(drop=0.0)]
ALL = [*GEOMETRIC, *LOCAL, *DROPS, *VALUES, tf.Center(), tf.DropSparseBoxes(30)]


def scene(seed: int = 0, count: int = 1500) -> Sample:
    """A scan with boxes, cameras and everything else a sample can know."""
    rng = np.random.default_rng(seed)
    boxes = np.array(
        [[8, 3, 0, 4, 2, 1.6, 0.4], [-9, 5, 0.2, 5, 2, 2, -2.9], [2, -12, -0.4, 1, 1, 1.8, 1.5]]
    )
    points = rng.uniform((-20, -20, -2), (20, 20, 3), (count, 3))
    owner = np.arange(count // 3) % 3
    local = rng.uniform(-0.45, 0.45, (count // 3, 3)) * boxes[owner, 3:6]
    cos, sin = np.cos(boxes[owner, 6]), np.sin(boxes[owner, 6])
    points[: count // 3, 0] = boxes[owner, 0] + cos * local[:, 0] - sin * local[:, 1]
    points[: count // 3, 1] = boxes[owner, 1] + sin * local[:, 0] + cos * local[:, 1]
    points[: count // 3, 2] = boxes[owner, 2] + local[:, 2]
    points = points[away_from_surfaces(points, boxes)].astype(np.float32)
    n = len(points)
    normals = rng.normal(size=(n, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    attributes = {
        "intensity": rng.random(n, np.float32),
        "row": np.arange(n),
        **dict(zip(("nx", "ny", "nz"), normals.astype(np.float32).T, strict=True)),
        **{name: rng.integers(0, 256, n).astype(np.uint8) for name in ("red", "green", "blue")},
    }
    instances = np.zeros(n, np.int32)
    inside = Boxes3D(boxes, np.zeros(3)).contains(points)
    for i in range(3):
        instances[inside[i]] = i + 1
    pose = np.eye(4)
    pose[:3, :3] = tf.Similarity.about_z(0.7).turn
    pose[:3, 3] = (100, -50, 2)
    forward = np.array([[0, 0, 1, 0.3], [-1, 0, 0, 0.1], [0, -1, 0, -0.2], [0, 0, 0, 1]])
    distortion = np.array([0.02, -0.01, 0.003, -0.004, 0.001])
    camera = Camera(
        np.array([[60, 0.5, 50], [0, 62, 41], [0, 0, 1.0]]), 96, 80, forward, distortion
    )
    pixels = rng.integers(0, 256, (80, 96, 3)).astype(np.uint8)
    depth = rng.random((80, 96), np.float32)
    return Sample(
        PointCloud(points, attributes),
        labels=(np.arange(n) % 12).astype(np.uint8),
        instances=instances,
        boxes=Boxes3D(boxes, np.array([0, 1, 2]), rng.normal(size=(3, 2)), np.array([1, 2, 3])),
        pose=pose,
        name="scene",
        images=(Image(camera, pixels, depth),),
        time=1.5,
        flow=rng.normal(size=(n, 3)).astype(np.float32),
    )


def away_from_surfaces(points: NDArray, boxes: NDArray) -> NDArray[np.bool_]:
    """Points whose membership rounding cannot change."""
    around = Boxes3D(boxes, np.zeros(len(boxes)))
    return (around.contains(points, 0.01) == around.contains(points, -0.01)).all(axis=0)


def rows(sample: Sample) -> NDArray[np.integer]:
    return sample.cloud.attributes["row"]


def masks(sample: Sample) -> NDArray[np.bool_]:
    assert sample.boxes is not None
    return sample.boxes.contains(sample.cloud.points)


def name_of(step: object) -> str:
    return repr(step)


@pytest.mark.parametrize("step", ALL, ids=name_of)
@settings(max_examples=8, deadline=None)
@given(seed=seeds)
def test_points_keep_their_boxes_labels_and_instances(step: tf.Transform, seed: int) -> None:
    before = scene(3)
    after = step(before, np.random.default_rng(seed))
    kept = rows(after)
    assert after.boxes is not None
    assert before.boxes is not None
    assert after.boxes.track_ids is not None
    remaining = after.boxes.track_ids - 1
    np.testing.assert_array_equal(masks(after), masks(before)[remaining][:, kept])
    np.testing.assert_array_equal(after.labels, kept % 12)
    assert before.instances is not None
    np.testing.assert_array_equal(after.instances, before.instances[kept])
    assert after.flow is not None
    assert len(after.flow) == len(kept)
    np.testing.assert_array_equal(after.boxes.labels, before.boxes.labels[remaining])


@pytest.mark.parametrize("step", ALL, ids=name_of)
def test_the_same_random_state_gives_the_same_sample_and_leaves_the_first_alone(
    step: tf.Transform,
) -> None:
    before, untouched = scene(1), scene(1)
    one, two = (step(before, np.random.default_rng(5)) for _ in range(2))
    for name in one.cloud.attributes:
        np.testing.assert_array_equal(one.cloud.attributes[name], two.cloud.attributes[name])
        np.testing.assert_array_equal(
            before.cloud.attributes[name], untouched.cloud.attributes[name]
        )
    np.testing.assert_array_equal(one.cloud.points, two.cloud.points)
    np.testing.assert_array_equal(before.cloud.points, untouched.cloud.points)
    np.testing.assert_array_equal(before.flow, untouched.flow)
    assert before.boxes is not None
    assert untouched.boxes is not None
    np.testing.assert_array_equal(before.boxes.boxes, untouched.boxes.boxes)


@pytest.mark.parametrize("step", GEOMETRIC, ids=name_of)
@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_the_world_moves_with_a_similarity_only_by_its_scale_and_mirror(
    step: tf.Geometric, seed: int
) -> None:
    before = scene(2)
    moved = step.draw(np.random.default_rng(seed))
    after = tf.move(before, moved)
    assert before.pose is not None
    assert after.pose is not None
    mirror = np.array([1, -1 if moved.mirrors else 1, 1])
    expected = moved.scale * mirror * transform(before.pose, before.cloud.points.astype(np.float64))
    world = transform(after.pose, after.cloud.points.astype(np.float64))
    np.testing.assert_allclose(world, expected, atol=2e-4)
    np.testing.assert_allclose(after.pose[:3, :3] @ after.pose[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(after.pose[:3, :3]) > 0


@pytest.mark.parametrize("step", GEOMETRIC, ids=name_of)
@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_points_keep_their_pixels(step: tf.Geometric, seed: int) -> None:
    before = scene(2)
    moved = step.draw(np.random.default_rng(seed))
    after = tf.move(before, moved)
    (old,), (new,) = before.images, after.images
    pixels, depth = old.camera.project(before.cloud.points)
    again, deep = new.camera.project(after.cloud.points)
    seen = (depth > 1.0) & (np.abs(pixels - 45) < 200).all(axis=1)
    assert seen.sum() > 100
    if moved.mirrors:
        again[:, 0] = old.camera.width - again[:, 0]
        np.testing.assert_array_equal(new.pixels(), old.pixels()[:, ::-1])
    np.testing.assert_allclose(again[seen], pixels[seen], atol=0.02)
    np.testing.assert_allclose(deep[seen], moved.scale * depth[seen], atol=1e-4)
    assert old.depth is not None
    assert new.depth is not None
    flipped = old.depth[:, ::-1] if moved.mirrors else old.depth
    np.testing.assert_allclose(new.depth, np.float32(moved.scale) * flipped, rtol=1e-6)


@pytest.mark.parametrize("step", GEOMETRIC, ids=name_of)
@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_velocities_flow_and_normals_turn(step: tf.Geometric, seed: int) -> None:
    before = scene(2)
    moved = step.draw(np.random.default_rng(seed))
    after = tf.move(before, moved)
    assert before.flow is not None
    # Where a point or a box is a moment later moves like where it is now.
    later = before.cloud.points + before.flow
    np.testing.assert_allclose(after.cloud.points + after.flow, moved.points(later), atol=2e-5)
    assert before.boxes is not None
    assert after.boxes is not None
    assert before.boxes.velocity is not None
    future = before.boxes.boxes.copy()
    future[:, :2] += before.boxes.velocity
    expected = moved.boxes(replace(before.boxes, boxes=future)).boxes[:, :2]
    np.testing.assert_allclose(after.boxes.boxes[:, :2] + after.boxes.velocity, expected, atol=1e-5)
    volume = before.boxes.boxes[:, 3:6].prod(axis=1)
    np.testing.assert_allclose(
        after.boxes.boxes[:, 3:6].prod(axis=1), volume * moved.scale**3, rtol=1e-5
    )
    normal = [
        np.stack([s.cloud.attributes[k] for k in ("nx", "ny", "nz")], 1) for s in (before, after)
    ]
    np.testing.assert_allclose(np.linalg.norm(normal[1], axis=1), 1, atol=1e-5)
    tips = moved.points(before.cloud.points + normal[0]) - after.cloud.points
    np.testing.assert_allclose(tips, moved.scale * normal[1], atol=2e-5)


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_a_chain_is_one_pass_that_does_the_same(seed: int) -> None:
    steps = [*GEOMETRIC, tf.Intensity(), tf.Rotate(30.0), tf.Scale((0.9, 1.1))]
    joined = tf.Compose(steps)(scene(4), np.random.default_rng(seed))
    single, rng = scene(4), np.random.default_rng(seed)
    for step in steps:
        single = step(single, rng)
    np.testing.assert_allclose(joined.cloud.points, single.cloud.points, atol=1e-4)
    np.testing.assert_allclose(joined.pose, single.pose, atol=1e-9)
    assert joined.boxes is not None
    assert single.boxes is not None
    np.testing.assert_allclose(joined.boxes.boxes[:, :6], single.boxes.boxes[:, :6], atol=1e-4)
    turn = joined.boxes.boxes[:, 6] - single.boxes.boxes[:, 6]
    np.testing.assert_allclose(np.cos(turn), 1, atol=1e-6)


def test_rotations_and_scales_stay_in_their_bounds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        turn = tf.Rotate(30.0).draw(rng).turn
        assert np.arccos(np.clip(turn[0, 0], -1, 1)) <= np.deg2rad(30) + 1e-9
        assert 0.9 <= tf.Scale((0.9, 1.1)).draw(rng).scale <= 1.1
        assert np.abs(tf.Translate(0.5, up=0.1).draw(rng).shift[2]) <= 0.1
        tilted = tf.Rotate(180.0, tilt=3.0).draw(rng).turn
        assert tilted[2, 2] >= np.cos(np.deg2rad(3.0)) ** 2 - 1e-9


def test_boxes_are_not_tilted() -> None:
    with pytest.raises(ValueError, match="upright boxes cannot be tilted"):
        tf.Rotate(0.0, tilt=5.0)(scene(), np.random.default_rng(0))
    without = replace(scene(), boxes=None)
    moved = tf.Rotate(0.0, tilt=5.0)(without, np.random.default_rng(0))
    radius = np.linalg.norm(without.cloud.points, axis=1)
    np.testing.assert_allclose(np.linalg.norm(moved.cloud.points, axis=1), radius, rtol=1e-5)


def test_center_puts_the_floor_at_zero() -> None:
    after = tf.Center()(scene(), np.random.default_rng(0))
    low, high = after.cloud.bounds()
    np.testing.assert_allclose(low[:2] + high[:2], 0, atol=1e-4)
    assert abs(np.quantile(after.cloud.points[:, 2], 0.001)) < 0.02


def test_jitter_and_elastic_move_points_smoothly_and_a_little() -> None:
    before = replace(scene(count=4000), boxes=None)
    rng = np.random.default_rng(0)
    step = tf.Jitter(0.02, 0.05)(before, rng).cloud.points - before.cloud.points
    assert np.abs(step).max() <= 0.05 + 1e-5
    assert 0.015 < step.std() < 0.025
    bent = (
        tf.Elastic((8.0,), (6.0,), probability=1.0)(before, rng).cloud.points - before.cloud.points
    )
    assert bent.std() > 0.2
    p = before.cloud.points
    near = [np.argsort(np.linalg.norm(p - p[i], axis=1))[1] for i in range(0, 300)]
    assert (
        np.linalg.norm(bent[:300] - bent[near], axis=1).mean()
        < 0.5 * np.linalg.norm(bent, axis=1).mean()
    )


def test_elastic_refuses_a_grid_of_gigabytes() -> None:
    with pytest.raises(ValueError, match=r"granularity of 0\.01 m is too fine"):
        tf.Elastic((0.01,), (0.1,), probability=1.0)(scene(), np.random.default_rng(0))


def test_drop_out_counts() -> None:
    rng, count = np.random.default_rng(0), len(scene().cloud)
    shares = [len(tf.DropPoints(0.5)(scene(), rng).cloud) / count for _ in range(40)]
    assert 0.45 < min(shares) < 0.65
    assert max(shares) > 0.9
    assert len(tf.CropNearest(100)(scene(), rng).cloud) == 100
    assert len(tf.CropNearest(10**6)(scene(), rng).cloud) == count


def test_a_frustum_is_a_wedge_from_the_sensor() -> None:
    before = scene()
    after = tf.DropFrustum(60.0, 180.0, probability=1.0)(before, np.random.default_rng(3))
    gone = np.setdiff1d(rows(before), rows(after))
    assert 0 < len(gone) < len(before.cloud)
    p = before.cloud.points
    turn = np.arctan2(p[gone, 1], p[gone, 0])
    middle = np.angle(np.exp(1j * turn).mean())
    assert np.abs(np.angle(np.exp(1j * (turn - middle)))).max() <= np.deg2rad(31)


def test_crops_keep_what_lies_inside_with_its_boxes() -> None:
    after = tf.Crop(max_range=9.0)(scene(), np.random.default_rng(0))
    assert np.hypot(*after.cloud.points[:, :2].T).max() <= 9.0
    assert after.boxes is not None
    assert after.boxes.track_ids is not None
    assert after.boxes.track_ids.tolist() == [1]  # the others are farther away
    with pytest.raises(ValueError, match="smallest x, y, z, then the largest"):
        tf.Crop(box=(1, 0, 0, 0, 1, 1))


def test_moved_objects_do_not_collide() -> None:
    rng = np.random.default_rng(0)
    from perception.datasets.transforms.overlap import overlaps

    for _ in range(20):
        after = tf.ObjectNoise(5.0, 90.0)(scene(), rng)
        assert after.boxes is not None
        assert overlaps(after.boxes.boxes, after.boxes.boxes).sum() == 3  # each with itself


def test_intensity_stays_in_its_range() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        values = tf.Intensity((0.2, 5.0), (0.3, 3.0), 0.0)(scene(), rng).cloud.attributes[
            "intensity"
        ]
        assert 0 <= values.min() <= values.max() <= 1
    missing = tf.Intensity(missing=1.0)(scene(), np.random.default_rng(0))
    assert missing.cloud.attributes["intensity"].max() == 0


def test_colours_keep_their_type_and_range() -> None:
    still = tf.Color(0, 0, 0, 0, 0, 0)(scene(), np.random.default_rng(0)).cloud.attributes
    changed = tf.Color(0.5, 0.5, 0.5, 30, 0.1, 0)(
        scene(), np.random.default_rng(0)
    ).cloud.attributes
    black = tf.Color(drop=1.0)(scene(), np.random.default_rng(0)).cloud.attributes
    for name in ("red", "green", "blue"):
        before = scene().cloud.attributes[name]
        np.testing.assert_array_equal(still[name], before)
        assert changed[name].dtype == np.uint8
        assert not np.array_equal(changed[name], before)
        assert black[name].max() == 0


def test_an_empty_scan_stays_empty() -> None:
    empty = Sample(PointCloud(np.zeros((0, 3), np.float32)), np.zeros(0, np.uint8))
    for step in ALL:
        after = step(empty, np.random.default_rng(0))
        assert len(after.cloud) == 0
        assert after.labels is not None
