"""The losses of segmentation against naive implementations of their papers, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from perception.tasks.losses import SegmentationLoss, class_weights, lovasz_softmax

C = 4


def problem(
    rows: int = 60, ignored: int = 9, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    scores = 2 * torch.randn(rows, C, generator=generator, dtype=dtype)
    labels = torch.randint(0, C, (rows,), generator=generator)
    labels[torch.randperm(rows, generator=generator)[:ignored]] = 255
    return scores, labels


def naive_lovasz(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Algorithm 1 of Berman et al. in words of one row at a time: the classes that occur, averaged."""
    probabilities, labels = probabilities[labels != 255], labels[labels != 255]
    losses = []
    for c in sorted(set(labels.tolist())):
        errors = [1 - p if l == c else p for p, l in zip(probabilities[:, c], labels, strict=True)]
        ranking = sorted(range(len(errors)), key=lambda i: -errors[i])
        mispredicted: set[int] = set()
        before, loss = 0.0, 0.0
        truth = {i for i in range(len(labels)) if labels[i] == c}
        for i in ranking:
            mispredicted.add(i)
            # Jaccard loss of predicting all but `mispredicted` right.
            after = len(mispredicted) / len(truth | mispredicted)
            loss += errors[i] * (after - before)
            before = after
        losses.append(loss)
    return sum(losses) / len(losses) if losses else 0.0


def naive_pointwise(
    scores: np.ndarray, labels: np.ndarray, weights: list[float], focal: float, smoothing: float
) -> float:
    """Weighted mean over the labelled rows of the focal loss, or of the smoothed cross-entropy."""
    total = weight = 0.0
    for row, label in zip(scores, labels.tolist(), strict=True):
        if label == 255:
            continue
        normalizer = math.log(sum(math.exp(v) for v in row))
        log_p = [v - normalizer for v in row]
        target = [smoothing / C + (1 - smoothing) * (c == label) for c in range(C)]
        for c in range(C):
            total += -target[c] * weights[c] * (1 - math.exp(log_p[c])) ** focal * log_p[c]
        weight += weights[label]
    return total / weight


def test_lovasz_is_the_papers_algorithm() -> None:
    for rows in (1, 7, 60):
        scores, labels = problem(rows, rows // 5)
        probabilities = scores.softmax(1)
        wanted = naive_lovasz(probabilities.numpy(), labels.numpy())
        assert float(lovasz_softmax(probabilities, labels)) == pytest.approx(wanted, abs=1e-12)


def test_hard_predictions_cost_one_minus_their_mean_iou() -> None:
    # On 0/1 probabilities the Lovász extension is the set function itself: 1 - IoU.
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (500,), generator=generator)
    guess = torch.where(
        torch.rand(500, generator=generator) < 0.3,
        torch.randint(0, 4, (500,), generator=generator),
        labels,
    )
    loss = lovasz_softmax(functional.one_hot(guess, 4).double(), labels)
    ious = []
    for c in range(4):
        both = ((labels == c) & (guess == c)).sum()
        either = ((labels == c) | (guess == c)).sum()
        ious.append(both / either)
    torch.testing.assert_close(loss, 1 - torch.stack(ious).double().mean(), atol=1e-6, rtol=0)


def test_perfect_predictions_cost_nothing_and_absent_classes_do_not_count() -> None:
    labels = torch.tensor([0, 2, 2, 0])
    perfect = functional.one_hot(labels, 6).float()
    assert lovasz_softmax(perfect, labels) == 0


def test_gradients_match_differences() -> None:
    scores, labels = problem(12, 2)
    scores.requires_grad_()
    torch.autograd.gradcheck(lambda s: lovasz_softmax(s.softmax(1), labels), scores)
    focal = SegmentationLoss(C, focal=2.0, lovasz=0.5, weights=[1.0, 2.0, 0.5, 3.0])
    torch.autograd.gradcheck(lambda s: focal(s, labels, [5, 7]), scores)


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.25, 3.0]])
@pytest.mark.parametrize(("focal", "smoothing"), [(0.0, 0.0), (0.0, 0.2), (2.0, 0.0), (0.5, 0.0)])
def test_cross_entropy_and_focal_loss_are_their_definitions(
    weights: list[float] | None, focal: float, smoothing: float
) -> None:
    scores, labels = problem()
    loss = SegmentationLoss(C, focal=focal, label_smoothing=smoothing, weights=weights)
    wanted = naive_pointwise(scores.numpy(), labels.numpy(), weights or [1.0] * C, focal, smoothing)
    # (The paper has no smooth targets; the terms of other classes vanish without smoothing.)
    assert float(loss(scores, labels, [60])) == pytest.approx(wanted, rel=1e-9)


def test_weights_and_smoothing_are_those_of_torch() -> None:
    scores, labels = problem()
    weights = torch.tensor([1.0, 2.0, 0.25, 3.0], dtype=torch.float64)
    loss = SegmentationLoss(C, label_smoothing=0.1, weights=weights.tolist())
    wanted = functional.cross_entropy(
        scores, labels, weights, ignore_index=255, label_smoothing=0.1
    )
    torch.testing.assert_close(loss(scores, labels, [60]), wanted)


def test_a_certain_site_has_a_finite_gradient() -> None:
    scores = torch.tensor([[200.0, 0.0, 0.0, 0.0]], requires_grad=True)
    for focal in (0.5, 1.0, 2.0):
        SegmentationLoss(C, focal=focal)(scores, torch.tensor([0]), [1]).backward()
        assert scores.grad is not None
        assert scores.grad.isfinite().all()


def test_lovasz_counts_scan_by_scan_and_leaves_out_those_without_labels() -> None:
    scores, labels = problem(60, 9)
    labels[40:50] = 255
    loss = SegmentationLoss(C, lovasz=2.0)
    probabilities = scores.softmax(1).numpy()
    scans = [slice(0, 25), slice(25, 40), slice(50, 60)]
    lovasz = np.mean([naive_lovasz(probabilities[s], labels[s].numpy()) for s in scans])
    entropy = naive_pointwise(scores.numpy(), labels.numpy(), [1.0] * C, 0.0, 0.0)
    wanted = entropy + 2 * float(lovasz)
    assert float(loss(scores, labels, [25, 15, 10, 10])) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("focal", [0.0, 2.0])
def test_nothing_labelled_costs_nothing(focal: float) -> None:
    loss = SegmentationLoss(C, focal=focal, lovasz=1.0)
    for rows in (0, 5):
        scores = torch.zeros(rows, C, requires_grad=True)
        value = loss(scores, torch.full((rows,), 255), [rows])
        value.backward()
        assert value == 0
        assert scores.grad is not None
        assert not scores.grad.any()


def test_weights_by_frequency_are_their_closed_forms() -> None:
    # Class 0 in three scans, class 1 in one, class 2 nowhere.
    counts = np.array([[4, 0, 0], [8, 1, 0], [4, 0, 0]])
    for balance, number in (
        ("inverse", [16, 1]),
        ("sqrt", [4, 1]),
        ("effective", [1 + 0.9999 + 0.9999**2, 1]),  # the geometric series that the paper sums
    ):
        weights = class_weights(counts, balance)  # type: ignore[arg-type]
        assert weights[0] / weights[1] == pytest.approx(number[1] / number[0], rel=1e-6)
        assert weights[:2].mean() == pytest.approx(1.0)
        assert weights[2] == 0
    with pytest.raises(ValueError, match="inverse, sqrt, effective"):
        class_weights(counts, "often")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="some class must occur"):
        class_weights(np.zeros((2, 3)), "sqrt")


@pytest.mark.parametrize(
    "options",
    [
        {"focal": -1.0},
        {"label_smoothing": 1.0},
        {"focal": 2.0, "label_smoothing": 0.1},
        {"weights": [1.0, 2.0]},
        {"weights": [0.0] * C},
        {"weights": [1.0, 1.0, -1.0, 1.0]},
    ],
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="SegmentationLoss"):
        SegmentationLoss(C, **options)
