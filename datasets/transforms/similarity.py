"""Similarities of a whole scene: rotation, mirror image, one scale, shift."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from perception.datasets.sample import Image, Sample
from perception.geometry import Boxes3D, Camera

__all__ = ["Similarity", "move"]

NORMALS = ("nx", "ny", "nz")
"""Attributes of a cloud that are the axes of a direction."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """``p -> scale * turn @ p + shift``.

    Attributes:
        turn: ``[3, 3] float64``, orthogonal; a mirror image where its determinant is -1.
        scale: positive.
        shift: ``[3] float64``, metres.
    """

    turn: NDArray[np.float64]
    scale: float = 1.0
    shift: NDArray[np.float64] = ()  # type: ignore[assignment]

    def __post_init__(self) -> None:
        turn = np.asarray(self.turn, np.float64)
        if turn.shape != (3, 3) or np.abs(turn @ turn.T - np.eye(3)).max() > 1e-9:
            raise ValueError("Similarity: turn must be an orthogonal [3, 3] matrix")
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"Similarity: scale={self.scale} must be positive")
        shift = np.asarray(self.shift, np.float64)
        object.__setattr__(self, "turn", turn)
        object.__setattr__(self, "shift", np.zeros(3) if shift.size == 0 else shift.reshape(3))

    @classmethod
    def about_z(cls, angle: float) -> Similarity:
        """The rotation by `angle` radians, counter-clockwise seen from above."""
        cos, sin = np.cos(angle), np.sin(angle)
        return cls(np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]))

    def __matmul__(self, first: Similarity) -> Similarity:
        """First the other one, then this one."""
        return Similarity(
            self.turn @ first.turn,
            self.scale * first.scale,
            self.scale * self.turn @ first.shift + self.shift,
        )

    @property
    def mirrors(self) -> bool:
        """Whether left becomes right."""
        return bool(np.linalg.det(self.turn) < 0)

    @property
    def upright(self) -> bool:
        """Whether what stood upright still does."""
        return bool(np.abs(self.turn[2] - (0, 0, 1)).max() < 1e-9)

    def points(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """``[N, 3] float32`` where the points ``[N, 3] float32`` go; one pass."""
        matrix = np.empty((3, 4), np.float32)
        matrix[:, :3], matrix[:, 3] = self.scale * self.turn, self.shift
        moved = np.empty_like(points)
        _affine(points, matrix, moved)
        return moved

    def vectors(self, vectors: NDArray[np.floating]) -> NDArray[np.float32]:
        """``[N, 2]`` or ``[N, 3]`` displacements or velocities: turned and scaled, not shifted."""
        axes = vectors.shape[1]
        return (vectors @ (self.scale * self.turn[:axes, :axes].T)).astype(np.float32)

    def pose(self, pose: NDArray[np.float64]) -> NDArray[np.float64]:
        """``world_from_sensor`` of the moved scan, ``[4, 4]``.

        A rigid motion leaves every point where it was in the world. A scale is one of the world as
        well, and a mirror image one of the world along its y axis, so that frames of a drive that
        are moved alike still fit together: ``new @ p' = scale * mirror @ old @ p``.
        """
        mirror = np.diag([1.0, -1.0, 1.0]) if self.mirrors else np.eye(3)
        moved = np.eye(4)
        moved[:3, :3] = mirror @ pose[:3, :3] @ self.turn.T
        moved[:3, 3] = self.scale * mirror @ pose[:3, 3] - moved[:3, :3] @ self.shift
        return moved

    def boxes(self, boxes: Boxes3D) -> Boxes3D:
        """The boxes around the moved points, with their velocities.

        Raises:
            ValueError: the similarity tilts, and boxes stand upright.
        """
        if not self.upright:
            raise ValueError("upright boxes cannot be tilted; leave out tilt where there are boxes")
        values = boxes.boxes.astype(np.float64)
        heading = np.stack([np.cos(values[:, 6]), np.sin(values[:, 6])], 1) @ self.turn[:2, :2].T
        values[:, :3] = self.scale * values[:, :3] @ self.turn.T + self.shift
        values[:, 3:6] *= self.scale
        values[:, 6] = np.arctan2(heading[:, 1], heading[:, 0])
        velocity = None if boxes.velocity is None else self.vectors(boxes.velocity)
        return Boxes3D(values.astype(np.float32), boxes.labels, velocity, boxes.track_ids)

    def image(self, image: Image) -> Image:
        """The picture of the moved scene: points keep their pixels; a mirror image is mirrored.

        A mirrored image is read into memory.
        """
        camera, pose = image.camera, np.eye(4)
        pose[:3, :3] = self.turn @ camera.pose[:3, :3]
        pose[:3, 3] = self.scale * self.turn @ camera.pose[:3, 3] + self.shift
        depth = None if image.depth is None else image.depth * np.float32(self.scale)
        if not self.mirrors:
            moved = Camera(
                camera.intrinsics,
                camera.width,
                camera.height,
                pose,
                camera.distortion,
                camera.fisheye,
            )
            return replace(image, camera=moved, depth=depth)
        pose[:3, 0] *= -1.0
        intrinsics, distortion = camera.intrinsics.copy(), camera.distortion.copy()
        intrinsics[0, 1] *= -1.0
        intrinsics[0, 2] = camera.width - intrinsics[0, 2]
        if len(distortion) and not camera.fisheye:
            distortion[3] *= -1.0  # p2, the one that is odd in x
        moved = Camera(intrinsics, camera.width, camera.height, pose, distortion, camera.fisheye)
        return replace(
            image,
            camera=moved,
            source=np.ascontiguousarray(image.pixels()[:, ::-1]),
            depth=None if depth is None else np.ascontiguousarray(depth[:, ::-1]),
        )


def move(sample: Sample, similarity: Similarity) -> Sample:
    """`sample` with points, normals, boxes, velocities, flow, pose and cameras moved together.

    Raises:
        ValueError: there are boxes and the similarity tilts.
    """
    cloud = sample.cloud
    fields = {"points": similarity.points(cloud.points)}
    if all(name in cloud.attributes for name in NORMALS):
        normals = np.stack([cloud.attributes[name] for name in NORMALS], 1) @ similarity.turn.T
        turned = dict(zip(NORMALS, normals.astype(np.float32).T, strict=True))
        cloud = cloud.with_attributes(turned)
    return replace(
        sample,
        cloud=cloud.replace(**fields),
        boxes=None if sample.boxes is None else similarity.boxes(sample.boxes),
        pose=None if sample.pose is None else similarity.pose(sample.pose),
        images=tuple(similarity.image(image) for image in sample.images),
        flow=None if sample.flow is None else similarity.vectors(sample.flow),
    )


@njit(cache=True, nogil=True, fastmath={"contract"})
def _affine(
    points: NDArray[np.float32], matrix: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    for i in range(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        for d in range(3):
            out[i, d] = matrix[d, 0] * x + matrix[d, 1] * y + matrix[d, 2] * z + matrix[d, 3]
