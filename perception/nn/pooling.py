"""Pooling over windows and over whole samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perception.nn.conv import SparseKernel, check_input, made_from
from perception.sparse.offsets import MAX_STRIDE, per_axis
from perception.sparse.ops import segment_max, segment_sum
from perception.sparse.sites import Sites
from perception.sparse.tensor import SparseTensor

__all__ = ["AvgPool", "GlobalPool", "MaxPool", "SumPool", "Unpool", "pool_segments"]


def pool_segments(features: Tensor, rows: Tensor, ptr: Tensor, mode: str) -> Tensor:
    """Reduces listed rows ``[P]`` to segments ``[M, C]`` by ``"max"``, ``"avg"`` or ``"sum"``.

    An empty segment gives zeros.
    """
    if mode == "max" and features.shape[0]:
        return segment_max(features, rows, ptr)
    return segment_sum(features, rows, ptr, mean=mode == "avg")


def window_padding(
    kernel_size: int | Sequence[int], stride: int | Sequence[int], dim: int
) -> list[int]:
    """Windows that tile (size equal to stride) begin at their site's corner; others are placed as
    by ``Conv(padding="same")``."""
    sizes, steps = (
        per_axis(kernel_size, dim, "kernel_size"),
        per_axis(stride, dim, "stride", maximum=MAX_STRIDE),
    )
    return [0 if size == step else (size - 1) // 2 for size, step in zip(sizes, steps, strict=True)]


class _Pool(SparseKernel):
    mode: str

    def __init__(
        self, kernel_size: int | Sequence[int], stride: int | Sequence[int], *, dim: int = 3
    ):
        super().__init__(
            kernel_size, stride, 1, dim, "cube", window_padding(kernel_size, stride, dim)
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        self._check(x)
        out = x.sites.strided(self.stride)
        plan = x.sites.map_to(out, self.offsets, self.stride, self._key, self._symmetric)
        features = pool_segments(x.features, *plan.by_output(out.num_sites), self.mode)
        return made_from(x, features, out)


class MaxPool(_Pool):
    """The largest value under the window, over the sites that exist.

    Output sites are those of ``Conv(kernel_size=..., stride=...)``. Along an axis where the window is
    as long as the stride, windows tile: taps 0 .. k - 1; elsewhere they are placed as by
    ``Conv(padding="same")``. A gradient goes to the first of equal values.
    """

    mode = "max"


class AvgPool(_Pool):
    """The mean under the window over the sites that exist; window and sites as `MaxPool`."""

    mode = "avg"


class SumPool(_Pool):
    """The sum under the window; window and sites as `MaxPool`."""

    mode = "sum"


class Unpool(SparseKernel):
    """Copies a coarse site's features to the finer sites under its window (summed where windows
    overlap): the adjoint of `SumPool`. Output sites as `ConvTranspose`."""

    def __init__(
        self, kernel_size: int | Sequence[int], stride: int | Sequence[int], *, dim: int = 3
    ):
        super().__init__(
            kernel_size, stride, 1, dim, "cube", window_padding(kernel_size, stride, dim)
        )

    def forward(self, x: SparseTensor, *, like: SparseTensor | None = None) -> SparseTensor:
        self._check(x)
        out, ancestors = self._upsampled(x, like)
        plan = out.map_to(x.sites, self.offsets, self.stride, self._key, self._symmetric)
        rows, ptr = plan.transposed(out.num_sites).by_output(out.num_sites)
        return SparseTensor._make(segment_sum(x.features, rows, ptr), out, ancestors)


class GlobalPool(nn.Module):
    """All sites of a sample to one, at zero.

    Args:
        mode: ``"max"``, ``"avg"`` or ``"sum"``.

    Returns:
        One site ``(b, 0, ..., 0)`` for every b below the batch size; zeros for a sample without
        sites.
    """

    def __init__(self, mode: str):
        super().__init__()
        if mode not in ("max", "avg", "sum"):
            raise ValueError(f'mode is {mode!r}; give "max", "avg" or "sum"')
        self.mode = mode

    def forward(self, x: SparseTensor) -> SparseTensor:
        check_input(self, x)
        features = pool_segments(x.features, *x.sites.by_sample(), self.mode)
        coords = x.coords.new_zeros(x.batch_size, 1 + x.dim)
        coords[:, 0] = torch.arange(x.batch_size, device=x.device)
        return SparseTensor(features, Sites(coords, x.stride, x.batch_size, is_sorted=True))

    def extra_repr(self) -> str:
        return repr(self.mode)
