"""Folders of consecutive scans: in which order, with which poses and times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.datasets.readers.custom import read_trajectory
from perception.datasets.readers.kitti_calibration import read_calibration
from perception.io import FormatError

__all__ = ["Drive", "find_drive"]

POSES = ("poses.txt", "poses.tum", "trajectory.txt")
POINTS = ("velodyne", "points", "lidar")


@dataclass(frozen=True)
class Drive:
    """What is known of the scans of a drive.

    Attributes:
        poses: ``[N, 4, 4]``, world_from_sensor.
        times: ``[N]`` seconds, None where unknown.
        source: the file that the poses are from.
    """

    poses: NDArray[np.float64]
    times: NDArray[np.float64] | None
    source: Path


def find_drive(scans: Sequence[Path], poses: Path | None = None) -> Drive | None:
    """Poses of the scans of one folder.

    They are looked for beside the scans and beside their folder (``velodyne``, ``points`` or ``lidar``):
    ``poses.txt``, ``poses.tum`` or ``trajectory.txt``, twelve numbers a line as KITTI's or TUM's eight;
    and for ``sequences/SS`` in ``poses/SS.txt``. With a ``calib.txt`` beside the folder, poses of twelve
    numbers are those of KITTI's camera 0 and are moved to the LiDAR; ``times.txt`` has the times.

    Line i belongs to scan i in the order of the names; where there are more lines than scans, to
    the scan that is named by the number i.

    Args:
        scans: the files, in order.
        poses: a file of poses, instead of the search.

    Returns:
        None where there are no poses.

    Raises:
        FileNotFoundError: `poses` is not there.
        FormatError: a file is damaged, or has fewer lines than there are scans.
    """
    folder = scans[0].parent
    drive = folder.parent if folder.name in POINTS else folder
    if poses is not None and not poses.is_file():
        raise FileNotFoundError(f"{poses}: no such file of poses; check the path")
    places = [drive / name for name in POSES] + [
        drive.parent.parent / "poses" / f"{drive.name}.txt"
    ]
    if folder != drive:
        places += [folder / name for name in POSES]
    file = next((place for place in places if place.is_file()), None) if poses is None else poses
    if file is None:
        return None
    times, found = read_trajectory(file)
    rows = _rows(file, scans, len(found))
    calibration = drive / "calib.txt"
    if times is None and calibration.is_file():
        motion = read_calibration(calibration).rect_from_lidar
        found = np.linalg.inv(motion) @ found @ motion
    if times is not None:
        return Drive(found[rows], times[rows], file)
    return Drive(found[rows], _times(drive / "times.txt", scans), file)


def _times(file: Path, scans: Sequence[Path]) -> NDArray[np.float64] | None:
    if not file.is_file():
        return None
    try:
        times = np.loadtxt(file, dtype=np.float64, ndmin=1)
    except ValueError as error:
        raise FormatError(file, f"is no list of times ({error})", "copy it again") from None
    if times.ndim != 1 or not np.isfinite(times).all():
        raise FormatError(file, "is no list of times", "expected one number a line")
    return times[_rows(file, scans, len(times))]


def _rows(file: Path, scans: Sequence[Path], lines: int) -> list[int]:
    """The line of each scan."""
    if lines == len(scans):
        return list(range(lines))
    stems = [scan.name.partition(".")[0] for scan in scans]
    if lines > len(scans) and all(stem.isdigit() and int(stem) < lines for stem in stems):
        return [int(stem) for stem in stems]
    raise FormatError(
        file,
        f"has {lines} lines for {len(scans)} scans",
        "line i belongs to scan i in the order of the names; complete it",
    )
