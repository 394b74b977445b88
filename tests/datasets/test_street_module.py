"""The data module of the simulated street: splits, seeds, workers."""

from __future__ import annotations

import torch

from perception.datasets.augment import Augment
from perception.datasets.collate import SegmentationBatch
from perception.datasets.street import CLASSES
from perception.datasets.street_module import (
    TEST_SEED,
    TRAIN_SEED,
    VALIDATION_SEED,
    EpochSampler,
    StreetDataModule,
)


def module(workers: int = 0, **options: object) -> StreetDataModule:
    settings = {"epoch_scans": 4, "val_scans": 2, "max_range": 15.0, "num_workers": workers}
    return StreetDataModule(augment=Augment(), **{**settings, **options})  # type: ignore[arg-type]


def same(one: SegmentationBatch, two: SegmentationBatch) -> bool:
    return (
        one.names == two.names
        and torch.equal(one.x.coords, two.x.coords)
        and torch.equal(one.x.features, two.x.features)
        and torch.equal(one.labels, two.labels)
        and torch.equal(one.point_to_voxel, two.point_to_voxel)
    )


def test_batches_do_not_depend_on_the_number_of_workers() -> None:
    alone = list(module(0).train_dataloader())
    beside = list(module(2).train_dataloader())
    assert len(alone) == len(beside) == 2
    for one, two in zip(alone, beside, strict=True):
        assert same(one, two)
    assert not same(alone[0], alone[1])


def test_epochs_and_seeds_show_new_streets_and_splits_share_none() -> None:
    for processes in (1, 2, 3):
        seen = []
        for epoch in range(2):
            for process in range(processes):
                sampler = EpochSampler(6, processes, process)
                sampler.set_epoch(epoch)
                indices = list(sampler)
                assert len(indices) == len(sampler) == 6 // processes
                seen += indices
        assert sorted(seen) == list(range(12))
    assert module().train_set.first_seed == TRAIN_SEED
    assert module(seed=1).train_set.first_seed >= TRAIN_SEED + 500_000
    assert VALIDATION_SEED + 50_000 < TEST_SEED < TRAIN_SEED - 50_000


def test_validation_is_the_same_every_time_and_not_augmented() -> None:
    one = list(module().val_dataloader())
    two = list(module(seed=3).val_dataloader())
    assert len(one) == 2
    assert all(same(a, b) for a, b in zip(one, two, strict=True))
    tested = list(module().test_dataloader())
    assert not same(one[0], tested[0])


def test_labels_are_classes_or_ignored_and_points_lie_in_range() -> None:
    (batch, *_) = module().val_dataloader()
    labels = batch.point_labels
    assert ((labels < len(CLASSES)) | (labels == 255)).all()
    assert len(labels) == len(batch.point_to_voxel) == sum(batch.points)
    centres = (batch.x.coords[:, 1:3] + 0.5) * 0.1
    assert centres.norm(dim=1).max() < 15.2
