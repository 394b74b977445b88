"""What a plan on CUDA asks of the engine, and when: everything wanted in one call, nothing else.

The operators are played by their definitions, on the CPU.
"""

from __future__ import annotations

import pytest
import torch
from conftest import surface
from torch import Tensor
from torch.utils import _pytree as pytree

from perception.sparse import kernel_map as plans
from perception.sparse.kernel_map import FromSites, IndexedSites, TableMap, rank_taps, table_twin
from perception.sparse.offsets import kernel_offsets

Asked = list[tuple[str, bool, bool]]


class Stage:
    """The operators of kernel maps; remembers what was asked of them: tiles, pairs."""

    def __init__(self) -> None:
        self.asked: Asked = []

    def plan_table(
        self,
        index: Tensor | None,
        in_sites: Tensor,
        out_sites: Tensor,
        offsets: Tensor,
        stride: tuple[int, ...],
        rank: tuple[int, ...],
        mirrored: bool,
        tiles: bool,
        pairs: bool,
    ) -> list[Tensor]:
        self.asked.append(("table" if index is not None else "index and table", tiles, pairs))
        table = table_twin(in_sites, out_sites, offsets, stride)
        made = [] if index is not None else [torch.zeros(1)]
        return [*made, table, *self.parts(table, mirrored, tiles, pairs)]

    def plan_parts(
        self, table: Tensor, rank: tuple[int, ...], mirrored: bool, tiles: bool, pairs: bool
    ) -> list[Tensor]:
        self.asked.append(("parts", tiles, pairs))
        return self.parts(table, mirrored, tiles, pairs)

    def plan_transposed(
        self, table: Tensor, num_in: int, rank: tuple[int, ...], tiles: bool
    ) -> list[Tensor]:
        self.asked.append(("transposed", tiles, False))
        back = table.new_full((num_in, table.shape[1]), -1)
        rows, taps = (table >= 0).nonzero().T
        back[table[rows, taps].long(), taps] = rows.int()
        return [back, *self.parts(back, False, tiles, False)]

    def parts(self, table: Tensor, mirrored: bool, tiles: bool, pairs: bool) -> list[Tensor]:
        """Tiles are played by the table itself."""
        out = []
        if tiles:
            out += [table.clone(), torch.arange(len(table)), torch.tensor([0])]
            out += [torch.tensor([1])] if mirrored else []
        if pairs:
            taps, rows = (table.T >= 0).nonzero().T
            counts = torch.bincount(taps, minlength=table.shape[1])
            unused = torch.full((5,), -7, dtype=torch.int32)
            out += [torch.cat([table[rows, taps], unused]), torch.cat([rows.int(), unused])]
            out += [torch.cat([counts.new_zeros(1), counts.cumsum(0)])]
        return out

    def new(self) -> Asked:
        asked, self.asked = self.asked, []
        return asked


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    played = Stage()
    monkeypatch.setattr(plans, "ops", played)
    return played


class Case:
    """A map of a size and stride on a cloud, its definition, and the plan under test."""

    def __init__(self, size: int, stride: int):
        sites = torch.unique(surface(80, batch=2).cpu(), dim=0)
        step = torch.tensor((1, *(stride,) * 3), dtype=torch.int32)
        out = torch.unique(torch.div(sites, step, rounding_mode="floor"), dim=0)
        offsets = kernel_offsets("cube", size, dim=3)
        self.num_in, self.num_out = len(sites), len(out)
        self.inputs = IndexedSites(sites)
        self.table = table_twin(sites, out, offsets, (stride,) * 3)
        source = FromSites(self.inputs, sites if stride == 1 else out, offsets, (stride,) * 3)
        rank = rank_taps(tuple(tuple(row) for row in offsets.tolist()))
        self.plan = TableMap(rank, stride == 1, source)

    def pairs(self) -> list[Tensor]:
        """Without the unused memory behind them."""
        in_rows, out_rows, ptr = Stage().parts(self.table, False, False, True)
        return [in_rows[:-5], out_rows[:-5], ptr]


@pytest.fixture
def submanifold(stage: Stage) -> Case:
    return Case(3, 1)


@pytest.fixture
def strided(stage: Stage) -> Case:
    return Case(2, 2)


def same(found: list[Tensor], wanted: list[Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a[: len(b)], b)


def test_nothing_is_asked_before_it_is_wanted(stage: Stage, strided: Case) -> None:
    assert not stage.new()
    strided.plan.lists(strided.num_in, learns=False)
    assert stage.new() == [("index and table", True, False)]
    strided.plan.lists(strided.num_in, learns=False)
    assert not stage.new()
    assert strided.inputs.index is not None


def test_learning_on_the_same_sites_is_one_call(stage: Stage, submanifold: Case) -> None:
    there, back = submanifold.plan.lists(submanifold.num_in, learns=True)
    assert stage.new() == [("index and table", True, True)]
    assert torch.equal(there[0], submanifold.table)
    same(there[3:], submanifold.pairs())
    same([back[i] for i in (4, 3, 5)], submanifold.pairs())
    assert back[0] is there[0]
    assert back[1] is there[1]
    assert (there[2].tolist(), back[2].tolist()) == ([0], [1])
    assert submanifold.plan._table is None  # it is large, and nobody is expected to want it
    assert submanifold.plan.lists(submanifold.num_in, learns=True)[0] is there
    assert not stage.new()


def test_a_plan_of_inference_learns_later(stage: Stage, submanifold: Case) -> None:
    with torch.inference_mode():
        tiles, _ = submanifold.plan.lists(submanifold.num_in, learns=False)
    there, _ = submanifold.plan.lists(submanifold.num_in, learns=True)
    assert stage.new() == [("index and table", True, False), ("table", False, True)]
    assert [id(t) for t in there[:3]] == [id(t) for t in tiles]
    assert not any(t.is_inference() for t in there)
    same(there[3:], submanifold.pairs())


def test_the_way_back_is_one_call_and_has_the_same_pairs(stage: Stage, strided: Case) -> None:
    there, back = strided.plan.lists(strided.num_in, learns=True)
    assert stage.new() == [("index and table", True, True), ("transposed", True, False)]
    assert [id(t) for t in back[3:]] == [id(there[i]) for i in (4, 3, 5)]
    transposed = strided.plan.transposed(strided.num_in)
    again, forth = transposed.lists(strided.num_out, learns=True)
    assert not stage.new()
    assert [id(t) for t in again] == [id(t) for t in back]
    assert [id(t) for t in forth] == [id(t) for t in there]
    assert strided.plan.transposed(strided.num_in) is transposed
    assert transposed.transposed(strided.num_out) is strided.plan


def test_the_way_back_in_inference(stage: Stage, strided: Case) -> None:
    strided.plan.lists(strided.num_in, learns=False)
    transposed = strided.plan.transposed(strided.num_in)
    tiles, _ = transposed.lists(strided.num_out, learns=False)
    assert stage.new() == [("index and table", True, False), ("transposed", True, False)]
    assert strided.plan._table is None
    assert transposed._table is None
    assert torch.equal(tiles[0], transposed.table)


def test_a_transposed_plan_outlives_its_origin(stage: Stage, strided: Case) -> None:
    transposed = strided.plan.transposed(strided.num_in)
    wanted = strided.pairs()
    del strided.plan
    there, _ = transposed.lists(strided.num_out, learns=True)
    for tap in range(8):
        part = slice(int(wanted[2][tap]), int(wanted[2][tap + 1]))
        expected = sorted(zip(wanted[1][part].tolist(), wanted[0][part].tolist(), strict=True))
        found = sorted(zip(there[3][part].tolist(), there[4][part].tolist(), strict=True))
        assert found == expected
    assert torch.equal(transposed.transposed(strided.num_out).table, strided.table)


@pytest.mark.parametrize("back", [False, True])
def test_pooling_wants_no_tiles(stage: Stage, strided: Case, back: bool) -> None:
    plan = strided.plan.transposed(strided.num_in) if back else strided.plan
    table = plan.table.clone()
    rows, ptr = plan.by_output(len(table))
    assert not any(tiles for _, tiles, _ in stage.new())
    for row in range(len(table)):
        assert rows[ptr[row] : ptr[row + 1]].tolist() == [i for i in table[row].tolist() if i >= 0]


def test_pairs_are_sorted_by_output_both_ways(stage: Stage, strided: Case) -> None:
    same(list(strided.plan.pairs), strided.pairs())
    in_rows, out_rows, ptr = strided.plan.reverse(strided.num_in)
    for tap in range(8):
        rows = out_rows[ptr[tap] : ptr[tap + 1]]
        assert torch.equal(rows, rows.sort().values)
        assert (strided.table[in_rows[ptr[tap] : ptr[tap + 1]].long(), tap] == rows).all()


@pytest.mark.parametrize("learns", [False, True])
def test_a_plan_is_a_tree_of_tensors(stage: Stage, strided: Case, learns: bool) -> None:
    for case in (Case(3, 1), strided):
        wanted = case.plan.lists(case.num_in, learns)
        leaves, spec = pytree.tree_flatten(case.plan)
        stage.new()
        twin = pytree.tree_unflatten(leaves, spec)
        for found, list_ in zip(twin.lists(case.num_in, learns), wanted, strict=True):
            assert [id(t) for t in found] == [id(t) for t in list_]
        twin.lists(case.num_in, True)
        assert torch.equal(twin.table, case.table)
