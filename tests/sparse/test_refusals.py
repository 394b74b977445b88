"""Maps and sizes that the operators refuse: on the CPU, where looking at a map costs little."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from checks import check_conv
from conftest import surface

import perception
from perception import SparseTensor, nn
from perception._native import ops
from perception.sparse.kernel_map import KernelMap, kernel_map
from perception.sparse.offsets import kernel_offsets
from perception.sparse.ops import build_index


def test_a_map_of_other_features_is_refused() -> None:
    sites, offsets = surface(150, batch=2), kernel_offsets("cube", 3, dim=3)
    index = build_index(sites)[0]
    pairs = list(kernel_map(index, sites, sites, offsets, (1, 1, 1), False))
    x, weight = torch.randn(len(sites), 6), torch.randn(27, 6, 8)
    with pytest.raises(RuntimeError, match="rows that the features do not have"):
        ops.conv(x[:5], weight, None, pairs, [], len(x), 1, False)
    with pytest.raises(RuntimeError, match="rows that the features do not have"):
        ops.conv(x, weight, None, pairs, [], 5, 1, False)


def test_row_counts_of_forged_sizes_are_refused_or_carried() -> None:
    """Two thousand million rows by stride zero: the type's limit is met before any memory is."""
    sites = torch.zeros(1, 4, dtype=torch.int32).expand(2**31, 4)
    with pytest.raises(RuntimeError, match=r"2\^31 - 1"):
        ops.unique_sites(sites)
    with pytest.raises(RuntimeError, match=r"2\^31 - 1"):
        ops.build_index(sites, True)
    with torch.device("meta"):
        rows = 2**31 - 1
        x, weight = torch.empty(rows, 8), torch.empty(27, 8, 16)
        pairs = [torch.empty(9 * rows, dtype=torch.int32)] * 2 + [
            torch.empty(28, dtype=torch.int64)
        ]
        grad = torch.empty(rows, 16)
        assert ops.conv(x, weight, None, pairs, [], rows, 1, False).shape == (rows, 16)
        assert ops.conv_weight_grad(x, grad, pairs, [], 1, False, False).shape == (27, 8, 16)


@pytest.mark.parametrize(("inputs", "outputs"), [(300, 100), (100, 300), (300, 300)])
def test_sites_that_share_memory_need_not_be_the_same(inputs: int, outputs: int) -> None:
    sites = torch.unique(surface(900), dim=0)[:300]
    x = SparseTensor(torch.randn(inputs, 2).double(), sites[:inputs])
    x.features.requires_grad_()
    wanted = [tuple(site) for site in sites[:outputs].tolist()]
    layer = nn.Conv(2, 3).double()
    taps = layer.offsets.tolist()
    check_conv(layer, x, taps, stride=(1, 1, 1), expected=wanted, sites=sites[:outputs])


def test_a_tap_at_the_end_of_int32_is_not_its_own_opposite() -> None:
    sites = torch.zeros(5, 5, dtype=torch.int32)
    sites[:, 1] = torch.arange(5)
    layer = nn.Conv(1, 1, dim=4, bias=False, kernel=torch.tensor([[-(2**31), 0, 0, 0]]))
    assert not layer(SparseTensor(torch.ones(5, 1), sites)).features.any()


def test_strides_beyond_int32_and_layers_without_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"stride is .* above 2147483647"):
        nn.Conv(1, 1, stride=(2**40, 1, 1))
    sites = surface(50)
    rows = torch.arange(len(sites), dtype=torch.int32)
    identity = KernelMap((rows, rows, torch.tensor([0, len(sites)])), monotone=True)
    for given, made in ((0, 4), (4, 0)):
        x, weight = torch.ones(len(sites), given), torch.ones(1, given, made)
        with pytest.raises(ValueError, match="no layer without channels"):
            perception.sparse.conv(x, weight, None, identity, len(sites))


def test_maps_of_ones_own_may_be_views() -> None:
    rows = torch.arange(12, dtype=torch.int32)
    ends, steps = torch.tensor([0, 3]), rows[::2][:3]
    x, weight = torch.randn(12, 4, requires_grad=True), torch.randn(1, 4, 2)
    y = perception.sparse.conv(x, weight, None, KernelMap((steps, rows[:3], ends), False), 3)
    assert torch.allclose(y, x[[0, 2, 4]] @ weight[0], atol=1e-6)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.any(1).nonzero().flatten().tolist() == [0, 2, 4]


X, ROWS = torch.randn(6, 4), torch.arange(6, dtype=torch.int32)
SITES = torch.nn.functional.pad(torch.arange(6, dtype=torch.int32)[:, None], (1, 0))
NOTHING = torch.empty(0, dtype=torch.int64)
MISUSES: dict[str, Callable[[], object]] = {
    "ptr does not rise": lambda: ops.segment_sum(X, ROWS, torch.tensor([0, 5, 2, 6]), None, False),
    "transpose_map: ptr does not rise": lambda: ops.transpose_map(
        ROWS, ROWS, torch.tensor([0, 9, 6]), 6
    ),
    "in_rows and out_rows differ in length": lambda: ops.transpose_map(
        ROWS, ROWS[:5], torch.tensor([0, 6]), 6
    ),
    "tensors must be contiguous": lambda: ops.conv(
        X, torch.ones(1, 4, 2), None, [ROWS[::2], ROWS[::2], torch.tensor([0, 3])], [], 6, 1, False
    ),
    r"mean and var must be \[C\]": lambda: ops.batch_norm_backward(
        X, X, None, None, torch.zeros(3), torch.ones(3), 1e-5, False
    ),
    "not one that build_index has filled": lambda: ops.lookup(NOTHING, SITES, SITES),
    "a stride of 0": lambda: ops.reach_sites(SITES, SITES[:1, 1:], [0], False, []),
    "a stride of 1099511627776": lambda: ops.kernel_map(
        None, SITES, SITES, SITES[:1, 1:], [2**40], False
    ),
    "from sites to themselves": lambda: ops.kernel_map(
        None, SITES, SITES[:5], SITES[:1, 1:], [1], True
    ),
}


@pytest.mark.parametrize("message", MISUSES)
def test_operators_refuse_what_would_read_foreign_memory(message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        MISUSES[message]()


EXHAUSTED = """
import resource, torch
from perception import SparseTensor, nn

torch.set_num_threads(1)
axes = [torch.arange(n) for n in (1, 32, 16, 64)]
sites = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 4).int()


def pairs(layer):
    return layer.plan(SparseTensor(torch.ones(len(sites), 1), sites))[0].num_pairs


small, large = nn.Conv(1, 1, 3), nn.Conv(1, 1, 17)
before = pairs(small)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (6 << 20), resource.RLIM_INFINITY))
try:
    pairs(large)
except RuntimeError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert pairs(small) == before
print("goes on")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_work_goes_on_after_memory_was_exhausted() -> None:
    done = subprocess.run([sys.executable, "-c", EXHAUSTED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bytes of scratch" in done.stdout
    assert "goes on" in done.stdout
