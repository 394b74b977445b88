"""Two samples in one, and objects put into a sample: whose point is whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perception.datasets import transforms as tf
from perception.datasets.encode import ground_at
from perception.datasets.sample import Sample
from perception.datasets.transforms.overlap import first_box, overlaps
from perception.geometry import Boxes3D
from perception.io import PointCloud

seeds = st.integers(0, 2**32 - 1)


def scan(number: int, cars: int = 6, slope: float = 0.02) -> Sample:
    """A sloped plain with cars that stand on it; every car is hollow and full of its own points."""
    rng = np.random.default_rng(number)
    ground = np.c_[rng.uniform(-40, 40, (4000, 2)), np.zeros(4000)]
    sizes = np.array([4.0, 1.8, 1.5])
    boxes, parts = np.zeros((0, 7), np.float32), [ground]
    while len(boxes) < cars:
        box = np.array([[*rng.uniform(-35, 35, 2), 0.8, *sizes, rng.uniform(-3, 3)]], np.float32)
        if not overlaps(box, boxes).any():
            boxes = np.concatenate([boxes, box])
    for box in boxes:
        local = rng.uniform(-0.45, 0.45, (80, 3)) * sizes
        cos, sin = np.cos(box[6]), np.sin(box[6])
        turned = np.c_[cos * local[:, 0] - sin * local[:, 1], sin * local[:, 0] + cos * local[:, 1]]
        parts.append(np.c_[turned + box[:2], local[:, 2] + 0.8])
    points = np.concatenate(parts)
    points[:, 2] += slope * points[:, 0] - 1.7
    boxes[:, 2] += slope * boxes[:, 0] - 1.7
    points = points[away(points, boxes)].astype(np.float32)
    n = len(points)
    inside = Boxes3D(boxes, np.zeros(cars)).contains(points)
    instances = (inside * (1 + np.arange(cars))[:, None]).max(axis=0).astype(np.int32)
    return Sample(
        PointCloud(points, {"intensity": rng.random(n, np.float32), "source": np.full(n, number)}),
        labels=np.where(instances > 0, 1, 0).astype(np.uint8),
        instances=instances,
        boxes=Boxes3D(
            boxes, np.zeros(cars), rng.normal(size=(cars, 2)), 100 * number + 1 + np.arange(cars)
        ),
        pose=np.eye(4),
        name=f"scan{number}",
    )


def away(points: NDArray, boxes: NDArray) -> NDArray[np.bool_]:
    around = Boxes3D(boxes, np.zeros(len(boxes)))
    return (around.contains(points, 0.02) == around.contains(points, -0.02)).all(axis=0)


class Plain:
    """A data set of such scans."""

    classes = ("ground", "car")
    colors = np.zeros((2, 3), np.uint8)
    box_classes = ("car",)

    def __init__(self, count: int = 4, root: Path | None = None) -> None:
        self.names: Sequence[str] = [f"scan{i}" for i in range(count)]
        self.sequences = [range(count)]
        self.read: list[int] = []
        if root is not None:
            self.root = root

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        self.read.append(index)
        return scan(index)


def check_objects(after: Sample, sources: dict[int, Sample]) -> None:
    """Every box that is there holds the points it held in its own scan, and no others."""
    assert after.boxes is not None
    assert after.instances is not None
    inside = after.boxes.contains(after.cloud.points)
    for i in range(len(after.boxes)):
        origin = {int(v) for v in after.cloud.attributes["source"][inside[i]]}
        assert len(origin) == 1, "a box holds points of two scans"
        source = sources[origin.pop()]
        assert source.boxes is not None
        same = (np.abs(source.boxes.boxes[:, :2] - after.boxes.boxes[i, :2]) < 1e-4).all(axis=1)
        (number,) = np.flatnonzero(same)
        own = source.boxes.contains(source.cloud.points)[number]
        assert inside[i].sum() == own.sum()
        assert len(np.unique(after.instances[inside[i]])) == 1
    used = after.instances[after.instances > 0]
    assert len(np.unique(used)) == len(after.boxes)  # numbers of the two scans do not meet


@pytest.mark.parametrize(
    "mix", [tf.PolarMix(120.0), tf.LaserMix(elevation=(-8.0, 2.0))], ids=["polar", "laser"]
)
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_mixes_cut_no_object_and_fill_none(mix: tf.Mix, seed: int) -> None:
    a, b = scan(1), scan(2)
    after = mix(a, b, np.random.default_rng(seed))
    check_objects(after, {1: a, 2: b})
    again = mix(a, b, np.random.default_rng(seed))
    np.testing.assert_array_equal(after.cloud.points, again.cloud.points)
    assert after.name == "scan1"
    sources = after.cloud.attributes["source"]
    assert {1, 2} == set(sources.tolist())
    assert after.boxes is not None
    assert after.boxes.velocity is not None
    assert a.boxes is not None
    assert b.boxes is not None
    known = np.concatenate([a.boxes.velocity, b.boxes.velocity])  # type: ignore[list-item]
    assert all((np.abs(known - v) < 1e-6).all(axis=1).any() for v in after.boxes.velocity)


def test_polar_mix_swaps_a_sector() -> None:
    a, b = (replace(scan(i), boxes=None) for i in (1, 2))
    after = tf.PolarMix(90.0)(a, b, np.random.default_rng(0))
    turn = np.arctan2(after.cloud.points[:, 1], after.cloud.points[:, 0])
    theirs = after.cloud.attributes["source"] == 2
    middle = np.angle(np.exp(1j * turn[theirs]).mean())
    from_middle = np.abs(np.angle(np.exp(1j * (turn - middle))))
    assert from_middle[theirs].max() < np.deg2rad(50)
    assert from_middle[~theirs].min() > np.deg2rad(40)
    assert 0.15 < theirs.mean() < 0.35


def test_polar_mix_copies_objects_of_the_classes() -> None:
    a, b = (replace(scan(i), boxes=None) for i in (1, 2))
    plain = tf.PolarMix(90.0)(a, b, np.random.default_rng(0))
    more = tf.PolarMix(90.0, classes=(1,), turns=(0.0, 180.0))(a, b, np.random.default_rng(0))
    assert b.labels is not None
    assert more.labels is not None
    assert len(more.cloud) == len(plain.cloud) + 2 * int((b.labels == 1).sum())
    assert (more.labels[len(plain.cloud) :] == 1).all()


def test_laser_mix_takes_bands_in_turn() -> None:
    a, b = (replace(scan(i), boxes=None) for i in (1, 2))
    after = tf.LaserMix((3,), (-9.0, 0.0))(a, b, np.random.default_rng(1))
    p = after.cloud.points
    band = np.searchsorted(
        np.deg2rad([-6.0, -3.0]), np.arctan2(p[:, 2], np.hypot(p[:, 0], p[:, 1]))
    )
    sources = [set(after.cloud.attributes["source"][band == i].tolist()) for i in range(3)]
    assert sources[0] == sources[2] != sources[1]
    assert all(len(s) == 1 for s in sources)


def test_mix3d_keeps_everything_of_both() -> None:
    a, b = scan(1), scan(2)
    after = tf.Mix3D()(a, replace(b, labels=None), np.random.default_rng(0))
    np.testing.assert_array_equal(
        after.cloud.points, np.concatenate([a.cloud.points, b.cloud.points])
    )
    assert after.labels is not None
    assert (after.labels[len(a.cloud) :] == 255).all()
    assert after.boxes is not None
    assert len(after.boxes) == 12
    assert len(np.unique(after.boxes.track_ids)) == 12


def test_compose_mixes_with_a_partner_changed_by_the_steps_before() -> None:
    data = Plain()
    mix = tf.Compose([tf.Scale((2.0, 2.0)), tf.Mix3D(1.0), tf.Flip(y=1.0)], data)
    after = mix(data[0], np.random.default_rng(0))
    partner = data.read[-1]
    expected = np.concatenate([scan(0).cloud.points, scan(partner).cloud.points])
    np.testing.assert_allclose(after.cloud.points, expected * [2, -2, 2], rtol=1e-6)
    never = tf.Compose([tf.Mix3D(0.0)], data)
    assert len(never(data[0], np.random.default_rng(0)).cloud) == len(scan(0).cloud)
    with pytest.raises(ValueError, match="Mix3D needs other samples"):
        tf.Compose([tf.Mix3D()])


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_pasted_objects_stand_free_on_the_ground(seed: int) -> None:
    data = PLAIN
    paste = tf.Compose([tf.Paste({"car": 14})], data)
    before = scan(10, cars=3, slope=-0.02)
    after = paste(before, np.random.default_rng(seed))
    assert after.boxes is not None
    assert before.boxes is not None
    assert 3 < len(after.boxes) <= 14
    np.testing.assert_array_equal(after.boxes.boxes[:3], before.boxes.boxes)
    assert overlaps(after.boxes.boxes, after.boxes.boxes).sum() == len(after.boxes)
    check_objects(after, {10: before, **{i: scan(i) for i in range(4)}})
    new = after.boxes.boxes[3:]
    under = new[:, 2] - new[:, 5] / 2 - ground_at(before.cloud.points, new[:, :2])
    assert np.abs(under).max() < 0.6  # the estimate of a sloped ground, twice
    gone = len(before.cloud) - int((after.cloud.attributes["source"] == 10).sum())
    assert gone == int((first_box(before.cloud.points, new) >= 0).sum())


PLAIN = Plain()


def test_enough_objects_need_no_more() -> None:
    paste = tf.Compose([tf.Paste({"car": 6})], PLAIN)
    before = scan(1)
    assert paste(before, np.random.default_rng(0)) is before
    with pytest.raises(ValueError, match="no class 'tram'"):
        tf.Compose([tf.Paste({"tram": 6})], PLAIN)(before, np.random.default_rng(0))


def test_objects_are_gathered_once_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "data"
    root.mkdir()
    first, second = (Plain(root=root) for _ in range(2))
    one, two = (tf.ObjectBank.of(data) for data in (first, second))
    assert first.read == [0, 1, 2, 3]
    assert second.read == []
    assert len(one) == len(two) == 24
    np.testing.assert_array_equal(one.boxes(np.arange(24)), two.boxes(np.arange(24)))
    assert np.abs(one.above_ground(np.arange(24))).max() < 0.4
    thing = two.sample(7, np.zeros(3, np.float32))
    assert thing.boxes is not None
    assert thing.boxes.contains(thing.cloud.points, 1e-3).all()
