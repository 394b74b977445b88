"""IoU against torchmetrics, the public tools of two benchmarks and a worked example."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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
    torch.testing.assert_close(result.per_class[:2], torch.tensor([1 / 3, 1 / 2]).double())
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
    torch.testing.assert_close(ours.result().per_class.float(), theirs.compute())


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


def trial(seed: int, classes: int, absent: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and guesses in 1..classes with 0 for no label; some classes nowhere, one only guessed."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes - absent, 4000)
    guess = np.where(rng.random(4000) < 0.3, rng.integers(1, classes - absent + 1, 4000), labels)
    return labels, np.maximum(guess, 1)


def ours(number: np.ndarray) -> np.ndarray:
    """The benchmarks count from 1 and have 0 for what is ignored; here it is 255."""
    return (number - 1).astype(np.uint8)


def semantic_kitti(labels: np.ndarray, guess: np.ndarray, classes: int) -> tuple[float, np.ndarray]:
    """What semantic-kitti-api's evaluation does: class 0 is ignored, every other one is averaged."""
    table = np.zeros((classes + 1, classes + 1))
    np.add.at(table, (guess, labels), 1)  # rows are predictions
    table[:, 0] = 0  # points without label; guesses of class 0 elsewhere stay misses
    hits = np.diag(table)
    iou = (hits / (table.sum(0) + table.sum(1) - hits + 1e-15))[1:]
    return float(iou.mean()), iou


@pytest.mark.parametrize("absent", [0, 5])
def test_mean_over_all_classes_is_that_of_semantic_kitti(absent: int) -> None:
    labels, guess = trial(absent, 19, absent)
    guess[:100] = 0  # no class
    mean, per_class = semantic_kitti(labels, guess, 19)
    result = label_iou(ours(guess), ours(labels), 19, mean="all")
    assert float(result.mean) == pytest.approx(mean, abs=1e-12)
    np.testing.assert_allclose(result.per_class.nan_to_num().numpy(), per_class, atol=1e-12)
    if absent:  # and differs from the mean over what occurs
        assert float(label_iou(ours(guess), ours(labels), 19).mean) > mean * 1.2


DEVKIT = """
import json, sys
import numpy as np
from nuscenes.eval.lidarseg.utils import ConfusionMatrix

matrix = ConfusionMatrix(num_classes=17, ignore_idx=0)
trials = np.load(sys.argv[1])
for labels, guess in zip(trials["labels"], trials["guess"]):
    matrix.update(labels, guess)
print(json.dumps([matrix.get_mean_iou(), matrix.get_per_class_iou().tolist()]))
"""


@pytest.mark.parametrize("absent", [0, 5])
def test_mean_over_present_classes_is_that_of_the_nuscenes_devkit(
    tmp_path: Path, absent: int
) -> None:
    python = os.environ.get("PERCEPTION_NUSCENES_PYTHON", sys.executable)
    has = subprocess.run([python, "-c", "import nuscenes"], capture_output=True)
    if has.returncode:
        pytest.skip(f"{python} has no nuscenes-devkit; name one in PERCEPTION_NUSCENES_PYTHON")
    trials = [trial(seed, 16, absent) for seed in (1, 2)]
    labels, guess = (np.stack([one[i] for one in trials]) for i in (0, 1))
    np.savez(tmp_path / "trials.npz", labels=labels, guess=guess)
    answer = subprocess.run(
        [python, "-c", DEVKIT, str(tmp_path / "trials.npz")],
        capture_output=True,
        text=True,
        check=True,
    )
    mean, per_class = json.loads(answer.stdout)
    metric = SegmentationIoU(16)
    for one in zip(guess, labels, strict=True):
        metric.update(*(torch.from_numpy(ours(values).astype(np.int64)) for values in one))
    result = metric.result()
    assert float(result.mean) == pytest.approx(mean, abs=1e-12)
    np.testing.assert_allclose(result.per_class.numpy(), per_class[1:], atol=1e-12)


def test_the_devkit_formula_holds_without_it() -> None:
    labels, guess = trial(3, 16, 5)
    table = np.zeros((17, 17))
    np.add.at(table, (labels, guess), 1)
    table[0] = table[:, 0] = 0
    with np.errstate(invalid="ignore"):
        iou = (np.diag(table) / (table.sum(0) + table.sum(1) - np.diag(table)))[1:]
    assert float(label_iou(ours(guess), ours(labels), 16).mean) == pytest.approx(np.nanmean(iou))


def test_a_class_that_is_only_guessed_counts_in_both_means() -> None:
    guess, labels = np.array([0, 2]), np.array([0, 0])
    assert float(label_iou(guess, labels, 4).mean) == pytest.approx(0.25)
    assert float(label_iou(guess, labels, 4, mean="all").mean) == pytest.approx(0.125)


def test_no_such_mean() -> None:
    with pytest.raises(ValueError, match="present or all"):
        SegmentationIoU(3, mean="some")  # type: ignore[arg-type]


def test_goes_on_from_earlier_counts() -> None:
    whole, first, second = (SegmentationIoU(3) for _ in range(3))
    guess, labels = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 255])
    whole.update(guess, labels)
    first.update(guess[:2], labels[:2])
    second.restore(first.compute())
    second.update(guess[2:], labels[2:])
    assert torch.equal(whole.compute(), second.compute())
