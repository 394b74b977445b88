"""Losses of semantic segmentation: cross-entropy, focal, Lovász-Softmax, and weights of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import distributed, nn
from torch.nn import functional

__all__ = ["Balance", "SegmentationLoss", "class_weights", "lovasz_softmax"]

Balance = Literal["inverse", "sqrt", "effective"]
"""How weights of classes come from their frequency, see `class_weights`."""

EFFECTIVE_BETA = 0.9999
"""Cui et al. 2019 try 0.9, 0.99, 0.999 and 0.9999; data sets have ten thousands of scans."""


class SegmentationLoss(nn.Module):
    """Cross-entropy or focal loss, plus Lovász-Softmax.

    The first is the mean over the labelled sites of a batch (over their weights, where classes have
    weights, as `torch.nn.CrossEntropyLoss`); Lovász-Softmax is taken scan by scan ("per image" in its
    paper) and averaged over the scans with labels. Both are then the same for several processes that
    share a batch as for one that has it all, see `forward`.

    Args:
        num_classes: classes C.
        ignore_index: label of the sites that do not count.
        label_smoothing: share of the target spread over all classes in the cross-entropy.
        focal: exponent γ of the focal loss `(1 - p)^γ · -log p` of the probability p of the label, which
            turns the eye to what is not yet learned (Lin et al., "Focal Loss for Dense Object
            Detection", ICCV 2017); 0 is the cross-entropy.
        lovasz: weight of the Lovász-Softmax loss; 0 leaves it out.
        weights: `[C]`, weights of the classes in the cross-entropy or focal loss (its α); None: all 1.

    Raises:
        ValueError: numbers out of range; smoothing of a focal loss; not one weight a class.
    """

    weights: torch.Tensor | None

    def __init__(
        self,
        num_classes: int,
        *,
        ignore_index: int = 255,
        label_smoothing: float = 0.0,
        focal: float = 0.0,
        lovasz: float = 0.0,
        weights: ArrayLike | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing < 1.0 or focal < 0.0 or lovasz < 0.0:
            raise ValueError(
                f"SegmentationLoss: label_smoothing={label_smoothing} must be 0 or more and below 1, "
                f"focal={focal} and lovasz={lovasz} not negative"
            )
        if focal and label_smoothing:
            raise ValueError(
                "SegmentationLoss: the focal loss has no smooth labels; set focal or label_smoothing to 0"
            )
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing
        self.focal, self.lovasz = focal, lovasz
        values = None if weights is None else torch.as_tensor(np.asarray(weights, np.float32))
        if values is not None and (
            values.shape != (num_classes,) or not bool((values >= 0).all() and values.any())
        ):
            raise ValueError(
                f"SegmentationLoss: class weights {values.tolist()}; give {num_classes} numbers, none "
                "negative and not all 0"
            )
        self.register_buffer("weights", values)

    def forward(
        self,
        scores: torch.Tensor,
        labels: torch.Tensor,
        sites: Sequence[int],
        *,
        shared: bool = False,
    ) -> torch.Tensor:
        """The loss of a batch; 0 where nothing is labelled.

        Args:
            scores: `[N, C]`, any float type; computed in float32 at least.
            labels: `[N] int64`, 0..C-1 or ignore_index.
            sites: rows of each scan, which stand one after the other; they sum to N.
            shared: the batch is this process's part of one that all processes of the default group
                share. The result is then scaled so that the mean over the processes, of values as of
                gradients (which `DistributedDataParallel` takes), is that of the whole batch. All
                processes must call it.
        """
        scores = scores if scores.dtype == torch.float64 else scores.float()
        total, weight = self._pointwise(scores, labels)
        lovasz, scans = scores.new_zeros(()), scores.new_zeros(())
        if self.lovasz:
            parts = scores.softmax(1).split(list(sites)), labels.split(list(sites))
            for probabilities, truth in zip(*parts, strict=True):
                lovasz = lovasz + lovasz_softmax(
                    probabilities, truth, ignore_index=self.ignore_index
                )
                scans = scans + (truth != self.ignore_index).any()
        counts = torch.stack([weight, scans])
        processes = 1
        if shared and distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(counts)
            processes = distributed.get_world_size()
        # Where a count is 0, so is what it divides.
        counts = torch.where(counts > 0, counts, 1.0)
        return processes * (total / counts[0] + self.lovasz * lovasz / counts[1])

    def _pointwise(
        self, scores: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the cross-entropy or focal loss, and the weight of the labelled rows."""
        valid = labels != self.ignore_index
        safe = torch.where(valid, labels, 0)
        weights = None if self.weights is None else self.weights.to(scores.dtype)
        each = valid.to(scores.dtype) if weights is None else weights[safe] * valid
        if not self.focal:
            total = functional.cross_entropy(
                scores,
                labels,
                weights,
                ignore_index=self.ignore_index,
                reduction="sum",
                label_smoothing=self.label_smoothing,
            )
            return total, each.sum()
        log_p = scores.log_softmax(1).gather(1, safe[:, None])[:, 0]
        # At p = 1 the derivative of a power below 1 is infinite; a rounding away from it, none is.
        missing = (-torch.expm1(log_p)).clamp_min(torch.finfo(scores.dtype).eps)
        return (each * missing**self.focal * -log_p).sum(), each.sum()


def lovasz_softmax(
    probabilities: torch.Tensor, labels: torch.Tensor, *, ignore_index: int = 255
) -> torch.Tensor:
    """Lovász-Softmax: the convex surrogate of 1 - IoU, averaged over the classes that occur.

    Source: Berman, Triki, Blaschko, "The Lovász-Softmax loss" (CVPR 2018), algorithm 1.

    Args:
        probabilities: `[N, C]`, rows sum to one.
        labels: `[N] int64`, 0..C-1 or ignore_index.
        ignore_index: label of the rows that do not count.

    Returns:
        A scalar, 0 for perfect probabilities; 0 where nothing is labelled.
    """
    classes = torch.arange(probabilities.shape[1], device=labels.device)
    truth = labels == classes[:, None]
    # Errors of 0 come last and weigh nothing: so do rows that do not count.
    errors = (truth.to(probabilities.dtype) - probabilities.t()).abs()
    errors = errors.masked_fill(labels == ignore_index, 0.0)
    with torch.no_grad():
        order = errors.argsort(dim=1, descending=True)
        hits = truth.gather(1, order).cumsum(1, dtype=torch.int32)
        total = hits[:, -1:] if len(labels) else hits.new_zeros(len(classes), 1)
        rank = torch.arange(1, len(labels) + 1, device=labels.device, dtype=torch.int32)
        union = total + rank - hits
        jaccard = 1.0 - (total - hits).to(errors.dtype) / union
        steps = jaccard.diff(dim=1, prepend=jaccard.new_zeros(len(classes), 1))
        slope = torch.empty_like(steps).scatter_(1, order, steps)
        present = total[:, 0] > 0
    each = (errors * slope).sum(1)
    return torch.where(present, each, 0.0).sum() / present.sum().clamp_min(1)


def class_weights(counts: ArrayLike, balance: Balance) -> NDArray[np.float32]:
    """Weights of classes by how frequent they are, with mean 1 over the classes that occur.

    Args:
        counts: `[scans, C]`, points of each class in each scan.
        balance: `"inverse"`: 1 / points; `"sqrt"`: 1 / √points; `"effective"`: one over the effective
            number (1 - βⁿ) / (1 - β) of the n scans that the class occurs in, β = 0.9999 (Cui et al.,
            "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019; scans, because the
            points of a scan resemble each other, which is what the number is about).

    Returns:
        `[C]`; 0 for classes that do not occur.

    Raises:
        ValueError: no class occurs, or there is no such balance.
    """
    table = np.asarray(counts)
    points, scans = table.sum(axis=0, dtype=np.float64), (table > 0).sum(axis=0)
    there = points > 0
    if not there.any() or balance not in get_args(Balance):
        raise ValueError(
            f"class_weights: balance={balance!r} must be one of {', '.join(get_args(Balance))}, and "
            "some class must occur"
        )
    if balance == "effective":
        number = (1.0 - EFFECTIVE_BETA ** scans[there]) / (1.0 - EFFECTIVE_BETA)
    else:
        number = points[there] if balance == "inverse" else np.sqrt(points[there])
    weights = np.zeros(len(points), np.float32)
    weights[there] = 1.0 / number / np.mean(1.0 / number)
    return weights
