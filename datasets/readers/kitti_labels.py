"""KITTI's ``label_2`` lines, and boxes of this package from them and back.

A line gives a box in the rectified frame of camera 0 (x right, y down, z forward): height, width,
length, the centre of its *bottom*, and ``rotation_y``, its turn about the downward axis. Source:
``readme.txt`` of the object development kit.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from perception.datasets.readers.kitti_calibration import KittiCalibration
from perception.datasets.readers.rotations import wrap
from perception.geometry import Boxes3D, transform
from perception.io import FormatError
from perception.io.files import existing_file

__all__ = [
    "DONT_CARE",
    "KITTI_CLASSES",
    "KittiLabels",
    "boxes_from_kitti",
    "format_kitti",
    "kitti_from_boxes",
    "read_kitti_labels",
]

#: Object types of the benchmark, those that it evaluates first; the position is the box label.
KITTI_CLASSES = (
    "Car",
    "Pedestrian",
    "Cyclist",
    "Van",
    "Truck",
    "Person_sitting",
    "Tram",
    "Misc",
)
#: Regions in the image that nobody annotated; they have no box in space.
DONT_CARE = "DontCare"

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class KittiLabels:
    """The lines of one label or result file, M objects in KITTI's own conventions.

    Attributes:
        names: M object types.
        truncated: ``[M]``, 0 (inside) .. 1 (outside the image).
        occluded: ``[M]`` int: 0 visible, 1 partly, 2 largely occluded, 3 unknown.
        alpha: ``[M]`` observation angle, radians.
        image_boxes: ``[M, 4]`` left, top, right, bottom in pixels of image 2.
        sizes: ``[M, 3]`` height, width, length, metres.
        centres: ``[M, 3]`` centre of the bottom, rectified camera frame, metres.
        rotation_y: ``[M]`` turn about the camera's downward axis, radians.
        scores: ``[M]`` of a result file, or None.
    """

    names: tuple[str, ...]
    truncated: Floats
    occluded: NDArray[np.int64]
    alpha: Floats
    image_boxes: Floats
    sizes: Floats
    centres: Floats
    rotation_y: Floats
    scores: Floats | None = None

    def __len__(self) -> int:
        return len(self.names)


def read_kitti_labels(
    path: str | PathLike[str], *, known: tuple[str, ...] = KITTI_CLASSES
) -> KittiLabels:
    """Read a label file (15 columns) or a result file (16, with scores).

    Raises:
        FileNotFoundError: there is no such file.
        FormatError: a line has another number of columns, no number where one belongs, or a type
            that is neither in `known` nor ``DontCare``.
    """
    file = existing_file(path)
    names: list[str] = []
    rows: list[list[float]] = []
    try:
        text = file.read_text()
    except UnicodeDecodeError:
        raise FormatError(file, "is no text", "copy the label file again") from None
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            row = [float(word) for word in words[1:]]
        except ValueError as error:
            raise FormatError(file, f"line {number}: {error}", "copy the file again") from None
        if len(row) not in (14, 15) or (rows and len(row) != len(rows[0])):
            raise FormatError(
                file,
                f"line {number} has {len(words)} columns, expected 15, or 16 with a score",
                "the file is cut, or no KITTI label file",
            )
        if words[0] not in known and words[0] != DONT_CARE:
            raise FormatError(
                file,
                f"line {number}: unknown class {words[0]!r}",
                f"KITTI has {', '.join(known)} and {DONT_CARE}",
            )
        if not np.isfinite(row).all() or (words[0] != DONT_CARE and min(row[7:10]) <= 0):
            raise FormatError(
                file, f"line {number}: a box of size {row[7:10]} at {row[10:13]}", "mend the line"
            )
        names.append(words[0])
        rows.append(row)
    table = np.array(rows, np.float64).reshape(len(rows), -1 if rows else 14)
    return KittiLabels(
        tuple(names),
        truncated=table[:, 0],
        occluded=table[:, 1].astype(np.int64),
        alpha=table[:, 2],
        image_boxes=table[:, 3:7],
        sizes=table[:, 7:10],
        centres=table[:, 10:13],
        rotation_y=table[:, 13],
        scores=table[:, 14] if table.shape[1] > 14 else None,
    )


def boxes_from_kitti(
    labels: KittiLabels,
    calibration: KittiCalibration,
    classes: tuple[str, ...] = KITTI_CLASSES,
) -> Boxes3D:
    """Boxes in the LiDAR frame: geometric centres, length, width, height, yaw from +x.

    The bottom's centre is moved into the LiDAR frame, the box stands upright on it there, and the
    yaw is ``-rotation_y - pi / 2``. Since the camera is tilted against the LiDAR by half a degree, the
    top moves by a centimetre or two; released detectors of KITTI learned boxes of this convention.

    Args:
        labels: M lines; those of a type that is not in `classes` are left out.
        calibration: of the same scan.
        classes: the position of a type is its label.
    """
    kept = np.array([name in classes for name in labels.names], bool)
    kinds = [classes.index(name) for name in labels.names if name in classes]
    sizes, centres = (
        labels.sizes[kept],
        transform(calibration.lidar_from_rect, labels.centres[kept]),
    )
    centres[:, 2] += sizes[:, 0] / 2
    yaw = wrap(-labels.rotation_y[kept] - np.pi / 2)
    boxes = np.concatenate([centres, sizes[:, ::-1], yaw[:, None]], axis=1)
    return Boxes3D(boxes.astype(np.float32), np.array(kinds, np.int64))


def kitti_from_boxes(
    boxes: Boxes3D,
    calibration: KittiCalibration,
    classes: tuple[str, ...] = KITTI_CLASSES,
    *,
    scores: NDArray[np.floating] | None = None,
    image_size: tuple[int, int] | None = None,
) -> KittiLabels:
    """The lines for boxes in the LiDAR frame; undoes :func:`boxes_from_kitti`.

    The box in the image is the one around the eight corners in camera 2, cut to the image where
    its size is given; truncation and occlusion are unknown and written -1, as in result files.

    Args:
        boxes: M boxes.
        calibration: of the scan.
        classes: names of the labels.
        scores: ``[M]``, for a result file.
        image_size: width and height in pixels.
    """
    rows = boxes.boxes.astype(np.float64)
    bottoms = rows[:, :3] - rows[:, 5:6] * [0, 0, 0.5]
    centres = transform(calibration.rect_from_lidar, bottoms).astype(np.float64, copy=False)
    rotation_y = wrap(-rows[:, 6] - np.pi / 2)
    labels = KittiLabels(
        tuple(classes[label] for label in boxes.labels),
        truncated=np.full(len(rows), -1.0),
        occluded=np.full(len(rows), -1, np.int64),
        alpha=wrap(rotation_y - np.arctan2(centres[:, 0], centres[:, 2])),
        image_boxes=np.zeros((len(rows), 4)),
        sizes=rows[:, [5, 4, 3]],
        centres=centres,
        rotation_y=rotation_y,
        scores=None if scores is None else np.asarray(scores, np.float64),
    )
    if 2 in calibration.projections and len(rows):
        labels.image_boxes[:] = _image_boxes(labels, calibration.projections[2], image_size)
    return labels


def _image_boxes(labels: KittiLabels, projection: Floats, size: tuple[int, int] | None) -> Floats:
    """``[M, 4]``: around the corners that lie in front of the camera."""
    height, width, length = labels.sizes.T
    along = np.array([1, 1, -1, -1, 1, 1, -1, -1]) * length[:, None] / 2
    across = np.array([1, -1, -1, 1, 1, -1, -1, 1]) * width[:, None] / 2
    up = -np.array([0, 0, 0, 0, 1, 1, 1, 1]) * height[:, None]
    cos, sin = np.cos(labels.rotation_y)[:, None], np.sin(labels.rotation_y)[:, None]
    corners = np.stack([cos * along + sin * across, up, cos * across - sin * along], axis=2)
    corners += labels.centres[:, None]
    pixels = corners @ projection[:, :3].T + projection[:, 3]
    pixels[..., :2] /= np.maximum(pixels[..., 2:], 0.1)
    u, v = pixels[..., 0], pixels[..., 1]
    around = np.stack([u.min(1), v.min(1), u.max(1), v.max(1)], axis=1)
    if size is not None:
        around = np.clip(around, 0, np.array([size[0] - 1, size[1] - 1] * 2))
    return around


def format_kitti(labels: KittiLabels) -> str:
    """The text of a label file, or of a result file where there are scores.

    Six decimals: a box read back is the same to a micrometre.
    """
    lines = []
    for i, name in enumerate(labels.names):
        numbers = [
            labels.alpha[i],
            *labels.image_boxes[i],
            *labels.sizes[i],
            *labels.centres[i],
            labels.rotation_y[i],
        ]
        if labels.scores is not None:
            numbers.append(labels.scores[i])
        text = " ".join(f"{value:.6f}" for value in numbers)
        lines.append(f"{name} {labels.truncated[i]:.2f} {labels.occluded[i]} {text}\n")
    return "".join(lines)
