"""Cameras: where a point in space falls in an image, and the ray of a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.geometry.poses import as_pose, invert, transform

__all__ = ["Camera"]


@dataclass(frozen=True, eq=False)
class Camera:
    """A calibrated camera; its own frame is OpenCV's: x right, y down, z forward, metres.

    Attributes:
        intrinsics: ``[3, 3] float64``: fx, fy, cx, cy in pixels. The centre of the top left pixel is
            (0.5, 0.5).
        width, height: of the image, pixels.
        pose: ``[4, 4] float64``, frame_from_camera: the frame is the LiDAR's of the sample that the
            camera belongs to, or the world in a collection of posed images.
        distortion: ``[k] float64`` in OpenCV's order: k1, k2, p1, p2[, k3[, k4, k5, k6]] (Brown-Conrady),
            or k1, k2, k3, k4 of the equidistant fisheye model. Empty: none.
        fisheye: which of the two ``distortion`` means.

    Raises:
        ValueError: a shape, focal length or size that no camera has.
    """

    intrinsics: NDArray[np.float64]
    width: int
    height: int
    pose: NDArray[np.float64]
    distortion: NDArray[np.float64] = ()  # type: ignore[assignment]
    fisheye: bool = False

    def __post_init__(self) -> None:
        intrinsics = np.array(self.intrinsics, np.float64)
        distortion = np.array(self.distortion, np.float64).reshape(-1)
        if intrinsics.shape != (3, 3) or not np.isfinite(intrinsics).all():
            raise ValueError(
                f"Camera: intrinsics must be a finite [3, 3], got {list(intrinsics.shape)}"
            )
        if intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0 or self.width < 1 or self.height < 1:
            raise ValueError(
                f"Camera: focal lengths {intrinsics[0, 0]:g}, {intrinsics[1, 1]:g} and size "
                f"{self.width} x {self.height} must be positive"
            )
        if len(distortion) not in ((0, 4) if self.fisheye else (0, 4, 5, 8)):
            raise ValueError(f"Camera: {len(distortion)} distortion coefficients fit no model")
        object.__setattr__(self, "intrinsics", intrinsics)
        object.__setattr__(self, "distortion", distortion)
        object.__setattr__(self, "pose", as_pose(self.pose, "Camera: pose"))

    @classmethod
    def from_field_of_view(
        cls, width: int, height: int, horizontal: float, pose: NDArray[np.float64]
    ) -> Camera:
        """A pinhole camera with square pixels; ``horizontal`` field of view in radians."""
        focal = width / (2 * np.tan(horizontal / 2))
        matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
        return cls(matrix, width, height, pose)

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the image scaled to another size."""
        scale = np.diag([width / self.width, height / self.height, 1.0])
        return Camera(
            scale @ self.intrinsics, width, height, self.pose, self.distortion, self.fisheye
        )

    def moved(self, motion: NDArray[np.float64]) -> Camera:
        """The camera with its pose in another frame: ``motion`` is new_from_old, ``[4, 4]``."""
        return Camera(
            self.intrinsics,
            self.width,
            self.height,
            motion @ self.pose,
            self.distortion,
            self.fisheye,
        )

    def project(
        self, points: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixels ``[N, 2]`` (u right, v down) and depths ``[N]`` in metres of points ``[N, 3]``.

        Points behind the camera have a depth that is not positive and pixels that mean nothing.
        """
        local: NDArray[np.float64] = transform(
            invert(self.pose), np.asarray(points, np.float64)
        ).astype(np.float64, copy=False)
        depth = local[:, 2]
        plane = local[:, :2] / np.where(depth == 0, 1e-12, depth)[:, None]
        plane = self._distort(plane)
        pixels = plane @ self.intrinsics[:2, :2].T + self.intrinsics[:2, 2]
        return pixels, depth

    def rays(
        self, pixels: NDArray[np.floating] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Origin ``[3]`` and unit directions ``[N, 3]`` of pixels ``[N, 2]``, in the pose's frame.

        Without ``pixels``, the centres of all pixels, row after row.
        """
        if pixels is None:
            v, u = np.mgrid[0 : self.height, 0 : self.width]
            pixels = np.stack([u.ravel(), v.ravel()], axis=1) + 0.5
        offset = np.asarray(pixels, np.float64) - self.intrinsics[:2, 2]
        plane = np.linalg.solve(self.intrinsics[:2, :2], offset.T).T
        plane = self._undistort(plane.astype(np.float64, copy=False))
        local = np.concatenate([plane, np.ones((len(plane), 1))], axis=1)
        local /= np.linalg.norm(local, axis=1, keepdims=True)
        return self.pose[:3, 3].copy(), local @ self.pose[:3, :3].T

    def _undistort(self, bent: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fixed-point iterations; they contract for what lenses have.

        A fisheye's run over the angle from its axis, since the plane z = 1 ends at 90 degrees.
        """
        if len(self.distortion) == 0:
            return bent
        if self.fisheye:
            radius = np.linalg.norm(bent, axis=1)
            angle, k = radius, self.distortion
            for _ in range(30):
                a2 = angle * angle
                angle = radius / (1 + a2 * (k[0] + a2 * (k[1] + a2 * (k[2] + a2 * k[3]))))
            stretch = np.where(radius > 1e-9, np.tan(angle) / np.maximum(radius, 1e-9), 1.0)
            return bent * stretch[:, None]
        plane = bent
        for _ in range(30):
            plane = plane + (bent - self._distort(plane))
        return plane

    def _distort(self, plane: NDArray[np.float64]) -> NDArray[np.float64]:
        """OpenCV's two lens models on ``[N, 2]`` coordinates of the plane z = 1."""
        if len(self.distortion) == 0:
            return plane
        x, y = plane[:, 0], plane[:, 1]
        r2 = x * x + y * y
        if self.fisheye:
            r = np.sqrt(r2)
            angle = np.arctan(r)
            k = self.distortion
            a2 = angle * angle
            bent = angle * (1 + a2 * (k[0] + a2 * (k[1] + a2 * (k[2] + a2 * k[3]))))
            return plane * np.where(r > 1e-9, bent / np.maximum(r, 1e-9), 1.0)[:, None]
        k1, k2, p1, p2, k3, k4, k5, k6 = np.pad(self.distortion, (0, 8 - len(self.distortion)))
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        dx = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        dy = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        return np.stack([x * radial + dx, y * radial + dy], axis=1)
