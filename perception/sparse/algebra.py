"""Joining sparse tensors: channels, sites, samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from perception.sparse.ops import segment_argmax, segment_sum, unique_sites
from perception.sparse.sites import Sites
from perception.sparse.tensor import SparseTensor, aligned

__all__ = ["batch", "cat", "union"]


def cat(tensors: Sequence[SparseTensor]) -> SparseTensor:
    """Joins the channels of tensors on the same set of sites, in the first one's row order.

    Raises:
        ValueError: no tensors, or their sites differ.
    """
    if not tensors:
        raise ValueError("cat needs at least one tensor")
    first = tensors[0]
    return first.replace(torch.cat([aligned(x, first.sites) for x in tensors], 1))


def union(a: SparseTensor, b: SparseTensor, reduce: str = "sum") -> SparseTensor:
    """All sites of both tensors, in lexicographic order; where both have one, features are reduced.

    Args:
        reduce: ``"sum"``, ``"mean"`` or ``"max"``.

    Raises:
        ValueError: strides, channels or dimensions differ.
    """
    if reduce not in ("sum", "mean", "max"):
        raise ValueError(f'reduce is {reduce!r}; give "sum", "mean" or "max"')
    if a.stride != b.stride:
        raise ValueError(f"union of strides {a.stride} and {b.stride}; both must be the same")
    if a.num_channels != b.num_channels:
        raise ValueError(
            f"union of {a.num_channels} and {b.num_channels} channels; both must be the same"
        )
    coords, _, order, ptr = unique_sites(torch.cat([a.coords, b.coords]))
    features = torch.cat([a.features, b.features])
    if reduce == "max":
        out = features.gather(0, segment_argmax(features, order, ptr))
    else:
        out = segment_sum(features, order, ptr, mean=reduce == "mean")
    sites = Sites(coords, a.stride, max(a.batch_size, b.batch_size), is_sorted=True)
    return SparseTensor(out, sites)


def batch(tensors: Sequence[SparseTensor]) -> SparseTensor:
    """Joins samples; the inverse of `SparseTensor.decompose`.

    Raises:
        ValueError: no tensors, or different strides or channels.
    """
    if not tensors:
        raise ValueError("batch needs at least one tensor")
    first = tensors[0]
    coords, size = [], 0
    for x in tensors:
        if x.stride != first.stride or x.num_channels != first.num_channels:
            raise ValueError(
                f"a batch needs one stride and one number of channels; "
                f"got {first.stride}, {first.num_channels} and {x.stride}, {x.num_channels}"
            )
        moved = x.coords.clone()
        moved[:, 0] += size
        coords.append(moved)
        size += x.batch_size
    sorted_ = True if all(x.sites._is_sorted for x in tensors) else None
    sites = Sites(torch.cat(coords), first.stride, size, is_sorted=sorted_)
    return SparseTensor(torch.cat([x.features for x in tensors]), sites)
