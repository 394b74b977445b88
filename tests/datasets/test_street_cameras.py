"""Cameras of the simulated street: they see what the LiDAR sees."""

from __future__ import annotations

import math

import numpy as np
import pytest

from perception.datasets.sample import IGNORE, Sample
from perception.datasets.street import CLASSES, Lens, Rig, Sensor, Street
from perception.datasets.street.light import Light, facing, in_shade, shade_grid
from perception.datasets.street.raycast import LEAF_SIZE
from perception.datasets.street.shapes import box, cylinder, ellipsoid
from perception.datasets.street.weather import CLEAR
from perception.geometry import invert

LENSES = (
    Lens(size=(640, 320)),
    Lens(name="left", size=(320, 240), yaw=1.2, pitch=0.1, roll=0.05, y=0.6, height=1.2),
    Lens(name="bent", size=(480, 270), field_of_view=1.5, distortion=(-0.25, 0.06, 0.001, 0.0)),
)
SEEDS = (0, 3, 6)
SOLID = [CLASSES.index(name) for name in ("road", "sidewalk", "building", "car", "truck")]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    rig = Rig(lidars=(Sensor(range_noise=0.0),), cameras=LENSES)
    return [Street(seed).scan(2, rig=rig) for seed in SEEDS]


def test_pictures_have_the_promised_form(samples: list[Sample]) -> None:
    for sample in samples:
        assert [image.name for image in sample.images] == ["front", "left", "bent"]
        for lens, image in zip(LENSES, sample.images, strict=True):
            width, height = lens.size
            assert image.pixels().shape == (height, width, 3)
            assert image.pixels().dtype == np.uint8
            assert image.depth is not None
            assert image.depth.shape == (height, width)
            assert image.depth.dtype == np.float32
            assert image.depth.min() >= 0.0
            assert image.time == sample.time == 0.2
            # The camera stands where it is mounted, seen from the LiDAR.
            at = (invert(Sensor().mount()) @ [lens.x, lens.y, lens.height, 1.0])[:3]
            np.testing.assert_allclose(image.camera.pose[:3, 3], at)


@pytest.mark.parametrize("number", range(len(LENSES)), ids=[lens.name for lens in LENSES])
def test_depth_agrees_with_the_lidar(samples: list[Sample], number: int) -> None:
    for sample in samples:
        image, labels = sample.images[number], sample.labels
        assert image.depth is not None
        assert labels is not None
        height, width = image.depth.shape
        pixels, z = image.camera.project(sample.cloud.points)
        inside = (z > 0.5) & (pixels >= 1.0).all(1) & (pixels < [width - 1, height - 1]).all(1)
        # Far off the axis the polynomial of a bent lens turns back.
        axis = sample.cloud.points @ image.camera.pose[:3, 2]
        inside &= axis > 0.55 * np.linalg.norm(sample.cloud.points, axis=1)
        u, v = np.floor(pixels[inside]).astype(int).T
        z, labels = z[inside], labels[inside]
        around = np.stack([image.depth[v + a, u + b] for a in (-1, 0, 1) for b in (-1, 0, 1)])
        edge = (around.min(0) == 0.0) | (np.ptp(around, axis=0) > 0.1 * around[4])
        # The camera sits elsewhere, so that some points are hidden from it.
        visible = ~edge & (around[4] > 0.97 * z)
        assert visible.sum() > 0.6 * len(z)
        agree = np.abs(around[4] - z) < 0.03 * z + LEAF_SIZE
        # A ray that starts elsewhere may slip through between two leaves.
        leaves = labels == CLASSES.index("vegetation")
        assert agree[visible & ~leaves].mean() > 0.99
        assert agree[visible & np.isin(labels, SOLID)].mean() > 0.99
        assert agree[visible & leaves].mean() > 0.5
        assert np.median(np.abs(around[4] - z)[visible]) < 0.1


def test_classes_and_instances_agree_with_the_lidar() -> None:
    street = Street(SEEDS[1])
    lens = LENSES[0]
    sample = street.scan(2, rig=Rig(lidars=(Sensor(range_noise=0.0),), cameras=(lens,)))
    picture = street.picture(2, lens)
    (image,) = sample.images
    np.testing.assert_array_equal(picture.rgb, image.pixels())
    np.testing.assert_array_equal(picture.depth, image.depth)
    sky = picture.depth == 0.0
    assert (picture.labels[sky] == IGNORE).all()
    assert 0.02 < sky.mean() < 0.7
    pixels, z = image.camera.project(sample.cloud.points)
    width, height = lens.size
    inside = (z > 0.5) & (pixels >= 0.0).all(1) & (pixels < [width, height]).all(1)
    u, v = np.floor(pixels[inside]).astype(int).T
    near = np.abs(picture.depth[v, u] - z[inside]) < 0.02 * z[inside]
    assert sample.labels is not None
    assert sample.instances is not None
    assert (picture.labels[v, u] == sample.labels[inside])[near].mean() > 0.97
    assert (picture.instances[v, u] == sample.instances[inside])[near].mean() > 0.98


def test_more_samples_smooth_colours_and_leave_depth_alone() -> None:
    street = Street(3)
    one, four = (street.picture(0, Lens(size=(96, 64), samples=n)) for n in (1, 9))
    solid = np.isin(one.labels, SOLID) & (one.labels == four.labels)
    np.testing.assert_allclose(one.depth[solid], four.depth[solid], rtol=1e-5)
    assert not np.array_equal(one.rgb, four.rgb)


def test_pictures_do_not_depend_on_what_was_asked_before() -> None:
    lens = Lens(size=(120, 60))
    street = Street(9)
    first = street.picture(4, lens)
    street.scan(60)
    again, fresh = street.picture(4, lens), Street(9).picture(4, lens)
    np.testing.assert_array_equal(first.rgb, again.rgb)
    np.testing.assert_array_equal(first.rgb, fresh.rgb)
    assert not np.array_equal(first.rgb, street.picture(5, lens).rgb) or street.style.speed == 0.0


def test_colours_are_those_of_a_street() -> None:
    means: dict[str, list[np.ndarray]] = {"road": [], "sky": [], "vegetation": []}
    for seed in range(8):
        picture = Street(seed).picture(0, Lens(size=(160, 90)))
        colors = picture.rgb.astype(float)
        for name, values in means.items():
            mine = picture.depth == 0.0
            if name != "sky":
                mine = picture.labels == CLASSES.index(name)
            if mine.sum() > 30:
                values.append(colors[mine].mean(0))
    road, sky, green = (np.mean(means[k], axis=0) for k in ("road", "sky", "vegetation"))
    assert sky.min() > road.max() > 30.0  # bright above, grey below
    assert np.ptp(road) < 30.0
    assert green[1] > green[0] + 5.0
    assert green[1] > green[2] + 15.0


def test_normals() -> None:
    block = np.array(box(0, 5, (-2.0, 2.0), 2.0, (0.0, 3.0)))
    for point, normal in (
        ((2.0, 0.3, 1.0), (1, 0, 0)),
        ((-2.0, 0.3, 1.0), (-1, 0, 0)),
        ((0.3, 1.0, 1.0), (0, 1, 0)),
        ((0.3, -1.0, 1.0), (0, -1, 0)),
        ((0.3, 0.2, 3.0), (0, 0, 1)),
        ((0.3, 0.2, 0.0), (0, 0, -1)),
    ):
        np.testing.assert_allclose(facing(block, *point), normal, atol=1e-12)
    post = np.array(cylinder(0, 16, (1.0, 1.0, 0.0), (1.0, 1.0, 4.0), 0.5))
    np.testing.assert_allclose(facing(post, 1.0, 1.5, 2.0), (0, 1, 0), atol=1e-12)
    np.testing.assert_allclose(facing(post, 1.1, 1.1, 4.0), (0, 0, 1), atol=1e-12)
    head = np.array(ellipsoid(0, 14, (0.0, 0.0, 1.0), (1.0, 2.0, 3.0)))
    np.testing.assert_allclose(facing(head, 0.0, 2.0, 1.0), (0, 1, 0), atol=1e-12)


def test_shadows_fall_away_from_the_sun() -> None:
    rows = np.array([box(0, 5, (-1.0, 1.0), 2.0, (0.0, 4.0))])
    sun = np.array([1.0, 0.0, 1.0]) / math.sqrt(2.0)
    begin, members = shade_grid(rows, 0.0, 0.0, sun)
    state = np.zeros(1, np.uint64)

    def dark(x: float, y: float, z: float) -> bool:
        return bool(in_shade(x, y, z, 0.0, 0.0, sun, begin, members, rows, state))

    assert dark(-2.0, 0.0, 0.0)
    assert dark(-4.5, 0.9, 0.0)
    assert not dark(-5.2, 0.0, 0.0)  # the shadow is as long as the block is high
    assert not dark(2.0, 0.0, 0.0)
    assert not dark(-2.0, 1.2, 0.0)
    assert not dark(0.0, 0.0, 4.01)
    assert not dark(-2.0, 0.0, 3.5)
    assert not dark(500.0, 0.0, 0.0)


def test_the_sun_is_above_the_street() -> None:
    for seed in range(30):
        light = Light.of(seed, CLEAR)
        assert np.linalg.norm(light.sun) == pytest.approx(1.0)
        assert 0.3 < light.sun[2] < 0.95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (0, 10)}, "size"),
        ({"field_of_view": 4.0}, "field_of_view"),
        ({"samples": 3}, "square"),
    ],
)
def test_senseless_cameras_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lens(**arguments)  # type: ignore[arg-type]
