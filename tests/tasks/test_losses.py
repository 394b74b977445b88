"""The Lovász-Softmax loss against its definition."""

from __future__ import annotations

import torch

from perception.tasks.losses import lovasz_softmax


def test_hard_predictions_cost_one_minus_their_mean_iou() -> None:
    # On 0/1 probabilities the Lovász extension is the set function itself: 1 - IoU.
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (500,), generator=generator)
    guess = torch.where(
        torch.rand(500, generator=generator) < 0.3,
        torch.randint(0, 4, (500,), generator=generator),
        labels,
    )
    loss = lovasz_softmax(torch.nn.functional.one_hot(guess, 4).double(), labels)
    ious = []
    for c in range(4):
        both = ((labels == c) & (guess == c)).sum()
        either = ((labels == c) | (guess == c)).sum()
        ious.append(both / either)
    torch.testing.assert_close(loss, 1 - torch.stack(ious).double().mean(), atol=1e-6, rtol=0)


def test_perfect_predictions_cost_nothing_and_absent_classes_do_not_count() -> None:
    labels = torch.tensor([0, 2, 2, 0])
    perfect = torch.nn.functional.one_hot(labels, 6).float()
    assert lovasz_softmax(perfect, labels) == 0


def test_gradient_matches_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(12, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (12,), generator=generator)
    torch.autograd.gradcheck(lambda s: lovasz_softmax(s.softmax(1), labels), scores)


def test_nothing_labelled_costs_nothing() -> None:
    empty = torch.zeros(0, 3, requires_grad=True)
    loss = lovasz_softmax(empty, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss == 0
