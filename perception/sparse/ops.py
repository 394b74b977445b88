"""Operators on sites and segments: native call, fake kernel, gradient, and the torch twin.

A twin (``*_twin``) is the definition of its operator in plain torch: slow, readable, on any device.
Sites are ``int32 [N, 1 + D]``, batch first; rows are ``int32`` with -1 for none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from perception._native import ops

__all__ = [
    "build_index",
    "group_by",
    "lookup",
    "point_sites",
    "reach_sites",
    "segment_argmax",
    "segment_max",
    "segment_sum",
    "strided_sites",
    "sum_rows",
    "unique_sites",
]

_fake = torch.library.register_fake


# -- unique ---------------------------------------------------------------------------------------


def unique_sites(sites: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unique sites in lexicographic order, and which rows they came from.

    Returns:
        ``unique [M, 1 + D] int32``; ``inverse [N] int64`` with ``unique[inverse] == sites``;
        ``order [N] int32`` and ``ptr [M + 1] int64``: the rows of site m, in their order, are
        ``order[ptr[m]:ptr[m + 1]]``.
    """
    return ops.unique_sites(sites)


def unique_sites_twin(sites: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    unique, inverse, counts = torch.unique(sites, dim=0, return_inverse=True, return_counts=True)
    order = torch.argsort(inverse, stable=True).int()
    return unique, inverse, order, torch.cat([counts.new_zeros(1), counts.cumsum(0)])


@_fake("perception::unique_sites")
def _(sites: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count = torch.library.get_ctx().new_dynamic_size()
    n = sites.shape[0]
    return (
        sites.new_empty(count, sites.shape[1]),
        sites.new_empty(n, dtype=torch.int64),
        sites.new_empty(n),
        sites.new_empty(count + 1, dtype=torch.int64),
    )


def strided_sites(sites: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The sites ``floor(site / stride)``, each once, in lexicographic order, ``[M, 1 + D] int32``.

    Args:
        stride: D positive integers; the batch number stays.
    """
    return ops.strided_sites(sites, stride)


def strided_sites_twin(sites: Tensor, stride: tuple[int, ...]) -> Tensor:
    step = torch.tensor((1, *stride))
    return torch.unique(torch.div(sites.long(), step, rounding_mode="floor").int(), dim=0)


@_fake("perception::strided_sites")
def _(sites: Tensor, stride: list[int]) -> Tensor:
    return sites.new_empty(torch.library.get_ctx().new_dynamic_size(), sites.shape[1])


# -- index ----------------------------------------------------------------------------------------


def build_index(sites: Tensor, even_if_sorted: bool = True) -> tuple[Tensor, Tensor]:
    """A hash index of sites, for `lookup` and for kernel maps of sites that are not sorted.

    Args:
        even_if_sorted: make the table also where sorted sites will do without.

    Returns:
        ``index [W] int64``, opaque (W = 0: not made); ``info [2] int64``: how many rows repeat an
        earlier site, and whether the rows are in strict lexicographic order.
    """
    return ops.build_index(sites, even_if_sorted)


@_fake("perception::build_index")
def _(sites: Tensor, even_if_sorted: bool) -> tuple[Tensor, Tensor]:
    words = torch.library.get_ctx().new_dynamic_size()
    return sites.new_empty(words, dtype=torch.int64), sites.new_empty(2, dtype=torch.int64)


def lookup(index: Tensor, sites: Tensor, queries: Tensor) -> Tensor:
    """The row of each query among the indexed sites, ``[Q] int32``, -1 where there is none."""
    return ops.lookup(index, sites, queries)


def lookup_twin(sites: Tensor, queries: Tensor) -> Tensor:
    equal = (queries[:, None, :] == sites[None, :, :]).all(-1)
    found = equal.any(1)
    row = equal.int().argmax(1) if sites.shape[0] else torch.zeros_like(found, dtype=torch.int64)
    return torch.where(found, row, -1).int()


@_fake("perception::lookup")
def _(index: Tensor, sites: Tensor, queries: Tensor) -> Tensor:
    return queries.new_empty(queries.shape[0], dtype=torch.int32)


# -- reach ----------------------------------------------------------------------------------------


def reach_sites(
    sites: Tensor,
    offsets: Tensor,
    stride: tuple[int, ...],
    transposed: bool,
    bounds: tuple[int, ...] = (),
) -> Tensor:
    """Every site that some tap reaches, unique and sorted, ``[M, 1 + D] int32``.

    Forward: ``out`` with ``stride * out + offset == site``. Transposed: ``stride * site + offset``.

    Args:
        bounds: D minima and D maxima (inclusive) of the output sites, or nothing.

    Raises:
        RuntimeError: a reached site leaves int32 and no bounds are given.
    """
    return ops.reach_sites(sites, offsets, list(stride), transposed, list(bounds))


def reach_sites_twin(
    sites: Tensor,
    offsets: Tensor,
    stride: tuple[int, ...],
    transposed: bool,
    bounds: tuple[int, ...] = (),
) -> Tensor:
    step = torch.tensor(stride, device=sites.device)
    batch, place = sites[:, :1].long(), sites[:, 1:].long()
    if transposed:
        out = (place * step)[:, None, :] + offsets.long()
        kept = torch.ones(out.shape[:2], dtype=torch.bool, device=sites.device)
    else:
        moved = place[:, None, :] - offsets.long()
        out = torch.div(moved, step, rounding_mode="floor")
        kept = (out * step == moved).all(-1)
    if bounds:
        lo, hi = torch.tensor(bounds, device=sites.device).reshape(2, -1)
        kept &= ((out >= lo) & (out <= hi)).all(-1)
    full = torch.cat([batch[:, None, :].expand(-1, offsets.shape[0], -1), out], -1)
    return torch.unique(full[kept].int(), dim=0)


@_fake("perception::reach_sites")
def _(
    sites: Tensor, offsets: Tensor, stride: list[int], transposed: bool, bounds: list[int]
) -> Tensor:
    return sites.new_empty(torch.library.get_ctx().new_dynamic_size(), sites.shape[1])


# -- groups ---------------------------------------------------------------------------------------


def group_by(keys: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Rows sorted by an integer key ``[N]`` in ``-1 .. num_groups - 1``, stably.

    Returns:
        ``order [N] int32`` and ``ptr [num_groups + 1] int64``: the rows with key g are
        ``order[ptr[g]:ptr[g + 1]]``; rows with key -1 stand behind them all.
    """
    return ops.group_by(keys, num_groups)


def group_by_twin(keys: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    last = torch.where(keys < 0, num_groups, keys).long()
    counts = torch.bincount(last, minlength=num_groups + 1)[:num_groups]
    return torch.argsort(last, stable=True).int(), torch.cat(
        [counts.new_zeros(1), counts.cumsum(0)]
    )


@_fake("perception::group_by")
def _(keys: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    return keys.new_empty(keys.shape[0], dtype=torch.int32), keys.new_empty(
        num_groups + 1, dtype=torch.int64
    )


# -- points ---------------------------------------------------------------------------------------


def point_sites(
    points: Tensor,
    batch: Tensor | None,
    voxel_size: tuple[float, ...],
    origin: tuple[float, ...],
    bounds: tuple[float, ...] = (),
) -> tuple[Tensor, Tensor]:
    """The site of every point, ``floor((p - origin) / voxel_size)`` in the points' precision.

    Args:
        points: ``[N, D]`` float32 or float64.
        batch: ``[N] int64`` or None for zeros.
        bounds: D minima and D maxima (exclusive) or nothing; points outside get batch -1.

    Returns:
        ``sites [N, 1 + D] int32`` and ``info [4] int64``: points with NaN or infinity, the first of
        them, points outside int32, the first of them.
    """
    return ops.point_sites(points, batch, list(voxel_size), list(origin), list(bounds))


def point_sites_twin(
    points: Tensor,
    batch: Tensor | None,
    voxel_size: tuple[float, ...],
    origin: tuple[float, ...],
    bounds: tuple[float, ...] = (),
) -> tuple[Tensor, Tensor]:
    size, zero = points.new_tensor(voxel_size), points.new_tensor(origin)
    place = torch.floor((points - zero) / size)
    finite = points.isfinite().all(1)
    fits = ((place >= -(2.0**31)) & (place < 2.0**31)).all(1)
    first = torch.zeros(len(points), dtype=torch.int32) if batch is None else batch.int()
    inside = torch.ones_like(finite)
    if bounds:
        lo, hi = points.new_tensor(bounds).reshape(2, -1)
        inside = ((points >= lo) & (points < hi)).all(1)
        first = torch.where(finite & ~inside, -1, first)
    ok = (place >= -(2.0**31)) & (place < 2.0**31)
    sites = torch.cat([first[:, None], torch.where(ok, place, 0).int()], 1)
    far = finite & inside & ~fits

    def describe(mask: Tensor) -> list[int]:
        return [int(mask.sum()), int(mask.int().argmax()) if mask.any() else -1]

    return sites, torch.tensor(describe(~finite) + describe(far))


@_fake("perception::point_sites")
def _(
    points: Tensor, batch: Tensor | None, voxel_size: list, origin: list, bounds: list
) -> tuple[Tensor, Tensor]:
    return (
        points.new_empty(points.shape[0], points.shape[1] + 1, dtype=torch.int32),
        points.new_empty(4, dtype=torch.int64),
    )


# -- segments -------------------------------------------------------------------------------------


def segment_sum(
    x: Tensor, rows: Tensor, ptr: Tensor, weights: Tensor | None = None, mean: bool = False
) -> Tensor:
    """``out[m] = sum of weights[p] * x[rows[p]] for p in ptr[m] .. ptr[m + 1]``, summed in float64.

    Args:
        x: ``[N, C]``; rows: ``[P] int32``, -1 adds nothing; ptr: ``[M + 1] int64``;
        weights: ``[P]`` in the dtype of x, or None for ones;
        mean: divide by the number of entries of the segment.

    Returns:
        ``[M, C]``; differentiable any number of times with respect to x and weights.
    """
    return ops.segment_sum(x, rows, ptr, weights, mean)


def segment_of_entries(ptr: Tensor, entries: int) -> Tensor:
    """The segment of every list entry, ``[P] int64``; those behind the last segment get the last."""
    segment = torch.searchsorted(ptr[1:], torch.arange(entries, device=ptr.device), right=True)
    return segment.clamp(max=max(ptr.shape[0] - 2, 0))


def segment_sum_twin(
    x: Tensor, rows: Tensor, ptr: Tensor, weights: Tensor | None = None, mean: bool = False
) -> Tensor:
    covered = torch.arange(rows.shape[0], device=ptr.device) < ptr[-1]
    valid = (rows >= 0) & covered
    values = x[rows[valid].long()].double()
    if weights is not None:
        values = values * weights[valid].double()[:, None]
    segment = segment_of_entries(ptr, rows.shape[0])[valid]
    out = values.new_zeros(ptr.shape[0] - 1, x.shape[1]).index_add(0, segment, values)
    return (out / ptr.diff().clamp(min=1)[:, None] if mean else out).to(x.dtype)


@_fake("perception::segment_sum")
def _(x: Tensor, rows: Tensor, ptr: Tensor, weights: Tensor | None, mean: bool) -> Tensor:
    return x.new_empty(ptr.shape[0] - 1, x.shape[1])


def _segment_setup(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, rows, ptr, weights, ctx.mean = inputs
    ctx.save_for_backward(
        x if weights is not None and ctx.needs_input_grad[3] else None, rows, ptr, weights
    )
    ctx.num_rows = x.shape[0]


def _segment_backward(ctx: Any, grad: Tensor) -> tuple:
    x, rows, ptr, weights = ctx.saved_tensors
    grad_x = grad_weights = None
    entries = rows.shape[0]
    segment = segment_of_entries(ptr, entries)
    covered = torch.arange(entries, device=ptr.device) < ptr[-1]
    if ctx.mean:
        grad = grad / ptr.diff().clamp(min=1)[:, None].to(grad.dtype)
    if ctx.needs_input_grad[0]:
        order, back_ptr = group_by(torch.where(covered, rows, -1), ctx.num_rows)
        back_weights = None if weights is None else weights[order.long()]
        grad_x = segment_sum(grad, segment[order.long()].int(), back_ptr, back_weights)
    if x is not None:
        valid = ((rows >= 0) & covered).to(grad.dtype)
        grad_weights = (x[rows.long().clamp(min=0)] * grad[segment]).sum(1) * valid
    return grad_x, None, None, grad_weights, None


torch.library.register_autograd(
    "perception::segment_sum", _segment_backward, setup_context=_segment_setup
)


def segment_argmax(x: Tensor, rows: Tensor, ptr: Tensor) -> Tensor:
    """The row of x with the largest value in each segment and channel, ``[M, C] int64``.

    The first of equal values; a NaN before any number; -1 where the segment is empty.
    """
    return ops.segment_argmax(x.detach(), rows, ptr)


def segment_argmax_twin(x: Tensor, rows: Tensor, ptr: Tensor) -> Tensor:
    out = []
    for begin, end in zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True):
        entries = rows[begin:end].long()
        entries = entries[entries >= 0]
        out.append(
            entries[x[entries].argmax(0)] if len(entries) else entries.new_full((x.shape[1],), -1)
        )
    return torch.stack(out) if out else rows.new_empty(0, x.shape[1], dtype=torch.int64)


@_fake("perception::segment_argmax")
def _(x: Tensor, rows: Tensor, ptr: Tensor) -> Tensor:
    return x.new_empty(ptr.shape[0] - 1, x.shape[1], dtype=torch.int64)


class _SegmentMax(torch.autograd.Function):
    """Values at the arguments; a gradient that sums in the order of the list, not of the threads."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, arg: Tensor, rows: Tensor, ptr: Tensor) -> Tensor:
        ctx.save_for_backward(arg, rows, ptr)
        ctx.num_rows = x.shape[0]
        return torch.where(arg >= 0, x.gather(0, arg.clamp(min=0)), 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        arg, rows, ptr = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            kept = torch.where(arg >= 0, grad, 0)
            zeros = grad.new_zeros(ctx.num_rows, grad.shape[1])
            return zeros.scatter_add(0, arg.clamp(min=0), kept), None, None, None
        entries = rows.shape[0]
        covered = torch.arange(entries, device=ptr.device) < ptr[-1]
        order, back_ptr = group_by(torch.where(covered, rows, -1), ctx.num_rows)
        segments = segment_of_entries(ptr, entries)[order.long()].int()
        return ops.segment_max_grad(grad, arg, segments, back_ptr), None, None, None


def segment_max(x: Tensor, rows: Tensor, ptr: Tensor) -> Tensor:
    """The largest entry of each segment and channel, ``[M, C]``, 0 where the segment is empty.

    Args:
        x: ``[N > 0, C]``; rows: ``[P] int32``, no row twice in a segment; ptr: ``[M + 1] int64``.

    Returns:
        Differentiable with respect to x: the gradient goes to the first of equal entries.
    """
    arg = segment_argmax(x, rows, ptr)
    if torch.compiler.is_compiling():
        return torch.where(arg >= 0, x.gather(0, arg.clamp(min=0)), 0)
    return _SegmentMax.apply(x, arg, rows, ptr)


def segment_max_grad_twin(grad: Tensor, arg: Tensor, segments: Tensor, ptr: Tensor) -> Tensor:
    out = grad.new_zeros(ptr.shape[0] - 1, grad.shape[1])
    for row, (begin, end) in enumerate(zip(ptr[:-1].tolist(), ptr[1:].tolist(), strict=True)):
        for segment in segments[begin:end].tolist():
            if segment >= 0:
                out[row] += torch.where(arg[segment] == row, grad[segment], 0)
    return out


@_fake("perception::segment_max_grad")
def _(grad: Tensor, arg: Tensor, segments: Tensor, ptr: Tensor) -> Tensor:
    return grad.new_empty(ptr.shape[0] - 1, grad.shape[1])


# -- sums over all rows ---------------------------------------------------------------------------


def sum_rows(x: Tensor) -> Tensor:
    """``x.sum(0)`` of ``[N, C]``, accumulated in float64 in an order that no thread changes."""
    return ops.sum_rows(x)


def sum_rows_twin(x: Tensor) -> Tensor:
    return x.double().sum(0).to(x.dtype)


@_fake("perception::sum_rows")
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[1])


torch.library.register_autograd(
    "perception::sum_rows",
    lambda ctx, grad: grad.expand(ctx.rows, -1),
    setup_context=lambda ctx, inputs, output: setattr(ctx, "rows", inputs[0].shape[0]),
)
