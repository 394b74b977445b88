"""Every native operator equals its torch twin, passes opcheck, and treats empty input as a value.

The operators run on the device of the test; the twins, which define them, on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import here
from conftest import surface

from perception._native import ops
from perception.nn.norm import batch_norm_twin, normalize_twin
from perception.sparse import Sites
from perception.sparse.conv import conv, conv_twin, conv_weight_grad_twin
from perception.sparse.kernel_map import (
    KernelMap,
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
    segment_max,
    segment_max_grad_twin,
    segment_of_entries,
    segment_sum,
    segment_sum_twin,
    strided_sites,
    strided_sites_twin,
    sum_rows,
    sum_rows_twin,
    unique_sites,
    unique_sites_twin,
)

pytestmark = pytest.mark.usefixtures("device")

FAR = 2**31 - 1
WIDE = [
    [0, -FAR - 1, FAR, 0],
    [0, FAR, -FAR - 1, FAR],
    [3, 0, 0, 0],
    [0, -1, 1, -1],
    [0, FAR, FAR, FAR],
]


def clouds(dim: int = 3) -> list[torch.Tensor]:
    wide = here(torch.tensor(WIDE, dtype=torch.int32))
    return [surface(300, dim, batch=2), wide, wide[:0], wide[:1]]


def taps(kernel: str, size: int, *, dim: int = 3, dilation: int = 1) -> torch.Tensor:
    return here(kernel_offsets(kernel, size, dim=dim, dilation=dilation))


def floored(sites: torch.Tensor, stride: tuple[int, ...]) -> torch.Tensor:
    step = torch.tensor((1, *stride), dtype=torch.int32, device=sites.device)
    return torch.unique(torch.div(sites, step, rounding_mode="floor"), dim=0)


def pairs_of(
    sites: torch.Tensor, out: torch.Tensor, offsets: torch.Tensor, stride: tuple[int, ...]
) -> tuple:
    return kernel_map(build_index(sites)[0], sites, out, offsets, stride, False)


def twin(function: Callable, *args: Any) -> Any:
    """What a twin makes of the arguments, on the CPU."""
    return function(*(a.cpu() if isinstance(a, torch.Tensor) else a for a in args))


def same(found: object, wanted: object) -> None:
    if isinstance(found, torch.Tensor):
        found, wanted = (found,), (wanted,)
    for a, b in zip(found, wanted, strict=True):  # type: ignore[call-overload]
        assert a.dtype == b.dtype
        assert torch.equal(a.cpu(), b)


def close(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found.cpu(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dim", [1, 2, 3, 7])
def test_unique_sites(dim: int) -> None:
    sites = surface(200, dim, batch=3)
    repeated = torch.cat([sites, sites[::2]])
    same(unique_sites(repeated), twin(unique_sites_twin, repeated))


@pytest.mark.parametrize("case", range(4))
def test_unique_sites_anywhere_in_int32(case: int) -> None:
    sites = clouds()[case]
    repeated = torch.cat([sites, sites.flip(0)])
    same(unique_sites(repeated), twin(unique_sites_twin, repeated))


@pytest.mark.parametrize("stride", [1, 2, 3, 7, FAR, FAR + 1, 2**40])
@pytest.mark.parametrize("case", range(4))
def test_strided_sites(case: int, stride: int) -> None:
    sites = clouds()[case]
    for steps in ((stride,) * 3, (2, stride, 1)):
        for given in (sites, torch.unique(sites, dim=0)):
            same(strided_sites(given, steps), twin(strided_sites_twin, given, steps))


@pytest.mark.parametrize("dim", [1, 2, 4, 7])
@pytest.mark.parametrize("rows", [1, 900, 40_000])
@pytest.mark.parametrize("spread", [3, 300, 30_000])
def test_strided_sites_near_and_far_apart(dim: int, rows: int, spread: int) -> None:
    sites = here(torch.randint(-spread, spread, (rows, dim + 1), dtype=torch.int32))
    stride = tuple(range(1, dim + 1))
    same(strided_sites(sites, stride), twin(strided_sites_twin, sites, stride))


def test_a_stride_is_positive_and_has_a_step_an_axis() -> None:
    sites = clouds()[0]
    for stride in ((2, 0, 2), (2, -1, 2), (2, 2)):
        with pytest.raises(RuntimeError, match="stride"):
            strided_sites(sites, stride)


@pytest.mark.parametrize("case", range(4))
def test_lookup(case: int) -> None:
    sites = clouds()[case]
    queries = torch.cat([sites.flip(0), sites[:5] + 1, clouds()[1]])
    same(lookup(build_index(sites)[0], sites, queries), twin(lookup_twin, sites, queries))


def test_index_counts_duplicates_and_sees_order() -> None:
    sites = torch.unique(surface(100), dim=0)
    assert build_index(sites)[1].tolist() == [0, 1]
    assert build_index(sites.flip(0))[1].tolist() == [0, 0]
    assert build_index(torch.cat([sites, sites[:7]]))[1].tolist() == [7, 0]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bounds", [(), (-4, -4, -1, 4, 4, 1)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 3, 1)])
def test_reach_sites(transposed: bool, bounds: tuple[int, ...], stride: tuple[int, ...]) -> None:
    args = (surface(200, batch=2), taps("cube", 3), stride, transposed, bounds)
    same(reach_sites(*args), twin(reach_sites_twin, *args))


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 3, 1)])
@pytest.mark.parametrize("case", range(4))
def test_kernel_map(stride: tuple[int, ...], case: int) -> None:
    sites, offsets = clouds()[case], taps("cube", 3, dilation=2)
    for out in (floored(sites, stride), sites.flip(0)):
        found = pairs_of(sites, out, offsets, stride)
        same(found, twin(kernel_map_twin, sites, out, offsets, stride))
        same(transpose_map(*found, len(sites)), twin(transpose_map_twin, *found, len(sites)))


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel_size", [2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 3])
def test_sorted_sites_are_walked_to_the_same_map(dim: int, kernel_size: int, dilation: int) -> None:
    sites = torch.unique(surface(120, dim, batch=2), dim=0)
    offsets = taps("hybrid", kernel_size, dim=dim, dilation=dilation)
    backwards = offsets.flip(0).contiguous()
    for stride in ((1,) * dim, (2,) * dim):
        out = floored(sites, stride)
        for way in (offsets, backwards):
            wanted = twin(kernel_map_twin, sites, out, way, stride)
            same(kernel_map(None, sites, out, way, stride, False), wanted)


def test_sorted_sites_far_apart_are_mapped_too() -> None:
    sites, offsets = torch.unique(clouds()[1], dim=0), taps("cube", 3)
    wanted = twin(kernel_map_twin, sites, sites, offsets, (1, 1, 1))
    same(kernel_map(None, sites, sites, offsets, (1, 1, 1), False), wanted)
    same(kernel_map(None, sites, sites, offsets, (1, 1, 1), True), wanted)


def test_symmetric_map_is_the_map() -> None:
    sites, offsets = torch.unique(surface(3000, batch=2), dim=0), taps("cube", 3)
    index = build_index(sites)[0]
    whole = kernel_map(index, sites, sites, offsets, (1, 1, 1), False)
    in_rows, out_rows, ptr = (t.cpu() for t in whole)
    same(
        kernel_map(index, sites, sites, offsets, (1, 1, 1), True),
        (in_rows, out_rows, ptr),
    )
    same(transpose_map(*whole, len(sites)), (out_rows, in_rows, ptr))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_group_by(dtype: torch.dtype) -> None:
    keys = here(torch.randint(-1, 9, (100,), dtype=dtype))
    same(group_by(keys, 11), twin(group_by_twin, keys, 11))
    same(group_by(keys[:0], 3), twin(group_by_twin, keys[:0], 3))
    if keys.is_cpu:  # on CUDA nobody waits for the keys to look at them
        with pytest.raises(RuntimeError, match="outside -1"):
            group_by(keys, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", [(), (-1.0, -1.0, -0.5, 1.0, 1.0, 0.5)])
def test_point_sites(dtype: torch.dtype, bounds: tuple[float, ...]) -> None:
    points = torch.randn(500, 3, dtype=dtype)
    points[3, 1], points[7, 0], points[9, 2] = float("nan"), float("-inf"), 1e30
    batch = here(torch.randint(0, 4, (500,)))
    args = (here(points), batch, (0.1, 0.2, 0.05), (0.01, 0.0, -1.0), bounds)
    same(point_sites(*args), twin(point_sites_twin, *args))


def segments(
    rows: int = 40, count: int = 25, entries: int = 90
) -> tuple[torch.Tensor, torch.Tensor]:
    cuts = torch.randint(0, entries - 3, (count - 1,)).sort().values
    ptr = torch.cat([torch.zeros(1).long(), cuts, torch.tensor([entries - 3])])
    return here(torch.randint(-1, rows, (entries,)).int()), here(ptr)


def leaf(*shape: int) -> torch.Tensor:
    return here(torch.randn(*shape, dtype=torch.float64)).requires_grad_()


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_segment_sum(weighted: bool, mean: bool) -> None:
    rows, ptr = segments()
    x = leaf(40, 5)
    weights = leaf(90) if weighted else None
    inputs = (x, rows, ptr, weights, mean)
    close(segment_sum(*inputs), twin(segment_sum_twin, *inputs))
    assert torch.autograd.gradcheck(segment_sum, inputs)
    assert torch.autograd.gradgradcheck(segment_sum, inputs)


def test_segment_argmax() -> None:
    rows, ptr = segments()
    x = torch.randint(0, 4, (40, 5)).float()  # with ties
    x[11, 2] = float("nan")
    x = here(x)
    same(segment_argmax(x, rows, ptr), twin(segment_argmax_twin, x, rows, ptr))


def windows(rows: int = 40, count: int = 25) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping segments of up to six different rows each, the last one empty."""
    drawn = [torch.randperm(rows)[: n % 7].sort().values for n in range(count - 1)]
    ptr = torch.tensor([0, *(len(d) for d in drawn), 0]).cumsum(0)
    return here(torch.cat(drawn).int()), here(ptr)


def test_segment_max() -> None:
    rows, ptr = windows()
    x = leaf(40, 5)
    arg = segment_argmax(x, rows, ptr)
    found = segment_max(x, rows, ptr)
    wanted = torch.where(arg >= 0, x.gather(0, arg.clamp(min=0)), 0)
    assert torch.equal(found, wanted)
    assert not found[-1].any()
    assert torch.autograd.gradcheck(segment_max, (x, rows, ptr))
    assert torch.autograd.gradgradcheck(segment_max, (x, rows, ptr))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_segment_max_grad(dtype: torch.dtype) -> None:
    rows, ptr = windows()
    arg = segment_argmax(here(torch.randn(40, 5)), rows, ptr)
    grad = here(torch.randn(25, 5).to(dtype))
    order, back_ptr = group_by(rows, 40)
    segments = segment_of_entries(ptr, len(rows))[order.long()].int()
    found = ops.segment_max_grad(grad, arg, segments, back_ptr)
    wanted = twin(segment_max_grad_twin, grad.double(), arg, segments, back_ptr)
    assert found.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(found.cpu().double(), wanted, rtol=eps, atol=eps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_sum_rows(dtype: torch.dtype) -> None:
    x = here(torch.randn(5000, 7).to(dtype))
    torch.testing.assert_close(sum_rows(x).cpu(), twin(sum_rows_twin, x), rtol=1e-6, atol=1e-9)


def plan_of(sites: torch.Tensor, out: torch.Tensor, offsets: torch.Tensor) -> KernelMap:
    """The map of a convolution of stride 1, as a layer would get it."""
    dim = sites.shape[1] - 1
    one = (1,) * dim
    key = tuple(tuple(row) for row in offsets.tolist())
    first = Sites.checked(sites, one, None)
    last = first if out is sites else Sites.checked(out, one, None)
    return first.map_to(last, offsets, one, key, bool(torch.equal(offsets, -offsets.flip(0))))


@pytest.mark.parametrize("order", ["shuffled", "sorted"])
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
def test_conv(cin: int, cout: int, groups: int, order: str) -> None:
    sites = surface(150, batch=2)
    sites = torch.unique(sites, dim=0) if order == "sorted" else sites
    plan = plan_of(sites, sites, taps("cube", 3))
    pairs = tuple(t.cpu() for t in plan.pairs)
    x, weight = leaf(len(sites), cin), leaf(27, cin // groups, cout)
    bias = here(torch.randn(cout, dtype=torch.float64))
    out = conv(x, weight, bias, plan, len(sites), groups)
    with torch.no_grad():
        lone = conv(x, weight, bias, plan, len(sites), groups)
    assert torch.equal(out, lone)
    close(out, twin(conv_twin, x, weight, bias, pairs, len(sites), groups))
    grad = torch.randn(len(sites), cout, dtype=torch.float64)
    out.backward(here(grad))
    close(weight.grad, twin(conv_weight_grad_twin, x, grad, pairs, groups))
    wanted = x.detach().cpu().requires_grad_()
    conv_twin(wanted, weight.detach().cpu(), None, pairs, len(sites), groups).backward(grad)
    close(x.grad, wanted.grad)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("target", ["fewer", "the same"])
def test_conv_has_all_derivatives(groups: int, target: str) -> None:
    sites = surface(12, 2)
    out = sites[::2].contiguous() if target == "fewer" else sites
    plan = plan_of(sites, out, taps("cube", 3, dim=2))

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        return conv(*inputs, plan, len(out), groups)

    inputs = leaf(len(sites), 4), leaf(9, 4 // groups, 4), leaf(4)
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


ENDINGS = [(False, False), (False, True), (True, False), (True, True)]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("residual", "relu"), ENDINGS)
def test_batch_norm(affine: bool, residual: bool, relu: bool) -> None:
    x = leaf(30, 4) * 3 + 7
    scale, shift = (leaf(4), leaf(4)) if affine else (None, None)
    added = leaf(30, 4) if residual else None
    for found, wanted in zip(
        ops.batch_norm(x, scale, shift, added, relu, 1e-5),
        twin(batch_norm_twin, x, scale, shift, added, relu, 1e-5),
        strict=True,
    ):
        close(found, wanted)

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        return ops.batch_norm(*inputs, relu, 1e-5)[0]

    assert torch.autograd.gradcheck(run, (x, scale, shift, added))
    assert torch.autograd.gradgradcheck(run, (x, scale, shift, added))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("residual", "relu"), ENDINGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_normalize(dtype: torch.dtype, residual: bool, relu: bool, affine: bool) -> None:
    x = here((torch.randn(300, 5) * 3 + 7).to(dtype))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    mean, var = here(torch.randn(5, dtype=wide)), here(torch.rand(5, dtype=wide))
    scale, shift = (here(torch.randn(5, dtype=wide)) for _ in range(2)) if affine else (None, None)
    added = here(torch.randn(300, 5).to(dtype)) if residual else None
    args = (x, mean, var, scale, shift, added, relu, 1e-5)
    wanted = twin(normalize_twin, *args)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(ops.normalize(*args).cpu(), wanted, rtol=2 * eps, atol=16 * eps)


@pytest.mark.parametrize("channels", [(3, 5), (8, 16), (40, 72), (64, 200)])
@pytest.mark.parametrize(("residual", "relu"), ENDINGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_conv_norm_is_conv_then_normalize(
    dtype: torch.dtype, residual: bool, relu: bool, channels: tuple[int, int]
) -> None:
    sites, offsets = surface(300), taps("cube", 3)
    plan, _ = plan_of(sites, sites, offsets).lists(len(sites), False)
    cin, cout = channels
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x, weight = (here(torch.randn(s).to(dtype)) for s in ((len(sites), cin), (27, cin, cout)))
    mean, scale, shift = (here(torch.randn(cout, dtype=wide)) for _ in range(3))
    var, bias = here(torch.rand(cout, dtype=wide) + cin), here(torch.randn(cout).to(dtype))
    added = here(torch.randn(len(sites), cout).to(dtype)) if residual else None
    found = ops.conv_norm(
        x, weight, bias, plan, len(sites), 1, False, mean, var, scale, shift, 1e-3, added, relu
    )
    # The values between the two are rounded in one of the ways only.
    z = ops.conv(x.to(wide), weight.to(wide), bias.to(wide), plan, [], len(sites), 1, False)
    added = None if added is None else added.to(wide)
    wanted = ops.normalize(z, mean, var, scale, shift, added, relu, 1e-3)
    assert found.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(found.to(wide), wanted, rtol=4 * eps, atol=64 * eps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_wide_weight_gradient_is_the_narrow_one_before_rounding(dtype: torch.dtype) -> None:
    sites, offsets = surface(300), taps("cube", 3)
    lists = plan_of(sites, sites, offsets).lists(len(sites), True)
    for cin, cout, groups in ((3, 5, 1), (16, 32, 1), (64, 128, 1), (8, 8, 8)):
        x = here(torch.randn(len(sites), cin).to(dtype))
        grad = here(torch.randn(len(sites), cout).to(dtype))
        wide = ops.conv_weight_grad(x, grad, *lists, groups, False, True)
        assert wide.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        narrow = ops.conv_weight_grad(x, grad, *lists, groups, False, False)
        assert torch.equal(wide.to(dtype), narrow)


def test_batch_norm_tracked_is_batch_norm_that_moves_the_running_statistics() -> None:
    theirs = torch.nn.BatchNorm1d(5, momentum=0.3).double()
    x = here(torch.randn(30, 5, dtype=torch.float64) * 3 + 7)
    running = [here(t.clone()) for t in theirs.buffers()]
    found = ops.batch_norm_tracked(x, None, None, None, True, 1e-5, *running, 0.3)
    theirs(x.cpu())
    for ours, wanted in zip(running, theirs.buffers(), strict=True):
        close(ours, wanted)
    for ours, wanted in zip(found, ops.batch_norm(x, None, None, None, True, 1e-5), strict=True):
        assert torch.equal(ours, wanted)


def test_running_statistics() -> None:
    """As torch moves its own, in one call."""
    theirs = torch.nn.BatchNorm1d(5, momentum=0.3).double()
    x = torch.randn(30, 5, dtype=torch.float64) * 3 + 7
    ours = [here(t.clone()) for t in theirs.buffers()]
    for _ in range(2):
        theirs(x)
        ops.track_statistics(*ours, here(x.mean(0)), here(x.var(0, unbiased=False)), 30 / 29, 0.3)
    for found, wanted in zip(ours, theirs.buffers(), strict=True):
        close(found, wanted)


def opcheck_cases() -> dict[str, tuple]:
    torch.manual_seed(0)
    sites, offsets = surface(60), taps("cube", 3)
    index = build_index(sites)[0]
    pairs = list(pairs_of(sites, sites, offsets, (1, 1, 1)))
    plan, reverse = plan_of(sites, sites, offsets).lists(len(sites), True)
    rows, ptr = segments()
    x, grad = floats(len(sites), 4), floats(len(sites), 6)
    weight, bias, entries, table = floats(27, 4, 6), floats(6), floats(90), floats(40, 5)
    stats = [t.detach() for t in ops.batch_norm(x, None, None, None, False, 1e-5)[1:]]
    still = x.detach()
    running = [here(torch.zeros(4)), here(torch.ones(4)), here(torch.tensor(0))]
    wider = [here(torch.zeros(6)), here(torch.ones(6)), here(torch.tensor(0))]
    near, near_ptr = windows()
    arg = segment_argmax(table, near, near_ptr)
    order, back_ptr = group_by(near, 40)
    back = segment_of_entries(near_ptr, len(near))[order.long()].int()
    return {
        "unique_sites": (sites,),
        "strided_sites": (sites, [2, 3, 1]),
        "build_index": (sites, True),
        "lookup": (index, sites, sites),
        "reach_sites": (sites, offsets, [2, 2, 2], False, []),
        "kernel_map": (index, sites, sites, offsets, [1, 1, 1], False),
        "transpose_map": (*pairs, len(sites)),
        "group_by": (pairs[1], len(sites)),
        "point_sites": (here(torch.randn(9, 3)), None, [0.1] * 3, [0.0] * 3, []),
        "conv": (x, weight, bias, plan, reverse, len(sites), 1, False),
        "conv_weight_grad": (x, grad, plan, reverse, 1, False, False),
        "conv_norm": (
            *(still, weight.detach(), bias.detach(), plan, len(sites), 1, False),
            *(floats(6).detach(), floats(6).detach() ** 2, None, None, 1e-5, None, True),
        ),
        "conv_batch_norm": (
            *(still, weight.detach(), bias.detach(), plan, len(sites), 1, False),
            *(None, None, None, True, 1e-5, *wider, 0.1),
        ),
        "conv_batch_norm_backward": (
            *(grad.detach(), still, weight.detach(), plan, reverse, 1, False, True),
            *(grad.detach(), grad.detach(), None, wider[0], wider[1], 1e-5, 15),
        ),
        "segment_sum": (table, rows, ptr, entries, False),
        "segment_argmax": (table.detach(), rows, ptr),
        "segment_max_grad": (here(torch.randn(25, 5)), arg, back, back_ptr),
        "sum_rows": (x,),
        "batch_norm": (x, floats(4), floats(4), x, True, 1e-5),
        "batch_norm_tracked": (still, None, None, None, False, 1e-5, *running, 0.1),
        "batch_norm_backward": (still, still, still, None, *stats, 1e-5, True),
        "track_statistics": (*running, *stats, 1.5, 0.1),
        "normalize": (still, *stats, None, None, still, True, 1e-5),
    }


def floats(*shape: int) -> torch.Tensor:
    return here(torch.randn(*shape)).requires_grad_()


@pytest.mark.parametrize("name", opcheck_cases())
def test_opcheck(name: str) -> None:
    args = opcheck_cases()[name]
    checks = ["test_schema", "test_autograd_registration", "test_faketensor"]
    if name != "build_index" or not args[0].is_cuda:
        # Where a site stands in the hash table of a GPU is up to its threads; what is found is not.
        checks.append("test_aot_dispatch_dynamic")
    torch.library.opcheck(getattr(ops, name).default, args, test_utils=checks)
