"""How a scan looks to a sparse convolution: occupied voxels and how many neighbours they have.

These two numbers per stride decide what a network costs and what its kernels see, so they are
what the simulation is fitted to.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["REAL_SCANS", "VOXEL_SIZES", "Statistics", "voxel_statistics"]

#: Per stride (1, 2, 4, 8): (sites, mean active taps of a submanifold 3x3x3 kernel).
Statistics = tuple[tuple[int, float], ...]

VOXEL_SIZES: Final = (0.05, 0.1)

#: Measured with ``voxel_statistics`` on three public HDL-64E scans (all points of the file).
REAL_SCANS: Final[dict[str, dict[float, Statistics]]] = {
    "SemanticKITTI 000000": {
        0.05: ((94444, 3.01), (68643, 4.45), (42025, 6.35), (21312, 7.68)),
        0.1: ((68643, 4.45), (42025, 6.35), (21312, 7.68), (9483, 8.68)),
    },
    "KITTI object 000000": {
        0.05: ((79943, 4.97), (47769, 7.49), (22602, 9.20), (9114, 9.71)),
        0.1: ((47769, 7.49), (22602, 9.20), (9114, 9.71), (3501, 9.83)),
    },
    "KITTI odometry 00 000000": {
        0.05: ((91767, 3.77), (60152, 6.05), (31834, 7.47), (14467, 8.43)),
        0.1: ((60152, 6.05), (31834, 7.47), (14467, 8.43), (5925, 9.25)),
    },
}

_BITS = 21
_MASK = (1 << _BITS) - 1
_SHIFT = np.int64(1 << (_BITS - 1))


def _pack(sites: NDArray[np.int64]) -> NDArray[np.int64]:
    moved = sites + _SHIFT
    return (moved[:, 0] << (2 * _BITS)) | (moved[:, 1] << _BITS) | moved[:, 2]


def voxel_statistics(points: ArrayLike, voxel_size: float, strides: int = 4) -> Statistics:
    """Sites and mean active taps of a submanifold 3x3x3 kernel at strides 1, 2, 4, ...

    A site is ``floor(point / voxel_size)``; the sites of the next stride are the unique halves
    (rounded down) of the last. An active tap is one of the 27 displacements, zero included, under
    which another site exists.

    Args:
        points: ``[N, 3+]`` metres, within 2^20 voxels of zero.
        voxel_size: metres.
        strides: how many strides.

    Returns:
        One (sites, mean active taps) per stride.

    Raises:
        ValueError: the points are too far out for the voxel size.
    """
    sites = np.floor(np.asarray(points)[:, :3] / np.float32(voxel_size)).astype(np.int64)
    if len(sites) and np.abs(sites).max() >= _SHIFT - 1:
        raise ValueError(f"voxel_statistics: points reach beyond 2^20 voxels of {voxel_size} m")
    keys = np.unique(_pack(sites))
    result = []
    for stride in range(strides):
        if stride:
            sites = (
                np.stack([keys >> (2 * _BITS), (keys >> _BITS) & _MASK, keys & _MASK], 1) - _SHIFT
            )
            keys = np.unique(_pack(sites >> 1))
        taps = 0
        for dx in (-1, 0, 1):
            for dy in (-1, 0, 1):
                for dz in (-1, 0, 1):
                    wanted = keys + ((dx << (2 * _BITS)) + (dy << _BITS) + dz)
                    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
                    taps += int((keys[at] == wanted).sum()) if len(keys) else 0
        result.append((len(keys), taps / max(len(keys), 1)))
    return tuple(result)
