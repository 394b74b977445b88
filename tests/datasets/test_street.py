"""The simulated street: reproducible, consistent with its own annotations, replayable."""

from __future__ import annotations

import hashlib
import multiprocessing
import subprocess
import sys

import numpy as np
import pytest

from perception.datasets.sample import IGNORE, Sample
from perception.datasets.street import (
    CLASSES,
    COLORS,
    RATE,
    SEMANTIC_KITTI_TO_STREET,
    Sensor,
    Street,
    scan,
)

BOXED = {CLASSES.index(name) for name in ("car", "truck", "person", "cyclist")}
SEEDS = (1, 4, 13, 42)  # 13 and 42 start at the mouth of a side street


def digest(sample: Sample) -> str:
    h = hashlib.sha256()
    assert sample.boxes is not None
    for array in (
        sample.cloud.points,
        *sample.cloud.attributes.values(),
        sample.labels,
        sample.instances,
        sample.boxes.boxes,
        sample.boxes.velocity,
        sample.pose,
    ):
        h.update(np.ascontiguousarray(array).tobytes())
    return h.hexdigest()


def scan_digest(seed: int) -> str:
    return digest(scan(seed, 2))


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [scan(seed) for seed in SEEDS]


def world(sample: Sample) -> np.ndarray:
    assert sample.pose is not None
    return sample.cloud.points @ sample.pose[:3, :3].T + sample.pose[:3, 3]


def test_tables_agree() -> None:
    assert COLORS.shape == (len(CLASSES), 3)
    assert COLORS.dtype == np.uint8
    assert len({tuple(c) for c in COLORS.tolist()}) == len(CLASSES)
    assert set(SEMANTIC_KITTI_TO_STREET.values()) == {*range(len(CLASSES)), IGNORE}


def test_arrays_have_the_promised_form(samples: list[Sample]) -> None:
    for sample in samples:
        points = sample.cloud.points
        n = len(points)
        assert 100_000 < n < 140_000
        assert points.dtype == np.float32
        assert np.isfinite(points).all()
        distance = np.linalg.norm(points, axis=1)
        assert distance.min() > 1.0
        assert distance.max() < 81.0
        intensity = sample.cloud.attributes["intensity"]
        assert intensity.dtype == np.float32
        assert intensity.min() >= 0.0
        assert intensity.max() <= 1.0
        assert 0.15 < intensity.mean() < 0.45
        assert sample.cloud.attributes["ring"].max() == 63
        time = sample.cloud.attributes["time"]
        assert (np.diff(time) >= 0).all()
        assert 0.0 <= time[0] <= time[-1] < 0.1
        assert sample.labels is not None
        assert sample.labels.dtype == np.uint8
        assert sample.labels[sample.labels != IGNORE].max() < len(CLASSES)
        assert sample.instances is not None
        assert sample.instances.dtype == np.int32


def test_every_class_occurs(samples: list[Sample]) -> None:
    seen = set()
    for sample in samples:
        assert sample.labels is not None
        seen |= set(np.unique(sample.labels).tolist())
    for seed in range(100, 104):
        labels = scan(seed).labels
        assert labels is not None
        seen |= set(np.unique(labels).tolist())
    assert seen == {*range(len(CLASSES)), IGNORE}  # benches and bins have no class


def test_rings_are_cones_of_constant_elevation() -> None:
    sensor = Sensor(range_noise=0.0, own_car=False)
    sample = scan(3, sensor=sensor)
    points = sample.cloud.points.astype(np.float64)
    ring = sample.cloud.attributes["ring"]
    z = points[:, 2] - sensor.offsets()[ring]
    elevation = np.arctan2(z, np.hypot(points[:, 0], points[:, 1]))
    np.testing.assert_allclose(elevation, sensor.elevations()[ring], atol=1e-5)
    assert (np.bincount(ring, minlength=64)[40:] > 0.9 * sensor.columns).all()


def test_the_own_car_hides_only_low_beams() -> None:
    hidden = scan(3, sensor=Sensor()).cloud.attributes["ring"]
    free = scan(3, sensor=Sensor(own_car=False)).cloud.attributes["ring"]
    lost = np.bincount(free, minlength=64) - np.bincount(hidden, minlength=64)
    assert lost[56:].min() > 300
    assert abs(lost[:32]).max() < 60  # only the dice of the drop-outs differ


def test_same_seed_same_scan_in_another_process() -> None:
    code = "import runpy, sys; names = runpy.run_path(sys.argv[1]); print(names['scan_digest'](4))"
    run = subprocess.run(
        [sys.executable, "-c", code, __file__], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == scan_digest(4)


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this platform"
)
def test_forked_workers_make_the_same_scan() -> None:
    mine = scan_digest(1)  # compiled code is loaded before the fork
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(scan_digest, [1, 1]) == [mine, mine]


def test_seeds_and_frames_differ(samples: list[Sample]) -> None:
    street = Street(SEEDS[0])
    digests = {digest(s) for s in samples} | {digest(street.scan(1)), digest(street.scan(2))}
    assert len(digests) == len(samples) + 2


def test_frames_do_not_depend_on_the_order_of_asking() -> None:
    forth = [digest(s) for s in Street(5).sequence((0, 40, 7))]
    back = [digest(s) for s in Street(5).sequence((7, 40, 0))]
    assert forth == back[::-1]
    assert [s.name for s in Street(5).sequence(2)] == ["street_5_000000", "street_5_000001"]


def test_instances_are_the_points_in_the_boxes(samples: list[Sample]) -> None:
    inside = total = 0
    for sample in samples:
        boxes, instances, labels = sample.boxes, sample.instances, sample.labels
        assert boxes is not None
        assert instances is not None
        assert labels is not None
        assert boxes.track_ids is not None
        assert len(set(boxes.track_ids.tolist())) == len(boxes)
        contains = boxes.contains(sample.cloud.points, margin=0.12)
        for i, track in enumerate(boxes.track_ids):
            own = instances == track
            assert own.sum() >= 5
            assert set(labels[own].tolist()) == {int(boxes.labels[i])}
            inside += int(contains[i][own].sum())
            total += int(own.sum())
        assert set(np.unique(labels[instances > 0]).tolist()) <= BOXED
        assert (instances[np.isin(labels, list(BOXED))] > 0).all()
    assert inside > 0.99 * total


def test_boxes_are_filled_not_just_large_enough(samples: list[Sample]) -> None:
    # A car seen from near by reaches close to the ends of its box.
    ratios = []
    for sample in samples:
        boxes, instances = sample.boxes, sample.instances
        assert boxes is not None
        assert boxes.track_ids is not None
        for box, label, track in zip(boxes.boxes, boxes.labels, boxes.track_ids, strict=True):
            own = sample.cloud.points[instances == track]
            if CLASSES[label] == "car" and len(own) > 300:
                ratios.append((own[:, 2].max() - box[2]) / (0.5 * box[5]))
    assert len(ratios) >= 3
    assert 0.8 < np.median(ratios) < 1.05


def test_standing_things_stay_where_they_are_in_the_world() -> None:
    street = next(s for s in map(Street, range(20)) if s.style.speed > 6.0)
    first, later = street.scan(0), street.scan(8)
    assert first.pose is not None
    assert later.pose is not None
    moved = np.linalg.norm(later.pose[:3, 3] - first.pose[:3, 3])
    assert moved == pytest.approx(0.8 * street.style.speed, rel=0.1)

    def cells(points: np.ndarray, labels: np.ndarray | None) -> set[tuple[int, ...]]:
        assert labels is not None
        solid = np.isin(labels, [CLASSES.index(c) for c in ("building", "fence", "trunk", "pole")])
        near = np.linalg.norm(points - points.mean(0), axis=1) < 30.0
        return set(map(tuple, np.floor(points[solid & near] / 0.4).astype(int).tolist()))

    posed = cells(world(first), first.labels), cells(world(later), later.labels)
    raw = cells(first.cloud.points, first.labels), cells(later.cloud.points, later.labels)
    overlap = [len(a & b) / min(len(a), len(b)) for a, b in (posed, raw)]
    assert overlap[0] > 0.4
    assert overlap[0] > 1.5 * overlap[1]


def test_things_move_by_their_velocity() -> None:
    standing = moving = 0
    for seed in SEEDS:
        street = Street(seed)
        centres = []
        for sample in street.sequence(2):
            boxes, pose = sample.boxes, sample.pose
            assert boxes is not None
            assert pose is not None
            assert boxes.velocity is not None
            assert boxes.track_ids is not None
            at = boxes.boxes[:, :3].astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
            over = boxes.velocity.astype(np.float64) @ pose[:2, :2].T
            centres.append(
                {int(t): (xyz, v) for t, xyz, v in zip(boxes.track_ids, at, over, strict=True)}
            )
        for track in centres[0].keys() & centres[1].keys():
            (a, v), (b, _) = centres[0][track], centres[1][track]
            np.testing.assert_allclose(b[:2] - a[:2], v / RATE, atol=0.02)
            standing += not v.any()
            moving += bool(v.any())
    assert standing > 5
    assert moving > 5


def test_sensor_height_is_the_height_above_the_road() -> None:
    for height in (1.6, 1.9):
        sample = scan(2, sensor=Sensor(height=height))
        labels = sample.labels
        near = np.linalg.norm(sample.cloud.points[:, :2], axis=1) < 6.0
        road = sample.cloud.points[near & (labels == CLASSES.index("road"))]
        assert np.median(road[:, 2]) == pytest.approx(-height, abs=0.08)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": 0}, "columns"),
        ({"min_range": 5.0, "max_range": 2.0}, "min_range"),
        ({"height": -1.0}, "height"),
    ],
)
def test_a_senseless_sensor_is_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sensor(**arguments)  # type: ignore[arg-type]
