"""IoU against torchmetrics' own and a worked example."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from perception.metrics import SegmentationIoU, label_iou


def test_worked_example() -> None:
    metric = SegmentationIoU(4, ignore_index=255)
    metric.update(torch.tensor([0, 0, 1, 1, 3]), torch.tensor([0, 1, 1, 255, 0]))
    result = metric.result()
    # class 0: hit 1, missed 1, false 1; class 1: hit 1, missed 1; class 2 absent; class 3 false.
    torch.testing.assert_close(result.per_class[:2], torch.tensor([1 / 3, 1 / 2]))
    assert result.per_class[2].isnan()
    assert result.per_class[3] == 0
    assert result.mean.item() == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)
    assert result.support.tolist() == [2, 2, 0, 0]


def test_agrees_with_torchmetrics_over_several_updates() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = SegmentationIoU(5, ignore_index=255)
    theirs = MulticlassJaccardIndex(5, average="none", ignore_index=255)
    for _ in range(3):
        labels = torch.randint(0, 5, (200,), generator=generator)
        labels[::7] = 255
        guess = torch.randint(0, 5, (200,), generator=generator)
        ours.update(guess, labels)
        theirs.update(guess, labels)
    torch.testing.assert_close(ours.result().per_class, theirs.compute())


def test_nothing_counted_is_nan_and_the_table_still_prints() -> None:
    metric = SegmentationIoU(2)
    metric.update(torch.tensor([0]), torch.tensor([255]))
    result = metric.result()
    assert result.mean.isnan()
    assert "road" in result.table(["road", "car"])


def test_table_shows_percent_and_points() -> None:
    metric = SegmentationIoU(3)
    metric.update(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    lines = metric.result().table(["road", "car", "pole"]).splitlines()
    assert lines[1].split() == ["road", "50.0", "1"]
    assert lines[2].split() == ["car", "50.0", "2"]
    assert lines[3].split() == ["pole", "-", "0"]
    assert lines[4].split() == ["mean", "50.0"]


def test_arrays_are_scored_as_tensors_are() -> None:
    predicted, labels = np.array([0, 0, 1, 1, 3], np.uint8), np.array([0, 1, 1, 255, 0], np.uint8)
    result = label_iou(predicted, labels, 4)
    metric = SegmentationIoU(4)
    metric.update(torch.from_numpy(predicted).long(), torch.from_numpy(labels).long())
    torch.testing.assert_close(result.per_class, metric.result().per_class, equal_nan=True)
    with pytest.raises(ValueError, match="one number a point"):
        label_iou(predicted, labels[:3], 4)
