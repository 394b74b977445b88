"""Several scans as one: numbers, times, and that standing things stand still."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from perception.datasets import transforms as tf
from perception.datasets.collate import SegmentationItem, collate_segmentation
from perception.datasets.encode import Encoder, ground_height
from perception.datasets.readers import KittiOdometry
from perception.datasets.sample import Sample, Scans
from perception.datasets.sequences import Frames, merged
from perception.datasets.street_scans import StreetScans
from perception.geometry import invert, transform
from perception.io import PointCloud

WORLD = np.random.default_rng(0).uniform(-20, 20, (200, 3))


class Drives:
    """Drives of 5, 1 and 3 scans at 2 Hz past a world that stands still, on a winding road."""

    classes = ("thing",)
    colors = np.zeros((1, 3), np.uint8)
    box_classes: tuple[str, ...] = ()
    names: Sequence[str] = [f"s{i}" for i in range(9)]
    sequences: Sequence[range] = [range(0, 5), range(5, 6), range(6, 9)]

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> Sample:
        pose = np.eye(4)
        pose[:3, :3] = tf.Similarity.about_z(0.3 * index).turn
        pose[:3, 3] = (4 * index, index**2, 0.1 * index)
        points = transform(invert(pose), WORLD).astype(np.float32)
        row = np.arange(200)
        return Sample(
            PointCloud(points, {"row": row, f"only{index}": row}),
            labels=np.full(200, index, np.uint8),
            instances=row.astype(np.int32),
            pose=pose,
            name=self.names[index],
            time=10.0 + 0.5 * index,
        )


def test_a_sample_reaches_back_within_its_drive() -> None:
    drives: Scans = Drives()
    frames = Frames(drives, 3)
    assert len(frames) == 9
    assert [frames.numbers(i) for i in (0, 1, 4, 5, 8)] == [
        [0],
        [0, 1],
        [2, 3, 4],
        [5],
        [6, 7, 8],
    ]
    assert list(frames.names) == list(drives.names)
    assert [list(s) for s in frames.sequences] == [[0, 1, 2, 3, 4], [5], [6, 7, 8]]
    assert isinstance(frames, Scans)


def test_complete_samples_only_and_wider_steps() -> None:
    complete = Frames(Drives(), 3, complete=True)
    assert [complete.numbers(i) for i in range(len(complete))] == [
        [0, 1, 2],
        [1, 2, 3],
        [2, 3, 4],
        [6, 7, 8],
    ]
    assert list(complete.names) == ["s2", "s3", "s4", "s8"]
    wide = Frames(Drives(), 3, step=2, complete=True)
    assert [wide.numbers(i) for i in range(len(wide))] == [[0, 2, 4]]
    assert Frames(Drives(), 3, step=2).numbers(3) == [1, 3]
    with pytest.raises(ValueError, match="no drive of the data set has 11 scans"):
        Frames(Drives(), 11, complete=True)
    with pytest.raises(ValueError, match="must be positive"):
        Frames(Drives(), 0)


def test_what_stands_still_in_the_world_does_so_in_the_sample() -> None:
    sample = Frames(Drives(), 3)[4]
    points = sample.cloud.points.reshape(3, 200, 3)
    np.testing.assert_allclose(points[0], points[2], atol=2e-5)
    np.testing.assert_allclose(points[2], Drives()[4].cloud.points, atol=0)
    assert sample.pose is not None
    np.testing.assert_allclose(transform(sample.pose, points[0].astype(float)), WORLD, atol=3e-5)


def test_every_point_keeps_its_label_instance_frame_and_age() -> None:
    sample = Frames(Drives(), 3, step=2)[4]
    attributes = sample.cloud.attributes
    assert attributes["frame"].tolist() == [0] * 200 + [1] * 200 + [2] * 200
    assert attributes["age"].tolist() == [2.0] * 200 + [1.0] * 200 + [0.0] * 200
    assert attributes["row"].tolist() == [*range(200)] * 3
    assert set(attributes) == {"row", "frame", "age"}  # and none that one scan alone has
    assert sample.labels is not None
    assert sample.labels.tolist() == [0] * 200 + [2] * 200 + [4] * 200
    assert sample.name == "s4"
    assert sample.time == 12.0
    # The newest scan has the same number where older ones are missing.
    assert set(Frames(Drives(), 3)[1].cloud.attributes["frame"].tolist()) == {1, 2}
    assert set(Frames(Drives(), 3)[5].cloud.attributes["frame"].tolist()) == {2}


def test_scans_without_times_are_a_period_apart_and_without_poses_cannot_be_joined() -> None:
    a, b = (replace(Drives()[i], time=None) for i in (0, 1))
    assert merged([a, b], period=0.25).cloud.attributes["age"].max() == 0.25
    with pytest.raises(ValueError, match="s0: has no pose"):
        merged([replace(a, pose=None), b])
    assert len(merged([replace(a, pose=None)]).cloud) == 200
    with pytest.raises(ValueError, match="no samples"):
        merged([])


def test_sites_in_space_and_time() -> None:
    sample = Frames(Drives(), 3)[4]
    for time, expected in (("frame", [0, 1, 2]), (0.5, [-2, -1, 0]), (1.0, [-1, 0, 0])):
        encoded = Encoder(0.5, ["age", "z"], time)(sample.cloud)  # type: ignore[arg-type]
        assert encoded.coords.shape[1] == 5
        sites = encoded.coords[encoded.point_to_voxel]
        place = np.floor(sample.cloud.points / np.float32(0.5)).astype(int)
        np.testing.assert_array_equal(sites[:, 1:4].numpy(), place)
        assert sites[:, 4].tolist() == np.repeat(expected, 200).tolist()
        assert len(torch.unique(encoded.coords, dim=0)) == len(encoded.coords)
    flat = Encoder(0.5, ["age", "z"])(sample.cloud)
    assert flat.coords.shape[1] == 4
    again = Encoder(**Encoder(0.5, ["one"], 0.5).metadata())
    assert again.time == 0.5
    with pytest.raises(ValueError, match="needs the attribute 'frame' of several frames"):
        Encoder(0.5, ["z"], "frame")(Drives()[0].cloud)
    with pytest.raises(ValueError, match="must be"):
        Encoder(0.5, ["z"], 0.0)


def test_one_collate_makes_batches_in_space_and_in_space_and_time() -> None:
    encoder = Encoder(0.5, ["age", "z"], "frame")
    items = []
    for index in (4, 8):
        sample = Frames(Drives(), 3)[index]
        assert sample.labels is not None
        frames = sample.cloud.attributes["frame"]
        items.append(SegmentationItem(encoder(sample.cloud), sample.labels, sample.name, frames))
    batch = collate_segmentation(items)
    assert batch.x.dim == 4
    assert batch.x.batch_size == 2
    assert batch.point_frames is not None
    sites = batch.x.coords[batch.point_to_voxel]
    assert torch.equal(sites[:, 4], batch.point_frames.int())
    assert sites[:, 0].tolist() == [0] * 600 + [1] * 600
    assert batch.point_labels[:3].tolist() == [2, 2, 2]
    assert torch.equal(batch.labels[batch.point_to_voxel], batch.point_labels)  # a frame, a label
    flat = Encoder(0.5, ["age", "z"])(Frames(Drives(), 3)[4].cloud)
    with pytest.raises(ValueError, match="different encoders"):
        collate_segmentation([items[0], replace(items[1], encoded=flat)])


def test_an_endless_street_goes_on_with_whole_drives() -> None:
    frames = Frames(StreetScans("train", streets=3, frames=4), 3, step=1, complete=True)
    assert len(frames) == 6
    assert frames.endless
    assert frames.numbers(5) == [9, 10, 11]
    assert frames.numbers(6) == [12, 13, 14]  # the next epoch's first street


def nearest(points: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Median distance of 800 of the points to their nearest others."""
    some = points[np.random.default_rng(0).permutation(len(points))[:800]]
    square = [np.square(others - point).sum(axis=1).min() for point in some]
    return float(np.median(np.sqrt(square)))


def aligned(frames: Frames, index: int) -> tuple[float, float]:
    """How far raised points of the newest scan are from the oldest: unregistered, registered."""
    sample = frames[index]
    number, points = sample.cloud.attributes["frame"], sample.cloud.points
    raised = points[:, 2] - ground_height(points) > 0.5
    scans = [frames.scans[i].cloud.points for i in frames.numbers(index)]
    raw = np.concatenate(scans)
    first, last = (raised & (number == n) for n in (number.min(), number.max()))
    return nearest(raw[last], raw[first]), nearest(points[last], points[first])


@pytest.fixture(scope="module")
def kitti(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> KittiOdometry:
    """The six real frames, laid out as the data set is."""
    source = shared_data / "kitti_odometry_00"
    root = tmp_path_factory.mktemp("kitti")
    drive = root / "sequences" / "00"
    drive.mkdir(parents=True)
    for name, there in (
        ("velodyne", "velodyne"),
        ("calib.txt", "calib.txt"),
        ("poses.txt", "poses_first20.txt"),
        ("times.txt", "times_first20.txt"),
    ):
        (drive / name).symlink_to(source / there)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return KittiOdometry(root, drives=["00"])


def test_six_real_frames_align(kitti: KittiOdometry) -> None:
    frames = Frames(kitti, 6, complete=True)
    assert len(frames) == 1
    before, after = aligned(frames, 0)
    assert before > 0.45
    assert after < 0.21
    sample = frames[0]
    counts = np.bincount(sample.cloud.attributes["frame"])
    assert counts.tolist() == [124668, 124605, 124478, 124167, 123969, 123924]
    encoded = Encoder(0.2, ["intensity", "height", "offset"], "frame")(sample.cloud)
    item = SegmentationItem(
        encoded,
        np.zeros(len(sample.cloud), np.uint8),
        sample.name,
        sample.cloud.attributes["frame"],
    )
    batch = collate_segmentation([item])
    assert batch.x.dim == 4
    assert batch.x.coords[:, 4].unique().tolist() == [0, 1, 2, 3, 4, 5]
    by_time = Encoder(0.2, ["one"], 0.1037)(sample.cloud)
    np.testing.assert_array_equal(by_time.coords[:, 4].unique(), np.arange(-5, 1))
    # Registered frames share places; sites in space alone are fewer than all frames' sites.
    flat = Encoder(0.2, ["one"])(sample.cloud)
    assert len(flat.coords) < 0.6 * len(encoded.coords)


def test_two_real_sweeps_of_argoverse_align(shared_data: Path) -> None:
    pytest.importorskip("pyarrow")
    frames = Frames(ArgoverseSweeps(shared_data / "av2" / "7fab2350"), 2, complete=True)
    before, after = aligned(frames, 0)
    assert after < 0.8 * before
    assert np.bincount(frames[0].cloud.attributes["frame"]).tolist() == [99229, 99466]
    np.testing.assert_allclose(frames[0].cloud.attributes["age"].max(), 0.1002, atol=1e-4)


class ArgoverseSweeps(Drives):
    """The two sweeps with the poses that their table gives."""

    sequences = [range(2)]  # noqa: RUF012
    names: Sequence[str] = ("first", "second")

    def __init__(self, folder: Path) -> None:
        from perception.datasets.readers.rotations import matrices
        from perception.io import read
        from perception.io.feather import read_table

        poses = read_table(folder / "city_SE3_egovehicle.feather").to_pydict()
        self.samples = []
        for file in sorted((folder / "lidar").glob("*.feather")):
            row = poses["timestamp_ns"].index(int(file.stem))
            pose = np.eye(4)
            pose[:3, :3] = matrices(np.array([[poses[k][row] for k in ("qw", "qx", "qy", "qz")]]))[
                0
            ]
            pose[:3, 3] = [poses[k][row] for k in ("tx_m", "ty_m", "tz_m")]
            self.samples.append(
                Sample(read(file), pose=pose, name=file.stem, time=int(file.stem) * 1e-9)
            )

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]
