"""Intersection over union for semantic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torchmetrics import Metric

Mean = Literal["present", "all"]
"""Over which classes the mean IoU runs, see `SegmentationIoU`."""


@dataclass(frozen=True)
class IoU:
    """Result of `SegmentationIoU`.

    mean: scalar float64, the mean over the classes; NaN where none occurs.
    per_class: `[num_classes] float64`, NaN for classes that neither labels nor predictions contain.
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
    predicted: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    ignore_index: int = 255,
    mean: Mean = "present",
) -> IoU:
    """IoU of predicted labels on labelled points, for arrays as files and pipelines give them.

    >>> import numpy as np
    >>> result = label_iou(np.array([0, 1, 1]), np.array([0, 1, 255]), num_classes=2)
    >>> result.per_class.tolist()
    [1.0, 1.0]

    To score a network on a labelled scan whose classes are finer than the network's, map the
    labels first: ``labels = table[raw]`` with ignore_index where no class corresponds.

    Args:
        predicted: `[N]` class numbers; any other number is no class.
        labels: `[N]` class numbers or ignore_index, of the same points.
        num_classes: classes C.
        ignore_index: label of the points that are not counted.
        mean: over which classes, see `SegmentationIoU`.

    Raises:
        ValueError: the arrays do not have the same length.
    """
    if predicted.shape != labels.shape or predicted.ndim != 1:
        raise ValueError(
            f"label_iou: predicted has shape {list(predicted.shape)} and labels "
            f"{list(labels.shape)}; give one number a point in both"
        )
    metric = SegmentationIoU(num_classes, ignore_index, mean)
    metric.update(
        torch.from_numpy(predicted.astype(np.int64)), torch.from_numpy(labels.astype(np.int64))
    )
    return metric.result()


class SegmentationIoU(Metric):
    """IoU = TP / (TP + FP + FN) per class over everything seen, and its mean.

    Elements whose label is ignored do not count, whatever is predicted for them. A prediction that is
    no class misses the label and is no one's false positive.

    The public tools differ in the classes that occur neither in labels nor in predictions:

    - `"present"` leaves them out, as the nuScenes devkit does (lidarseg: `numpy.nanmean`);
    - `"all"` counts them as 0, as semantic-kitti-api does. On a whole validation set the two agree; of a
      single scan, where most classes may be absent, "all" says little about a network.

    Args:
        num_classes: classes C.
        ignore_index: label whose elements are not counted.
        mean: over which classes.

    Raises:
        ValueError: no such mean.
    """

    counts: torch.Tensor
    """`[C, C + 1] int64`: rows are labels, columns predictions, the last one for no class."""

    full_state_update = False

    def __init__(self, num_classes: int, ignore_index: int = 255, mean: Mean = "present") -> None:
        super().__init__()
        if mean not in ("present", "all"):
            raise ValueError(f"SegmentationIoU: mean={mean!r} must be present or all")
        self.num_classes, self.ignore_index, self.mean_over = num_classes, ignore_index, mean
        empty = torch.zeros(num_classes, num_classes + 1, dtype=torch.int64)
        self.add_state("counts", empty, dist_reduce_fx="sum")

    def update(self, predicted: torch.Tensor, labels: torch.Tensor) -> None:
        """Counts elements: `predicted` and `labels` are integers of one shape.

        Labels are 0..C-1 or ignore_index.
        """
        classes = self.num_classes
        none = (predicted < 0) | (predicted >= classes)
        columns = torch.where(none, classes, predicted)
        # Ignored elements go to a row of their own, which is cut off: no size depends on the data.
        rows = torch.where(labels == self.ignore_index, classes, labels)
        places = (rows * (classes + 1) + columns).flatten()
        table = torch.bincount(places, minlength=(classes + 1) ** 2)
        self.counts += table.view(classes + 1, classes + 1)[:classes]

    def restore(self, counts: torch.Tensor) -> None:
        """Goes on from `counts [C, C + 1]` of earlier, on the device where the metric is."""
        self.counts = counts.to(self.counts.device)
        self._update_count += 1  # else torchmetrics warns of a result without an update

    def compute(self) -> torch.Tensor:
        """The counts `[C, C + 1]` of everything since the last reset, over all processes."""
        return self.counts

    def result(self) -> IoU:
        """IoU of everything since the last reset, over all processes."""
        counts: torch.Tensor = self.compute()
        hits = counts.diagonal()
        support = counts.sum(1)
        total = counts[:, :-1].sum(0) + support - hits
        per_class = torch.where(total > 0, hits.double() / total, torch.nan)
        zero = self.mean_over == "all" and bool((total > 0).any())
        averaged = per_class.nan_to_num() if zero else per_class
        return IoU(averaged.nanmean(), per_class, support)
