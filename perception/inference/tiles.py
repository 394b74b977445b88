"""Sites in overlapping parts that fit into memory, and how much overlap changes nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from perception.models import SPVCNN
from perception.nn import GlobalPool, GroupNorm, InstanceNorm, TrilateralCRF
from perception.nn.conv import ConvTranspose, SparseKernel
from perception.nn.convnext import GlobalResponseNorm
from perception.nn.pooling import Unpool
from perception.sparse import SparseTensor

__all__ = ["Context", "Tile", "Tiling", "TooLittleMemory", "context_of", "cut", "tiling"]

WORK = 4
"""How many times the sites of the cloud all tiles may hold together before overlap is given up."""


class TooLittleMemory(ValueError, MemoryError):
    """A cloud does not fit into memory, however small the tiles."""


@dataclass(frozen=True)
class Context:
    """What a network sees around a site.

    Attributes:
        reach: sites along each axis from a site to the farthest that has a say in its result, an
            upper bound; None where every site of the cloud has.
        step: the coarsest stride along each axis.
    """

    reach: tuple[int, ...] | None
    step: tuple[int, ...]


def context_of(net: nn.Module, channels: int, dim: int, device: torch.device) -> Context:
    """The context of a network, from its kernels and the strides that they work at.

    Every kernel adds its longest tap times the stride of its finer side: that is the longest path
    through a network whose kernels follow each other, and an upper bound for any other.

    Args:
        channels: features of a site.
        dim: axes of the sites.
    """
    reach, step, everything = [0] * dim, [1] * dim, False

    def watch(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        nonlocal everything
        if isinstance(module, TrilateralCRF):
            # An iteration reaches from one end of a cell to the other end of its neighbour.
            cells = module.between.offsets.abs().amax(0)[:dim].tolist()
            for axis in range(dim):
                hop = (cells[axis] + 1) * math.ceil(module.sigma[axis])
                reach[axis] += module.iterations * hop
            return
        if not isinstance(module, SparseKernel):
            everything = True
            return
        x = args[0]
        fine = out.stride if isinstance(module, ConvTranspose | Unpool) else x.stride
        longest = module.offsets.abs().amax(0).tolist()
        for axis in range(dim):
            # A coarse site exists where any of its fine sites does, whatever the taps.
            taps = max(longest[axis], module.stride[axis] - 1)
            reach[axis] += taps * fine[axis]
            step[axis] = max(step[axis], x.stride[axis], out.stride[axis])

    # Statistics over all sites: the result of every one depends on every other.
    watched = (
        SparseKernel | TrilateralCRF | GlobalPool | GroupNorm | InstanceNorm | GlobalResponseNorm
    )
    inside = {m.between for m in net.modules() if isinstance(m, TrilateralCRF)}
    hooks = [
        m.register_forward_hook(watch)
        for m in net.modules()
        if isinstance(m, watched) and m not in inside
    ]
    try:
        with torch.inference_mode():
            coords = torch.zeros(1, 1 + dim, dtype=torch.int32, device=device)
            net(SparseTensor(torch.zeros(1, channels, device=device), coords))
    finally:
        for hook in hooks:
            hook.remove()
    if isinstance(net, SPVCNN):
        # Points take from voxels up to one away, and voxels from points anywhere in them.
        stages = len(net.args["channels"]) // 2
        for stage in (0, stages, stages - stages // 2, 0):
            for axis, stride in enumerate(net.args["stride"]):
                reach[axis] += 2 * stride**stage
    return Context(None if everything else tuple(reach), tuple(step))


@dataclass(frozen=True)
class Tile:
    """A part of the sites.

    Attributes:
        rows: ``[R] int64``, rising: the sites that the network is given.
        core: ``[R] bool``: those whose result is taken from this tile.
    """

    rows: NDArray[np.int64]
    core: NDArray[np.bool_]


@dataclass(frozen=True)
class Tiling:
    """The tiles of a cloud and the sites by which they overlap along each axis."""

    tiles: list[Tile]
    overlap: tuple[int, ...]


def cut(
    coords: NDArray[np.int32], limit: int, overlap: tuple[int, ...], step: tuple[int, ...]
) -> list[Tile] | None:
    """Boxes of space, halved along their longest side until each fits.

    Args:
        coords: ``[M, D]``, sites without the batch; the first three axes are space, time is not cut.
        limit: sites a tile may have, with its overlap.
        overlap: sites along each axis.
        step: boxes begin at multiples of it and are no thinner.

    Returns:
        Tiles whose cores hold every site once, or None where a box that cannot be halved any more
        holds too many.
    """
    space = np.ascontiguousarray(coords[:, :3])
    margin, grain = np.array(overlap[:3]), np.array(step[:3])
    tiles: list[Tile] = []
    everything = np.arange(len(space))
    pending = [(np.full(3, -(2**62)), np.full(3, 2**62), everything)]
    while pending:
        low, high, rows = pending.pop()
        places = space[rows]
        core = np.all((places >= low) & (places < high), axis=1)
        if not core.any():
            continue
        if len(rows) <= limit:
            tiles.append(Tile(rows, core))
            continue
        inside = places[core]
        first = inside.min(0) // grain
        last = inside.max(0) // grain
        axis = int(((last - first) * grain).argmax())
        if last[axis] == first[axis]:
            return None
        # At the median, so that both halves have as much to do, but within the box.
        middle = int(np.median(inside[:, axis])) // int(grain[axis])
        at = int(np.clip(middle, first[axis] + 1, last[axis])) * int(grain[axis])
        for side in (1, 0):
            new_low, new_high = low.copy(), high.copy()
            (new_low if side else new_high)[axis] = at
            kept = (places >= new_low - margin) & (places < new_high + margin)
            pending.append((new_low, new_high, rows[kept.all(1)]))
    return tiles


def tiling(coords: NDArray[np.int32], limit: int, context: Context) -> Tiling:
    """Tiles that fit, with the largest overlap up to the context that is not too dear.

    Args:
        coords: ``[M, D]``, sites without the batch.
        limit: sites a tile may have.

    Raises:
        TooLittleMemory: tiles of one coarsest voxel without overlap have more sites.
    """
    step = np.array(context.step)
    whole = coords.max(0).astype(np.int64) - coords.min(0) + 1
    wanted = np.full(len(whole), whole.max()) if context.reach is None else np.array(context.reach)
    while True:
        # Along an axis that is shorter than that, a tile is all there is.
        overlap = np.minimum(wanted, whole)
        # Whole coarsest voxels, or what is left of one where that is too dear.
        overlap = np.where(wanted >= step, -(-overlap // step) * step, overlap)
        tiles = cut(coords, limit, tuple(overlap.tolist()), context.step)
        done = not overlap.any()
        if tiles and (done or sum(len(tile.rows) for tile in tiles) <= WORK * len(coords)):
            return Tiling(tiles, tuple(overlap.tolist()))
        if done:
            raise TooLittleMemory(
                f"the network has room for {limit} sites at once, and a single one of its coarsest "
                "voxels holds more; free memory, or use a model with larger voxels"
            )
        halved = wanted // 2
        wanted = np.where(halved >= step, halved // step * step, halved)
