"""What the readers of rooms share: boxes of instances and mmdetection3d's prepared form.

The prepared form (``tools/create_data.py`` of https://github.com/open-mmlab/mmdetection3d) holds per
room ``points/NAME.bin`` (float32 x, y, z, red, green, blue), ``semantic_mask/NAME.bin`` and
``instance_mask/NAME.bin`` (int64, one number a point).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.geometry import Boxes3D
from perception.io import FormatError, PointCloud, read

__all__ = ["instance_boxes", "prepared_names", "prepared_room"]

#: Metres by which boxes are larger than their points, which else would lie on their faces.
SLACK = np.float32(2e-4)


def prepared_names(root: Path) -> list[str]:
    """The rooms of the prepared form below ``root``, sorted; empty where it is none."""
    return sorted(file.stem for file in (root / "points").glob("*.bin"))


def prepared_room(
    root: Path, name: str
) -> tuple[PointCloud, NDArray[np.int64] | None, NDArray[np.int32] | None]:
    """Points with colours, raw class ids ``[N]`` and instances ``[N]`` (0 = none) of one room.

    Raises:
        FileNotFoundError: the points are not there.
        FormatError: a file is damaged, or a mask labels another number of points.
    """
    path = root / "points" / f"{name}.bin"
    cloud = read(path, layout="xyzrgb").replace(frame="world")
    rows = len(cloud) if cloud.valid is None else len(cloud.valid)
    masks: list[NDArray[np.int64] | None] = []
    for folder in ("semantic_mask", "instance_mask"):
        file = root / folder / f"{name}.bin"
        mask = _mask(file, rows) if file.is_file() else None
        if mask is not None and cloud.valid is not None:
            mask = mask[cloud.valid]
        masks.append(mask)
    semantic, instance = masks
    if instance is not None and len(instance) and not 0 <= instance.min() <= instance.max() < 2**31:
        raise FormatError(
            root / "instance_mask" / f"{name}.bin",
            f"has instance ids {instance.min()} .. {instance.max()}",
            "expected int64 in 0 .. 2^31 - 1; copy or prepare it again",
        )
    return cloud, semantic, None if instance is None else instance.astype(np.int32)


def _mask(file: Path, count: int) -> NDArray[np.int64]:
    data = file.read_bytes()
    if len(data) != 8 * count:
        raise FormatError(
            file,
            f"is {len(data)} bytes long, {count} points need {8 * count} (int64)",
            "copy or prepare it again, together with its points",
        )
    return np.frombuffer(data, dtype="<i8").astype(np.int64)


def instance_boxes(
    points: NDArray[np.float32],
    labels: NDArray[np.uint8] | None,
    instances: NDArray[np.int32] | None,
    box_class_of: NDArray[np.integer],
) -> Boxes3D | None:
    """The upright, axis-parallel boxes around the instances of things, as VoteNet trains on.

    Args:
        points: ``[N, 3]``.
        labels: ``[N]`` class ids.
        instances: ``[N]``, 0 = none.
        box_class_of: ``[256]``: the box class of a point class, −1 where it has no boxes.

    Returns:
        Boxes with yaw 0 and the instances as track ids; None without labels or instances.
    """
    if labels is None or instances is None:
        return None
    chosen = np.flatnonzero((instances > 0) & (box_class_of[labels] >= 0))
    chosen = chosen[np.argsort(instances[chosen], kind="stable")]
    ids, starts = np.unique(instances[chosen], return_index=True)
    if not len(ids):
        none = np.zeros(0, np.int64)
        return Boxes3D(np.zeros((0, 7), np.float32), none, track_ids=none)
    low = np.minimum.reduceat(points[chosen], starts, axis=0)
    high = np.maximum.reduceat(points[chosen], starts, axis=0)
    # The class of most of an instance's points; they are all of one in clean data.
    votes = np.zeros((len(ids), int(box_class_of.max()) + 1), np.int64)
    np.add.at(votes, (np.searchsorted(ids, instances[chosen]), box_class_of[labels[chosen]]), 1)
    size = high - low + SLACK
    rows = np.concatenate([(low + high) / 2, size, np.zeros((len(ids), 1))], axis=1)
    return Boxes3D(rows, votes.argmax(axis=1), track_ids=ids.astype(np.int64))
