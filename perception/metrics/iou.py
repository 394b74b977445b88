"""Intersection over union for semantic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchmetrics.classification import MulticlassConfusionMatrix


@dataclass(frozen=True)
class IoU:
    """Result of `SegmentationIoU`.

    mean: scalar tensor, the mean over the classes that occur; NaN where none does.
    per_class: `[num_classes]`, NaN for classes that neither labels nor predictions contain.
    support: `[num_classes] int64`, labelled elements of each class.
    """

    mean: torch.Tensor
    per_class: torch.Tensor
    support: torch.Tensor

    def table(self, names: Sequence[str]) -> str:
        """One line a class: name, IoU in percent, labelled elements."""
        wide = max(len(name) for name in (*names, "mean"))
        lines = [f"{'class':<{wide}}   IoU %     points"]
        for name, value, count in zip(
            names, self.per_class.tolist(), self.support.tolist(), strict=True
        ):
            shown = "      -" if value != value else f"{100 * value:7.1f}"
            lines.append(f"{name:<{wide}} {shown} {count:10d}")
        lines.append(f"{'mean':<{wide}} {100 * float(self.mean):7.1f}")
        return "\n".join(lines)


def label_iou(
    predicted: np.ndarray, labels: np.ndarray, num_classes: int, *, ignore_index: int = 255
) -> IoU:
    """IoU of predicted labels on labelled points, for arrays as files and pipelines give them.

    >>> import numpy as np
    >>> result = label_iou(np.array([0, 1, 1]), np.array([0, 1, 255]), num_classes=2)
    >>> result.per_class.tolist()
    [1.0, 1.0]

    To score a network on a labelled scan whose classes are finer than the network's, map the
    labels first: ``labels = table[raw]`` with ignore_index where no class corresponds.

    Args:
        predicted: `[N]` class numbers.
        labels: `[N]` class numbers or ignore_index, of the same points.
        num_classes: classes C.
        ignore_index: label of the points that are not counted.

    Raises:
        ValueError: the arrays do not have the same length.
    """
    if predicted.shape != labels.shape or predicted.ndim != 1:
        raise ValueError(
            f"label_iou: predicted has shape {list(predicted.shape)} and labels "
            f"{list(labels.shape)}; give one number a point in both"
        )
    metric = SegmentationIoU(num_classes, ignore_index)
    metric.update(
        torch.from_numpy(predicted.astype(np.int64)), torch.from_numpy(labels.astype(np.int64))
    )
    return metric.result()


class SegmentationIoU(MulticlassConfusionMatrix):
    """IoU = TP / (TP + FP + FN) per class over everything seen, and its mean over present classes.

    A class is present when a label or a prediction has it. (The mean over 19 classes of
    SemanticKITTI counts absent ones as zero; on single scans that says nothing about the network.)

    Args:
        num_classes: classes C.
        ignore_index: label whose elements are not counted.
    """

    def __init__(self, num_classes: int, ignore_index: int | None = 255) -> None:
        super().__init__(num_classes, ignore_index=ignore_index, validate_args=False)

    def result(self) -> IoU:
        """IoU of everything since the last reset, over all processes."""
        matrix = self.compute()  # rows are labels, columns predictions
        hits = matrix.diagonal()
        total = matrix.sum(0) + matrix.sum(1) - hits
        per_class = torch.where(total > 0, hits / total, torch.nan)
        return IoU(per_class.nanmean(), per_class, matrix.sum(1))
