"""Any data set as training data for semantic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perception.datasets.collate import SegmentationItem, collate_segmentation
from perception.datasets.encode import Encoder
from perception.datasets.module import ScanItems, ScansModule, Split
from perception.datasets.sample import IGNORE, Sample, Scans
from perception.datasets.sampling import class_counts
from perception.datasets.transforms import Compose, Mix, Paste, Transform

__all__ = ["SegmentationData", "SegmentationScans"]


class SegmentationScans(ScanItems[SegmentationItem]):
    """The samples of a data set, transformed and encoded; see `ScanItems`.

    Args:
        scans: the samples.
        encoder: makes sites and features.
        transform: changes of the samples; None leaves them.
        seed: of the changes.
        points: also give where the points are, see `Encoder.positions`.
    """

    def __init__(
        self,
        scans: Scans,
        encoder: Encoder,
        transform: Compose | None = None,
        seed: int = 0,
        points: bool = False,
    ) -> None:
        super().__init__(scans, transform, seed)
        self.encoder = encoder
        self.points = points

    def item(self, sample: Sample) -> SegmentationItem:
        """Sites, features and labels of a sample; 255 where nobody may see the labels."""
        labels = sample.labels
        if labels is None:
            labels = np.full(len(sample.cloud), IGNORE, np.uint8)
        frames = sample.cloud.attributes.get("frame")
        positions = self.encoder.positions(sample.cloud) if self.points else None
        return SegmentationItem(self.encoder(sample.cloud), labels, sample.name, frames, positions)


class SegmentationData(ScansModule[SegmentationItem]):
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
        points: also give where the points are, for a network with `needs_points`.
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

    collate = staticmethod(collate_segmentation)

    def __init__(
        self,
        train: Scans,
        val: Scans,
        test: Scans | None = None,
        *,
        voxel_size: float = 0.1,
        features: Sequence[str] = ("intensity", "height", "range", "offset"),
        time: Literal["frame"] | float | None = None,
        points: bool = False,
        frames: int = 1,
        frame_step: int = 1,
        transforms: Sequence[Transform | Mix | Paste] = (),
        eval_transforms: Sequence[Transform] = (),
        batch_size: int = 2,
        balance: bool = False,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        self.encoder = Encoder(voxel_size, features, time)
        self.points = points
        super().__init__(
            train,
            val,
            test,
            frames=frames,
            frame_step=frame_step,
            several=time is not None,
            transforms=transforms,
            eval_transforms=eval_transforms,
            batch_size=batch_size,
            balance=balance,
            num_workers=num_workers,
            seed=seed,
        )
        self.frames, self.frame_step = frames, frame_step
        self.classes = train.classes
        self.colors: list[list[int]] = np.asarray(train.colors).tolist()

    def metadata(self) -> dict[str, Any]:
        """Colours of the classes, what rebuilds the encoder, and of what scans a sample consists."""
        return {
            "colors": self.colors,
            "encoder": self.encoder.metadata(),
            "frames": self.frames,
            "frame_step": self.frame_step,
        }

    def class_counts(self) -> NDArray[np.int64]:
        """Points of each class in each training scan."""
        return class_counts(self.train_scans)

    def items(self, split: Split) -> SegmentationScans:
        """The samples of a split, transformed and encoded."""
        change = self.change(split)
        return SegmentationScans(self.scans(split), self.encoder, change, self.seed, self.points)
