"""Single simulated objects: normalised, exact from every side."""

from __future__ import annotations

import hashlib
import multiprocessing

import numpy as np
import pytest

from perception.datasets.rooms import OBJECT_CLASSES, OBJECT_COLORS, Object, Objects
from perception.datasets.sample import Scans
from perception.geometry import transform


def view_digest(seed: int) -> str:
    h = hashlib.sha256()
    for image in Object(seed).views(2, size=32).images:
        h.update(image.pixels().tobytes())
    h.update(Object(seed).scan(points=500).cloud.points.tobytes())
    return h.hexdigest()


def test_same_in_another_process() -> None:
    here = [view_digest(seed) for seed in range(4)]
    assert len(set(here)) == 4
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(view_digest, range(4)) == here


@pytest.mark.parametrize("kind", OBJECT_CLASSES)
def test_objects_are_a_metre_in_size_and_whole_in_every_picture(kind: str) -> None:
    for seed in range(2):
        one = Object(seed, kind=kind)
        x, y, z, *size, _ = one.boxes.boxes[0].astype(np.float64)
        assert np.allclose((x, y, z), 0.0, atol=1e-5)
        assert max(size) == pytest.approx(1.0, abs=1e-5)
        surface = one.scene.surface(4000.0)
        assert one.boxes.contains(surface.points, margin=1e-3).all()
        assert np.abs(one.scene.sdf(surface.points)).max() < 1e-5
        for image in one.views(4, size=48).images:
            pixels, depth = image.pixels(), image.depth
            assert depth is not None
            assert np.array_equal(pixels[..., 3] == 255, depth > 0)
            assert (depth > 0).mean() > 0.01
            border = np.concatenate([depth[0], depth[-1], depth[:, 0], depth[:, -1]])
            assert not border.any()
            v, u = np.nonzero(depth)
            k = image.camera.intrinsics
            d = depth[v, u].astype(np.float64)
            x_, y_ = (u + 0.5 - k[0, 2]) / k[0, 0] * d, (v + 0.5 - k[1, 2]) / k[1, 1] * d
            points = transform(image.camera.pose, np.stack([x_, y_, d], axis=1))
            assert np.abs(one.scene.sdf(points)).max() < 1e-3


def test_objects_have_something_to_match() -> None:
    for kind in OBJECT_CLASSES:
        image = Object(3, kind=kind).views(3, size=64)[1]
        pixels = image.pixels()
        assert pixels[pixels[..., 3] > 0][:, :3].astype(float).std(axis=0).max() > 4.0


def test_fine_pictures_have_soft_outlines() -> None:
    image = Object(0).views(1, size=32, samples=3)[0]
    alpha = image.pixels()[..., 3]
    assert ((alpha > 0) & (alpha < 255)).any()
    assert (alpha == 255).any()


def test_objects_are_a_data_set() -> None:
    objects = Objects(4, 10, points=600, kinds=("mug", "chair"))
    assert isinstance(objects, Scans)
    assert OBJECT_COLORS.shape == (len(OBJECT_CLASSES), 3)
    assert len({tuple(c) for c in OBJECT_COLORS.tolist()}) == len(OBJECT_CLASSES)
    sample = objects[1]
    assert sample.name == objects.names[1] == "object-000011"
    assert 300 < len(sample.cloud) <= 600
    assert set(np.unique(sample.labels)) == {OBJECT_CLASSES.index("chair")}
    assert sample.boxes is not None
    assert sample.boxes.contains(sample.cloud.points, margin=0.03).mean() > 0.99
    with pytest.raises(IndexError, match="no sample 4"):
        objects[4]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no kind 'castle'; choose"):
        Object(0, kind="castle")
    with pytest.raises(ValueError, match="no kind 'castle'; choose"):
        Objects(1, kinds=["castle"])
    with pytest.raises(ValueError, match="num is 0"):
        Objects(0)
    with pytest.raises(ValueError, match="0 cameras"):
        Object(0).cameras(0)
    with pytest.raises(ValueError, match="a scan of 0 points"):
        Object(0).scan(points=0)
