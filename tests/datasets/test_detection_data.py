"""The data module for boxes: real and simulated scans to batches, crops, workers, resuming, YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import nuscenes_tree
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from pytorch_lightning import LightningDataModule

from perception.datasets import transforms as tf
from perception.datasets.detection import DetectionBatch, DetectionData
from perception.datasets.readers import Argoverse2, KittiObject, NuScenes
from perception.datasets.readers.kitti_labels import KITTI_CLASSES
from perception.datasets.sample import Sample, Scans
from perception.datasets.sampling import class_counts
from perception.datasets.street import CLASSES
from perception.datasets.street_scans import StreetScans
from perception.geometry import Boxes3D
from perception.io import PointCloud

AUGMENT = [
    tf.DropPoints(),
    tf.Flip(x=0.5),
    tf.Rotate(),
    tf.Scale(),
    tf.Translate(),
    tf.ObjectNoise(),
]
VOXEL = (0.1, 0.1, 0.2)


class Blocks:
    """A drive of scans with two boxes each, 40 points in the first and none in the second."""

    classes = ("thing",)
    colors = np.zeros((1, 3), np.uint8)
    box_classes = ("a", "b", "rare")

    def __init__(self, count: int = 8) -> None:
        self.names: Sequence[str] = [f"blocks{i}" for i in range(count)]
        self.sequences = [range(count)]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        centre = np.array([5.0 + index, 2.0, 0.5])
        points = centre + rng.uniform(-0.45, 0.45, (40, 3))
        ground = np.c_[rng.uniform(-20, 20, (100, 2)), np.full(100, -1.0)]
        boxes = np.array([[*centre, 1, 1, 1, 0], [-30, 0, 0, 4, 2, 1.5, 1]])
        velocity = np.array([[1.0, 0.0], [np.nan, np.nan]])
        cloud = PointCloud(np.concatenate([points, ground]).astype(np.float32))
        labels = np.array([2 if index == 0 else index % 2, 1])
        return Sample(
            cloud,
            np.zeros(140, np.uint8),
            boxes=Boxes3D(boxes, labels, velocity, np.array([7, 8])),
            pose=np.eye(4),
            name=self.names[index],
            time=0.1 * index,
        )


def module(train: Scans | None = None, val: Scans | None = None, **options: Any) -> DetectionData:
    settings: dict[str, Any] = {
        "voxel_size": VOXEL,
        "features": ["z", "offset"],
        "transforms": AUGMENT,
        "num_workers": 0,
    }
    return DetectionData(train or Blocks(), val or Blocks(3), **{**settings, **options})


def tensors(batch: DetectionBatch) -> list[torch.Tensor]:
    optional = [t for t in (*batch.velocity, *batch.track_ids) if t is not None]
    sites = [batch.x.coords, batch.x.features]
    return [*sites, *batch.boxes, *batch.labels, *batch.points_in_boxes, *optional]


def same(one: DetectionBatch, two: DetectionBatch) -> bool:
    return (
        one.names == two.names
        and one.points == two.points
        and all(
            torch.equal(a.nan_to_num(9e9), b.nan_to_num(9e9))
            for a, b in zip(tensors(one), tensors(two), strict=True)
        )
    )


def centres(batch: DetectionBatch, scan: int, voxel: Sequence[float] = VOXEL) -> np.ndarray:
    """Where the mean point of each voxel of a scan lies, from its site and its feature "offset"."""
    mine = batch.x.coords[:, 0] == scan
    inside = batch.x.features[mine, -3:].double() + 0.5
    return ((batch.x.coords[mine, 1:] + inside) * torch.tensor(voxel)).numpy()


def voxels_in(batch: DetectionBatch, scan: int, voxel: Sequence[float] = VOXEL) -> np.ndarray:
    boxes = Boxes3D(batch.boxes[scan].numpy(), batch.labels[scan].numpy())
    counts: np.ndarray = boxes.contains(centres(batch, scan, voxel), 1e-4).sum(axis=1)
    return counts


# ---- what a batch holds


def test_a_batch_of_two() -> None:
    (batch, *_) = module(transforms=[]).train_dataloader()
    assert batch.x.batch_size == len(batch.names) == 2
    assert batch.points == (140, 140)
    assert set(batch.x.coords[:, 0].tolist()) == {0, 1}
    for scan, name in enumerate(batch.names):
        expected = Blocks()[int(name.removeprefix("blocks"))].boxes
        assert expected is not None
        np.testing.assert_array_equal(batch.boxes[scan], expected.boxes)
        np.testing.assert_array_equal(batch.labels[scan], expected.labels)
        np.testing.assert_array_equal(batch.velocity[scan], expected.velocity)
        np.testing.assert_array_equal(batch.track_ids[scan], [7, 8])
        assert batch.points_in_boxes[scan].tolist() == [40, 0]
        assert batch.boxes[scan].dtype == torch.float32
        assert batch.labels[scan].dtype == batch.points_in_boxes[scan].dtype == torch.int64
    moved = batch.to("cpu")
    assert same(moved, batch)
    assert moved.to("meta").boxes[0].device.type == "meta"


def test_points_stay_in_their_boxes_through_all_transforms() -> None:
    for batch in module().train_dataloader():
        for scan in range(2):
            inside, empty = voxels_in(batch, scan)
            points = int(batch.points_in_boxes[scan][0])
            assert 8 < inside <= points <= 40  # drop-out takes up to a fifth
            assert empty == 0
            speed = batch.velocity[scan]
            assert speed is not None
            assert 0.9 < float(speed[0].norm()) < 1.1
            assert speed[1].isnan().all()


def test_the_range_crops_points_and_boxes_by_their_centres() -> None:
    low, high = (-4.0, -8.0, -2.0), (9.0, 8.0, 2.0)
    data = module(transforms=[], point_range=(*low, *high), batch_size=1)
    for batch in data.train_dataloader():
        number = int(batch.names[0].removeprefix("blocks"))
        assert len(batch.boxes[0]) == (number < 4)  # the centre lies at 5 + number
        first, shape = (np.round(np.array(side) / VOXEL) for side in (low, high))
        sites = batch.x.coords[:, 1:].numpy()
        assert (sites >= first).all()
        assert (sites < shape).all()
        assert batch.points[0] < 140
        assert len(batch.track_ids[0]) == len(batch.velocity[0]) == len(batch.boxes[0])


def test_points_on_the_border_name_no_site_outside() -> None:
    class Edge(Blocks):
        def __getitem__(self, index: int) -> Sample:
            grid = np.linspace(-51.2, 51.2, 1025)
            near = np.concatenate([grid, np.nextafter(np.float32(51.2), 0, dtype=np.float32)[None]])
            points = np.zeros((len(near), 3), np.float32)
            points[:, 0] = near
            return Sample(PointCloud(points), name="edge")

    data = module(Edge(2), transforms=[], point_range=(-51.2, -51.2, -5, 51.2, 51.2, 3))
    (batch,) = data.train_dataloader()
    low, high = batch.x.bounds()
    assert low[0] >= -512
    assert high[0] < 512
    assert [len(b) for b in batch.boxes] == [0, 0]
    assert batch.boxes[0].shape == (0, 7)
    assert batch.velocity == (None, None)


def test_boxes_without_points_go_from_training_alone() -> None:
    data = module(transforms=[], min_points=1)
    for batch in data.train_dataloader():
        assert [c.tolist() for c in batch.points_in_boxes] == [[40], [40]]
    for batch in data.val_dataloader():
        assert batch.points_in_boxes[0].tolist() == [40, 0]


def test_several_frames_are_one_scan_with_the_newest_boxes() -> None:
    data = module(frames=3, features=["age", "offset"], transforms=[], batch_size=1)
    assert len(data.train_scans) == 6
    (batch, *_) = data.train_dataloader()
    assert batch.points == (420,)
    assert len(batch.boxes[0]) == 2
    assert batch.x.features[:, 0].max() > 0.1


# ---- real and simulated scans


def kitti(shared_data: Path, folder: Path) -> KittiObject:
    """The real scans in a tree of links."""
    for source in (shared_data / "kitti_object" / "training").rglob("*.*"):
        target = folder / "training" / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
    return KittiObject(folder, cameras=[])


def test_real_points_lie_in_their_boxes_after_everything(shared_data: Path, tmp_path: Path) -> None:
    scans = kitti(shared_data, tmp_path)
    fine = (0.05, 0.05, 0.05)
    moves = [tf.Flip(), tf.Rotate(45.0), tf.Scale(), tf.Translate()]
    data = module(scans, scans, voxel_size=fine, transforms=moves, features=["intensity", "offset"])
    expected = {
        "000000": [("Pedestrian", 376)],
        "000001": [("Truck", 70), ("Car", 9), ("Cyclist", 18)],
    }
    assert data.classes == KITTI_CLASSES
    loader = data.train_dataloader()
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        (batch,) = loader
        for scan, name in enumerate(batch.names):
            labels = [data.classes[i] for i in batch.labels[scan]]
            assert labels == [label for label, _ in expected[name]]
            counts = batch.points_in_boxes[scan].numpy()
            assert np.abs(counts - [count for _, count in expected[name]]).max() <= 2
            inside = voxels_in(batch, scan, fine)
            assert (inside > 0.5 * counts).all()
            assert (inside <= counts + 2).all()


def test_the_street_has_its_points_in_its_boxes() -> None:
    scans = StreetScans(streets=1)
    data = module(
        scans, StreetScans("val", streets=1), batch_size=1, point_range=(-40, -40, -3, 40, 40, 5)
    )
    assert data.classes == CLASSES
    (batch,) = data.train_dataloader()
    assert len(batch.boxes[0]) > 3
    assert (batch.boxes[0][:, :2].abs() <= 40).all()
    counts = batch.points_in_boxes[0].numpy()
    full = counts >= 20
    assert full.any()
    assert (voxels_in(batch, 0)[full] > 0).all()


def test_sweeps_of_nuscenes_and_velocities_that_nobody_knows(tmp_path: Path) -> None:
    scans = NuScenes(nuscenes_tree.build(tmp_path).root, sweeps=3)
    data = module(scans, scans, features=["time", "offset"])
    batches = {batch.names[0]: batch for batch in data.val_dataloader()}
    assert list(batches) == list(scans.names)
    second = batches["scene-0061/001"]
    assert second.x.features[:, 0].max() > 0.05  # seconds: past sweeps are there
    assert second.velocity[0] is not None
    assert second.velocity[0].isnan().all(dim=1).tolist() == [True, False]
    assert second.track_ids[0] is not None
    tracked = Boxes3D(second.boxes[0].numpy(), second.labels[0].numpy())
    expected = scans[1].boxes
    assert expected is not None
    np.testing.assert_array_equal(tracked.boxes, expected.boxes)


def test_two_real_sweeps_of_argoverse(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    real = shared_data / "av2" / "7fab2350"
    log = tmp_path / "sensor" / "val" / "7fab2350"
    for folder, place in (("lidar", "sensors/lidar"), ("calibration", "calibration"), ("", "")):
        (log / place).mkdir(parents=True, exist_ok=True)
        for file in (real / folder).glob("*.feather"):
            (log / place / file.name).symlink_to(file)
    scans = Argoverse2(tmp_path, "val")
    data = module(scans, scans, frames=2, transforms=[tf.Rotate()], batch_size=1)
    (batch,) = data.train_dataloader()
    assert batch.points == (99229 + 99466,)
    assert len(batch.boxes[0]) == 81
    counts = batch.points_in_boxes[0].numpy()
    assert (counts > 0).sum() > 70
    assert (voxels_in(batch, 0)[counts >= 20] > 0).all()


# ---- order


def test_batches_do_not_depend_on_the_number_of_workers() -> None:
    loaders = [module(num_workers=n).train_dataloader() for n in (0, 2)]
    for loader in loaders:
        loader.sampler.set_epoch(1)
    alone, beside = (list(loader) for loader in loaders)
    assert len(alone) == 4
    assert all(same(a, b) for a, b in zip(alone, beside, strict=True))
    assert beside[0].x.coords.is_shared()


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_loader_goes_on_where_its_state_was_kept(taken: int) -> None:
    straight = module().train_dataloader()
    straight.sampler.set_epoch(3)
    expected = list(straight)
    stopped = module().train_dataloader()
    stopped.sampler.set_epoch(3)
    batches = iter(stopped)
    for _ in range(taken):
        next(batches)
    resumed = module().train_dataloader()
    resumed.load_state_dict(stopped.state_dict())
    rest = list(resumed)
    assert len(rest) == 4 - taken
    assert all(same(a, b) for a, b in zip(rest, expected[taken:], strict=True))


def test_balance_counts_boxes_where_points_have_classes_too() -> None:
    counts = class_counts(Blocks(), boxes=True)
    assert counts.shape == (8, 3)
    assert counts[0].tolist() == [0, 1, 1]
    assert class_counts(Blocks()).shape == (8, 1)
    data = module(balance=True, transforms=[], batch_size=1)
    data.setup("fit")
    seen = [batch.names[0] for batch in data.train_dataloader()]
    assert seen.count("blocks0") >= 2  # alone has the rare class


# ---- YAML and mistakes


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_argument_can_stand_in_yaml(shared_data: Path) -> None:
    reader = "perception.datasets.readers.KittiObject"
    root = shared_data / "kitti_object"
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data")
    text = f"""
class_path: perception.datasets.detection.DetectionData
init_args:
  train: {{class_path: {reader}, init_args: {{root: {root}, classes: [Car, Pedestrian, Cyclist]}}}}
  val: {{class_path: {reader}, init_args: {{root: {root}, classes: [Car, Pedestrian, Cyclist]}}}}
  voxel_size: [0.05, 0.05, 0.1]
  features: [intensity, z, offset]
  point_range: [0, -40, -3, 70.4, 40, 1]
  transforms:
    - class_path: perception.datasets.transforms.Flip
    - class_path: perception.datasets.transforms.Rotate
      init_args: {{degrees: 45.0}}
  min_points: 5
  batch_size: 1
  frames: 1
  balance: true
  num_workers: 0
  seed: 4
"""
    parsed = parser.instantiate_classes(parser.parse_object({"data": yaml.safe_load(text)}))
    data = parsed.data
    assert isinstance(data, DetectionData)
    assert data.encoder.edges == (0.05, 0.05, 0.1)
    assert data.encoder.metadata()["voxel_size"] == [0.05, 0.05, 0.1]
    data.setup("fit")
    (batch, *_) = data.train_dataloader()
    low, high = batch.x.bounds()
    assert low[0] >= 0
    assert high.tolist()[0] < 1408
    assert data.classes == ("Car", "Pedestrian", "Cyclist")


def test_mistakes_say_what_to_do() -> None:
    class Bare(Blocks):
        box_classes = ()  # type: ignore[assignment]

    with pytest.raises(ValueError, match="has no boxes"):
        module(Bare())
    with pytest.raises(ValueError, match="smallest x, y, z"):
        module(point_range=(0, 0, 0, 1, 1, 0))
    for size in (0.0, (0.1, 0.1), (0.1, -0.1, 0.1)):
        with pytest.raises(ValueError, match="positive metres"):
            module(voxel_size=size)
