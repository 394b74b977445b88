"""Intersection over union for semantic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
