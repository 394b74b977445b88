"""Semantic segmentation: one class for every point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins.layer_sync import TorchSyncBatchNorm
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from perception.datasets.collate import SegmentationBatch
from perception.io import write_labels
from perception.metrics import Mean, SegmentationIoU
from perception.sparse import SparseTensor
from perception.tasks.losses import Balance, SegmentationLoss
from perception.tasks.losses import class_weights as weights_of
from perception.tasks.processes import SparseSyncBatchNorm


class Segmentation(LightningModule):
    """Trains a network that gives class scores for sites, and counts its hits on points.

    The loss and the training IoU are those of the sites, the IoU of validation and test that of
    the points: each point takes the class of its site. Of samples of several frames, validation and test
    count the points of the newest one, and predictions are theirs, so that every scan counts once;
    training learns from the labels of all frames. Logged: `train/loss`, `train/miou`, `val/loss`,
    `val/miou`, `val/iou/<class>`, and the same with `test/`. The table of classes is printed after each
    validation.

    Processes that share a batch take the step that one process with the whole batch takes, if batch
    normalization is synchronized: `Trainer(sync_batchnorm=True)` converts that of `perception.nn` too.

    Random numbers that the network draws in training are a function of the seed (that of
    `seed_everything`), the step and the process, so that a resumed training draws the same.

    Args:
        net: `SparseTensor [N, C_in]` to `SparseTensor [N, len(class_names)]` on the same sites;
            keeps the arguments that rebuild it in `net.args`. One with `net.needs_points` is also
            given the positions and sites of the points and scores these (`perception.models.SPVCNN`):
            the loss and the training IoU are then those of the points.
        class_names: names of the classes, in the order of their numbers.
        optimizer: makes the optimizer of the parameters.
        scheduler: makes the learning-rate schedule of the optimizer and the number of training
            steps, and is stepped after each; None keeps the rate.
        ignore_index: label of sites and points that do not count.
        label_smoothing: share of the target spread over all classes in the cross-entropy.
        focal: exponent of the focal loss, which then stands for the cross-entropy; 2 is usual.
        lovasz: weight of the Lovász-Softmax loss beside it, which pulls on rare classes; 0 leaves it
            out.
        class_weights: weights of the classes in the cross-entropy or focal loss: one number each, or
            `"inverse"`, `"sqrt"` or `"effective"`, by how often they occur in the training data
            (`perception.tasks.losses.class_weights`), which are read once for it; None: all 1.
        miou: over which classes `miou` is the mean: those that occur (`"present"`, as the nuScenes
            devkit) or all, absent ones as 0 (`"all"`, as semantic-kitti-api).

    Raises:
        ValueError: a loss that does not exist; not one weight a class.
    """

    task = "segmentation"
    monitor = ("val/miou", "max")
    """What is logged that tells the best checkpoint, and which way."""

    def __init__(
        self,
        net: nn.Module,
        *,
        class_names: Sequence[str],
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = torch.optim.AdamW,
        scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        ignore_index: int = 255,
        label_smoothing: float = 0.0,
        focal: float = 0.0,
        lovasz: float = 0.0,
        class_weights: Balance | Sequence[float] | None = None,
        miou: Mean = "present",
    ) -> None:
        super().__init__()
        self.net = net
        self.class_names = tuple(class_names)
        self.ignore_index = ignore_index
        self._make_optimizer = optimizer
        self._make_scheduler = scheduler
        classes = len(self.class_names)
        self._balance = class_weights if isinstance(class_weights, str) else None
        self.loss = SegmentationLoss(
            classes,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            focal=focal,
            lovasz=lovasz,
            # Until the data are counted, or a checkpoint tells.
            weights=[1.0] * classes if isinstance(class_weights, str) else class_weights,
        )
        self.iou = nn.ModuleDict(
            # "train" is a method of modules, so the keys cannot be the bare names.
            {f"{split}_iou": SegmentationIoU(classes, ignore_index, miou) for split in _SPLITS}
        )
        self._seed = 0

    def setup(self, stage: str) -> None:
        """Counts the classes for their weights; has our batch normalization synchronized with torch's.

        Raises:
            ValueError: the data have no classes that can be counted.
        """
        if stage != "fit":
            return
        if self._balance is not None:
            data = self.trainer.datamodule  # type: ignore[attr-defined]  # set by Trainer.fit
            if data is None or not hasattr(data, "class_counts"):
                raise ValueError(
                    f"class_weights={self._balance!r} needs a data module with class_counts(), such as "
                    "SegmentationData; or give one number a class"
                )
            assert self.loss.weights is not None
            weights = weights_of(data.class_counts(), self._balance)
            self.loss.weights.copy_(torch.from_numpy(weights))
        # The trainer's own would turn the layers for sparse tensors into ones for dense tensors.
        strategy = self.trainer.strategy
        if type(getattr(strategy, "_layer_sync", None)) is TorchSyncBatchNorm:
            strategy._layer_sync = SparseSyncBatchNorm()  # type: ignore[attr-defined]

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

    def on_fit_start(self) -> None:
        """Notes the seed of the training."""
        self._seed = torch.initial_seed()

    def on_train_batch_start(self, batch: SegmentationBatch, batch_idx: int) -> None:
        """Seeds the random numbers of the step."""
        key = [self._seed, self.global_step, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))

    def training_step(self, batch: SegmentationBatch, batch_idx: int) -> torch.Tensor:
        """Loss of a batch of scans, see `SegmentationLoss.forward` for several processes."""
        scored = self._scored(batch)
        loss: torch.Tensor = self.loss(scored.scores, scored.labels, scored.parts, shared=True)
        self._iou("train").update(scored.scores.detach().argmax(dim=1), scored.labels)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.names), sync_dist=True)
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
        rows, points = _newest(batch)
        labels = self._scored(batch).of_points(rows)
        parts = labels.to(torch.uint8).cpu().split(points)
        return {name: part.numpy() for name, part in zip(batch.names, parts, strict=True)}

    def write(self, folder: Path, prediction: dict[str, np.ndarray]) -> None:
        """Writes what `predict_step` gave, one `<name>.label` a scan (SemanticKITTI's format).

        Names such as `08/000000` are files in sub-folders: the scans of two drives have the same numbers.
        """
        for name, labels in prediction.items():
            parts = [part for part in Path(name).parts if part not in (Path(name).anchor, "..")]
            file = folder.joinpath(*parts[:-1], f"{parts[-1]}.label")
            file.parent.mkdir(parents=True, exist_ok=True)
            write_labels(file, labels)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps what the epoch has counted so far, of all processes."""
        counts = self._iou("train").counts.clone()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(counts)
        checkpoint["train_counts"] = counts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on counting, on the first process.

        Raises:
            ValueError: a training that goes on with another optimizer than the checkpoint's.
        """
        states = checkpoint.get("optimizer_states")
        if states and self.trainer.training:
            kept = states[0]["param_groups"][0]
            ours = self._make_optimizer([nn.Parameter(torch.zeros(1))])
            missing = [key for key in ours.defaults if key not in kept]
            if missing:  # torch takes it and fails in the first step
                raise ValueError(
                    f"the checkpoint's optimizer has no {missing[0]!r} and is no {type(ours).__name__}; "
                    "set model.optimizer as it was, or leave --ckpt_path out"
                )
        counts = checkpoint.get("train_counts")
        if counts is not None and self.global_rank == 0:
            self._iou("train").restore(counts)

    def _iou(self, split: str) -> SegmentationIoU:
        metric = self.iou[f"{split}_iou"]
        assert isinstance(metric, SegmentationIoU)
        return metric

    def _scored(self, batch: SegmentationBatch) -> _Scored:
        if not getattr(self.net, "needs_points", False):
            scores = self(batch.x).features
            return _Scored(scores, batch.labels, batch.sites, batch.point_to_voxel)
        if batch.point_positions is None:
            raise ValueError(
                f"{type(self.net).__name__} needs points and the data give none; set data.points to true"
            )
        scores = self.net(batch.x, batch.point_positions, batch.point_to_voxel)
        return _Scored(scores, batch.point_labels, batch.points, None)

    def _evaluate(self, split: str, batch: SegmentationBatch) -> None:
        scored = self._scored(batch)
        loss = self.loss(scored.scores, scored.labels, scored.parts)
        self.log(f"{split}/loss", loss, batch_size=len(batch.names), sync_dist=True)
        rows, _ = _newest(batch)
        self._iou(split).update(scored.of_points(rows), batch.point_labels[rows])

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


class _Scored(NamedTuple):
    """What the network says of a batch.

    Attributes:
        scores: ``[M, C]`` of its sites, or of its points.
        labels: ``[M]``.
        parts: rows of each scan.
        point_rows: ``[N] int64``, the row of each point; None where the rows are the points.
    """

    scores: torch.Tensor
    labels: torch.Tensor
    parts: tuple[int, ...]
    point_rows: torch.Tensor | None

    def of_points(self, which: torch.Tensor | slice) -> torch.Tensor:
        """Classes of some of the points."""
        best = self.scores.argmax(dim=1)
        return best[which] if self.point_rows is None else best[self.point_rows[which]]


def _newest(batch: SegmentationBatch) -> tuple[torch.Tensor | slice, list[int]]:
    """Which rows are the points of the newest frame of each scan, and how many each scan has."""
    frames = batch.point_frames
    if frames is None:
        return slice(None), list(batch.points)
    rows = frames == frames.max() if len(frames) else frames.bool()
    return rows, [int(part.sum()) for part in rows.split(list(batch.points))]


_SPLITS = ("train", "val", "test")
