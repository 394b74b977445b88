"""The data module: splits, seeds, workers, processes, and where a training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perception.datasets import transforms as tf
from perception.datasets.collate import SegmentationBatch
from perception.datasets.sample import Sample
from perception.datasets.sampling import (
    EpochSampler,
    ShareSampler,
    balanced_weights,
    class_counts,
)
from perception.datasets.segmentation import SegmentationData
from perception.datasets.street import CLASSES
from perception.datasets.street_scans import (
    TEST_SEED,
    TRAIN_SEED,
    VALIDATION_SEED,
    StreetScans,
)
from perception.io import PointCloud

AUGMENT = [tf.DropPoints(), tf.Flip(), tf.Rotate(), tf.Scale(), tf.Jitter()]


class Cubes:
    """A drive of small labelled clouds; scan i has class i modulo 3, and class 3 in the first only."""

    classes = ("a", "b", "c", "rare")
    colors = np.zeros((4, 3), np.uint8)
    box_classes: tuple[str, ...] = ()

    def __init__(self, count: int = 12) -> None:
        self.names: Sequence[str] = [f"cube{i}" for i in range(count)]
        self.sequences = [range(count)]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        points = rng.uniform(-2, 2, (60, 3)).astype(np.float32)
        labels = np.full(60, index % 3, np.uint8)
        if index == 0:
            labels[:5] = 3
        pose = np.eye(4)
        pose[0, 3] = index
        return Sample(
            PointCloud(points), labels, pose=pose, name=self.names[index], time=0.1 * index
        )


def module(count: int = 12, **options: Any) -> SegmentationData:
    settings: dict[str, Any] = {
        "voxel_size": 0.5,
        "features": ["z", "one"],
        "transforms": AUGMENT,
        "batch_size": 2,
        "num_workers": 0,
    }
    return SegmentationData(Cubes(count), Cubes(5), **{**settings, **options})


def same(one: SegmentationBatch, two: SegmentationBatch) -> bool:
    return (
        one.names == two.names
        and torch.equal(one.x.coords, two.x.coords)
        and torch.equal(one.x.features, two.x.features)
        and torch.equal(one.labels, two.labels)
        and torch.equal(one.point_labels, two.point_labels)
        and torch.equal(one.point_to_voxel, two.point_to_voxel)
    )


def test_batches_do_not_depend_on_the_number_of_workers() -> None:
    loaders = [module(num_workers=n).train_dataloader() for n in (0, 1, 2)]
    for epoch in range(2):
        for loader in loaders:
            loader.sampler.set_epoch(epoch)
        alone, *others = (list(loader) for loader in loaders)
        assert len(alone) == 6
        for beside in others:
            assert all(same(a, b) for a, b in zip(alone, beside, strict=True))


def test_tensors_of_workers_are_shared_and_not_copied() -> None:
    (batch, *_) = module(num_workers=1).train_dataloader()
    tensors = (batch.x.coords, batch.x.features, batch.labels, batch.point_labels)
    assert all(t.is_shared() for t in (*tensors, batch.point_to_voxel))
    assert batch.x.coords.dtype == torch.int32


def test_epochs_show_every_scan_once_and_in_another_way() -> None:
    loader = module().train_dataloader()
    seen = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        seen.append(list(loader))
    names = [[name for batch in epoch for name in batch.names] for epoch in seen]
    assert sorted(names[0]) == sorted(names[1]) == sorted(Cubes().names)
    assert names[0] != names[1]
    first = {name: batch for batch in seen[0] for name in batch.names[:1]}
    again = [batch for batch in seen[1] if batch.names[0] in first]
    assert not any(torch.equal(b.x.coords, first[b.names[0]].x.coords) for b in again)


def test_two_processes_see_the_batch_of_one() -> None:
    for weights in (None, np.arange(1, 14)):
        one = list(EpochSampler(13, seed=3, weights=weights))
        shares = [list(EpochSampler(13, 2, p, seed=3, weights=weights)) for p in range(2)]
        assert len(shares[0]) == len(shares[1]) == len(EpochSampler(13, 2, 0)) == 6
        together = [key for pair in zip(*shares, strict=True) for key in pair]
        assert together == one[:12]


def test_endless_epochs_never_repeat_and_shares_meet_nowhere() -> None:
    for processes in (1, 2, 3):
        seen = []
        for epoch in range(2):
            for process in range(processes):
                sampler = EpochSampler(6, processes, process, endless=True)
                sampler.set_epoch(epoch)
                indices = [index for _, index in sampler]
                assert len(indices) == len(sampler) == 6 // processes
                seen += indices
        assert sorted(seen) == list(range(12))


def test_evaluation_counts_every_scan_once() -> None:
    shares = [list(ShareSampler(5, 3, process)) for process in range(3)]
    assert sorted(i for share in shares for i in share) == list(range(5))
    assert [len(ShareSampler(5, 3, process)) for process in range(3)] == [2, 2, 1]
    one, two = (list(module(seed=s).val_dataloader()) for s in (0, 3))
    assert [batch.names for batch in one] == [(f"cube{i}",) for i in range(5)]
    assert all(same(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 4, 6])
def test_a_loader_goes_on_where_its_state_was_kept(taken: int, workers: int) -> None:
    straight = module().train_dataloader()
    expected = []
    for epoch in (3, 4):
        straight.sampler.set_epoch(epoch)
        expected += list(straight)
    stopped = module(num_workers=workers).train_dataloader()
    stopped.sampler.set_epoch(3)
    batches = iter(stopped)
    for _ in range(taken):
        next(batches)
    state = stopped.state_dict()

    resumed = module(num_workers=2 - workers).train_dataloader()
    resumed.load_state_dict(state)
    rest = list(resumed)
    if taken < 6:  # else the next epoch has begun
        resumed.sampler.set_epoch(4)
        rest += list(resumed)
    assert len(rest) == 12 - taken
    assert all(same(a, b) for a, b in zip(rest, expected[taken:], strict=True))
    assert resumed.state_dict() == {"epoch": 4, "samples": 12}


def test_a_state_goes_on_with_another_number_of_processes() -> None:
    loader = module(batch_size=4).train_dataloader()
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    rest = [name for batch in batches for name in batch.names]
    shares = []
    for process in range(2):
        data = module(batch_size=2)
        data._processes = lambda process=process: (2, process)  # type: ignore[assignment]
        half = data.train_dataloader()
        half.load_state_dict(state)
        shares.append([name for batch in half for name in batch.names])
    assert [name for pair in zip(*shares, strict=True) for name in pair] == rest
    other = module(batch_size=3).train_dataloader()
    with pytest.raises(ValueError, match="same batch_size times number of processes"):
        other.load_state_dict(state)


def test_classes_are_balanced_by_how_many_scans_show_them() -> None:
    counts = class_counts(Cubes())
    assert counts.shape == (12, 4)
    assert counts[0].tolist() == [55, 0, 0, 5]
    weights = balanced_weights(counts)
    np.testing.assert_allclose(weights.sum(), 1)
    # Class 3 is in scan 0 alone, which is also one of the four of class 0.
    np.testing.assert_allclose(weights[[0, 1, 3]], np.array([1 + 0.25, 0.25, 0.25]) / 4)
    drawn = np.zeros(12)
    for epoch in range(200):
        sampler = EpochSampler(12, weights=weights)
        sampler.set_epoch(epoch)
        times = np.bincount([index for _, index in sampler], minlength=12)
        assert (np.abs(times - 12 * weights) < 1).all()  # rounded up or down
        drawn += times
    np.testing.assert_allclose(drawn / 200, 12 * weights, atol=0.15)
    data = module(balance=True)
    data.setup("fit")
    assert sum("cube0" in b.names for b in data.train_dataloader()) >= 2
    with pytest.raises(ValueError, match="no end"):
        class_counts(StreetScans())
    with pytest.raises(ValueError, match="without end"):
        EpochSampler(3, weights=np.ones(3), endless=True)


def test_several_frames_become_one_sample_in_space_and_time() -> None:
    data = module(frames=3, time="frame", transforms=[])
    (batch, *_) = data.train_dataloader()
    assert batch.x.dim == 4
    assert batch.points == (180, 180)
    assert batch.point_frames is not None
    assert batch.point_frames.tolist() == [*[0] * 60, *[1] * 60, *[2] * 60] * 2
    times = batch.x.coords[batch.point_to_voxel, 4]
    assert torch.equal(times, batch.point_frames.int())
    assert len(data.train_scans) == 10  # complete ones
    first, *_ = data.val_dataloader()
    assert first.points == (60,)  # in evaluation every scan counts
    assert set(first.x.coords[:, 4].tolist()) == {2}
    flat = module(frames=3, features=["age", "z"], transforms=[])
    (batch, *_) = flat.train_dataloader()
    assert batch.x.dim == 3
    ages = batch.x.features[:, 0]
    assert 0 <= ages.min() < ages.max() <= 0.2 + 1e-6


def test_streets_of_the_splits_do_not_meet() -> None:
    train, val, test = (StreetScans(s, streets=2) for s in ("train", "val", "test"))  # type: ignore[arg-type]
    assert (train.first_seed, val.first_seed, test.first_seed) == (
        TRAIN_SEED,
        VALIDATION_SEED,
        TEST_SEED,
    )
    assert StreetScans(seed=1).first_seed >= TRAIN_SEED + 500_000
    assert VALIDATION_SEED + 50_000 < TEST_SEED < TRAIN_SEED - 50_000
    assert val[1].name == val.names[1]
    with pytest.raises(IndexError):
        val[2]


def test_several_views_of_a_street_are_the_same_scan_with_others_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perception.datasets.street_scans.BETWEEN_VIEWS", 2)
    scans = StreetScans("train", streets=12, views=3, folder=tmp_path)
    numbers = [scans.street_of(index) for index in range(36)]
    assert [number for number, view in numbers if view == 0] == list(range(12))
    for street in range(8):  # the last ones have views to come
        shown = [index for index, (number, _) in enumerate(numbers) if number == street]
        assert np.diff(shown).tolist() == [7, 7]
    once = [number for number, _ in numbers if number < 0]
    assert len(once) == len(set(once)) == 2 + 4
    made = scans[18]  # new
    (file,) = tmp_path.iterdir()
    kept = scans[25]
    again = StreetScans("train", streets=12)[6]
    for other in (made, kept):
        assert np.array_equal(other.cloud.points, again.cloud.points)
        assert other.cloud.attributes.keys() == again.cloud.attributes.keys()
        for name, values in again.cloud.attributes.items():
            assert np.array_equal(other.cloud.attributes[name], values)
        for name in ("labels", "instances", "pose"):
            assert np.array_equal(getattr(other, name), getattr(again, name))
        assert other.boxes is not None
        assert again.boxes is not None
        assert np.array_equal(other.boxes.boxes, again.boxes.boxes)
        assert (other.name, other.time, other.cloud.time) == (again.name, 0.0, 0.0)
    file.write_bytes(file.read_bytes()[:1000])
    assert np.array_equal(scans[32].labels, again.labels)  # the last view: damaged, made again
    assert not any(tmp_path.iterdir())  # nothing stays behind
    for bad in ({"split": "val"}, {"frames": 2}, {"views": 0}):
        with pytest.raises(ValueError, match="views"):
            StreetScans(**({"split": "train", "views": 2} | bad))  # type: ignore[arg-type]


def test_a_drive_through_a_street_is_a_sequence() -> None:
    drives = StreetScans("train", streets=2, frames=2)
    assert drives.sequences == [range(0, 2), range(2, 4)]
    assert [s.name for s in (drives[2], drives[3], drives[4])] == [
        "street_1000001_000000",
        "street_1000001_000001",
        "street_1000002_000000",
    ]


def test_the_street_gives_labelled_points_in_range() -> None:
    data = SegmentationData(
        StreetScans(streets=2),
        StreetScans("val", streets=1),
        eval_transforms=[tf.Crop(max_range=15.0)],
        num_workers=0,
    )
    (batch,) = data.val_dataloader()
    assert ((batch.point_labels < len(CLASSES)) | (batch.point_labels == 255)).all()
    assert len(batch.point_labels) == len(batch.point_to_voxel) == sum(batch.points)
    centres = (batch.x.coords[:, 1:3] + 0.5) * 0.1
    assert centres.norm(dim=1).max() < 15.2
    assert data.classes == CLASSES
