"""The segmentation task on a street small enough to train in seconds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from perception.datasets.collate import SegmentationBatch, SegmentationItem, collate_segmentation
from perception.datasets.encode import Encoder
from perception.io import PointCloud
from perception.models import MinkUNet
from perception.tasks import Segmentation, WarmupCosine

NAMES = ("floor", "wall", "post")


def scene(seed: int) -> SegmentationItem:
    """A floor, a wall and posts at random places; some points unlabelled."""
    rng = np.random.default_rng(seed)
    floor = np.c_[rng.uniform(0, 6, (1500, 2)), rng.uniform(0, 0.05, 1500)]
    wall = np.c_[rng.uniform(0, 6, 700), np.full(700, 5.5), rng.uniform(0.2, 3, 700)]
    foot = rng.uniform(1, 4, (4, 2)).repeat(60, axis=0)
    posts = np.c_[foot + rng.normal(0, 0.03, foot.shape), rng.uniform(0.2, 2, len(foot))]
    points = np.concatenate([floor, wall, posts]).astype(np.float32)
    labels = np.repeat([0, 1, 2], [len(floor), len(wall), len(posts)]).astype(np.uint8)
    labels[rng.random(len(labels)) < 0.02] = 255
    cloud = PointCloud(points)
    return SegmentationItem(Encoder(0.2, ["height", "offset"])(cloud), labels, f"scene{seed}")


def batch(*seeds: int) -> SegmentationBatch:
    return collate_segmentation([scene(seed) for seed in seeds])


def module(**options: object) -> Segmentation:
    torch.manual_seed(0)
    net = MinkUNet(4, 3, depth=14, channels=(8, 8, 12, 12, 8))
    return Segmentation(net, class_names=NAMES, **options)  # type: ignore[arg-type]


def loader(*seeds: int) -> DataLoader[SegmentationBatch]:
    return DataLoader(
        [scene(s) for s in seeds],  # type: ignore[arg-type]
        batch_size=2,
        collate_fn=collate_segmentation,
    )


def quick_trainer(root: Path, steps: int, accelerator: str = "cpu", **options: object) -> Trainer:
    return Trainer(
        max_steps=steps,
        default_root_dir=root,
        accelerator=accelerator,
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.filterwarnings("ignore")
def test_trains_validates_and_predicts(tmp_path: Path, device: torch.device) -> None:
    task = module(
        optimizer=lambda p: torch.optim.AdamW(p, lr=0.02), scheduler=WarmupCosine, lovasz=0.5
    )
    trainer = quick_trainer(
        tmp_path, 30, device.type, check_val_every_n_epoch=None, val_check_interval=30
    )
    trainer.fit(task, loader(*range(60)), loader(100, 101, 102))
    assert trainer.global_step == 30
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics["val/miou"] > 0.9
    for name in NAMES:
        assert metrics[f"val/iou/{name}"] > 0.75

    (tested,) = trainer.test(task, loader(100, 101, 102), verbose=False)
    assert tested["test/miou"] == pytest.approx(metrics["val/miou"], abs=1e-5)

    predictions = trainer.predict(task, loader(100, 101, 102))
    assert predictions is not None
    merged = {name: labels for part in predictions for name, labels in part.items()}
    right = count = 0
    for seed in (100, 101, 102):
        truth = scene(seed).labels
        labels = merged[f"scene{seed}"]
        assert labels.dtype == np.uint8
        assert labels.shape == truth.shape
        right += int((labels == truth)[truth != 255].sum())
        count += int((truth != 255).sum())
    assert right / count > 0.95


def test_validation_counts_points_not_sites() -> None:
    data = batch(0, 1)

    class Oracle(torch.nn.Module):
        def forward(self, x):  # type: ignore[no-untyped-def]
            safe = torch.where(data.labels == 255, 0, data.labels)
            return x.replace(torch.nn.functional.one_hot(safe, 3).float())

    task = Segmentation(Oracle(), class_names=NAMES)
    task.log = lambda *a, **k: None  # type: ignore[method-assign,assignment]
    task.validation_step(data, 0)
    result = task._iou("val").result()
    valid = data.point_labels != 255
    assert result.support.sum() == valid.sum()
    voted = data.labels[data.point_to_voxel]
    hits = ((voted == data.point_labels) & valid & (data.point_labels == 0)).sum()
    either = (((voted == 0) | (data.point_labels == 0)) & valid).sum()
    assert result.per_class[0].item() == pytest.approx((hits / either).item())


def test_of_several_frames_the_newest_is_counted_and_predicted() -> None:
    def drive(seed: int) -> SegmentationItem:
        one = scene(seed)
        frames = np.arange(len(one.labels)) * 3 // len(one.labels)  # thirds of a scan as frames
        return dataclasses.replace(one, frames=frames.astype(np.int16))

    data = collate_segmentation([drive(0), drive(1)])
    assert data.point_frames is not None
    newest = data.point_frames == 2
    task = module()
    task.log = lambda *a, **k: None  # type: ignore[method-assign,assignment]
    task.eval()
    task.validation_step(data, 0)
    counted = newest & (data.point_labels != 255)
    assert task._iou("val").result().support.sum() == counted.sum()
    predicted = task.predict_step(data, 0)
    every = task(data.x).features.argmax(1)[data.point_to_voxel][newest].numpy()
    assert np.array_equal(np.concatenate(list(predicted.values())), every)
    assert [len(part) for part in predicted.values()] == [
        int((part == 2).sum()) for part in data.point_frames.split(list(data.points))
    ]


def test_ignored_sites_do_not_change_the_loss() -> None:
    task = module(lovasz=1.0)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(50, 3, generator=generator)
    labels = torch.randint(0, 3, (50,), generator=generator)
    labels[40:] = 255
    wanted = task.loss(scores[:40], labels[:40], [40])
    torch.testing.assert_close(task.loss(scores, labels, [50]), wanted)
    empty = torch.full((50,), 255)
    assert task.loss(scores, empty, [50]).isfinite()


def test_metadata_names_a_network_that_can_be_rebuilt() -> None:
    described = module().metadata()
    assert described["task"] == "segmentation"
    assert described["classes"] == list(NAMES)
    assert described["net"]["name"] == "MinkUNet"
    MinkUNet(**described["net"]["args"])


@pytest.mark.filterwarnings("ignore")
def test_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    def run(resume: Path | None) -> Segmentation:
        seed_everything(0, verbose=False)
        task = module(scheduler=WarmupCosine)
        each_epoch = ModelCheckpoint(
            tmp_path, filename="{epoch}", monitor="val/miou", save_top_k=-1
        )
        trainer = Trainer(
            max_steps=8,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=[each_epoch],
        )
        trainer.fit(task, loader(*range(8)), loader(9), ckpt_path=resume, weights_only=True)
        return task

    whole = run(None).state_dict()
    resumed = run(tmp_path / "epoch=0.ckpt").state_dict()
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_scans_of_two_drives_with_one_number_are_two_files(tmp_path: Path) -> None:
    labels = {name: np.full(3, i, np.uint8) for i, name in enumerate(("08/07", "11/07", "../x"))}
    module().write(tmp_path, labels)
    files = sorted(tmp_path.rglob("*.label"))
    assert [file.relative_to(tmp_path).as_posix() for file in files] == [
        "08/07.label",
        "11/07.label",
        "x.label",
    ]
    assert np.fromfile(files[1], np.uint32).tolist() == [1, 1, 1]
