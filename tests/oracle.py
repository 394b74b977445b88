"""What every sparse operation means, in plain Python, for any number of axes.

Sites are tuples of Python integers ``(batch, x, y, ...)``, so nothing can overflow; features and
weights are float64 arrays. Nothing here is fast, and nothing here knows the engine: each function
restates one sentence of the numeric contract, and tests compare the engine with it.

The two halves meet in a list of *pairs* ``(tap, input row, output row)``. Who is paired with whom
is the geometry (``taps``, ``floor_stride``, ``reach``, ``pairs`` ...); what happens along a pair is
the arithmetic (``conv``, ``pool`` and their ``*_backward`` loops).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Site = tuple[int, ...]
Offset = tuple[int, ...]
Pair = tuple[int, int, int]
Float = NDArray[np.float64]
Bounds = tuple[Sequence[int], Sequence[int]]

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def per_axis(value: int | Sequence[int], dim: int) -> tuple[int, ...]:
    """An integer for all axes, or one per axis."""
    return (int(value),) * dim if isinstance(value, int) else tuple(int(v) for v in value)


def as_sites(coords: Any) -> list[Site]:
    """Rows of an integer array or tensor as tuples of Python integers."""
    return [tuple(int(v) for v in row) for row in coords.tolist()]


# --- geometry ---------------------------------------------------------------------------------


def taps(
    dim: int,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = "same",
    kernel: str = "cube",
) -> list[Offset]:
    """Displacements ``dilation * i - p`` of a kernel, lexicographic, the last axis fastest.

    ``"cross"`` keeps the taps that leave the centre tap along one axis at most, ``"hybrid"`` those
    that leave it along the last axis or along the others, not both. The centre tap of an axis of
    size k is ``i = (k - 1) // 2``.
    """
    size, step = per_axis(kernel_size, dim), per_axis(dilation, dim)
    if isinstance(padding, str):
        assert padding == "same"
        pad = tuple(d * (k - 1) // 2 for d, k in zip(step, size, strict=True))
    else:
        pad = per_axis(padding, dim)
    result = []
    for index in itertools.product(*(range(k) for k in size)):
        moved = [i != (k - 1) // 2 for i, k in zip(index, size, strict=True)]
        if kernel == "cross" and sum(moved) > 1:
            continue
        if kernel == "hybrid" and moved[-1] and any(moved[:-1]):
            continue
        result.append(tuple(d * i - p for d, i, p in zip(step, index, pad, strict=True)))
    return result


def floor_stride(sites: Iterable[Site], stride: Sequence[int]) -> list[Site]:
    """Output sites of a strided layer: ``unique(floor(site / stride))``, sorted."""
    return sorted(
        {
            (site[0], *(c // s for c, s in zip(site[1:], stride, strict=True)))  # // floors
            for site in sites
        }
    )


def _inside(site: Site, bounds: Bounds | None) -> bool:
    if not all(INT32_MIN <= c <= INT32_MAX for c in site):
        return False
    if bounds is None:
        return True
    return all(lo <= c <= hi for c, lo, hi in zip(site[1:], *bounds, strict=True))


def reach(
    sites: Iterable[Site],
    offsets: Sequence[Offset],
    stride: Sequence[int],
    bounds: Bounds | None = None,
) -> list[Site]:
    """Every output site ``o`` for which ``stride * o + offset`` is a site, for some tap."""
    found = set()
    for site in sites:
        for offset in offsets:
            moved = [c - d for c, d in zip(site[1:], offset, strict=True)]
            if all(m % s == 0 for m, s in zip(moved, stride, strict=True)):
                found.add((site[0], *(m // s for m, s in zip(moved, stride, strict=True))))
    return sorted(site for site in found if _inside(site, bounds))


def reach_transposed(
    sites: Iterable[Site],
    offsets: Sequence[Offset],
    stride: Sequence[int],
    bounds: Bounds | None = None,
) -> list[Site]:
    """Every site ``stride * o + offset`` that some tap of a transposed convolution writes to."""
    found = {_tap(site, offset, stride) for site in sites for offset in offsets}
    return sorted(site for site in found if _inside(site, bounds))


def _tap(site: Site, offset: Offset, stride: Sequence[int]) -> Site:
    """``stride * o + offset`` in the batch of ``o``."""
    return (site[0], *(s * c + d for s, c, d in zip(stride, site[1:], offset, strict=True)))


def pairs(
    in_sites: Sequence[Site],
    out_sites: Sequence[Site],
    offsets: Sequence[Offset],
    stride: Sequence[int],
) -> list[Pair]:
    """``(tap, input row, output row)`` with ``in = stride * out + offsets[tap]``."""
    row = {site: i for i, site in enumerate(in_sites)}
    assert len(row) == len(in_sites), "the oracle was given duplicate sites"
    result = []
    for o, site in enumerate(out_sites):
        for k, offset in enumerate(offsets):
            i = row.get(_tap(site, offset, stride))
            if i is not None:
                result.append((k, i, o))
    return result


def pairs_transposed(
    in_sites: Sequence[Site],
    out_sites: Sequence[Site],
    offsets: Sequence[Offset],
    stride: Sequence[int],
) -> list[Pair]:
    """``(tap, input row, output row)`` with ``out = stride * in + offsets[tap]``."""
    return [(k, i, o) for k, o, i in pairs(out_sites, in_sites, offsets, stride)]


# --- convolution ------------------------------------------------------------------------------


def _group_slices(
    weight: Float, groups: int
) -> list[tuple[slice, slice]]:  # channels of the input, channels of the output
    c_in, c_out = weight.shape[1], weight.shape[2] // groups
    return [
        (slice(g * c_in, (g + 1) * c_in), slice(g * c_out, (g + 1) * c_out)) for g in range(groups)
    ]


def conv(
    features: Float,
    weight: Float,
    bias: Float | None,
    links: Iterable[Pair],
    num_out: int,
    groups: int = 1,
) -> Float:
    """``out[o] = bias + sum weight[k].T @ in[i]`` over the pairs; weight is [K, C/groups, C']."""
    out = np.zeros((num_out, weight.shape[2]))
    if bias is not None:
        out += bias
    slices = _group_slices(weight, groups)
    for k, i, o in links:
        for source, target in slices:
            out[o, target] += features[i, source] @ weight[k][:, target]
    return out


class ConvGradients(NamedTuple):
    features: Float
    weight: Float
    bias: Float


def conv_backward(
    grad_out: Float, features: Float, weight: Float, links: Iterable[Pair], groups: int = 1
) -> ConvGradients:
    """Gradients of ``sum(grad_out * conv(...))`` by the product rule, one pair at a time."""
    grad_features, grad_weight = np.zeros_like(features), np.zeros_like(weight)
    slices = _group_slices(weight, groups)
    for k, i, o in links:
        for source, target in slices:
            grad_features[i, source] += weight[k][:, target] @ grad_out[o, target]
            grad_weight[k][:, target] += np.outer(features[i, source], grad_out[o, target])
    return ConvGradients(grad_features, grad_weight, grad_out.sum(axis=0))


def conv_magnitude(
    features: Float,
    weight: Float,
    bias: Float | None,
    links: Iterable[Pair],
    num_out: int,
    groups: int = 1,
) -> Float:
    """Sum of the absolute values of all terms of each output: the scale of rounding errors."""
    magnitude = None if bias is None else np.abs(bias)
    return conv(np.abs(features), np.abs(weight), magnitude, links, num_out, groups)


# --- pooling ----------------------------------------------------------------------------------


def pool_taps(dim: int, kernel_size: int | Sequence[int], stride: int | Sequence[int]) -> list:
    """Windows: ``0 ... k-1`` when they tile the sites (k == stride), else as ``padding="same"``."""
    tiles = per_axis(kernel_size, dim) == per_axis(stride, dim)
    return taps(dim, kernel_size, padding=0 if tiles else "same")


def pool(features: Float, links: Iterable[Pair], num_out: int, mode: str) -> Float:
    """``max``, ``sum`` or ``avg`` over the sites that exist under each window; 0 without any."""
    members: list[list[int]] = [[] for _ in range(num_out)]
    for _, i, o in links:
        members[o].append(i)
    out = np.zeros((num_out, features.shape[1]))
    for o, rows in enumerate(members):
        if rows:
            window = features[rows]
            out[o] = {"max": window.max(0), "sum": window.sum(0), "avg": window.mean(0)}[mode]
    return out


def pool_backward(
    grad_out: Float, features: Float, links: Iterable[Pair], num_out: int, mode: str
) -> Float:
    """Gradient of ``pool``; for ``max`` no two values of a window may be equal."""
    members: list[list[int]] = [[] for _ in range(num_out)]
    for _, i, o in links:
        members[o].append(i)
    grad = np.zeros_like(features)
    for o, rows in enumerate(members):
        for c in range(features.shape[1] if rows else 0):
            if mode == "max":
                grad[rows[int(features[rows, c].argmax())], c] += grad_out[o, c]
            else:
                for i in rows:
                    grad[i, c] += grad_out[o, c] / (len(rows) if mode == "avg" else 1)
    return grad


# --- sets of sites ----------------------------------------------------------------------------


def union(
    a_sites: Sequence[Site], a: Float, b_sites: Sequence[Site], b: Float
) -> dict[Site, Float]:
    """Sites of either; features added where both have the site."""
    result: dict[Site, Float] = {}
    for site, row in itertools.chain(zip(a_sites, a, strict=True), zip(b_sites, b, strict=True)):
        result[site] = result[site] + row if site in result else row.astype(np.float64)
    return result


# --- points -----------------------------------------------------------------------------------


class Voxels(NamedTuple):
    sites: list[Site]
    features: Float
    point_to_voxel: list[int]
    counts: list[int]


def voxelize(
    points: Float,
    voxel_size: Sequence[float],
    features: Float,
    *,
    batch: Sequence[int] | None = None,
    reduce: str = "mean",
    origin: Sequence[float] | None = None,
    bounds: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Voxels:
    """Point p lies in voxel ``floor((p - origin) / voxel_size)``; voxels in lexicographic order.

    ``bounds`` (metres, lower inclusive, upper exclusive) drops points: their voxel is -1.
    """
    start = [0.0] * points.shape[1] if origin is None else origin
    members: dict[Site, list[int]] = {}
    for n, p in enumerate(points):
        if bounds is not None and not all(
            lo <= v < hi for v, lo, hi in zip(p, *bounds, strict=True)
        ):
            continue
        cell = (math.floor((v - o) / s) for v, o, s in zip(p, start, voxel_size, strict=True))
        members.setdefault((0 if batch is None else int(batch[n]), *cell), []).append(n)
    sites = sorted(members)
    point_to_voxel = [-1] * len(points)
    reduced = np.zeros((len(sites), features.shape[1]))
    for row, site in enumerate(sites):
        for n in members[site]:
            point_to_voxel[n] = row
        values = features[members[site]]
        reduced[row] = {
            "mean": values.mean(0),
            "sum": values.sum(0),
            "max": values.max(0),
            "first": values[0],
        }[reduce]
    return Voxels(sites, reduced, point_to_voxel, [len(members[site]) for site in sites])


def interpolation(
    sites: Sequence[Site],
    points: Float,
    voxel_size: Sequence[float],
    *,
    stride: Sequence[int],
    origin: Sequence[float] | None = None,
    batch: Sequence[int] | None = None,
    mode: str = "nearest",
) -> list[list[tuple[int, float]]]:
    """For every point the ``(row, weight)`` that ``devoxelize`` sums.

    The centre of a site is ``(site + 0.5) * stride * voxel_size + origin``. ``nearest`` takes the
    site whose voxel holds the point; ``trilinear`` interpolates linearly along each axis between
    the 2^D centres around the point, over those that exist, with weights that sum to one.
    """
    dim = points.shape[1]
    start = [0.0] * dim if origin is None else origin
    row = {site: i for i, site in enumerate(sites)}
    result = []
    for n, p in enumerate(points):
        b = 0 if batch is None else int(batch[n])
        u = [
            (v - o) / (h * s) for v, o, h, s in zip(p, start, voxel_size, stride, strict=True)
        ]  # in steps of the stride
        terms: list[tuple[int, float]] = []
        if mode == "nearest":
            i = row.get((b, *(math.floor(v) for v in u)))
            terms = [] if i is None else [(i, 1.0)]
        else:
            low = [math.floor(v - 0.5) for v in u]
            for corner in itertools.product((0, 1), repeat=dim):
                i = row.get((b, *(lo + c for lo, c in zip(low, corner, strict=True))))
                weight = 1.0
                for v, lo, c in zip(u, low, corner, strict=True):
                    weight *= 1.0 - abs(v - 0.5 - lo - c)
                if i is not None and weight > 0:
                    terms.append((i, weight))
            total = sum(weight for _, weight in terms)
            terms = [(i, weight / total) for i, weight in terms]
        result.append(terms)
    return result


def devoxelize(features: Float, terms: list[list[tuple[int, float]]]) -> Float:
    """Weighted sums of ``interpolation``; zero where no site is near."""
    out = np.zeros((len(terms), features.shape[1]))
    for n, weighted in enumerate(terms):
        for i, weight in weighted:
            out[n] += weight * features[i]
    return out


def devoxelize_backward(
    grad_out: Float, num_sites: int, terms: list[list[tuple[int, float]]]
) -> Float:
    """Gradient of ``devoxelize`` with respect to the features."""
    grad = np.zeros((num_sites, grad_out.shape[1]))
    for n, weighted in enumerate(terms):
        for i, weight in weighted:
            grad[i] += weight * grad_out[n]
    return grad
