"""What all data modules share: order, workers, processes, and how scans become items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from perception.datasets.sample import Sample, Scans
from perception.datasets.sampling import (
    EpochSampler,
    Key,
    ResumableLoader,
    ShareSampler,
    balanced_weights,
)
from perception.datasets.sequences import Frames
from perception.datasets.transforms import Compose, Mix, Paste, Transform

__all__ = ["DataModule", "ScanItems", "ScansModule", "Split"]

Split = Literal["train", "val", "test"]
Item = TypeVar("Item", covariant=True)


class DataModule(LightningDataModule, ABC, Generic[Item]):
    """Loaders of three splits whose training resumes at any step.

    A training item is a function of the seed, the epoch and its number; evaluation shows each item
    once, one at a time.

    Args:
        batch_size: items in a training batch of one process.
        num_workers: processes that make items beside the training; 0 makes them in the process.
        seed: of the order and of the random changes.
    """

    collate: Callable[[Sequence[Any]], Any]
    """Makes a batch of items."""

    def __init__(self, *, batch_size: int, num_workers: int, seed: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._weights: NDArray[np.float64] | None = None

    @abstractmethod
    def items(self, split: Split) -> Dataset[Item]:
        """The items of a split by the key `(epoch, index)`, or by `index`, that of epoch 0."""

    @property
    def endless(self) -> bool:
        """Whether training never shows an item twice."""
        return False

    def metadata(self) -> dict[str, Any]:
        """JSON values that a model file needs of the data beside the network's."""
        return {}

    def train_dataloader(self) -> ResumableLoader:
        """Batches of training items, new ones every epoch."""
        items = self.items("train")
        sampler = EpochSampler(
            len(items),  # type: ignore[arg-type]
            *self._processes(),
            seed=self.seed,
            weights=self._weights,
            endless=self.endless,
        )
        return ResumableLoader(
            items, self.batch_size, sampler=sampler, drop_last=True, **self._options()
        )

    def val_dataloader(self) -> DataLoader[Item]:
        """The validation items, one at a time."""
        return self._fixed("val")

    def test_dataloader(self) -> DataLoader[Item]:
        """The test items, one at a time."""
        return self._fixed("test")

    def predict_dataloader(self) -> DataLoader[Item]:
        """The test items."""
        return self._fixed("test")

    def _fixed(self, split: Split) -> DataLoader[Item]:
        items = self.items(split)
        sampler = ShareSampler(len(items), *self._processes())  # type: ignore[arg-type]
        return DataLoader(items, sampler=sampler, **self._options())

    def _processes(self) -> tuple[int, int]:
        """How many processes train, and which of them this is."""
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size, self.trainer.global_rank

    def _options(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "collate_fn": self.collate,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }


class ScanItems(Dataset[Item], ABC):
    """The samples of a data set, transformed and made items of a batch.

    The item of key `(epoch, index)` is a function of the key and the seed alone, so neither the number
    of workers nor their order changes what is trained on. The key `index` is that of epoch 0.

    Args:
        scans: the samples.
        transform: changes of the samples; None leaves them.
        seed: of the changes.
    """

    def __init__(self, scans: Scans, transform: Compose | None = None, seed: int = 0) -> None:
        self.scans, self.transform, self.seed = scans, transform, seed

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, key: int | Key) -> Item:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        sample: Sample = replace(self.scans[index], images=())  # not encoded: nothing to move along
        if self.transform is not None:
            sample = self.transform(sample, np.random.default_rng([self.seed, epoch, index]))
        return self.item(sample)

    @abstractmethod
    def item(self, sample: Sample) -> Item:
        """What a batch is made of, of a transformed sample."""


class ScansModule(DataModule[Item]):
    """Training, validation and test scans for one task.

    Args:
        train: training scans.
        val: validation scans.
        test: test scans; None for those of the validation.
        frames: scans in a sample, registered into the frame of the newest, see `Frames`.
        frame_step: every how manieth scan of a drive a sample of several has.
        several: give also single scans the attributes of several.
        transforms: random changes of the training samples, in this order.
        eval_transforms: changes of validation and test samples.
        batch_size: samples in a training batch of one process.
        balance: show scans of every class equally often, which counts the classes once.
        num_workers: processes that make samples beside the training.
        seed: of the order and of the random changes.
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self,
        train: Scans,
        val: Scans,
        test: Scans | None,
        *,
        frames: int,
        frame_step: int,
        several: bool = False,
        transforms: Sequence[Transform | Mix | Paste],
        eval_transforms: Sequence[Transform],
        batch_size: int,
        balance: bool,
        num_workers: int,
        seed: int,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        several = several or frames > 1
        # A training sample that lacks frames teaches little; in evaluation every scan counts.
        self.train_scans: Scans = (
            Frames(train, frames, step=frame_step, complete=True) if several else train
        )
        self.val_scans: Scans = Frames(val, frames, step=frame_step) if several else val
        last = val if test is None else test
        self.test_scans: Scans = Frames(last, frames, step=frame_step) if several else last
        self.transform = Compose(transforms, self.train_scans)
        self.eval_transform = Compose(eval_transforms)
        self.balance = balance

    @abstractmethod
    def class_counts(self) -> NDArray[np.int64]:
        """`[len(train_scans), C]`, what `balance` goes by."""

    @property
    def endless(self) -> bool:
        """Whether training never shows a scan twice."""
        return bool(getattr(self.train_scans, "endless", False))

    def scans(self, split: Split) -> Scans:
        """The samples of a split, several scans already put together."""
        return {"train": self.train_scans, "val": self.val_scans, "test": self.test_scans}[split]

    def change(self, split: Split) -> Compose:
        """The transforms of a split."""
        return self.transform if split == "train" else self.eval_transform

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
                self._weights = balanced_weights(self.class_counts())
