"""KITTI object detection: https://www.cvlibs.net/datasets/kitti/eval_object.php."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.datasets.readers.index import Names
from perception.datasets.readers.kitti_calibration import KittiCalibration, read_calibration
from perception.datasets.readers.kitti_labels import (
    KITTI_CLASSES,
    KittiLabels,
    boxes_from_kitti,
    read_kitti_labels,
)
from perception.datasets.readers.scan_files import position, read_velodyne, stems, subfolder
from perception.datasets.sample import Image, Sample
from perception.io import FormatError

__all__ = ["KittiObject", "image_file", "kitti_image"]

_FOLDERS = {"train": "training", "val": "training", "trainval": "training", "test": "testing"}


class KittiObject:
    """The scans of KITTI's object benchmark with their boxes and images.

    ``root`` holds ``training/{velodyne,label_2,calib,image_2}`` and ``testing/…``, as the archives
    unpack. Scans are single moments of different drives: every sequence has one frame. Boxes are
    annotated only where camera 2 sees them.

    Args:
        root: the folder.
        split: ``train``, ``val``, ``trainval`` or ``test``. The scans are those of
            ``ImageSets/SPLIT.txt`` where that file is; else all, and there is no ``val``.
        classes: object types to keep, in the order of their labels; :data:`KITTI_CLASSES` are all.
            Others and ``DontCare`` are left out.
        cameras: folders of images to attach (``image_2``, ``image_3``); None: those that are there.
        boxes: whether to read boxes; the test split has none in any case.

    Raises:
        FileNotFoundError: a folder is missing; the message says which.
        FormatError: the split names a scan that is not there.
        ValueError: an unknown split, class or camera.
    """

    classes: tuple[str, ...] = ()
    colors: NDArray[np.uint8] = np.zeros((0, 3), np.uint8)

    def __init__(
        self,
        root: str | PathLike[str],
        split: str = "train",
        *,
        classes: Sequence[str] = KITTI_CLASSES,
        cameras: Sequence[str] | None = None,
        boxes: bool = True,
    ) -> None:
        if split not in _FOLDERS:
            raise ValueError(
                f"KittiObject: unknown split {split!r}; known are {', '.join(_FOLDERS)}"
            )
        unknown = [name for name in classes if name not in KITTI_CLASSES]
        if unknown:
            raise ValueError(
                f"KittiObject: unknown class {unknown[0]!r}; known are {', '.join(KITTI_CLASSES)}"
            )
        self.box_classes = tuple(classes)
        self._folder = subfolder(root, (_FOLDERS[split],), of="KITTI object")
        self._boxes = boxes and split != "test"
        if self._boxes:
            for name in ("label_2", "calib"):
                if not (self._folder / name).is_dir():
                    raise FileNotFoundError(
                        f"{self._folder / name}: no such folder; unpack KITTI's {name} archive there, "
                        "or take boxes=False"
                    )
        self._cameras = self._find_cameras(cameras)
        names = stems(self._folder / "velodyne", ".bin", what="KITTI's scans")
        listed = self._folder.parent / "ImageSets" / f"{split}.txt"
        if listed.is_file():
            names = _chosen(listed, names, self._folder / "velodyne")
        elif split == "val":
            raise FileNotFoundError(
                f"{listed}: no such file; KITTI itself has no validation split: list its scans there, "
                "or take split='trainval'"
            )
        self._names = names
        self.names = Names(names)
        self.sequences = [range(i, i + 1) for i in range(len(names))]

    def _find_cameras(self, cameras: Sequence[str] | None) -> tuple[tuple[str, int], ...]:
        known = {f"image_{number}": number for number in range(4)}
        if cameras is None:
            there = (self._folder / "calib").is_dir()
            return tuple(
                (name, number)
                for name, number in known.items()
                if there and (self._folder / name).is_dir()
            )
        for name in cameras:
            if name not in known:
                raise ValueError(
                    f"KittiObject: unknown camera {name!r}; known are {', '.join(known)}"
                )
            if not (self._folder / name).is_dir():
                raise FileNotFoundError(
                    f"{self._folder / name}: no such folder; unpack the images there, or take cameras=[]"
                )
        return tuple((name, known[name]) for name in cameras)

    def __len__(self) -> int:
        return len(self.names)

    def _file(self, folder: str, index: int, suffix: str) -> Path:
        return self._folder / folder / (self.names[index] + suffix)

    def calibration(self, index: int) -> KittiCalibration:
        """How LiDAR and cameras of a scan lie to each other."""
        return read_calibration(self._file("calib", position(index, len(self)), ".txt"))

    def labels(self, index: int) -> KittiLabels:
        """The lines of a scan's label file, ``DontCare`` too, for KITTI's own evaluation."""
        return read_kitti_labels(self._file("label_2", position(index, len(self)), ".txt"))

    def __getitem__(self, index: int) -> Sample:
        """One scan: attribute ``intensity`` 0..1, ``boxes``, ``images``; no pose, no time."""
        index = position(index, len(self))
        cloud = read_velodyne(self._file("velodyne", index, ".bin"))
        boxes, images = None, []
        if self._boxes or self._cameras:
            calibration = self.calibration(index)
        if self._boxes:
            boxes = boxes_from_kitti(self.labels(index), calibration, self.box_classes)
        for name, number in self._cameras:
            file = image_file(self._folder / name, self.names[index])
            images.append(kitti_image(file, calibration, number, name))
        return Sample(cloud, boxes=boxes, name=self.names[index], images=tuple(images))


def _chosen(listed: Path, there: NDArray[np.bytes_], folder: Path) -> NDArray[np.bytes_]:
    """The scans that a split file lists, in its order."""
    wanted = np.array([word.encode() for word in listed.read_text().split()], dtype=bytes)
    if len(wanted) == 0:
        raise FormatError(listed, "lists no scans", "write one number a line")
    missing = wanted[~np.isin(wanted, there)]
    if len(missing):
        raise FormatError(
            listed,
            f"lists {len(missing)} scans that {folder} has not, first {missing[0].decode()}",
            "unpack the velodyne archive completely, or shorten the list",
        )
    return wanted


def image_file(folder: Path, name: str) -> Path:
    """KITTI's images are ``.png``; many keep them as ``.jpg`` to save room."""
    file = folder / f"{name}.png"
    return (
        file if file.is_file() or not (folder / f"{name}.jpg").is_file() else folder / f"{name}.jpg"
    )


def kitti_image(
    file: Path, calibration: KittiCalibration, number: int, name: str, time: float | None = None
) -> Image:
    """An image with its camera; of the file only the head is read, for the size.

    Raises:
        FileNotFoundError: the image is missing.
        FormatError: it is none, or the calibration has no such camera.
    """
    from PIL import Image as PILImage

    if number not in calibration.projections:
        raise FormatError(
            file, f"the calibration has no line P{number}:", f"leave {name} out of cameras="
        )
    try:
        with PILImage.open(file) as head:
            width, height = head.size
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{file}: no such image; unpack it, or leave it out of cameras="
        ) from None
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:
        raise FormatError(file, f"is no readable image ({error})", "copy it again") from None
    return Image(calibration.camera(number, width, height), file, time=time, name=name)
