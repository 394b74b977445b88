"""KITTI's calibration files: of the object benchmark (one a scan) and of odometry (one a drive)."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.geometry import Camera
from perception.io import FormatError
from perception.io.files import existing_file

__all__ = ["KittiCalibration", "read_calibration"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class KittiCalibration:
    """How the LiDAR, the rectified camera frame and the images of KITTI lie to each other.

    Attributes:
        rect_from_lidar: ``[4, 4]``: from the LiDAR (x forward, y left, z up) to the rectified frame
            of camera 0 (x right, y down, z forward), that boxes and poses are given in.
        projections: ``[3, 4]`` of the cameras that the file has, by number (2 = left colour):
            pixels from the rectified frame.
    """

    rect_from_lidar: Floats
    projections: dict[int, Floats]

    @property
    def lidar_from_rect(self) -> Floats:
        """``[4, 4]``; the true inverse, although seven digits leave no perfect rotation."""
        return np.linalg.inv(self.rect_from_lidar).astype(np.float64, copy=False)

    def camera(self, number: int, width: int, height: int) -> Camera:
        """Camera `number` of images of a size, its pose in the LiDAR frame.

        Its intrinsics are the left three columns of the projection, as the file has them.

        Raises:
            KeyError: the file has no such camera.
        """
        projection = self.projections[number]
        offset = np.linalg.solve(projection[:, :3], projection[:, 3])
        pose = self.lidar_from_rect @ np.block(
            [[np.eye(3), -offset[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]]
        )
        return Camera(projection[:, :3], width, height, pose)


def read_calibration(path: str | PathLike[str]) -> KittiCalibration:
    """Read ``calib/NAME.txt`` of the object benchmark or ``calib.txt`` of an odometry drive.

    Raises:
        FileNotFoundError: there is no such file.
        FormatError: a matrix is missing, of another size, or no rigid motion.
    """
    file = existing_file(path)
    rows: dict[str, Floats] = {}
    try:
        for line in file.read_text().splitlines():
            key, colon, numbers = line.partition(":")
            if colon:
                rows[key.strip()] = np.array([float(word) for word in numbers.split()])
    except ValueError as error:
        raise FormatError(file, f"is no calibration ({error})", "copy it again") from None
    projections = {
        number: _shaped(file, rows, f"P{number}", (3, 4))
        for number in range(4)
        if f"P{number}" in rows
    }
    rect_from_lidar = np.eye(4)
    if "Tr" in rows:
        rect_from_lidar[:3] = _shaped(file, rows, "Tr", (3, 4))
    else:
        rectify, camera_from_lidar = np.eye(4), np.eye(4)
        rectify[:3, :3] = _shaped(file, rows, "R0_rect" if "R0_rect" in rows else "R_rect", (3, 3))
        name = "Tr_velo_to_cam" if "Tr_velo_to_cam" in rows else "Tr_velo_cam"
        camera_from_lidar[:3] = _shaped(file, rows, name, (3, 4))
        rect_from_lidar = rectify @ camera_from_lidar
    turn = rect_from_lidar[:3, :3]
    if np.abs(turn @ turn.T - np.eye(3)).max() > 1e-3 or np.linalg.det(turn) < 0:
        raise FormatError(file, "the way from LiDAR to camera is no rigid motion", "copy it again")
    return KittiCalibration(rect_from_lidar, projections)


def _shaped(file: Path, rows: dict[str, Floats], key: str, shape: tuple[int, int]) -> Floats:
    if key not in rows:
        raise FormatError(
            file, f"has no line {key}: (but {', '.join(rows) or 'none'})", "copy it again"
        )
    values = rows[key]
    if values.size != shape[0] * shape[1] or not np.isfinite(values).all():
        raise FormatError(
            file,
            f"{key} has {values.size} numbers, expected {shape[0] * shape[1]}",
            "copy it again",
        )
    return values.reshape(shape)
