"""Batches: rows, labels and voting."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from perception.datasets.collate import (
    IGNORE,
    SegmentationItem,
    collate_segmentation,
    voxel_labels,
)
from perception.datasets.encode import Encoder
from perception.io import PointCloud


def item(count: int, seed: int) -> SegmentationItem:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-2, 2, (count, 3)).astype(np.float32)
    labels = rng.choice([0, 1, 5, IGNORE], count).astype(np.uint8)
    encoded = Encoder(0.5, ["z", "offset"])(PointCloud(points))
    return SegmentationItem(encoded, labels, f"scan{seed}")


def test_each_scan_keeps_its_sites_rows_and_labels() -> None:
    items = [item(300, 0), item(1, 1), item(200, 2)]
    batch = collate_segmentation(items)
    assert batch.names == ("scan0", "scan1", "scan2")
    assert batch.points == (300, 1, 200)
    assert batch.x.batch_size == 3
    assert batch.labels.shape == (batch.x.num_sites,)
    start = 0
    for index, one in enumerate(items):
        rows = batch.point_to_voxel[start : start + len(one.labels)]
        coords = batch.x.coords[rows]
        assert (coords[:, 0] == index).all()
        mine = one.encoded.point_to_voxel
        assert torch.equal(coords[:, 1:], one.encoded.coords[mine, 1:])
        assert torch.equal(batch.x.features[rows], one.encoded.features[mine])
        labels = batch.point_labels[start : start + len(one.labels)]
        np.testing.assert_array_equal(labels.numpy(), one.labels)
        start += len(one.labels)


def test_a_site_takes_the_most_frequent_label_of_its_points() -> None:
    batch = collate_segmentation([item(300, 0), item(200, 1)])
    for row in range(batch.x.num_sites):
        votes = batch.point_labels[batch.point_to_voxel == row]
        votes = votes[votes != IGNORE]
        expected = IGNORE if len(votes) == 0 else int(torch.bincount(votes).argmax())
        assert batch.labels[row] == expected


def test_votes_ignore_unlabelled_points_and_ties_go_to_the_lower_class() -> None:
    labels = torch.tensor([3, 3, 2, 255, 255, 255, 7, 4, 255])
    rows = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 2])
    assert voxel_labels(labels, rows, 4).tolist() == [3, 4, 255, 255]
    assert voxel_labels(labels[:0], rows[:0], 2).tolist() == [255, 255]


def test_batches_survive_the_way_between_processes() -> None:
    batch = collate_segmentation([item(50, 0), item(60, 1)])
    again = pickle.loads(pickle.dumps(batch))
    assert torch.equal(again.x.features, batch.x.features)
    assert torch.equal(again.x.coords, batch.x.coords)
    assert torch.equal(again.labels, batch.labels)
    assert again.names == batch.names


def test_batches_move_to_a_device_as_a_whole() -> None:
    batch = collate_segmentation([item(50, 0)]).to("meta")
    tensors = (batch.x.features, batch.labels, batch.point_labels, batch.point_to_voxel)
    assert {t.device.type for t in tensors} == {"meta"}


def test_nothing_to_join_is_an_error() -> None:
    with pytest.raises(ValueError, match="no scans"):
        collate_segmentation([])
