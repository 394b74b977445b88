"""Running sequences: the labels are those of one run on the frames that the method names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_drive import drive, ground, pipeline

from perception.datasets.sequences import merged
from perception.inference import Prediction, causal, find_drive
from perception.inference.causal import FrameByFrame, Memory, why_not_causal
from perception.io import PointCloud, read
from perception.models import MinkUNet, MinkUNetCRF
from perception.sparse import SparseTensor

CPU = torch.device("cpu")
CAUSAL: dict[str, Any] = {"time": "frame", "kernel": "causal", "frames": 3}
HYBRID: dict[str, Any] = {"time": "frame", "kernel": "hybrid", "frames": 3}


def same(result: Prediction, expected: Prediction, device: torch.device) -> None:
    """Equal labels; on a GPU, where the order of sums may differ, but for ties."""
    np.testing.assert_allclose(
        result.scores, expected.scores, atol=1e-6 if on_cpu(device) else 1e-3
    )
    if on_cpu(device):
        np.testing.assert_array_equal(result.labels, expected.labels)
    else:
        assert (result.labels == expected.labels).mean() > 0.995


def on_cpu(device: torch.device) -> bool:
    return device.type == "cpu"


@pytest.mark.parametrize("options", [{}, {"points": True}], ids=["sites", "points"])
def test_kept_layers_give_the_labels_of_one_run_on_all_frames(
    options: dict[str, Any], device: torch.device
) -> None:
    frames = drive(6)
    one = pipeline(**CAUSAL, **options, device=device)
    stream = one.stream()
    assert stream.keep == "layers"
    for number, sample in enumerate(frames):
        assert sample.pose is not None
        result = stream.push(sample.cloud, sample.pose, source=sample.name)
        expected = one.window(frames[: number + 1], anchor=frames[0].pose)
        same(result, expected, device)
        assert result.method.frames == number + 1
        assert result.method.kept == "layers"
        assert result.source == sample.name
    # The past matters.
    alone = one.window(frames[-1:], anchor=frames[0].pose)
    assert np.abs(alone.scores - result.scores).max() > 1e-3


@pytest.mark.parametrize(
    "options",
    [HYBRID, {**CAUSAL, "time_stride": 2}, {**HYBRID, "features": ("age", "offset")}],
    ids=["hybrid", "strided", "age"],
)
def test_kept_frames_give_the_labels_of_one_run_on_the_last(
    options: dict[str, Any], device: torch.device
) -> None:
    frames = drive(5)
    one = pipeline(**options, device=device)
    stream = one.stream()
    assert stream.keep == "frames"
    assert stream.reason
    for number, sample in enumerate(frames):
        assert sample.pose is not None
        result = stream.push(sample.cloud, sample.pose, time=sample.time)
        window = frames[max(0, number - 2) : number + 1]
        expected = one.window(window, anchor=frames[0].pose)
        same(result, expected, device)
        assert result.method.frames == len(window)


@pytest.mark.parametrize("options", [CAUSAL, HYBRID], ids=["causal", "hybrid"])
def test_every_second_scan(options: dict[str, Any]) -> None:
    frames = drive(5)
    one = pipeline(**options)
    stream = one.stream(frame_step=2)
    for sample in frames:
        assert sample.pose is not None
        result = stream.push(sample.cloud, sample.pose)
    expected = one.window(frames[::2], anchor=frames[0].pose)
    np.testing.assert_array_equal(result.labels, expected.labels)


@pytest.mark.parametrize("options", [CAUSAL, HYBRID], ids=["causal", "hybrid"])
def test_scans_that_are_missing_or_empty_leave_a_gap(options: dict[str, Any]) -> None:
    """What is two frames old is not taken for the frame before."""
    frames = drive(3)
    one = pipeline(**options)
    poses = [sample.pose for sample in frames]
    results = []
    for nothing in ("skip", "empty"):
        stream = one.stream()
        stream.push(frames[0].cloud, poses[0])  # type: ignore[arg-type]
        if nothing == "skip":
            stream.skip()
        else:
            empty = stream.push(PointCloud(np.zeros((0, 3))), poses[1])  # type: ignore[arg-type]
            assert len(empty.labels) == 0
        results.append(stream.push(frames[2].cloud, poses[2]))  # type: ignore[arg-type]
        assert results[-1].method.frames == 2
    np.testing.assert_array_equal(results[0].scores, results[1].scores)
    together = one.window([frames[0], frames[2]], anchor=poses[0])
    assert np.abs(together.scores - results[0].scores).max() > 1e-4


def test_a_sequence_of_a_standing_sensor_is_what_training_shows() -> None:
    """With nothing moving, sites and features are those of `merged` and the encoder."""
    frames = [sample for sample in drive(3)]
    for sample in frames:
        sample.pose = np.eye(4)
    one = pipeline(**HYBRID)
    cloud = merged(frames).cloud
    expected = one(cloud)
    result = one.window(frames)
    newest = cloud.attributes["frame"] == 2
    np.testing.assert_array_equal(result.labels, expected.labels[newest])
    np.testing.assert_allclose(result.scores, expected.scores[newest], atol=1e-4)


def test_merged_scans_without_time_and_time_in_seconds() -> None:
    """Frames may share a site: the mean is over the points, as when they are one cloud."""
    frames = drive(3)
    for sample in frames:
        sample.pose = np.eye(4)
    cloud = merged(frames).cloud
    for time in (None, 0.2):
        one = pipeline(time=time, frames=3, features=("intensity", "offset", "age"))
        assert one.takes_sequences
        expected = one(cloud).labels[cloud.attributes["frame"] == 2]
        result = one.window(frames)
        assert (result.labels == expected).mean() > 0.999
        stream = one.stream()
        assert stream.keep == "frames"
        for sample in frames:
            last = stream.push(sample.cloud, np.eye(4), time=sample.time)
        np.testing.assert_array_equal(last.labels, result.labels)


def test_a_new_drive_and_a_far_one() -> None:
    frames = drive(3)
    one = pipeline(**CAUSAL)
    stream = one.stream()
    first = [stream.push(s.cloud, s.pose).labels for s in frames]  # type: ignore[arg-type]
    stream.reset()
    for sample, labels in zip(frames, first, strict=True):
        assert sample.pose is not None
        np.testing.assert_array_equal(stream.push(sample.cloud, sample.pose).labels, labels)
    far = np.eye(4)
    far[0, 3] = 1e10
    with pytest.raises(ValueError, match="more than int32 sites"):
        stream.push(frames[0].cloud, far)
    with pytest.raises(ValueError, match="rotation part is no rotation"):
        stream.push(frames[0].cloud, 2 * np.eye(4))


def test_what_cannot_be_kept_is_said() -> None:
    for options, reason in (
        (HYBRID, "looks ahead in time"),
        ({**CAUSAL, "time_stride": 2}, "stride 2 along time"),
        ({**CAUSAL, "features": ("age",)}, '"age"'),
        ({**CAUSAL, "time": 0.1}, "in seconds"),
        ({"frames": 3}, "no time"),
    ):
        one = pipeline(**options)
        assert reason in one.stream().reason
        with pytest.raises(ValueError, match="cannot keep layers"):
            one.stream(keep="layers")
    assert pipeline(**CAUSAL).stream(keep="frames").keep == "frames"
    with pytest.raises(ValueError, match="how many frames it was trained on; give frames="):
        pipeline(**{**HYBRID, "frames": None}).stream()
    with pytest.raises(ValueError, match="keep='all'"):
        pipeline(**HYBRID).stream(keep="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be positive"):
        pipeline(**HYBRID).stream(frames=0)


def test_a_scan_that_does_not_fit_is_cut_and_frames_are_kept() -> None:
    frames = drive(3, 4000, 60.0)
    options = {**CAUSAL, "channels": (8, 8, 8), "voxel_size": 0.4}
    stream = pipeline(**options, memory=1_000_000).stream()
    for sample in frames:
        assert sample.pose is not None
        result = stream.push(sample.cloud, sample.pose)
    assert stream.keep == result.method.kept == "frames"
    assert "does not fit" in stream.reason
    assert result.method.tiles > 1
    expected = pipeline(**options).window(frames, anchor=frames[0].pose)
    if result.method.overlap >= (result.method.context or np.inf):
        np.testing.assert_array_equal(result.labels, expected.labels)
    assert (result.labels == expected.labels).mean() > 0.9


def test_networks_whose_frames_meet_elsewhere_are_found_out() -> None:
    shape: dict[str, Any] = {"depth": 14, "channels": [8, 8, 8], "dim": 4, "stride": (2, 2, 2, 1)}
    causal = MinkUNet(4, 3, kernel="causal", **shape).eval()
    assert why_not_causal(causal, 4, CPU) == ""
    field = MinkUNetCRF(4, 3, color=[0], sigma_color=0.1, kernel="causal", **shape).eval()
    assert why_not_causal(field, 4, CPU)


def test_the_plan_of_a_gpu_is_that_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = drive(3)
    one = pipeline(**CAUSAL)
    results = []
    for make in (causal._pairs, causal._table):
        monkeypatch.setattr(causal, "_pairs", make)
        stream = one.stream()
        for sample in frames:
            assert sample.pose is not None
            result = stream.push(sample.cloud, sample.pose)
        results.append(result)
    np.testing.assert_array_equal(results[0].scores, results[1].scores)


def test_only_the_reach_of_the_layers_is_kept() -> None:
    one = pipeline(**CAUSAL)
    runs, memory = FrameByFrame(one.net), Memory()
    coords = torch.cartesian_prod(*[torch.arange(n) for n in (1, 9, 9, 3)]).int()
    sizes = []
    with torch.inference_mode():
        for number in range(5):
            runs(SparseTensor(torch.randn(len(coords), 6), coords), number, memory)
            sizes.append(memory.bytes())
    assert sizes[0] > 0
    assert len(set(sizes)) == 1
    assert not any(hasattr(layer, "_now") for layer in one.net.modules())


def test_a_single_scan_is_labelled_with_a_warning() -> None:
    one = pipeline(**HYBRID)
    with pytest.warns(UserWarning, match=r"trained on 3 scans at a time and sees one alone"):
        result = one(ground(500, 8.0))
    assert len(result.labels) == 500
    sample = drive(1)[0]
    sample.pose = None
    with pytest.raises(ValueError, match="000000: has no pose"):
        one.window([sample])


def test_real_frames(shared_data: Path) -> None:
    folder = shared_data / "kitti_odometry_00"
    scans = sorted((folder / "velodyne").glob("*.bin"))[:3]
    known = find_drive(scans, folder / "poses_first20.txt")
    assert known is not None
    one = pipeline(**CAUSAL, channels=(8, 8, 8, 8, 8))
    stream = one.stream()
    from perception.datasets.sample import Sample

    samples = [Sample(read(scan), pose=pose) for scan, pose in zip(scans, known.poses, strict=True)]
    for sample in samples:
        assert sample.pose is not None
        result = stream.push(sample.cloud, sample.pose)
    expected = one.window(samples, anchor=samples[0].pose)
    np.testing.assert_array_equal(result.labels, expected.labels)
    # The frames lie on each other: about half of the newest one's sites had a point before.
    moved = np.linalg.norm(known.poses[1, :3, 3] - known.poses[0, :3, 3])
    assert 0.5 < moved < 1.5
