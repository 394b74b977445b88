"""What stands and moves in the simulated street: traffic, people, junctions, kerbs."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from perception.datasets.sample import IGNORE
from perception.datasets.street import CLASSES, Street, scan
from perception.datasets.street import objects as ob
from perception.datasets.street.pen import Ground
from perception.datasets.street.style import Style
from perception.datasets.street.traffic import BEGIN, Traffic

GROUND = [CLASSES.index(name) for name in ("road", "sidewalk", "terrain")]
PERSON = CLASSES.index("person")
SEEDS = range(14)


def corners(x: float, y: float, yaw: float, length: float, width: float) -> NDArray[np.float64]:
    c, s = math.cos(yaw), math.sin(yaw)
    local = 0.5 * np.array([[length, width], [length, -width], [-length, -width], [-length, width]])
    return np.asarray(local @ np.array([[c, s], [-s, c]]) + np.array([x, y]))


def overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether two rectangles ``[4, 2]`` share ground: no side of either parts them."""
    for one in (a, b):
        for k in range(4):
            side = one[(k + 1) % 4] - one[k]
            normal = np.array([-side[1], side[0]])
            if (a @ normal).max() <= (b @ normal).min() or (b @ normal).max() <= (a @ normal).min():
                return False
    return True


def traffic_digest(seed: int) -> str:
    traffic = Traffic(Style(seed))
    _, poses, velocities, tracks = traffic.states(3.3)
    return repr((poses.tolist(), velocities.tolist(), tracks.tolist(), traffic.own(3.3)))


def test_rectangles() -> None:
    a = corners(0.0, 0.0, 0.3, 4.0, 2.0)
    assert overlap(a, corners(1.0, 1.0, 1.0, 4.0, 2.0))
    assert not overlap(a, corners(0.0, 3.0, 0.3, 4.0, 2.0))


def test_traffic_is_the_same_in_another_process() -> None:
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['traffic_digest'](9))"
    run = subprocess.run(
        [sys.executable, "-c", code, __file__], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == traffic_digest(9)


def test_times_may_be_asked_for_in_any_order() -> None:
    times = (0.0, 12.25, 3.5, -1.0)
    forth, back = Traffic(Style(4)), Traffic(Style(4))
    states = [forth.states(t)[1:] for t in times]
    for time, expected in zip(times[::-1], states[::-1], strict=True):
        for array, other in zip(back.states(time)[1:], expected, strict=True):
            np.testing.assert_array_equal(array, other)
    with pytest.raises(ValueError, match="begins at"):
        forth.states(BEGIN - 1.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_moves_through_anybody(seed: int) -> None:
    traffic = Traffic(Style(seed))
    for time in np.arange(0.0, 10.01, 0.5):
        items, poses, _, tracks = traffic.states(float(time))
        places = np.concatenate([[traffic.own(float(time))], poses])
        sizes = [(4.4, 1.85), *((item.size or (0.0, 0.0, 0.0))[:2] for item in items)]
        boxes = [corners(*place, *size) for place, size in zip(places, sizes, strict=True)]
        reach = 0.5 * np.hypot(*np.array(sizes).T)
        gaps = np.linalg.norm(places[:, None, :2] - places[None, :, :2], axis=2)
        gaps -= reach[:, None] + reach[None]
        for i, j in zip(*np.nonzero(np.triu(gaps < 0.0, 1)), strict=True):
            assert not overlap(boxes[i], boxes[j]), (time, places[i], places[j])
        assert len(set(tracks.tolist())) == len(tracks)


def test_tracks_keep_who_they_are_and_move_smoothly() -> None:
    for seed in (2, 12, 20):
        traffic = Traffic(Style(seed))
        known: dict[int, tuple[float, NDArray[np.float64], NDArray[np.float64], tuple[int, float]]]
        known = {}
        for step in range(60):
            time = 0.1 * step
            items, poses, velocities, tracks = traffic.states(time)
            for item, pose, velocity, track in zip(
                items, poses, velocities, tracks.tolist(), strict=True
            ):
                assert item.size is not None
                who = (item.label, item.size[2])
                if track in known and known[track][0] > time - 0.11:
                    _, before, speed, same = known[track]
                    assert who == same
                    np.testing.assert_allclose(pose[:2], before[:2] + 0.1 * speed, atol=0.02)
                    turned = (pose[2] - before[2] + math.pi) % (2.0 * math.pi) - math.pi
                    assert abs(turned) < 0.25
                    assert np.linalg.norm(velocity - speed) < 1.3  # nobody brakes harder than that
                known[track] = (time, pose, velocity, who)


def test_junctions_have_traffic_on_both_roads() -> None:
    both = waits = goes = 0
    for seed in range(30):
        style = Style(seed)
        traffic = Traffic(style)
        if not style.junctions(style.start - 40.0, style.start + 40.0):
            continue
        crossing: dict[int, list[float]] = {}
        main = 0
        for time in np.arange(0.0, 12.0, 1.0):
            items, poses, velocities, tracks = traffic.states(float(time))
            for item, pose, velocity, track in zip(
                items, poses, velocities, tracks.tolist(), strict=True
            ):
                if item.label in (CLASSES.index("car"), CLASSES.index("truck")):
                    _, _, heading = style.on_road(float(pose[0]), 0.0)
                    if abs(math.sin(pose[2] - heading)) > 0.7:
                        crossing.setdefault(track, []).append(float(np.hypot(*velocity)))
                    else:
                        main += 1
        both += bool(crossing) and main > 0
        waits += any(min(speeds) < 0.3 for speeds in crossing.values())
        goes += any(max(speeds) > 3.0 for speeds in crossing.values())
    assert both > 8
    assert waits > 4
    assert goes > 6


def test_own_car_turns_out_of_side_streets() -> None:
    turned = 0
    for seed in range(100):
        style = Style(seed)
        if style.mouth is None or style.cruise == 0.0:
            continue
        traffic = Traffic(style)
        yaws = np.unwrap([traffic.own(float(t))[2] for t in np.arange(0.0, 22.0, 0.25)])
        assert np.abs(np.diff(yaws)).max() < 0.4
        turned += abs(yaws[-1] - yaws[0]) > 1.0
    assert turned >= 4


def test_cars_stop_one_behind_the_other() -> None:
    # A standing own car holds up who comes behind it, at a distance.
    found = 0
    for seed in range(80):
        style = Style(seed)
        if style.speed > 0.0 or style.mouth is not None:
            continue
        traffic = Traffic(style)
        x, y, _ = traffic.own(20.0)
        _, poses, velocities, _ = traffic.states(20.0)
        for pose, velocity in zip(poses, velocities, strict=True):
            lateral = abs(pose[1] - style.centre.at(float(pose[0]))[0])
            near = abs(lateral - abs(y - style.centre.at(x)[0])) < 0.5
            if near and np.hypot(*velocity) < 0.1 and 3.0 < x - pose[0] < 14.0:
                found += 1
    assert found >= 1


def test_legs_and_pedals_move() -> None:
    from random import Random

    standing, left, right = (ob.person(Random(3), phase) for phase in (None, 0.0, math.pi))
    assert len(left.rows) == len(right.rows) == len(standing.rows)
    assert left.size == right.size
    assert left.rows != right.rows
    assert ob.cyclist(Random(3), 0.0).rows != ob.cyclist(Random(3), 1.0).rows
    # In the street, the feet of one person change from frame to frame; the height does not.
    moved = 0
    for seed in range(12):
        traffic = Traffic(Style(seed))
        before, _, _, first = traffic.states(1.0)
        after, _, _, then = traffic.states(1.2)
        later = dict(zip(then.tolist(), after, strict=True))
        for item, track in zip(before, first.tolist(), strict=True):
            if item.label == PERSON and track in later:
                assert item.size == later[track].size
                moved += item.rows != later[track].rows
    assert moved > 5


def test_points_in_a_box_have_its_label() -> None:
    strangers = total = 0
    for seed in range(8):
        sample = scan(seed)
        assert sample.boxes is not None
        assert sample.labels is not None
        inside = sample.boxes.contains(sample.cloud.points, margin=-0.05)
        for mine, label in zip(inside, sample.boxes.labels, strict=True):
            others = sample.labels[mine]
            strangers += int(((others != label) & ~np.isin(others, GROUND)).sum())
            total += len(others)
    assert total > 10_000
    assert strangers < 0.015 * total


def test_furniture_has_no_class_and_no_instance() -> None:
    seen = 0
    for seed in range(6):
        sample = scan(seed)
        assert sample.labels is not None
        assert sample.instances is not None
        nameless = sample.labels == IGNORE
        seen += int(nameless.sum())
        assert not sample.instances[nameless].any()
    assert 300 < seen < 30_000


def test_kerbs_are_lowered_at_driveways_and_the_ground_has_no_cliffs() -> None:
    lower = higher = 0
    for seed in range(20):
        style = Style(seed)
        ground = Ground.around(style, 0.0)
        for chunk in range(-4, 5):
            for side in (1.0, -1.0):
                edge = style.edge(chunk, side)
                if edge.drive is None or style.ground[4] < 0.05:
                    continue

                def step(
                    x: float, side: float = side, style: Style = style, ground: Ground = ground
                ) -> float:
                    half = style.half_width
                    places = [style.on_road(x, side * (half + d))[:2] for d in (-0.1, 0.3)]
                    if ground.kerb(*places[1]) < 0.0:  # the mouth of a side street
                        return math.nan
                    low, high = ground.heights(np.array(places))
                    return float(high - low)

                x = chunk * 20.0 + 10.0 + edge.drive
                here, beside = step(x), step(x + 5.0)
                if not math.isnan(here + beside):
                    lower += here < beside
                    higher += here > beside
        r = np.random.default_rng(seed)
        xy = np.stack([r.uniform(-60, 60, 400), r.uniform(-50, 50, 400)], 1)
        apart = np.abs(ground.heights(xy + 0.1) - ground.heights(xy))
        assert apart.max() < 0.35
    assert lower > 5 * higher


def test_every_kind_of_driving_frame_is_annotated() -> None:
    # A whole crossing seen over time: instances keep their class, boxes their size.
    street = Street(11)
    sizes: dict[int, tuple[int, float]] = {}
    for frame in (0, 5, 10):
        boxes = street.scan(frame).boxes
        assert boxes is not None
        assert boxes.track_ids is not None
        for track, label, box in zip(boxes.track_ids, boxes.labels, boxes.boxes, strict=True):
            who = (int(label), round(float(box[5]), 3))
            assert sizes.setdefault(int(track), who) == who
    assert len(sizes) > 5
