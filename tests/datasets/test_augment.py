"""What augmentation may change and what it must leave."""

from __future__ import annotations

import numpy as np

from perception.datasets.augment import Augment
from perception.datasets.sample import Sample
from perception.io import PointCloud

STILL = {
    "flip": 0.0,
    "rotation": 0.0,
    "scale": (1.0, 1.0),
    "translation": 0.0,
    "intensity_scale": (1.0, 1.0),
    "intensity_gamma": (1.0, 1.0),
    "missing_intensity": 0.0,
    "drop": 0.0,
}


def sample(count: int = 1000) -> Sample:
    rng = np.random.default_rng(0)
    points = rng.normal(0, 10, (count, 3)).astype(np.float32)
    intensity = rng.random(count, dtype=np.float32)
    cloud = PointCloud(points, {"intensity": intensity, "row": np.arange(count)})
    return Sample(cloud, labels=(np.arange(count) % 12).astype(np.uint8), name="a")


def apply(seed: int = 0, **changes: object) -> Sample:
    return Augment(**{**STILL, **changes})(sample(), np.random.default_rng(seed))  # type: ignore[arg-type]


def test_everything_off_changes_nothing() -> None:
    np.testing.assert_allclose(apply().cloud.points, sample().cloud.points, rtol=1e-6)
    same = apply().cloud.attributes["intensity"]
    np.testing.assert_allclose(same, sample().cloud.attributes["intensity"], rtol=1e-6)


def test_rotation_keeps_heights_and_distances_from_the_axis() -> None:
    before, after = sample().cloud.points, apply(1, rotation=180.0).cloud.points
    np.testing.assert_allclose(after[:, 2], before[:, 2], atol=1e-5)
    np.testing.assert_allclose(
        np.hypot(after[:, 0], after[:, 1]), np.hypot(before[:, 0], before[:, 1]), rtol=1e-4
    )
    assert np.abs(after - before).max() > 1
    cross = [p[0, 0] * p[1, 1] - p[0, 1] * p[1, 0] for p in (before, after)]
    assert abs(cross[0] - cross[1]) < 1e-2 * abs(cross[0])  # no mirror image


def test_flip_mirrors_left_and_right() -> None:
    before, after = sample().cloud.points, apply(flip=1.0).cloud.points
    np.testing.assert_allclose(after, before * [1, -1, 1], rtol=1e-6)


def test_scale_and_translation_stay_in_their_bounds() -> None:
    before = sample().cloud.points
    for seed in range(20):
        after = apply(seed, scale=(0.9, 1.1), translation=0.5).cloud.points
        factor = (after[0] - after[1]) / (before[0] - before[1])
        assert np.ptp(factor) < 1e-3
        assert 0.9 - 1e-3 <= factor[0] <= 1.1 + 1e-3
        assert np.abs(after[0] - factor[0] * before[0]).max() <= 0.5 + 1e-3


def test_dropped_points_take_their_labels_along() -> None:
    after = apply(drop=0.5)
    rows = after.cloud.attributes["row"]
    assert 400 < len(rows) < 1000
    assert after.labels is not None
    np.testing.assert_array_equal(after.labels, rows % 12)
    np.testing.assert_allclose(after.cloud.points, sample().cloud.points[rows], rtol=1e-6)


def test_intensity_stays_in_its_range() -> None:
    for seed in range(20):
        values = apply(seed, intensity_scale=(0.2, 5.0), intensity_gamma=(0.3, 3.0))
        intensity = values.cloud.attributes["intensity"]
        assert 0 <= intensity.min() <= intensity.max() <= 1
    assert apply(missing_intensity=1.0).cloud.attributes["intensity"].max() == 0


def test_the_same_random_state_gives_the_same_scan() -> None:
    one, two = (Augment()(sample(), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.cloud.points, two.cloud.points)
    np.testing.assert_array_equal(one.labels, two.labels)
    assert not np.array_equal(sample().cloud.points[:10], one.cloud.points[:10])
