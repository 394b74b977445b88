"""Rigid motions as 4x4 matrices: ``world_from_sensor @ point``."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["as_pose", "interpolate", "invert", "transform"]


def as_pose(matrix: ArrayLike, what: str = "pose") -> NDArray[np.float64]:
    """``matrix`` as a ``[4, 4] float64`` rigid motion; ``[3, 4]`` gains its last row.

    Raises:
        ValueError: another shape, a value that is not finite, or a rotation part that is no rotation
            (1e-3: text files carry few digits).
    """
    pose = np.array(matrix, dtype=np.float64)
    if pose.shape == (3, 4):
        pose = np.vstack([pose, [0.0, 0.0, 0.0, 1.0]])
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise ValueError(f"{what} must be [4, 4] or [3, 4] and finite, got {list(pose.shape)}")
    turn = pose[:3, :3]
    if np.abs(turn @ turn.T - np.eye(3)).max() > 1e-3 or np.linalg.det(turn) < 0:
        raise ValueError(f"{what}: its rotation part is no rotation; is it row-major [R | t]?")
    return pose


def transform(pose: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.floating]:
    """``[N, 3]`` points in the frame that ``pose [4, 4]`` leads to; computed in float64, in the dtype given."""
    moved = np.asarray(points, np.float64) @ pose[:3, :3].T + pose[:3, 3]
    return moved.astype(np.asarray(points).dtype, copy=False)


def invert(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of a rigid motion, exact to rounding: ``invert(a_from_b) = b_from_a``."""
    back = np.eye(4)
    back[:3, :3] = pose[:3, :3].T
    back[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return back


def interpolate(
    times: NDArray[np.floating], poses: NDArray[np.float64], at: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Poses between known ones: linear in translation, spherical-linear in rotation.

    Args:
        times: ``[P]`` seconds, increasing.
        poses: ``[P, 4, 4]``.
        at: ``[Q]`` seconds; outside ``times`` the nearest end is taken.

    Returns:
        ``[Q, 4, 4] float64``.
    """
    times, at = np.asarray(times, np.float64), np.asarray(at, np.float64)
    if len(times) == 1:
        return np.repeat(poses[:1], len(at), axis=0)
    right = np.clip(np.searchsorted(times, at), 1, len(times) - 1)
    left = right - 1
    share = np.clip((at - times[left]) / (times[right] - times[left]), 0.0, 1.0)
    start, stop = poses[left], poses[right]
    relative = np.swapaxes(start[:, :3, :3], 1, 2) @ stop[:, :3, :3]
    cosine = np.clip((np.trace(relative, axis1=1, axis2=2) - 1) / 2, -1.0, 1.0)
    angle = np.arccos(cosine)
    skew = (relative - np.swapaxes(relative, 1, 2)) / 2
    sine = np.sin(angle)
    # Rodrigues: R(s * angle); for small angles sin(s a)/sin(a) -> s. Half turns have no short way.
    small = sine < 1e-9
    safe = np.where(small, 1.0, sine)
    first = np.where(small, share, np.sin(share * angle) / safe)[:, None, None]
    axis = skew / safe[:, None, None]
    second = (1 - np.cos(share * angle))[:, None, None] * (axis @ axis)
    result = np.tile(np.eye(4), (len(at), 1, 1))
    result[:, :3, :3] = start[:, :3, :3] @ (np.eye(3) + first * skew + second)
    result[:, :3, 3] = (1 - share)[:, None] * start[:, :3, 3] + share[:, None] * stop[:, :3, 3]
    return result
