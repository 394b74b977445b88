"""Any data set as training data for semantic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from perception.datasets.collate import SegmentationItem, collate_segmentation
from perception.datasets.encode import Encoder
from perception.datasets.sample import IGNORE, Sample, Scans
from perception.datasets.sampling import (
    EpochSampler,
    Key,
    ResumableLoader,
    ShareSampler,
    balanced_weights,
    class_counts,
)
from perception.datasets.sequences import Frames
from perception.datasets.transforms import Compose, Mix, Paste, Transform

__all__ = ["SegmentationData", "SegmentationScans"]


class SegmentationScans(Dataset[SegmentationItem]):
    """The samples of a data set, transformed and encoded.

    The item of key `(epoch, index)` is a function of the key and the seed alone, so neither the number
    of workers nor their order changes what is trained on. The key `index` is that of epoch 0.

    Args:
        scans: the samples.
        encoder: makes sites and features.
        transform: changes of the samples; None leaves them.
        seed: of the changes.
    """

    def __init__(
        self, scans: Scans, encoder: Encoder, transform: Compose | None = None, seed: int = 0
    ) -> None:
        self.scans, self.encoder, self.transform, self.seed = scans, encoder, transform, seed

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, key: int | Key) -> SegmentationItem:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        sample: Sample = replace(self.scans[index], images=())  # not encoded: nothing to move along
        if self.transform is not None:
            sample = self.transform(sample, np.random.default_rng([self.seed, epoch, index]))
        labels = sample.labels
        if labels is None:  # a test split that nobody may see the labels of
            labels = np.full(len(sample.cloud), IGNORE, np.uint8)
        frames = sample.cloud.attributes.get("frame")
        return SegmentationItem(self.encoder(sample.cloud), labels, sample.name, frames)


class SegmentationData(LightningDataModule):
    """Training, validation and test scans for semantic segmentation.

    Args:
        train: training scans: any data set of `perception.datasets`, or one of your own with the same
            attributes (`perception.datasets.sample.Scans`).
        val: validation scans.
        test: test scans, also those that `predict` labels; None for those of the validation.
        voxel_size: edge of a voxel in metres.
        features: input features of a site, see `Encoder`.
        time: None for sites in space; `"frame"` or a time step in seconds for sites in space and time,
            see `Encoder`.
        frames: scans in a sample, registered into the frame of the newest, see `Frames`.
        frame_step: every how manieth scan of a drive a sample of several has.
        transforms: random changes of the training samples, in this order; the whole drive's frames
            of a sample change together.
        eval_transforms: changes of validation and test samples: crops, as far as training has them.
        batch_size: samples in a training batch of one process; evaluation takes one at a time.
        balance: show scans of every class equally often, which counts the classes once.
        num_workers: processes that make samples beside the training; 0 makes them in the process.
        seed: of the order and of the random changes.
    """

    def __init__(
        self,
        train: Scans,
        val: Scans,
        test: Scans | None = None,
        *,
        voxel_size: float = 0.1,
        features: Sequence[str] = ("intensity", "height", "range", "offset"),
        time: Literal["frame"] | float | None = None,
        frames: int = 1,
        frame_step: int = 1,
        transforms: Sequence[Transform | Mix | Paste] = (),
        eval_transforms: Sequence[Transform] = (),
        batch_size: int = 2,
        balance: bool = False,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(voxel_size, features, time)
        self.classes = train.classes
        self.colors: list[list[int]] = np.asarray(train.colors).tolist()
        several = frames > 1 or time is not None
        # A training sample that lacks frames teaches little; in evaluation every scan counts.
        self.train_scans: Scans = (
            Frames(train, frames, step=frame_step, complete=True) if several else train
        )
        self.val_scans: Scans = Frames(val, frames, step=frame_step) if several else val
        last = val if test is None else test
        self.test_scans: Scans = Frames(last, frames, step=frame_step) if several else last
        self.transform = Compose(transforms, self.train_scans)
        self.eval_transform = Compose(eval_transforms)
        self.batch_size = batch_size
        self.balance = balance
        self.num_workers = num_workers
        self.seed = seed
        self._weights: np.ndarray | None = None

    def setup(self, stage: str) -> None:
        """Checks that network and data speak of the same classes; counts and gathers what is needed.

        Raises:
            ValueError: the model has another number of classes than the data.
        """
        module = None if self.trainer is None else self.trainer.lightning_module
        names = getattr(module, "class_names", None)
        if names is not None and self.classes and len(names) != len(self.classes):
            raise ValueError(
                f"model.class_names has {len(names)} classes and the data {len(self.classes)}: "
                f"{', '.join(self.classes)}"
            )
        if stage == "fit":
            self.transform.prepare()  # before the workers start, which then share it
            if self.balance and self._weights is None:
                self._weights = balanced_weights(class_counts(self.train_scans))

    def train_dataloader(self) -> ResumableLoader:
        """Batches of transformed samples, new ones every epoch."""
        sampler = EpochSampler(
            len(self.train_scans),
            *self._processes(),
            seed=self.seed,
            weights=self._weights,
            endless=bool(getattr(self.train_scans, "endless", False)),
        )
        items = SegmentationScans(self.train_scans, self.encoder, self.transform, self.seed)
        return ResumableLoader(
            items, self.batch_size, sampler=sampler, drop_last=True, **self._options()
        )

    def val_dataloader(self) -> DataLoader[SegmentationItem]:
        """The validation scans, one at a time."""
        return self._fixed(self.val_scans)

    def test_dataloader(self) -> DataLoader[SegmentationItem]:
        """The test scans, one at a time."""
        return self._fixed(self.test_scans)

    def predict_dataloader(self) -> DataLoader[SegmentationItem]:
        """The test scans."""
        return self._fixed(self.test_scans)

    def _fixed(self, scans: Scans) -> DataLoader[SegmentationItem]:
        items = SegmentationScans(scans, self.encoder, self.eval_transform, self.seed)
        sampler = ShareSampler(len(scans), *self._processes())
        return DataLoader(items, sampler=sampler, **self._options())

    def _processes(self) -> tuple[int, int]:
        """How many processes train, and which of them this is."""
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank

    def _options(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "collate_fn": collate_segmentation,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }
