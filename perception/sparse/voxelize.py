"""From points to voxels and back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from perception._native import check_device
from perception.sparse.ops import point_sites, segment_argmax, segment_sum, unique_sites
from perception.sparse.tensor import SparseTensor

__all__ = ["Voxels", "devoxelize", "voxelize"]


class Voxels(NamedTuple):
    """What `voxelize` makes of N points: M voxels in lexicographic order.

    Attributes:
        coords: ``[M, 1 + D] int32``, batch first.
        features: ``[M, C]``.
        point_to_voxel: ``[N] int64``, the voxel of each point, -1 outside the bounds.
        counts: ``[M] int64``, points that made the voxel's features.
    """

    coords: Tensor
    features: Tensor
    point_to_voxel: Tensor
    counts: Tensor


def _numbers(value: float | Sequence[float] | Tensor, dim: int, name: str) -> tuple[float, ...]:
    if isinstance(value, Tensor):
        value = value.tolist()
    values = (
        (float(value),) * dim if isinstance(value, (int, float)) else tuple(float(v) for v in value)
    )
    if len(values) != dim:
        raise ValueError(
            f"{name} has {len(values)} entries for points with {dim} axes; give one number or {dim}"
        )
    return values


def _check_points(points: Tensor, batch: Tensor | None) -> Tensor | None:
    if not isinstance(points, Tensor):
        raise TypeError(
            f"points is a {type(points).__name__}; give a tensor [N, D] (torch.as_tensor)"
        )
    if points.ndim != 2 or not 1 <= points.shape[1] <= 7:
        raise ValueError(f"points has shape {tuple(points.shape)}; give [N, D] with D = 1..7")
    if points.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"points has dtype {points.dtype}; coordinates need float32 or float64")
    check_device(points.device, "points")
    if batch is None:
        return None
    if not isinstance(batch, Tensor):
        raise TypeError(f"batch is a {type(batch).__name__}; give an integer tensor [N]")
    if batch.shape != (points.shape[0],):
        raise ValueError(f"batch has shape {tuple(batch.shape)} for {points.shape[0]} points")
    if batch.is_floating_point():
        raise TypeError(f"batch has dtype {batch.dtype}; sample numbers are integers")
    if len(batch) and (int(batch.min()) < 0 or int(batch.max()) >= 2**31):
        raise ValueError("batch has sample numbers outside 0 .. 2^31 - 1")
    return batch.long()


def _sites(
    points: Tensor,
    batch: Tensor | None,
    size: tuple[float, ...],
    origin: tuple[float, ...],
    bounds: tuple[float, ...] = (),
) -> Tensor:
    if any(not step > 0 or step == float("inf") for step in size):
        raise ValueError(f"voxel_size is {size}; every entry must be a positive number")
    sites, info = point_sites(points, batch, size, origin, bounds)
    bad, first_bad, far, first_far = info.tolist()
    if bad:
        raise ValueError(
            f"points has {bad} rows with NaN or infinity, first row {first_bad}; "
            f"drop them: points[points.isfinite().all(1)]"
        )
    if far:
        raise ValueError(
            f"points has {far} rows whose voxel is outside int32, first row {first_far}: "
            f"{points[first_far].tolist()} at voxel_size {size}; subtract an origin or use larger voxels"
        )
    return sites


def voxelize(
    points: Tensor,
    voxel_size: float | Sequence[float],
    *,
    features: Tensor | None = None,
    batch: Tensor | None = None,
    reduce: str = "mean",
    origin: float | Sequence[float] = 0,
    bounds: tuple[Sequence[float], Sequence[float]] | None = None,
    max_points: int | None = None,
) -> Voxels:
    """Groups points into voxels ``floor((p - origin) / voxel_size)``.

    Args:
        points: ``[N, D]`` float32 or float64, metres (the fourth axis in seconds); the voxel is
            computed in this precision.
        voxel_size: one number, or one an axis.
        features: ``[N, C]`` floating, by default the points themselves.
        batch: ``[N]`` integer sample numbers, by default 0.
        reduce: ``"mean"``, ``"sum"``, ``"max"`` or ``"first"`` (in the order of the points).
        origin: the corner of voxel 0.
        bounds: ``(min, max)``, a number an axis each; points outside ``[min, max)`` belong to no
            voxel.
        max_points: only the first so many points of a voxel make its features.

    Returns:
        `Voxels`, in lexicographic order of the sites; differentiable with respect to features.

    Raises:
        TypeError: a wrong dtype.
        ValueError: wrong shapes, NaN or infinite points, voxels outside int32.

    >>> import torch, perception
    >>> v = perception.voxelize(torch.tensor([[0.1, 0.1], [0.3, 0.2], [0.9, 0.9]]), 0.5)
    >>> v.coords.tolist(), v.counts.tolist(), v.point_to_voxel.tolist()
    ([[0, 0, 0], [0, 1, 1]], [2, 1], [0, 0, 1])
    """
    batch = _check_points(points, batch)
    dim = points.shape[1]
    if features is None:
        features = points
    elif features.ndim != 2 or features.shape[0] != points.shape[0]:
        raise ValueError(f"features has shape {tuple(features.shape)}; give [{points.shape[0]}, C]")
    elif not features.is_floating_point():
        raise TypeError(
            f"features has dtype {features.dtype}; features are floating: use features.float()"
        )
    if reduce not in ("mean", "sum", "max", "first"):
        raise ValueError(f'reduce is {reduce!r}; give "mean", "sum", "max" or "first"')
    if max_points is not None and max_points < 1:
        raise ValueError(f"max_points is {max_points}; give a positive number")
    limits: tuple[float, ...] = ()
    if bounds is not None:
        limits = _numbers(bounds[0], dim, "bounds minimum") + _numbers(
            bounds[1], dim, "bounds maximum"
        )
    sites = _sites(
        points.detach(),
        batch,
        _numbers(voxel_size, dim, "voxel_size"),
        _numbers(origin, dim, "origin"),
        limits,
    )

    kept = None
    if limits and bool((sites[:, 0] < 0).any()):
        kept = (sites[:, 0] >= 0).nonzero()[:, 0]
        sites = sites[kept]
    coords, inverse, order, ptr = unique_sites(sites)
    if kept is None:
        point_to_voxel = inverse
    else:
        point_to_voxel = inverse.new_full((points.shape[0],), -1)
        point_to_voxel[kept] = inverse
        order = kept[order.long()].int()
    counts = ptr.diff()
    if max_points is not None:
        within = torch.arange(len(order), device=ptr.device) - torch.repeat_interleave(
            ptr[:-1], counts
        )
        order = order[within < max_points]
        counts = counts.clamp(max=max_points)
        ptr = torch.cat([ptr[:1], counts.cumsum(0)])
    if reduce == "first":
        out = features[order[ptr[:-1]].long()]
    elif reduce == "max":
        out = features.gather(0, segment_argmax(features, order, ptr))
    else:
        out = segment_sum(features, order, ptr, mean=reduce == "mean")
    return Voxels(coords, out, point_to_voxel, counts)


def devoxelize(
    x: SparseTensor,
    points: Tensor,
    voxel_size: float | Sequence[float],
    *,
    batch: Tensor | None = None,
    origin: float | Sequence[float] = 0,
    mode: str = "nearest",
) -> Tensor:
    """Features of a sparse tensor at points, ``[N, C]``.

    Args:
        points: ``[N, D]`` as for `voxelize`; ``voxel_size`` and ``origin`` are those of the base
            voxels, the tensor's stride is taken into account.
        batch: ``[N]`` sample numbers, by default 0.
        mode: ``"nearest"``: the voxel that the point lies in; ``"trilinear"``: D-linear between the
            centres of the 2^D voxels around the point, the weights of those that exist scaled to
            sum 1. Points with no voxel get zeros.

    Returns:
        Differentiable with respect to the features, and by ``"trilinear"`` to the points.
    """
    if not isinstance(x, SparseTensor):
        raise TypeError(f"devoxelize takes a SparseTensor first and was given a {type(x).__name__}")
    batch = _check_points(points, batch)
    dim = points.shape[1]
    if dim != x.dim:
        raise ValueError(f"points have {dim} axes and the tensor {x.dim}")
    if mode not in ("nearest", "trilinear"):
        raise ValueError(f'mode is {mode!r}; give "nearest" or "trilinear"')
    base, zero = _numbers(voxel_size, dim, "voxel_size"), _numbers(origin, dim, "origin")
    size = tuple(step * scale for step, scale in zip(base, x.stride, strict=True))
    count = points.shape[0]
    if mode == "nearest":
        rows = x.sites.rows_of(_sites(points.detach(), batch, size, zero))
        return segment_sum(x.features, rows, torch.arange(count + 1, device=points.device))
    shifted = tuple(o + s / 2 for o, s in zip(zero, size, strict=True))
    lower = _sites(points.detach(), batch, size, shifted)
    centre = (lower[:, 1:].to(points.dtype) + 0.5) * points.new_tensor(size) + points.new_tensor(
        zero
    )
    share = (points - centre) / points.new_tensor(
        size
    )  # 0 at the lower voxel's centre, 1 at the next
    corners, weights = [], []
    for corner in itertools.product((0, 1), repeat=dim):
        corners.append(lower + torch.tensor((0, *corner), dtype=torch.int32, device=lower.device))
        weights.append(
            torch.stack(
                [share[:, d] if up else 1 - share[:, d] for d, up in enumerate(corner)]
            ).prod(0)
        )
    around = torch.stack(corners, 1)
    wrapped = (around < lower[:, None, :]).any(-1)  # past the last int32, where no voxel is
    rows = torch.where(wrapped.reshape(-1), -1, x.sites.rows_of(around.reshape(-1, dim + 1)))
    weight = torch.stack(weights, 1) * (rows >= 0).reshape(count, 2**dim)
    total = weight.sum(1, keepdim=True)
    weight = weight / torch.where(total > 0, total, 1)
    ptr = torch.arange(count + 1, device=points.device) * 2**dim
    return segment_sum(x.features, rows, ptr, weight.reshape(-1).to(x.dtype))
