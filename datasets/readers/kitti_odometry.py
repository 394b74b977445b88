"""KITTI odometry: https://www.cvlibs.net/datasets/kitti/eval_odometry.php."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.datasets.readers.index import Arrays, Names, cached, progress
from perception.datasets.readers.kitti_calibration import KittiCalibration, read_calibration
from perception.datasets.readers.kitti_object import image_file, kitti_image
from perception.datasets.readers.scan_files import position, read_velodyne, stems, subfolder
from perception.datasets.sample import Sample
from perception.io import FormatError

__all__ = ["KittiOdometry", "read_poses"]

_CAMERAS = {f"image_{number}": number for number in range(4)}


class KittiOdometry:
    """The drives of KITTI odometry: 10 Hz scans with poses; no labels.

    ``root`` holds ``sequences/SS/{velodyne,calib.txt,times.txt,image_2,…}`` and ``poses/SS.txt``;
    poses may also lie in ``sequences/SS/poses.txt``, as SemanticKITTI has them, which are taken
    first. A pose file's line *i* belongs to scan *i*.

    Poses are given for camera 0; the pose of a sample is that of the LiDAR: ``inv(Tr) P Tr``, so
    that the world is the LiDAR frame of the drive's first scan.

    Args:
        root: the folder, or the one above its ``dataset``.
        split: ``train`` (drives 00 to 10) or ``test`` (11 to 21).
        drives: the drives to read (``"00"``, ``"08"``), instead of a split's.
        cameras: folders of images to attach (``image_0`` to ``image_3``); None: those that are
            there in every drive.

    Raises:
        FileNotFoundError: a folder is missing, or none of the split's drives is there.
        FormatError: a pose, time or calibration file is damaged or too short.
        ValueError: an unknown split or camera.

    Warns:
        UserWarning: some of the split's drives are not there.
    """

    classes: tuple[str, ...] = ()
    colors: NDArray[np.uint8] = np.zeros((0, 3), np.uint8)
    box_classes: tuple[str, ...] = ()
    #: Drives of each split.
    splits: dict[str, tuple[str, ...]] = {  # noqa: RUF012 - constant
        "train": tuple(f"{number:02d}" for number in range(11)),
        "test": tuple(f"{number:02d}" for number in range(11, 22)),
    }
    _of = "KITTI odometry"

    def __init__(
        self,
        root: str | PathLike[str],
        split: str = "train",
        *,
        drives: Sequence[str] | None = None,
        cameras: Sequence[str] | None = None,
    ) -> None:
        kind = type(self).__name__
        self._root = subfolder(root, ("sequences", "dataset/sequences"), of=self._of)
        if split not in self.splits:
            raise ValueError(f"{kind}: unknown split {split!r}; known are {', '.join(self.splits)}")
        self.drives = self._present(
            self.splits[split] if drives is None else drives, drives is None
        )
        arrays = cached(
            "odometry-1", self._root, self._sources(), self._index, options=" ".join(self.drives)
        )
        self._stems, self._times, self._poses = arrays["stems"], arrays["times"], arrays["poses"]
        starts = arrays["starts"].tolist()
        self._starts = arrays["starts"]
        self.sequences = [range(a, b) for a, b in pairwise(starts)]
        self.names: Sequence[str] = Names(arrays["names"])
        self._calibrations = [self._calibration(drive) for drive in self.drives]
        self._cameras = self._find_cameras(cameras)

    def _present(self, wanted: Sequence[str], may_lack: bool) -> tuple[str, ...]:
        there = tuple(drive for drive in wanted if (self._root / drive / "velodyne").is_dir())
        missing = [drive for drive in wanted if drive not in there]
        if missing and (not may_lack or not there):
            raise FileNotFoundError(
                f"{self._root / missing[0] / 'velodyne'}: no such folder; unpack the velodyne archive of "
                f"{self._of} there"
            )
        if missing:
            warnings.warn(
                f"{self._root}: drives {', '.join(missing)} of the split are not there; "
                f"reading {', '.join(there)}",
                stacklevel=3,
            )
        return there

    def _sources(self) -> Iterator[Path]:
        for drive in self.drives:
            for name in ("velodyne", "poses.txt", "times.txt", "calib.txt"):
                yield self._root / drive / name
            yield self._root.parent / "poses" / f"{drive}.txt"

    def _index(self) -> Arrays:
        """Names, times and camera-0 poses moved to the LiDAR, drive after drive."""
        numbers, times, poses, names, starts = [], [], [], [], [0]
        with progress(len(self.drives), f"indexing {self._root}", "drive") as bar:
            for drive in self.drives:
                folder = self._root / drive
                found = stems(folder / "velodyne", ".bin", what="the drive's scans")
                rows = _rows(folder, found)
                times.append(self._drive_times(folder, rows))
                poses.append(self._drive_poses(drive, rows))
                names.append(np.char.add(f"{drive}/".encode(), found))
                numbers.append(found)
                starts.append(starts[-1] + len(found))
                bar.update()
        return {
            "stems": np.concatenate(numbers),
            "times": np.concatenate(times),
            "poses": np.concatenate(poses),
            "names": np.concatenate(names),
            "starts": np.array(starts, np.int64),
        }

    def _drive_times(self, folder: Path, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        file = folder / "times.txt"
        if not file.is_file():
            return np.full(len(rows), np.nan)
        return _pick(file, _table(file, 1)[:, 0], rows)

    def _drive_poses(self, drive: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """``[N, 3, 4]``, NaN where the drive has no poses."""
        folder = self._root / drive
        for file in (folder / "poses.txt", self._root.parent / "poses" / f"{drive}.txt"):
            if file.is_file():
                motion = self._calibration(drive).rect_from_lidar
                camera = _pick(file, read_poses(file), rows)
                return (np.linalg.inv(motion) @ camera @ motion)[:, :3]
        return np.full((len(rows), 3, 4), np.nan)

    def _calibration(self, drive: str) -> KittiCalibration:
        return read_calibration(self._root / drive / "calib.txt")

    def _find_cameras(self, cameras: Sequence[str] | None) -> tuple[str, ...]:
        for name in cameras or ():
            if name not in _CAMERAS:
                raise ValueError(
                    f"{type(self).__name__}: unknown camera {name!r}; known are {', '.join(_CAMERAS)}"
                )
        there = []
        for name in _CAMERAS if cameras is None else cameras:
            missing = [d for d in self.drives if not (self._root / d / name).is_dir()]
            if not missing:
                there.append(name)
            elif cameras is not None:
                raise FileNotFoundError(
                    f"{self._root / missing[0] / name}: no such folder; unpack the images there, "
                    "or leave them out of cameras="
                )
        return tuple(there)

    def __len__(self) -> int:
        return len(self._stems)

    def _locate(self, index: int) -> tuple[int, Path, str]:
        """Number of the drive, its folder, and the stem of the scan's files."""
        drive = int(np.searchsorted(self._starts, index, side="right")) - 1
        return drive, self._root / self.drives[drive], bytes(self._stems[index]).decode()

    def __getitem__(self, index: int) -> Sample:
        """One scan: attribute ``intensity`` 0..1, ``pose`` and ``time`` where known, ``images``."""
        index = position(index, len(self))
        drive, folder, stem = self._locate(index)
        time = None if np.isnan(self._times[index]) else float(self._times[index])
        pose = None
        if not np.isnan(self._poses[index, 0, 0]):
            pose = np.vstack([self._poses[index], [0, 0, 0, 1]])
        cloud = read_velodyne(folder / "velodyne" / f"{stem}.bin", time=time)
        images = tuple(
            kitti_image(
                image_file(folder / name, stem),
                self._calibrations[drive],
                _CAMERAS[name],
                name,
                time,
            )
            for name in self._cameras
        )
        return Sample(cloud, pose=pose, name=self.names[index], images=images, time=time)


def read_poses(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """Poses ``[N, 4, 4]`` of a file with twelve numbers a line, the rows of ``[3, 4]`` matrices.

    Raises:
        FormatError: a line has other than twelve numbers, or its rotation part is no rotation.
    """
    file = Path(path)
    rows = _table(file, 12)
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = rows.reshape(-1, 3, 4)
    turns = poses[:, :3, :3]
    # Text files carry few digits, and errors grow with the drive.
    wrong = np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max((1, 2)) > 1e-2
    if wrong.any():
        line = int(wrong.argmax()) + 1
        raise FormatError(file, f"line {line} is no rigid motion", "copy the file again")
    return poses


def _table(file: Path, columns: int) -> NDArray[np.float64]:
    """``[N, columns]`` finite numbers of a text file."""
    try:
        table = np.loadtxt(file, dtype=np.float64, ndmin=2)
    except (ValueError, OSError) as error:
        raise FormatError(file, f"is no table of numbers ({error})", "copy it again") from None
    if table.shape[1] != columns or not np.isfinite(table).all():
        raise FormatError(
            file,
            f"has {table.shape[1]} columns, expected {columns} finite numbers a line",
            "copy it again",
        )
    return table


def _rows(folder: Path, found: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Scan numbers: the lines of a drive's tables."""
    try:
        return found.astype(np.int64)
    except ValueError:
        name = next(stem for stem in found.tolist() if not stem.isdigit()).decode()
        raise FormatError(
            folder / "velodyne" / f"{name}.bin", "is not named by a number", "move it elsewhere"
        ) from None


def _pick(file: Path, table: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    if int(rows.max()) >= len(table):
        raise FormatError(
            file,
            f"has {len(table)} lines, scan {int(rows.max())} needs {int(rows.max()) + 1}",
            "the file is cut or of another drive; copy it again",
        )
    return table[rows]
