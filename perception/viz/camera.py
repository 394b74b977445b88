"""Cameras: where a picture is taken from, and where it puts a point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float32]
NEAREST = 1e-3  # share of the distance to the target at which the camera's near plane lies


@dataclass(frozen=True)
class Camera:
    """A pinhole or parallel camera in the frame of the points.

    Attributes:
        eye: ``[3]`` position, metres.
        rotation: ``[3, 3]`` rows: the directions of a pixel's right, of its down, and of view.
        focal: pixels per radian in the middle (pinhole), or pixels per metre (parallel).
        size: width and height of the picture in pixels.
        distance: metres from the eye to what it looks at.
        parallel: whether the rays are parallel.
    """

    eye: NDArray[np.float64]
    rotation: NDArray[np.float64]
    focal: float
    size: tuple[int, int]
    distance: float
    parallel: bool = False

    def project(self, points: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Where points appear.

        Args:
            points: ``[N, 3]`` in the frame of the camera.

        Returns:
            Column and row ``[N, 2]``, depth ``[N]`` (metres along the view; what lies behind the
            near plane is NaN), pixels per metre ``[N]``; float32.
        """
        local = (np.asarray(points, dtype=np.float64) - self.eye) @ self.rotation.T
        depth = local[:, 2]
        depth = np.where(depth > NEAREST * self.distance, depth, np.nan)
        scale = np.full(len(depth), self.focal) if self.parallel else self.focal / depth
        pixels = local[:, :2] * scale[:, None] + np.array(self.size) / 2.0
        return pixels.astype(np.float32), depth.astype(np.float32), scale.astype(np.float32)

    def scaled(self, factor: int) -> Camera:
        """The same view with `factor` times the pixels per side."""
        width, height = self.size
        return Camera(
            self.eye,
            self.rotation,
            self.focal * factor,
            (width * factor, height * factor),
            self.distance,
            self.parallel,
        )


def look(
    target: ArrayLike,
    azimuth: float,
    elevation: float,
    distance: float,
    size: tuple[int, int],
    *,
    view_angle: float = 50.0,
) -> Camera:
    """A pinhole camera that looks at a point.

    Args:
        target: ``[3]`` metres.
        azimuth: degrees counter-clockwise from +x, the direction of view.
        elevation: degrees above the horizon at which the camera stands.
        distance: metres from camera to target.
        size: width and height in pixels.
        view_angle: degrees that the width of the picture spans.
    """
    turn, rise = np.radians(azimuth), np.radians(elevation)
    view = np.array(
        [np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), -np.sin(rise)], dtype=np.float64
    )
    right = np.array([np.sin(turn), -np.cos(turn), 0.0])
    rotation = np.stack([right, np.cross(view, right), view])
    focal = size[0] / 2 / np.tan(np.radians(view_angle) / 2)
    eye = np.asarray(target, dtype=np.float64) - view * distance
    return Camera(eye, rotation, float(focal), size, float(distance))


def fit_box(
    low: ArrayLike,
    high: ArrayLike,
    azimuth: float,
    elevation: float,
    size: tuple[int, int],
    *,
    view_angle: float = 50.0,
    margin: float = 1.05,
) -> Camera:
    """The nearest pinhole camera from a direction that sees a whole box ``[3]``, ``[3]``."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), -1).reshape(-1, 3)
    target = (low + high) / 2
    camera = look(target, azimuth, elevation, 1.0, size, view_angle=view_angle)
    local = (corners - target) @ camera.rotation.T
    half = np.array(size) / 2 / margin
    # |local_xy| * focal / (distance + local_z) <= half
    distance = float((np.abs(local[:, :2]) * camera.focal / half - local[:, 2:3]).max())
    distance = max(distance, 1e-3, float(np.abs(local[:, 2]).max()) * 1.01)
    # Perspective moves the box up or down in the picture: centre what is seen of it.
    view = look(target, azimuth, elevation, distance, size, view_angle=view_angle)
    pixels = view.project(corners)[0]
    shift = (pixels.min(axis=0) + pixels.max(axis=0)) / 2 - np.array(size) / 2
    moved = target + (shift @ view.rotation[:2]) * distance / view.focal
    return look(moved, azimuth, elevation, distance, size, view_angle=view_angle)


def above(
    low: ArrayLike, high: ArrayLike, size: tuple[int, int], *, up: str = "x", margin: float = 1.03
) -> Camera:
    """A parallel camera straight above a box, with +x (`up` = "x") or +y at the upper edge."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    down_view = np.array([0.0, 0.0, -1.0])
    right = np.array([0.0, -1.0, 0.0]) if up == "x" else np.array([1.0, 0.0, 0.0])
    rotation = np.stack([right, np.cross(down_view, right), down_view])
    extent = np.abs((high - low) @ rotation.T)
    focal = float(min(size[0] / max(extent[0], 1e-6), size[1] / max(extent[1], 1e-6)) / margin)
    centre = (low + high) / 2
    # High enough that no outlier above the box lies behind the camera.
    distance = float(max(extent[2], *extent[:2], 1e-3) * 4)
    eye = np.array([centre[0], centre[1], high[2] + distance])
    return Camera(eye, rotation, focal, size, distance, parallel=True)
