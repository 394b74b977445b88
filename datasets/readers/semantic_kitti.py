"""SemanticKITTI: http://www.semantic-kitti.org, labels for the scans of KITTI odometry.

Classes, colours and split are those of ``config/semantic-kitti.yaml`` of
https://github.com/PRBonn/semantic-kitti-api (single-scan task).
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from perception.datasets.readers.kitti_odometry import KittiOdometry
from perception.datasets.readers.scan_files import position
from perception.datasets.sample import IGNORE, Sample
from perception.io import FormatError, read_labels

__all__ = ["CLASSES", "COLORS", "RAW_CLASSES", "RAW_TO_CLASS", "SemanticKitti", "raw_labels"]

#: The 19 classes of the single-scan task; the position is the label.
CLASSES = (
    "car",
    "bicycle",
    "motorcycle",
    "truck",
    "other-vehicle",
    "person",
    "bicyclist",
    "motorcyclist",
    "road",
    "parking",
    "sidewalk",
    "other-ground",
    "building",
    "fence",
    "vegetation",
    "trunk",
    "terrain",
    "pole",
    "traffic-sign",
)

#: ``[19, 3]`` RGB.
COLORS: NDArray[np.uint8] = np.array(
    [
        [100, 150, 245],
        [100, 230, 245],
        [30, 60, 150],
        [80, 30, 180],
        [0, 0, 255],
        [255, 30, 30],
        [255, 40, 200],
        [150, 30, 90],
        [255, 0, 255],
        [255, 150, 255],
        [75, 0, 75],
        [175, 0, 75],
        [255, 200, 0],
        [255, 120, 50],
        [0, 175, 0],
        [135, 60, 0],
        [150, 240, 80],
        [255, 240, 150],
        [255, 0, 0],
    ],
    dtype=np.uint8,
)

#: Raw id in a ``.label`` file -> its name, and the class it counts as ("" = ignored).
RAW_CLASSES: dict[int, tuple[str, str]] = {
    0: ("unlabeled", ""),
    1: ("outlier", ""),
    10: ("car", "car"),
    11: ("bicycle", "bicycle"),
    13: ("bus", "other-vehicle"),
    15: ("motorcycle", "motorcycle"),
    16: ("on-rails", "other-vehicle"),
    18: ("truck", "truck"),
    20: ("other-vehicle", "other-vehicle"),
    30: ("person", "person"),
    31: ("bicyclist", "bicyclist"),
    32: ("motorcyclist", "motorcyclist"),
    40: ("road", "road"),
    44: ("parking", "parking"),
    48: ("sidewalk", "sidewalk"),
    49: ("other-ground", "other-ground"),
    50: ("building", "building"),
    51: ("fence", "fence"),
    52: ("other-structure", ""),
    60: ("lane-marking", "road"),
    70: ("vegetation", "vegetation"),
    71: ("trunk", "trunk"),
    72: ("terrain", "terrain"),
    80: ("pole", "pole"),
    81: ("traffic-sign", "traffic-sign"),
    99: ("other-object", ""),
    252: ("moving-car", "car"),
    253: ("moving-bicyclist", "bicyclist"),
    254: ("moving-person", "person"),
    255: ("moving-motorcyclist", "motorcyclist"),
    256: ("moving-on-rails", "other-vehicle"),
    257: ("moving-bus", "other-vehicle"),
    258: ("moving-truck", "truck"),
    259: ("moving-other-vehicle", "other-vehicle"),
}

_UNKNOWN = 254

#: ``[65536] uint8``: raw id -> label, 255 = ignore, 254 = no id of SemanticKITTI.
RAW_TO_CLASS: NDArray[np.uint8] = np.full(65536, _UNKNOWN, np.uint8)
for _id, (_, _name) in RAW_CLASSES.items():
    RAW_TO_CLASS[_id] = CLASSES.index(_name) if _name else IGNORE
RAW_TO_CLASS.setflags(write=False)


def raw_labels(labels: NDArray[np.integer]) -> NDArray[np.uint16]:
    """Raw ids ``[N]`` of labels ``[N]``, as SemanticKITTI's evaluation wants predictions.

    The first raw id of each class (``learning_map_inv``); ignored points become 0.
    """
    first = {name: raw for raw, (name, _) in RAW_CLASSES.items()}
    table = np.zeros(256, np.uint16)
    table[: len(CLASSES)] = [first[name] for name in CLASSES]
    return table[np.asarray(labels).astype(np.uint8)]


class SemanticKitti(KittiOdometry):
    """The drives of KITTI odometry with a label for every point.

    ``root`` holds ``sequences/SS/{velodyne,labels,poses.txt,calib.txt,times.txt}``. The split is the
    official one: ``train`` is 00 to 07, 09 and 10, ``val`` is 08, ``test`` is 11 to 21.

    Args:
        root: the folder, or the one above its ``dataset``.
        split: ``train``, ``val``, ``trainval`` or ``test``.
        drives: the drives to read (``"00"``), instead of a split's.
        cameras: folders of images to attach; None: those that are there in every drive.
        labels: whether to read labels; the test split has none in any case.

    Raises:
        FileNotFoundError, FormatError, ValueError: as :class:`KittiOdometry`; and labels are missing.
    """

    classes: tuple[str, ...] = CLASSES
    colors: NDArray[np.uint8] = COLORS
    splits: dict[str, tuple[str, ...]] = {  # noqa: RUF012 - constant
        "train": tuple(f"{number:02d}" for number in (0, 1, 2, 3, 4, 5, 6, 7, 9, 10)),
        "val": ("08",),
        "trainval": tuple(f"{number:02d}" for number in range(11)),
        "test": tuple(f"{number:02d}" for number in range(11, 22)),
    }
    _of = "SemanticKITTI"

    def __init__(
        self,
        root: str | PathLike[str],
        split: str = "train",
        *,
        drives: Sequence[str] | None = None,
        cameras: Sequence[str] | None = None,
        labels: bool = True,
    ) -> None:
        super().__init__(root, split, drives=drives, cameras=cameras)
        self._labels = labels and (drives is not None or split != "test")
        for drive in self.drives if self._labels else ():
            if not (self._root / drive / "labels").is_dir():
                raise FileNotFoundError(
                    f"{self._root / drive / 'labels'}: no such folder; unpack SemanticKITTI's labels "
                    "there, or take labels=False"
                )

    def __getitem__(self, index: int) -> Sample:
        """One scan, as of :class:`KittiOdometry`, with ``labels`` and ``instances``.

        Instances are the upper half of the file's numbers: the same for an object through a drive,
        0 for what is no object.
        """
        sample = super().__getitem__(index)
        if not self._labels:
            return sample
        _, folder, stem = self._locate(position(index, len(self)))
        file = folder / "labels" / f"{stem}.label"
        raw = read_labels(file, len(sample.cloud))
        labels = RAW_TO_CLASS[raw.semantic]
        if (labels == _UNKNOWN).any():
            unknown = int(raw.semantic[labels == _UNKNOWN][0])
            raise FormatError(
                file,
                f"has class {unknown}, which is none of SemanticKITTI's",
                "the file is damaged, or labelled with other classes",
            )
        sample.labels, sample.instances = labels, raw.instance.astype(np.int32)
        return sample
