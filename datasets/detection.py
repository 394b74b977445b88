"""Any data set with boxes as training data for object detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from perception.datasets.collate import joined_sites
from perception.datasets.encode import Encoded, Encoder
from perception.datasets.module import ScanItems, ScansModule, Split
from perception.datasets.sample import Sample, Scans
from perception.datasets.sampling import class_counts
from perception.datasets.transforms import Compose, Crop, Mix, Paste, Transform
from perception.datasets.transforms.overlap import counts_in
from perception.geometry import Boxes3D
from perception.sparse import SparseTensor

__all__ = [
    "DetectionBatch",
    "DetectionData",
    "DetectionItem",
    "DetectionScans",
    "collate_detection",
]

Range = tuple[float, float, float, float, float, float]
"""Smallest x, y and z in metres, then the largest."""
MARGIN = 1e-3
"""Voxels at the border of the range without points, where rounding could name a site outside."""


@dataclass(frozen=True)
class DetectionItem:
    """One encoded scan with its boxes.

    encoded: its sites and features.
    boxes: in the frame of its points; none where nobody may see them.
    points_in_boxes: `[M] int64`, points of the scan in each.
    name: of the scan.
    points: how many it has, of all frames.
    """

    encoded: Encoded
    boxes: Boxes3D
    points_in_boxes: NDArray[np.int64]
    name: str
    points: int


@dataclass(frozen=True)
class DetectionBatch:
    """Scans for object detection, on one device; a tuple has one entry a scan, of `M` boxes each.

    Boxes are in the frame of the points as the network sees them: x forward, y left, z up, after
    the transforms; velocities are along its axes. A voxel of site `(b, i, j, k)` has its centre at
    `((i, j, k) + 0.5) * voxel_size`.

    x: features of all sites; the batch column of its sites is the scan.
    boxes: `[M, 7] float32`: x, y, z of the geometric centre, length, width, height in metres, yaw in
        radians counter-clockwise from +x.
    labels: `[M] int64`, positions in `DetectionData.classes`.
    velocity: `[M, 2] float32`, m/s over ground, rows of NaN where unknown; None where the data set
        knows none.
    track_ids: `[M] int64`, the same for the same object in a drive; None without.
    points_in_boxes: `[M] int64`, how many of the scan's points lie in each box; a point in several
        counts for each.
    names: one name a scan.
    points: number of points of each scan, of all its frames.
    """

    x: SparseTensor
    boxes: tuple[torch.Tensor, ...]
    labels: tuple[torch.Tensor, ...]
    velocity: tuple[torch.Tensor | None, ...]
    track_ids: tuple[torch.Tensor | None, ...]
    points_in_boxes: tuple[torch.Tensor, ...]
    names: tuple[str, ...]
    points: tuple[int, ...]

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> DetectionBatch:
        """The same batch on `device`."""
        return replace(
            self,
            x=self.x.to(device),
            boxes=tuple(t.to(device, non_blocking=non_blocking) for t in self.boxes),
            labels=tuple(t.to(device, non_blocking=non_blocking) for t in self.labels),
            velocity=tuple(
                None if t is None else t.to(device, non_blocking=non_blocking)
                for t in self.velocity
            ),
            track_ids=tuple(
                None if t is None else t.to(device, non_blocking=non_blocking)
                for t in self.track_ids
            ),
            points_in_boxes=tuple(
                t.to(device, non_blocking=non_blocking) for t in self.points_in_boxes
            ),
        )

    def pin_memory(self) -> DetectionBatch:
        """The same batch in memory that a GPU reads while the processor goes on."""
        return replace(
            self,
            x=self.x.pin_memory(),
            boxes=tuple(t.pin_memory() for t in self.boxes),
            labels=tuple(t.pin_memory() for t in self.labels),
            velocity=tuple(None if t is None else t.pin_memory() for t in self.velocity),
            track_ids=tuple(None if t is None else t.pin_memory() for t in self.track_ids),
            points_in_boxes=tuple(t.pin_memory() for t in self.points_in_boxes),
        )


def collate_detection(items: Sequence[DetectionItem]) -> DetectionBatch:
    """Joins scans; scan i gets batch index i.

    Raises:
        ValueError: no scans, or scans whose sites or features have different widths.
    """
    boxes = [item.boxes for item in items]
    return DetectionBatch(
        x=joined_sites([item.encoded for item in items]),
        boxes=tuple(torch.from_numpy(b.boxes) for b in boxes),
        labels=tuple(torch.from_numpy(b.labels) for b in boxes),
        velocity=tuple(None if b.velocity is None else torch.from_numpy(b.velocity) for b in boxes),
        track_ids=tuple(
            None if b.track_ids is None else torch.from_numpy(b.track_ids) for b in boxes
        ),
        points_in_boxes=tuple(torch.from_numpy(item.points_in_boxes) for item in items),
        names=tuple(item.name for item in items),
        points=tuple(item.points for item in items),
    )


class DetectionScans(ScanItems[DetectionItem]):
    """The samples of a data set with their boxes, transformed, cropped and encoded; see `ScanItems`.

    Args:
        scans: the samples.
        encoder: makes sites and features.
        transform: changes of the samples; None leaves them.
        seed: of the changes.
        point_range: what is kept after the transforms, see `DetectionData`.
        min_points: boxes with fewer points are left out.
    """

    def __init__(
        self,
        scans: Scans,
        encoder: Encoder,
        transform: Compose | None = None,
        seed: int = 0,
        *,
        point_range: Range | None = None,
        min_points: int = 0,
    ) -> None:
        super().__init__(scans, transform, seed)
        self.encoder, self.min_points = encoder, min_points
        self.crop = None if point_range is None else Crop(box=point_range)

    def item(self, sample: Sample) -> DetectionItem:
        """Sites, features and boxes of a sample."""
        boxes = sample.boxes
        if boxes is None:
            boxes = Boxes3D(np.zeros((0, 7), np.float32), np.zeros(0, np.int64))
        cloud = sample.cloud
        if self.crop is not None:
            boxes = boxes[self.crop.within(boxes.boxes[:, :3])]
            margin = tuple(MARGIN * edge for edge in self.encoder.edges)
            cloud = cloud[np.flatnonzero(self.crop.within(cloud.points, margin))]
        counts = counts_in(cloud.points, boxes.boxes)
        found = counts >= self.min_points
        return DetectionItem(
            self.encoder(cloud), boxes[found], counts[found], sample.name, len(cloud)
        )


class DetectionData(ScansModule[DetectionItem]):
    """Training, validation and test scans for object detection; batches are `DetectionBatch`.

    Args:
        train: training scans: any data set of `perception.datasets` that has boxes, or one of your
            own with the same attributes (`perception.datasets.sample.Scans`).
        val: validation scans.
        test: test scans; None for those of the validation.
        voxel_size: edge of a voxel in metres, or three: along x, y and z.
        features: input features of a site, see `Encoder`.
        point_range: smallest x, y, z, then the largest, in metres: after the transforms, points and
            boxes (by their centres) outside are left out, of every split; None keeps all. Sites
            count from the origin: the first of the range is `point_range / voxel_size`.
        frames: scans in a sample, registered into the frame of the newest, see `Frames`; the boxes
            are the newest's.
        frame_step: every how manieth scan of a drive a sample of several has.
        transforms: random changes of the training samples, in this order.
        eval_transforms: changes of validation and test samples.
        min_points: training boxes with fewer points (in the range, after the transforms) are left
            out. Evaluation has all boxes in the range, with their numbers of points.
        batch_size: samples in a training batch of one process; evaluation takes one at a time.
        balance: show scans with boxes of every class equally often, which counts the boxes once.
        num_workers: processes that make samples beside the training; 0 makes them in the process.
        seed: of the order and of the random changes.

    Raises:
        ValueError: the data set has no boxes; a range or voxel without extent.
    """

    collate = staticmethod(collate_detection)

    def __init__(
        self,
        train: Scans,
        val: Scans,
        test: Scans | None = None,
        *,
        voxel_size: float | tuple[float, float, float] = 0.1,
        features: Sequence[str] = ("intensity", "z", "offset"),
        point_range: Range | None = None,
        frames: int = 1,
        frame_step: int = 1,
        transforms: Sequence[Transform | Mix | Paste] = (),
        eval_transforms: Sequence[Transform] = (),
        min_points: int = 0,
        batch_size: int = 2,
        balance: bool = False,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        for scans in (train, val):
            if not scans.box_classes:
                raise ValueError(
                    f"DetectionData: {type(scans).__name__} has no boxes; take a data set with "
                    "box_classes"
                )
        self.encoder = Encoder(voxel_size, features)
        super().__init__(
            train,
            val,
            test,
            frames=frames,
            frame_step=frame_step,
            transforms=transforms,
            eval_transforms=eval_transforms,
            batch_size=batch_size,
            balance=balance,
            num_workers=num_workers,
            seed=seed,
        )
        self.classes = train.box_classes
        self.point_range = point_range
        self.min_points = min_points
        self.items("train")  # a range that is none shows now

    def class_counts(self) -> NDArray[np.int64]:
        """Boxes of each class in each training scan."""
        return class_counts(self.train_scans, boxes=True)

    def items(self, split: Split) -> DetectionScans:
        """The samples of a split, transformed, cropped and encoded."""
        return DetectionScans(
            self.scans(split),
            self.encoder,
            self.change(split),
            self.seed,
            point_range=self.point_range,
            min_points=self.min_points if split == "train" else 0,
        )
