"""A network of points in the segmentation task: what the data give it, and what it is scored by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer

from perception.datasets.encode import Encoder
from perception.datasets.sample import Sample
from perception.datasets.segmentation import SegmentationData
from perception.io import PointCloud
from perception.models import SPVCNN
from perception.tasks import Segmentation


class Steps:
    """Floors with a step of half a voxel through the middle of voxels, which no voxel knows of."""

    classes = ("low", "high")
    colors = np.zeros((2, 3), np.uint8)
    box_classes: tuple[str, ...] = ()
    names = tuple(f"step{i}" for i in range(8))
    sequences = (range(8),)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        points = rng.uniform(0, 4, (500, 3)).astype(np.float32)
        labels = (points[:, 0] > 2.25).astype(np.uint8)
        points[:, 2] = np.where(labels == 1, 0.4, 0.1)
        name = self.names[index]
        return Sample(PointCloud(points), labels, pose=np.eye(4), name=name, time=0.1 * index)


def data(**options: object) -> SegmentationData:
    settings = {"voxel_size": 0.5, "features": ["one"], "num_workers": 0, "batch_size": 2}
    return SegmentationData(Steps(), Steps(), **{**settings, **options})  # type: ignore[arg-type]


def task(**options: object) -> Segmentation:
    torch.manual_seed(0)
    net = SPVCNN(1, 2, channels=(8, 8, 8, 8, 8), **options)  # type: ignore[arg-type]
    return Segmentation(
        net, class_names=Steps.classes, optimizer=lambda p: torch.optim.AdamW(p, lr=0.01)
    )


def quick_trainer(root: Path, steps: int) -> Trainer:
    return Trainer(
        max_steps=steps,
        default_root_dir=root,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )


@pytest.mark.parametrize("time", [None, "frame", 0.1])
def test_positions_lie_in_the_sites_of_their_points(time: object) -> None:
    several = {} if time is None else {"frames": 2}
    module = data(points=True, time=time, **several)
    batch = module.collate([module.items("train")[i] for i in (0, 1)])
    places = batch.point_positions
    assert places is not None
    assert places.dtype == torch.float32
    assert places.shape == (len(batch.point_labels), batch.x.dim)
    assert torch.equal(places.floor().int(), batch.x.coords[batch.point_to_voxel, 1:])
    assert batch.to("cpu").point_positions is not None
    if time is not None:
        assert bool((places[:, 3] % 1 == 0.5).all())


def test_edges_of_a_voxel_may_differ() -> None:
    cloud = PointCloud(np.array([[1.0, 1.0, -1.0]], np.float32))
    places = Encoder([0.5, 0.25, 2.0], ["one"]).positions(cloud)
    assert places.tolist() == [[2.0, 4.0, -0.5]]


def test_nobody_who_does_not_ask_gets_positions() -> None:
    module = data()
    assert module.collate([module.items("train")[0]]).point_positions is None


@pytest.mark.filterwarnings("ignore")
def test_points_of_one_voxel_are_told_apart(tmp_path: Path) -> None:
    module = task(needs_points=True)
    trainer = quick_trainer(tmp_path, 40)
    trainer.fit(module, datamodule=data(points=True))
    # The step cuts through the voxels 4 of 8: voxels alone are right in 15 of 16 points at most.
    assert trainer.callback_metrics["val/miou"] > 0.95
    parts = trainer.predict(module, datamodule=data(points=True))
    assert parts is not None
    predicted = {name: labels for part in parts for name, labels in part.items()}  # type: ignore[union-attr]
    for index, name in enumerate(Steps.names):
        assert (predicted[name] == Steps()[index].labels).mean() > 0.97


@pytest.mark.filterwarnings("ignore")
def test_without_needs_points_it_is_trained_on_sites(tmp_path: Path) -> None:
    trainer = quick_trainer(tmp_path, 4)
    trainer.fit(task(), datamodule=data(points=True))
    assert trainer.callback_metrics["val/miou"] >= 0


@pytest.mark.filterwarnings("ignore")
def test_data_without_points_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set data\.points to true"):
        quick_trainer(tmp_path, 1).fit(task(needs_points=True), datamodule=data())
