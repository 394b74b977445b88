"""Objects of other scans, put into a scan (ground-truth sampling)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from perception.datasets.encode import ground_at
from perception.datasets.kept import kept
from perception.datasets.readers.index import Arrays, progress
from perception.datasets.sample import IGNORE, Sample, Scans
from perception.datasets.transforms.overlap import first_box, overlaps
from perception.datasets.transforms.rows import joined, select
from perception.geometry import Boxes3D
from perception.io import PointCloud

__all__ = ["ObjectBank", "Paste"]

FEWEST = 5
"""Points of an object, below which it is not worth keeping."""
_ATTRIBUTE = "attribute."


class ObjectBank:
    """The annotated objects of a data set with their points, as flat arrays.

    Args:
        classes: names of the box labels.
        arrays: ``points [K, 3]`` in the frame of their scan, ``starts [M + 1]``, ``boxes [M, 7]``,
            ``labels [M]`` of the boxes, ``above [M]``: height of the underside over the local
            ground in metres, ``velocity [M, 2]`` (NaN: unknown), ``point_labels [K]`` and one array
            ``attribute.<name>`` for every attribute that all scans have.
    """

    def __init__(self, classes: tuple[str, ...], arrays: Arrays) -> None:
        self.classes = classes
        self._arrays = arrays
        labels = arrays["labels"]
        self._of_class = [np.flatnonzero(labels == number) for number in range(len(classes))]

    @classmethod
    def of(cls, scans: Scans) -> ObjectBank:
        """The objects of `scans`.

        All samples are read once, with a progress bar. Where the data set has a folder (`scans.root`)
        the result is kept like the readers' indices, for it and its splits.

        Raises:
            ValueError: the data set has no boxes.
        """
        if not scans.box_classes:
            raise ValueError(
                f"{type(scans).__name__} has no boxes to take objects from; leave out Paste"
            )
        return cls(scans.box_classes, kept("objects-1", scans, lambda: _gathered(scans)))

    def __len__(self) -> int:
        return len(self._arrays["labels"])

    def numbers(self, name: str) -> NDArray[np.int64]:
        """The objects of a class, by number.

        Raises:
            ValueError: there is no such class.
        """
        if name not in self.classes:
            raise ValueError(f"Paste: no class {name!r}; the boxes have {', '.join(self.classes)}")
        return self._of_class[self.classes.index(name)]

    def boxes(self, numbers: NDArray[np.integer]) -> NDArray[np.float32]:
        """``[len(numbers), 7]``, each in the frame of its scan."""
        return self._arrays["boxes"][numbers]

    def above_ground(self, numbers: NDArray[np.integer]) -> NDArray[np.float32]:
        """Metres between the local ground and the underside of the boxes."""
        return self._arrays["above"][numbers]

    def sample(self, number: int, shift: NDArray[np.float32]) -> Sample:
        """One object with its box, moved by `shift [3]` metres."""
        arrays = self._arrays
        rows = slice(int(arrays["starts"][number]), int(arrays["starts"][number + 1]))
        attributes = {
            name.removeprefix(_ATTRIBUTE): values[rows]
            for name, values in arrays.items()
            if name.startswith(_ATTRIBUTE)
        }
        box = arrays["boxes"][number : number + 1].copy()
        box[:, :3] += shift
        velocity = arrays["velocity"][number : number + 1]
        count = rows.stop - rows.start
        return Sample(
            PointCloud(arrays["points"][rows] + shift, attributes),
            labels=arrays["point_labels"][rows],
            instances=np.ones(count, np.int32),
            boxes=Boxes3D(
                box, arrays["labels"][number : number + 1], velocity, np.ones(1, np.int64)
            ),
        )


def _gathered(scans: Scans) -> Arrays:
    points, counts, boxes, labels, above, velocity, point_labels = [], [], [], [], [], [], []
    attributes: list[dict[str, NDArray]] = []
    with progress(len(scans), "gathering objects", "scan") as bar:
        for index in range(len(scans)):
            sample = scans[index]
            bar.update()
            found = sample.boxes
            if found is None or len(found) == 0:
                continue
            ground = ground_at(sample.cloud.points, found.boxes[:, :2])
            owner = first_box(sample.cloud.points, found.boxes)
            for i in range(len(found)):
                rows = np.flatnonzero(owner == i)
                if len(rows) < FEWEST:
                    continue
                x = sample.cloud
                points.append(x.points[rows])
                attributes.append({name: values[rows] for name, values in x.attributes.items()})
                counts.append(len(rows))
                boxes.append(found.boxes[i])
                labels.append(found.labels[i])
                above.append(found.boxes[i, 2] - found.boxes[i, 5] / 2 - ground[i])
                known = found.velocity is not None
                velocity.append(found.velocity[i] if known else (np.nan, np.nan))  # type: ignore[index]
                point_labels.append(
                    np.full(len(rows), IGNORE, np.uint8)
                    if sample.labels is None
                    else sample.labels[rows]
                )
    shared = set.intersection(*(set(found) for found in attributes)) if attributes else set()
    arrays: Arrays = {
        "points": np.concatenate(points) if points else np.zeros((0, 3), np.float32),
        "starts": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "boxes": np.array(boxes, np.float32).reshape(-1, 7),
        "labels": np.array(labels, np.int64),
        "above": np.array(above, np.float32),
        "velocity": np.array(velocity, np.float32).reshape(-1, 2),
        "point_labels": np.concatenate(point_labels) if points else np.zeros(0, np.uint8),
    }
    for name in sorted(shared):
        arrays[_ATTRIBUTE + name] = np.concatenate([found[name] for found in attributes])
    return arrays


@dataclass(frozen=True)
class Paste:
    """Puts objects of other scans of the data set into a scan, as many as are missing.

    An object comes where it was relative to its sensor, so that it is seen from its side and as
    densely as from there, and stands over the ground of this scan as high as over its own. It must not
    overlap another box seen from above. The points of the scan in its box go. After Yan, Mao and Li
    (SECOND, 2018). Samples without boxes stay as they are.

    Args:
        fill_to: box class to the number of its boxes in a scan up to which is pasted.
        least_points: of an object.
        steepest: objects are left out where the ground lies so many metres higher or lower than
            where they come from: it is not the same street.
        probability: of pasting at all.
    """

    fill_to: Mapping[str, int] = field(default_factory=dict)
    least_points: int = FEWEST
    steepest: float = 3.0
    probability: float = 1.0

    def __call__(self, sample: Sample, rng: np.random.Generator, bank: ObjectBank) -> Sample:
        boxes = sample.boxes
        if boxes is None or rng.random() >= self.probability:
            return sample
        chosen: list[int] = []
        for name, wanted in self.fill_to.items():
            numbers = bank.numbers(name)
            present = int((boxes.labels == bank.classes.index(name)).sum())
            count = min(max(wanted - present, 0), len(numbers))
            chosen += rng.choice(numbers, count, replace=False).tolist() if count else []
        if not chosen:
            return sample
        order = np.array(chosen, np.int64)
        candidates = bank.boxes(order).copy()
        ground = ground_at(sample.cloud.points, candidates[:, :2])
        height = candidates[:, 2].copy()
        candidates[:, 2] = ground + bank.above_ground(order) + candidates[:, 5] / 2
        taken = boxes.boxes
        placed: list[Sample] = []
        for i, number in enumerate(order):
            lift = candidates[i, 2] - height[i]
            box = candidates[i : i + 1]
            if not abs(lift) <= self.steepest or overlaps(box, taken).any():
                continue
            thing = bank.sample(int(number), np.array([0, 0, lift], np.float32))
            if len(thing.cloud) < self.least_points:
                continue
            assert thing.boxes is not None
            placed.append(_as_in(thing, sample))
            taken = np.concatenate([taken, box])
        if not placed:
            return sample
        free = first_box(sample.cloud.points, taken[len(boxes) :]) < 0
        # Points of an object that stick out of the others' way stay theirs.
        free |= first_box(sample.cloud.points, boxes.boxes) >= 0
        result = replace(select(sample, free), images=sample.images)
        for thing in placed:
            result = joined(result, thing)
        return result


def _as_in(thing: Sample, scene: Sample) -> Sample:
    """`thing` with the annotations that `scene` has, and no others."""
    count = len(thing.cloud)
    assert thing.boxes is not None
    assert scene.boxes is not None
    attributes = dict(thing.cloud.attributes)
    for name, values in scene.cloud.attributes.items():  # what the scene alone knows reads zero
        if name not in attributes:
            attributes[name] = np.zeros((count, *values.shape[1:]), values.dtype)
    return replace(
        thing,
        cloud=thing.cloud.replace(attributes=attributes),
        labels=None if scene.labels is None else thing.labels,
        instances=None if scene.instances is None else thing.instances,
        boxes=replace(
            thing.boxes,
            velocity=None if scene.boxes.velocity is None else thing.boxes.velocity,
            track_ids=None if scene.boxes.track_ids is None else thing.boxes.track_ids,
        ),
        flow=None if scene.flow is None else np.zeros((count, 3), np.float32),
    )
