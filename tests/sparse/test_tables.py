"""What only CUDA has: kernel maps as tables and tiles (csrc/cuda/conv.cuh), sites as sets of bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from checks import here
from conftest import surface

from perception._native import ops
from perception.sparse.kernel_map import kernel_map_twin, rank_taps, table_twin
from perception.sparse.offsets import kernel_offsets
from perception.sparse.ops import build_index, strided_sites

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


def ranked(offsets: torch.Tensor) -> tuple[int, ...]:
    return rank_taps(tuple(tuple(row) for row in offsets.tolist()))


def planned(
    sites: torch.Tensor,
    out: torch.Tensor,
    offsets: torch.Tensor,
    stride: tuple[int, ...],
    *,
    mirrored: bool = False,
    tiles: bool = False,
    pairs: bool = False,
) -> list[torch.Tensor]:
    """What the operator makes of these sites, the index left out."""
    ends = here(sites), here(out), here(offsets), stride
    return ops.plan_table(None, *ends, ranked(offsets), mirrored, tiles, pairs)[1:]


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 3, 1)])
@pytest.mark.parametrize("case", CASES)
def test_table(case: str, stride: tuple[int, ...]) -> None:
    sites, offsets = cloud(case), kernel_offsets("cube", 3, dim=3, dilation=2)
    step = torch.tensor((1, *stride), dtype=torch.int32)
    for out in (torch.unique(torch.div(sites, step, rounding_mode="floor"), dim=0), sites.flip(0)):
        (table,) = planned(sites, out, offsets, stride)
        assert table.dtype == torch.int32
        assert torch.equal(table.cpu(), table_twin(sites, out, offsets, stride))


@pytest.mark.parametrize("dim", range(1, 8))
@pytest.mark.parametrize("order", ["shuffled", "sorted"])
def test_table_on_any_number_of_axes(dim: int, order: str) -> None:
    sites, offsets = cloud(order, dim), kernel_offsets("cube" if dim < 5 else "cross", 3, dim=dim)
    one = (1,) * dim
    (table,) = planned(sites, sites, offsets, one)
    assert torch.equal(table.cpu(), table_twin(sites, sites, offsets, one))


def test_an_index_is_made_where_none_is_given() -> None:
    sites, offsets = here(cloud("sorted")), here(kernel_offsets("cube", 3, dim=3))
    rest = sites, sites, offsets, (1, 1, 1), ranked(offsets.cpu()), False, False, False
    given = build_index(sites)[0]
    (table,) = ops.plan_table(given, *rest)
    made, again = ops.plan_table(None, *rest)
    assert torch.equal(table, again)
    assert made.shape == given.shape
    assert torch.equal(table, ops.plan_table(made, *rest)[0])


@pytest.mark.parametrize("size", [2, 3, 4])  # 8, 27 and 64 taps
@pytest.mark.parametrize("case", CASES)
def test_transposed(case: str, size: int) -> None:
    sites, offsets = cloud(case), kernel_offsets("cube", size, dim=3)
    out = torch.unique(torch.div(sites, 2, rounding_mode="floor"), dim=0)
    (table,) = planned(sites, out, offsets, (2, 2, 2))
    wanted = table.cpu()
    back = torch.full((len(sites), len(offsets)), -1, dtype=torch.int32)
    rows, taps = (wanted >= 0).nonzero().T
    back[wanted[rows, taps].long(), taps] = rows.int()
    rank = ranked(offsets)
    (lone,) = ops.plan_transposed(table, len(sites), rank, False)
    assert torch.equal(lone.cpu(), back)
    transposed, *tiles = ops.plan_transposed(table, len(sites), rank, True)
    assert torch.equal(transposed.cpu(), back)
    check_tiles(tiles, back, rank)


def check_pairs(found: list[torch.Tensor], wanted: tuple[torch.Tensor, ...]) -> None:
    in_rows, out_rows, ptr = found
    assert torch.equal(ptr.cpu(), wanted[2])
    assert torch.equal(in_rows[: int(ptr[-1])].cpu(), wanted[0])
    assert torch.equal(out_rows[: int(ptr[-1])].cpu(), wanted[1])


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("case", CASES)
def test_pairs_of_a_table(case: str, size: int) -> None:
    sites, offsets, one = cloud(case), kernel_offsets("cube", size, dim=3), (1, 1, 1)
    table, *pairs = planned(sites, sites, offsets, one, pairs=True)
    check_pairs(pairs, kernel_map_twin(sites, sites, offsets, one))
    check_pairs(
        ops.plan_parts(table, ranked(offsets), False, False, True),
        kernel_map_twin(sites, sites, offsets, one),
    )


@pytest.mark.parametrize("cut", [0, 1], ids=["whole", "cut off"])
def test_pairs_of_many_rows(cut: int) -> None:
    """More than a block holds at a time."""
    table = torch.randint(-1, 3, (600_000, 9), dtype=torch.int32)[cut:]
    table[table == 0] = -1
    out_rows, taps = (table >= 0).nonzero().T
    order = torch.argsort(taps, stable=True)
    counts = torch.bincount(taps, minlength=9)
    wanted = (
        table[out_rows, taps][order],
        out_rows[order].int(),
        torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
    )
    on_device = here(torch.cat([table[:1]] * cut + [table]))[cut:]
    check_pairs(ops.plan_parts(on_device, tuple(range(9)), False, False, True), wanted)


def gray(value: np.ndarray) -> np.ndarray:
    """The position of a word in the Gray code."""
    for shift in (1, 2, 4, 8, 16):
        value = value ^ (value >> np.uint32(shift))
    return value


def check_tiles(tiles: list[torch.Tensor], table: torch.Tensor, rank_of: tuple[int, ...]) -> None:
    """The tiles of a table, which is on the CPU."""
    rows, order, bits = (t.cpu().numpy() for t in tiles)
    wanted, rank = table.numpy(), np.array(rank_of)
    num_out, taps = wanted.shape
    granules, words = max(1, -(-num_out // GRANULE)), -(-taps // 32)
    assert rows.shape == (granules, taps, GRANULE)
    assert order.shape == (granules * GRANULE,)
    assert bits.shape == (1 + granules, words)
    assert not bits[0].any()

    has = wanted >= 0
    place = rank if taps <= 32 else rank * 32 // taps
    keys = np.zeros(num_out, np.uint32)
    for tap in range(taps):
        keys |= has[:, tap].astype(np.uint32) << np.uint32(place[tap])
    by_key = np.argsort(-gray(keys).astype(np.int64), kind="stable")
    assert np.array_equal(order[:num_out], by_key)
    assert (order[num_out:] == -1).all()

    slots = order.reshape(granules, GRANULE)
    for g in range(granules):
        inside = slots[g] >= 0
        expected = np.full((GRANULE, taps), -1)
        expected[inside] = wanted[slots[g][inside]]
        there = (expected >= 0).any(0)
        found = bits[1 + g].astype(np.uint32)
        unpacked = [(found[tap // 32] >> np.uint32(tap % 32)) & 1 for tap in range(taps)]
        assert np.array_equal(np.array(unpacked, bool), there)
        assert np.array_equal(rows[g][there], expected.T[there])


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("case", CASES)
def test_tiles(case: str, size: int) -> None:
    """Whether the taps of the rows come with the table or are read from it."""
    sites, offsets, one = cloud(case), kernel_offsets("cube", size, dim=3), (1, 1, 1)
    rank = ranked(offsets)
    table, *tiles = planned(sites, sites, offsets, one, tiles=True)
    check_tiles(tiles, table.cpu(), rank)
    check_tiles(ops.plan_parts(table, rank, False, True, False), table.cpu(), rank)


@pytest.mark.parametrize("size", [3, 5])
def test_the_taps_of_a_mirrored_map_come_with_both_headers(size: int) -> None:
    sites, offsets, one = cloud("sorted"), kernel_offsets("cube", size, dim=3), (1, 1, 1)
    made = planned(sites, sites, offsets, one, mirrored=True, tiles=True, pairs=True)
    table, rows, order, taps, back, *pairs = made
    check_tiles([rows, order, taps], table.cpu(), ranked(offsets))
    check_pairs(pairs, kernel_map_twin(sites, sites, offsets, one))
    assert back[0].tolist() == [1] + [0] * (taps.shape[1] - 1)
    assert torch.equal(back[1:], taps[1:])


@pytest.mark.parametrize("name", ["plan_table", "plan_parts", "plan_transposed"])
def test_opcheck(name: str) -> None:
    sites, offsets = here(cloud("sorted")), here(kernel_offsets("cube", 3, dim=3))
    rank, one = list(ranked(offsets.cpu())), [1, 1, 1]
    index = build_index(sites)[0]
    (table,) = ops.plan_table(index, sites, sites, offsets, one, rank, False, False, False)
    args = {
        "plan_table": (index, sites, sites, offsets, one, rank, True, False, False),
        "plan_parts": (table, rank, True, False, False),
        "plan_transposed": (table, len(sites), rank, False),
    }[name]
    # Tiles and pairs have memory that nothing is written to: no two calls agree on it.
    torch.library.opcheck(getattr(ops, name).default, args)
    for tiles, pairs in ((True, False), (True, True)):
        wanted = (*args[:-1], True) if name == "plan_transposed" else (*args[:-2], tiles, pairs)
        checks = ["test_schema", "test_autograd_registration", "test_faketensor"]
        torch.library.opcheck(getattr(ops, name).default, wanted, test_utils=checks)


@pytest.mark.parametrize("spread", [40, 3000, 100_000])
@pytest.mark.parametrize("rows", [300_000, 2**21 + 5])
def test_strided_sites_of_many_rows(rows: int, spread: int) -> None:
    """As the CPU makes them: several rows a thread; keys too far apart, or too many, for sets of bits."""
    place = torch.randint(-spread, spread, (rows, 3), dtype=torch.int32)
    sites = torch.cat([torch.randint(0, 4, (rows, 1), dtype=torch.int32), place], 1)
    for given in (sites, torch.unique(sites[:200_000], dim=0)):
        wanted = strided_sites(given, (2, 3, 1))
        assert torch.equal(strided_sites(here(given), (2, 3, 1)).cpu(), wanted)
