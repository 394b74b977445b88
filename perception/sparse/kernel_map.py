"""Kernel maps: which input row meets which output row at which tap."""

from __future__ import annotations

import functools
import weakref

import torch
from torch import Tensor

from perception._native import ops
from perception.sparse.ops import group_by

__all__ = ["KernelMap", "TableMap", "kernel_map", "neighbor_table", "rank_taps", "transpose_map"]

Pairs = tuple[Tensor, Tensor, Tensor]


class KernelMap:
    """An immutable plan of a sparse product, as lists of pairs.

    Attributes:
        pairs: ``in_rows [P] int32``, ``out_rows [P] int32``, ``tap_ptr [K + 1] int64``; the pairs of
            tap k are ``tap_ptr[k] .. tap_ptr[k + 1]``, sorted by output row.
        monotone: input rows rise with output rows within every tap (sites of both ends sorted);
            then the map read backwards is sorted too and the transposed map is free.
    """

    __slots__ = ("_by_output", "_pairs", "_reverse", "monotone")

    def __init__(self, pairs: Pairs | None, monotone: bool, reverse: Pairs | None = None):
        self._pairs = pairs
        self.monotone = monotone
        if monotone and pairs is not None:
            in_rows, out_rows, tap_ptr = pairs
            reverse = (out_rows, in_rows, tap_ptr)
        self._reverse = reverse
        self._by_output: tuple[Tensor, Tensor] | None = None

    @property
    def pairs(self) -> Pairs:
        assert self._pairs is not None
        return self._pairs

    @property
    def num_pairs(self) -> int:
        return self.pairs[0].shape[0]

    def reverse(self, num_in: int) -> Pairs:
        """The pairs with input and output exchanged, sorted by the new output within each tap."""
        if self._reverse is None:
            with torch.inference_mode(False):  # a training step may use it later
                self._reverse = transpose_map(*self.pairs, num_in)
        return self._reverse

    def transposed(self, num_in: int) -> KernelMap:
        """The map of the transposed convolution (the same storage, read the other way)."""
        return KernelMap(self.reverse(num_in), self.monotone, self.pairs)

    def by_output(self, num_out: int) -> tuple[Tensor, Tensor]:
        """The input rows of every output: ``rows [P] int32`` and ``ptr [num_out + 1] int64``."""
        if self._by_output is None:
            with torch.inference_mode(False):
                order, ptr = group_by(self.pairs[1], num_out)
                self._by_output = self.pairs[0][order.long()], ptr
        return self._by_output

    def lists(self, num_in: int, learns: bool) -> tuple[list[Tensor], list[Tensor]]:
        """What the product operators take as ``map`` and ``transposed``.

        Args:
            learns: gradients will be asked for; otherwise ``transposed`` is left out.
        """
        return list(self.pairs), list(self.reverse(num_in)) if learns else []


class TableMap(KernelMap):
    """A plan on CUDA: the input row of every output row and tap, ``table [num_out, K] int32``, -1 for
    none. Nothing of it asks the device for a size.

    The product takes it in tiles: output rows with the same taps stand together, so that a tile
    skips the taps that none of its rows has. See ``csrc/cuda/conv.cuh`` for their layout.

    Args:
        rank: place of each tap from the commonest (0) to the rarest (K - 1).
        mirrored: a submanifold map: read backwards it is itself with the taps reversed.
        masks: what `neighbor_table` gave with the table for this rank.
    """

    __slots__ = (
        "__weakref__",
        "_lists",
        "_masks",
        "_opposite",
        "_origin",
        "_raw_pairs",
        "_tiles",
        "mirrored",
        "rank",
        "table",
    )

    def __init__(
        self, table: Tensor, rank: tuple[int, ...], mirrored: bool, masks: Tensor | None = None
    ):
        super().__init__(None, False)
        self._masks = masks
        self.table = table
        self.rank = rank
        self.mirrored = mirrored
        self._tiles: Pairs | None = None
        self._raw_pairs: Pairs | None = None
        self._opposite: TableMap | None = None
        self._origin: weakref.ref[TableMap] | None = None
        self._lists: tuple[list[Tensor], list[Tensor]] | None = None

    @property
    def pairs(self) -> Pairs:
        if self._pairs is None:
            with torch.inference_mode(False):
                in_rows, out_rows, tap_ptr = self.raw_pairs
                count = int(tap_ptr[-1])
                self._pairs = in_rows[:count], out_rows[:count], tap_ptr
        return self._pairs

    @property
    def raw_pairs(self) -> Pairs:
        """`pairs` with unused memory behind the last pair, so that no size is asked for."""
        if self._raw_pairs is None:
            with torch.inference_mode(False):
                self._raw_pairs = ops.table_pairs(self.table)
        return self._raw_pairs

    @property
    def tiles(self) -> Pairs:
        if self._tiles is None:
            with torch.inference_mode(False):
                self._tiles = ops.tile_table(self.table, self.rank, self._masks)
                self._masks = None
        return self._tiles

    def reverse(self, num_in: int) -> Pairs:
        return self.transposed(num_in).pairs

    def transposed(self, num_in: int) -> TableMap:
        origin = None if self._origin is None else self._origin()
        if origin is not None:
            return origin
        if self._opposite is None:
            with torch.inference_mode(False):
                table = ops.transpose_table(self.table, num_in)
            self._keep_opposite(TableMap(table, self.rank, False))
            assert self._opposite is not None
        return self._opposite

    def _keep_opposite(self, opposite: TableMap) -> None:
        # The way back is weak: a circle would hold the memory of the GPU until Python looks for circles.
        opposite._origin = weakref.ref(self)
        self._opposite = opposite

    def lists(self, num_in: int, learns: bool) -> tuple[list[Tensor], list[Tensor]]:
        if not learns:
            return list(self.tiles), []
        if self._lists is None:
            in_rows, out_rows, tap_ptr = self.raw_pairs
            self._lists = (
                [*self.tiles, in_rows, out_rows, tap_ptr],
                [*self._opposite_tiles(num_in), out_rows, in_rows, tap_ptr],
            )
        return self._lists

    def _opposite_tiles(self, num_in: int) -> Pairs:
        if not self.mirrored:
            return self.transposed(num_in).tiles
        rows, order, taps = self.tiles
        with torch.inference_mode(False):
            reversed_taps = taps.clone()
            reversed_taps[0, :1].fill_(1)  # the header of csrc/cuda/conv.cuh
        return rows, order, reversed_taps


@functools.lru_cache(maxsize=256)
def rank_taps(offsets: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """Each tap's place from the commonest to the rarest: on surfaces the far corners are rarest."""
    by_distance = sorted(range(len(offsets)), key=lambda k: sum(map(abs, offsets[k])))
    rank = [0] * len(offsets)
    for place, tap in enumerate(by_distance):
        rank[tap] = place
    return tuple(rank)


def kernel_map(
    index: Tensor | None,
    in_sites: Tensor,
    out_sites: Tensor,
    offsets: Tensor,
    stride: tuple[int, ...],
    symmetric: bool,
) -> Pairs:
    """Pairs with ``in_site == stride * out_site + offset`` for every tap; see `KernelMap`.

    Args:
        index: of ``in_sites``, from `build_index`; None where both sets of sites are sorted.
        offsets: ``[K, D] int32``.
        symmetric: the sites are the same and sorted, the stride is 1, and tap K-1-k is opposite to
            tap k: only half of the taps are looked up.
    """
    return ops.kernel_map(index, in_sites, out_sites, offsets, list(stride), symmetric)


def kernel_map_twin(
    in_sites: Tensor, out_sites: Tensor, offsets: Tensor, stride: tuple[int, ...]
) -> Pairs:
    in_rows, out_rows, counts = [], [], [0]
    step = torch.tensor((1, *stride))
    for offset in offsets.long():
        query = out_sites.long() * step + torch.cat([offset.new_zeros(1), offset])
        pair = (query[:, None, :] == in_sites.long()[None, :, :]).all(-1).nonzero()
        out_rows.append(pair[:, 0].int())
        in_rows.append(pair[:, 1].int())
        counts.append(len(pair))
    return torch.cat(in_rows), torch.cat(out_rows), torch.tensor(counts).cumsum(0)


@torch.library.register_fake("perception::kernel_map")
def _(
    index: Tensor | None,
    in_sites: Tensor,
    out_sites: Tensor,
    offsets: Tensor,
    stride: list[int],
    symmetric: bool,
) -> Pairs:
    pairs = torch.library.get_ctx().new_dynamic_size()
    rows = in_sites.new_empty(pairs)
    return rows, torch.empty_like(rows), in_sites.new_empty(offsets.shape[0] + 1, dtype=torch.int64)


def transpose_map(in_rows: Tensor, out_rows: Tensor, tap_ptr: Tensor, num_in: int) -> Pairs:
    """The pairs with input and output exchanged, sorted by the new output within each tap."""
    return ops.transpose_map(in_rows, out_rows, tap_ptr, num_in)


def transpose_map_twin(in_rows: Tensor, out_rows: Tensor, tap_ptr: Tensor, num_in: int) -> Pairs:
    tap = torch.repeat_interleave(torch.arange(len(tap_ptr) - 1), tap_ptr.diff())
    order = torch.argsort((tap * max(num_in, 1) + in_rows).long(), stable=True)
    return out_rows[order], in_rows[order], tap_ptr.clone()


@torch.library.register_fake("perception::transpose_map")
def _(in_rows: Tensor, out_rows: Tensor, tap_ptr: Tensor, num_in: int) -> Pairs:
    return torch.empty_like(in_rows), torch.empty_like(out_rows), torch.empty_like(tap_ptr)


# -- tables, on CUDA ------------------------------------------------------------------------------


def neighbor_table(
    index: Tensor,
    in_sites: Tensor,
    out_sites: Tensor,
    offsets: Tensor,
    stride: tuple[int, ...],
    symmetric: bool,
    rank: tuple[int, ...] = (),
) -> tuple[Tensor, Tensor]:
    """The pairs of `kernel_map` as a table ``[num_out, K] int32`` of input rows, -1 for none.

    Args:
        symmetric: the sites are the same, the stride is 1 and tap K-1-k is opposite to tap k.
        rank: see `TableMap`.

    Returns:
        The table, and the taps of each row as a bit set ``[num_out] int32``, bit ``rank[k]`` for tap
        k; empty without ``rank`` or with more than 32 taps.
    """
    return ops.neighbor_table(index, in_sites, out_sites, offsets, stride, symmetric, rank)


def neighbor_table_twin(
    in_sites: Tensor, out_sites: Tensor, offsets: Tensor, stride: tuple[int, ...]
) -> Tensor:
    in_rows, out_rows, tap_ptr = kernel_map_twin(in_sites, out_sites, offsets, stride)
    tap = torch.repeat_interleave(torch.arange(len(offsets)), tap_ptr.diff())
    table = in_rows.new_full((len(out_sites), len(offsets)), -1)
    table[out_rows.long(), tap] = in_rows
    return table


@torch.library.register_fake("perception::neighbor_table")
def _(
    index: Tensor,
    in_sites: Tensor,
    out_sites: Tensor,
    offsets: Tensor,
    stride: list[int],
    symmetric: bool,
    rank: tuple[int, ...] = (),
) -> tuple[Tensor, Tensor]:
    rows, taps = out_sites.shape[0], offsets.shape[0]
    masks = in_sites.new_empty(rows if rank and taps <= 32 else 0)
    return in_sites.new_empty(rows, taps), masks


@torch.library.register_fake("perception::transpose_table")
def _(table: Tensor, num_in: int) -> Tensor:
    return table.new_empty(num_in, table.shape[1])


@torch.library.register_fake("perception::table_pairs")
def _(table: Tensor) -> Pairs:
    rows = table.new_empty(table.shape[0] * table.shape[1])
    return rows, torch.empty_like(rows), table.new_empty(table.shape[1] + 1, dtype=torch.int64)


@torch.library.register_fake("perception::tile_table")
def _(table: Tensor, rank: list[int], masks: Tensor | None = None) -> Pairs:
    granules = (table.shape[0] + 63) // 64
    granules = torch.sym_max(granules, 1)
    taps = table.shape[1]
    return (
        table.new_empty(granules, taps, 64),
        table.new_empty(granules * 64),
        table.new_empty(1 + granules, (taps + 31) // 32),
    )
