"""Losses that torch does not have."""

from __future__ import annotations

import torch


def lovasz_softmax(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Lovász-Softmax: the convex surrogate of 1 - IoU, averaged over the classes that occur.

    Source: Berman, Triki, Blaschko, "The Lovász-Softmax loss" (CVPR 2018), algorithm 1.

    Args:
        probabilities: `[N, C]`, rows sum to one.
        labels: `[N] int64`, 0..C-1, without ignored rows.

    Returns:
        A scalar, 0 for perfect probabilities; 0 where N is 0.
    """
    losses = []
    for index in labels.unique():
        truth = (labels == index).to(probabilities.dtype)
        errors, order = (truth - probabilities[:, index]).abs().sort(descending=True)
        truth = truth[order]
        total = truth.sum()
        jaccard = 1.0 - (total - truth.cumsum(0)) / (total + (1.0 - truth).cumsum(0))
        gradient = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
        losses.append(errors @ gradient)
    return torch.stack(losses).mean() if losses else probabilities.sum() * 0.0
