"""Every native operator equals its torch twin, passes opcheck, and treats empty input as a value."""

from __future__ import annotations

import pytest
import torch
from conftest import surface

from perception._native import ops
from perception.nn.norm import batch_norm_twin
from perception.sparse.conv import conv_twin, conv_weight_grad_twin
from perception.sparse.kernel_map import (
    kernel_map,
    kernel_map_twin,
    transpose_map,
    transpose_map_twin,
)
from perception.sparse.offsets import kernel_offsets
from perception.sparse.ops import (
    build_index,
    group_by,
    group_by_twin,
    lookup,
    lookup_twin,
    point_sites,
    point_sites_twin,
    reach_sites,
    reach_sites_twin,
    segment_argmax,
    segment_argmax_twin,
    segment_sum,
    segment_sum_twin,
    sum_rows,
    sum_rows_twin,
    unique_sites,
    unique_sites_twin,
)

FAR = 2**31 - 1
WIDE = [
    [0, -FAR - 1, FAR, 0],
    [0, FAR, -FAR - 1, FAR],
    [3, 0, 0, 0],
    [0, -1, 1, -1],
    [0, FAR, FAR, FAR],
]


def clouds(dim: int = 3) -> list[torch.Tensor]:
    wide = torch.tensor(WIDE, dtype=torch.int32)
    return [surface(300, dim, batch=2), wide, wide[:0], wide[:1]]


def plan(
    sites: torch.Tensor, out: torch.Tensor, offsets: torch.Tensor, stride: tuple[int, ...]
) -> tuple:
    return kernel_map(build_index(sites)[0], sites, out, offsets, stride, False)


def same(found: object, wanted: object) -> None:
    if isinstance(found, torch.Tensor):
        found, wanted = (found,), (wanted,)
    for a, b in zip(found, wanted, strict=True):  # type: ignore[call-overload]
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


@pytest.mark.parametrize("dim", [1, 2, 3, 7])
def test_unique_sites(dim: int) -> None:
    sites = surface(200, dim, batch=3)
    same(
        unique_sites(torch.cat([sites, sites[::2]])),
        unique_sites_twin(torch.cat([sites, sites[::2]])),
    )


@pytest.mark.parametrize("case", range(4))
def test_unique_sites_anywhere_in_int32(case: int) -> None:
    sites = clouds()[case]
    same(
        unique_sites(torch.cat([sites, sites.flip(0)])),
        unique_sites_twin(torch.cat([sites, sites.flip(0)])),
    )


@pytest.mark.parametrize("case", range(4))
def test_lookup(case: int) -> None:
    sites = clouds()[case]
    queries = torch.cat([sites.flip(0), sites[:5] + 1, torch.tensor(WIDE).int()])
    same(lookup(build_index(sites)[0], sites, queries), lookup_twin(sites, queries))


def test_index_counts_duplicates_and_sees_order() -> None:
    sites = torch.unique(surface(100), dim=0)
    assert build_index(sites)[1].tolist() == [0, 1]
    assert build_index(sites.flip(0))[1].tolist() == [0, 0]
    assert build_index(torch.cat([sites, sites[:7]]))[1].tolist() == [7, 0]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bounds", [(), (-4, -4, -1, 4, 4, 1)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 3, 1)])
def test_reach_sites(transposed: bool, bounds: tuple[int, ...], stride: tuple[int, ...]) -> None:
    sites, offsets = surface(200, batch=2), kernel_offsets("cube", 3, dim=3)
    args = (sites, offsets, stride, transposed, bounds)
    same(reach_sites(*args), reach_sites_twin(*args))


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 3, 1)])
@pytest.mark.parametrize("case", range(4))
def test_kernel_map(stride: tuple[int, ...], case: int) -> None:
    sites, offsets = clouds()[case], kernel_offsets("cube", 3, dim=3, dilation=2)
    step = torch.tensor((1, *stride), dtype=torch.int32)
    for out in (torch.unique(torch.div(sites, step, rounding_mode="floor"), dim=0), sites.flip(0)):
        found = plan(sites, out, offsets, stride)
        same(found, kernel_map_twin(sites, out, offsets, stride))
        same(transpose_map(*found, len(sites)), transpose_map_twin(*found, len(sites)))


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel_size", [2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 3])
def test_sorted_sites_are_walked_to_the_same_map(dim: int, kernel_size: int, dilation: int) -> None:
    sites = torch.unique(surface(120, dim, batch=2), dim=0)
    offsets = kernel_offsets("hybrid", kernel_size, dim=dim, dilation=dilation)
    backwards = offsets.flip(0).contiguous()
    for stride in (1, 2):
        step = torch.tensor((1, *[stride] * dim), dtype=torch.int32)
        out = torch.unique(torch.div(sites, step, rounding_mode="floor"), dim=0)
        for taps in (offsets, backwards):
            wanted = kernel_map_twin(sites, out, taps, (stride,) * dim)
            same(kernel_map(None, sites, out, taps, (stride,) * dim, False), wanted)


def test_sorted_sites_far_apart_are_mapped_too() -> None:
    sites = torch.unique(torch.tensor(WIDE).int(), dim=0)
    offsets = kernel_offsets("cube", 3, dim=3)
    wanted = kernel_map_twin(sites, sites, offsets, (1, 1, 1))
    same(kernel_map(None, sites, sites, offsets, (1, 1, 1), False), wanted)
    same(kernel_map(None, sites, sites, offsets, (1, 1, 1), True), wanted)


def test_symmetric_map_is_the_map() -> None:
    sites, offsets = torch.unique(surface(3000, batch=2), dim=0), kernel_offsets("cube", 3, dim=3)
    index = build_index(sites)[0]
    whole = kernel_map(index, sites, sites, offsets, (1, 1, 1), False)
    same(kernel_map(index, sites, sites, offsets, (1, 1, 1), True), whole)
    in_rows, out_rows, ptr = whole
    same(transpose_map(*whole, len(sites)), (out_rows, in_rows, ptr))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_group_by(dtype: torch.dtype) -> None:
    keys = torch.randint(-1, 9, (100,), dtype=dtype)
    same(group_by(keys, 11), group_by_twin(keys, 11))
    same(group_by(keys[:0], 3), group_by_twin(keys[:0], 3))
    with pytest.raises(RuntimeError, match="outside -1"):
        group_by(keys, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", [(), (-1.0, -1.0, -0.5, 1.0, 1.0, 0.5)])
def test_point_sites(dtype: torch.dtype, bounds: tuple[float, ...]) -> None:
    points = torch.randn(500, 3, dtype=dtype)
    points[3, 1], points[7, 0], points[9, 2] = float("nan"), float("-inf"), 1e30
    args = (points, torch.randint(0, 4, (500,)), (0.1, 0.2, 0.05), (0.01, 0.0, -1.0), bounds)
    same(point_sites(*args), point_sites_twin(*args))


def segments(
    rows: int = 40, count: int = 25, entries: int = 90
) -> tuple[torch.Tensor, torch.Tensor]:
    cuts = torch.randint(0, entries - 3, (count - 1,)).sort().values
    ptr = torch.cat([torch.zeros(1).long(), cuts, torch.tensor([entries - 3])])
    return torch.randint(-1, rows, (entries,)).int(), ptr


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_segment_sum(weighted: bool, mean: bool) -> None:
    rows, ptr = segments()
    x = torch.randn(40, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(90, dtype=torch.float64, requires_grad=True) if weighted else None
    inputs = (x, rows, ptr, weights, mean)
    torch.testing.assert_close(segment_sum(*inputs), segment_sum_twin(*inputs))
    assert torch.autograd.gradcheck(segment_sum, inputs)
    assert torch.autograd.gradgradcheck(segment_sum, inputs)


def test_segment_argmax() -> None:
    rows, ptr = segments()
    x = torch.randint(0, 4, (40, 5)).float()  # with ties
    x[11, 2] = float("nan")
    same(segment_argmax(x, rows, ptr), segment_argmax_twin(x, rows, ptr))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_sum_rows(dtype: torch.dtype) -> None:
    x = torch.randn(5000, 7).to(dtype)
    torch.testing.assert_close(sum_rows(x), sum_rows_twin(x), rtol=1e-6, atol=1e-9)


def product(groups: int, dtype: torch.dtype, cin: int = 6, cout: int = 8, dim: int = 3) -> tuple:
    sites = surface(150, dim, batch=2)
    pairs = plan(sites, sites, kernel_offsets("cube", 3, dim=dim), (1,) * dim)
    x = torch.randn(len(sites), cin).to(dtype)
    weight = torch.randn(3**dim, cin // groups, cout).to(dtype)
    return x, weight, torch.randn(cout).to(dtype), pairs


@pytest.mark.parametrize(
    ("cin", "cout", "groups"),
    [
        (6, 8, 1),
        (6, 8, 2),
        (8, 8, 8),
        (1, 1, 1),
        (5, 37, 1),
        (64, 96, 1),
        (3, 130, 1),
        (20, 12, 4),
        (4, 16, 4),
    ],
)
def test_conv(cin: int, cout: int, groups: int) -> None:
    x, weight, bias, pairs = product(groups, torch.float64, cin, cout)
    out = ops.conv(x, weight, bias, list(pairs), [], len(x), groups)
    torch.testing.assert_close(
        out, conv_twin(x, weight, bias, pairs, len(x), groups), rtol=1e-12, atol=1e-12
    )
    grad = torch.randn(len(x), cout, dtype=torch.float64)
    found = ops.conv_weight_grad(x, grad, list(pairs), [], groups)
    torch.testing.assert_close(
        found, conv_weight_grad_twin(x, grad, pairs, groups), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_conv_has_all_derivatives(groups: int) -> None:
    sites = surface(12, 2)
    pairs = list(plan(sites, sites[::2], kernel_offsets("cube", 3, dim=2), (1, 1)))
    x = torch.randn(len(sites), 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(9, 6 // groups, 6, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(6, dtype=torch.float64, requires_grad=True)

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        return ops.conv(*inputs, pairs, [], len(sites[::2]), groups)

    assert torch.autograd.gradcheck(run, (x, weight, bias))
    assert torch.autograd.gradgradcheck(run, (x, weight, bias))


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm(affine: bool) -> None:
    x = torch.randn(30, 4, dtype=torch.float64, requires_grad=True) * 3 + 7
    scale, shift = (
        (torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in range(2))
        if affine
        else (None, None)
    )
    for found, wanted in zip(
        ops.batch_norm(x, scale, shift, 1e-5), batch_norm_twin(x, scale, shift, 1e-5), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda *a: ops.batch_norm(*a, 1e-5)[0], (x, scale, shift))
    assert torch.autograd.gradgradcheck(lambda *a: ops.batch_norm(*a, 1e-5)[0], (x, scale, shift))


def opcheck_cases() -> dict[str, tuple]:
    torch.manual_seed(0)
    sites = surface(60)
    offsets = kernel_offsets("cube", 3, dim=3)
    index = build_index(sites)[0]
    pairs = list(plan(sites, sites, offsets, (1, 1, 1)))
    rows, ptr = segments()
    x = torch.randn(len(sites), 4, requires_grad=True)
    weight, bias = torch.randn(27, 4, 6, requires_grad=True), torch.randn(6, requires_grad=True)
    entries = torch.randn(90, requires_grad=True)
    table = torch.randn(40, 5, requires_grad=True)
    stats = [t.detach() for t in ops.batch_norm(x, None, None, 1e-5)[1:]]
    return {
        "unique_sites": (sites,),
        "build_index": (sites, True),
        "lookup": (index, sites, sites),
        "reach_sites": (sites, offsets, [2, 2, 2], False, []),
        "kernel_map": (index, sites, sites, offsets, [1, 1, 1], False),
        "transpose_map": (*pairs, len(sites)),
        "group_by": (pairs[1], len(sites)),
        "point_sites": (torch.randn(9, 3), None, [0.1] * 3, [0.0] * 3, []),
        "conv": (x, weight, bias, pairs, [], len(sites), 1),
        "conv_weight_grad": (x, torch.randn(len(sites), 6, requires_grad=True), pairs, [], 1),
        "segment_sum": (table, rows, ptr, entries, False),
        "segment_argmax": (table.detach(), rows, ptr),
        "sum_rows": (x,),
        "batch_norm": (
            x,
            torch.ones(4, requires_grad=True),
            torch.zeros(4, requires_grad=True),
            1e-5,
        ),
        "batch_norm_backward": (x.detach(), x.detach(), None, *stats, 1e-5),
    }


@pytest.mark.parametrize("name", opcheck_cases())
def test_opcheck(name: str) -> None:
    args = opcheck_cases()[name]
    torch.library.opcheck(getattr(ops, name).default, args)


def test_a_map_of_other_features_is_refused() -> None:
    x, weight, bias, pairs = product(1, torch.float32)
    with pytest.raises(RuntimeError, match="rows that the features do not have"):
        ops.conv(x[:5], weight, bias, list(pairs), [], len(x), 1)
    with pytest.raises(RuntimeError, match="rows that the features do not have"):
        ops.conv(x, weight, bias, list(pairs), [], 5, 1)


def test_row_counts_of_forged_sizes_are_refused_or_carried() -> None:
    """Two thousand million rows by stride zero: the type's limit is met before any memory is."""
    sites = torch.zeros(1, 4, dtype=torch.int32).expand(2**31, 4)
    with pytest.raises(RuntimeError, match="2\\^31 - 1"):
        ops.unique_sites(sites)
    with pytest.raises(RuntimeError, match="2\\^31 - 1"):
        ops.build_index(sites, True)
    with torch.device("meta"):
        rows = 2**31 - 1
        x, weight = torch.empty(rows, 8), torch.empty(27, 8, 16)
        pairs = [torch.empty(9 * rows, dtype=torch.int32)] * 2 + [
            torch.empty(28, dtype=torch.int64)
        ]
        assert ops.conv(x, weight, None, pairs, [], rows, 1).shape == (rows, 16)
        assert ops.conv_weight_grad(x, torch.empty(rows, 16), pairs, [], 1).shape == (27, 8, 16)
