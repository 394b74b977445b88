"""Turned copies and half precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_drive import drive, ground, pipeline

import perception
from perception.inference import variants
from perception.io import read


def test_copies_are_rigid_the_first_is_the_cloud_and_all_differ() -> None:
    cloud = ground(100, 10.0)
    copies = variants(6)
    assert copies[0](cloud) is cloud
    seen = []
    for copy in copies:
        turned = copy(cloud).points
        np.testing.assert_allclose(
            np.linalg.norm(turned, axis=1), np.linalg.norm(cloud.points, axis=1), rtol=1e-5
        )
        np.testing.assert_array_equal(turned[:, 2], cloud.points[:, 2])
        seen.append(turned.tobytes())
        moved = cloud.points @ copy.motion()[:3, :3].T
        np.testing.assert_allclose(turned, moved, atol=1e-5)
    assert len(set(seen)) == 6
    with pytest.raises(ValueError, match="augment=0 copies"):
        variants(0)


@pytest.mark.parametrize("points", [False, True])
def test_probabilities_are_averaged_over_points(points: bool) -> None:
    one = pipeline(points=points)
    cloud = ground(3000, 12.0)
    result = one(cloud, augment=4)
    again = one(cloud, augment=4)
    np.testing.assert_array_equal(result.labels, again.labels)
    np.testing.assert_array_equal(result.scores, again.scores)
    assert result.method.augment == 4
    assert len(result.labels) == len(result.scores) == len(cloud)
    # The scores of one class are the mean of what the copies say about it.
    apart = [one(copy(cloud)) for copy in variants(4)]
    agreed = np.all([p.labels == result.labels for p in apart], axis=0)
    assert agreed.any()
    mean = np.mean([p.scores for p in apart], axis=0)
    np.testing.assert_allclose(result.scores[agreed], mean[agreed], atol=1e-5)
    assert (result.labels != apart[0].labels).any()
    np.testing.assert_array_equal(one(cloud, augment=1).labels, apart[0].labels)


def test_a_cloud_and_its_copy_get_the_same_labels() -> None:
    """Averaged over all four of a turn by 90 degrees, which the copies of four close under."""
    one = pipeline(features=("intensity", "z", "range"))
    cloud = ground(3000, 12.0)
    result, turned = one(cloud, augment=8), one(variants(8)[2](cloud), augment=8)
    assert (result.labels == turned.labels).mean() > 0.99


def test_sequences_are_turned_as_well() -> None:
    frames = drive(3)
    one = pipeline(time="frame", kernel="causal", frames=3)
    stream = one.stream(augment=3)
    for sample in frames:
        assert sample.pose is not None
        result = stream.push(sample.cloud, sample.pose)
    expected = one.window(frames, anchor=frames[0].pose, augment=3)
    assert result.method.augment == 3
    np.testing.assert_array_equal(result.labels, expected.labels)
    np.testing.assert_allclose(result.scores, expected.scores, atol=1e-6)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_gives_nearly_the_same(precision: str, device: torch.device) -> None:
    cloud = ground(5000, 12.0)
    expected = pipeline(device=device)(cloud)
    result = pipeline(precision=precision, device=device)(cloud)
    assert result.method.precision == precision
    assert precision in str(result.method)
    assert result.scores.dtype == np.float32
    clear = expected.scores > 0.4
    assert (result.labels == expected.labels)[clear].mean() > 0.97
    with pytest.raises(ValueError, match="precision 'int8' is unknown"):
        pipeline(precision="int8")


@pytest.mark.parametrize(("precision", "share"), [("bfloat16", 0.99), ("float16", 0.999)])
def test_half_precision_on_a_real_scan(shared_data: Path, precision: str, share: float) -> None:
    cloud = read(shared_data / "semantickitti_spvnas" / "000000.bin")
    expected = perception.load("street-minkunet", "cpu")(cloud)
    result = perception.load("street-minkunet", "cpu", precision=precision)(cloud)  # type: ignore[arg-type]
    assert (result.labels == expected.labels).mean() > share
