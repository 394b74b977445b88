"""Quaternions, and the headings of upright boxes in frames that are tilted to each other.

A box is upright in the frame of its data set and upright in the LiDAR's, although these differ by
a degree or two. Its heading is taken over as the direction of its length seen from above.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["matrices", "pose_matrices", "quaternions", "wrap", "yaw_back"]

Floats = NDArray[np.float64]


def matrices(quaternions: ArrayLike) -> Floats:
    """Rotation matrices ``[..., 3, 3]`` of quaternions ``[..., 4]`` (w, x, y, z), any length > 0.

    Raises:
        ValueError: one is zero or not finite.
    """
    q = np.asarray(quaternions, np.float64)
    length = np.sqrt(np.einsum("...i,...i->...", q, q))
    if q.shape[-1:] != (4,) or not (np.isfinite(length).all() and (length > 1e-6).all()):
        raise ValueError(f"quaternions must be finite, not zero, [..., 4]; got {list(q.shape)}")
    w, x, y, z = np.moveaxis(q / length[..., None], -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def pose_matrices(translations: ArrayLike, quaternions: ArrayLike) -> Floats:
    """Poses ``[..., 4, 4]`` of translations ``[..., 3]`` and quaternions ``[..., 4]`` (w, x, y, z)."""
    turn = matrices(quaternions)
    poses = np.zeros((*turn.shape[:-2], 4, 4))
    poses[..., :3, :3] = turn
    poses[..., :3, 3] = translations
    poses[..., 3, 3] = 1
    return poses


def quaternions(yaw: ArrayLike) -> Floats:
    """Quaternions ``[M, 4]`` (w, x, y, z) of turns ``[M]`` about z."""
    half = np.asarray(yaw, np.float64) / 2
    zero = np.zeros_like(half)
    return np.stack([np.cos(half), zero, zero, np.sin(half)], axis=-1)


def wrap(angle: ArrayLike) -> Floats:
    """Angles in [-pi, pi)."""
    return (np.asarray(angle, np.float64) + np.pi) % (2 * np.pi) - np.pi


def yaw_back(rotation: Floats, yaw: ArrayLike) -> Floats:
    """Headings ``[M]`` in frame a of boxes upright there that have these headings in frame b.

    Args:
        rotation: ``[3, 3]`` b_from_a.
        yaw: ``[M]`` directions of lengths seen from above in b.
    """
    angle = np.asarray(yaw, np.float64)
    cos, sin = np.cos(angle), np.sin(angle)
    # The direction in b that looks like this from above and is level in a.
    rise = -(rotation[0, 2] * cos + rotation[1, 2] * sin) / rotation[2, 2]
    ahead = rotation.T @ np.stack([cos, sin, rise])
    return np.arctan2(ahead[1], ahead[0])
