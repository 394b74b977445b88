"""The engine: sparse tensors, kernel maps, and the native operators they stand on."""

from perception._native import release_memory
from perception.sparse import pytree as _pytree  # noqa: F401
from perception.sparse.algebra import batch, cat, union
from perception.sparse.conv import conv
from perception.sparse.kernel_map import KernelMap
from perception.sparse.offsets import kernel_offsets
from perception.sparse.sites import Sites
from perception.sparse.tensor import SparseTensor
from perception.sparse.voxelize import Voxels, devoxelize, voxelize

__all__ = [
    "KernelMap",
    "Sites",
    "SparseTensor",
    "Voxels",
    "batch",
    "cat",
    "conv",
    "devoxelize",
    "kernel_offsets",
    "release_memory",
    "union",
    "voxelize",
]
