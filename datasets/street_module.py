"""The simulated street as training data: scans made in the data-loader workers, none stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

from perception.datasets import street
from perception.datasets.augment import Augment
from perception.datasets.collate import SegmentationItem, collate_segmentation
from perception.datasets.encode import Encoder
from perception.datasets.sample import Sample

VALIDATION_SEED = 0
TEST_SEED = 100_000
TRAIN_SEED = 1_000_000
"""First street of each split; training counts upwards without end, the others stop far below."""


class StreetDataset(Dataset[SegmentationItem]):
    """Street number `first_seed + index`, encoded; any index is a valid one.

    The item is a function of the index alone, so neither the number of workers nor their order
    changes what is trained on.

    Args:
        encoder: makes sites and features.
        first_seed: street of index 0.
        augment: random changes; None leaves the scan as the sensor sees it.
        max_range: horizontal distance in metres beyond which points are cut off; None keeps all.
    """

    def __init__(
        self,
        encoder: Encoder,
        first_seed: int,
        *,
        augment: Augment | None = None,
        max_range: float | None = None,
    ) -> None:
        self.encoder = encoder
        self.first_seed = first_seed
        self.augment = augment
        self.max_range = max_range

    def __getitem__(self, index: int) -> SegmentationItem:
        seed = self.first_seed + index
        sample = street.scan(seed)
        if self.augment is not None:
            sample = self.augment(sample, np.random.default_rng(seed))
        if self.max_range is not None:
            sample = crop(sample, self.max_range)
        if sample.labels is None:
            raise ValueError(f"{sample.name}: a scan without labels cannot be trained on")
        return SegmentationItem(self.encoder(sample.cloud), sample.labels, sample.name)


class EpochSampler(DistributedSampler[int]):
    """Indices `epoch * length ... (epoch + 1) * length - 1`: no index comes twice.

    The trainer calls `set_epoch` before every epoch, also after a resume. (It would hide any
    sampler but a `DistributedSampler` behind one of its own in a training of several processes, and
    the epoch would not arrive here.)

    Args:
        length: indices an epoch, over all processes.
        processes: number of processes that share them.
        process: which of them this is.
    """

    def __init__(self, length: int, processes: int = 1, process: int = 0) -> None:
        super().__init__(range(length), processes, process, shuffle=False, drop_last=True)  # type: ignore[arg-type]
        self.length = length

    def __iter__(self) -> Iterator[int]:
        start = self.epoch * self.length
        stop = start + self.num_samples * self.num_replicas
        return iter(range(start + self.rank, stop, self.num_replicas))


class StreetDataModule(LightningDataModule):
    """Training, validation and test scans of the simulated street for semantic segmentation.

    Training scans never repeat: epoch e shows the streets e * epoch_scans and up. Validation and
    test scans are the same ones every time, without augmentation, of streets training never shows.

    Args:
        voxel_size: edge of a voxel in metres.
        features: input features of a site, see `Encoder`.
        batch_size: scans in a training batch; validation takes one at a time.
        epoch_scans: training scans between two validations.
        val_scans: validation scans, and as many for testing.
        max_range: horizontal distance in metres beyond which points are cut off; None keeps all.
        augment: random changes of the training scans; None for none.
        num_workers: processes that make scans beside the training; 0 makes them in the process.
        seed: another seed trains on other streets; validation and test do not change.
    """

    classes: tuple[str, ...] = street.CLASSES

    def __init__(
        self,
        *,
        voxel_size: float = 0.1,
        features: Sequence[str] = ("intensity", "height", "range", "offset"),
        batch_size: int = 2,
        epoch_scans: int = 400,
        val_scans: int = 20,
        max_range: float | None = 50.0,
        augment: Augment | None = None,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(voxel_size, features)
        self.colors: list[list[int]] = np.asarray(street.COLORS).tolist()
        self.batch_size = batch_size
        self.epoch_scans = epoch_scans
        self.val_scans = val_scans
        self.max_range = max_range
        self.num_workers = num_workers
        self.train_set = StreetDataset(
            self.encoder,
            TRAIN_SEED * (1 + seed),
            augment=augment,
            max_range=max_range,
        )

    def train_dataloader(self) -> DataLoader[SegmentationItem]:
        """Batches of new, augmented streets."""
        processes, process = 1, 0
        if self.trainer is not None:
            processes, process = self.trainer.world_size, self.trainer.global_rank
        return DataLoader(
            self.train_set,
            batch_size=self.batch_size,
            sampler=EpochSampler(self.epoch_scans, processes, process),
            num_workers=self.num_workers,
            collate_fn=collate_segmentation,
            persistent_workers=self.num_workers > 0,
            drop_last=True,
        )

    def val_dataloader(self) -> DataLoader[SegmentationItem]:
        """The fixed validation scans, one at a time."""
        return self._fixed(VALIDATION_SEED)

    def test_dataloader(self) -> DataLoader[SegmentationItem]:
        """The fixed test scans, one at a time."""
        return self._fixed(TEST_SEED)

    def predict_dataloader(self) -> DataLoader[SegmentationItem]:
        """The test scans."""
        return self._fixed(TEST_SEED)

    def _fixed(self, first_seed: int) -> DataLoader[SegmentationItem]:
        scans = StreetDataset(self.encoder, first_seed, max_range=self.max_range)
        return DataLoader(
            Subset(scans, range(self.val_scans)),
            num_workers=self.num_workers,
            collate_fn=collate_segmentation,
            persistent_workers=self.num_workers > 0,
        )


def crop(sample: Sample, max_range: float) -> Sample:
    """Points of `sample` within `max_range` metres of the sensor, measured in the plane."""
    points = sample.cloud.points
    keep = np.hypot(points[:, 0], points[:, 1]) <= max_range
    return replace(
        sample,
        cloud=sample.cloud[keep],
        labels=None if sample.labels is None else sample.labels[keep],
        instances=None if sample.instances is None else sample.instances[keep],
    )
