"""LiDARs of the simulated street: patterns, rigs, noise, motion within a turn."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from perception.datasets.sample import Sample
from perception.datasets.street import (
    CLASSES,
    RIGS,
    Lens,
    Lidar,
    Rig,
    Sensor,
    SolidState,
    Street,
    Weather,
    scan,
)
from perception.datasets.street.beams import SPINNING
from perception.geometry import invert, transform

SMALL = Rig(
    lidars=(
        Sensor(columns=400),
        SolidState(x=1.8, y=0.3, height=0.9, yaw=0.4, pitch=0.05, lines=24, pulses=24 * 300),
        SolidState.rosette(x=-1.8, height=0.9, yaw=math.pi, pulses=6000),
    ),
    cameras=(Lens(size=(96, 48)), Lens(name="back", size=(64, 48), yaw=math.pi, x=-0.5)),
)


def digest(sample: Sample) -> str:
    h = hashlib.sha256()
    for array in (sample.cloud.points, *sample.cloud.attributes.values(), sample.labels):
        h.update(np.ascontiguousarray(array).tobytes())
    for image in sample.images:
        h.update(image.pixels().tobytes())
        h.update(np.ascontiguousarray(image.depth).tobytes())
    return h.hexdigest()


def rig_digest() -> str:
    return digest(Street(7).scan(5, rig=SMALL, weather=Weather(rain=5.0), motion="compensated"))


def angles(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y, z = points.astype(np.float64).T
    return np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))


def rows(points: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in np.ascontiguousarray(points)}


@pytest.mark.parametrize(
    ("model", "beams", "lowest", "highest", "points"),
    [
        ("spinning-32", 32, -30.7, 10.7, (18_000, 34_000)),
        ("spinning-64", 64, -24.8, 2.05, (95_000, 135_000)),
        ("spinning-128", 128, -25.0, 15.0, (140_000, 225_000)),
    ],
)
def test_presets_of_spinning_lidars(
    model: str, beams: int, lowest: float, highest: float, points: tuple[int, int]
) -> None:
    sensor = Sensor.preset(model, range_noise=0.0)
    elevations = np.degrees(sensor.elevations())
    assert sensor.beams == len(elevations) == beams
    assert elevations[0] == pytest.approx(highest, abs=0.5)
    assert elevations[-1] == pytest.approx(lowest, abs=0.5)
    assert (np.diff(SPINNING[model].elevations) < 0.0).all()
    cloud = scan(3, sensor=sensor).cloud
    assert points[0] < len(cloud.points) < points[1]
    ring = cloud.attributes["ring"]
    z = cloud.points[:, 2] - sensor.offsets()[ring]
    elevation = np.arctan2(z, np.hypot(cloud.points[:, 0], cloud.points[:, 1]))
    np.testing.assert_allclose(elevation, sensor.elevations()[ring], atol=1e-5)
    assert cloud.attributes["time"].max() < 1.0 / sensor.rate


@pytest.mark.parametrize("lidar", [SolidState(), SolidState.rosette()], ids=["raster", "rosette"])
def test_solid_state_lidars_look_one_way(lidar: SolidState) -> None:
    cloud = scan(3, sensor=lidar).cloud
    azimuth, elevation = angles(cloud.points)
    assert np.abs(azimuth).max() <= 0.5 * lidar.horizontal + 1e-5
    assert np.abs(elevation).max() <= 0.5 * lidar.vertical + 1e-5
    assert np.ptp(azimuth) > 0.9 * lidar.horizontal
    assert np.ptp(elevation) > 0.75 * lidar.vertical  # the top may be sky
    assert 0.3 * lidar.pulses < len(cloud.points) <= lidar.pulses
    assert cloud.attributes["ring"].max() == lidar.lines - 1


def test_a_rosette_never_repeats_a_raster_always_does() -> None:
    for lidar, repeats in ((SolidState.rosette(), False), (SolidState(), True)):
        first, second = lidar.rays(0.0, 0).directions, lidar.rays(0.1, 0).directions
        assert np.array_equal(first, second) is repeats
        np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0)


def test_a_rig_merges_its_lidars_in_the_frame_of_the_first() -> None:
    street = Street(2)
    sample = street.scan(3, rig=SMALL)
    which = sample.cloud.attributes["sensor"]
    assert which.dtype == np.uint8
    assert set(which.tolist()) == {0, 1, 2}
    np.testing.assert_array_equal(sample.pose, street.vehicle(0.3) @ SMALL.main.mount())
    # What the first sees does not depend on the others.
    alone = Street(2, sensor=SMALL.main).scan(3)
    np.testing.assert_array_equal(sample.cloud.points[which == 0], alone.cloud.points)
    assert "sensor" not in alone.cloud.attributes
    for number, lidar in enumerate(SMALL.lidars[1:], 1):
        assert isinstance(lidar, SolidState)
        own_from_main = invert(lidar.mount()) @ SMALL.main.mount()
        own = transform(own_from_main, sample.cloud.points[which == number])
        azimuth, elevation = angles(own)
        assert np.abs(azimuth).max() < 0.5 * lidar.horizontal + 1e-4
        assert np.abs(elevation).max() < 0.5 * lidar.vertical + 1e-4


def test_all_lidars_of_a_rig_see_the_same_ground() -> None:
    sample = Street(2).scan(0, rig=SMALL)
    which, labels = sample.cloud.attributes["sensor"], sample.labels
    assert labels is not None
    near = (labels == CLASSES.index("road")) & (np.abs(sample.cloud.points[:, 0]) < 15.0)
    cells = {}
    for number in (0, 1):
        points = sample.cloud.points[near & (which == number)]
        cells[number] = {tuple(np.floor(p[:2] / 0.3).astype(int)): p[2] for p in points}
    both = cells[0].keys() & cells[1].keys()
    assert len(both) > 50
    assert np.median([abs(cells[0][c] - cells[1][c]) for c in both]) < 0.02


def test_presets_of_rigs_work() -> None:
    assert set(RIGS) == {"front", "surround", "solid-state", "robotaxi"}
    for rig in RIGS.values():
        small = replace(rig, cameras=tuple(replace(c, size=(32, 16)) for c in rig.cameras))
        sample = Street(1).scan(0, rig=small)
        assert [image.name for image in sample.images] == [c.name for c in rig.cameras]
        assert set(sample.cloud.attributes["sensor"].tolist()) == set(range(len(rig.lidars)))


def test_drop_out_only_takes_points_away() -> None:
    street = Street(4)
    full = street.scan(1, dropout=0.0)
    kept = [street.scan(1, dropout=share) for share in (0.1, 0.5)]
    assert rows(kept[1].cloud.points) < rows(kept[0].cloud.points) < rows(full.cloud.points)
    for share, sample in zip((0.1, 0.5), kept, strict=True):
        assert len(sample.cloud.points) / len(full.cloud.points) == pytest.approx(
            1.0 - share, abs=0.01
        )
    assert len(street.scan(1, dropout=1.0).cloud.points) == 0


def test_range_noise_moves_points_along_their_rays() -> None:
    street = Street(4)
    clean, noisy = (street.scan(1, range_noise=sigma) for sigma in (0.0, 0.2))
    assert len(clean.cloud.points) == len(noisy.cloud.points)
    a, b = (np.linalg.norm(s.cloud.points.astype(np.float64), axis=1) for s in (clean, noisy))
    assert np.std(b - a) == pytest.approx(0.2, rel=0.03)
    assert np.mean(b - a) == pytest.approx(0.0, abs=0.01)
    assert clean.labels is not None
    np.testing.assert_array_equal(clean.labels, noisy.labels)


def test_a_wide_beam_makes_points_between_surfaces() -> None:
    sharp, wide = (
        Street(4, sensor=Sensor(divergence=d, range_noise=0.0)).scan(0).cloud.points
        for d in (0.0, 0.002)
    )
    assert sharp.shape == wide.shape
    moved = np.linalg.norm(sharp - wide, axis=1)
    assert 0.002 < (moved > 0.05).mean() < 0.15
    assert moved.max() < 1.0 + 0.05


def test_motion_within_a_turn() -> None:
    street = next(s for s in map(Street, range(20)) if s.style.speed > 8.0)
    building = CLASSES.index("building")

    def solid(motion: str) -> set[tuple[int, ...]]:
        sample = street.scan(2, motion=motion)  # type: ignore[arg-type]
        assert sample.labels is not None
        kept = (sample.labels == building) & (sample.cloud.attributes["time"] > 0.05)
        kept |= (sample.labels == CLASSES.index("trunk")) & (sample.cloud.attributes["time"] > 0.05)
        return set(map(tuple, np.floor(sample.cloud.points[kept] / 0.25).astype(int).tolist()))

    still, raw, compensated = (solid(m) for m in ("none", "raw", "compensated"))
    shares = [len(still & other) / len(still) for other in (compensated, raw)]
    assert shares[0] > shares[1] + 0.1
    assert shares[0] > 0.5
    standing = (s for s in map(Street, range(60)) if s.style.speed == 0.0 and not s.style.mouth)
    parked = next(standing)
    a, b = (parked.scan(0, motion=m).cloud.points for m in ("raw", "compensated"))  # type: ignore[arg-type]
    np.testing.assert_allclose(a, b, atol=1e-4)
    with pytest.raises(ValueError, match="motion 'fast'"):
        street.scan(0, motion="fast")  # type: ignore[arg-type]


def test_a_rig_in_rain_is_the_same_in_another_process() -> None:
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['rig_digest']())"
    run = subprocess.run(
        [sys.executable, "-c", code, __file__], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == rig_digest()


def test_any_order_of_frames_and_rigs() -> None:
    street = Street(5)
    forth = [digest(s) for s in street.sequence((0, 9), rig=SMALL)]
    street.scan(50)
    back = [digest(s) for s in street.sequence((9, 0), rig=SMALL)]
    assert forth == back[::-1]
    assert forth[0] != forth[1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Sensor(model="spinning-7"), "spinning-32"),
        (lambda: Sensor.preset("vlp"), "choose from"),
        (lambda: Sensor(rate=0.0), "rate"),
        (lambda: Sensor(dropout=1.5), "dropout"),
        (lambda: Sensor(range_noise=-0.1), "range_noise"),
        (lambda: Sensor(max_range=500.0), "max_range"),
        (lambda: SolidState(pattern="spiral"), "raster or rosette"),
        (lambda: SolidState(horizontal=7.0), "field of view"),
        (lambda: SolidState(lines=300), "lines"),
        (lambda: Rig(lidars=()), "LiDARs"),
        (lambda: Rig(lidars=(Sensor(),), cameras=(Lens(), Lens())), "names"),
    ],
)
def test_senseless_sensors_are_refused(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]


def test_every_lidar_says_how_many_beams_it_has() -> None:
    lidars: list[Lidar] = [Sensor.preset(model) for model in SPINNING]
    for lidar in [*lidars, SolidState(), SolidState.rosette()]:
        rays = lidar.rays(0.0, 0)
        assert len(rays.directions) == len(rays.beam) == len(rays.time)
        assert lidar.beams == len(lidar.offsets()) == len(lidar.gains()) == rays.beam.max() + 1
        assert (np.diff(rays.time) >= 0.0).all()
