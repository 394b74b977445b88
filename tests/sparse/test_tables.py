"""Kernel maps as tables and tiles, the form they have on CUDA; csrc/cuda/conv.cuh describes it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from checks import here
from conftest import surface

from perception._native import ops
from perception.sparse.kernel_map import (
    kernel_map_twin,
    neighbor_table,
    neighbor_table_twin,
    rank_taps,
)
from perception.sparse.offsets import kernel_offsets
from perception.sparse.ops import build_index

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("on_cuda")]

FAR = 2**31 - 1
GRANULE = 64


def wide() -> torch.Tensor:
    rows = [[0, -FAR - 1, FAR, 0], [0, FAR, -FAR - 1, FAR], [3, 0, 0, 0], [0, -1, 1, -1]]
    return torch.tensor(rows, dtype=torch.int32)


def cloud(case: str, dim: int = 3) -> torch.Tensor:
    """On the CPU."""
    sites = {
        "shuffled": lambda: surface(400, dim, batch=2),
        "sorted": lambda: torch.unique(surface(400, dim, batch=2), dim=0),
        "one granule": lambda: surface(400, dim)[:GRANULE],
        "far apart": wide,
        "nothing": lambda: wide()[:0],
        "one": lambda: wide()[:1],
    }[case]()
    return sites.cpu()


CASES = ["shuffled", "sorted", "one granule", "far apart", "nothing", "one"]


def table_of(sites: torch.Tensor, out: torch.Tensor, offsets: torch.Tensor, stride: tuple) -> tuple:
    """A table, and what the CPU says it is."""
    on_device = here(sites), here(out), here(offsets)
    table, _ = neighbor_table(build_index(on_device[0])[0], *on_device, stride, False)
    return table, neighbor_table_twin(sites, out, offsets, stride)


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 3, 1)])
@pytest.mark.parametrize("case", CASES)
def test_neighbor_table(case: str, stride: tuple[int, ...]) -> None:
    sites, offsets = cloud(case), kernel_offsets("cube", 3, dim=3, dilation=2)
    step = torch.tensor((1, *stride), dtype=torch.int32)
    for out in (torch.unique(torch.div(sites, step, rounding_mode="floor"), dim=0), sites.flip(0)):
        table, wanted = table_of(sites, out, offsets, stride)
        assert table.dtype == torch.int32
        assert torch.equal(table.cpu(), wanted)


@pytest.mark.parametrize("dim", range(1, 8))
@pytest.mark.parametrize("order", ["shuffled", "sorted"])
def test_a_symmetric_table_is_the_table(dim: int, order: str) -> None:
    sites, offsets = cloud(order, dim), kernel_offsets("cube" if dim < 5 else "cross", 3, dim=dim)
    on_device, index = here(sites), build_index(here(sites))[0]
    one = (1,) * dim
    table, _ = neighbor_table(index, on_device, on_device, here(offsets), one, True)
    assert torch.equal(table.cpu(), neighbor_table_twin(sites, sites, offsets, one))


@pytest.mark.parametrize("case", CASES)
def test_transposed_table(case: str) -> None:
    sites, offsets = cloud(case), kernel_offsets("cube", 3, dim=3)
    out = torch.unique(torch.div(sites, 2, rounding_mode="floor"), dim=0)
    table, wanted = table_of(sites, out, offsets, (2, 2, 2))
    back = torch.full((len(sites), 27), -1, dtype=torch.int32)
    rows, taps = (wanted >= 0).nonzero().T
    back[wanted[rows, taps].long(), taps] = rows.int()
    assert torch.equal(ops.transpose_table(table, len(sites)).cpu(), back)


@pytest.mark.parametrize("case", CASES)
def test_pairs_of_a_table(case: str) -> None:
    sites, offsets = cloud(case), kernel_offsets("cube", 3, dim=3)
    wanted = kernel_map_twin(sites, sites, offsets, (1, 1, 1))
    in_rows, out_rows, ptr = ops.table_pairs(table_of(sites, sites, offsets, (1, 1, 1))[0])
    assert torch.equal(ptr.cpu(), wanted[2])
    assert torch.equal(in_rows[: int(ptr[-1])].cpu(), wanted[0])
    assert torch.equal(out_rows[: int(ptr[-1])].cpu(), wanted[1])


def gray(value: np.ndarray) -> np.ndarray:
    """The position of a word in the Gray code."""
    for shift in (1, 2, 4, 8, 16):
        value = value ^ (value >> np.uint32(shift))
    return value


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("case", CASES)
def test_tiles(case: str, size: int) -> None:
    sites, offsets = cloud(case), kernel_offsets("cube", size, dim=3)
    table, wanted = table_of(sites, sites, offsets, (1, 1, 1))
    taps = len(offsets)
    rank = np.array(rank_taps(tuple(tuple(row) for row in offsets.tolist())))
    rows, order, bits = (t.cpu().numpy() for t in ops.tile_table(table, rank.tolist()))
    granules, words = max(1, -(-len(sites) // GRANULE)), -(-taps // 32)
    assert rows.shape == (granules, taps, GRANULE)
    assert order.shape == (granules * GRANULE,)
    assert bits.shape == (1 + granules, words)
    assert not bits[0].any()

    has = wanted.numpy() >= 0
    place = rank if taps <= 32 else rank * 32 // taps
    keys = np.zeros(len(sites), np.uint32)
    for tap in range(taps):
        keys |= has[:, tap].astype(np.uint32) << np.uint32(place[tap])
    by_key = np.argsort(-gray(keys).astype(np.int64), kind="stable")
    assert np.array_equal(order[: len(sites)], by_key)
    assert (order[len(sites) :] == -1).all()

    slots = order.reshape(granules, GRANULE)
    for g in range(granules):
        inside = slots[g] >= 0
        expected = np.full((GRANULE, taps), -1)
        expected[inside] = wanted.numpy()[slots[g][inside]]
        there = (expected >= 0).any(0)
        found = bits[1 + g].astype(np.uint32)
        unpacked = [(found[tap // 32] >> np.uint32(tap % 32)) & 1 for tap in range(taps)]
        assert np.array_equal(np.array(unpacked, bool), there)
        assert np.array_equal(rows[g][there], expected.T[there])


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("case", CASES)
def test_masks_of_a_table(case: str, size: int) -> None:
    sites, offsets = here(cloud(case)), kernel_offsets("cube", size, dim=3)
    rank = rank_taps(tuple(tuple(row) for row in offsets.tolist()))
    index, one = build_index(sites)[0], (1, 1, 1)
    table, masks = neighbor_table(index, sites, sites, here(offsets), one, False, rank)
    if size == 5:  # more taps than a mask has bits
        assert masks.shape == (0,)
    else:
        bits = 1 << torch.tensor(rank, device=table.device)
        assert torch.equal(masks.long() & 0xFFFFFFFF, ((table >= 0) * bits).sum(1))
    given, made = ops.tile_table(table, rank, masks), ops.tile_table(table, rank)
    assert torch.equal(given[1], made[1])
    assert torch.equal(given[2], made[2])
