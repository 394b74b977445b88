"""Kernel maps: which input row meets which output row at which tap."""

from __future__ import annotations

import functools
import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from perception._native import ops
from perception.sparse.ops import group_by

__all__ = [
    "IndexedSites",
    "KernelMap",
    "TableMap",
    "kernel_map",
    "rank_taps",
    "transpose_map",
]

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
        if pairs is not None:  # the operators read the lists as they lie
            in_rows, out_rows, tap_ptr = pairs
            pairs = in_rows.contiguous(), out_rows.contiguous(), tap_ptr.contiguous()
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
            in_rows, out_rows, _ = self._pairs_by_tap()
            with torch.inference_mode(False):
                order, ptr = group_by(out_rows, num_out)
                self._by_output = in_rows[order.long()], ptr
        return self._by_output

    def _pairs_by_tap(self) -> Pairs:
        """`pairs`, in any order within a tap."""
        return self.pairs

    def lists(self, num_in: int, learns: bool) -> tuple[list[Tensor], list[Tensor]]:
        """What the product operators take as ``map`` and ``transposed``.

        Args:
            learns: gradients will be asked for; otherwise ``transposed`` is left out.
        """
        return list(self.pairs), list(self.reverse(num_in)) if learns else []


class IndexedSites:
    """Coordinates, and the hash index of them once somebody has made it."""

    __slots__ = ("coords", "index")

    def __init__(self, coords: Tensor, index: Tensor | None = None):
        self.coords = coords
        self.index = index


class FromSites(NamedTuple):
    """What a table is made from."""

    inputs: IndexedSites
    outputs: Tensor
    offsets: Tensor
    stride: tuple[int, ...]


class FromTable(NamedTuple):
    """What a transposed table is made from."""

    table: Tensor
    num_in: int


class TableMap(KernelMap):
    """A plan on CUDA: the input row of every output row and tap, ``table [num_out, K] int32``, -1 for
    none. Nothing of it asks the device for a size.

    The product takes it in tiles: output rows with the same taps stand together, so that a tile
    skips the taps that none of its rows has. See ``csrc/cuda/conv.cuh`` for their layout. Tiles and
    pairs are made when they are first wanted, all that is wanted in one call; the table, which is
    large and quickly made again, is let go when nothing more is expected of it.

    Args:
        rank: place of each tap from the commonest (0) to the rarest (K - 1).
        mirrored: a submanifold map: read backwards it is itself with the taps reversed.
        source: what the table is made from; or else
        table: the table itself, which is then kept.
    """

    __slots__ = (
        "__weakref__",
        "_back",
        "_lists",
        "_opposite",
        "_origin",
        "_raw_pairs",
        "_source",
        "_table",
        "_tiles",
        "mirrored",
        "rank",
    )

    def __init__(
        self,
        rank: tuple[int, ...],
        mirrored: bool,
        source: FromSites | FromTable | None = None,
        table: Tensor | None = None,
    ):
        super().__init__(None, False)
        self.rank = rank
        self.mirrored = mirrored
        self._source = source
        self._table = table
        self._tiles: Pairs | None = None
        self._back: Tensor | None = None  # the taps of the tiles of a mirrored map read backwards
        self._raw_pairs: Pairs | None = None
        self._opposite: TableMap | None = None
        self._origin: weakref.ref[TableMap] | None = None
        self._lists: tuple[list[Tensor], list[Tensor]] | None = None

    def _make(self, *, table: bool = False, tiles: bool = False, pairs: bool = False) -> None:
        """Makes what is wanted and not there."""
        tiles = tiles and self._tiles is None
        pairs = pairs and self._raw_pairs is None
        if not tiles and not pairs and (self._table is not None or not table):
            return
        with torch.inference_mode(False):  # a training step may use it later
            made = self._made(tiles, pairs)
        if tiles:
            rows, order, taps, *made = made
            self._tiles = rows, order, taps
            if self.mirrored:
                self._back, *made = made
        if pairs:
            in_rows, out_rows, tap_ptr = made
            self._raw_pairs = in_rows, out_rows, tap_ptr
        expected = isinstance(self._source, FromSites) and self._opposite is None
        if self._tiles is not None and not table and (self.mirrored or not expected):
            self._let_table_go()

    def _made(self, tiles: bool, pairs: bool) -> list[Tensor]:
        if self._table is not None:
            return ops.plan_parts(self._table, self.rank, self.mirrored, tiles, pairs)
        source = self._source
        if isinstance(source, FromTable):
            self._table, *made = ops.plan_transposed(*source, self.rank, tiles)
            return [*made, *self._made(False, True)] if pairs else made
        assert source is not None
        inputs, outputs, offsets, stride = source
        made = ops.plan_table(
            inputs.index,
            inputs.coords,
            outputs,
            offsets,
            stride,
            self.rank,
            self.mirrored,
            tiles,
            pairs,
        )
        if inputs.index is None:
            inputs.index, *made = made
        self._table, *made = made
        return made

    def _let_table_go(self) -> None:
        if self._source is not None:
            self._table = None

    @property
    def table(self) -> Tensor:
        if self._table is None:
            self._make(table=True)
            assert self._table is not None
        return self._table

    @property
    def tiles(self) -> Pairs:
        self._make(tiles=True)
        assert self._tiles is not None
        return self._tiles

    @property
    def raw_pairs(self) -> Pairs:
        """The pairs, with unused memory behind the last, so that no size is asked for.

        Those of a transposed plan are the origin's, exchanged: sorted by input row within a tap.
        """
        if self._raw_pairs is None:
            origin = self._living_origin()
            if origin is None:
                self._make(pairs=True)
            else:
                in_rows, out_rows, tap_ptr = origin.raw_pairs
                self._raw_pairs = out_rows, in_rows, tap_ptr
        assert self._raw_pairs is not None
        return self._raw_pairs

    @property
    def pairs(self) -> Pairs:
        if self._pairs is None:
            raw = self.raw_pairs
            if self._origin is not None:
                with torch.inference_mode(False):
                    raw = tuple(ops.plan_parts(self.table, self.rank, False, False, True))
            self._pairs = _cut(raw)
        return self._pairs

    def _pairs_by_tap(self) -> Pairs:
        return self.pairs if self._origin is None else _cut(self.raw_pairs)

    def reverse(self, num_in: int) -> Pairs:
        return self.transposed(num_in).pairs

    def transposed(self, num_in: int) -> TableMap:
        origin = self._living_origin()
        if origin is not None:
            return origin
        if self._opposite is None:
            opposite = TableMap(self.rank, False, FromTable(self.table, num_in))
            self._keep_opposite(opposite)
            if self._tiles is not None:
                self._let_table_go()
            return opposite
        return self._opposite

    def _keep_opposite(self, opposite: TableMap) -> None:
        # The way back is weak: a circle would hold the memory of the GPU until Python looks for circles.
        opposite._origin = weakref.ref(self)
        self._opposite = opposite

    def _living_origin(self) -> TableMap | None:
        return None if self._origin is None else self._origin()

    def lists(self, num_in: int, learns: bool) -> tuple[list[Tensor], list[Tensor]]:
        if not learns:
            return list(self.tiles), []
        if self._lists is None:
            self._make(tiles=True, pairs=self._living_origin() is None)
            in_rows, out_rows, tap_ptr = self.raw_pairs
            self._lists = (
                [*self.tiles, in_rows, out_rows, tap_ptr],
                [*self._opposite_tiles(num_in), out_rows, in_rows, tap_ptr],
            )
        return self._lists

    def _opposite_tiles(self, num_in: int) -> Pairs:
        if not self.mirrored:
            return self.transposed(num_in).tiles
        rows, order, _ = self.tiles
        assert self._back is not None
        return rows, order, self._back


def _cut(raw: Pairs) -> Pairs:
    """The pairs without the memory behind them; asks the device how many there are."""
    in_rows, out_rows, tap_ptr = raw
    with torch.inference_mode(False):
        count = int(tap_ptr[-1])
        return in_rows[:count], out_rows[:count], tap_ptr


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
#
# The operators give back a list. Tiles are rows, order and taps, and of a mirrored map also the taps
# with the header of the map read backwards; pairs are in_rows, out_rows (each as long as there could
# be pairs) and tap_ptr.


def table_twin(
    in_sites: Tensor, out_sites: Tensor, offsets: Tensor, stride: tuple[int, ...]
) -> Tensor:
    """The pairs of `kernel_map` as a table ``[num_out, K] int32`` of input rows, -1 for none."""
    in_rows, out_rows, tap_ptr = kernel_map_twin(in_sites, out_sites, offsets, stride)
    tap = torch.repeat_interleave(torch.arange(len(offsets)), tap_ptr.diff())
    table = in_rows.new_full((len(out_sites), len(offsets)), -1)
    table[out_rows.long(), tap] = in_rows
    return table


@torch.library.register_fake("perception::plan_table")
def _(
    index: Tensor | None,
    in_sites: Tensor,
    out_sites: Tensor,
    offsets: Tensor,
    stride: list[int],
    rank: list[int],
    mirrored: bool,
    tiles: bool,
    pairs: bool,
) -> list[Tensor]:
    out = []
    if index is None:
        words = torch.library.get_ctx().new_dynamic_size()
        out.append(in_sites.new_empty(words, dtype=torch.int64))
    table = in_sites.new_empty(out_sites.shape[0], offsets.shape[0])
    return [*out, table, *_fake_parts(table, mirrored, tiles, pairs)]


@torch.library.register_fake("perception::plan_parts")
def _(table: Tensor, rank: list[int], mirrored: bool, tiles: bool, pairs: bool) -> list[Tensor]:
    return _fake_parts(table, mirrored, tiles, pairs)


@torch.library.register_fake("perception::plan_transposed")
def _(table: Tensor, num_in: int, rank: list[int], tiles: bool) -> list[Tensor]:
    transposed = table.new_empty(num_in, table.shape[1])
    return [transposed, *_fake_parts(transposed, False, tiles, False)]


def _fake_parts(table: Tensor, mirrored: bool, tiles: bool, pairs: bool) -> list[Tensor]:
    rows, taps = table.shape
    out = []
    if tiles:
        granules = torch.sym_max((rows + 63) // 64, 1)
        out += [table.new_empty(granules, taps, 64), table.new_empty(granules * 64)]
        words = table.new_empty(1 + granules, (taps + 31) // 32)
        out += [words, torch.empty_like(words)] if mirrored else [words]
    if pairs:
        in_rows = table.new_empty(rows * taps)
        out += [in_rows, torch.empty_like(in_rows), table.new_empty(taps + 1, dtype=torch.int64)]
    return out
