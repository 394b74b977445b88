"""Kernel maps: which input row meets which output row at which tap."""

from __future__ import annotations

import torch
from torch import Tensor

from perception._native import ops
from perception.sparse.ops import group_by

__all__ = ["KernelMap", "kernel_map", "transpose_map"]

Pairs = tuple[Tensor, Tensor, Tensor]


class KernelMap:
    """An immutable plan of a sparse product.

    Attributes:
        pairs: ``in_rows [P] int32``, ``out_rows [P] int32``, ``tap_ptr [K + 1] int64``; the pairs of
            tap k are ``tap_ptr[k] .. tap_ptr[k + 1]``, sorted by output row.
        monotone: input rows rise with output rows within every tap (sites of both ends sorted);
            then the map read backwards is sorted too and the transposed map is free.
    """

    __slots__ = ("_by_output", "_reverse", "monotone", "pairs")

    def __init__(self, pairs: Pairs, monotone: bool, reverse: Pairs | None = None):
        self.pairs = pairs
        self.monotone = monotone
        if monotone:
            in_rows, out_rows, tap_ptr = pairs
            reverse = (out_rows, in_rows, tap_ptr)
        self._reverse = reverse
        self._by_output: tuple[Tensor, Tensor] | None = None

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
