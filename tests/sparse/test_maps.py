"""Kernel maps of sorted sites, found by columns of 64 along the last axis, against every pair tried."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.sparse.kernel_map import kernel_map, kernel_map_twin


def sorted_sites(rows: int, extent: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(0, 2, (rows,), generator=generator)]
    columns += [torch.randint(-n, n, (rows,), generator=generator) for n in extent]
    return torch.unique(torch.stack(columns, 1), dim=0).int()


def pairs_by_tap(pairs) -> list[list[tuple[int, int]]]:
    in_rows, out_rows, ptr = (part.tolist() for part in pairs)
    both = list(zip(out_rows, in_rows, strict=True))
    return [both[ptr[k] : ptr[k + 1]] for k in range(len(ptr) - 1)]


@pytest.mark.parametrize("extent", [(400,), (3, 300), (4, 4, 70), (2, 2, 2, 200)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_taps_far_along_the_last_axis(extent: tuple[int, ...], stride: int) -> None:
    sites = sorted_sites(400, extent, seed=len(extent))
    coarse = torch.unique(torch.div(sites[:, 1:], stride, rounding_mode="floor"), dim=0)
    outputs = torch.cat([torch.ones(len(coarse), 1), coarse], 1).int()
    steps = [-1000, -200, -129, -128, -65, -64, -63, -1, 0, 1, 2, 62, 63, 64, 65, 127, 190, 10**6]
    near = torch.zeros(len(steps), len(extent), dtype=torch.int32)
    near[:, -1] = torch.tensor(steps)
    beside = near.clone()
    beside[:, 0] -= 1
    offsets = torch.cat([near, beside, near.flip(0)])
    strides = (stride,) * len(extent)
    found = kernel_map(None, sites, outputs, offsets, strides, False)
    assert pairs_by_tap(found) == pairs_by_tap(kernel_map_twin(sites, outputs, offsets, strides))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 300),
    dim=st.integers(1, 4),
    reach=st.integers(1, 200),
    thick=st.integers(1, 90),
)
def test_any_taps_on_any_sites(seed: int, rows: int, dim: int, reach: int, thick: int) -> None:
    sites = sorted_sites(rows, (*(2,) * (dim - 1), thick), seed)
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.randint(-2, 3, (12, dim), generator=generator)
    offsets[:, -1] = torch.randint(-reach, reach + 1, (12,), generator=generator)
    offsets = torch.unique(offsets, dim=0).int()
    found = kernel_map(None, sites, sites, offsets, (1,) * dim, False)
    assert pairs_by_tap(found) == pairs_by_tap(kernel_map_twin(sites, sites, offsets, (1,) * dim))


def test_sites_at_the_ends_of_int32() -> None:
    ends = torch.tensor([-(2**31), -(2**31) + 1, -1, 0, 2**31 - 2, 2**31 - 1])
    sites = torch.stack([torch.zeros(6, dtype=torch.int64), ends], 1).int()
    offsets = torch.tensor([[-1], [0], [1]]).int()
    found = kernel_map(None, sites, sites, offsets, (1,), True)
    assert pairs_by_tap(found) == pairs_by_tap(kernel_map_twin(sites, sites, offsets, (1,)))
