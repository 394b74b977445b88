"""Semantic segmentation: one class for every point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from perception.datasets.collate import SegmentationBatch
from perception.metrics import SegmentationIoU
from perception.sparse import SparseTensor
from perception.tasks.losses import lovasz_softmax


class Segmentation(LightningModule):
    """Trains a network that gives class scores for sites, and counts its hits on points.

    The loss and the training IoU are those of the sites, the IoU of validation and test that of
    the points: each point takes the class of its site. Logged: `train/loss`, `train/miou`,
    `val/loss`, `val/miou`, `val/iou/<class>`, and the same with `test/`; the mean runs over the
    classes that occur. The table of classes is printed after each validation.

    Args:
        net: `SparseTensor [N, C_in]` to `SparseTensor [N, len(class_names)]` on the same sites;
            keeps the arguments that rebuild it in `net.args`.
        class_names: names of the classes, in the order of their numbers.
        optimizer: makes the optimizer of the parameters.
        scheduler: makes the learning-rate schedule of the optimizer and the number of training
            steps, and is stepped after each; None keeps the rate.
        ignore_index: label of sites and points that do not count.
        label_smoothing: share of the target spread over all classes in the cross-entropy.
        lovasz: weight of the Lovász-Softmax loss beside the cross-entropy, which pulls on rare
            classes; 0 leaves it out.
    """

    task = "segmentation"

    def __init__(
        self,
        net: nn.Module,
        *,
        class_names: Sequence[str],
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.AdamW,
        scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        ignore_index: int = 255,
        label_smoothing: float = 0.0,
        lovasz: float = 0.0,
    ) -> None:
        super().__init__()
        self.net = net
        self.class_names = tuple(class_names)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.lovasz = lovasz
        self._make_optimizer = optimizer
        self._make_scheduler = scheduler
        classes = len(self.class_names)
        self.iou = nn.ModuleDict(
            # "train" is a method of modules, so the keys cannot be the bare names.
            {f"{split}_iou": SegmentationIoU(classes, ignore_index) for split in _SPLITS}
        )

    def metadata(self) -> dict[str, Any]:
        """JSON values that describe the task and rebuild the network in a model file."""
        return {
            "task": self.task,
            "net": {"name": type(self.net).__name__, "args": self.net.args},
            "classes": list(self.class_names),
        }

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule over all steps of the training."""
        optimizer = self._make_optimizer(self.net.parameters())
        if self._make_scheduler is None:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = {"scheduler": self._make_scheduler(optimizer, steps), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Class scores of the sites of `x`."""
        scores: SparseTensor = self.net(x)
        return scores

    def loss(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean over the labelled rows of `scores [N, C]`, `labels [N]`; 0 where there are none."""
        valid = labels != self.ignore_index
        scores, labels = scores[valid].float(), labels[valid]
        if len(labels) == 0:
            return scores.sum()
        loss = functional.cross_entropy(scores, labels, label_smoothing=self.label_smoothing)
        if self.lovasz > 0:
            loss = loss + self.lovasz * lovasz_softmax(scores.softmax(dim=1), labels)
        return loss

    def training_step(self, batch: SegmentationBatch, batch_idx: int) -> torch.Tensor:
        """Loss of a batch of scans."""
        scores = self(batch.x).features
        loss = self.loss(scores, batch.labels)
        self._iou("train").update(scores.detach().argmax(dim=1), batch.labels)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.names))
        return loss

    def on_train_epoch_end(self) -> None:
        """Logs the IoU of the sites of the epoch."""
        metric = self._iou("train")
        self.log("train/miou", metric.result().mean, sync_dist=True)
        metric.reset()

    def validation_step(self, batch: SegmentationBatch, batch_idx: int) -> None:
        """Counts the points of a batch."""
        self._evaluate("val", batch)

    def on_validation_epoch_end(self) -> None:
        """Logs and prints the IoU of the points."""
        self._report("val")

    def test_step(self, batch: SegmentationBatch, batch_idx: int) -> None:
        """Counts the points of a batch."""
        self._evaluate("test", batch)

    def on_test_epoch_end(self) -> None:
        """Logs and prints the IoU of the points."""
        self._report("test")

    def predict_step(self, batch: SegmentationBatch, batch_idx: int) -> dict[str, np.ndarray]:
        """Classes of the points, `[N] uint8`, by the name of the scan."""
        labels = self(batch.x).features.argmax(dim=1)[batch.point_to_voxel]
        parts = labels.to(torch.uint8).cpu().split(list(batch.points))
        return {name: part.numpy() for name, part in zip(batch.names, parts, strict=True)}

    def _iou(self, split: str) -> SegmentationIoU:
        metric = self.iou[f"{split}_iou"]
        assert isinstance(metric, SegmentationIoU)
        return metric

    def _evaluate(self, split: str, batch: SegmentationBatch) -> None:
        scores = self(batch.x).features
        loss = self.loss(scores, batch.labels)
        self.log(f"{split}/loss", loss, batch_size=len(batch.names), sync_dist=True)
        labels = scores.argmax(dim=1)[batch.point_to_voxel]
        self._iou(split).update(labels, batch.point_labels)

    def _report(self, split: str) -> None:
        metric = self._iou(split)
        result = metric.result()
        metric.reset()
        if self.trainer.sanity_checking:
            return
        # The counts are those of all processes already; sync_dist says so to Lightning, at no harm.
        self.log(f"{split}/miou", result.mean, prog_bar=True, sync_dist=True)
        for name, value in zip(self.class_names, result.per_class, strict=True):
            if not value.isnan():
                self.log(f"{split}/iou/{name}", value, sync_dist=True)
        self.print(f"\n{result.table(self.class_names)}")


_SPLITS = ("train", "val", "test")
